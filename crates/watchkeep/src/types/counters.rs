//! What has happened in a store since this process opened it, as plain numbers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::event::Item;
use super::revision::Revision;

/// What has happened since this process opened the store: numbers that only grow, for whoever keeps an eye on it.
///
/// They are those of the whole store, also on a handle that is scoped to a namespace, and of this process alone: what
/// others commit counts as delivered here, and as committed there. Each number is exact; read while others write, one
/// may already count what another does not yet.
///
/// ```
/// use watchkeep::Store;
/// let store = Store::open_in_memory()?;
/// let mut watcher = store.watch("config", "*");
/// store.set("config", "theme", "dark")?;
/// assert!(watcher.try_recv().is_some());
/// let counters = store.counters();
/// assert_eq!((counters.commits, counters.events, counters.deliveries), (1, 1, 1));
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Commits that announced something; writers that came at the same time share one.
    pub commits: u64,
    /// Events that these commits announced.
    pub events: u64,
    /// Events that watchers handed out, each as often as there were watchers for it; snapshots included.
    pub deliveries: u64,
    /// Watchers that there are now, held consumers included.
    pub watchers: u64,
    /// How often a watcher had no room for an event, and so left its buffer for the log.
    pub fell_behind: u64,
    /// How often a watcher that read the log had read enough of it to be fed again; the first time included, for one
    /// that began in the past.
    pub rejoined: u64,
    /// Events that watchers were told they had lost, because the log was trimmed before they read it.
    pub lost: u64,
    /// Events that were dropped for want of room, under [`LagPolicy::Drop`](crate::LagPolicy::Drop).
    pub dropped: u64,
    /// Entries whose time to live ended, among [`events`](Counters::events).
    pub expired: u64,
    /// How long after their deadlines these went, added up; the time that no process had the store open included.
    pub lateness: Duration,
}

/// A number that only grows. Nothing is decided by it, so it is not one of the atomics that the model checkers explore.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, many: u64) {
        self.0.fetch_add(many, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted where watchers are fed and read.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) deliveries: Count,
    pub(crate) fell_behind: Count,
    pub(crate) rejoined: Count,
    pub(crate) lost: Count,
    pub(crate) dropped: Count,
}

impl Tally {
    /// A reader gives this to its user. `events` says how many there are after one revision up to another.
    pub(crate) fn hand_out(&self, item: &Item, events: impl Fn(Revision, Revision) -> u64) {
        match item {
            Item::Event(_) => self.deliveries.add(1),
            Item::Lagged(lost) => {
                let before = Revision::new(lost.from.get().saturating_sub(1));
                self.lost.add(events(before, lost.to));
            }
            _ => {}
        }
    }
}
