//! Batches: conditions first, then all operations or none.

use std::sync::Arc;
use std::time::Duration;

use watchkeep::{
    Batch, Condition, Error, ErrorKind, Filter, Kind, MAX_BATCH_OPERATIONS, MAX_UNCHANGED_EVENTS,
    ManualClock, Options, Outcome, Quota, Retention, Revision, SetOptions, Store,
};

use crate::support::futures::block_on;
use crate::support::needs::needs;
use crate::support::numbers::number;
use crate::support::{Anywhere as _, Result, anywhere, eventually, fill};

/// Which conditions of a refused batch did not hold, and what is there.
fn unmet(refused: std::result::Result<watchkeep::Applied, Error>) -> Vec<(usize, Option<Revision>)> {
    let Err(error) = refused else { return Vec::new() };
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    error.unmet().iter().map(|unmet| (unmet.condition, unmet.current)).collect()
}

#[test]
fn a_batch_is_one_commit_whose_outcomes_stand_in_the_order_of_its_operations() -> Result {
    let store = anywhere()?;
    store.set("gone", "a", "1")?;
    store.set("gone", "b", "1")?;
    let base = store.set("g", "old", "1")?;
    let batch = Batch::new()
        .set("g", "new", "1")
        .delete("g", "old")
        .delete("g", "never")
        .delete_group("gone")
        .delete_prefix("nothing")
        .touch("g", "new", Duration::from_secs(60))
        .persist("g", "never");
    let applied = store.apply(batch)?;
    let events: Vec<_> =
        store.history(Filter::everything().kinds(Kind::ALL), base).collect::<std::result::Result<_, _>>()?;
    let kinds: Vec<_> = events.iter().map(|event| event.kind()).collect();
    assert_eq!(kinds, [Kind::Set, Kind::Delete, Kind::DeleteGroup, Kind::Touch]);
    assert!(events.iter().all(|event| event.commit() == applied.revision));
    assert_eq!((number(base), number(applied.revision)), (3, 7));
    let set = Outcome::Set(events[0].revision());
    let (was, keys) = (Outcome::Was, Outcome::Keys);
    assert_eq!(applied.outcomes, [set, was(true), was(false), keys(2), keys(0), was(true), was(false)]);
    assert_eq!(store.last_revision()?, applied.revision);
    Ok(())
}

#[test]
fn one_that_does_nothing_answers_where_the_store_stands() -> Result {
    let store = anywhere()?;
    let at = store.set("g", "k", "1")?;
    for batch in
        [Batch::new(), Batch::new().require(Condition::present("g", "k")), Batch::new().delete("g", "never")]
    {
        let applied = store.apply(batch)?;
        assert_eq!((applied.revision, store.last_revision()?), (at, at));
    }
    Ok(())
}

#[test]
fn all_conditions_are_judged_before_the_first_operation_and_all_that_fail_are_named() -> Result {
    let store = anywhere()?;
    let at = store.set("g", "k", "1")?;
    let other = store.set("g", "other", "1")?;
    let cursor = |revision| store.cursor(revision);
    let holds = Batch::new()
        .require(Condition::at("g", "k", cursor(at)))
        .require(Condition::present("g", "other"))
        .require(Condition::absent("g", "never"))
        .require(Condition::group_present("g"))
        .require(Condition::group_absent("never"))
        // What the first operation makes is not there before it.
        .set_with("new", "k", "1", SetOptions::new().if_absent())
        .set_with("new", "k", "2", SetOptions::new().if_absent());
    assert_eq!(store.apply(holds)?.outcomes.len(), 2);
    let last = store.last_revision()?;
    let fails = Batch::new()
        .require(Condition::at("g", "k", cursor(other)))
        .require(Condition::present("g", "other"))
        .require(Condition::present("g", "never"))
        .require(Condition::absent("g", "other"))
        .require(Condition::group_absent("g"))
        .require(Condition::group_present("never"))
        .require(Condition::at("g", "never", cursor(at)))
        .set_with("g", "k", "2", SetOptions::new().if_revision(other))
        .delete("g", "other");
    let wanted = [(0, Some(at)), (2, None), (3, Some(other)), (4, None), (5, None), (6, None), (7, Some(at))];
    assert_eq!(unmet(store.apply(fails)), wanted);
    assert_eq!(store.last_revision()?, last);
    Ok(())
}

