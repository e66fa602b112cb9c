//! The line of what is ready, the workers that serve it, and the one of them that waits for all stores.
//!
//! That is a part, not a thread: whoever hears something passes it on to a worker that is idle, and serves what was heard
//! itself. So what another process does is looked at by the thread that it wakes. Where nobody is idle, the one that waits
//! goes on waiting, whatever it hears: there is always somebody who sees to timers, and to the growth of the crew.

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use crate::types::limits::{DRIVER_WORKERS, DRIVER_WORKERS_VITAL, GROW_AFTER, IDLE_WORKER};
use crate::types::sync::thread::{self, Builder, JoinHandle, ThreadId};
use crate::types::sync::{Condvar, Mutex, MutexGuard, lock};

use super::bell::Bell;
use super::ears::Ears;
use super::process;
use super::seat::{Lane, Seat, Woken};
use super::signal::Signal;
use super::timers::Timers;

/// How many workers there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Started as soon as there is something to do for so many at once.
    pub(crate) at_once: usize,
    /// At the most serve the lanes of work, which users' code may keep. More are started when all are kept.
    pub(crate) work: usize,
    /// So many more serve vital lanes alone.
    pub(crate) vital: usize,
}

impl Default for Size {
    fn default() -> Size {
        let cores = available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4));
        Size { at_once: cores, work: DRIVER_WORKERS, vital: DRIVER_WORKERS_VITAL }
    }
}

/// In line for a worker.
struct Ready {
    seat: Arc<Seat>,
    since: Instant,
}

#[derive(Default)]
struct State {
    vital: VecDeque<Ready>,
    work: VecDeque<Ready>,
    timers: Timers,
    /// Until when the one that waits does; none: for ever.
    waits_until: Option<Instant>,
    /// One of the workers waits for all stores.
    is_waited_for: bool,
    seats: usize,
    next_id: u64,
    workers: usize,
    idle: usize,
    /// How many workers serve lanes of work.
    at_work: usize,
    /// Workers that closed a store.
    closing: HashSet<ThreadId>,
    /// How many workers were idle at the least since then: so many were not needed.
    least_idle: usize,
    least_since: Option<Instant>,
    /// So many end when they have nothing to do.
    unneeded: usize,
    threads: Vec<JoinHandle<()>>,
    /// The last store went.
    has_ended: bool,
}

impl State {
    fn line(&mut self, lane: Lane) -> &mut VecDeque<Ready> {
        match lane {
            Lane::Vital => &mut self.vital,
            Lane::Work => &mut self.work,
        }
    }

    /// How many workers serve, or could: one waits, or is about to.
    fn serving(&self) -> usize {
        self.workers.saturating_sub(1)
    }

    /// Whether a worker that has nothing to do is one too many. Those that wait are woken in turn, so that none of them is
    /// idle for long: what counts is how many were idle at the same time, all the time.
    fn ends_one(&mut self, now: Instant) -> bool {
        if self.least_since.is_none_or(|since| now >= since + IDLE_WORKER) {
            self.unneeded = self.least_idle;
            (self.least_idle, self.least_since) = (self.idle, Some(now));
        }
        let ends = self.unneeded > 0 && self.serving() > 1;
        self.unneeded -= usize::from(ends);
        ends
    }

    /// The next that a worker may serve.
    fn next(&mut self, size: Size) -> Option<(Arc<Seat>, Lane)> {
        if let Some(ready) = self.vital.pop_front() {
            self.least_idle = self.least_idle.min(self.idle);
            return Some((ready.seat, Lane::Vital));
        }
        if self.at_work >= size.work {
            return None;
        }
        let ready = self.work.pop_front()?;
        self.at_work += 1;
        self.least_idle = self.least_idle.min(self.idle);
        Some((ready.seat, Lane::Work))
    }

    /// Since when somebody waits whom one more worker would serve.
    fn waits_since(&self, size: Size) -> Option<Instant> {
        let work = self.work.front().filter(|_| self.at_work < size.work);
        let vital = self.vital.front().filter(|_| self.serving() < size.work + size.vital);
        work.into_iter().chain(vital).map(|ready| ready.since).min()
    }
}

/// Those who work for all stores, one of whom waits for them.
pub(crate) struct Driver {
    size: Size,
    pub(super) process: u32,
    bell: Bell,
    pub(super) ears: Ears,
    state: Mutex<State>,
    called: Condvar,
}

