//! Holds a store that is found after a fault against what was said before it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use watchkeep::{
    Durability, ErrorKind, Filter, Kind, ManualClock, Options, Revision, Store, Timestamp, WatchOptions,
};

use super::Expect;
use super::workload::{CONSUMER, POSITION};
use crate::record::{Cell, Log, Seen, State};

/// What names the boot after the fault.
const AFTER: &str = "after the fault";

/// What may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// Nothing: the disk kept what it had synced, and the file is of full durability.
    Full,
    /// A suffix of whole transactions: the file is of relaxed durability.
    Relaxed,
    /// A suffix of whole transactions: the disk did not keep what it had synced.
    Damaged,
}

impl From<Durability> for Judge {
    fn from(durability: Durability) -> Judge {
        if durability == Durability::Full { Judge::Full } else { Judge::Relaxed }
    }
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The last revision.
    pub last: Revision,
    /// How many revisions that somebody was told of are not there.
    pub lost: u64,
}

/// Opens a store after a fault, and looks whether everything is there that must be, and nothing else.
///
/// # Errors
///
/// What is wrong.
pub fn verify(path: &Path, expect: &Expect<'_>, judge: Judge) -> Result<Found, String> {
    // Long ago, so that nothing is due: entries are what the log made them.
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
    let options = Options::new().clock(clock.clone()).boot_id(AFTER).ballast(false);
    let store = options.open(path).map_err(|error| format!("it cannot be opened: {error:?}"))?;
    let found = whole(&store, expect, judge)?;
    lives(&store, expect, found)?;
    clock.advance(Duration::from_secs(1 << 32));
    store.purge_expired().map_err(|error| format!("what is due cannot be removed: {error:?}"))?;
    store.close().map_err(|error| format!("it cannot be closed: {error:?}"))?;
    Ok(found)
}

/// The identity, the log, the entries, and what the store finds in itself.
fn whole(store: &Store, expect: &Expect<'_>, judge: Judge) -> Result<Found, String> {
    if let Some(id) = expect.id.filter(|id| *id != store.id()) {
        return Err(format!("store {id} became {}", store.id()));
    }
    let rows = rows(store).map_err(|error| format!("the log cannot be read: {error:?}"))?;
    let last = rows.last().map_or(Revision::ZERO, |row| row.revision);
    let lost = expect.told.get().saturating_sub(last.get());
    if lost > 0 && judge == Judge::Full {
        return Err(format!("{} was acknowledged or delivered, the log ends at {last}", expect.told));
    }
    let log = Log::new(rows);
    same_log(&log, expect)?;
    let first = log.rows().first().map_or(Revision::ZERO, |row| row.revision);
    let mut state = State::default();
    let trimmed = expect.known.range(..first).map(|(_, row)| row);
    trimmed.chain(log.rows()).for_each(|row| state.apply(row));
    same_entries(store, &state)?;
    same_position(store, &state)?;
    let problems = store.check().map_err(|error| format!("it cannot be checked: {error:?}"))?.problems;
    match problems.first() {
        Some(problem) => Err(format!("the store finds in itself: {problem}")),
        None => Ok(Found { last, lost }),
    }
}

fn rows(store: &Store) -> watchkeep::Result<Vec<Seen>> {
    let all = store.history(Filter::everything().kinds(Kind::ALL), Revision::ZERO);
    all.map(|event| event.map(|event| Seen::from(&event))).collect()
}

fn same_log(log: &Log, expect: &Expect<'_>) -> Result<(), String> {
    for (row, next) in log.rows().iter().zip(log.rows().iter().skip(1)) {
        if next.revision.get() != row.revision.get() + 1 {
            return Err(format!("revision {} is followed by {}", row.revision, next.revision));
        }
    }
    let doubtful = |row: &Seen| expect.doubt.is_some_and(|after| row.revision > after);
    for row in log.rows().iter().filter(|row| !doubtful(row)) {
        match expect.known.get(&row.revision) {
            Some(known) if known == row => {}
            Some(known) => {
                return Err(format!("revision {} is {row:?}, it was {known:?}", row.revision));
            }
            None => return Err(format!("revision {} is {row:?}, which nobody wrote", row.revision)),
        }
    }
    if let Some(half) = log.rows().last().filter(|row| row.commit != row.revision) {
        return Err(format!("the log ends at {}, in the midst of a transaction", half.revision));
    }
    Ok(())
}