#[test]
fn a_refused_batch_leaves_nothing_not_even_what_was_due() -> Result {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).anywhere()?;
    let tenant = store.scoped("t")?;
    tenant.set("g", "stays", "1")?;
    let base = store.last_revision()?;
    let full = tenant.with_quota(Quota { max_keys: 1, ..Quota::default() })?;
    let refused = full.apply(Batch::new().delete("g", "never").set("h", "first", "1").set("g", "stays", "2"));
    assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::QuotaExceeded));
    assert_eq!((store.last_revision()?, tenant.count("h")?), (base, 0));
    // In this order there is room.
    full.apply(Batch::new().delete("g", "stays").set("h", "first", "1"))?;
    assert_eq!((tenant.count("g")?, tenant.count("h")?), (0, 1));
    Ok(())
}

#[test]
fn what_is_due_is_not_there_for_a_condition() -> Result {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).anywhere()?;
    let minute = SetOptions::new().ttl(Duration::from_secs(60));
    let at = store.cursor(store.set_with("g", "k", "1", minute)?);
    clock.advance(Duration::from_secs(60));
    let conditions =
        [Condition::present("g", "k"), Condition::at("g", "k", at), Condition::group_present("g")];
    let batch = conditions.into_iter().fold(Batch::new(), Batch::require);
    assert_eq!(unmet(store.apply(batch)), [(0, None), (1, None), (2, None)]);
    store.apply(
        Batch::new()
            .require(Condition::absent("g", "k"))
            .require(Condition::group_absent("g"))
            .set("g", "k", "2"),
    )?;
    Ok(())
}

#[test]
fn unchanged_looks_at_what_the_filter_lets_through_and_no_farther_than_it_may() -> Result {
    let store = anywhere()?;
    let cursor = |revision| store.cursor(revision);
    let read = cursor(store.set("g", "k", "1")?);
    let unchanged =
        |filter: Filter, since| store.apply(Batch::new().require(Condition::unchanged(filter, since)));
    store.set("other", "k", "1")?;
    unchanged(Filter::group("g"), read)?;
    let change = store.set("g", "l", "1")?;
    assert_eq!(unmet(unchanged(Filter::group("g"), read)), [(0, Some(change))]);
    unchanged(Filter::key("g", "k"), read)?;
    unchanged(Filter::group("g"), cursor(change))?;
    for number in 0..MAX_UNCHANGED_EVENTS {
        store.set("other", "k", number.to_string())?;
    }
    unchanged(Filter::group("g"), cursor(change))?;
    store.set("other", "k", "one more")?;
    let refused = unchanged(Filter::group("g"), cursor(change)).err().ok_or("too much to look at")?;
    assert!(refused.unmet().iter().all(|unmet| unmet.is_too_old && unmet.current.is_none()), "{refused}");
    assert_eq!(refused.unmet().len(), 1);
    let ahead = cursor(Revision::new(store.last_revision()?.get() + 1));
    assert_eq!(
        unchanged(Filter::group("g"), ahead).map_err(|error| error.kind()),
        Err(ErrorKind::LostCursor)
    );
    Ok(())
}

#[test]
fn unchanged_since_what_was_trimmed_cannot_be_told() -> Result {
    needs!(Trimming);
    let store = anywhere()?;
    let late = store.cursor(store.set("g", "k", "1")?);
    store.set("other", "k", "1")?;
    store.set("other", "k", "2")?;
    store.compact(store.last_revision()?)?;
    let unchanged = Batch::new().require(Condition::unchanged(Filter::group("g"), late));
    assert!(store.apply(unchanged).is_err_and(|error| error.unmet().len() == 1));
    Ok(())
}

#[test]
fn a_batch_writes_and_judges_in_its_handles_namespace_only() -> Result {
    let store = anywhere()?;
    let (one, two) = (store.scoped("one")?, store.scoped("two")?.with_origin("me"));
    let at = one.set("g", "k", "1")?;
    two.apply(
        Batch::new()
            .require(Condition::absent("g", "k"))
            .require(Condition::group_absent("g"))
            .require(Condition::unchanged(Filter::everything(), store.cursor(Revision::ZERO)))
            .set("g", "k", "2")
            .delete_prefix("x"),
    )?;
    assert_eq!(one.entry("g", "k")?.map(|entry| entry.revision), Some(at));
    let mut written = store.history(Filter::everything(), at);
    let event = written.next().ok_or("no event")??;
    assert_eq!((event.group(), event.origin()), ("two:g", Some("me")));
    Ok(())
}

