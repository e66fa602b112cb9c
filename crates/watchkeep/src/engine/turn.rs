//! The turn: one writer at a time. Whoever finds nobody leading leads at once, on its own thread; whoever comes
//! meanwhile queues, and is either taken along or handed the turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::signal::Signal;
use crate::engine::{Completion, Receipt, Write};
use crate::types::error::{Error, Reason, Result};
use crate::types::sync::{Condvar, Mutex, lock};

/// A place in the queue.
pub(super) struct Job<W> {
    /// What to commit; none for a closure, which only its own thread can run.
    pub(super) write: Option<Write>,
    queued: Instant,
    deadline: Instant,
    state: Mutex<State<W>>,
    changed: Condvar,
    /// Nobody's thread waits: the store's thread leads when no other writer does, and completes it.
    pub(super) background: bool,
    completion: Mutex<Option<Completion>>,
}

enum State<W> {
    Queued,
    /// A leader has it in its transaction.
    Taken,
    /// The turn is handed to it.
    Leads(W),
    Done(Result<Receipt>),
    Over,
}

struct Queue<W> {
    /// The connection that writes, while nobody leads.
    writer: Option<W>,
    jobs: VecDeque<Arc<Job<W>>>,
    closed: bool,
    /// The connection is closed.
    gone: bool,
}

/// The turn, and those who wait for it.
pub(super) struct Turn<W> {
    queue: Mutex<Queue<W>>,
    idle: Condvar,
    /// Raised when the store's thread should lead.
    signal: Arc<Signal>,
    /// Background jobs that are committed, for the store's thread to complete.
    settled: Mutex<Vec<(Completion, Result<Receipt>)>>,
}

/// What a writer gets after waiting.
pub(super) enum Admission<W> {
    Lead(W),
    Done(Result<Receipt>),
}

impl<W> Turn<W> {
    pub(super) fn new(writer: W, signal: Arc<Signal>) -> Turn<W> {
        Turn {
            queue: Mutex::new(Queue {
                writer: Some(writer),
                jobs: VecDeque::new(),
                closed: false,
                gone: false,
            }),
            idle: Condvar::new(),
            signal,
            settled: Mutex::new(Vec::new()),
        }
    }

