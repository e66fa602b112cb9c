//! The hub: one dispatcher at a time takes commits in order and pushes them to the watchers that want them. It runs
//! no user code and waits for nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::driver::{Lane, Signal};
use crate::engine::workers::Workers;
use crate::engine::{Engine, Query};
use crate::types::clock::Clock;
use crate::types::counters::{Counters, Tally};
use crate::types::error::{Error, Reason, Result};
use crate::types::event::Change;
use crate::types::limits::{FAR_BEHIND, PAGE_ENTRIES};
use crate::types::revision::Revision;
use crate::types::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::types::sync::{Mutex, lock};
use crate::types::watching::Start;

use super::callbacks::Callbacks;
use super::inbox::{Inbox, Mode, Shape};
use super::index::Index;
use super::log_cache::LogCache;

struct Watchers {
    index: Index<Arc<Inbox>>,
    by_id: HashMap<u64, Arc<Inbox>>,
    next_id: u64,
    /// Why nobody is registered any more.
    refusal: Option<Error>,
}

/// All watchers and callbacks of a store.
pub(crate) struct Hub {
    pub(crate) engine: Arc<dyn Engine>,
    pub(super) clock: Arc<dyn Clock>,
    pub(crate) log: LogCache,
    pub(crate) callbacks: Callbacks,
    /// Do the reading for asynchronous readers.
    pub(super) workers: Arc<Workers>,
    pub(super) tally: Arc<Tally>,
    watchers: Mutex<Watchers>,
    /// Who dispatches. Held while the log is read, never while user code runs.
    dispatching: Mutex<()>,
    /// The last revision that was dispatched. Changed only under the watchers' lock.
    last: AtomicU64,
    wants_progress: AtomicBool,
    signal: Arc<Signal>,
}

