//! Reads: written once, for the store, a snapshot and a transaction.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Engine, Held, Read, Transact};
use crate::types::entry::{Entry, GroupPage, KeyPage, ListOptions, Page};
use crate::types::error::Result;
use crate::types::limits::PAGE_ENTRIES;
use crate::types::name::{NameRange, Scope};
use crate::types::revision::Revision;
use crate::types::value::Value;

use super::list::{Entries, Groups};

/// Where reads go.
#[derive(Clone)]
pub(super) enum Source<'a> {
    /// To a connection of the pool, each on its own.
    Store(Arc<dyn Engine>),
    /// To a read transaction that stays open.
    Held(Arc<dyn Held>),
    /// To the write transaction that is under way.
    Open(&'a dyn Transact),
}

/// Reads of a store, of a [`Snapshot`] or of a [`Transaction`](crate::Transaction), which both give themselves as
/// this.
#[derive(Clone)]
pub struct View<'a> {
    source: Source<'a>,
    scope: Scope,
}

impl<'a> View<'a> {
    pub(super) fn new(source: Source<'a>, scope: Scope) -> View<'a> {
        View { source, scope }
    }

    /// One read.
    fn one<T>(&self, mut f: impl FnMut(&dyn Read) -> Result<T>) -> Result<T> {
        let mut result = None;
        let mut keep = |read: &dyn Read| {
            result = Some(f(read)?);
            Ok(())
        };
        match &self.source {
            Source::Store(engine) => engine.glance(&mut keep)?,
            Source::Held(held) => held.read(&mut keep)?,
            Source::Open(open) => open.read(&mut keep)?,
        }
        result.ok_or_else(|| crate::types::error::Reason::Closed.into())
    }

    /// Several reads of one moment.
    fn together<T>(&self, mut f: impl FnMut(&dyn Read) -> Result<T>) -> Result<T> {
        let Source::Store(engine) = &self.source else { return self.one(f) };
        let mut result = None;
        engine.read(&mut |read| {
            result = Some(f(read)?);
            Ok(())
        })?;
        result.ok_or_else(|| crate::types::error::Reason::Closed.into())
    }

    /// The value of a key, if it is there.
    ///
    /// # Errors
    ///
    /// `Closed`, `Io`, `Corrupt`; in a snapshot also `SnapshotTooOld`.
    pub fn get(&self, group: &str, key: &str) -> Result<Option<Value>> {
        let group = self.scope.full(group);
        self.one(|read| read.value(&group, key))
    }

    /// The value of a key with its revisions and deadline, if it is there.
    ///
    /// # Errors
    ///
    /// As [`get`](View::get).
    pub fn entry(&self, group: &str, key: &str) -> Result<Option<Entry>> {
        let group = self.scope.full(group);
        self.one(|read| read.entry(&group, key))
    }

    /// Whether a key is there.
    ///
    /// # Errors
    ///
    /// As [`get`](View::get).
    pub fn contains(&self, group: &str, key: &str) -> Result<bool> {
        Ok(self.entry(group, key)?.is_some())
    }

    /// How long a key has left; none when it is not there, or does not expire.
    ///
    /// # Errors
    ///
    /// As [`get`](View::get).
    pub fn remaining_ttl(&self, group: &str, key: &str) -> Result<Option<Duration>> {
        let group = self.scope.full(group);
        self.one(|read| Ok(read.entry(&group, key)?.and_then(|entry| entry.remaining(read.now()))))
    }

    /// How many keys a group holds, at constant cost.
    ///
    /// # Errors
    ///
    /// As [`get`](View::get).
    pub fn count(&self, group: &str) -> Result<u64> {
        let group = self.scope.full(group);
        self.one(|read| read.count(&group))
    }

    /// How many keys all groups hold whose name starts so; costs what those groups are, not what they hold.
    ///
    /// # Errors
    ///
    /// As [`get`](View::get).
    pub fn count_all(&self, group_prefix: &str) -> Result<u64> {
        let range = NameRange::prefix(&self.scope.full(group_prefix));
        self.together(|read| read.count_all(&range))
    }

    /// The names of all groups that start so, in byte order.
    pub fn groups(&self, prefix: &str) -> Groups<'a> {
        Groups::new(self.clone(), prefix)
    }