impl Driver {
    pub(crate) fn new(size: Size) -> std::io::Result<Arc<Driver>> {
        Ok(Arc::new(Driver {
            size,
            process: std::process::id(),
            bell: Bell::new()?,
            ears: Ears::default(),
            state: Mutex::default(),
            called: Condvar::new(),
        }))
    }

    /// A store comes: what its parts raise. None when the last one has gone: another driver is needed.
    pub(crate) fn enter(self: &Arc<Self>) -> std::io::Result<Option<Arc<Signal>>> {
        let mut state = lock(&self.state);
        if state.has_ended {
            return Ok(None);
        }
        // One waits, and one serves.
        while state.workers < 2 {
            if let Err(error) = self.hire(&mut state) {
                // Nobody would serve it. What runs for others goes on.
                let last = if state.seats == 0 { self.finish(&mut state) } else { Vec::new() };
                drop(state);
                Driver::join(last);
                return Err(error);
            }
        }
        state.seats += 1;
        let seat = Arc::new(Seat::new(state.next_id));
        state.next_id += 1;
        drop(state);
        Ok(Some(Arc::new(Signal::new(self.clone(), seat))))
    }

    /// A store went; with the last one all threads end.
    pub(super) fn leave(&self, seat: &Seat) {
        self.ears.forget(seat);
        let mut state = lock(&self.state);
        for lane in [Lane::Vital, Lane::Work] {
            state.timers.clear(seat, lane);
        }
        state.seats -= 1;
        let is_own = process::on_own_thread();
        if is_own {
            state.closing.insert(thread::current().id());
        }
        let mut threads = if state.seats == 0 { self.finish(&mut state) } else { Vec::new() };
        // Who closed a store may still be kept by its users' code.
        threads.retain(|thread| !state.closing.contains(&thread.thread().id()));
        drop(state);
        // One of them cannot wait for itself, nor the others for what it does.
        if !is_own {
            Driver::join(threads);
        }
    }

    fn finish(&self, state: &mut State) -> Vec<JoinHandle<()>> {
        state.has_ended = true;
        self.called.notify_all();
        self.bell.ring();
        std::mem::take(&mut state.threads)
    }

