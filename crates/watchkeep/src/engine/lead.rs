//! Who leads: holds the turn, does its own write, and takes along those that came meanwhile.

use std::sync::Arc;
use std::time::Instant;

use crate::rules::{Author, Moment, Write};
use crate::types::error::{Error, Reason, Result};
use crate::types::limits::{BATCH_BYTES, BATCH_TIME};
use crate::types::revision::Revision;

use super::job::{self, Clear, InTheWay, Transaction};
use super::turn::{self, Job, Turn};
use super::{Receipt, Sealed, Settled, Transact};

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

/// What is handed from leader to leader.
pub(super) trait Pen {
    /// Drops what was begun and not committed.
    fn roll_back(&self);
}

/// Holds the turn; passes it on whatever happens, with what it took along given back.
pub(super) struct Lead<'e, P: Pen> {
    turn: &'e Turn<P>,
    pub(super) pen: Option<P>,
    pub(super) taken: Vec<Taken<P>>,
    /// The last revision that was committed, if anything was announced.
    pub(super) announced: Option<Revision>,
    /// Before the leader's own write.
    pub(super) in_the_way: InTheWay,
}

impl<'e, P: Pen> Lead<'e, P> {
    pub(super) fn new(turn: &'e Turn<P>, pen: P) -> Lead<'e, P> {
        Lead { turn, pen: Some(pen), taken: Vec::new(), announced: None, in_the_way: None }
    }

    /// Does something with the turn, and passes it.
    pub(super) fn with<T>(mut self, f: impl FnOnce(&mut P) -> Result<T>) -> Result<T> {
        self.pen.as_mut().map_or_else(|| Err(Reason::Closed.into()), f)
    }

    /// Takes along what waits, up to so many, to fail with the rest: what is in the way of one is in the way of all.
    #[cfg(feature = "etcd")]
    pub(super) fn take_waiting(&mut self, count: usize) {
        while self.taken.len() < count
            && let Some(next) = Taken::next(self.turn)
        {
            self.taken.push(next);
        }
    }

    /// Gives back those that were taken along last, but for so many: together they are too much.
    #[cfg(feature = "etcd")]
    pub(super) fn shed(&mut self, kept: usize) {
        let gone = self.taken.split_off(kept.min(self.taken.len()));
        self.turn.give_back(gone.into_iter().map(|taken| taken.job));
    }

    /// Those that were taken along.
    #[cfg(feature = "etcd")]
    pub(super) fn jobs(&self) -> impl Iterator<Item = &Arc<Job<P>>> {
        self.taken.iter().map(|taken| &taken.job)
    }

    /// Forgets what came of those that were taken along: all is run again.
    #[cfg(feature = "etcd")]
    pub(super) fn start_again(&mut self) {
        for taken in &mut self.taken {
            (taken.result, taken.failed) = (None, false);
        }
    }

    /// Whether one of those that were taken along was refused.
    #[cfg(feature = "etcd")]
    pub(super) fn has_refused(&self) -> bool {
        self.taken.iter().any(|taken| matches!(taken.result, Some(Err(_))))
    }

    /// What became of those that were taken along.
    #[cfg(feature = "etcd")]
    pub(super) fn results(&mut self) -> impl Iterator<Item = &mut Result<Receipt>> {
        self.taken.iter_mut().filter_map(|taken| taken.result.as_mut())
    }

    /// Nothing was committed: what had failed by itself stays so, and all else fails with the transaction. What was refused may
    /// have been so because of what is not committed either, or was not confirmed yet.
    pub(super) fn fail(&mut self, own: &mut Option<Result<OwnDone>>, error: &Error) {
        if !matches!(own, Some(Err(_))) {
            *own = Some(Err(error.clone()));
        }
        for taken in self.taken.iter_mut().filter(|taken| !taken.failed) {
            taken.result = Some(Err(error.clone()));
        }
    }

    /// Passes the turn, and tells everybody what became of their writes.
    pub(super) fn finish(
        mut self,
        own: Option<Result<OwnDone>>,
        settled: &mut Settled,
        mut wake_others: impl FnMut(Revision),
    ) -> Result<OwnDone> {
        let (turn, last) = (self.turn, self.announced);
        let mut unheard = last;
        let mut wake_others = || unheard.take().into_iter().for_each(&mut wake_others);
        let taken = std::mem::take(&mut self.taken);
        // What is due in their way goes step by step: they wait for the next leader.
        turn.give_back(taken.iter().filter(|taken| taken.result.is_none()).map(|taken| taken.job.clone()));
        let done = taken.into_iter().filter(|taken| taken.result.is_some());
        let (background, waiting): (Vec<_>, Vec<_>) = done.partition(|taken| taken.job.background);
        let mut finish = |Taken { job, result, .. }: Taken<P>| {
            let lost = || Err(Reason::WorkerDied { what: "a commit" }.into());
            turn::finish(&job, result.unwrap_or_else(lost), settled);
        };
        background.into_iter().for_each(&mut finish);
        drop(self);
        // A process may end once its future has resolved, or its write has returned.
        wake_others();
        waiting.into_iter().for_each(finish);
        // Nobody else announces what was due and in the way of the leader's own write.
        Ok(match own.unwrap_or(Ok(OwnDone::Others))? {
            OwnDone::Write(receipt) => {
                OwnDone::Write(Receipt { announced: receipt.announced.or(last), ..receipt })
            }
            OwnDone::Closure(sealed) => {
                OwnDone::Closure(Sealed { announced: sealed.announced.or(last), ..sealed })
            }
            OwnDone::Others => OwnDone::Others,
        })
    }
}

impl<P: Pen> Drop for Lead<'_, P> {
    fn drop(&mut self) {
        // Only a panic leaves jobs behind: they wait for the next leader.
        self.turn.give_back(self.taken.drain(..).map(|taken| taken.job));
        if let Some(pen) = self.pen.take() {
            pen.roll_back();
            self.turn.pass(pen);
        }
    }
}

