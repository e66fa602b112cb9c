//! What retention keeps for named consumers, and up to where.

use std::sync::Arc;
use std::time::Duration;

use crate::support::consumers::{at, from_the_beginning, listed, with, write};
use crate::support::needs::needs;
use crate::support::{Anywhere as _, Result, eventually, file_of, next, revisions, take};
use watchkeep::{Clock, ErrorKind, Force, ManualClock, Options, Retention, Store};

fn small(ceiling: Retention) -> Result<(Arc<ManualClock>, Store)> {
    let (clock, options) = options(ceiling);
    Ok((clock, options.anywhere()?))
}

fn options(ceiling: Retention) -> (Arc<ManualClock>, Options) {
    let clock = Arc::new(ManualClock::default());
    let retention = Retention { max_events: 10, min_events: 5, ..ceiling };
    (clock.clone(), Options::new().retention(retention).clock(clock))
}

fn first(store: &Store) -> Result<u64> {
    Ok(store.stats()?.first_revision.get())
}

#[test]
fn retention_keeps_what_a_consumer_still_needs() -> Result {
    needs!(Trimming);
    let (_, store) = small(Retention::FOREVER)?;
    let mut consumer = store.consumer("c")?;
    let events = write(&store, 2_000).and_then(|()| take(&mut consumer, 2_000))?;
    // Time for the trimmer, which without the consumer takes what it may.
    let control = small(Retention::FOREVER)?.1;
    write(&control, 2_000)?;
    eventually("the log without a consumer is trimmed", || Ok(first(&control)? > 1_900))?;
    store.purge_expired()?;
    assert_eq!(first(&store)?, 1);
    consumer.ack(at(1_000))?;
    eventually("what is acknowledged goes", || Ok(first(&store)? == 1_001))?;
    drop(consumer);
    let mut again = store.consumer("c")?;
    assert_eq!(revisions(&take(&mut again, 1_000)?), revisions(&events[1_000..]));
    again.ack(at(2_000))?;
    eventually("the rest goes as ever", || Ok(first(&store)? > 1_900))?;
    assert!(store.check()?.is_ok());
    Ok(())
}

/// Writes until the log has passed what a consumer holds back, and reads what became of it.
fn passes_the_ceiling(
    ceiling: Retention,
    more: impl FnOnce(&ManualClock, &Store) -> Result,
    then: impl FnOnce(&Store) -> Result,
) -> Result {
    let folder = tempfile::tempdir()?;
    let (clock, options) = options(ceiling);
    let store = &options.open(folder.path().join("app.db"))?;
    let mut behind = store.consumer("behind")?;
    write(store, 10)?;
    take(&mut behind, 2)?;
    behind.ack(at(2))?;
    drop(behind);
    write(store, 10)?;
    more(&clock, store)?;
    eventually("the log passes the ceiling", || Ok(listed(store, "behind")?.lost.is_some()))?;
    // Through another handle: this one may still remember what is gone.
    let store = &Options::new().create(false).clock(clock.clone()).open(file_of(store))?;
    let mut behind = store.consumer("behind")?;
    let lost = behind.recv().ok_or("nothing")?.err().and_then(|error| error.lagged()).ok_or("not told")?;
    assert_eq!((lost.from, at(lost.to.get() + 1)), (at(3), store.stats()?.first_revision));
    let event = next(&mut behind)?;
    assert_eq!(event.revision(), at(lost.to.get() + 1));
    behind.ack(event.revision())?;
    assert_eq!(listed(store, "behind")?.lost, None);
    then(store)
}

#[test]
fn past_the_ceiling_by_age_events_go_and_the_consumer_is_told() -> Result {
    let age = Duration::from_secs(3_600);
    let by_age = Retention { consumer_age: age, ..Retention::FOREVER };
    let more = |clock: &ManualClock, store: &Store| {
        clock.advance(age - Duration::from_millis(1));
        write(store, 300)?;
        store.purge_expired()?;
        eventually("what is acknowledged goes", || Ok(first(store)? >= 3))?;
        assert_eq!(first(store)?, 3, "it is not past the ceiling yet");
        clock.advance(Duration::from_millis(2));
        Ok(())
    };
    passes_the_ceiling(by_age, more, |_| Ok(()))
}

#[test]
fn an_event_of_the_future_does_not_lift_the_ceiling_by_age() -> Result {
    needs!(Trimming);
    let age = Duration::from_secs(3_600);
    let (clock, store) = small(Retention { consumer_age: age, ..Retention::FOREVER })?;
    let right = clock.now();
    let mut behind = store.consumer("behind")?;
    write(&store, 1)?;
    take(&mut behind, 1)?;
    behind.ack(at(1))?;
    drop(behind);
    clock.advance(age * 1_000);
    store.set("g", "k", "written while the clock was wrong")?;
    clock.set(right);
    write(&store, 300)?;
    clock.advance(age * 2);
    eventually("the log passes the ceiling", || Ok(listed(&store, "behind")?.lost.is_some()))
}

#[test]
fn past_the_ceiling_by_bytes_events_go_and_the_consumer_is_told() -> Result {
    let by_bytes = Retention { consumer_bytes: 10_000, ..Retention::FOREVER };
    let more = |_: &ManualClock, store: &Store| {
        (0..300).try_for_each(|n| store.set("g", &n.to_string(), vec![b'v'; 100]).map(drop))?;
        eventually("as much goes as may", || Ok(store.stats()?.log_bytes <= 10_000))
    };
    passes_the_ceiling(by_bytes, more, |store| {
        let stats = store.stats()?;
        assert!(stats.log_bytes > 9_000, "{} bytes are kept", stats.log_bytes);
        Ok(())
    })
}

#[test]
fn the_ceiling_of_an_open_store_stands_in_the_file() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.db");
    let chosen =
        Retention { consumer_bytes: 7, consumer_age: Duration::from_secs(9), ..Retention::default() };
    Options::new().retention(chosen).open(&path)?.close()?;
    assert_eq!(Store::open(&path)?.stats()?.retention, chosen);
    Ok(())
}

#[test]
fn compacting_by_hand_takes_nothing_from_a_consumer_unless_forced() -> Result {
    needs!(Trimming);
    let store = with(10)?;
    let mut consumer = store.consumer_with("c", from_the_beginning())?;
    take(&mut consumer, 4)?;
    consumer.ack(at(4))?;
    let refused = store.compact(at(9)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Held);
    assert!(refused.to_string().contains("\"c\"") && refused.to_string().contains("after 4"), "{refused}");
    assert_eq!(first(&store)?, 1);
    assert_eq!(store.compact(at(5))?, 4);
    assert_eq!(store.compact_with(at(9), Force::Yes)?, 4);
    assert_eq!(listed(&store, "c")?.lost.map(|lost| (lost.from, lost.to)), Some((at(5), at(8))));
    Ok(())
}
