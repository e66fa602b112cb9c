//! What the driver knows of a store: two lanes, and whether each is at rest, in line or served.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::types::sync::atomic::{AtomicU8, Ordering};
use crate::types::sync::{Condvar, Mutex, caught, lock};

/// What of a store may be done at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Lane {
    /// What others rely on in time: signs of life of held consumers, and expiry. It runs no callbacks.
    Vital,
    /// Everything else: other processes' commits, callbacks, asynchronous writes, upkeep.
    Work,
}

/// Why a lane is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Woken(u8);

impl Woken {
    /// By this process.
    pub(crate) const RAISED: Woken = Woken(1);
    /// By what another process did, or maybe this one.
    pub(crate) const HEARD: Woken = Woken(2);
    /// Its time was over.
    pub(crate) const TIMER: Woken = Woken(4);

    pub(crate) fn is(self, cause: Woken) -> bool {
        self.0 & cause.0 != 0
    }
}

const CAUSES: u8 = Woken::RAISED.0 | Woken::HEARD.0 | Woken::TIMER.0;
/// In line, or served, or not begun yet: whoever wakes the lane has nothing more to do than to say why.
const BUSY: u8 = 8;

/// What is done for a store.
pub(crate) trait Rounds: Send + Sync {
    /// Does what is to be done now, once; how long there is nothing to do after that, unless the lane is woken. None:
    /// for ever.
    fn round(&self, lane: Lane, woken: Woken) -> Option<Duration>;
}

struct Stage {
    rounds: Option<Arc<dyn Rounds>>,
    has_ended: bool,
    /// Which lanes are being served.
    served: BTreeSet<Lane>,
}

/// A store, as the driver sees it.
pub(super) struct Seat {
    pub(super) id: u64,
    lanes: [AtomicU8; 2],
    stage: Mutex<Stage>,
    stopped: Condvar,
}

impl Seat {
    pub(super) fn new(id: u64) -> Seat {
        let stage = Stage { rounds: None, has_ended: false, served: BTreeSet::new() };
        // Until it begins nobody puts it in line.
        Seat {
            id,
            lanes: [AtomicU8::new(BUSY), AtomicU8::new(BUSY)],
            stage: Mutex::new(stage),
            stopped: Condvar::new(),
        }
    }

    fn lane(&self, lane: Lane) -> &AtomicU8 {
        let [vital, work] = &self.lanes;
        match lane {
            Lane::Vital => vital,
            Lane::Work => work,
        }
    }

    /// Notes why a lane is woken; whether the caller has to put it in line.
    pub(super) fn wake(&self, lane: Lane, why: Woken) -> bool {
        self.lane(lane).fetch_or(why.0 | BUSY, Ordering::AcqRel) & BUSY == 0
    }

    /// After a round: whether the lane was woken meanwhile, and goes in line again.
    pub(super) fn rest(&self, lane: Lane) -> bool {
        self.lane(lane).compare_exchange(BUSY, 0, Ordering::AcqRel, Ordering::Acquire).is_err()
    }

    /// What the lanes do from now on.
    pub(super) fn begin(&self, rounds: Arc<dyn Rounds>) {
        lock(&self.stage).rounds = Some(rounds);
    }

    /// Serves a lane once, unless the store has ended; how long it rests. A panic ends the lane.
    pub(super) fn serve(&self, lane: Lane) -> Option<Duration> {
        let woken = Woken(self.lane(lane).fetch_and(!CAUSES, Ordering::AcqRel) & CAUSES);
        let mut stage = lock(&self.stage);
        let rounds = stage.rounds.clone().filter(|_| !stage.has_ended)?;
        stage.served.insert(lane);
        drop(stage);
        let next = caught(|| rounds.round(lane, woken));
        if next.is_none() {
            tracing::error!("a store's work in the background panicked");
        }
        drop(rounds);
        let mut stage = lock(&self.stage);
        stage.served.remove(&lane);
        drop(stage);
        self.stopped.notify_all();
        next.flatten()
    }

    pub(super) fn has_ended(&self) -> bool {
        lock(&self.stage).has_ended
    }

    /// Ends both lanes, waiting for the rounds under way, but for that of `own`. Whether this was the first time: who comes
    /// later does not wait, and may be the round itself, which lets go of the store as the last.
    pub(super) fn end(&self, own: Option<Lane>) -> bool {
        let mut stage = lock(&self.stage);
        if std::mem::replace(&mut stage.has_ended, true) {
            return false;
        }
        while stage.served.iter().any(|lane| Some(*lane) != own) {
            stage = self.stopped.wait(stage).unwrap_or_else(PoisonError::into_inner);
        }
        let rounds = stage.rounds.take();
        drop(stage);
        drop(rounds);
        true
    }
}
