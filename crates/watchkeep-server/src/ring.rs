//! A ring of changes that many clients read, each at its own place. One watcher of the library fills it, and waits for
//! nobody: whoever falls out of the ring reads the log for itself, and comes back.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};
use watchkeep::{Error, Item, Lagged, Revision, Watcher};

use crate::change::Change;
use crate::gate::Gate;
use crate::limits::{BEAT_PARTS, HEARTBEAT, RING_BYTES, RING_EVENTS, RING_LEAST};

/// What stands in a ring.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Change(Arc<Change>),
    /// These revisions were trimmed before anybody read them.
    Lost(Lagged),
}

impl Entry {
    pub(crate) fn revision(&self) -> Revision {
        match self {
            Entry::Change(change) => change.revision(),
            Entry::Lost(lost) => lost.to,
        }
    }

    fn weight(&self) -> usize {
        match self {
            Entry::Change(change) => change.weight(),
            Entry::Lost(_) => 0,
        }
    }
}

/// Why nothing more comes.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Failed(Error),
    Closed,
}

/// What a client finds at its place.
pub(crate) enum Found {
    Entry(Entry),
    /// Everything up to this revision was looked at, and nothing is left to tell.
    Nothing(Revision),
    /// Its place is gone.
    Behind,
    Ended(End),
}

struct State {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The number of the first entry: entries are counted from the ring's start.
    first: u64,
    /// What matches after this revision is in the ring, or comes.
    floor: Revision,
    /// Everything up to this was looked at.
    seen: Revision,
    end: Option<End>,
    /// Who waits, by their seats.
    waiting: Vec<Option<Waker>>,
    free: Vec<usize>,
    /// How often it was time for the heartbeats of some seats.
    beats: u64,
}

pub(crate) struct Ring {
    state: Mutex<State>,
    pump: OnceLock<AbortHandle>,
}

