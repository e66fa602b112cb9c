//! The reader that stops reading for a while.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use watchkeep::{Result, Revision, Watcher};

use super::LOOK;
use super::pace::Pace;

/// From when to when it stalls, in percent of the demo's time.
const STALL: (u32, u32) = (25, 62);
/// How long it takes over an event that waited for it.
const DIGEST: Duration = Duration::from_millis(18);

/// What others may know of the slow reader.
#[derive(Debug)]
pub(super) struct SlowReader {
    pace: Pace,
    at: AtomicU64,
    end: AtomicU64,
    behind: AtomicU64,
    state: AtomicUsize,
}

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    InStep,
    Stalled,
    CatchingUp,
}

impl SlowReader {
    pub(super) fn new(pace: Pace, start: Revision) -> SlowReader {
        SlowReader {
            pace,
            at: AtomicU64::new(start.get()),
            end: AtomicU64::new(u64::MAX),
            behind: AtomicU64::new(0),
            state: AtomicUsize::new(0),
        }
    }

    /// Reads until the end is known and reached, with a long stop on the way.
    pub(super) fn read(&self, watcher: &mut Watcher) -> Result<Vec<Revision>> {
        let mut seen = Vec::new();
        let mut has_stalled = false;
        while self.at.load(Ordering::Acquire) < self.end.load(Ordering::Acquire) && !self.pace.is_overdue() {
            if !has_stalled && self.pace.is_past_percent(STALL.0) {
                self.enter(State::Stalled);
                self.pace.until_percent(STALL.1);
                self.enter(State::CatchingUp);
                has_stalled = true;
            }
            let Some(event) = watcher.recv_timeout(LOOK) else {
                if watcher.is_ended() {
                    break;
                }
                continue;
            };
            let revision = event?.revision();
            seen.push(revision);
            self.at.store(revision.get(), Ordering::Release);
            if self.state() == State::CatchingUp {
                self.pace.pause(DIGEST);
            }
        }
        Ok(seen)
    }

    /// From now on it ends when it has seen this revision.
    pub(super) fn read_up_to(&self, end: Revision) {
        self.end.store(end.get(), Ordering::Release);
    }

    /// How far it is behind somebody who is at this revision.
    pub(super) fn behind(&self, live: Revision) -> u64 {
        let behind = live.get().saturating_sub(self.at.load(Ordering::Acquire));
        self.behind.fetch_max(behind, Ordering::AcqRel);
        if behind <= 1 && self.state() == State::CatchingUp {
            self.enter(State::InStep);
        }
        behind
    }

    pub(super) fn most_behind(&self) -> u64 {
        self.behind.load(Ordering::Acquire)
    }

    pub(super) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            1 => State::Stalled,
            2 => State::CatchingUp,
            _ => State::InStep,
        }
    }

    fn enter(&self, state: State) {
        let number = match state {
            State::InStep => 0,
            State::Stalled => 1,
            State::CatchingUp => 2,
        };
        self.state.store(number, Ordering::Release);
    }
}
