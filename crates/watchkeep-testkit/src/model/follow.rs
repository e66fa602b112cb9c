//! Following the log: new rows are what was predicted, and expiries of what is due.

use std::collections::HashMap;

use watchkeep::{Kind, Revision, Timestamp};

use super::{Model, PROVISIONAL, Prediction};
use crate::ops::{Listed, Outcome, Refusal};
use crate::record::{Cell, Seen, Want};

impl Model {
    /// Takes new rows of the log in, which a step brought for which this was predicted; what it must have given,
    /// with the revisions that the store chose.
    ///
    /// # Errors
    ///
    /// The first thing that the log should not say.
    pub fn follow(
        &mut self,
        rows: Vec<Seen>,
        predicted: Option<Prediction>,
        now: Timestamp,
    ) -> Result<Option<Outcome>, String> {
        self.latest = self.latest.max(now);
        transactions(&rows)?;
        let mut chosen: HashMap<Revision, Revision> = HashMap::new();
        let mut ours: Option<Revision> = None;
        let mut expected = predicted.iter().flat_map(|predicted| predicted.rows.iter());
        for row in rows {
            if row.revision <= self.last() {
                return Err(format!("revision {} comes after {}", row.revision, self.last()));
            }
            if row.kind == Kind::Expire {
                self.expiry(&row)?;
                if predicted.as_ref().is_some_and(|predicted| row.origin.as_ref() == Some(&predicted.label)) {
                    ours = Some(row.commit);
                }
            } else {
                let Some(expected) = expected.next() else { return Err(format!("nobody asked for {row:?}")) };
                chosen.insert(expected.revision, row.revision);
                let previous =
                    expected.previous.map(|previous| chosen.get(&previous).copied().unwrap_or(previous));
                let (revision, commit) = (row.revision, row.commit);
                let expected = Seen { revision, commit, previous, ..expected.clone() };
                if row != expected {
                    return Err(format!("logged {row:?}, expected {expected:?}"));
                }
                if ours.is_some_and(|ours| ours != commit) {
                    return Err(format!("two transactions of one step: {ours:?} and {commit}"));
                }
                ours = Some(commit);
                self.nothing_due(&row)?;
            }
            self.state.apply(&row);
            self.rows.push(row);
        }
        if let Some(missing) = expected.next() {
            return Err(format!("not logged: {missing:?}"));
        }
        Ok(predicted.map(|predicted| {
            let choose = |revision: Revision| chosen.get(&revision).copied().unwrap_or(revision);
            match predicted.outcome.map_revisions(&choose) {
                // A transaction's revision is its last one, also where that is an expiry; where it logged nothing,
                // it is somewhere near the log's end.
                Outcome::Committed(outcomes, _) => {
                    Outcome::Committed(outcomes, ours.unwrap_or(Revision::ZERO))
                }
                outcome => outcome,
            }
        }))
    }

    /// An expiry is of an entry whose deadline has come, and tells all of it.
    fn expiry(&self, row: &Seen) -> Result<(), String> {
        let cell = self.state.cell(&row.group, row.key.as_deref().unwrap_or_default());
        let Some(cell) = cell.filter(|_| row.key.is_some()) else {
            return Err(format!("expired, and is not there: {row:?}"));
        };
        let expected = Seen {
            value: Some(cell.value.clone()),
            content_type: cell.content_type.clone(),
            deadline: cell.deadline,
            previous: Some(cell.revision),
            previous_value: None,
            snapshot: false,
            ..row.clone()
        };
        if row != &expected || row.timestamp > self.latest {
            return Err(format!("logged {row:?}, expected {expected:?} no later than {:?}", self.latest));
        }
        if !cell.is_due(row.timestamp) {
            return Err(format!("expired before its deadline: {row:?}"));
        }
        Ok(())
    }

    /// Before something else happens to an entry that is due, its expiry is logged.
    fn nothing_due(&self, row: &Seen) -> Result<(), String> {
        let due = match &row.key {
            Some(key) => self.state.cell(&row.group, key).is_some_and(|cell| cell.is_due(row.timestamp)),
            None => self.state.group(&row.group).any(|(_, cell)| cell.is_due(row.timestamp)),
        };
        if due { Err(format!("something due was not announced before {row:?}")) } else { Ok(()) }
    }

    /// The log may have been trimmed before this row, but not within a transaction, and never of its newest row.
    ///
    /// # Errors
    ///
    /// What should still be there.
    pub fn trim(&mut self, oldest: Revision) -> Result<(), String> {
        let gone = self.rows.iter().rev().find(|row| row.revision < oldest);
        let trimmed = gone.map_or(self.trimmed, |row| self.trimmed.max(row.revision));
        if trimmed >= self.last() && trimmed > Revision::ZERO {
            return Err(format!(
                "trimmed up to {trimmed}, and nothing is left: the last one is {}",
                self.last()
            ));
        }
        let place = self.rows.partition_point(|row| row.revision <= trimmed);
        let half = |row: &&Seen| row.commit > trimmed;
        if let Some(row) = place.checked_sub(1).and_then(|last| self.rows.get(last)).filter(half) {
            return Err(format!(
                "trimmed up to {trimmed}, in the middle of the transaction up to {}",
                row.commit
            ));
        }
        self.trimmed = trimmed;
        Ok(())
    }

