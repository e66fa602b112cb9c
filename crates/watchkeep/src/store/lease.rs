//! What this process holds of named consumers: each with a lease, which is renewed in the background, and with an account
//! of what was handed out.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::driver::Lane;
use crate::engine::Engine;
use crate::rules::{Act, Author, Work, Write};
use crate::types::clock::Timestamp;
use crate::types::error::{Error, ErrorKind, Reason, Result};
use crate::types::event::Item;
use crate::types::limits::{LEASE_PARTS, POLL};
use crate::types::revision::{Revision, StoreId};
use crate::types::sync::{Condvar, Mutex, lock};
use crate::watch::watcher::{Account, Stopper};

use super::core::Core;

/// A consumer that this process took.
pub(super) struct Lease {
    /// The store that it is of.
    pub(super) store: StoreId,
    /// As it stands in the file.
    pub(super) name: String,
    /// The number of this taking.
    pub(super) fence: u64,
    beat: Duration,
    /// The reader asked for progress marks itself.
    wants_progress: bool,
    stopper: Stopper,
    state: Mutex<State>,
}

struct State {
    /// A snapshot is being handed out: what it consists of is acknowledged by its end only.
    loading: bool,
    /// Acknowledgements below this say nothing: they are of the snapshot that ended here.
    floor: Revision,
    /// The last that was handed out and wants to be acknowledged.
    handed: Revision,
    /// Up to here, nothing else is to be handed out.
    seen: Revision,
    /// When the last sign of life was given.
    beaten: (Timestamp, Instant),
    /// Why it is not ours any more.
    over: Option<Error>,
    given_up: bool,
    /// It is being given back in the background.
    is_going: bool,
}

impl Lease {
    pub(super) fn new(
        (store, name, fence): (StoreId, String, u64),
        start: Option<Revision>,
        (length, wants_progress): (Duration, bool),
        stopper: Stopper,
        now: Timestamp,
    ) -> Lease {
        let handed = start.unwrap_or_default();
        let state = State {
            loading: start.is_none(),
            floor: Revision::ZERO,
            handed,
            seen: handed,
            beaten: (now, Instant::now()),
            over: None,
            given_up: false,
            is_going: false,
        };
        let beat = beat(length);
        Lease { store, name, fence, beat, wants_progress, stopper, state: Mutex::new(state) }
    }

    pub(super) fn write(&self, act: Act) -> Write {
        Write { author: Author::default(), work: Work::Consumer { name: self.name.clone(), act } }
    }

    /// Whether a revision may be acknowledged: gives it back, or none where that says nothing.
    pub(super) fn admit(&self, upto: Revision) -> Result<Option<Revision>> {
        let state = lock(&self.state);
        if let Some(over) = &state.over {
            return Err(over.clone());
        }
        if state.loading || upto < state.floor {
            return Ok(None);
        }
        let last = state.handed.max(state.seen);
        drop(state);
        if upto > last {
            let what = format!(
                "revision {upto} was not handed out, the last was {last}; acknowledge what was received"
            );
            return Err(Reason::Invalid { what }.into());
        }
        Ok(Some(upto))
    }

    /// What acknowledges everything up to a revision, or only makes sure that the consumer is ours.
    pub(super) fn ack(&self, upto: Option<Revision>) -> Act {
        Act::Ack { fence: self.fence, upto }
    }

    /// Takes note of a refusal: one that says that the consumer is not ours ends the watch.
    pub(super) fn learn(&self, error: &Error) {
        if error.kind() == ErrorKind::Fenced {
            lock(&self.state).over.get_or_insert_with(|| error.clone());
            self.stopper.stop();
        }
    }

    /// Nothing more is handed out, nor acknowledged. It is given back in the background.
    fn give_up(&self) {
        let over = Reason::Fenced { name: self.name.clone(), by: None };
        let mut state = lock(&self.state);
        state.given_up = true;
        state.over.get_or_insert_with(|| over.into());
        drop(state);
        self.stopper.stop();
    }

    /// Gives a sign of life when it is time to; how long until the next.
    fn keep(lease: &Arc<Lease>, engine: &dyn Engine, now: Timestamp) -> Option<Duration> {
        let mut state = lock(&lease.state);
        if state.over.is_some() {
            return None;
        }
        let (beaten, at) = state.beaten;
        // Not every engine asks the store's clock when a lease is over, and one may stand still.
        let idle = now.since(beaten).max(at.elapsed());
        // A clock that went back would otherwise keep us silent until it is there again.
        if idle < lease.beat && now >= beaten {
            return Some(lease.beat - idle);
        }
        state.beaten = (now, Instant::now());
        let act = Act::Keep { fence: lease.fence, handed: state.handed, seen: state.seen };
        drop(state);
        let told = lease.clone();
        let done = move |result: Result<_>| {
            if let Err(error) = result {
                tracing::warn!(%error, consumer = told.name, "a sign of life could not be given");
                told.learn(&error);
            }
        };
        engine.submit(lease.write(act), Box::new(done));
        Some(lease.beat)
    }
}