impl Ring {
    /// A ring that a watcher fills from now on.
    pub(crate) fn start(gate: &Gate, watcher: Watcher) -> Arc<Ring> {
        let start = watcher.start();
        let ring = Arc::new(Ring { state: Mutex::new(State::after(start)), pump: OnceLock::new() });
        let pump = tokio::spawn(pump(Arc::downgrade(&ring), gate.clone(), watcher));
        // Nobody else sets it.
        let _ = ring.pump.set(pump.abort_handle());
        ring
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clients(&self) -> usize {
        let state = self.lock();
        state.waiting.len() - state.free.len()
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    /// The number of the first entry after a revision; none when what follows it has left the ring.
    pub(crate) fn place_after(&self, revision: Revision) -> Option<u64> {
        let state = self.lock();
        if revision < state.floor {
            return None;
        }
        let passed = state.entries.partition_point(|entry| entry.revision() <= revision);
        Some(state.first + u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// What stands at a place. When nothing does, the seat's owner is woken once something may.
    pub(crate) fn find(&self, place: u64, seat: &Seat, cx: &Context<'_>) -> Found {
        let mut state = self.lock();
        let Some(at) = place.checked_sub(state.first) else { return Found::Behind };
        if let Some(entry) = usize::try_from(at).ok().and_then(|at| state.entries.get(at)) {
            return Found::Entry(entry.clone());
        }
        if let Some(end) = &state.end {
            return Found::Ended(end.clone());
        }
        state.wait(seat.number, cx.waker());
        Found::Nothing(state.seen)
    }

    fn push(&self, gate: &Gate, items: Vec<Result<Item, Error>>, ended: bool) {
        let entries: Vec<_> = items.into_iter().map(|item| gate.entry_of(item)).collect();
        let crowded = gate.is_crowded();
        let mut state = self.lock();
        for entry in entries {
            match entry {
                Ok(Told::Entry(entry)) => state.add(entry, crowded),
                Ok(Told::Seen(revision)) => state.seen = state.seen.max(revision),
                Err(error) => drop(state.end.get_or_insert(End::Failed(error))),
            }
        }
        if ended {
            state.end.get_or_insert(End::Closed);
        }
        let woken: Vec<_> = state.waiting.iter_mut().filter_map(Option::take).collect();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// It is time for the heartbeats of some of the seats.
    fn beat(&self, gate: &Gate) {
        let mut state = self.lock();
        if gate.is_crowded() {
            // A ring that gets nothing new would never give anything up.
            let fewer = state.entries.len().saturating_sub(RING_EVENTS / 8);
            state.shrink_to(fewer.max(RING_LEAST), usize::MAX);
        }
        state.beats += 1;
        let part = state.beats % BEAT_PARTS;
        let due = |seat: usize| u64::try_from(seat).unwrap_or(0) % BEAT_PARTS == part;
        let waiting = state.waiting.iter_mut().enumerate().filter(|(seat, _)| due(*seat));
        let woken: Vec<_> = waiting.filter_map(|(_, waker)| waker.take()).collect();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// A seat, for one client.
    pub(crate) fn sit(self: &Arc<Self>) -> Seat {
        let mut state = self.lock();
        let number = state.free.pop().unwrap_or_else(|| {
            state.waiting.push(None);
            state.waiting.len() - 1
        });
        let part = u64::try_from(number).unwrap_or(0) % BEAT_PARTS;
        // The first of its beats that is at least half of the time away.
        let mut next = state.beats + BEAT_PARTS / 2;
        while next % BEAT_PARTS != part {
            next += 1;
        }
        drop(state);
        Seat { ring: self.clone(), number, next }
    }
}

impl State {
    fn after(start: Revision) -> State {
        State {
            entries: VecDeque::new(),
            bytes: 0,
            first: 0,
            floor: start,
            seen: start,
            end: None,
            waiting: Vec::new(),
            free: Vec::new(),
            beats: 0,
        }
    }

    fn add(&mut self, entry: Entry, crowded: bool) {
        self.seen = self.seen.max(entry.revision());
        self.bytes += entry.weight();
        self.entries.push_back(entry);
        // Two go for one that comes.
        let fewer = self.entries.len().saturating_sub(2).max(RING_LEAST);
        self.shrink_to(if crowded { fewer } else { RING_EVENTS }, RING_BYTES);
    }

    /// Gives up the oldest until there are no more than so many, of no more than so many bytes unless it is one.
    fn shrink_to(&mut self, many: usize, bytes: usize) {
        while self.entries.len() > many || (self.bytes > bytes && self.entries.len() > 1) {
            let Some(old) = self.entries.pop_front() else { return };
            self.bytes -= old.weight();
            self.floor = self.floor.max(old.revision());
            self.first += 1;
        }
    }

    fn wait(&mut self, seat: usize, waker: &Waker) {
        if let Some(place) = self.waiting.get_mut(seat) {
            match place {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Some(pump) = self.pump.get() {
            pump.abort();
        }
    }
}

/// A client's place among those who wait, which tells when its heartbeat is due.
pub(crate) struct Seat {
    ring: Arc<Ring>,
    number: usize,
    next: u64,
}

impl Seat {
    pub(crate) fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Whether a heartbeat is due, once for each. When none is, the owner is woken for it.
    pub(crate) fn is_due(&mut self, cx: &Context<'_>) -> bool {
        let mut state = self.ring.lock();
        let due = state.beats >= self.next;
        if due {
            let part = self.next % BEAT_PARTS;
            self.next = state.beats - state.beats % BEAT_PARTS + part;
            if self.next <= state.beats {
                self.next += BEAT_PARTS;
            }
        } else {
            state.wait(self.number, cx.waker());
        }
        due
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.ring.lock();
        let waker = state.waiting.get_mut(self.number).and_then(Option::take);
        state.free.push(self.number);
        drop(state);
        drop(waker);
    }
}

/// What an item of a watcher means to a ring.
pub(crate) enum Told {
    Entry(Entry),
    Seen(Revision),
}

/// Fills a ring for as long as somebody has it.
async fn pump(ring: Weak<Ring>, gate: Gate, mut watcher: Watcher) {
    let mut beats = interval(HEARTBEAT / u32::try_from(BEAT_PARTS).unwrap_or(1));
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (items, ended) = tokio::select! {
            told = std::future::poll_fn(|cx| poll_batch(&mut watcher, cx)) => told,
            _ = beats.tick() => {
                let Some(ring) = ring.upgrade() else { return };
                ring.beat(&gate);
                continue;
            }
        };
        let Some(ring) = ring.upgrade() else { return };
        // An error of reading the file is not the end of a watch, but it is the end of a ring: its clients come back.
        let over = ended || items.iter().any(Result::is_err);
        ring.push(&gate, items, ended);
        if over {
            return;
        }
    }
}

/// All that is there, up to a ring's worth; and whether nothing follows.
fn poll_batch(watcher: &mut Watcher, cx: &mut Context<'_>) -> Poll<(Vec<Result<Item, Error>>, bool)> {
    let mut batch = Vec::new();
    while batch.len() < RING_EVENTS / 8 {
        match Pin::new(&mut watcher.items()).poll_next(cx) {
            Poll::Ready(Some(item)) => batch.push(item),
            Poll::Ready(None) => return Poll::Ready((batch, true)),
            Poll::Pending if batch.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    Poll::Ready((batch, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(revision: u64) -> Entry {
        let revision = Revision::new(revision);
        Entry::Lost(Lagged { from: revision, to: revision })
    }

    #[test]
    fn a_ring_holds_less_while_all_hold_too_much() {
        let mut state = State::after(Revision::ZERO);
        (1..=200).for_each(|revision| state.add(lost(revision), false));
        assert_eq!((state.entries.len(), state.floor), (200, Revision::ZERO));
        (201..=210).for_each(|revision| state.add(lost(revision), true));
        assert_eq!((state.entries.len(), state.first, state.floor.get()), (190, 20, 20));
        (211..=1_000).for_each(|revision| state.add(lost(revision), true));
        assert_eq!(state.entries.len(), RING_LEAST);
        (1_001..=2 * RING_EVENTS as u64).for_each(|revision| state.add(lost(revision), false));
        assert_eq!(state.entries.len(), RING_EVENTS);
    }
}
