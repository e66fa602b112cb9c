//! A watcher's inbox: a bounded buffer that the hub fills, and what becomes of it when it is full.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::types::clock::Timestamp;
use crate::types::counters::Tally;
use crate::types::error::Error;
use crate::types::event::{Change, Event};
use crate::types::filter::Filter;
use crate::types::revision::Revision;
use crate::types::sync::{Condvar, Mutex, MutexGuard, lock, wake};
use crate::types::watching::{LagPolicy, WatchOptions};

/// Who fills the buffer.
///
/// ```text
///  Live ──no room──► Lagging ──near the end of the log──► Joining ──log read up to `at`──► Live
///                       ▲                                    │
///                       └───────────── no room ──────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The hub.
    Live,
    /// Nobody: once it is drained, the reader reads the log after this revision.
    Lagging { after: Revision },
    /// The hub, from `at` on; what lies before, the reader reads from the log first.
    Joining { after: Revision, at: Revision },
}

impl Mode {
    /// Whether the reader has to read the log before it takes from the buffer.
    pub(super) fn needs_log(self) -> bool {
        match self {
            Mode::Live => false,
            Mode::Lagging { .. } => true,
            Mode::Joining { after, at } => after < at,
        }
    }
}

/// What a watcher asked for, as far as the hub must know.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(super) filter: Filter,
    /// How much of the groups' names is the reader's namespace.
    pub(super) scope: u16,
    pub(super) capacity: usize,
    pub(super) capacity_bytes: usize,
    pub(super) policy: LagPolicy,
    pub(super) keys_only: bool,
    /// After a loss the reader goes on with a snapshot.
    pub(super) snapshot_after_loss: bool,
    /// The reader looks up in the log what each event replaced.
    pub(super) previous_values: bool,
    pub(super) progress: Option<Duration>,
    /// It feeds the callbacks, which no error ends: they go on where the log can be read again.
    pub(super) calls_back: bool,
}

impl Shape {
    pub(crate) fn new(filter: Filter, scope: &str, options: &WatchOptions) -> Shape {
        Shape {
            filter,
            scope: u16::try_from(scope.len()).unwrap_or(u16::MAX),
            capacity: options.buffer,
            capacity_bytes: options.buffer_bytes,
            policy: options.policy,
            keys_only: options.keys_only,
            snapshot_after_loss: options.snapshot_after_loss,
            previous_values: options.previous_values,
            progress: options.progress,
            calls_back: false,
        }
    }

    /// The event as this watcher sees it.
    pub(super) fn event(&self, change: &Arc<Change>) -> Event {
        if self.keys_only && change.value.is_some() {
            Event::new(Arc::new(change.without_value()), self.scope)
        } else {
            Event::new(change.clone(), self.scope)
        }
    }
}

/// Events in the order of their revisions; under `Latest`, one for each key.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    events: VecDeque<Event>,
    /// Only under `Latest`: events by revision, and the pending revision of each key.
    latest: BTreeMap<Revision, Event>,
    pending: HashMap<(Box<str>, Option<Box<str>>), Revision>,
    bytes: usize,
}

impl Buffer {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.latest.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.events.len() + self.latest.len()
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        let event = match self.events.pop_front() {
            Some(event) => event,
            None => {
                let (_, event) = self.latest.pop_first()?;
                self.pending.remove(&address(event.change()));
                event
            }
        };
        self.bytes -= event.change().weight();
        Some(event)
    }

    pub(super) fn clear(&mut self) {
        *self = Buffer::default();
    }

    /// Adds an event if there is room for it.
    pub(super) fn push(&mut self, shape: &Shape, event: Event) -> bool {
        if shape.policy == LagPolicy::Latest {
            self.replace(event.change());
        }
        let weight = event.change().weight();
        let room = self.len() < shape.capacity && self.bytes + weight <= shape.capacity_bytes;
        if !room && !self.is_empty() {
            return false;
        }
        self.bytes += weight;
        if shape.policy == LagPolicy::Latest {
            self.pending.insert(address(event.change()), event.revision());
            self.latest.insert(event.revision(), event);
        } else {
            self.events.push_back(event);
        }
        true
    }

    /// Takes out what a newer event makes stale: the key's last one, or all of a group's.
    fn replace(&mut self, change: &Change) {
        let stale: Vec<Revision> = match &change.key {
            Some(_) => self.pending.get(&address(change)).copied().into_iter().collect(),
            None => {
                let of_group = |event: &&Event| event.change().group == change.group;
                self.latest.values().filter(of_group).map(Event::revision).collect()
            }
        };
        for revision in stale {
            if let Some(event) = self.latest.remove(&revision) {
                self.bytes -= event.change().weight();
                self.pending.remove(&address(event.change()));
            }
        }
    }
}

fn address(change: &Change) -> (Box<str>, Option<Box<str>>) {
    (change.group.clone(), change.key.clone())
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) mode: Mode,
    /// Nothing after this revision is delivered any more: the reader drains what there is up to it, and ends.
    pub(super) ended: Option<Revision>,
    /// Why it ended, if that was a fault: the last that the reader is told.
    pub(super) fault: Option<Error>,
    pub(super) buffer: Buffer,
    /// Events up to here are not for this watcher: it began after them, or has read them from the log.
    pub(super) seen: Revision,
    pub(super) dropped: u64,
    /// A progress mark is due.
    pub(super) progress_due: bool,
    pub(super) active_at: Timestamp,
    /// The reader waits, and has not been told yet.
    waiting: bool,
    waker: Option<Waker>,
}

/// A watcher's inbox.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(super) id: u64,
    pub(super) shape: Shape,
    state: Mutex<State>,
    arrived: Condvar,
    tally: Arc<Tally>,
}