fn same_entries(store: &Store, state: &State) -> Result<(), String> {
    let failed = |error| format!("the entries cannot be read: {error:?}");
    let mut number = 0;
    for group in store.groups("") {
        let group = group.map_err(failed)?;
        for entry in store.entries(&group) {
            let entry = entry.map_err(failed)?;
            number += 1;
            let (key, cell) = (entry.key.clone(), Cell::from(entry));
            if state.cell(&group, &key) != Some(&cell) {
                let said = state.cell(&group, &key);
                return Err(format!("entry {group:?} {key:?} is {cell:?}, the log makes it {said:?}"));
            }
        }
    }
    let expected = state.cells().count();
    if number == expected { Ok(()) } else { Err(format!("there are {number} entries of {expected}")) }
}

/// A consumer stands where the transaction that acknowledged says.
fn same_position(store: &Store, state: &State) -> Result<(), String> {
    let Some(said) = state.cell(POSITION.0, POSITION.1) else { return Ok(()) };
    let consumers = store.consumers().map_err(|error| format!("the consumers cannot be read: {error:?}"))?;
    let acked =
        consumers.iter().find(|consumer| consumer.name == CONSUMER).and_then(|consumer| consumer.acked);
    if acked.map(|acked| acked.to_string()).as_deref() == said.value.as_str() {
        Ok(())
    } else {
        Err(format!("the consumer stands at {acked:?}, acknowledged was {:?}", said.value))
    }
}

/// The store can be written again; every cursor that anyone was given stands for its event or for nothing, also when
/// the numbers that are lost have come again.
fn lives(store: &Store, expect: &Expect<'_>, found: Found) -> Result<(), String> {
    let failed = |error| format!("it cannot be used any more: {error:?}");
    same_cursors(store, expect, found)?;
    let revision = store.set("after", "the fault", "on").map_err(failed)?;
    if revision.get() != found.last.get() + 1 {
        return Err(format!("after {} comes {revision}", found.last));
    }
    let value = store.get("after", "the fault").map_err(failed)?;
    if value.as_deref() != Some(b"on") {
        return Err(format!("what was written reads as {value:?}"));
    }
    let rows: Vec<_> = store.history(Filter::everything(), found.last).collect();
    match rows.as_slice() {
        [Ok(event)] if event.revision() == revision => {}
        rows => {
            return Err(format!("after {} the log has {rows:?}, written was {revision}", found.last));
        }
    }
    let (given, _) = expect.cursors.last_key_value().map_or((found.last, None), |(at, it)| (*at, Some(it)));
    while store.last_revision().map_err(failed)? < given {
        store.set("after", "the fault", "again").map_err(failed)?;
    }
    same_cursors(store, expect, found)
}

/// A cursor of what is there goes on, one into what the fault took is an error; the ends of both are looked at.
fn same_cursors(store: &Store, expect: &Expect<'_>, found: Found) -> Result<(), String> {
    // What is there of a write whose outcome was unknown may have been another event when its number was told.
    let sure = expect.doubt.map_or(found.last, |after| after.min(found.last));
    let (mut kept, mut lost) = (expect.cursors.range(..=sure), expect.cursors.range(found.last..));
    if lost.clone().next().is_some_and(|(first, _)| *first == found.last) {
        lost.next();
    }
    let middle = lost.clone().count() / 2;
    let last =
        store.last_revision().map_err(|error| format!("the last revision cannot be read: {error:?}"))?;
    for (revision, cursor) in [kept.next(), kept.next_back()].into_iter().flatten() {
        if cursor.store() != store.id() {
            // The cut came before the file, and revision 0 is in every one.
            if store.revision_of(*cursor).is_ok() {
                return Err(format!("the cursor {cursor} of a file that never was is known"));
            }
            continue;
        }
        if !matches!(store.revision_of(*cursor), Ok(known) if known == *revision) {
            return Err(format!("the cursor {cursor} is good, and refused"));
        }
        if store.cursor(*revision) != *cursor {
            return Err(format!("the cursor {cursor} became {}", store.cursor(*revision)));
        }
    }
    for (revision, cursor) in
        [lost.clone().next(), lost.clone().nth(middle), lost.next_back()].into_iter().flatten()
    {
        // Where the cut came before the file, there is another one now.
        let kind =
            if cursor.store() == store.id() { ErrorKind::LostCursor } else { ErrorKind::ForeignCursor };
        if !matches!(store.revision_of(*cursor), Err(error) if error.kind() == kind) {
            return Err(format!("the cursor {cursor} is lost, and known"));
        }
        let watched = store.watch_with(Filter::everything(), WatchOptions::new().after_cursor(*cursor));
        if watched.is_ok() {
            return Err(format!("the cursor {cursor} is lost, and goes on in silence"));
        }
        if *revision <= last && store.cursor(*revision) == *cursor {
            return Err(format!("the cursor {cursor} is lost, and given again"));
        }
    }
    Ok(())
}