    fn join(threads: Vec<JoinHandle<()>>) {
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the driver had panicked");
            }
        }
    }

    /// Puts a lane in line that was at rest.
    pub(super) fn wake(self: &Arc<Self>, seat: &Arc<Seat>, lane: Lane, why: Woken) {
        if !seat.wake(lane, why) || self.process != std::process::id() {
            return;
        }
        self.line_up(&mut lock(&self.state), seat.clone(), lane);
    }

    /// Puts lanes in line that begin.
    pub(super) fn begin(self: &Arc<Self>, seat: &Arc<Seat>) {
        let mut state = lock(&self.state);
        for lane in [Lane::Vital, Lane::Work] {
            seat.wake(lane, Woken::RAISED);
            self.line_up(&mut state, seat.clone(), lane);
        }
    }

    fn line_up(self: &Arc<Self>, state: &mut State, seat: Arc<Seat>, lane: Lane) {
        let since = Instant::now();
        state.line(lane).push_back(Ready { seat, since });
        self.call(state, lane, since);
    }

    /// Has what was lined up last in a lane served.
    fn call(self: &Arc<Self>, state: &mut State, lane: Lane, now: Instant) {
        // Work past the limit is taken up by whoever is done with another.
        let room = self.size.work.saturating_sub(state.at_work);
        if lane == Lane::Work && state.work.len() > room {
            return;
        }
        // Where nobody waits, the next that wakes up does, and serves nothing.
        let idle = state.idle.saturating_sub(usize::from(!state.is_waited_for));
        if state.vital.len() + state.work.len().min(room) <= idle {
            return self.called.notify_one();
        }
        // All are notified already. Should no thread be left, those that are there serve it.
        if state.serving() < self.size.at_once && self.hire(state).is_ok() {
            return;
        }
        self.look_at(state, now + GROW_AFTER);
    }

    /// Has the one that waits look at the line and the timers at this time.
    fn look_at(&self, state: &mut State, at: Instant) {
        if state.waits_until.is_none_or(|until| until > at) {
            // It is told once.
            state.waits_until = Some(at);
            self.bell.ring();
        }
    }

    fn hire(self: &Arc<Self>, state: &mut State) -> std::io::Result<()> {
        let driver = self.clone();
        let thread = Builder::new().name("watchkeep".to_owned()).spawn(move || driver.work())?;
        state.workers += 1;
        state.threads.push(thread);
        Ok(())
    }

    /// Waits for all stores, until there is something for this thread to serve, or the driver ends.
    fn wait<'s>(self: &'s Arc<Self>, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        state.is_waited_for = true;
        while !state.has_ended {
            let now = Instant::now();
            // It is awake.
            state.waits_until = Some(now);
            let mut ready: Vec<_> = std::iter::from_fn(|| state.timers.due(now)).collect();
            ready.retain(|(seat, lane)| seat.wake(*lane, Woken::TIMER));
            if self.hand_over(&mut state, ready, now) {
                break;
            }
            let grows = self.grow(&mut state, now);
            state.waits_until = state.timers.next().into_iter().chain(grows).min();
            let pause = state.waits_until.map(|until| until.saturating_duration_since(now));
            drop(state);
            let heard = if self.bell.wait(pause, &self.ears) { self.ears.hear() } else { Vec::new() };
            let heard = heard.into_iter().filter(|seat| seat.wake(Lane::Work, Woken::HEARD));
            let heard: Vec<_> = heard.map(|seat| (seat, Lane::Work)).collect();
            state = lock(&self.state);
            if self.hand_over(&mut state, heard, Instant::now()) {
                break;
            }
        }
        state.is_waited_for = false;
        // Whoever is idle waits from now on.
        self.called.notify_one();
        state
    }

    /// Puts lanes in line; whether the calling thread serves the first of them, and somebody else is there to wait.
    fn hand_over(self: &Arc<Self>, state: &mut State, ready: Vec<(Arc<Seat>, Lane)>, now: Instant) -> bool {
        let is_own = !ready.is_empty() && state.idle > 0 && state.vital.is_empty() && state.work.is_empty();
        for (nth, (seat, lane)) in ready.into_iter().enumerate() {
            state.line(lane).push_back(Ready { seat, since: now });
            if nth > 0 || !is_own {
                self.call(state, lane, now);
            }
        }
        is_own
    }

    /// Starts one more worker when somebody has waited for long; when to look again.
    fn grow(self: &Arc<Self>, state: &mut State, now: Instant) -> Option<Instant> {
        let since = state.waits_since(self.size)?;
        if now < since + GROW_AFTER {
            return Some(since + GROW_AFTER);
        }
        if let Err(error) = self.hire(state) {
            tracing::warn!(%error, "stores wait for a worker, and no thread is left for one");
        }
        Some(now + GROW_AFTER)
    }

    fn work(self: Arc<Self>) {
        process::become_own();
        let mut state = lock(&self.state);
        loop {
            if !state.is_waited_for && !state.has_ended {
                // Before anything else, which may keep this thread.
                state = self.wait(state);
            }
            if let Some((seat, lane)) = state.next(self.size) {
                drop(state);
                let pause = seat.serve(lane);
                state = self.served(seat, lane, pause);
            } else if state.has_ended {
                state.workers -= 1;
                return;
            } else if state.ends_one(Instant::now()) {
                state.workers -= 1;
                let own = thread::current().id();
                state.closing.remove(&own);
                state.threads.retain(|other| other.thread().id() != own);
                return;
            } else {
                state.idle += 1;
                let woken = self.called.wait_timeout(state, IDLE_WORKER);
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
                state.idle -= 1;
            }
        }
    }

    /// After a round: the lane rests, or goes to the end of the line.
    fn served(
        self: &Arc<Self>,
        seat: Arc<Seat>,
        lane: Lane,
        pause: Option<Duration>,
    ) -> MutexGuard<'_, State> {
        let mut state = lock(&self.state);
        if lane == Lane::Work {
            state.at_work -= 1;
        }
        let at_once = pause == Some(Duration::ZERO);
        if at_once && !seat.wake(lane, Woken::TIMER) || seat.rest(lane) {
            self.line_up(&mut state, seat, lane);
            return state;
        }
        match pause.and_then(|pause| Instant::now().checked_add(pause)) {
            // What has ended has no timer any more.
            Some(at) if !seat.has_ended() => {
                state.timers.set(&seat, lane, at);
                self.look_at(&mut state, at);
            }
            _ => state.timers.clear(&seat, lane),
        }
        state
    }

    /// Listens to the next that is done to a file, unless it does already.
    pub(super) fn listen(self: &Arc<Self>, seat: &Arc<Seat>, path: &Path) -> std::io::Result<()> {
        let was_deaf = !self.ears.is_open();
        if self.ears.listen(seat, path)? {
            self.wake(seat, Lane::Work, Woken::HEARD);
        }
        if was_deaf {
            // There is another descriptor to wait for.
            self.bell.ring();
        }
        Ok(())
    }
}
