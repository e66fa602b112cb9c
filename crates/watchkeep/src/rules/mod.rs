//! Rules: what a write does to rows, and which events it makes. Written once, for every engine: an engine offers [`Rows`]
//! and decides how they become durable.
//!
//! A single operation refuses before its first change. A batch of several may have changed rows when it is refused; the
//! engine undoes them.

mod consumers;
mod entries;
mod judge;
mod rows;
mod trim;
mod write;

use crate::types::batch::{Batch, BatchId, Operation, Outcome};
use crate::types::clock::Timestamp;
use crate::types::error::{Error, Reason};
use crate::types::limits::{ANSWERS, Limits, REAP_STEP};
use crate::types::name::{NameRange, check_label};
use crate::types::revision::Revision;

pub(crate) use consumers::describe;
pub(crate) use rows::{
    Answer, ConsumerRow, Details, Due, DuePage, GroupAndRoom, GroupRow, Head, Logged, New, Place, Room, Rows,
    Stamp,
};
#[cfg(test)]
pub(crate) use trim::by_age;
pub(crate) use trim::{Lag, LogRow, Past, cut, search, whole_transactions};
pub(crate) use write::{Act, Author, Did, Effect, Work, Write};

/// Why a write does not go on.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It is refused. A single operation has changed nothing.
    Refused(Error),
    /// What is due in these groups has to go first, in commits of its own; then it is run again, from its beginning.
    Reap(NameRange),
    /// The rows failed it, and may be half changed.
    Fault(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        match error.reason() {
            // Found before anything of the operation is written.
            Reason::NewerGroup { .. } => Stop::Refused(error),
            _ => Stop::Fault(error),
        }
    }
}

impl Stop {
    /// What a transaction's closure is told of it.
    pub(crate) fn error(&self) -> Error {
        match self {
            Stop::Refused(error) | Stop::Fault(error) => error.clone(),
            Stop::Reap(_) => Reason::DueFirst.into(),
        }
    }
}

type Result<T, E = Stop> = std::result::Result<T, E>;

/// Stops with a refusal.
fn refuse<T>(reason: Reason) -> Result<T> {
    Err(Stop::Refused(reason.into()))
}

/// What checks the write itself refuses it.
fn checked<T>(checked: Result<T, Error>) -> Result<T> {
    checked.map_err(Stop::Refused)
}

/// When a write is made, and what holds for all writes then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Entries whose deadline is not after it are due.
    pub(crate) now: Timestamp,
    pub(crate) limits: Limits,
    /// The disk is full: nothing may grow.
    pub(crate) is_tight: bool,
}

/// One write on its way into the rows.
pub(crate) struct Job<'a, R> {
    rows: &'a mut R,
    moment: Moment,
    author: &'a Author,
}

impl<'a, R: Rows> Job<'a, R> {
    pub(crate) fn new(rows: &'a mut R, moment: Moment, author: &'a Author) -> Job<'a, R> {
        Job { rows, moment, author }
    }

    pub(crate) fn rows(&self) -> &R {
        self.rows
    }

    pub(crate) fn rows_mut(&mut self) -> &mut R {
        self.rows
    }

    /// Does what a write says.
    pub(crate) fn run(&mut self, work: &Work) -> Result<Effect> {
        self.check_origin()?;
        match work {
            Work::Batch(batch) => self.batch(batch),
            Work::Reap { groups } => self.reap(groups),
            Work::Consumer { name, act } => self.consumer(name, act).map(Effect::Consumer),
            Work::Quota { namespace, quota } => {
                self.rows.set_quota(namespace, *quota)?;
                Ok(Effect::Quota)
            }
        }
    }

    /// What a write did, if it is a batch that was applied before; nothing is written.
    pub(crate) fn known(&mut self, work: &Work) -> Result<Option<(Revision, Vec<Outcome>)>> {
        self.check_origin()?;
        let Work::Batch(batch) = work else { return Ok(None) };
        let Some(id) = &batch.id else { return Ok(None) };
        Ok(self.answered(id, batch.digest())?.map(|Answer { revision, outcomes, .. }| (revision, outcomes)))
    }

    /// Does something with a named consumer, in a transaction; the number under which it is held.
    pub(crate) fn act(&mut self, name: &str, act: &Act) -> Result<u64> {
        self.check_origin()?;
        self.consumer(name, act)
    }

    /// Does one operation of a transaction.
    pub(crate) fn operate(&mut self, operation: &Operation) -> Result<Did> {
        self.check_origin()?;
        self.entries(operation)
    }

    fn check_origin(&self) -> Result<()> {
        checked(self.author.origin.as_deref().map_or(Ok(()), |origin| check_label("origin", origin)))
    }

    fn batch(&mut self, batch: &Batch) -> Result<Effect> {
        let Some(id) = &batch.id else { return self.all(batch).map(Effect::Batch) };
        let body = batch.digest();
        if let Some(Answer { revision, outcomes, .. }) = self.answered(id, body)? {
            return Ok(Effect::Repeated { revision, outcomes });
        }
        let done = self.all(batch)?;
        self.rows.keep_answer(id, self.moment.now, body, &done)?;
        Ok(Effect::Batch(done))
    }

    fn all(&mut self, batch: &Batch) -> Result<Vec<Did>> {
        self.judge(&batch.conditions)?;
        batch.operations.iter().map(|operation| self.entries(operation)).collect()
    }

    /// What a batch of this id did, if it was applied; `body` stands for all that the batch says.
    fn answered(&mut self, id: &BatchId, body: u32) -> Result<Option<Answer>> {
        match self.rows.answer(id)? {
            Some(answer) if answer.body != body => refuse(Reason::OtherBatch { id: id.clone() }),
            Some(answer) => Ok(Some(answer)),
            None => match self.rows.newest_answer(&id.client)? {
                Some(last) if id.sequence.saturating_add(ANSWERS) <= last => {
                    refuse(Reason::LongAgo { id: id.clone(), last })
                }
                _ => Ok(None),
            },
        }
    }

    /// Removes what is due in a range of groups, a step of it, and announces what has a group.
    fn reap(&mut self, groups: &NameRange) -> Result<Effect> {
        let DuePage { due, more } = self.rows.due(groups, self.moment.now, REAP_STEP)?;
        let keys = due.iter().filter(|due| due.group.is_some()).count();
        self.expire(due)?;
        Ok(Effect::Reaped { keys: u64::try_from(keys).unwrap_or(u64::MAX), more })
    }
}
