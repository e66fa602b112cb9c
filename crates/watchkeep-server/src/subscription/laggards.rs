//! Clients that fell out of their ring, and read the log page by page.

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::timeout;
use watchkeep::Store;

use super::*;
use crate::ending::Ending;
use crate::limits::{CHANGES, LAGGARDS};

/// Far longer than anything takes that goes right.
const LIMIT: Duration = Duration::from_secs(30);

async fn next(subscription: &mut Subscription) -> Option<Told> {
    poll_fn(|cx| Pin::new(&mut *subscription).poll_next(cx)).await
}

fn wanted(gate: &Gate, filter: Filter) -> Wanted {
    Wanted {
        filter,
        weight: 0,
        snapshots: Snapshots::Never,
        after: Some(gate.position(Revision::ZERO)),
        exclude_origin: None,
        values: Values::All,
    }
}

/// The next so many, which must be changes.
async fn changes(subscription: &mut Subscription, many: usize) -> Result<Vec<Revision>, Problem> {
    let come = async {
        let mut revisions = Vec::new();
        while revisions.len() < many {
            match next(subscription).await {
                Some(Told::Change { change, .. }) => revisions.push(change.revision()),
                Some(Told::Heartbeat(_)) => {}
                other => return Err(Problem::bad(format!("{other:?} instead of a change"))),
            }
        }
        Ok(revisions)
    };
    timeout(LIMIT, come).await.map_err(|_| Problem::bad("nothing came"))?
}

#[tokio::test]
async fn who_fell_out_of_the_ring_does_not_wait_for_those_who_stall() -> Result<(), Problem> {
    let (store, many) = (Store::open_in_memory()?, CHANGES * 5 / 2);
    store.transaction(|tx| (0..many).try_for_each(|n| tx.set("g", &n.to_string(), "v").map(drop)))?;
    let gate = Gate::new(&store, Ending::never());
    let wanted = wanted(&gate, Filter::everything());
    let (mut first, mut others) = (Subscription::begin(&gate, wanted.clone()).await?, Vec::new());
    assert!(matches!(next(&mut first).await, Some(Told::Ready(_))));
    // The ring began at the end, so all of them are behind it. So many have a page each, and stall.
    let mut seen = changes(&mut first, 1).await?;
    for _ in 1..LAGGARDS {
        let mut other = Subscription::begin(&gate, wanted.clone()).await?;
        assert!(matches!(next(&mut other).await, Some(Told::Ready(_))));
        changes(&mut other, 1).await?;
        others.push(other);
    }
    let mut last = Subscription::begin(&gate, wanted).await?;
    assert!(matches!(next(&mut last).await, Some(Told::Ready(_))));
    let whole: Vec<_> = (1..=many).map(|n| Revision::new(n.try_into().unwrap_or(0))).collect();
    // Nobody else moves.
    assert!(changes(&mut last, many).await? == whole);
    seen.extend(changes(&mut first, many - 1).await?);
    assert!(seen == whole);
    for other in &mut others {
        changes(other, many - 1).await?;
    }
    Ok(())
}

#[tokio::test]
async fn who_fell_out_of_the_ring_gets_past_what_it_does_not_want() -> Result<(), Problem> {
    let (store, many) = (Store::open_in_memory()?, CHANGES * 5 / 2);
    store.transaction(|tx| (0..many).try_for_each(|n| tx.set("g", &n.to_string(), "v").map(drop)))?;
    let rare = store.set("rare", "k", "v")?;
    store.transaction(|tx| (0..many).try_for_each(|n| tx.set("g", &n.to_string(), "v").map(drop)))?;
    let gate = Gate::new(&store, Ending::never());
    let wanted = wanted(&gate, Filter::group("rare"));
    let mut client = Subscription::begin(&gate, wanted).await?;
    assert!(matches!(next(&mut client).await, Some(Told::Ready(_))));
    assert_eq!(changes(&mut client, 1).await?, [rare]);
    let new = store.set("rare", "k", "new")?;
    assert_eq!(changes(&mut client, 1).await?, [new]);
    Ok(())
}