impl Inbox {
    pub(super) fn new(
        id: u64,
        shape: Shape,
        mode: Mode,
        seen: Revision,
        now: Timestamp,
        tally: Arc<Tally>,
    ) -> Inbox {
        let state = State {
            mode,
            ended: None,
            fault: None,
            buffer: Buffer::default(),
            seen,
            dropped: 0,
            progress_due: false,
            active_at: now,
            waiting: false,
            waker: None,
        };
        Inbox { id, shape, state: Mutex::new(state), arrived: Condvar::new(), tally }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The hub's side: takes an event, or does what the policy says. Whether the reader must be woken.
    pub(super) fn deliver(&self, change: &Arc<Change>, before: Revision) -> bool {
        if !self.shape.filter.matches_change(change) {
            return false;
        }
        let mut state = self.lock();
        let fed = matches!(state.mode, Mode::Live | Mode::Joining { .. });
        if !fed || state.ended.is_some() || change.revision <= state.seen {
            return false;
        }
        if !state.buffer.push(&self.shape, self.shape.event(change)) {
            match (state.mode, self.shape.policy) {
                (Mode::Live, LagPolicy::Drop) => {
                    state.dropped += 1;
                    self.tally.dropped.add(1);
                }
                _ => self.fall_behind(&mut state, before),
            }
        }
        state.wants_waking()
    }

    /// The hub does not feed this watcher any more, beginning after this revision. Whether to wake the reader.
    pub(super) fn leave_behind(&self, after: Revision) -> bool {
        let mut state = self.lock();
        self.fall_behind(&mut state, after);
        state.wants_waking()
    }

    fn fall_behind(&self, state: &mut State, after: Revision) {
        let fed = !matches!(state.mode, Mode::Lagging { .. });
        state.fall_behind(after);
        if fed && matches!(state.mode, Mode::Lagging { .. }) {
            self.tally.fell_behind.add(1);
        }
    }

    /// Ends the watch because the store closed at this revision: what the reader still needs of the log it reads
    /// up to there. Whether to wake the reader.
    pub(super) fn close(&self, at: Revision) -> bool {
        let mut state = self.lock();
        state.ended.get_or_insert(at);
        state.wants_waking()
    }

    /// Ends the watch because its reader wants no more than what is buffered. Whether to wake the reader.
    pub(super) fn stop(&self) -> bool {
        let mut state = self.lock();
        state.cut_off();
        state.wants_waking()
    }

    /// Ends the watch because nothing can be read any more: the reader is told so after what is buffered. Whether to
    /// wake the reader.
    pub(super) fn fail(&self, error: &Error) -> bool {
        let mut state = self.lock();
        if state.ended.is_some() || self.shape.calls_back {
            return false;
        }
        state.cut_off();
        state.fault = Some(error.clone());
        state.wants_waking()
    }

    /// When this watcher next asks for a progress mark; makes one due if that is now.
    pub(super) fn progress(&self, now: Timestamp) -> (Option<Duration>, bool) {
        let Some(every) = self.shape.progress else { return (None, false) };
        let mut state = self.lock();
        // A clock that went back would otherwise let no mark be due until it is there again.
        state.active_at = state.active_at.min(now);
        let idle = now.since(state.active_at);
        if idle < every {
            return (Some(every - idle), false);
        }
        state.progress_due = true;
        state.active_at = now;
        let wake = state.wants_waking();
        (Some(every), wake)
    }

    /// Wakes the reader; called with no lock held.
    pub(super) fn wake(&self) {
        let waker = self.lock().waker.take();
        self.arrived.notify_all();
        if let Some(waker) = waker {
            wake(waker);
        }
    }

    /// The reader's side: waits for something to happen, at most until the deadline; whether it may have.
    pub(super) fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> Option<MutexGuard<'a, State>> {
        state.waiting = true;
        let state = match deadline {
            None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    state.waiting = false;
                    return None;
                }
                self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        Some(state)
    }
}

impl State {
    /// Nothing is left but what is buffered.
    fn cut_off(&mut self) {
        self.ended = Some(Revision::ZERO);
        if let Mode::Joining { .. } = self.mode {
            // What is buffered comes after what was not read.
            self.buffer.clear();
        }
        self.mode = Mode::Live;
    }

    pub(super) fn fall_behind(&mut self, after: Revision) {
        if self.ended.is_some() {
            return;
        }
        self.mode = match self.mode {
            Mode::Live => Mode::Lagging { after: after.max(self.seen) },
            // What is buffered comes after what is still to be read: read it again.
            Mode::Joining { after, .. } => {
                self.buffer.clear();
                Mode::Lagging { after }
            }
            other => other,
        };
    }

    /// Whether somebody waits who was not told yet.
    fn wants_waking(&mut self) -> bool {
        std::mem::take(&mut self.waiting)
    }

    /// The reader goes, and wants to be woken through this.
    pub(super) fn wake_later(&mut self, waker: &Waker) {
        self.waiting = true;
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_stops_no_progress_marks() {
        let every = Duration::from_secs(60);
        let shape = Shape::new(Filter::everything(), "", &WatchOptions::new().progress(every));
        let at = Timestamp::from_millis;
        let inbox = Inbox::new(1, shape, Mode::Live, Revision::ZERO, at(3_600_000), Arc::default());
        let due = |now| {
            let (next, _) = inbox.progress(at(now));
            (next, std::mem::take(&mut inbox.lock().progress_due))
        };
        // It counts from when the step is noticed: no earlier than asked for, and no later than twice that.
        assert_eq!(due(0), (Some(every), false));
        assert_eq!(due(59_999), (Some(Duration::from_millis(1)), false));
        assert_eq!(due(60_000), (Some(every), true));
    }
}
