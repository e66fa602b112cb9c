//! The rules, on rows in memory.

#![expect(clippy::panic, reason = "what is not as expected fails the test")]

use std::time::Duration;

use crate::engine::job::{self, Clear, Transaction as _};
use crate::engine::{Done, Receipt};
use crate::rules::{Act, Author, Did, Effect, Job, Moment, Past as _, Rows as _, Stamp, Stop, Work, Write};
use crate::types::batch::{Batch, Condition, Operation, Outcome};
use crate::types::clock::Timestamp;
use crate::types::consumer::{ConsumerStart, Force};
use crate::types::error::{ErrorKind, Result};
use crate::types::event::Kind;
use crate::types::filter::Filter;
use crate::types::limits::{Limits, REAP_STEP};
use crate::types::name::NameRange;
use crate::types::quota::Quota;
use crate::types::revision::{Cursor, Epoch, Revision, StoreId};
use crate::types::value::Value;
use crate::types::writing::{DeleteOptions, SetOptions};

use super::MemoryRows;
use super::spacing::Spacing;
use super::state::State;

/// Revisions are ordered, and not dense.
const STRIDE: u64 = 7;
const SECOND: Duration = Duration::from_secs(1);

fn at(second: i64) -> Moment {
    Moment { now: Timestamp::from_millis(second * 1_000), limits: Limits::default(), is_tight: false }
}

fn empty() -> MemoryRows {
    MemoryRows::begin(State::new(Epoch::NONE, Spacing::every(STRIDE)), u64::MAX)
}

fn nth(event: u64) -> Revision {
    Revision::new(event * STRIDE)
}

fn run(rows: &mut MemoryRows, second: i64, work: impl Into<Work>) -> std::result::Result<Effect, Stop> {
    let effect = Job::new(rows, at(second), &Author::default()).run(&work.into());
    match &effect {
        Ok(_) => rows.seal().map(drop)?,
        Err(_) => rows.forget(),
    }
    effect
}

/// With what is due out of its way, as an engine does it.
fn cleared(rows: &mut MemoryRows, second: i64, work: impl Into<Work>) -> Result<Option<Result<Receipt>>> {
    let write = Write { author: Author::default(), work: work.into() };
    Ok(match job::apply(rows, at(second), &write, &mut None)? {
        Clear::Done(done) => Some(done),
        Clear::NotYet => None,
    })
}

fn set(group: &str, key: &str, value: &str) -> Operation {
    Operation::set(group, key, Value::from(value), SetOptions::new())
}

fn set_for(group: &str, key: &str, seconds: u32) -> Operation {
    Operation::set(group, key, Value::from("v"), SetOptions::new().ttl(SECOND * seconds))
}

fn delete(group: &str, key: &str) -> Operation {
    Operation::delete(group, key, &DeleteOptions::new())
}

/// The log, a word each.
fn told(rows: &MemoryRows) -> Vec<String> {
    let state = rows.state.borrow();
    let word = |kind: Kind| format!("{kind:?}").to_lowercase();
    let rows = state.rows_after(Revision::ZERO).map(|row| &row.change);
    rows.map(|it| format!("{} {}/{}", word(it.kind), it.group, it.key.as_deref().unwrap_or(""))).collect()
}

fn refused<T: std::fmt::Debug>(result: std::result::Result<T, Stop>) -> ErrorKind {
    match result {
        Err(Stop::Refused(error)) => error.kind(),
        other => panic!("it was not refused: {other:?}"),
    }
}

/// Everything that is kept, but for the number of the commit.
fn kept(rows: &MemoryRows) -> String {
    format!("{:?}", rows.state.borrow())
}

#[test]
fn an_operation_is_known_by_its_stamp_until_it_is_committed() -> Result<()> {
    let mut rows = empty();
    let batch = Batch::new().set("g", "a", "1").delete("g", "none").set("g", "b", "2");
    let Ok(Effect::Batch(done)) = run(&mut rows, 0, Work::Batch(batch)) else { panic!("a batch") };
    assert_eq!(done, [Did::Set(Stamp(0)), Did::Was(false), Did::Set(Stamp(1))]);
    let outcome = |did: Did| did.at(|stamp| rows.revision(Revision::ZERO, stamp));
    assert_eq!(outcome(Did::Set(Stamp(1))), Outcome::Set(nth(2)));
    let state = rows.state.borrow();
    assert!(state.rows_after(Revision::ZERO).all(|row| row.change.commit == nth(2)));
    assert_eq!(state.stored("g", "b").map(|it| (it.revision, it.created)), Some((nth(2), nth(2))));
    Ok(())
}

