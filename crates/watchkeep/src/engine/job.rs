//! One write after another in a transaction: run by the rules, kept or undone as a whole.

use std::cell::RefCell;
use std::sync::Arc;

use crate::rules::{Act, Author, Did, Effect, Job, Moment, Rows, Stamp, Stop, Work, Write};
use crate::types::batch::{Operation, Outcome};
use crate::types::error::{Error, Reason, Result};
use crate::types::name::NameRange;
use crate::types::revision::Revision;

use super::{Answer, Ask, Done, Query, Receipt, Sealed, Transact, mixed_up};

/// Rows in which several jobs are committed together, and one can be undone alone.
pub(super) trait Transaction: Rows {
    /// Remembers how the rows are, for [`undo`](Transaction::undo).
    fn mark(&mut self) -> Result<()>;
    /// Forgets the mark.
    fn unmark(&mut self) -> Result<()>;
    /// Puts the rows back as they were at the mark, and forgets it.
    fn undo(&mut self) -> Result<()>;
    /// Lets reads that go past these rows see what was written.
    fn show(&mut self) -> Result<()> {
        Ok(())
    }
    /// Whether the transaction still stands: some errors take all of it.
    fn stands(&self) -> bool;
    /// Writes what the job at hand logged, as one commit; its last revision, if it logged anything.
    fn seal(&mut self) -> Result<Option<Revision>>;
    /// Why nothing may be written, if that is so.
    fn sealed(&self) -> Option<Arc<str>> {
        None
    }
    /// Forgets what the job at hand logged.
    fn forget(&mut self);
    /// The last revision, with all jobs sealed so far.
    fn end(&self) -> Revision;
    /// The revision of an event of a job that began after this end.
    fn revision(&self, end: Revision, stamp: Stamp) -> Revision;
}

/// The groups in which there is more that is due than a step removes: what has to go before a job is run again.
pub(super) type InTheWay = Option<NameRange>;

/// How a transaction's closure reads what it has written.
pub(super) type Reading<'r> = dyn Fn(&Query<'_>) -> Result<Answer> + 'r;

/// A job with what is due out of its way.
pub(super) enum Clear<T> {
    /// It is done, or refused.
    Done(Result<T>),
    /// There is more in its way than a step removes. One step is gone: commit that, and run the job again.
    NotYet,
}

impl<T> Clear<T> {
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Clear<U> {
        match self {
            Clear::Done(result) => Clear::Done(result.map(f)),
            Clear::NotYet => Clear::NotYet,
        }
    }
}

/// Applies a write. The outer error is one that took the transaction with it.
pub(super) fn apply<R: Transaction>(
    rows: &mut R,
    moment: Moment,
    write: &Write,
    in_the_way: &mut InTheWay,
) -> Result<Clear<Receipt>> {
    if !write.work.passes_seals()
        && let Some(refused) = refuse_sealed(rows)
    {
        return refused_or_known(rows, moment, write, refused).map(Clear::Done);
    }
    clear(rows, moment, write.work.is_several(), in_the_way, |rows| {
        let before = rows.end();
        let effect = Job::new(rows, moment, &write.author).run(&write.work)?;
        let known = match effect {
            Effect::Repeated { revision, .. } => Some(revision),
            _ => None,
        };
        let announced = rows.seal()?;
        let done = Done::of(effect, |stamp| rows.revision(before, stamp));
        Ok(Receipt { done, revision: known.unwrap_or(rows.end()), announced })
    })
}

/// Runs a closure, which reads through `read`. The outer error is one that took the transaction with it.
pub(super) fn close_over<R: Transaction>(
    rows: &mut R,
    moment: Moment,
    author: &Author,
    read: &Reading<'_>,
    in_the_way: &mut InTheWay,
    mut f: impl FnMut(&dyn Transact) -> Result<()>,
) -> Result<Clear<Sealed>> {
    if let Some(refused) = refuse_sealed(rows) {
        return Ok(Clear::Done(Err(refused)));
    }
    clear(rows, moment, true, in_the_way, |rows| {
        let before = rows.end();
        let job = RefCell::new(Job::new(rows, moment, author));
        let guarded = Guarded { read, job, stop: RefCell::default(), before };
        let result = f(&guarded);
        let Guarded { stop, .. } = guarded;
        stop.into_inner().map_or(Ok(()), Err)?;
        result.map_err(Stop::Refused)?;
        let announced = rows.seal()?;
        Ok(Sealed { revision: rows.end(), announced })
    })
}

