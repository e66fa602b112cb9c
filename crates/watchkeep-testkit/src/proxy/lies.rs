//! The lies that a proxy was asked for, in the order in which they are told, and what it remembers to make them of.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::hold::Ends;
use super::wire::WatchResponse;

/// How many responses with events are remembered.
const REMEMBERED: usize = 64;

/// What is done with a response of a watch that has events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// It is not passed on.
    Drop,
    /// It is passed on twice.
    Double,
    /// It is passed on after the next one.
    Swap,
    /// It is passed on, and after it the earliest one that the proxy remembers.
    Old,
    /// Neither it nor anything after it is passed on; the stream stays open.
    Silence,
    /// In its place, and in that of all after it, come progress notices without end.
    Notices,
    /// In its place, and in that of all after it, comes the earliest one that the proxy remembers, without end.
    Known,
    /// The stream ends in its place.
    End,
    /// It is passed on, and the stream ends.
    EndAfter,
    /// In its place comes a progress notice that claims its revision; then the stream ends.
    Notice,
    /// It comes in pieces of one event, and a last one without any.
    Fragments,
    /// Half of it comes, as a piece; then the stream ends.
    Half,
    /// In its place the watch is cancelled: everything up to its revision is said to be compacted.
    Compacted,
}

impl Lie {
    /// All of them.
    pub const ALL: [Lie; 13] = [
        Lie::Drop,
        Lie::Double,
        Lie::Swap,
        Lie::Old,
        Lie::Silence,
        Lie::Notices,
        Lie::Known,
        Lie::End,
        Lie::EndAfter,
        Lie::Notice,
        Lie::Fragments,
        Lie::Half,
        Lie::Compacted,
    ];
}

/// What is done with a watch when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It begins with events from before its start, as far as the proxy remembers some.
    Below,
    /// It is cancelled at once: everything up to now is said to be compacted.
    Compacted,
}

/// What is done with a transaction that writes.
#[derive(Debug)]
pub(super) enum Answer {
    /// It is done, and its caller is told that nobody answers.
    Lost,
    /// It is kept until it is let go.
    Held(Ends),
}

#[derive(Default)]
struct State {
    responses: VecDeque<(usize, Lie)>,
    openings: VecDeque<Opening>,
    writes: VecDeque<(usize, Answer)>,
    lies_about_leases: bool,
    slow: Duration,
    told: usize,
    remembered: VecDeque<WatchResponse>,
    leases: Vec<i64>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Lies {
    state: Mutex<State>,
    changed: Condvar,
}

/// Takes the first of a queue, if it is its turn.
fn due<T>(queue: &mut VecDeque<(usize, T)>) -> Option<T> {
    match queue.front_mut() {
        Some((0, _)) => queue.pop_front().map(|(_, lie)| lie),
        Some((after, _)) => {
            *after -= 1;
            None
        }
        None => None,
    }
}

impl Lies {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn respond(&self, after: usize, lie: Lie) {
        self.state().responses.push_back((after, lie));
    }

    pub(super) fn open(&self, opening: Opening) {
        self.state().openings.push_back(opening);
    }

    pub(super) fn write(&self, after: usize, answer: Answer) {
        self.state().writes.push_back((after, answer));
    }

    pub(super) fn slow_down(&self, by: Duration) {
        self.state().slow = by;
    }

    /// Waits for as long as a message is under way.
    pub(super) async fn pass(&self) {
        let slow = self.state().slow;
        if !slow.is_zero() {
            tokio::time::sleep(slow).await;
        }
    }

    pub(super) fn lie_about_leases(&self) {
        self.state().lies_about_leases = true;
    }

    /// What is done with this response, which is remembered.
    pub(super) fn of_response(&self, response: &WatchResponse) -> Option<Lie> {
        let mut state = self.state();
        let lie = due(&mut state.responses);
        state.remembered.push_back(response.clone());
        if state.remembered.len() > REMEMBERED {
            state.remembered.pop_front();
        }
        lie
    }

    /// What is done with a watch that begins at this revision: the lie, and what of the past goes with it.
    pub(super) fn of_opening(&self, start: i64) -> Option<(Opening, WatchResponse)> {
        let mut state = self.state();
        match state.openings.front()? {
            Opening::Below => {
                let mut old = state.remembered.front()?.clone();
                let events = state.remembered.iter().flat_map(|response| &response.events);
                old.events = events.filter(|event| event.modified() < start).cloned().collect();
                if old.events.is_empty() {
                    return None;
                }
                state.openings.pop_front().map(|opening| (opening, old))
            }
            Opening::Compacted => {
                state.openings.pop_front().map(|opening| (opening, WatchResponse::default()))
            }
        }
    }

    pub(super) fn of_write(&self) -> Option<Answer> {
        due(&mut self.state().writes)
    }

    pub(super) fn of_lease(&self) -> bool {
        self.state().lies_about_leases
    }

    /// The earliest response that is remembered.
    pub(super) fn oldest(&self) -> Option<WatchResponse> {
        self.state().remembered.front().cloned()
    }

    pub(super) fn note_lease(&self, lease: i64) {
        self.state().leases.push(lease);
    }

    pub(super) fn take_leases(&self) -> Vec<i64> {
        std::mem::take(&mut self.state().leases)
    }

    /// A lie was told.
    pub(super) fn note_told(&self) {
        self.state().told += 1;
        self.changed.notify_all();
    }

    pub(super) fn told(&self) -> usize {
        self.state().told
    }

    /// Waits until so many lies were told; how many were.
    pub(super) fn wait_told(&self, count: usize, limit: Duration) -> usize {
        let until = Instant::now() + limit;
        let mut state = self.state();
        while state.told < count {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.told
    }
}
