//! What a store counts, number by number.

use std::sync::Arc;
use std::time::Duration;

use watchkeep::{Counters, Filter, LagPolicy, ManualClock, Options, Retention, Store, WatchOptions, Watcher};

use crate::support::needs::needs;
use crate::support::{Anywhere as _, Result, eventually, take};

fn store() -> Result<Store> {
    Ok(Options::new().retention(Retention::FOREVER).anywhere()?)
}

fn watch(store: &Store, options: WatchOptions) -> Result<Watcher> {
    Ok(store.watch_with(Filter::group("g"), options)?)
}

fn write(store: &Store, many: u64) -> Result {
    (0..many).try_for_each(|number| store.set("g", &number.to_string(), "v").map(drop))?;
    Ok(())
}

/// Everything that a scene says nothing of.
fn since(before: Counters, now: Counters) -> [u64; 7] {
    [
        now.commits - before.commits,
        now.events - before.events,
        now.deliveries - before.deliveries,
        now.fell_behind - before.fell_behind,
        now.rejoined - before.rejoined,
        now.lost - before.lost,
        now.dropped - before.dropped,
    ]
}

#[test]
fn commits_events_and_deliveries_are_counted_for_what_happened() -> Result {
    let store = store()?;
    assert_eq!(store.counters(), Counters::default());
    write(&store, 3)?;
    store.transaction(|tx| {
        tx.set("g", "a", "1")?;
        tx.set("g", "b", "2")?;
        tx.set("other", "c", "3")
    })?;
    // Nothing changes, and nothing is announced.
    assert!(!store.delete("g", "missing")?);
    assert_eq!(since(Counters::default(), store.counters()), [4, 6, 0, 0, 0, 0, 0]);

    let before = store.counters();
    let mut watchers = [watch(&store, WatchOptions::new())?, watch(&store, WatchOptions::new())?];
    let _callback = store.on_change(|_| {});
    assert_eq!(store.counters().watchers, 2);
    write(&store, 5)?;
    store.set("other", "c", "4")?;
    // Delivered is what was taken.
    assert_eq!(since(before, store.counters()), [6, 6, 0, 0, 0, 0, 0]);
    take(&mut watchers[0], 5)?;
    take(&mut watchers[1], 2)?;
    assert_eq!(since(before, store.counters()), [6, 6, 7, 0, 0, 0, 0]);
    drop(watchers);
    assert_eq!(store.counters().watchers, 0);

    let before = store.counters();
    let mut shown = watch(&store, WatchOptions::new().snapshot())?;
    let entries = store.count("g")?;
    take(&mut shown, usize::try_from(entries)?)?;
    assert_eq!(since(before, store.counters()), [0, 0, entries, 0, 0, 0, 0]);
    assert_eq!(store.scoped("n")?.counters(), store.counters());
    Ok(())
}

#[test]
fn leaving_the_buffer_and_coming_back_are_counted_once_each() -> Result {
    let store = store()?;
    let mut watcher = watch(&store, WatchOptions::new().buffer(2))?;
    for round in 1..=3 {
        write(&store, 10)?;
        assert_eq!(since(Counters::default(), store.counters())[3..5], [round, round - 1]);
        take(&mut watcher, 10)?;
        assert!(watcher.try_recv().is_none());
        assert_eq!(since(Counters::default(), store.counters())[2..], [10 * round, round, round, 0, 0]);
    }
    Ok(())
}

#[test]
fn what_was_trimmed_and_what_was_dropped_are_counted_apart() -> Result {
    needs!(Trimming);
    let store = store()?;
    let mut behind = watch(&store, WatchOptions::new().buffer(1))?;
    let mut dropping = watch(&store, WatchOptions::new().buffer(4).policy(LagPolicy::Drop))?;
    write(&store, 10)?;
    let last = store.last_revision()?;
    store.compact(last)?;
    // One is in the buffer, the last is in the log, and eight lie between them.
    assert!(behind.try_recv().is_some_and(|event| event.is_ok()));
    assert!(behind.try_recv().is_some_and(|lost| lost.is_err()));
    take(&mut behind, 1)?;
    take(&mut dropping, 4)?;
    assert_eq!(since(Counters::default(), store.counters()), [10, 10, 6, 1, 1, 8, 6]);
    Ok(())
}

#[test]
fn expiries_and_how_late_they_were_are_counted() -> Result {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).anywhere()?;
    for (key, seconds) in [("a", 1), ("b", 2), ("c", 60)] {
        store.set_with_ttl("g", key, "v", Duration::from_secs(seconds))?;
    }
    clock.advance(Duration::from_secs(4));
    eventually("five seconds, and two entries", || {
        let now = store.counters();
        Ok((now.expired, now.events, now.lateness) == (2, 5, Duration::from_secs(5)))
    })?;
    Ok(())
}