/// How often the holder of a lease gives a sign of life.
pub(super) fn beat(lease: Duration) -> Duration {
    (lease / LEASE_PARTS).max(Duration::from_millis(1))
}

impl Account for Lease {
    fn over(&self) -> Option<Error> {
        lock(&self.state).over.clone()
    }

    fn note(&self, item: &Item) -> bool {
        let mut state = lock(&self.state);
        match item {
            Item::Ready(revision) => {
                (state.loading, state.floor, state.handed) = (false, *revision, *revision);
            }
            Item::Progress(seen) => {
                state.seen = state.seen.max(*seen);
                return self.wants_progress;
            }
            _ if state.loading => {}
            Item::Event(event) => state.handed = state.handed.max(event.revision()),
            Item::Lagged(lagged) => state.handed = state.handed.max(lagged.to),
        }
        true
    }
}

/// The consumers that this process holds.
#[derive(Default)]
pub(super) struct Leases {
    held: Mutex<Vec<Arc<Lease>>>,
    /// One was given back, or may be free by now.
    changed: Condvar,
}

impl Leases {
    pub(super) fn add(&self, lease: Arc<Lease>) {
        lock(&self.held).push(lease);
    }

    /// Has one given back; waits for nothing.
    pub(super) fn give_up(&self, core: &Core, lease: &Lease) {
        lease.give_up();
        core.signal.raise(Lane::Vital);
    }

    /// Gives back what is given up. One whose write fails runs out by itself.
    pub(super) fn flush(&self, core: &Core) {
        let given_up: Vec<_> =
            lock(&self.held).iter().filter(|lease| lock(&lease.state).given_up).cloned().collect();
        for lease in given_up {
            if let Err(error) = lease.give_back(core) {
                tracing::debug!(%error, consumer = lease.name, "a consumer could not be given back");
            }
            // Only now: whoever asks for the name meanwhile gives it back once more rather than find it held.
            lock(&self.held).retain(|held| !Arc::ptr_eq(held, &lease));
        }
        self.changed.notify_all();
    }

    /// Whether this process holds none.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.held).is_empty()
    }

    /// The same in the background: it is only submitted.
    fn let_go(self: &Arc<Self>, core: &Core) {
        let goes = |lease: &&Arc<Lease>| {
            let mut state = lock(&lease.state);
            state.given_up && !std::mem::replace(&mut state.is_going, true)
        };
        let going: Vec<_> = lock(&self.held).iter().filter(goes).cloned().collect();
        for lease in going {
            let (all, own) = (self.clone(), lease.clone());
            let done = move |result: Result<_>| {
                if let Err(error) = result {
                    tracing::debug!(%error, consumer = own.name, "a consumer could not be given back");
                }
                lock(&all.held).retain(|held| !Arc::ptr_eq(held, &own));
                all.changed.notify_all();
            };
            core.engine.submit(lease.write(Act::Release { fence: lease.fence }), Box::new(done));
        }
    }

    /// Submits signs of life, and what gives back what is given up; when the next is due.
    pub(super) fn keep(self: &Arc<Self>, core: &Core) -> Option<Duration> {
        self.let_go(core);
        let held = lock(&self.held).clone();
        let now = core.clock.now();
        held.iter().filter_map(|lease| Lease::keep(lease, &*core.engine, now)).min()
    }

    /// Gives everything back, for the store closes.
    pub(super) fn close(&self, core: &Core) {
        for lease in &*lock(&self.held) {
            lock(&lease.state).given_up = true;
        }
        self.flush(core);
    }

    /// Waits until a consumer may be free, for a moment at the most: other processes give no signal.
    pub(super) fn wait(&self, left: Duration) {
        let held = lock(&self.held);
        drop(self.changed.wait_timeout(held, left.min(POLL)).unwrap_or_else(PoisonError::into_inner));
    }
}

impl Lease {
    pub(super) fn give_back(&self, core: &Core) -> Result<()> {
        core.write(self.write(Act::Release { fence: self.fence })).map(drop)
    }
}