/// How many writes a leader takes along at the most.
#[derive(Debug, Clone, Copy)]
pub(super) struct TakesAlong(pub(super) usize);

impl TakesAlong {
    /// Applies what was taken along before, in a transaction that was given up, or else takes along what may be. An error
    /// took the transaction with it.
    pub(super) fn apply<P, R: Transaction>(
        self,
        turn: &Turn<P>,
        taken: &mut Vec<Taken<P>>,
        rows: &mut R,
        moment: impl Fn() -> Moment,
    ) -> Result<()> {
        if !taken.is_empty() {
            let mut goes_on = true;
            for taken in taken {
                // It may have been made after the transaction began.
                goes_on = if goes_on { taken.apply(rows, moment())? } else { taken.wait() };
            }
            return Ok(());
        }
        let (start, mut bytes, mut goes_on) = (Instant::now(), 0, true);
        while goes_on && taken.len() < self.0 && bytes < BATCH_BYTES && start.elapsed() < BATCH_TIME {
            let Some(mut next) = Taken::next(turn) else { break };
            bytes += next.weight();
            let applied = next.apply(rows, moment());
            taken.push(next);
            goes_on = applied?;
        }
        Ok(())
    }
}

/// A write that was taken along.
pub(super) struct Taken<P> {
    job: Arc<Job<P>>,
    /// None: not applied yet, or to be applied again, by the next leader if not by this one.
    result: Option<Result<Receipt>>,
    failed: bool,
}

impl<P> Taken<P> {
    /// The next write that may be taken along, if there is one.
    fn next(turn: &Turn<P>) -> Option<Taken<P>> {
        Some(Taken { job: turn.take_along()?, result: None, failed: false })
    }

    fn weight(&self) -> usize {
        self.job.write.as_ref().map_or(0, |write| write.work.weight())
    }

    /// Forgets what came of it in a transaction that was rolled back; nobody is taken along after it.
    fn wait(&mut self) -> bool {
        if !self.failed {
            self.result = None;
        }
        false
    }

    /// Whether others may be taken along after it. An error took the transaction with it; this write failed by it.
    fn apply<R: Transaction>(&mut self, rows: &mut R, moment: Moment) -> Result<bool> {
        if self.failed {
            return Ok(true);
        }
        self.result = None;
        let applied = match &self.job.write {
            Some(write) => job::apply(rows, moment, write, &mut None),
            None => Err(Reason::WorkerDied { what: "a commit" }.into()),
        };
        match applied {
            Ok(Clear::Done(result)) => {
                self.result = Some(result);
                Ok(true)
            }
            Ok(Clear::NotYet) => Ok(false),
            Err(error) => {
                (self.failed, self.result) = (true, Some(Err(error.clone())));
                Err(error)
            }
        }
    }
}
