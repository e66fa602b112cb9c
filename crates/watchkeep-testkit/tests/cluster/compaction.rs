//! Stores that compact their cluster themselves. They take from everybody's history, so each run has a cluster of its own,
//! and one test at a time has it.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use watchkeep::{
    Clock as _, Compaction, Consumer, ConsumerOptions, ConsumerStart, ErrorKind, Event, Filter, Force,
    ManualClock, Options, Retention, Revision, Store, Timestamp, WatchOptions,
};
use watchkeep_testkit::surface::{Fault, patient};

use crate::machines::{HISTORY, etcdctl, next, place};

const LIMIT: Duration = Duration::from_secs(60);
/// How often a number stands in its value: so often that the value stands apart from the feed.
const VALUE: usize = 5_000;
/// How far a commit's last revision is from that of the next one, in a cluster, at the least.
const PER_COMMIT: u64 = 4_096;
/// Less than the margin for those who follow.
const YOUNG: Duration = Duration::from_secs(60);
/// More than the margin for those who follow.
const LATER: Duration = Duration::from_secs(600);

fn own(clock: &Arc<ManualClock>, retention: Retention) -> Options {
    patient().clock(clock.clone()).compaction(Compaction::Own).retention(retention)
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)))
}

fn history(store: &Store) -> Result<Vec<Event>, Fault> {
    Ok(store.history(Filter::everything(), Revision::ZERO).collect::<watchkeep::Result<Vec<_>>>()?)
}

/// What a store that is opened now can read of the past.
fn read_anew(place: &str) -> Result<Vec<Event>, Fault> {
    history(&patient().connect(place)?)
}

fn set(store: &Store, numbers: std::ops::Range<u32>) -> Result<Vec<Revision>, Fault> {
    let value = |number: u32| format!("{number}").repeat(VALUE);
    Ok(numbers.map(|number| store.set("g", "k", value(number))).collect::<watchkeep::Result<Vec<_>>>()?)
}

/// Waits until the past begins after this revision, while the store writes a little; what is left of it.
fn until_gone(store: &Store, place: &str, gone: Revision) -> Result<Vec<Event>, Fault> {
    let until = Instant::now() + LIMIT;
    loop {
        store.set("g", "tick", "x")?;
        if store.stats()?.first_revision > gone {
            let events = read_anew(place)?;
            let first = events.first().map(Event::revision);
            assert!(first > Some(gone), "{first:?} can be read, and {gone} was to be gone");
            return Ok(events);
        }
        if Instant::now() > until {
            return Err(format!("nothing is compacted up to {gone}").into());
        }
        // A moment for the chores.
        drop(store.watch("nobody", "*").recv_timeout(Duration::from_millis(20)));
    }
}

#[test]
fn compaction_is_left_to_others_unless_it_is_asked_for() -> Result<(), Fault> {
    let _alone = HISTORY.lock().unwrap_or_else(PoisonError::into_inner);
    let place = place()?;
    let store = patient().retention(Retention::events(1)).connect(&place)?;
    set(&store, 0..3)?;
    let refused = store.compact(store.last_revision()?).expect_err("the history is everybody's");
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.to_string().contains("Compaction::Own"), "{refused}");
    assert_eq!(store.stats()?.retention, Retention::FOREVER);
    // It is a setting of the store: who opens it later has it, and may take it back.
    patient().compaction(Compaction::Own).connect(&place)?;
    let late = patient().connect(&place)?;
    assert_eq!(late.stats()?.retention, Retention::events(1));
    late.compact(late.last_revision()?)?;
    patient().compaction(Compaction::Never).connect(&place)?;
    assert!(store.compact(store.last_revision()?).is_err());
    Ok(())
}