#[test]
fn what_is_refused_changes_nothing() -> Result<()> {
    let mut rows = empty();
    run(&mut rows, 0, set_for("n:g", "due", 1)).expect("a set");
    run(&mut rows, 0, set("n:g", "k", "v")).expect("a set");
    let quota = Quota { max_keys: 2, ..Quota::default() };
    run(&mut rows, 0, Work::Quota { namespace: "n".to_owned(), quota }).expect("a quota");
    let before = kept(&rows);
    let with = |options| Operation::set("n:g", "due", Value::from("v"), options);
    let long = "k".repeat(100_000);
    for (work, kind) in [
        // What is due is not there, and is not removed by what fails for it.
        (Work::from(with(SetOptions::new().if_revision(nth(1)))), ErrorKind::Conflict),
        (
            Operation::delete("n:g", "due", &DeleteOptions::new().if_revision(nth(1))).into(),
            ErrorKind::Conflict,
        ),
        (with(SetOptions::new().ttl(Duration::ZERO)).into(), ErrorKind::InvalidArgument),
        (Operation::touch("n:g", "k", Some(Duration::ZERO)).into(), ErrorKind::InvalidArgument),
        (set("n:g", &long, "v").into(), ErrorKind::TooLarge),
    ] {
        assert_eq!(refused(run(&mut rows, 1, work.clone())), kind, "{work:?}");
        assert_eq!(kept(&rows), before, "{work:?}");
    }
    // A disk that is full lets nothing grow.
    let full = Moment { is_tight: true, ..at(0) };
    let stop = Job::new(&mut rows, full, &Author::default()).run(&set("n:g", "k", "v").into());
    assert_eq!((refused(stop), kept(&rows)), (ErrorKind::Full, before));
    Ok(())
}

#[test]
fn what_is_due_goes_before_what_comes_in_its_place() -> Result<()> {
    let mut rows = empty();
    for key in ["set", "delete", "touch"] {
        run(&mut rows, 0, set_for("g", key, 1)).expect("a set");
    }
    run(&mut rows, 1, set("g", "set", "new")).expect("a set");
    assert_eq!(run(&mut rows, 1, delete("g", "delete")).ok(), Some(Effect::Batch(vec![Did::Was(false)])));
    let touch = Operation::touch("g", "touch", Some(SECOND));
    assert_eq!(run(&mut rows, 1, touch).ok(), Some(Effect::Batch(vec![Did::Was(false)])));
    let log = ["set g/set", "set g/delete", "set g/touch", "expire g/set", "set g/set", "expire g/delete"];
    assert_eq!(told(&rows)[..6], log);
    assert_eq!(told(&rows)[6..], ["expire g/touch"]);
    // The new entry replaced nothing.
    let state = rows.state.borrow();
    let new = state.rows_after(nth(4)).next().map(|row| row.change.clone());
    assert_eq!(new.and_then(|new| new.previous), None);
    assert_eq!(state.group("g").map(|(_, group)| (group.keys, group.bytes)), Some((1, 6)));
    assert_eq!((state.problems(), state.deadlines.len()), (Vec::new(), 0));
    Ok(())
}

#[test]
fn a_group_is_deleted_after_what_is_due_in_it() -> Result<()> {
    for (operation, is_prefix) in
        [(Operation::delete_group("g"), false), (Operation::delete_prefix("g"), true)]
    {
        let mut rows = empty();
        run(&mut rows, 0, set_for("g", "due", 1)).expect("a set");
        run(&mut rows, 0, set("g", "k", "v")).expect("a set");
        run(&mut rows, 0, set_for("other", "due", 1)).expect("a set");
        let groups = if is_prefix { NameRange::prefix("g") } else { NameRange::exactly("g") };
        assert!(matches!(run(&mut rows, 1, operation.clone()), Err(Stop::Reap(first)) if first == groups));
        let receipt = cleared(&mut rows, 1, operation)?.expect("it is done")?;
        assert!(matches!(receipt.done, Done::Batch(done) if done == [Outcome::Keys(1)]));
        assert_eq!(told(&rows)[3..], ["expire g/due", "deletegroup g/"]);
        assert!(rows.group("g")?.is_none() && rows.group("other")?.is_some());
    }
    Ok(())
}

