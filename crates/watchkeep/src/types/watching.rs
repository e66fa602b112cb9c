//! How a watch is made: where it starts, how much it holds, what it does when it falls behind.

use std::time::Duration;

use super::revision::{Cursor, Revision};

/// What happens when a reader is slower than the writers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LagPolicy {
    /// The watcher reads on from the change log, at its own pace, and misses nothing.
    #[default]
    CatchUp,
    /// Events that find the buffer full are dropped and counted, as in the original.
    Drop,
    /// Only the newest pending event of each key is kept; a group's deletion replaces what was pending for its
    /// keys. What a user interface wants.
    Latest,
}

/// Where a watch begins.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    #[default]
    Now,
    After(Revision),
    AfterCursor(Cursor),
    Snapshot,
}

/// How [`Store::watch_with`](crate::Store::watch_with) watches.
///
/// ```
/// use watchkeep::{Filter, Item, Store, WatchOptions};
/// let store = Store::open_in_memory()?;
/// store.set("config", "theme", "dark")?;
/// let mut watcher = store.watch_with(Filter::group("config"), WatchOptions::new().snapshot())?;
/// let mut items = watcher.items();
/// assert!(matches!(items.recv(), Some(Ok(Item::Event(event))) if event.is_snapshot()));
/// assert!(matches!(items.recv(), Some(Ok(Item::Ready(_)))));
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchOptions {
    pub(crate) buffer: usize,
    pub(crate) buffer_bytes: usize,
    pub(crate) start: Start,
    pub(crate) policy: LagPolicy,
    pub(crate) progress: Option<Duration>,
    pub(crate) previous_values: bool,
    pub(crate) keys_only: bool,
    pub(crate) snapshot_after_loss: bool,
}

impl Default for WatchOptions {
    fn default() -> Self {
        WatchOptions {
            buffer: 16,
            buffer_bytes: 1 << 20,
            start: Start::Now,
            policy: LagPolicy::CatchUp,
            progress: None,
            previous_values: false,
            keys_only: false,
            snapshot_after_loss: false,
        }
    }
}

impl WatchOptions {
    /// From now on, 16 events or 1 MiB of buffer, nothing lost.
    pub fn new() -> WatchOptions {
        WatchOptions::default()
    }

    /// How many events the buffer holds, at least one. 16 unless set.
    #[must_use]
    pub fn buffer(mut self, events: usize) -> WatchOptions {
        self.buffer = events.max(1);
        self
    }

    /// How many bytes of events the buffer holds, but always at least one event. 1 MiB unless set.
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: usize) -> WatchOptions {
        self.buffer_bytes = bytes;
        self
    }

    /// Starts after this revision of this store. The number is taken as it is: one of another store, or of an event that a
    /// power cut took, is not noticed, and one that lies ahead begins when the store gets there.
    #[must_use]
    pub fn after(mut self, revision: Revision) -> WatchOptions {
        self.start = Start::After(revision);
        self
    }

    /// Starts after this cursor. One whose event is not this store's is refused: see
    /// [`Store::revision_of`](crate::Store::revision_of).
    #[must_use]
    pub fn after_cursor(mut self, cursor: Cursor) -> WatchOptions {
        self.start = Start::AfterCursor(cursor);
        self
    }

    /// Starts with the current entries and a [`Ready`](crate::Item::Ready) mark, then every later change.
    ///
    /// The entries are read page by page as the watcher is read: what is written between the call and then is in
    /// the entries, and what is written while they are read is passed on where it concerns what was already given.
    #[must_use]
    pub fn snapshot(mut self) -> WatchOptions {
        self.start = Start::Snapshot;
        self
    }

    /// After a loss goes on with a snapshot: each [`Lagged`](crate::Item::Lagged) mark is followed by the current
    /// entries and a [`Ready`](crate::Item::Ready) mark, then every later change. Without it the stream goes on after
    /// the gap.
    ///
    /// What was folded before the mark is to be forgotten, however the watch began.
    ///
    /// ```
    /// use watchkeep::{Filter, Item, Revision, Store, WatchOptions};
    /// let store = Store::open_in_memory()?;
    /// store.set("config", "theme", "dark")?;
    /// store.set("config", "size", "12")?;
    /// store.compact(Revision::new(2))?; // what the watch would begin with is gone
    /// let options = WatchOptions::new().after(Revision::ZERO).snapshot_after_loss();
    /// let mut watcher = store.watch_with(Filter::group("config"), options)?;
    /// let mut items = watcher.items();
    /// assert!(matches!(items.recv(), Some(Ok(Item::Lagged(_)))));
    /// for _ in ["theme", "size"] {
    ///     assert!(matches!(items.recv(), Some(Ok(Item::Event(event))) if event.is_snapshot()));
    /// }
    /// assert!(matches!(items.recv(), Some(Ok(Item::Ready(_)))));
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    #[must_use]
    pub fn snapshot_after_loss(mut self) -> WatchOptions {
        self.snapshot_after_loss = true;
        self
    }

    /// What happens when the reader falls behind.
    #[must_use]
    pub fn policy(mut self, policy: LagPolicy) -> WatchOptions {
        self.policy = policy;
        self
    }

    /// Asks for a [`Progress`](crate::Item::Progress) mark whenever nothing arrived for this long.
    #[must_use]
    pub fn progress(mut self, every: Duration) -> WatchOptions {
        self.progress = Some(every.max(Duration::from_millis(1)));
        self
    }

    /// Asks for the value that each event replaced or removed, looked up in the log.
    #[must_use]
    pub fn previous_values(mut self) -> WatchOptions {
        self.previous_values = true;
        self
    }

    /// Asks for events without values.
    #[must_use]
    pub fn keys_only(mut self) -> WatchOptions {
        self.keys_only = true;
        self
    }
}
