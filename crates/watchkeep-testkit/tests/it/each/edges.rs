//! Corners that were wrong once, each small enough to be read.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use watchkeep::{
    Clock, Durability, ErrorKind, Filter, LagPolicy, ManualClock, Options, Quota, Revision, SetOptions,
    Store, Timestamp, WatchOptions, Watcher,
};

use super::{Fault, revisions};

/// A clock that tells nobody when it is moved, so that the store's timer is late.
#[derive(Debug, Default)]
struct Silent(Mutex<i64>);

impl Silent {
    fn advance(&self, millis: i64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += millis;
    }
}

impl Clock for Silent {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_000_000 + *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[test]
fn a_watcher_that_lags_when_the_store_closes_is_drained_in_order() -> Result<(), Fault> {
    for buffer in 1..6 {
        let store = Store::open_in_memory()?;
        let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().buffer(buffer))?;
        for number in 0..10 {
            store.set("g", "k", number.to_string())?;
        }
        store.close()?;
        let events = (&mut watcher).collect::<Result<Vec<_>, _>>()?;
        assert_eq!(revisions(&events), (1..=10).collect::<Vec<_>>());
    }
    Ok(())
}

#[test]
fn values_before_are_known_when_the_store_is_closed() -> Result<(), Fault> {
    let store = Store::open_in_memory()?;
    let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().previous_values())?;
    store.set("g", "k", "one")?;
    store.set("g", "k", "two")?;
    store.close()?;
    let events = (&mut watcher).collect::<Result<Vec<_>, _>>()?;
    let before = events.last().and_then(|event| event.previous_value());
    assert_eq!(before.and_then(|value| value.as_str()), Some("one"));
    Ok(())
}

/// Group commit takes writes along that were made after it began. They are made at their own time, not at its.
#[test]
fn a_write_that_is_taken_along_is_made_at_its_own_time() -> Result<(), Fault> {
    let clock = Arc::new(Silent::default());
    let store = Options::new().clock(clock.clone()).open_in_memory()?;
    store.set_with_ttl("g", "k", "old", Duration::from_millis(10))?;
    let (begun, wait_for_begin) = mpsc::channel();
    let (called, wait_for_call) = mpsc::channel();
    let written = std::thread::scope(|scope| {
        let store = &store;
        let writer = scope.spawn(move || {
            wait_for_begin.recv().ok();
            // It is due, so nobody sees it: the key can be made anew.
            assert!(store.get("g", "k").unwrap().is_none());
            called.send(()).ok();
            store.set_with("g", "k", "new", SetOptions::new().if_absent())
        });
        let done = store.transaction(|tx| {
            clock.advance(20);
            begun.send(()).ok();
            wait_for_call.recv().ok();
            // Long enough for the other write to stand in the queue; if it does not, nothing is shown.
            let (_nobody, nothing) = mpsc::channel::<()>();
            nothing.recv_timeout(Duration::from_millis(100)).ok();
            tx.set("other", "k", "v")
        });
        done.and(writer.join().map_err(|_| watchkeep::Error::abort("the writer panicked"))?)
    });
    assert!(written.is_ok(), "what nobody sees was in the way: {written:?}");
    Ok(())
}

/// What is due takes no place, whether the timer has come to it or not.
#[test]
fn a_quota_counts_what_can_be_seen() -> Result<(), Fault> {
    let clock = Arc::new(Silent::default());
    let store = Options::new().clock(clock.clone()).open_in_memory()?;
    let tenant = store.scoped("tenant")?;
    tenant.set("g", "a", "v")?;
    tenant.set("g", "b", "v")?;
    tenant.set_with_ttl("g", "due", "v", Duration::from_millis(10))?;
    clock.advance(20);
    // Two keys can be seen, two are allowed: there is no place for a third.
    let limited = tenant.with_quota(Quota { max_keys: 2, ..Quota::default() })?;
    let refused = limited.set("g", "due", "v").map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::QuotaExceeded));
    limited.set("g", "a", "w")?;
    Ok(())
}

/// A group in which everything is due takes no place either.
#[test]
fn a_quota_counts_groups_that_can_be_seen() -> Result<(), Fault> {
    let clock = Arc::new(Silent::default());
    let store = Options::new().clock(clock.clone()).open_in_memory()?;
    let tenant = store.scoped("tenant")?;
    tenant.set("a", "k", "v")?;
    tenant.set("b", "k", "v")?;
    tenant.set_with_ttl("due", "k", "v", Duration::from_millis(10))?;
    clock.advance(20);
    let limited = tenant.with_quota(Quota { max_groups: 2, ..Quota::default() })?;
    let refused = limited.set("due", "another", "v").map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::QuotaExceeded));
    assert_eq!(limited.groups("").collect::<Result<Vec<_>, _>>()?, ["a", "b"]);
    Ok(())
}

/// Entries of a group that was deleted are swept at leisure; they do not expire.
#[test]
fn what_is_purged_is_what_could_be_seen() -> Result<(), Fault> {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).open_in_memory()?;
    for round in 0..20 {
        for number in 0..30 {
            store.set_with_ttl("g", &number.to_string(), "v", Duration::from_secs(1))?;
        }
        store.delete_group("g")?;
        clock.advance(Duration::from_secs(2));
        assert_eq!(store.purge_expired()?, 0, "in round {round}");
    }
    Ok(())
}

/// A watcher that drops, and is left behind while it joins the live feed, reads on from the log: what it had counted as
/// dropped comes after all, and must not stay counted.
#[test]
fn what_is_counted_as_dropped_does_not_come() -> Result<(), Fault> {
    let folder = tempfile::tempdir()?;
    let open = || Options::new().durability(Durability::Relaxed).open(folder.path().join("store.db"));
    let (store, other) = (open()?, open()?);
    for number in 1..=10 {
        store.set("g", "k", number.to_string())?;
    }
    let options = WatchOptions::new().after(Revision::ZERO).policy(LagPolicy::Drop).buffer(1);
    let mut watcher = store.watch_with(Filter::everything(), options)?;
    let mut events = Vec::new();
    let mut take = |watcher: &mut Watcher, count: usize| -> Result<(), Fault> {
        for event in std::iter::from_fn(|| watcher.try_recv()).take(count) {
            events.push(event?.revision().get());
        }
        Ok(())
    };
    // It has read a page of the log when more is written: it joins, and is fed from then on.
    take(&mut watcher, 1)?;
    for number in 11..=15 {
        store.set("g", "k", number.to_string())?;
    }
    take(&mut watcher, 9)?;
    for number in 16..=18 {
        store.set("g", "k", number.to_string())?;
    }
    // Another process writes so much that the store does not replay it to everybody.
    other.transaction(|tx| (0..2_000).try_for_each(|number| tx.set("other", &number.to_string(), "v")))?;
    store.set("g", "k", "last")?;
    take(&mut watcher, usize::MAX)?;
    let (seen, dropped) = (u64::try_from(events.len())?, watcher.dropped());
    assert_eq!(seen + dropped, store.last_revision()?.get(), "{seen} seen and {dropped} dropped");
    Ok(())
}