#[test]
fn much_that_is_due_goes_in_steps_and_the_write_waits() -> Result<()> {
    let mut rows = empty();
    for number in 0..2 * REAP_STEP {
        run(&mut rows, 0, set_for("g", &number.to_string(), 1)).expect("a set");
    }
    run(&mut rows, 0, set("g", "k", "v")).expect("a set");
    let batch = Batch::new().set("h", "k", "v").delete_group("g");
    assert!(cleared(&mut rows, 1, Work::Batch(batch.clone()))?.is_none(), "a step is not enough");
    // Of the batch itself nothing is there.
    assert!(rows.group("h")?.is_none());
    let count = |rows: &MemoryRows| told(rows).iter().filter(|it| it.starts_with("expire")).count();
    assert_eq!(count(&rows), REAP_STEP);
    let receipt = cleared(&mut rows, 1, Work::Batch(batch))?.expect("the rest was a step")?;
    assert!(matches!(receipt.done, Done::Batch(done) if done.last() == Some(&Outcome::Keys(1))));
    assert_eq!(count(&rows), 2 * REAP_STEP);
    Ok(())
}

#[test]
fn a_quota_counts_what_is_there_and_what_is_due_makes_room() -> Result<()> {
    let mut rows = empty();
    let quota = Quota { max_keys: 2, max_groups: 1, ..Quota::default() };
    run(&mut rows, 0, Work::Quota { namespace: "n".to_owned(), quota }).expect("a quota");
    run(&mut rows, 0, set_for("n:g", "due", 1)).expect("a set");
    run(&mut rows, 0, set("n:g", "k", "v")).expect("a set");
    assert_eq!(refused(run(&mut rows, 0, set("n:g", "third", "v"))), ErrorKind::QuotaExceeded);
    assert_eq!(refused(run(&mut rows, 0, set("n:h", "k", "v"))), ErrorKind::QuotaExceeded);
    run(&mut rows, 0, set("n:g", "k", "a longer value")).expect("no more keys than before");
    run(&mut rows, 0, set("elsewhere", "k", "v")).expect("another namespace");
    assert!(matches!(run(&mut rows, 1, set("n:g", "third", "v")), Err(Stop::Reap(_))));
    assert!(cleared(&mut rows, 1, set("n:g", "third", "v"))?.expect("it is done").is_ok());
    // A key that is due gives way to the same key, also as the last of its group.
    let mut rows = empty();
    let one = Quota { max_keys: 1, max_groups: 1, ..Quota::default() };
    run(&mut rows, 0, Work::Quota { namespace: "n".to_owned(), quota: one }).expect("a quota");
    run(&mut rows, 0, set_for("n:g", "k", 1)).expect("a set");
    run(&mut rows, 1, set("n:g", "k", "v")).expect("the same key");
    assert_eq!(rows.state.borrow().namespaces.get("n").map(|row| row.usage.keys), Some(1));
    Ok(())
}

#[test]
fn all_conditions_are_judged_before_the_first_operation() -> Result<()> {
    let mut rows = empty();
    run(&mut rows, 0, set("g", "k", "v")).expect("a set");
    run(&mut rows, 0, set_for("d", "due", 1)).expect("a set");
    let store = StoreId::random()?;
    let cursor = |event| Cursor::new(store, Epoch::NONE, nth(event));
    let holds = Batch::new()
        .require(Condition::at("g", "k", cursor(1)))
        .require(Condition::absent("d", "due"))
        .require(Condition::group_absent("d"))
        .require(Condition::unchanged(Filter::group("g"), cursor(1)))
        .delete("g", "k");
    assert!(run(&mut rows, 1, Work::Batch(holds.clone())).is_ok());
    let Err(Stop::Refused(error)) = run(&mut rows, 1, Work::Batch(holds)) else { panic!("not refused") };
    let unmet: Vec<_> = error.unmet().iter().map(|unmet| (unmet.condition, unmet.current)).collect();
    assert_eq!(unmet, [(0, None), (3, Some(nth(3)))]);
    // An entry that is due has changed, also when nobody has announced it yet.
    let unchanged = |group| Condition::unchanged(Filter::group(group), cursor(3));
    let due = Batch::new().require(unchanged("d")).set("g", "l", "v");
    assert!(matches!(run(&mut rows, 1, Work::Batch(due.clone())), Err(Stop::Reap(_))));
    let refused_by = cleared(&mut rows, 1, Work::Batch(due))?.expect("a step").expect_err("it expired");
    assert_eq!(refused_by.unmet().first().and_then(|unmet| unmet.current), Some(nth(4)));
    assert!(run(&mut rows, 1, Work::Batch(Batch::new().require(unchanged("g")))).is_ok());
    let ahead = Batch::new().require(Condition::unchanged(Filter::group("g"), cursor(9)));
    assert_eq!(refused(run(&mut rows, 1, Work::Batch(ahead))), ErrorKind::LostCursor);
    Ok(())
}