#[test]
fn compaction_now_takes_what_comes_before_and_nothing_else() -> Result<(), Fault> {
    let _alone = HISTORY.lock().unwrap_or_else(PoisonError::into_inner);
    let (place, clock) = (place()?, clock());
    let store = own(&clock, Retention::FOREVER).connect(&place)?;
    let revisions = set(&store, 0..6)?;
    let [_, second, third, _, _, last] = revisions[..] else { return Err("six sets".into()) };
    let from_the_beginning = ConsumerOptions::new().start(ConsumerStart::Beginning);
    let mut seen = store.consumer_with("seen", from_the_beginning)?;
    next_of(&mut seen)?;
    next_of(&mut seen)?;
    seen.ack(second)?;
    drop(seen);
    let held = store.compact(last).expect_err("a consumer needs it");
    assert_eq!(held.kind(), ErrorKind::Held);
    assert_eq!(store.compact(third)?, 1, "the transaction before stays readable");
    let after = |revision| -> Result<_, Fault> {
        let other = patient().connect(&place)?;
        let options = WatchOptions::new().after_cursor(other.cursor(revision));
        let watcher = other.watch_with(Filter::everything(), options)?;
        Ok((other, watcher))
    };
    // Values of any size are there, of all that was not compacted.
    let (_here, mut watcher) = after(second)?;
    for (number, revision) in (2..6).zip(&revisions[2..]) {
        let event = next(&mut watcher)?;
        assert_eq!(event.revision(), *revision);
        let value = event.value().map(|value| value.to_string_lossy().into_owned());
        assert_eq!(value, Some(format!("{number}").repeat(VALUE)));
    }
    assert_eq!(read_anew(&place)?.first().map(Event::revision), Some(second));
    assert_eq!(store.compact_with(last, Force::Yes)?, 3);
    let (_here, mut behind) = after(third)?;
    let lost = behind.recv_timeout(LIMIT).ok_or("nothing comes")?.expect_err("an event after a hole");
    assert_eq!(lost.kind(), ErrorKind::Lagged);
    assert_eq!(store.compact_with(last, Force::Yes)?, 0, "once is enough");
    Ok(())
}

fn next_of(consumer: &mut Consumer) -> Result<Event, Fault> {
    Ok(consumer.recv_timeout(LIMIT).ok_or("no event within the limit")??)
}

#[test]
fn compaction_in_the_background_keeps_the_newest_and_what_is_young() -> Result<(), Fault> {
    let _alone = HISTORY.lock().unwrap_or_else(PoisonError::into_inner);
    // Two processes that both may, one of them on a machine whose clock is behind.
    let (place, clock, behind) = (place()?, clock(), clock());
    behind.set(Timestamp::from_millis(behind.now().as_millis() - 10 * i64::try_from(LATER.as_millis())?));
    let stores = [
        own(&clock, Retention::events(8)).connect(&place)?,
        own(&behind, Retention::events(8)).connect(&place)?,
    ];
    let advance = |by| [&clock, &behind].map(|clock| clock.advance(by));
    let [store, other] = &stores;
    let mut watchers = stores.each_ref().map(|store| store.watch("g", "*"));
    let first = set(store, 0..20)?;
    let last = set(other, 20..40)?;
    for watcher in &mut watchers {
        while next(watcher)?.revision() < last[19] {}
    }
    advance(LATER);
    // More than retention keeps, of which nothing may go yet: those who follow get the time that they need.
    let young = set(other, 40..60)?;
    advance(YOUNG);
    let gone = [first, last].concat()[37];
    let left = until_gone(store, &place, gone)?;
    let left: Vec<_> = left.iter().map(Event::revision).collect();
    assert!(young.iter().all(|revision| left.contains(revision)), "{young:?} of {left:?}");
    Ok(())
}

#[test]
fn compaction_in_the_background_is_not_held_back_by_a_clock_that_is_ahead() -> Result<(), Fault> {
    let _alone = HISTORY.lock().unwrap_or_else(PoisonError::into_inner);
    let (place, clock, ahead) = (place()?, clock(), clock());
    let retention = Retention { max_age: LATER, min_events: 0, ..Retention::events(400) };
    let store = own(&clock, retention).connect(&place)?;
    let mut watcher = store.watch("g", "*");
    ahead.advance(100 * LATER);
    let first = *set(&own(&ahead, retention).connect(&place)?, 0..1)?.first().ok_or("no revision")?;
    next(&mut watcher)?;
    let others = set(&store, 1..60)?;
    let [second, .., last] = others[..] else { return Err("too few".into()) };
    // What can be read begins with the event that is dated ahead.
    store.compact(second)?;
    assert_eq!(read_anew(&place)?.first().map(Event::revision), Some(first));
    clock.advance(2 * LATER);
    let left = until_gone(&store, &place, first)?;
    assert!(left.iter().all(|event| event.revision() >= last), "{left:?}");
    Ok(())
}