impl Hub {
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        clock: Arc<dyn Clock>,
        signal: Arc<Signal>,
        workers: Arc<Workers>,
        last: Revision,
    ) -> Arc<Hub> {
        let watchers = Watchers { index: Index::default(), by_id: HashMap::new(), next_id: 0, refusal: None };
        Arc::new(Hub {
            engine,
            clock,
            log: LogCache::default(),
            callbacks: Callbacks::default(),
            workers,
            tally: Arc::default(),
            watchers: Mutex::new(watchers),
            dispatching: Mutex::new(()),
            last: AtomicU64::new(last.get()),
            wants_progress: AtomicBool::new(false),
            signal,
        })
    }

    /// The last revision that was dispatched.
    pub(crate) fn last(&self) -> Revision {
        Revision::new(self.last.load(Ordering::Acquire))
    }

    /// The last revision in the file: where a watch starts. What happens to be dispatched says nothing about it: a
    /// commit that was there before the call is not news.
    pub(crate) fn newest(&self) -> Result<Revision> {
        Query::Last.ask(&*self.engine)
    }

    /// Registers a watcher; where it starts.
    pub(super) fn register(
        &self,
        shape: Shape,
        start: Start,
        newest: Revision,
    ) -> Result<(Arc<Inbox>, Revision)> {
        let (wants_progress, time) = (shape.progress.is_some(), self.clock.now());
        let mut watchers = lock(&self.watchers);
        if let Some(refusal) = &watchers.refusal {
            return Err(refusal.clone());
        }
        let now = newest.max(self.last());
        let (mode, start) = match start {
            Start::Now => (Mode::Live, now),
            Start::After(after) => (Mode::Lagging { after }, after),
            Start::AfterCursor(cursor) => (Mode::Lagging { after: cursor.revision() }, cursor.revision()),
            Start::Snapshot => (Mode::Lagging { after: now }, now),
        };
        let id = watchers.next_id;
        watchers.next_id += 1;
        let filter = shape.filter.clone();
        let inbox = Arc::new(Inbox::new(id, shape, mode, start, time, self.tally.clone()));
        watchers.index.insert(id, &filter, inbox.clone());
        let is_first = watchers.by_id.is_empty();
        watchers.by_id.insert(id, inbox.clone());
        drop(watchers);
        if wants_progress {
            self.wants_progress.store(true, Ordering::Relaxed);
        }
        if is_first || wants_progress {
            // The file is looked at more often from now on.
            self.signal.raise(Lane::Work);
        }
        Ok((inbox, start))
    }

    pub(super) fn unregister(&self, inbox: &Inbox) {
        let mut watchers = lock(&self.watchers);
        watchers.index.remove(inbox.id, &inbox.shape.filter);
        let gone = watchers.by_id.remove(&inbox.id);
        drop(watchers);
        drop(gone);
    }

    /// Whether there is a watcher or a callback.
    pub(crate) fn is_watched(&self) -> bool {
        !lock(&self.watchers).by_id.is_empty()
    }

    /// How many watchers there are.
    pub(crate) fn watchers(&self) -> u64 {
        let feeds = u64::from(self.callbacks.is_fed());
        let inboxes = lock(&self.watchers).by_id.len();
        u64::try_from(inboxes).unwrap_or(u64::MAX).saturating_sub(feeds)
    }

    /// What has happened so far.
    pub(crate) fn counters(&self) -> Counters {
        let (feed, tally) = (self.engine.feed(), &self.tally);
        Counters {
            commits: feed.committed.get(),
            events: feed.events.get(),
            deliveries: tally.deliveries.get(),
            watchers: self.watchers(),
            fell_behind: tally.fell_behind.get(),
            rejoined: tally.rejoined.get(),
            lost: tally.lost.get(),
            dropped: tally.dropped.get(),
            expired: feed.expired.get(),
            lateness: Duration::from_millis(feed.lateness.get()),
        }
    }

    /// Hands everything up to a revision to the watchers.
    pub(crate) fn deliver(&self, upto: Revision) {
        while self.last() < upto {
            let turn = lock(&self.dispatching);
            if self.last() >= upto {
                break;
            }
            let wake = self.dispatch_next(upto);
            drop(turn);
            wake.iter().for_each(|inbox| inbox.wake());
        }
    }

    /// Dispatches what follows the last dispatched revision; whom to wake for it.
    fn dispatch_next(&self, upto: Revision) -> Vec<Arc<Inbox>> {
        let last = self.last();
        if let Some(changes) = self.engine.feed().take(last) {
            return self.dispatch(&changes, last);
        }
        if self.pass_over(upto) {
            return Vec::new();
        }
        match self.log.read(&*self.engine, last) {
            Ok(segment)
                if segment.page.trimmed <= last
                    && self.engine.distance(last, segment.page.end) <= FAR_BEHIND =>
            {
                let new = segment.page.changes.partition_point(|change| change.revision <= last);
                let changes = segment.page.changes.get(new..).unwrap_or_default();
                if changes.is_empty() { self.leave_behind(upto) } else { self.dispatch(changes, last) }
            }
            // Too far behind to replay it to everybody: they read it themselves.
            Ok(segment) => self.leave_behind(segment.page.end.max(upto)),
            Err(error) => {
                tracing::warn!(%error, "the change log could not be read; watchers will try themselves");
                self.leave_behind(upto)
            }
        }
    }

    /// With nobody there, nothing is read.
    fn pass_over(&self, upto: Revision) -> bool {
        let watchers = lock(&self.watchers);
        let nobody = watchers.by_id.is_empty();
        if nobody {
            self.last.store(upto.get(), Ordering::Release);
        }
        drop(watchers);
        nobody
    }

    fn dispatch(&self, changes: &[Arc<Change>], mut before: Revision) -> Vec<Arc<Inbox>> {
        let mut wake = Vec::new();
        let watchers = lock(&self.watchers);
        for change in changes {
            watchers.index.candidates(&change.group, change.key.as_deref(), |inbox| {
                if inbox.deliver(change, before) {
                    wake.push(inbox.clone());
                }
            });
            before = change.revision;
        }
        self.last.store(before.get(), Ordering::Release);
        drop(watchers);
        wake
    }

    /// Every watcher that is fed counts as without room from here on.
    fn leave_behind(&self, upto: Revision) -> Vec<Arc<Inbox>> {
        let watchers = lock(&self.watchers);
        let last = self.last();
        let wake = watchers.by_id.values().filter(|inbox| inbox.leave_behind(last)).cloned().collect();
        self.last.store(upto.get(), Ordering::Release);
        drop(watchers);
        wake
    }

    /// A reader that has read the log up to `after` is fed again, when that is near enough to the end.
    pub(super) fn join(&self, inbox: &Inbox, after: Revision) {
        if self.engine.distance(after, self.last()) > PAGE_ENTRIES as u64 {
            return;
        }
        let watchers = lock(&self.watchers);
        let (last, mut state) = (self.last(), inbox.lock());
        if matches!(state.mode, Mode::Lagging { .. }) {
            state.mode = if last <= after { Mode::Live } else { Mode::Joining { after, at: last } };
            state.seen = after.max(last);
            self.tally.rejoined.add(1);
        }
        drop(state);
        drop(watchers);
    }

    /// The last dispatched revision, if this watcher has nothing of it left to read.
    pub(super) fn progress_of(&self, inbox: &Inbox) -> Option<Revision> {
        let watchers = lock(&self.watchers);
        let state = inbox.lock();
        let idle = state.mode == Mode::Live && state.buffer.is_empty();
        let seen = self.last().max(state.seen);
        drop(state);
        drop(watchers);
        idle.then_some(seen)
    }

    /// Lets go of pages of the log that were read: what is trimmed is gone for everybody.
    pub(crate) fn forget_pages(&self) {
        self.log.clear();
    }

    /// Makes progress marks due; when the next one is.
    pub(crate) fn progress(&self) -> Option<Duration> {
        if !self.wants_progress.load(Ordering::Relaxed) {
            return None;
        }
        let now = self.clock.now();
        let (mut next, mut wake) = (None, Vec::new());
        let watchers = lock(&self.watchers);
        for inbox in watchers.by_id.values() {
            let (due, woken) = inbox.progress(now);
            next = next.into_iter().chain(due).min();
            if woken {
                wake.push(inbox.clone());
            }
        }
        if next.is_none() {
            self.wants_progress.store(false, Ordering::Relaxed);
        }
        drop(watchers);
        wake.iter().for_each(|inbox| inbox.wake());
        next
    }

    /// Ends all watches with an error, and refuses new ones.
    pub(crate) fn poison(&self, error: &Error) {
        lock(&self.watchers).refusal.get_or_insert_with(|| error.clone());
        self.fail(error);
    }

    /// Ends all watches with an error: nothing can be read.
    pub(crate) fn fail(&self, error: &Error) {
        let watchers = lock(&self.watchers);
        let wake: Vec<_> = watchers.by_id.values().filter(|inbox| inbox.fail(error)).cloned().collect();
        drop(watchers);
        wake.iter().for_each(|inbox| inbox.wake());
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        let mut watchers = lock(&self.watchers);
        watchers.refusal = Some(Reason::Closed.into());
        let last = self.last();
        let wake: Vec<_> = watchers.by_id.values().filter(|inbox| inbox.close(last)).cloned().collect();
        drop(watchers);
        wake.iter().for_each(|inbox| inbox.wake());
    }
}
