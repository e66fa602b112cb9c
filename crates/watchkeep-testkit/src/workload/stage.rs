//! What the threads of a life share.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use watchkeep::{Clock, ManualClock, Revision, Timestamp};

use crate::record::{Heard, Moment, Picture, Reading, Recording, Seen, Ticker, Write};
use crate::surface::Surface;

/// How far a life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// The writers are at it.
    Running,
    /// They are done, and nothing will be written any more.
    Quiet,
    /// The store is closed, or closing.
    Closed,
}

#[derive(Debug)]
struct Beats {
    /// Steps that the writers have made, all together.
    made: u64,
    /// Of these, how many the scribe has read the log after.
    read: u64,
    phase: Phase,
    quiet: Option<Moment>,
}

/// What was recorded so far.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) writes: Vec<Write>,
    pub(super) recordings: Vec<Recording>,
    pub(super) pictures: Vec<Picture>,
    pub(super) rows: Vec<Seen>,
    /// What went wrong that no promise speaks of.
    pub(super) faults: Vec<String>,
}

/// A life of the store.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) ticker: Ticker,
    pub(super) clock: Arc<ManualClock>,
    /// The latest time that the clock showed.
    latest: AtomicI64,
    /// How often the clock was moved.
    moves: Mutex<u64>,
    /// The store, and other handles on it, as of other processes.
    pub(super) handles: Vec<Arc<dyn Surface>>,
    /// The first handle's number among all that the round opens.
    pub(super) first_hub: usize,
    beats: Mutex<Beats>,
    changed: Condvar,
    records: Mutex<Records>,
}

/// How many steps the writers may be ahead of the scribe, so that nothing is trimmed before it was read.
const AHEAD: u64 = 8;

impl Stage {
    pub(super) fn new(
        ticker: Ticker,
        clock: Arc<ManualClock>,
        handles: Vec<Arc<dyn Surface>>,
        first_hub: usize,
    ) -> Stage {
        let latest = AtomicI64::new(clock.now().as_millis());
        let beats = Mutex::new(Beats { made: 0, read: 0, phase: Phase::Running, quiet: None });
        let (moves, changed, records) = (Mutex::default(), Condvar::new(), Mutex::default());
        Stage { ticker, clock, latest, moves, handles, first_hub, beats, changed, records }
    }

    pub(super) fn handle(&self, number: usize) -> Option<&Arc<dyn Surface>> {
        self.handles.get(number).or(self.handles.first())
    }

    /// A handle on the same store other than this one, where there is one.
    pub(super) fn witness(&self, number: usize) -> Option<&Arc<dyn Surface>> {
        self.handles.iter().enumerate().find(|(other, _)| *other != number).map(|(_, handle)| handle)
    }

    fn beats(&self) -> MutexGuard<'_, Beats> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fault(&self, what: impl Into<String>) {
        self.records().faults.push(what.into());
    }

    /// A writer made a step. Waits while the scribe is too far behind.
    pub(super) fn beat(&self) {
        let mut beats = self.beats();
        beats.made += 1;
        self.changed.notify_all();
        while beats.made > beats.read + AHEAD && beats.phase == Phase::Running {
            beats = self.changed.wait(beats).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until the writers have come this far, or are done; how far they are.
    pub(super) fn reached(&self, beat: u64) -> (u64, Phase) {
        let mut beats = self.beats();
        while beats.made < beat && beats.phase == Phase::Running {
            beats = self.changed.wait(beats).unwrap_or_else(PoisonError::into_inner);
        }
        (beats.made, beats.phase)
    }

    /// The scribe has read the log after this many steps.
    pub(super) fn written_down(&self, beat: u64) {
        self.beats().read = beat;
        self.changed.notify_all();
    }

    pub(super) fn enter(&self, phase: Phase) {
        let mut beats = self.beats();
        beats.phase = phase;
        if phase == Phase::Quiet {
            beats.quiet = Some(self.ticker.now());
        }
        drop(beats);
        self.changed.notify_all();
    }

    /// When the writers were done, if all of them wrote through the same handle.
    pub(super) fn quiet(&self) -> Option<(usize, Moment)> {
        self.beats().quiet.filter(|_| self.handles.len() == 1).map(|quiet| (self.first_hub, quiet))
    }

    pub(super) fn phase(&self) -> Phase {
        self.beats().phase
    }

    /// Moves the clock, on or back. The latest time is noted before the clock shows it.
    pub(super) fn move_clock(&self, millis: i64) {
        let mut moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        *moves += 1;
        let to = self.clock.now().as_millis().saturating_add(millis);
        self.latest.fetch_max(to, Ordering::SeqCst);
        self.clock.set(Timestamp::from_millis(to));
    }

    pub(super) fn latest(&self) -> Timestamp {
        Timestamp::from_millis(self.latest.load(Ordering::SeqCst))
    }

    /// The clock before a call, if it was not moved during the call.
    pub(super) fn at_one_time<T>(&self, call: impl FnOnce() -> T) -> (T, Option<Timestamp>) {
        let moves = || *self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, now) = (moves(), self.clock.now());
        let result = call();
        (result, (before == moves()).then_some(now))
    }

    /// What the store answers right after something was heard through this handle.
    pub(super) fn look_up(&self, number: usize, heard: &mut Heard, namespace: Option<&str>) {
        use crate::ops::{Op, Outcome, Place, Read, Step};
        let Some(handle) = self.handle(number) else { return };
        let witness = self.witness(number).unwrap_or(handle);
        let Ok(last) = witness.last() else { return };
        let mut reading = Reading { last, ..Reading::default() };
        if let Some((seen, key)) = heard.event().and_then(|seen| Some((seen, seen.key.clone()?))) {
            let op = Op::Read(Read::Entry(Place { group: seen.group.clone(), key }));
            let step = Step { namespace: namespace.map(str::to_owned), quota: None, op };
            if let Outcome::Entry(entry) = handle.perform(&step, "reader") {
                reading.entry = Some(entry.map(|cell| cell.revision));
            }
        }
        reading.after = handle.last().unwrap_or(Revision::ZERO);
        // The latest time at all: a clock that stands at it now may have been set back since.
        reading.now = self.latest();
        heard.reading = Some(reading);
    }
}