#[test]
fn compaction_in_the_background_goes_on_when_the_keepers_lease_is_gone() -> Result<(), Fault> {
    let _alone = HISTORY.lock().unwrap_or_else(PoisonError::into_inner);
    let (place, clock) = (place()?, clock());
    let keeper = own(&clock, Retention::events(8)).connect(&place)?;
    let last = *set(&keeper, 0..20)?.last().ok_or("no revision")?;
    clock.advance(LATER);
    until_gone(&keeper, &place, Revision::new(last.get() - 8 * PER_COMMIT))?;
    for lease in etcdctl(&["lease", "list"])?.lines().skip(1) {
        // It may have ended by itself.
        drop(etcdctl(&["lease", "revoke", lease]));
    }
    // The keeper writes nothing itself, which would show it that its session is gone. Those who write do not live for long
    // enough to compact.
    let last = *set(&patient().connect(&place)?, 20..40)?.last().ok_or("no revision")?;
    let until = Instant::now() + LIMIT;
    loop {
        let moment = patient().connect(&place)?;
        moment.set("g", "tick", "x")?;
        if history(&moment)?.first().is_some_and(|first| first.revision() >= last) {
            return Ok(());
        }
        assert!(Instant::now() < until, "nobody compacts any more");
        drop(moment);
        clock.advance(LATER);
        // A moment for the chores.
        drop(keeper.watch("nobody", "*").recv_timeout(Duration::from_millis(20)));
    }
}

#[test]
fn compaction_by_two_at_once_fails_for_neither() -> Result<(), Fault> {
    let _alone = HISTORY.lock().unwrap_or_else(PoisonError::into_inner);
    let (place, clock) = (place()?, clock());
    let stores = [(), ()].map(|()| own(&clock, Retention::FOREVER).connect(&place));
    let [store, other] = &stores;
    let (store, other) = (store.as_ref().map_err(Clone::clone)?, other.as_ref().map_err(Clone::clone)?);
    let revisions = (0..100)
        .map(|number| store.set("g", "k", number.to_string()))
        .collect::<watchkeep::Result<Vec<_>>>()?;
    std::thread::scope(|scope| -> Result<(), Fault> {
        let both = [store, other].map(|store| {
            let revisions = &revisions;
            scope.spawn(move || revisions.iter().try_for_each(|revision| store.compact(*revision).map(drop)))
        });
        for compacted in both {
            compacted.join().map_err(|_| "it panicked")??;
        }
        Ok(())
    })
}

#[test]
fn compaction_may_keep_any_length_of_time() -> Result<(), Fault> {
    let place = place()?;
    for max_age in [Duration::from_secs(86_400) / 7, Duration::from_secs(u64::MAX), Duration::MAX] {
        let retention = Retention { max_age, ..Retention::FOREVER };
        let store = patient().compaction(Compaction::Own).retention(retention).connect(&place)?;
        assert_eq!(store.stats()?.retention.max_age.as_secs(), max_age.as_secs());
    }
    Ok(())
}

#[test]
fn compaction_in_the_background_waits_for_consumers_up_to_their_bound() -> Result<(), Fault> {
    let _alone = HISTORY.lock().unwrap_or_else(PoisonError::into_inner);
    let (place, clock) = (place()?, clock());
    let bound = Duration::from_secs(24 * 3_600);
    let retention = Retention { consumer_age: bound, ..Retention::events(8) };
    let store = own(&clock, retention).connect(&place)?;
    let revisions = set(&store, 0..30)?;
    let from_the_beginning = ConsumerOptions::new().start(ConsumerStart::Beginning);
    let mut consumer = store.consumer_with("slow", from_the_beginning)?;
    for revision in &revisions[..10] {
        assert_eq!(next_of(&mut consumer)?.revision(), *revision);
    }
    consumer.ack(revisions[9])?;
    drop(consumer);
    clock.advance(LATER);
    // Everything that it has not acknowledged is there, and what it saw last.
    let left = until_gone(&store, &place, revisions[8])?;
    assert_eq!(left.first().map(Event::revision), Some(revisions[9]));
    assert!(revisions[10..].iter().all(|revision| left.iter().any(|event| event.revision() == *revision)));
    clock.advance(bound * 2);
    until_gone(&store, &place, revisions[20])?;
    assert!(store.consumers()?.first().is_some_and(|it| it.lost.is_some()), "it is told");
    Ok(())
}
