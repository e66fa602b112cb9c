//! The turn: one writer at a time. Whoever finds nobody leading leads at once, on its own thread; whoever comes
//! meanwhile queues, and is either taken along or handed the turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::driver::{Lane, Signal};
use crate::engine::{Completion, Receipt, Settled};
use crate::rules::Write;
use crate::types::error::{Error, Reason, Result};
use crate::types::limits::{POLL, QUEUED_BYTES, QUEUED_JOBS, RETRY};
use crate::types::sync::{Condvar, Mutex, lock};

/// A place in the queue.
pub(super) struct Job<W> {
    /// What to commit; none for a closure, which only its own thread can run.
    pub(super) write: Option<Write>,
    queued: Instant,
    /// None: later than can be told.
    deadline: Option<Instant>,
    state: Mutex<State<W>>,
    changed: Condvar,
    /// What it weighs in the queue.
    weight: usize,
    /// Nobody's thread waits: one of the driver's leads when no other writer does, and completes it.
    pub(super) background: bool,
    /// The store's own: it waits behind nobody's callbacks.
    vital: bool,
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
    /// What the jobs weigh.
    weight: usize,
    /// How many background jobs are vital.
    vital: usize,
    /// Whoever leads does so for background jobs, and waits for nobody.
    background_leads: bool,
    closed: bool,
    /// Nothing is written any more, and this is why.
    broken: Option<Error>,
    /// The connection is closed.
    gone: bool,
}

impl<W> Queue<W> {
    /// Why no job is taken in.
    fn refusal(&self) -> Option<Error> {
        if self.closed { Some(Reason::Closed.into()) } else { self.broken.clone() }
    }

    fn push_back(&mut self, job: Arc<Job<W>>) {
        self.weight += job.weight;
        self.vital += usize::from(job.vital);
        self.jobs.push_back(job);
    }

    fn push_front(&mut self, job: Arc<Job<W>>) {
        self.weight += job.weight;
        self.vital += usize::from(job.vital);
        self.jobs.push_front(job);
    }

    fn remove(&mut self, place: usize) -> Option<Arc<Job<W>>> {
        let job = self.jobs.remove(place)?;
        self.weight -= job.weight;
        self.vital -= usize::from(job.vital);
        Some(job)
    }

    /// Takes out those that match.
    fn take(&mut self, matches: impl FnMut(&Arc<Job<W>>) -> bool) -> VecDeque<Arc<Job<W>>> {
        let (taken, kept): (VecDeque<_>, _) = std::mem::take(&mut self.jobs).into_iter().partition(matches);
        self.jobs = kept;
        self.weight -= taken.iter().map(|job| job.weight).sum::<usize>();
        self.vital -= taken.iter().filter(|job| job.vital).count();
        taken
    }
}

impl<W> Job<W> {
    fn new(write: Option<Write>, timeout: Duration, completion: Option<Completion>) -> Arc<Job<W>> {
        let now = Instant::now();
        Arc::new(Job {
            weight: write.as_ref().map_or(0, |write| write.work.weight()),
            queued: now,
            deadline: now.checked_add(timeout),
            state: Mutex::new(State::Queued),
            changed: Condvar::new(),
            background: completion.is_some(),
            vital: completion.is_some() && write.as_ref().is_some_and(|write| write.work.is_vital()),
            completion: Mutex::new(completion),
            write,
        })
    }

