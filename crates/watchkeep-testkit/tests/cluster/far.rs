//! Machines that are far from the cluster, and machines whose clocks differ.

use std::sync::Arc;
use std::time::Duration;

use watchkeep::{Filter, Kind, ManualClock, SetOptions, Store, Timestamp, WatchOptions};
use watchkeep_testkit::surface::{Fault, patient};

use crate::machines::{next, place};
use crate::scene::Scene;

/// How long a message of each store is under way.
const SLOW: [Duration; 3] = [Duration::from_millis(5), Duration::from_millis(20), Duration::from_millis(40)];
/// How far the clocks are apart, and how long entries live.
pub(crate) const AHEAD: Duration = Duration::from_secs(3_600);
const TTL: Duration = Duration::from_secs(600);

#[test]
fn slow_links_cost_time_and_no_write_and_no_event() -> Result<(), Fault> {
    let scene = Scene::new()?;
    scene.proxies.iter().zip(SLOW).for_each(|(proxy, slow)| proxy.slow_down(slow));
    scene.run(0).map(drop)
}

/// A store whose clock is ahead by so much.
pub(crate) fn store_ahead(place: &str, ahead: Duration) -> Result<(Arc<ManualClock>, Store), Fault> {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
    clock.advance(ahead);
    let store = patient().clock(clock.clone()).connect(place)?;
    Ok((clock, store))
}

/// Two stores on one place: the clock of the second is ahead.
pub(crate) fn stores(place: &str) -> Result<[(Arc<ManualClock>, Store); 2], Fault> {
    Ok([store_ahead(place, Duration::ZERO)?, store_ahead(place, AHEAD)?])
}

#[test]
fn what_is_due_by_one_clock_expires_once_and_a_clock_that_is_behind_brings_nothing_back() -> Result<(), Fault>
{
    let place = place()?;
    let [(_, behind), (clock, ahead)] = stores(&place)?;
    let (mut one, mut other) = (behind.watch("g", "*"), ahead.watch("g", "*"));
    let deadline = SetOptions::new().ttl(TTL);
    // Its deadline is over where the clock is ahead, which finds that out by itself.
    behind.set_with("g", "k", "v", deadline.clone())?;
    let kinds = |watcher: &mut watchkeep::Watcher| -> Result<_, Fault> {
        Ok([next(watcher)?, next(watcher)?].map(|event| (event.kind(), event.revision())))
    };
    let told = kinds(&mut one)?;
    assert_eq!(told.map(|(kind, _)| kind), [Kind::Set, Kind::Expire]);
    assert_eq!(kinds(&mut other)?, told, "both are told the same");
    assert_eq!([behind.get("g", "k")?, ahead.get("g", "k")?], [None, None]);
    // One that the other sets lives by that one's deadline, everywhere.
    ahead.set_with("g", "k", "w", deadline)?;
    assert_eq!(behind.get("g", "k")?, Some("w".into()));
    clock.advance(TTL);
    let last = loop {
        let event = next(&mut one)?;
        if event.kind() == Kind::Expire {
            break event.revision();
        }
    };
    let all = behind
        .history(Filter::everything(), watchkeep::Revision::ZERO)
        .collect::<watchkeep::Result<Vec<_>>>()?;
    assert_eq!(
        all.iter().map(|event| event.kind()).collect::<Vec<_>>(),
        [Kind::Set, Kind::Expire, Kind::Set, Kind::Expire]
    );
    assert_eq!(all.last().map(|event| event.revision()), Some(last), "each of them once");
    // Positions go on: they are the cluster's, and no clock's.
    let after = WatchOptions::new().after(last);
    let mut late = ahead.watch_with(Filter::everything(), after)?;
    let revision = behind.set("g", "k", "x")?;
    assert_eq!(next(&mut late)?.revision(), revision);
    Ok(())
}