    /// The entries of a group, in the order of their keys. They are read in pages: what is written meanwhile may or
    /// may not be seen; in a snapshot or a transaction all are of one moment.
    pub fn entries(&self, group: &str) -> Entries<'a> {
        self.entries_with(group, ListOptions::new())
    }

    /// Some entries of a group, in the order of their keys.
    pub fn entries_with(&self, group: &str, options: ListOptions) -> Entries<'a> {
        Entries::new(self.clone(), group, options)
    }

    /// A page of a group: at most 256 entries or 1 MiB of them, all of one moment.
    ///
    /// # Errors
    ///
    /// As [`get`](View::get).
    pub fn page(&self, group: &str, options: ListOptions) -> Result<Page> {
        let group = self.scope.full(group);
        let keys = NameRange::prefix(&options.prefix).after(options.after.as_deref());
        let limit = options.limit.unwrap_or(PAGE_ENTRIES).min(PAGE_ENTRIES);
        self.together(|read| {
            let revision = read.last()?;
            let (entries, more) =
                if limit == 0 { (Vec::new(), false) } else { read.entries(&group, &keys, limit)? };
            let next = entries.last().map(|entry| entry.key.clone()).filter(|_| more);
            Ok(Page { entries, next, revision })
        })
    }

    /// A page of a group without the values: at most 256 keys, all of one moment.
    ///
    /// # Errors
    ///
    /// As [`get`](View::get).
    pub fn keys_page(&self, group: &str, options: ListOptions) -> Result<KeyPage> {
        let group = self.scope.full(group);
        let range = NameRange::prefix(&options.prefix).after(options.after.as_deref());
        let limit = options.limit.unwrap_or(PAGE_ENTRIES).min(PAGE_ENTRIES);
        self.together(|read| {
            let keys = if limit == 0 { Vec::new() } else { read.keys(&group, &range, limit)? };
            let next = keys.last().map(|last| last.key.clone()).filter(|_| keys.len() >= limit);
            Ok(KeyPage { keys, next, revision: read.last()? })
        })
    }

    /// A page of the names of groups that start so: at most `limit` and 256, all of one moment.
    ///
    /// # Errors
    ///
    /// As [`get`](View::get).
    pub fn groups_page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<GroupPage> {
        let after = after.map(|after| self.scope.full(after));
        let range = NameRange::prefix(&self.scope.full(prefix)).after(after.as_deref());
        let limit = limit.min(PAGE_ENTRIES);
        self.together(|read| {
            let names = if limit == 0 { Vec::new() } else { read.groups(&range, limit)? };
            let groups: Vec<_> = names.iter().map(|name| self.scope.local(name).to_owned()).collect();
            let next = groups.last().cloned().filter(|_| groups.len() >= limit);
            Ok(GroupPage { groups, next, revision: read.last()? })
        })
    }

    pub(super) fn last(&self) -> Result<Revision> {
        self.one(|read| read.last())
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("namespace", &self.scope.name()).finish_non_exhaustive()
    }
}

/// Reads that all see one revision, however long they take, up to the maximum age that the store was opened with.
///
/// It holds a connection, and while it is held the file's write-ahead log grows: drop it soon.
///
/// ```
/// use watchkeep::Store;
/// let store = Store::open_in_memory()?;
/// store.set("config", "theme", "dark")?;
/// let before = store.snapshot()?;
/// store.set("config", "theme", "light")?;
/// assert_eq!(before.get("config", "theme")?.unwrap(), "dark");
/// assert_eq!(store.get("config", "theme")?.unwrap(), "light");
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Snapshot {
    view: View<'static>,
    revision: Revision,
}

impl Snapshot {
    pub(super) fn new(engine: &dyn Engine, scope: Scope) -> Result<Snapshot> {
        let view = View::new(Source::Held(engine.hold()?), scope);
        let revision = view.last()?;
        Ok(Snapshot { view, revision })
    }

    /// The revision that it sees.
    pub fn revision(&self) -> Revision {
        self.revision
    }
}

impl Deref for Snapshot {
    type Target = View<'static>;

    fn deref(&self) -> &View<'static> {
        &self.view
    }
}