    /// The oldest of so many newest rows; after the last where there are none.
    pub fn newest(&self, rows: u64) -> Revision {
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        let oldest = self.rows.iter().rev().take(rows).last();
        oldest.map_or(Revision::new(self.last().get() + 1), |row| row.revision)
    }

    /// The end of the last whole transaction before a revision that trimming may take, but never the newest one.
    pub fn cut(&self, before: Revision) -> Revision {
        let older = self.rows.iter().filter(|row| row.revision < before && row.revision < self.last());
        let ends = older.filter(|row| row.revision == row.commit).map(|row| row.revision);
        ends.max().unwrap_or(Revision::ZERO).max(self.trimmed)
    }

    /// What the log says after a revision, to whom asks for this: what is lost, and what is there.
    pub fn past(&self, want: &Want, after: Revision) -> (Option<(Revision, Revision)>, Vec<Seen>) {
        // From the very beginning means from wherever it begins.
        let gap = after > Revision::ZERO && after < self.trimmed;
        let lost = gap.then(|| (Revision::new(after.get() + 1), self.trimmed));
        let rows = self.held().iter().filter(|row| row.revision > after && want.wants(row));
        (lost, rows.cloned().collect())
    }
}

/// The rows of a transaction follow one another, and name its last one.
fn transactions(rows: &[Seen]) -> Result<(), String> {
    for (row, next) in rows.iter().zip(rows.iter().skip(1)) {
        let inside = row.commit > row.revision;
        if inside && next.commit != row.commit {
            return Err(format!("a transaction is interrupted: {row:?}, then {next:?}"));
        }
    }
    match rows.last() {
        Some(last) if last.commit != last.revision => Err(format!("a transaction without an end: {last:?}")),
        _ => Ok(()),
    }
}

/// Whether what came is what had to come. What is as of the log's end may be as of any moment of the call, the
/// revisions in what was undone are nobody's, and a full page may name its end though nothing comes after it.
pub fn agree(expected: &Outcome, actual: &Outcome, before: Revision, after: Revision) -> bool {
    let meanwhile = |revision: &Revision| (before..=after).contains(revision);
    let all = |expected: &[Outcome], actual: &[Outcome]| {
        let mut pairs = expected.iter().zip(actual);
        expected.len() == actual.len()
            && pairs.all(|(expected, actual)| agree(expected, actual, before, after))
    };
    match (expected, actual) {
        (Outcome::Snapshot(expected, _), Outcome::Snapshot(actual, revision)) => {
            all(expected, actual) && meanwhile(revision)
        }
        (Outcome::Committed(expected, commit), Outcome::Committed(actual, revision)) => {
            let nothing_logged = *commit == Revision::ZERO;
            let pairs = expected.iter().zip(actual).map(|(expected, actual)| made(expected, actual));
            let actual: Vec<_> = pairs.chain(actual.iter().skip(expected.len()).cloned()).collect();
            all(expected, &actual) && if nothing_logged { meanwhile(revision) } else { commit == revision }
        }
        (Outcome::Entries(expected, None), Outcome::Entries(actual, Some(next))) => {
            expected == actual && actual.last().is_some_and(|entry| entry.key == *next)
        }
        (
            Outcome::Refused(Refusal::Conflict(Some(expected))),
            Outcome::Refused(Refusal::Conflict(Some(actual))),
        ) => expected == actual || (expected.get() >= PROVISIONAL && *actual > before),
        (expected, actual) => expected == actual,
    }
}

/// The first revision of a commit that is not made yet, where an engine learns only by the commit which it is. No store
/// comes that far.
const OPEN: u64 = 1 << 52;

/// What a transaction was given, with the revisions of its own commit as they came to be.
fn made(expected: &Outcome, actual: &Outcome) -> Outcome {
    let of_cell = |expected: &Cell, actual: &Cell| {
        let real =
            |expected: Revision, actual: Revision| if actual.get() >= OPEN { expected } else { actual };
        Cell {
            revision: real(expected.revision, actual.revision),
            created: real(expected.created, actual.created),
            ..actual.clone()
        }
    };
    match (expected, actual) {
        (Outcome::Entry(Some(expected)), Outcome::Entry(Some(actual))) => {
            Outcome::Entry(Some(of_cell(expected, actual)))
        }
        (Outcome::Entries(expected, _), Outcome::Entries(actual, next)) => {
            let pairs = expected.iter().zip(actual);
            let made = pairs.map(|(expected, actual)| Listed {
                cell: of_cell(&expected.cell, &actual.cell),
                ..actual.clone()
            });
            Outcome::Entries(made.chain(actual.iter().skip(expected.len()).cloned()).collect(), next.clone())
        }
        _ => actual.clone(),
    }
}
