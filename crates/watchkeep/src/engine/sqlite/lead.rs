//! Leading: one SQL transaction for the leader's own write and those that came meanwhile.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use crate::engine::{Act, Author, Done, Read, Receipt, Sealed, Transact, Work, Write};
use crate::types::batch::{Batch, Operation, Outcome};
use crate::types::clock::Clock;
use crate::types::error::{Error, ErrorKind, Reason, Result};
use crate::types::limits::{BATCH_BYTES, BATCH_JOBS, BATCH_TIME};
use crate::types::revision::Revision;

use super::apply::{Commit, Job};
use super::read::SqliteRead;
use super::writer::Writer;
use super::{SqliteEngine, answers, nesting};
use crate::engine::turn::{self, Turn};

/// What the leader came to do.
pub(super) enum Own<'a> {
    Write(&'a Write),
    Closure {
        author: &'a Author,
        f: &'a mut dyn FnMut(&dyn Transact) -> Result<()>,
    },
    /// Nothing: it leads for background jobs.
    Others,
}

/// What became of the leader's own write.
pub(super) enum OwnDone {
    Write(Receipt),
    Closure(Sealed),
    Others,
}

/// Holds the turn; passes it on whatever happens, with what it took along given back.
pub(super) struct Lead<'e> {
    turn: &'e Turn<Writer>,
    writer: Option<Writer>,
    taken: Vec<Taken>,
    /// The last revision that was committed, if anything was announced.
    announced: Option<Revision>,
}

impl<'e> Lead<'e> {
    pub(super) fn new(turn: &'e Turn<Writer>, writer: Writer) -> Lead<'e> {
        Lead { turn, writer: Some(writer), taken: Vec::new(), announced: None }
    }

    /// Does something with the turn, and passes it.
    pub(super) fn with<T>(mut self, f: impl FnOnce(&mut Writer) -> Result<T>) -> Result<T> {
        self.writer.as_mut().map_or_else(|| Err(Reason::Closed.into()), f)
    }
}

struct Taken {
    job: Arc<turn::Job<Writer>>,
    /// None: not applied yet, or to be applied again.
    result: Option<Result<Receipt>>,
    failed: bool,
}

impl Taken {
    fn apply(&mut self, writer: &Writer, commit: &mut Commit<'_>, clock: &dyn Clock) -> Result<(), Broken> {
        // It may have been made after the transaction began.
        commit.now = clock.now();
        let applied = match &self.job.write {
            Some(write) => apply(writer, commit, write),
            None => Err(Reason::WorkerDied { what: "a commit" }.into()),
        };
        match applied {
            Ok(result) => {
                self.result = Some(result);
                Ok(())
            }
            Err(error) => {
                writer.roll_back();
                (self.failed, self.result) = (true, Some(Err(error.clone())));
                Err(Broken::By { own: false, error })
            }
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        // Only a panic leaves jobs behind: they wait for the next leader.
        self.turn.give_back(self.taken.drain(..).map(|taken| taken.job));
        if let Some(writer) = self.writer.take() {
            writer.roll_back();
            self.turn.pass(writer);
        }
    }
}

/// Nothing was committed: what was refused stays refused, what was applied fails with the transaction.
fn fail_all(own: &mut Option<Result<OwnDone>>, taken: &mut [Taken], error: &Error) {
    if !matches!(own, Some(Err(_))) {
        *own = Some(Err(error.clone()));
    }
    for taken in taken.iter_mut().filter(|taken| !matches!(taken.result, Some(Err(_)))) {
        taken.result = Some(Err(error.clone()));
    }
}

/// Why a transaction could not be committed.
enum Broken {
    /// One write took the whole transaction with it; the others can be run again without it.
    By {
        own: bool,
        error: Error,
    },
    Whole(Error),
    /// More revisions were needed than were reserved. Now they are: run again.
    Short,
}

impl SqliteEngine {
    /// Commits the leader's own write and what can be taken along, then passes the turn.
    pub(super) fn lead(&self, writer: Writer, mut own: Own<'_>, queued: Instant) -> Result<OwnDone> {
        let mut lead = Lead::new(&self.turn, writer);
        let mut own_result: Option<Result<OwnDone>> = None;
        loop {
            let attempt = self.attempt(&mut lead, &mut own, &mut own_result, queued);
            if let Err(Broken::By { error, .. } | Broken::Whole(error)) = &attempt {
                self.notice(error);
            }
            match attempt {
                Ok(()) => break,
                Err(Broken::By { own: true, error }) => own_result = Some(Err(error)),
                Err(Broken::By { own: false, .. } | Broken::Short) => {}
                Err(Broken::Whole(error)) => {
                    fail_all(&mut own_result, &mut lead.taken, &error);
                    if matches!(own, Own::Others) {
                        self.turn.fail_background(&error, error.kind() != ErrorKind::Busy);
                    }
                    break;
                }
            }
        }
        let mut announced = lead.announced.zip(self.wake.as_ref());
        let mut wake_others = || announced.take().into_iter().for_each(|(last, wake)| wake.announce(last));
        let (background, waiting): (Vec<_>, Vec<_>) =
            lead.taken.drain(..).partition(|taken| taken.job.background);
        let finish = |Taken { job, result, .. }: Taken| {
            let lost = || Err(Reason::WorkerDied { what: "a commit" }.into());
            self.turn.finish(&job, result.unwrap_or_else(lost));
        };
        // A close waits for the turn, and then completes for the last time what has no thread of its own.
        if !background.is_empty() {
            // A process may end once its future has resolved.
            wake_others();
        }
        background.into_iter().for_each(finish);
        drop(lead);
        wake_others();
        waiting.into_iter().for_each(finish);
        own_result.unwrap_or(Ok(OwnDone::Others))
    }