#[test]
fn a_batch_with_an_id_is_done_once() -> Result<()> {
    let mut rows = empty();
    let batch = |sequence, key: &str| Work::Batch(Batch::new().id("c", sequence).set("g", key, "v"));
    run(&mut rows, 0, batch(1, "k")).expect("the first");
    let again = run(&mut rows, 0, batch(1, "k")).ok();
    assert_eq!(again, Some(Effect::Repeated { revision: nth(1), outcomes: vec![Outcome::Set(nth(1))] }));
    assert_eq!(refused(run(&mut rows, 0, batch(1, "other"))), ErrorKind::InvalidArgument);
    run(&mut rows, 0, batch(0, "k")).expect("zero is a sequence, too");
    assert!(matches!(run(&mut rows, 0, batch(0, "k")), Ok(Effect::Repeated { .. })));
    for sequence in 2..=65 {
        run(&mut rows, 0, batch(sequence, "k")).expect("the next");
    }
    assert_eq!(rows.state.borrow().answers.len(), 64);
    assert_eq!(refused(run(&mut rows, 0, batch(1, "k"))), ErrorKind::UnknownOutcome);
    Ok(())
}

#[test]
fn a_consumer_has_one_holder_and_acknowledges_what_was_given() -> Result<()> {
    let mut rows = empty();
    run(&mut rows, 0, set("g", "k", "v")).expect("a set");
    let act = |act| Work::Consumer { name: "c".to_owned(), act };
    let take = |start| {
        let holder = "me".to_owned();
        act(Act::Take { filter: None, start, holder, lease: SECOND })
    };
    assert_eq!(refused(run(&mut rows, 0, act(Act::Remove { force: Force::No }))), ErrorKind::NotFound);
    let ahead = take(ConsumerStart::After(nth(9)));
    assert_eq!(refused(run(&mut rows, 0, ahead)), ErrorKind::InvalidArgument);
    assert_eq!(run(&mut rows, 0, take(ConsumerStart::Beginning)).ok(), Some(Effect::Consumer(1)));
    assert_eq!(refused(run(&mut rows, 0, take(ConsumerStart::Now))), ErrorKind::Held);
    let ack = |fence, upto| act(Act::Ack { fence, upto: Some(upto) });
    assert_eq!(refused(run(&mut rows, 0, ack(1, nth(2)))), ErrorKind::InvalidArgument, "it is not given yet");
    run(&mut rows, 0, ack(1, nth(1))).expect("an event that is there");
    run(&mut rows, 0, ack(1, Revision::ZERO)).expect("once more");
    assert_eq!(rows.consumer("c")?.and_then(|row| row.acked), Some(nth(1)), "it never goes back");
    // Its lease is over: another takes it, and the first is told so.
    assert_eq!(run(&mut rows, 1, take(ConsumerStart::Now)).ok(), Some(Effect::Consumer(2)));
    assert_eq!(refused(run(&mut rows, 1, ack(1, nth(1)))), ErrorKind::Fenced);
    assert_eq!(rows.state.borrow().floor()?, Some(nth(1)));
    run(&mut rows, 1, act(Act::Reset { to: ConsumerStart::Snapshot, force: Force::Yes })).expect("by force");
    assert_eq!(rows.consumer("c")?.map(|row| (row.acked, row.holder)), Some((None, None)));
    Ok(())
}