    /// What tells this turn from others, while it is there.
    pub(super) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Waits for the turn, or for a leader to commit this write.
    pub(super) fn enter(
        &self,
        write: impl FnOnce() -> Option<Write>,
        timeout: Duration,
    ) -> Result<Admission<W>> {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return Err(Reason::Closed.into());
        }
        if let Some(writer) = queue.writer.take() {
            return Ok(Admission::Lead(writer));
        }
        let now = Instant::now();
        let job = Arc::new(Job {
            write: write(),
            queued: now,
            deadline: now + timeout,
            state: Mutex::new(State::Queued),
            changed: Condvar::new(),
            background: false,
            completion: Mutex::new(None),
        });
        queue.jobs.push_back(job.clone());
        drop(queue);
        self.wait(&job)
    }

    fn wait(&self, job: &Arc<Job<W>>) -> Result<Admission<W>> {
        let mut state = lock(&job.state);
        loop {
            match std::mem::replace(&mut *state, State::Over) {
                State::Leads(writer) => return Ok(Admission::Lead(writer)),
                State::Done(result) => return Ok(Admission::Done(result)),
                waiting => *state = waiting,
            }
            let left = job.deadline.saturating_duration_since(Instant::now());
            // Once a leader has taken it, the outcome is near, and must be known.
            if left.is_zero() && matches!(*state, State::Queued) {
                drop(state);
                let mut queue = lock(&self.queue);
                if let Some(place) = queue.jobs.iter().position(|queued| Arc::ptr_eq(queued, job)) {
                    queue.jobs.remove(place);
                    return Err(Reason::Busy { waited: job.queued.elapsed() }.into());
                }
                drop(queue);
                // Taken in between.
                state = lock(&job.state);
                if matches!(*state, State::Queued) {
                    state = job.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
                }
                continue;
            }
            state = if matches!(*state, State::Queued) {
                let woken = job.changed.wait_timeout(state, left);
                woken.unwrap_or_else(std::sync::PoisonError::into_inner).0
            } else {
                job.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner)
            };
        }
    }

    /// Queues a write that nobody's thread waits for.
    pub(super) fn submit(&self, write: Write, timeout: Duration, done: Completion) {
        let now = Instant::now();
        let mut queue = lock(&self.queue);
        if queue.closed {
            drop(queue);
            // Nobody settles any more.
            return done(Err(Reason::Closed.into()));
        }
        queue.jobs.push_back(Arc::new(Job {
            write: Some(write),
            queued: now,
            deadline: now + timeout,
            state: Mutex::new(State::Queued),
            changed: Condvar::new(),
            background: true,
            completion: Mutex::new(Some(done)),
        }));
        drop(queue);
        self.signal.raise();
    }

    /// Has the store's thread tell a background job what became of it.
    pub(super) fn settle(&self, done: Completion, result: Result<Receipt>) {
        lock(&self.settled).push((done, result));
        self.signal.raise();
    }

    /// The turn, if nobody has it and a background job waits for it; and since when that one waits.
    pub(super) fn lead_for_background(&self) -> Option<(W, Instant)> {
        let mut queue = lock(&self.queue);
        let queued = queue.jobs.iter().find(|job| job.background)?.queued;
        Some((queue.writer.take()?, queued))
    }

    /// Fails background jobs: those whose deadline has passed, or all. The others' threads look to themselves.
    pub(super) fn fail_background(&self, error: &Error, all: bool) {
        let now = Instant::now();
        let overdue = |job: &Arc<Job<W>>| job.background && (all || job.deadline <= now);
        let mut queue = lock(&self.queue);
        let (failed, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut queue.jobs).into_iter().partition(overdue);
        queue.jobs = kept;
        drop(queue);
        for job in failed {
            self.finish(&job, Err(error.clone()));
        }
    }

    /// The next write that a leader may take along: jobs are taken in order, and a closure stops it.
    pub(super) fn take_along(&self) -> Option<Arc<Job<W>>> {
        let mut queue = lock(&self.queue);
        let job = queue.jobs.pop_front_if(|job| job.write.is_some())?;
        drop(queue);
        *lock(&job.state) = State::Taken;
        Some(job)
    }

    /// Puts jobs that were taken along, and not committed, back to the head of the queue.
    pub(super) fn give_back(&self, jobs: impl DoubleEndedIterator<Item = Arc<Job<W>>>) {
        let mut queue = lock(&self.queue);
        for job in jobs.rev() {
            *lock(&job.state) = State::Queued;
            queue.jobs.push_front(job);
        }
    }

    /// Tells a job that was taken along what became of it.
    pub(super) fn finish(&self, job: &Job<W>, result: Result<Receipt>) {
        if let Some(done) = lock(&job.completion).take() {
            self.settle(done, result);
            return;
        }
        *lock(&job.state) = State::Done(result);
        job.changed.notify_one();
    }

    /// Background jobs that are committed, or refused.
    pub(super) fn take_settled(&self) -> Vec<(Completion, Result<Receipt>)> {
        std::mem::take(&mut lock(&self.settled))
    }

    /// Hands the turn to the first in the queue, or leaves it for whoever comes.
    pub(super) fn pass(&self, writer: W) {
        let mut queue = lock(&self.queue);
        // A background job has no thread to lead on, but whoever leads takes it along.
        let next = queue.jobs.iter().position(|job| !job.background);
        match next.and_then(|place| queue.jobs.remove(place)) {
            Some(next) => {
                drop(queue);
                *lock(&next.state) = State::Leads(writer);
                next.changed.notify_one();
            }
            None => {
                let background = !queue.jobs.is_empty();
                queue.writer = Some(writer);
                drop(queue);
                self.idle.notify_all();
                if background {
                    self.signal.raise();
                }
            }
        }
    }

    /// Refuses new writers.
    pub(super) fn refuse(&self) {
        lock(&self.queue).closed = true;
    }

    /// Waits until nobody leads, and takes the connection away; none when background jobs must be led first.
    pub(super) fn close(&self) -> Option<W> {
        let mut queue = lock(&self.queue);
        while queue.writer.is_none() && !queue.gone {
            queue = self.idle.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        if !queue.jobs.is_empty() {
            return None;
        }
        queue.gone = true;
        queue.writer.take()
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.queue).closed
    }
}