    /// One SQL transaction.
    fn attempt(
        &self,
        lead: &mut Lead<'_>,
        own: &mut Own<'_>,
        own_result: &mut Option<Result<OwnDone>>,
        queued: Instant,
    ) -> Result<(), Broken> {
        let again = own_result.is_some() || !lead.taken.is_empty();
        let Some(writer) = &mut lead.writer else { return Ok(()) };
        self.may_write().map_err(Broken::Whole)?;
        writer.reserve_early(queued, self.busy_timeout).map_err(Broken::Whole)?;
        writer.begin(queued, self.busy_timeout).map_err(Broken::Whole)?;
        let begun = Commit::begin(&writer.conn, self.clock.now(), self.limits);
        let mut commit = begun.map_err(|error| self.abandon(writer, error))?;
        commit.is_tight = self.ballast.is_tight();

        // Its own first: a closure can only run here.
        if !matches!(own_result, Some(Err(_))) {
            let done = match own {
                Own::Write(write) => apply(writer, &mut commit, write).map(|done| done.map(OwnDone::Write)),
                Own::Closure { author, f } => self.run_closure(writer, &mut commit, author, *f),
                Own::Others => Ok(Ok(OwnDone::Others)),
            };
            match done {
                Ok(result) => *own_result = Some(result),
                Err(error) => {
                    writer.roll_back();
                    return Err(Broken::By { own: true, error });
                }
            }
        }
        for taken in lead.taken.iter_mut().filter(|taken| !taken.failed) {
            taken.apply(writer, &mut commit, &*self.clock)?;
        }
        let (start, mut bytes) = (Instant::now(), 0);
        while !again && lead.taken.len() < BATCH_JOBS && bytes < BATCH_BYTES && start.elapsed() < BATCH_TIME {
            let Some(job) = self.turn.take_along() else { break };
            bytes += job.write.as_ref().map_or(0, |write| write.work.weight());
            lead.taken.push(Taken { job, result: None, failed: false });
            lead.taken.last_mut().map_or(Ok(()), |taken| taken.apply(writer, &mut commit, &*self.clock))?;
        }

        let (base, last, earliest) = (commit.base, commit.last, commit.earliest);
        let changes = std::mem::take(&mut commit.changes);
        drop(commit);
        if last > base && !writer.may_give(last).map_err(|error| self.abandon(writer, error))? {
            writer.roll_back();
            writer.reserve(last, queued, self.busy_timeout).map_err(Broken::Whole)?;
            return Err(Broken::Short);
        }
        writer.commit().map_err(Broken::Whole)?;
        writer.committed(base, last);
        if last > base {
            self.feed.push(base, last, changes);
            lead.announced = Some(last);
        }
        self.note(earliest, last);
        self.spare(writer);
        if last > base && matches!(own_result, Some(Err(_))) {
            // What was due went, although the write was refused: nobody else announces it.
            self.signal.raise();
        }
        Ok(())
    }

    fn abandon(&self, writer: &Writer, error: Error) -> Broken {
        writer.roll_back();
        Broken::Whole(error)
    }

