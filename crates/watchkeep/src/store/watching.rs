//! Watching, calling back, looking back.

use crate::types::error::Result;
use crate::types::event::{ChangePage, Event, Item};
use crate::types::filter::Filter;
use crate::types::revision::{Cursor, Revision};
use crate::types::watching::WatchOptions;
use crate::watch::callbacks::Subscription;
use crate::watch::watcher::Watcher;

use super::handle::Store;
use super::history::History;

impl Store {
    /// Watches a key, a group or everything, from now on; `*` stands for any group, or any key.
    ///
    /// The original's call: a watch of one exact key does not see the deletion of its group, and a name that really
    /// is `*` is reached by [`watch_with`](Store::watch_with) only. On a closed store the watcher fails once and
    /// ends.
    pub fn watch(&self, group: &str, key: &str) -> Watcher {
        self.watch_with(Filter::from_pattern(group, key), WatchOptions::new())
            .unwrap_or_else(Watcher::refused)
    }

    /// Watches what the filter lets through. The watcher is registered when this returns: a write that starts later
    /// is seen.
    ///
    /// # Errors
    ///
    /// `Closed`; `ForeignCursor` when the start belongs to another store, `LostCursor` when its event is not in this one; `Io`, `Corrupt`.
    pub fn watch_with(&self, filter: Filter, options: WatchOptions) -> Result<Watcher> {
        let scope = self.scope();
        Watcher::new(&self.core().hub, filter.within(|group| scope.full(group)), scope.prefix(), &options)
    }

    /// Ends a watch: the same as dropping the watcher.
    pub fn unwatch(&self, watcher: Watcher) {
        drop(watcher);
    }

    /// Has a function called for every event, in the order of the commits, before the write that caused it returns.
    ///
    /// It may do with the store whatever it likes: read, write, watch, register, unregister, close. What it writes
    /// is delivered to watchers at once, and to callbacks after the event at hand. It runs on some thread: the
    /// writer's, another waiting writer's, or the store's own; one call at a time. It must not wait for another
    /// thread's write, nor take a lock that is held while writing, nor write to a store whose callbacks write back; a call that takes over a second is reported
    /// through `tracing`, and so is a panic, which changes nothing else. A captured `Store` would keep itself open:
    /// capture [`downgrade`](Store::downgrade).
    pub fn on_change(&self, mut f: impl FnMut(&Event) + Send + 'static) -> Subscription {
        let events = move |item: &Item| {
            if let Item::Event(event) = item {
                f(event);
            }
        };
        self.subscribe(Filter::everything(), false, Box::new(events))
    }

    /// As [`on_change`](Store::on_change), for what a filter lets through, and with marks: a callback that is told
    /// of [`Item::Lagged`] knows what it missed.
    pub fn on_change_with(&self, filter: Filter, f: impl FnMut(&Item) + Send + 'static) -> Subscription {
        self.subscribe(filter, true, Box::new(f))
    }

    fn subscribe(&self, filter: Filter, marks: bool, f: Box<dyn FnMut(&Item) + Send>) -> Subscription {
        let scope = self.scope();
        let filter = filter.within(|group| scope.full(group));
        self.core().hub.on_change(filter, scope.prefix(), marks, f)
    }

    /// What the change log holds after a revision, up to its end; [`Revision::ZERO`] for all of it.
    ///
    /// When events after that revision are trimmed, the first item is an error of kind `Lagged` that says which; the
    /// iterator goes on after it. All of it means what there is: from zero, nothing counts as missing.
    pub fn history(&self, filter: Filter, after: Revision) -> History {
        let scope = self.scope();
        History::new(
            self.core().engine.clone(),
            filter.within(|group| scope.full(group)),
            scope.prefix(),
            after,
        )
    }

    /// A page of what the change log holds after a position, or, without one, of all that it holds.
    ///
    /// It looks at `rows` rows of the log at the most, and never at more than 1,000, whether or not they match: a page
    /// without events is no end. It ends early after about 1 MiB of events. Going on from each page's `next` until that
    /// is its `end` gives every event once, whatever is written meanwhile.
    ///
    /// ```
    /// use watchkeep::{Filter, Store};
    /// let store = Store::open_in_memory()?;
    /// for key in ["theme", "size", "theme"] {
    ///     store.set("config", key, "new")?;
    /// }
    /// let (mut themes, mut after) = (0, None);
    /// loop {
    ///     let page = store.changes(Filter::key("config", "theme"), after, 2)?;
    ///     themes += page.events.len();
    ///     after = Some(page.next);
    ///     if page.next == page.end {
    ///         break;
    ///     }
    /// }
    /// assert_eq!(themes, 2);
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Lagged` when events after the position are trimmed: what is lost ends at the oldest position that can be gone
    /// on from. `ForeignCursor` and `LostCursor` when the position stands for no event of this store, see
    /// [`revision_of`](Store::revision_of). `Closed`, `Io`, `Corrupt`.
    pub fn changes(&self, filter: Filter, after: Option<Cursor>, rows: usize) -> Result<ChangePage> {
        let scope = self.scope();
        self.core().hub.changes(filter.within(|group| scope.full(group)), scope.prefix(), after, rows)
    }
}
