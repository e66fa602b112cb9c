//! What the clients of a hub suffer: they stand still, are cut off, and come back with their bookmarks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use crate::ops::{Dice, Draw};

/// How bad it gets, drawn from a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faults {
    /// What it is drawn from.
    pub seed: u64,
    /// A client reads at most so many messages, and then stands still.
    pub messages: usize,
    /// It stands still for half of so many writes or more, and at most for all.
    pub stall: usize,
    /// A connection is cut after at most so many bytes.
    pub cut: usize,
}

/// What the clients of a hub have suffered so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Suffered {
    /// Times that a client stood still for as long as it had to.
    pub stalls: u64,
    /// Connections that were cut.
    pub cuts: u64,
    /// Times that a client came back, also after the server had dropped it.
    pub returns: u64,
    /// Of these, to another server than before.
    pub moves: u64,
    /// Servers that ended under their clients.
    pub ends: u64,
}

#[derive(Debug, Default)]
struct State {
    writes: u64,
    calm: bool,
    closed: bool,
    dice: Option<Dice>,
}

/// The faults of all clients of one opened store.
#[derive(Debug)]
pub(super) struct Weather {
    faults: Option<Faults>,
    state: Mutex<State>,
    changed: Condvar,
    /// Held shared by who comes back, and alone to let nobody come back any more.
    returning: RwLock<()>,
    stalls: AtomicU64,
    cuts: AtomicU64,
    returns: AtomicU64,
    moves: AtomicU64,
}

impl Weather {
    pub(super) fn new(faults: Option<Faults>) -> Weather {
        let dice = faults.map(|faults| Dice::new(faults.seed));
        Weather {
            faults,
            state: Mutex::new(State { dice, ..State::default() }),
            changed: Condvar::new(),
            returning: RwLock::default(),
            stalls: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            returns: AtomicU64::new(0),
            moves: AtomicU64::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The faults of one client; none where clients have none.
    pub(super) fn client(&self) -> Option<Course> {
        let (faults, mut state) = (self.faults?, self.state());
        let mut course = Course { faults, dice: state.dice.as_mut()?.split(), messages: 0, until: None };
        course.messages = course.draw(faults.messages);
        Some(course)
    }

    /// Somebody wrote.
    pub(super) fn wrote(&self) {
        self.state().writes += 1;
        self.changed.notify_all();
    }

    /// From now on nobody stands still, and nobody is cut off.
    pub(super) fn calm(&self) {
        self.state().calm = true;
        self.changed.notify_all();
    }

    /// From now on nobody comes back. Who is on the way back is waited for.
    pub(super) fn close(&self) {
        self.calm();
        let alone = self.returning.write().unwrap_or_else(PoisonError::into_inner);
        self.state().closed = true;
        drop(alone);
    }

    pub(super) fn is_calm(&self) -> bool {
        self.state().calm
    }

    /// The right to come back, unless it is too late for that.
    pub(super) fn way_back(&self) -> Option<RwLockReadGuard<'_, ()>> {
        let way = self.returning.read().unwrap_or_else(PoisonError::into_inner);
        if self.state().closed { None } else { Some(way) }
    }

    pub(super) fn was_cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn came_back(&self) {
        self.returns.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn suffered(&self) -> Suffered {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Suffered {
            stalls: read(&self.stalls),
            cuts: read(&self.cuts),
            returns: read(&self.returns),
            moves: read(&self.moves),
            ends: 0,
        }
    }
}

/// What one client is in for.
#[derive(Debug)]
pub(super) struct Course {
    faults: Faults,
    dice: Dice,
    /// How many messages it still reads before it stands still.
    messages: usize,
    /// It stands still until so many writes are made.
    until: Option<u64>,
}

impl Course {
    fn draw(&mut self, most: usize) -> usize {
        1 + self.below(most)
    }

    /// A number below another.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        Draw::new(&mut self.dice).below(limit)
    }

    /// Whether one in so many times.
    pub(super) fn one_in(&mut self, cases: usize) -> bool {
        Draw::new(&mut self.dice).one_in(cases)
    }

    /// After how many bytes the next connection is cut.
    pub(super) fn cut(&mut self) -> usize {
        // Often within the first messages, where a stream begins.
        let most = if self.one_in(4) { self.faults.cut.min(2 << 10) } else { self.faults.cut };
        self.draw(most)
    }

    /// It has read a message.
    pub(super) fn has_read(&mut self, weather: &Weather) {
        self.messages = self.messages.saturating_sub(1);
        if self.messages == 0 && self.until.is_none() && !weather.is_calm() {
            let half = self.faults.stall / 2;
            let writes = u64::try_from(half + self.draw(self.faults.stall - half)).unwrap_or(1);
            self.until = Some(weather.state().writes + writes);
        }
    }

    /// Stands still for as long as it has to, and at most for this time; whether it may read, and has stood still.
    pub(super) fn stand_still(&mut self, weather: &Weather, within: Duration) -> (bool, bool) {
        let Some(until) = self.until else { return (true, false) };
        let stands = |state: &mut State| state.writes < until && !state.calm;
        let waited = weather.changed.wait_timeout_while(weather.state(), within, stands);
        if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            return (false, false);
        }
        self.until = None;
        if !weather.is_calm() {
            weather.stalls.fetch_add(1, Ordering::Relaxed);
        }
        self.messages = self.draw(self.faults.messages);
        (true, true)
    }
}