    /// How long it may still wait.
    fn left(&self) -> Duration {
        self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// The turn, and those who wait for it.
pub(super) struct Turn<W> {
    queue: Mutex<Queue<W>>,
    idle: Condvar,
    /// Raised when one of the driver's threads should lead.
    signal: Arc<Signal>,
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
                weight: 0,
                vital: 0,
                background_leads: false,
                closed: false,
                broken: None,
                gone: false,
            }),
            idle: Condvar::new(),
            signal,
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
        if let Some(refusal) = queue.refusal() {
            return Err(refusal);
        }
        if let Some(writer) = queue.writer.take() {
            return Ok(Admission::Lead(writer));
        }
        let job = Job::new(write(), timeout, None);
        queue.push_back(job.clone());
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
            let left = job.left();
            // Once a leader has taken it, the outcome is near, and must be known.
            if left.is_zero() && matches!(*state, State::Queued) {
                drop(state);
                let mut queue = lock(&self.queue);
                if let Some(place) = queue.jobs.iter().position(|queued| Arc::ptr_eq(queued, job)) {
                    queue.remove(place);
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

    /// Queues a write that nobody's thread waits for. What others rely on in time goes in however long the queue is, and
    /// to its head.
    pub(super) fn submit(&self, write: Write, timeout: Duration, done: Completion) {
        let (is_vital, goes_first) = (write.work.is_vital(), write.work.goes_first());
        let mut queue = lock(&self.queue);
        let full = !is_vital
            && (queue.jobs.len() >= QUEUED_JOBS
                || (!queue.jobs.is_empty() && queue.weight + write.work.weight() > QUEUED_BYTES));
        let refusal = queue.refusal();
        if let Some(refusal) =
            refusal.or_else(|| full.then(|| Reason::QueueFull { jobs: queue.jobs.len() }.into()))
        {
            drop(queue);
            return done(Err(refusal));
        }
        // What is the store's own must not fail because a user has no patience.
        let timeout = if is_vital { timeout.max(POLL) } else { timeout };
        let job = Job::new(Some(write), timeout, Some(done));
        if goes_first {
            queue.push_front(job)
        } else {
            queue.push_back(job)
        }
        // Whoever leads takes it along, or raises the signal when it passes the turn.
        let is_idle = queue.writer.is_some();
        drop(queue);
        if is_idle && !is_vital {
            self.signal.raise(Lane::Work);
        }
    }

    /// The turn, if nobody has it and a background job waits for it; and since when that one waits. Where a writer has it,
    /// those whose deadline has passed fail: whoever holds the turn for long holds them up.
    pub(super) fn lead_for_background(&self, settled: &mut Settled) -> Option<(W, Instant)> {
        let mut queue = lock(&self.queue);
        let first = queue.jobs.iter().find(|job| job.background)?;
        let (queued, waited) = (first.queued, first.queued.elapsed());
        if let Some(writer) = queue.writer.take() {
            queue.background_leads = true;
            return Some((writer, queued));
        }
        if queue.background_leads {
            return None;
        }
        let overdue = queue.take(|job| job.background && job.left().is_zero());
        drop(queue);
        for job in overdue {
            finish(&job, Err(Reason::Busy { waited }.into()), settled);
        }
        None
    }

    /// Whether a vital job waits.
    pub(super) fn has_vital(&self) -> bool {
        lock(&self.queue).vital > 0
    }

    /// Whether a background job waits.
    pub(super) fn has_background(&self) -> bool {
        lock(&self.queue).jobs.iter().any(|job| job.background)
    }

    /// Fails background jobs: those whose deadline has passed, or all. The others' threads look to themselves.
    pub(super) fn fail_background(&self, error: &Error, all: bool, settled: &mut Settled) {
        let fails = |job: &Arc<Job<W>>| job.background && (all || job.left().is_zero());
        let mut queue = lock(&self.queue);
        // They came in the order of their deadlines: mostly the first of them tells that there is nothing to do.
        if !queue.jobs.iter().find(|job| job.background).is_some_and(fails) {
            return;
        }
        let failed = queue.take(fails);
        drop(queue);
        for job in failed {
            finish(&job, Err(error.clone()), settled);
        }
    }

    /// Refuses new writers, and fails those that wait: nothing is written any more.
    pub(super) fn poison(&self, error: &Error, settled: &mut Settled) {
        let mut queue = lock(&self.queue);
        queue.broken.get_or_insert_with(|| error.clone());
        let failed = queue.take(|_| true);
        drop(queue);
        for job in failed {
            finish(&job, Err(error.clone()), settled);
        }
    }

    /// The next write that a leader may take along: jobs are taken in order, and a closure stops it.
    pub(super) fn take_along(&self) -> Option<Arc<Job<W>>> {
        let mut queue = lock(&self.queue);
        queue.jobs.front().filter(|job| job.write.is_some())?;
        let job = queue.remove(0)?;
        drop(queue);
        *lock(&job.state) = State::Taken;
        Some(job)
    }

    /// The next that a leader may take along, where they are: at most so many, and of so much weight.
    #[cfg(feature = "etcd")]
    pub(super) fn queued(&self, limit: usize, mut weight: usize) -> Vec<Arc<Job<W>>> {
        let fits = |job: &&Arc<Job<W>>| {
            let fits = job.write.is_some() && job.weight <= weight;
            weight = weight.saturating_sub(job.weight);
            fits
        };
        lock(&self.queue).jobs.iter().take_while(fits).take(limit).cloned().collect()
    }

    /// Puts jobs that were taken along, and not committed, back to the head of the queue.
    pub(super) fn give_back(&self, jobs: impl DoubleEndedIterator<Item = Arc<Job<W>>>) {
        let mut jobs = jobs.rev().peekable();
        if jobs.peek().is_none() {
            // Mostly there are none, and others want the queue.
            return;
        }
        let mut queue = lock(&self.queue);
        for job in jobs {
            *lock(&job.state) = State::Queued;
            queue.push_front(job);
        }
    }

    /// Hands the turn to the first in the queue, or leaves it for whoever comes.
    pub(super) fn pass(&self, writer: W) {
        let mut queue = lock(&self.queue);
        let led_for_background = std::mem::replace(&mut queue.background_leads, false);
        // A background job has no thread to lead on, but whoever leads takes it along.
        let next = queue.jobs.iter().position(|job| !job.background);
        match next.and_then(|place| queue.remove(place)) {
            Some(next) => {
                drop(queue);
                *lock(&next.state) = State::Leads(writer);
                next.changed.notify_one();
            }
            None => {
                // Whoever leads for background jobs sees to those that are left: they may wait for another process.
                let is_left = |some: bool| some && !led_for_background;
                let vital = is_left(queue.vital > 0);
                let users = is_left(queue.jobs.len() > queue.vital);
                queue.writer = Some(writer);
                // Only a close waits for it; to notify costs a system call even where nobody does.
                let is_awaited = queue.closed;
                drop(queue);
                if is_awaited {
                    self.idle.notify_all();
                }
                if vital {
                    self.signal.raise(Lane::Vital);
                }
                if users {
                    self.signal.raise(Lane::Work);
                }
            }
        }
    }

    /// Refuses new writers, and gives up signs of life and expiry that wait: a close does not wait for their sake.
    pub(super) fn refuse(&self, settled: &mut Settled) {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        let is_first = |write: &Write| write.work.goes_first();
        let given_up = queue.take(|job| job.background && job.write.as_ref().is_some_and(is_first));
        drop(queue);
        for job in given_up {
            finish(&job, Err(Reason::Closed.into()), settled);
        }
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

/// When to try again what another process has kept waiting for so long. The spread keeps several from trying in step.
pub(super) fn retry(waited: Duration) -> Duration {
    let (least, most) = RETRY;
    (waited / 4).clamp(least, most).mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// Tells a job what became of it; a background job is told by the caller, once its events are delivered.
pub(super) fn finish<W>(job: &Job<W>, result: Result<Receipt>, settled: &mut Settled) {
    match lock(&job.completion).take() {
        Some(done) if job.vital => settled.own.push((done, result)),
        Some(done) => settled.users.push((done, result)),
        None => {
            *lock(&job.state) = State::Done(result);
            job.changed.notify_one();
        }
    }
}
