//! Stores that compact their cluster themselves. They take from everybody's history, so each run has a cluster of its own,
//! and one test at a time has it.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use watchkeep::{
    Compaction, Consumer, ConsumerOptions, ConsumerStart, ErrorKind, Event, Filter, Force, ManualClock,
    Options, Retention, Revision, Store, Timestamp, WatchOptions,
};
use watchkeep_testkit::surface::Fault;

use crate::machines::{HISTORY, next, place};

const LIMIT: Duration = Duration::from_secs(60);
/// How often a number stands in its value: so often that the value stands apart from the feed.
const VALUE: usize = 5_000;
/// Less than the margin for those who follow.
const YOUNG: Duration = Duration::from_secs(60);
/// More than the margin for those who follow.
const LATER: Duration = Duration::from_secs(600);

fn own(clock: &Arc<ManualClock>, retention: Retention) -> Options {
    Options::new().clock(clock.clone()).compaction(Compaction::Own).retention(retention)
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)))
}

fn history(store: &Store) -> Result<Vec<Event>, Fault> {
    Ok(store.history(Filter::everything(), Revision::ZERO).collect::<watchkeep::Result<Vec<_>>>()?)
}

/// What a store that is opened now can read of the past.
fn read_anew(place: &str) -> Result<Vec<Event>, Fault> {
    history(&Store::connect(place)?)
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
        let events = read_anew(place)?;
        if events.first().is_some_and(|first| first.revision() > gone) {
            return Ok(events);
        }
        if Instant::now() > until {
            return Err(format!("nothing is compacted: {} events are left", events.len()).into());
        }
        // A moment for the chores.
        drop(store.watch("nobody", "*").recv_timeout(Duration::from_millis(100)));
    }
}

#[test]
fn compaction_is_left_to_others_unless_it_is_asked_for() -> Result<(), Fault> {
    let _alone = HISTORY.lock().unwrap_or_else(PoisonError::into_inner);
    let place = place()?;
    let store = Options::new().retention(Retention::events(1)).connect(&place)?;
    set(&store, 0..3)?;
    let refused = store.compact(store.last_revision()?).expect_err("the history is everybody's");
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.to_string().contains("Compaction::Own"), "{refused}");
    assert_eq!(store.stats()?.retention, Retention::FOREVER);
    // It is a setting of the store: who opens it later has it, and may take it back.
    Options::new().compaction(Compaction::Own).connect(&place)?;
    let late = Store::connect(&place)?;
    assert_eq!(late.stats()?.retention, Retention::events(1));
    late.compact(late.last_revision()?)?;
    Options::new().compaction(Compaction::Never).connect(&place)?;
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
        let other = Store::connect(&place)?;
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
    let (place, clock) = (place()?, clock());
    // Two processes that both may.
    let stores = [
        own(&clock, Retention::events(8)).connect(&place)?,
        own(&clock, Retention::events(8)).connect(&place)?,
    ];
    let [store, other] = &stores;
    let first = set(store, 0..20)?;
    let last = set(other, 20..40)?;
    clock.advance(LATER);
    // More than retention keeps, of which nothing may go yet: those who follow get the time that they need.
    let young = set(other, 40..60)?;
    clock.advance(YOUNG);
    let gone = [first, last].concat()[37];
    let left = until_gone(store, &place, gone)?;
    let left: Vec<_> = left.iter().map(Event::revision).collect();
    assert!(young.iter().all(|revision| left.contains(revision)), "{young:?} of {left:?}");
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
