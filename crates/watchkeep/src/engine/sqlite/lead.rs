//! Leading: one SQL transaction for the leader's own write and those that came meanwhile.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use crate::engine::{Done, Read, Receipt, Sealed, Transact, mixed_up};
use crate::rules::{Act, Author, Effect, Job, Moment, Stop, Work, Write};
use crate::types::batch::{Operation, Outcome};
use crate::types::error::{Error, ErrorKind, Reason, Result};
use crate::types::limits::{BATCH_BYTES, BATCH_JOBS, BATCH_TIME};
use crate::types::revision::Revision;

use super::read::SqliteRead;
use super::rows::SqliteRows;
use super::writer::Writer;
use super::{SqliteEngine, nesting};
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
    /// None: not applied yet, or to be applied again, by the next leader if not by this one.
    result: Option<Result<Receipt>>,
    failed: bool,
}

impl Taken {
    /// Whether others may be taken along after it.
    fn apply(&mut self, writer: &Writer, rows: &mut SqliteRows<'_>, moment: Moment) -> Result<bool, Broken> {
        let applied = match &self.job.write {
            Some(write) => apply(writer, rows, moment, write),
            None => Err(Reason::WorkerDied { what: "a commit" }.into()),
        };
        match applied {
            Ok(Clear::Done(result)) => {
                self.result = Some(result);
                Ok(true)
            }
            Ok(Clear::NotYet) => Ok(false),
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
    /// A step of what has to go before the leader's own write is committed: run again.
    Reaped,
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
                Err(Broken::By { own: false, .. } | Broken::Short | Broken::Reaped) => {}
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
        let (done, left): (Vec<_>, Vec<_>) = lead.taken.drain(..).partition(|taken| taken.result.is_some());
        // What is due in their way goes step by step: they wait for the next leader.
        self.turn.give_back(left.into_iter().map(|taken| taken.job));
        let (background, waiting): (Vec<_>, Vec<_>) =
            done.into_iter().partition(|taken| taken.job.background);
        let last = lead.announced;
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
        match own_result.unwrap_or(Ok(OwnDone::Others))? {
            // Nobody else announces what was due and in its way.
            OwnDone::Write(receipt) => {
                Ok(OwnDone::Write(Receipt { announced: receipt.announced.or(last), ..receipt }))
            }
            OwnDone::Closure(sealed) => {
                Ok(OwnDone::Closure(Sealed { announced: sealed.announced.or(last), ..sealed }))
            }
            OwnDone::Others => Ok(OwnDone::Others),
        }
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
        let begun = SqliteRows::begin(&writer.conn);
        let mut rows = begun.map_err(|error| self.abandon(writer, error))?;
        let is_tight = self.ballast.is_tight();
        let moment = || Moment { now: self.clock.now(), limits: self.limits, is_tight };

        // Its own first: a closure can only run here.
        let mut is_reaping = false;
        if !matches!(own_result, Some(Err(_))) {
            let done = match own {
                Own::Write(write) => {
                    apply(writer, &mut rows, moment(), write).map(|done| done.map(OwnDone::Write))
                }
                Own::Closure { author, f } => self.run_closure(writer, &mut rows, moment(), author, *f),
                Own::Others => Ok(Clear::Done(Ok(OwnDone::Others))),
            };
            match done {
                Ok(Clear::Done(result)) => *own_result = Some(result),
                Ok(Clear::NotYet) => is_reaping = true,
                Err(error) => {
                    writer.roll_back();
                    return Err(Broken::By { own: true, error });
                }
            }
        }
        let mut goes_on = !is_reaping;
        for taken in lead.taken.iter_mut().filter(|taken| goes_on && !taken.failed) {
            // It may have been made after the transaction began.
            taken.apply(writer, &mut rows, moment())?;
        }
        let (start, mut bytes) = (Instant::now(), 0);
        while goes_on
            && !again
            && lead.taken.len() < BATCH_JOBS
            && bytes < BATCH_BYTES
            && start.elapsed() < BATCH_TIME
        {
            let Some(job) = self.turn.take_along() else { break };
            bytes += job.write.as_ref().map_or(0, |write| write.work.weight());
            lead.taken.push(Taken { job, result: None, failed: false });
            let Some(taken) = lead.taken.last_mut() else { break };
            goes_on = taken.apply(writer, &mut rows, moment())?;
        }

        let SqliteRows { base, last, earliest, changes, has_buried, .. } = rows;
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
        if has_buried {
            self.upkeep.want();
        }
        self.spare(writer);
        if last > base && matches!(own_result, Some(Err(_))) {
            // What was due went, although the write was refused: nobody else announces it.
            self.signal.raise();
        }
        if is_reaping { Err(Broken::Reaped) } else { Ok(()) }
    }

    fn abandon(&self, writer: &Writer, error: Error) -> Broken {
        writer.roll_back();
        Broken::Whole(error)
    }

    /// Runs a closure. The outer error is one that took the transaction with it.
    fn run_closure(
        &self,
        writer: &Writer,
        rows: &mut SqliteRows<'_>,
        moment: Moment,
        author: &Author,
        f: &mut dyn FnMut(&dyn Transact) -> Result<()>,
    ) -> Result<Clear<OwnDone>> {
        clear(writer, rows, moment, true, |rows| {
            let (first, conn) = (rows.last, rows.conn);
            let guarded = Guarded {
                read: SqliteRead { conn, now: moment.now },
                job: RefCell::new(Job::new(rows, moment, author)),
                stop: RefCell::default(),
                first,
            };
            let result = nesting::inside(&self.file, self.turn.address(), || f(&guarded));
            let Guarded { stop, .. } = guarded;
            stop.into_inner().map_or(Ok(()), Err)?;
            result.map_err(Stop::Refused)?;
            let announced = rows.seal()?;
            Ok(OwnDone::Closure(Sealed { revision: rows.last, announced }))
        })
    }
}

/// A job with what is due out of its way.
enum Clear<T> {
    /// It is done, or refused.
    Done(Result<T>),
    /// There is more in its way than a step removes. One step is gone: commit that, and run the job again.
    NotYet,
}

impl<T> Clear<T> {
    fn map<U>(self, f: impl FnOnce(T) -> U) -> Clear<U> {
        match self {
            Clear::Done(result) => Clear::Done(result.map(f)),
            Clear::NotYet => Clear::NotYet,
        }
    }
}

/// Runs a job that may have changed rows when it stops in a savepoint: what stops leaves nothing behind. The outer error
/// is one that took the transaction with it.
fn run<T>(
    writer: &Writer,
    rows: &mut SqliteRows<'_>,
    is_several: bool,
    job: impl FnOnce(&mut SqliteRows<'_>) -> Result<T, Stop>,
) -> Result<Result<T, Stop>> {
    if is_several {
        writer.run("SAVEPOINT job")?;
    }
    let stop = match job(rows) {
        Ok(done) => {
            if is_several {
                writer.run("RELEASE job")?;
            }
            return Ok(Ok(done));
        }
        // A savepoint does not survive every error: a full disk takes the whole transaction.
        Err(Stop::Fault(error)) if !is_several || writer.conn.is_autocommit() => return Err(error),
        Err(stop) => stop,
    };
    rows.forget();
    if is_several {
        writer.run("ROLLBACK TO job")?;
        writer.run("RELEASE job")?;
    }
    Ok(Err(stop))
}

/// Runs a job, and before it a step of what is due in its way. The outer error is one that took the transaction with it.
fn clear<T>(
    writer: &Writer,
    rows: &mut SqliteRows<'_>,
    moment: Moment,
    is_several: bool,
    mut job: impl FnMut(&mut SqliteRows<'_>) -> Result<T, Stop>,
) -> Result<Clear<T>> {
    let mut reaped = None;
    loop {
        let groups = match run(writer, rows, is_several, &mut job)? {
            Ok(done) => return Ok(Clear::Done(Ok(done))),
            Err(Stop::Refused(error) | Stop::Fault(error)) => return Ok(Clear::Done(Err(error))),
            Err(Stop::Reap(groups)) => groups,
        };
        if reaped.as_ref() == Some(&groups) {
            let what = "what is due there cannot be removed; `check` says more".to_owned();
            return Err(Reason::Corrupt { what }.into());
        }
        let reap = Work::Reap { groups: groups.clone() };
        let done = run(writer, rows, false, |rows| {
            let effect = Job::new(rows, moment, &Author::default()).run(&reap)?;
            rows.seal()?;
            Ok(effect)
        })?;
        match done {
            Ok(Effect::Reaped { more: true, .. }) => return Ok(Clear::NotYet),
            Ok(_) => reaped = Some(groups),
            Err(Stop::Refused(error) | Stop::Fault(error)) => return Ok(Clear::Done(Err(error))),
            Err(Stop::Reap(_)) => return Err(mixed_up()),
        }
    }
}

/// Applies a write.
fn apply(
    writer: &Writer,
    rows: &mut SqliteRows<'_>,
    moment: Moment,
    write: &Write,
) -> Result<Clear<Receipt>> {
    clear(writer, rows, moment, write.work.is_several(), |rows| {
        let first = rows.last;
        let effect = Job::new(rows, moment, &write.author).run(&write.work)?;
        let known = match effect {
            Effect::Repeated { revision, .. } => Some(revision),
            _ => None,
        };
        let announced = rows.seal()?;
        let done = Done::of(effect, |stamp| SqliteRows::revision_from(first, stamp));
        Ok(Receipt { done, revision: known.unwrap_or(rows.last), announced })
    })
}

/// A job in a user's closure, which may look away from what stopped an operation half done.
struct Guarded<'r, 'c> {
    read: SqliteRead<'c>,
    job: RefCell<Job<'r, SqliteRows<'c>>>,
    stop: RefCell<Option<Stop>>,
    /// The log's end before it.
    first: Revision,
}

impl<'r, 'c> Guarded<'r, 'c> {
    fn step<T>(&self, f: impl FnOnce(&mut Job<'r, SqliteRows<'c>>) -> Result<T, Stop>) -> Result<T> {
        if let Some(stop) = &*self.stop.borrow() {
            return Err(stop.error());
        }
        f(&mut self.job.borrow_mut()).map_err(|stop| {
            let error = stop.error();
            if !matches!(stop, Stop::Refused(_)) {
                self.stop.borrow_mut().get_or_insert(stop);
            }
            error
        })
    }
}

impl Transact for Guarded<'_, '_> {
    fn apply(&self, operation: &Operation) -> Result<Outcome> {
        let did = self.step(|job| job.operate(operation))?;
        Ok(did.at(|stamp| SqliteRows::revision_from(self.first, stamp)))
    }

    fn consumer(&self, name: &str, act: &Act) -> Result<()> {
        self.step(|job| job.act(name, act).map(drop))
    }

    fn spoil(&self, error: &Error) {
        self.stop.borrow_mut().get_or_insert_with(|| Stop::Refused(error.clone()));
    }

    fn read(&self) -> &dyn Read {
        &self.read
    }
}