#[test]
fn what_cannot_be_applied_is_refused_before_anything_is() -> Result {
    let (store, other) = (anywhere()?, anywhere()?);
    let theirs = other.cursor(other.set("g", "k", "1")?);
    let many = (0..=MAX_BATCH_OPERATIONS).fold(Batch::new(), |batch, _| batch.set("g", "k", "1"));
    let large = (0..5).fold(Batch::new(), |batch, _| batch.set("g", "k", vec![b'x'; 16 << 20]));
    for (batch, kind) in [
        (many, ErrorKind::TooLarge),
        (large, ErrorKind::TooLarge),
        (Batch::new().delete_prefix(""), ErrorKind::InvalidArgument),
        (Batch::new().require(Condition::at("g", "k", theirs)), ErrorKind::ForeignCursor),
        (Batch::new().require(Condition::unchanged(Filter::everything(), theirs)), ErrorKind::ForeignCursor),
        (Batch::new().set("g", "k", "1").touch("g", "k", Duration::ZERO), ErrorKind::InvalidArgument),
        (Batch::new().set("g", "k", "1").set("g", &"x".repeat(2_000), "1"), ErrorKind::TooLarge),
    ] {
        let refused = store.apply(batch).err().ok_or("it was applied")?;
        assert_eq!(refused.kind(), kind, "{refused}");
        assert_eq!(store.last_revision()?, Revision::ZERO, "{refused}");
    }
    let nested = store.transaction(|_| store.apply(Batch::new().set("g", "k", "1")).map(drop));
    assert_eq!(nested.map_err(|error| error.kind()), Err(ErrorKind::Nested));
    Ok(())
}

#[test]
fn a_deletion_of_groups_in_a_batch_announces_what_is_due_in_them_first() -> Result {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).anywhere()?;
    let mut watcher = store.watch("g", "*");
    // More than one step of expiry removes.
    fill(&store, 300, |tx, number| tx.set_with_ttl("g", &number.to_string(), "1", Duration::from_secs(60)))?;
    store.set("g", "stays", "1")?;
    clock.advance(Duration::from_secs(60));
    let applied = store.apply(Batch::new().delete_group("g").set("g", "again", "1"))?;
    assert_eq!(applied.outcomes, [Outcome::Keys(1), Outcome::Set(applied.revision)]);
    let mut expired = 0;
    loop {
        let event = watcher.recv().ok_or("it ended")??;
        match event.kind() {
            Kind::Set => {}
            Kind::Expire => expired += 1,
            kind => {
                assert_eq!(kind, Kind::DeleteGroup);
                break;
            }
        }
    }
    assert_eq!(expired, 300);
    Ok(())
}

#[test]
fn a_batch_is_a_future_too_and_keeps_its_place_among_writes() -> Result {
    let store = anywhere()?;
    let calls = store.to_async();
    // None is awaited before the next is called.
    let first = calls.set("g", "k", "1");
    let second = calls.apply(Batch::new().require(Condition::present("g", "k")).set("g", "k", "2"));
    let refused = calls.apply(Batch::new().require(Condition::absent("g", "k")).delete("g", "k"));
    let third = calls.set("g", "k", "3");
    let (first, second) = (block_on(first)?, block_on(second)?);
    assert!(first < second.revision && second.revision < block_on(third)?);
    assert_eq!(unmet(block_on(refused)), [(0, Some(second.revision))]);
    let gone = block_on(calls.apply(Batch::new().delete_group("g").set("h", "k", "1")))?;
    assert_eq!(gone.outcomes, [Outcome::Keys(1), Outcome::Set(gone.revision)]);
    let empty_prefix = block_on(calls.apply(Batch::new().delete_prefix("")));
    assert_eq!(empty_prefix.map_err(|error| error.kind()), Err(ErrorKind::InvalidArgument));
    let nested = store.transaction(|_| block_on(calls.apply(Batch::new().set("g", "k", "1"))).map(drop));
    assert_eq!(nested.map_err(|error| error.kind()), Err(ErrorKind::Nested));
    Ok(())
}

#[test]
fn a_batch_with_an_id_is_applied_once_and_answered_as_often_as_it_comes() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let store = Store::open(&path)?;
    let batch = || Batch::new().id("worker", 7).set("g", "k", "1").delete("g", "never").delete_group("none");
    let first = store.apply(batch())?;
    let later = store.set("g", "k", "later")?;
    let again = store.apply(batch())?;
    assert!(!first.repeated && again.repeated);
    assert_eq!((again.revision, &again.outcomes), (first.revision, &first.outcomes));
    // Another process, or this one after its end.
    store.close()?;
    let store = Store::open(&path)?;
    assert_eq!(store.apply(batch())?, again);
    assert_eq!(block_on(store.to_async().apply(batch()))?, again);
    assert_eq!((store.last_revision()?, store.get("g", "k")?), (later, Some("later".into())));
    let other = store.apply(batch().set("g", "l", "1"));
    assert_eq!(other.map_err(|error| error.kind()), Err(ErrorKind::InvalidArgument));
    // Of another client, and of the same name in a namespace.
    assert!(!store.apply(Batch::new().id("other", 7).set("g", "k", "2"))?.repeated);
    assert!(!store.scoped("n")?.apply(batch())?.repeated);
    assert!(store.check()?.problems.is_empty());
    Ok(())
}

