//! Reads that are held: each until it is dropped, too old, or closed with the store.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::types::clock::{Clock, Timestamp};
use crate::types::error::{Reason, Result};
use crate::types::sync::{Mutex, lock};

/// What is read from, and since when.
pub(super) struct Hold<T> {
    from: Mutex<Source<T>>,
    /// The moment of all its reads.
    pub(super) now: Timestamp,
    since: Instant,
    limit: Duration,
    clock: Arc<dyn Clock>,
}

enum Source<T> {
    Open(T),
    TooOld,
    Closed,
}

impl<T> Hold<T> {
    pub(super) fn new(from: T, limit: Duration, clock: Arc<dyn Clock>) -> Hold<T> {
        let (now, since) = (clock.now(), Instant::now());
        Hold { from: Mutex::new(Source::Open(from)), now, since, limit, clock }
    }

    /// By the store's clock, or by one that is never set back.
    fn is_too_old(&self) -> bool {
        self.clock.now().since(self.now).max(self.since.elapsed()) > self.limit
    }

    /// Does something with what is read from, unless that has ended.
    pub(super) fn with<R>(&self, f: impl FnOnce(&T) -> Result<R>) -> Result<R> {
        // A user's clock is asked with no lock held.
        let is_too_old = self.is_too_old();
        match &*lock(&self.from) {
            Source::Open(from) if !is_too_old => f(from),
            Source::Closed => Err(Reason::Closed.into()),
            _ => Err(Reason::SnapshotTooOld { limit: self.limit }.into()),
        }
    }

    fn end(&self, how: Source<T>) -> Option<T> {
        match std::mem::replace(&mut *lock(&self.from), how) {
            Source::Open(from) => Some(from),
            _ => None,
        }
    }
}

/// All that are held of a store.
pub(super) struct Holds<T>(Mutex<State<T>>);

struct State<T> {
    held: Vec<Weak<Hold<T>>>,
    is_closed: bool,
}

impl<T> Default for Holds<T> {
    fn default() -> Self {
        Holds(Mutex::new(State { held: Vec::new(), is_closed: false }))
    }
}

impl<T> Holds<T> {
    pub(super) fn add(&self, hold: Hold<T>) -> Result<Arc<Hold<T>>> {
        let hold = Arc::new(hold);
        let mut state = lock(&self.0);
        if state.is_closed {
            return Err(Reason::Closed.into());
        }
        state.held.retain(|held| held.strong_count() > 0);
        state.held.push(Arc::downgrade(&hold));
        Ok(hold)
    }

    /// Ends those that are too old; what they read from.
    pub(super) fn end_old(&self) -> Vec<T> {
        let held: Vec<_> = lock(&self.0).held.iter().filter_map(Weak::upgrade).collect();
        held.iter().filter(|hold| hold.is_too_old()).filter_map(|hold| hold.end(Source::TooOld)).collect()
    }

    /// Ends all of them, for good; what they read from.
    pub(super) fn close(&self) -> Vec<T> {
        let mut state = lock(&self.0);
        state.is_closed = true;
        let held: Vec<_> = std::mem::take(&mut state.held).iter().filter_map(Weak::upgrade).collect();
        drop(state);
        held.iter().filter_map(|hold| hold.end(Source::Closed)).collect()
    }
}