    /// Runs a closure in a savepoint. The outer error is one that took the transaction with it.
    fn run_closure(
        &self,
        writer: &Writer,
        commit: &mut Commit<'_>,
        author: &Author,
        f: &mut dyn FnMut(&dyn Transact) -> Result<()>,
    ) -> Result<Result<OwnDone>> {
        let done = in_savepoint(writer, || {
            let guarded = Guarded {
                read: commit.read(),
                job: RefCell::new(commit.job(author)),
                fault: RefCell::default(),
            };
            let result = nesting::inside(&self.file, self.turn.address(), || f(&guarded));
            let Guarded { job, fault, .. } = guarded;
            fault.into_inner().map_or(result, Err)?;
            job.into_inner().seal()
        })?;
        Ok(done.map(|announced| {
            OwnDone::Closure(Sealed { revision: announced.unwrap_or(commit.last), announced })
        }))
    }
}

/// Does something that leaves nothing behind when it is refused. The outer error is one that took the transaction with
/// it.
fn in_savepoint<T>(writer: &Writer, f: impl FnOnce() -> Result<T>) -> Result<Result<T>> {
    writer.run("SAVEPOINT job")?;
    match f() {
        Ok(done) => {
            writer.run("RELEASE job")?;
            Ok(Ok(done))
        }
        // A savepoint does not survive every error: a full disk takes the whole transaction.
        Err(error) if writer.conn.is_autocommit() => Err(error),
        Err(error) => {
            writer.run("ROLLBACK TO job")?;
            writer.run("RELEASE job")?;
            Ok(Err(error))
        }
    }
}

/// Applies a write. The outer error is one that took the transaction with it.
fn apply(writer: &Writer, commit: &mut Commit<'_>, write: &Write) -> Result<Result<Receipt>> {
    match &write.work {
        Work::Batch(batch) if !batch.is_single() => in_savepoint(writer, || {
            let id = batch.id.as_ref().map(|id| (id, batch.digest()));
            let known = id.map(|(id, body)| answers::find(&writer.conn, id, body)).transpose()?.flatten();
            if let Some((revision, outcomes)) = known {
                return Ok(Receipt { done: Done::Repeated(outcomes), revision, announced: None });
            }
            let mut job = commit.job(&write.author);
            let outcomes = all(&mut job, batch)?;
            let announced = job.seal()?;
            if let Some(id) = id {
                answers::keep(&writer.conn, commit.now, id, (commit.last, &outcomes))?;
            }
            Ok(Receipt { done: Done::Batch(outcomes), revision: commit.last, announced })
        }),
        work => one(commit, &write.author, work),
    }
}

fn all(job: &mut Job<'_, '_>, batch: &Batch) -> Result<Vec<Outcome>> {
    job.judge(&batch.conditions)?;
    batch.operations.iter().map(|operation| job.apply(operation)).collect()
}

/// Applies what needs no savepoint, because it refuses before its first change; a fault, the outer error, takes the whole
/// transaction.
fn one(commit: &mut Commit<'_>, author: &Author, work: &Work) -> Result<Result<Receipt>> {
    let mut job = commit.job(author);
    let done = match work {
        Work::Batch(batch) => all(&mut job, batch).map(Done::Batch),
        Work::Reap { groups } => job.reap(groups).map(|(keys, more)| Done::Reaped { keys, more }),
        Work::Consumer { name, act } => job.consumer(name, act).map(Done::Consumer),
        Work::Quota { namespace, quota } => job.counters().set_quota(namespace, *quota).map(|()| Done::Quota),
    };
    match done {
        Err(error) if is_fault(&error) => Err(error),
        // What was due and made room stays gone, also when that was not enough.
        done => {
            let announced = job.seal()?;
            Ok(done.map(|done| Receipt { done, revision: commit.last, announced }))
        }
    }
}

/// Whether an error may have left an operation half done, or the transaction gone.
fn is_fault(error: &Error) -> bool {
    !matches!(
        error.reason(),
        Reason::Conflict { .. }
            | Reason::Quota(_)
            | Reason::TooLarge { .. }
            | Reason::TooLong { .. }
            | Reason::Ahead { .. }
            | Reason::BadDeadline
            | Reason::Tight
            | Reason::NoRevisionLeft
            | Reason::LostRevision { .. }
            | Reason::Held { .. }
            | Reason::Fenced { .. }
            | Reason::NoConsumer { .. }
    )
}

/// A job in a user's closure, which may look away from an error that left an operation half done.
struct Guarded<'b, 'c> {
    read: SqliteRead<'c>,
    job: RefCell<Job<'b, 'c>>,
    fault: RefCell<Option<Error>>,
}

impl<'b, 'c> Guarded<'b, 'c> {
    fn step<T>(&self, f: impl FnOnce(&mut Job<'b, 'c>) -> Result<T>) -> Result<T> {
        if let Some(fault) = &*self.fault.borrow() {
            return Err(fault.clone());
        }
        f(&mut self.job.borrow_mut()).inspect_err(|error| {
            if is_fault(error) {
                self.spoil(error);
            }
        })
    }
}

impl Transact for Guarded<'_, '_> {
    fn apply(&self, operation: &Operation) -> Result<Outcome> {
        self.step(|job| job.apply(operation))
    }

    fn consumer(&self, name: &str, act: &Act) -> Result<()> {
        self.step(|job| job.consumer(name, act).map(drop))
    }

    fn spoil(&self, error: &Error) {
        self.fault.borrow_mut().get_or_insert_with(|| error.clone());
    }

    fn read(&self) -> &dyn Read {
        &self.read
    }
}