#[test]
fn a_refused_batch_leaves_no_answer_and_is_judged_anew() -> Result {
    let store = anywhere()?;
    let batch = || Batch::new().id("c", 1).require(Condition::present("g", "k")).set("g", "l", "1");
    assert_eq!(unmet(store.apply(batch())), [(0, None)]);
    store.set("g", "k", "1")?;
    assert!(!store.apply(batch())?.repeated);
    store.delete("g", "k")?;
    // What it asked for then does not matter now.
    assert!(store.apply(batch())?.repeated);
    Ok(())
}

#[test]
fn the_last_answers_of_a_client_are_kept_and_what_lies_before_is_never_done_again() -> Result {
    let store = anywhere()?;
    let apply =
        |sequence: u64| store.apply(Batch::new().id("c", sequence).set("g", "k", sequence.to_string()));
    for sequence in 1..=65 {
        apply(sequence)?;
    }
    let last = store.last_revision()?;
    assert_eq!(apply(1).map_err(|error| error.kind()), Err(ErrorKind::UnknownOutcome));
    assert!(apply(2)?.repeated && apply(65)?.repeated);
    assert_eq!(store.last_revision()?, last);
    // Numbers may be left out, and come late.
    assert!(!apply(100)?.repeated && !apply(98)?.repeated && apply(98)?.repeated);
    assert_eq!(apply(36).map_err(|error| error.kind()), Err(ErrorKind::UnknownOutcome));
    assert!(apply(37)?.repeated);
    for (client, sequence, kind) in [
        ("", 1, ErrorKind::InvalidName),
        ("a:b", 1, ErrorKind::InvalidName),
        ("c", watchkeep::MAX_REVISION + 1, ErrorKind::InvalidArgument),
    ] {
        let refused = store.apply(Batch::new().id(client, sequence));
        assert_eq!(refused.map_err(|error| error.kind()), Err(kind), "{client:?} {sequence}");
    }
    assert!(!store.apply(Batch::new().id("c", watchkeep::MAX_REVISION))?.repeated);
    Ok(())
}

#[test]
fn repeats_that_meet_in_one_commit_are_one_write() -> Result {
    let store = anywhere()?;
    let calls = store.to_async();
    let all: Vec<_> = (0..50).map(|_| calls.apply(Batch::new().id("c", 1).set("g", "k", "1"))).collect();
    let answers = all.into_iter().map(block_on).collect::<std::result::Result<Vec<_>, _>>()?;
    assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1);
    assert_eq!(number(store.last_revision()?), 1);
    Ok(())
}

#[test]
fn answers_are_dropped_after_a_day() -> Result {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).retention(Retention::events(1)).anywhere()?;
    let batch = || Batch::new().id("c", 1).set("g", "k", "1");
    store.apply(batch())?;
    clock.advance(Duration::from_secs(24 * 3_600));
    assert!(store.apply(batch())?.repeated);
    clock.advance(Duration::from_millis(1));
    // Upkeep does it, which writes call for now and then.
    eventually("the answer is forgotten", || {
        for number in 0..2_000 {
            store.set("g", "other", number.to_string())?;
        }
        Ok(!store.apply(batch())?.repeated)
    })
}

#[test]
fn a_batch_looks_at_the_log_for_so_many_filters_and_refuses_cursors_that_are_ahead() -> Result {
    let store = anywhere()?;
    let begun = store.cursor(store.set("g", "k", "v")?);
    let unchanged = |filter| Condition::unchanged(filter, begun);
    let kind = |refused: watchkeep::Result<watchkeep::Applied>| refused.err().map(|error| error.kind());
    let many = |count: usize| {
        (0..count)
            .fold(Batch::new(), |batch, number| batch.require(unchanged(Filter::group(number.to_string()))))
    };
    assert!(store.apply(many(64)).is_ok());
    assert_eq!(kind(store.apply(many(65))), Some(ErrorKind::TooLarge));
    let union = Filter::any((0..40).map(|number| Filter::group(number.to_string())));
    let two = Batch::new().require(unchanged(union.clone())).require(unchanged(union));
    assert_eq!(kind(store.apply(two)), Some(ErrorKind::TooLarge));
    let ahead = store.cursor(Revision::new(store.last_revision()?.get() + 1));
    let batch = Batch::new().require(Condition::at("g", "k", ahead)).delete("g", "k");
    assert_eq!(kind(store.apply(batch)), Some(ErrorKind::LostCursor));
    assert!(store.contains("g", "k")?);
    Ok(())
}