/// What a sealed store says to a write: a batch that was applied before the seal has its answer, and whoever goes on
/// elsewhere must know that.
fn refused_or_known<R: Transaction>(
    rows: &mut R,
    moment: Moment,
    write: &Write,
    refused: Error,
) -> Result<Result<Receipt>> {
    let known = run(rows, false, |rows| Job::new(rows, moment, &write.author).known(&write.work))?;
    Ok(match known {
        Ok(Some((revision, outcomes))) => {
            Ok(Receipt { done: Done::Repeated(outcomes), revision, announced: None })
        }
        Ok(None) => Err(refused),
        Err(stop) => Err(stop.error()),
    })
}

fn refuse_sealed(rows: &impl Transaction) -> Option<Error> {
    rows.sealed().map(|why| Reason::Sealed { why: why.as_ref().into() }.into())
}

/// Runs a job, and before it a step of what is due in its way.
fn clear<R: Transaction, T>(
    rows: &mut R,
    moment: Moment,
    is_several: bool,
    in_the_way: &mut InTheWay,
    mut job: impl FnMut(&mut R) -> Result<T, Stop>,
) -> Result<Clear<T>> {
    let mut reaped: Option<NameRange> = None;
    loop {
        if let Some(groups) = in_the_way.take() {
            match reap(rows, moment, &groups)? {
                Ok(Effect::Reaped { more: true, .. }) => {
                    *in_the_way = Some(groups);
                    return Ok(Clear::NotYet);
                }
                Ok(_) => reaped = Some(groups),
                Err(Stop::Refused(error) | Stop::Fault(error)) => return Ok(Clear::Done(Err(error))),
                Err(Stop::Reap(_)) => return Err(mixed_up()),
            }
        }
        match run(rows, is_several, &mut job)? {
            Ok(done) => return Ok(Clear::Done(Ok(done))),
            Err(Stop::Refused(error) | Stop::Fault(error)) => return Ok(Clear::Done(Err(error))),
            Err(Stop::Reap(groups)) if reaped.as_ref() == Some(&groups) => {
                let what = "what is due there cannot be removed; `check` says more".to_owned();
                return Err(Reason::Corrupt { what }.into());
            }
            Err(Stop::Reap(groups)) => *in_the_way = Some(groups),
        }
    }
}

/// Removes a step of what is due, as a commit of its own.
fn reap<R: Transaction>(rows: &mut R, moment: Moment, groups: &NameRange) -> Result<Result<Effect, Stop>> {
    let reap = Work::Reap { groups: groups.clone() };
    run(rows, false, |rows| {
        let effect = Job::new(rows, moment, &Author::default()).run(&reap)?;
        rows.seal()?;
        Ok(effect)
    })
}

/// Runs a job. One that may have changed rows when it stops is undone: what stops leaves nothing behind.
fn run<R: Transaction, T>(
    rows: &mut R,
    is_several: bool,
    job: impl FnOnce(&mut R) -> Result<T, Stop>,
) -> Result<Result<T, Stop>> {
    if is_several {
        rows.mark()?;
    }
    let stop = match job(rows) {
        Ok(done) => {
            if is_several {
                rows.unmark()?;
            }
            return Ok(Ok(done));
        }
        // A savepoint does not survive every error: a full disk takes the whole transaction.
        Err(Stop::Fault(error)) if !is_several || !rows.stands() => return Err(error),
        Err(stop) => stop,
    };
    rows.forget();
    if is_several {
        rows.undo()?;
    }
    Ok(Err(stop))
}

/// A job in a user's closure, which may look away from what stopped an operation half done.
struct Guarded<'r, R> {
    read: &'r Reading<'r>,
    job: RefCell<Job<'r, R>>,
    stop: RefCell<Option<Stop>>,
    /// The last revision before it.
    before: Revision,
}

impl<'r, R: Rows> Guarded<'r, R> {
    fn step<T>(&self, f: impl FnOnce(&mut Job<'r, R>) -> Result<T, Stop>) -> Result<T> {
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

impl<R: Transaction> Transact for Guarded<'_, R> {
    fn apply(&self, operation: &Operation) -> Result<Outcome> {
        let did: Did = self.step(|job| job.operate(operation))?;
        let job = self.job.borrow();
        Ok(did.at(|stamp| job.rows().revision(self.before, stamp)))
    }

    fn consumer(&self, name: &str, act: &Act) -> Result<()> {
        self.step(|job| job.act(name, act).map(drop))
    }

    fn spoil(&self, error: &Error) {
        self.stop.borrow_mut().get_or_insert_with(|| Stop::Refused(error.clone()));
    }
}

impl<R: Transaction> Ask for Guarded<'_, R> {
    fn ask(&self, query: &Query<'_>) -> Result<Answer> {
        // After what stopped it, the transaction may be gone, and nothing is to be written.
        if self.stop.borrow().is_none() {
            self.step(|job| Ok(job.rows_mut().show()?))?;
        }
        (self.read)(query)
    }
}
