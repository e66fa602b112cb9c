//! Reads: written once, for the store, a snapshot and a transaction.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Answer, Dated, Engine, Held, Query, Transact};
use crate::types::entry::{Entry, GroupPage, KeyPage, ListOptions, Page};
use crate::types::error::{Error, Result};
use crate::types::limits::PAGE_ENTRIES;
use crate::types::name::{NameRange, Scope};
use crate::types::revision::Revision;
use crate::types::value::Value;

use super::list::{Entries, Groups};

/// Where reads go.
#[derive(Clone)]
pub(super) enum Source<'a> {
    /// To the engine, each on its own.
    Engine(&'a dyn Engine),
    /// The same, for as long as somebody reads on.
    Store(Arc<dyn Engine>),
    /// To a moment that it holds.
    Held(Held),
    /// To the write transaction that is under way.
    Open(&'a dyn Transact),
}

/// Reads of a store, of a [`Snapshot`] or of a [`Transaction`](crate::Transaction), which both give themselves as
/// this.
#[derive(Clone)]
pub struct View<'a> {
    source: Source<'a>,
    scope: Cow<'a, Scope>,
}

impl<'a> View<'a> {
    pub(super) fn new(source: Source<'a>, scope: Cow<'a, Scope>) -> View<'a> {
        View { source, scope }
    }

    fn ask<T: TryFrom<Answer, Error = Error>>(&self, query: &Query<'_>) -> Result<T> {
        match &self.source {
            Source::Engine(engine) => query.ask(*engine),
            Source::Store(engine) => query.ask(&**engine),
            Source::Held(held) => query.ask(&**held),
            Source::Open(open) => query.ask(*open),
        }
    }

    /// The value of a key, if it is there.
    ///
    /// # Errors
    ///
    /// `Closed`, `Io`, `Corrupt`; in a snapshot also `SnapshotTooOld`.
    pub fn get(&self, group: &str, key: &str) -> Result<Option<Value>> {
        self.ask(&Query::Value { group: self.scope.name_of(group), key: key.into() })
    }

    /// The value of a key with its revisions and deadline, if it is there.
    ///
    /// # Errors
    ///
    /// As [`get`](View::get).
    pub fn entry(&self, group: &str, key: &str) -> Result<Option<Entry>> {
        Ok(self.dated(group, key)?.entry)
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
        let Dated { entry, now } = self.dated(group, key)?;
        Ok(entry.and_then(|entry| entry.remaining(now)))
    }

    fn dated(&self, group: &str, key: &str) -> Result<Dated> {
        self.ask(&Query::Entry { group: self.scope.name_of(group), key: key.into() })
    }

    /// How many keys a group holds, at constant cost.
    ///
    /// # Errors
    ///
    /// As [`get`](View::get).
    pub fn count(&self, group: &str) -> Result<u64> {
        self.ask(&Query::Count { group: self.scope.name_of(group) })
    }

    /// How many keys all groups hold whose name starts so; costs what those groups are, not what they hold.
    ///
    /// # Errors
    ///
    /// As [`get`](View::get).
    pub fn count_all(&self, group_prefix: &str) -> Result<u64> {
        self.ask(&Query::CountAll { groups: self.scope.groups(group_prefix) })
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
        self.ask(&entries(&self.scope, group, options))
    }

    /// A page of a group without the values: at most 256 keys, all of one moment.
    ///
    /// # Errors
    ///
    /// As [`get`](View::get).
    pub fn keys_page(&self, group: &str, options: ListOptions) -> Result<KeyPage> {
        self.ask(&keys(&self.scope, group, options))
    }

    /// A page of the names of groups that start so: at most `limit` and 256, all of one moment.
    ///
    /// # Errors
    ///
    /// As [`get`](View::get).
    pub fn groups_page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<GroupPage> {
        Ok(local(&self.scope, self.ask(&groups(&self.scope, prefix, after, limit))?))
    }

    pub(super) fn last(&self) -> Result<Revision> {
        self.ask(&Query::Last)
    }
}

/// What asks for a page of a group.
pub(super) fn entries<'q>(scope: &Scope, group: impl Into<Cow<'q, str>>, options: ListOptions) -> Query<'q> {
    let (keys, limit) = range(options);
    Query::Entries { group: scope.name_of(group), keys, limit }
}

/// The same without the values.
pub(super) fn keys<'q>(scope: &Scope, group: impl Into<Cow<'q, str>>, options: ListOptions) -> Query<'q> {
    let (keys, limit) = range(options);
    Query::Keys { group: scope.name_of(group), keys, limit }
}

fn range(options: ListOptions) -> (NameRange, usize) {
    let keys = NameRange::prefix(&options.prefix).after(options.after.as_deref());
    (keys, options.limit.unwrap_or(PAGE_ENTRIES).min(PAGE_ENTRIES))
}

/// What asks for a page of names of groups, which are [made local](local).
pub(super) fn groups(scope: &Scope, prefix: &str, after: Option<&str>, limit: usize) -> Query<'static> {
    let after = after.map(|after| scope.full(after));
    Query::Groups { names: scope.groups(prefix).after(after.as_deref()), limit: limit.min(PAGE_ENTRIES) }
}

/// A page with the names that the handle knows.
pub(super) fn local(scope: &Scope, mut page: GroupPage) -> GroupPage {
    let name = |name: &mut String| name.drain(..name.len() - scope.local(name).len()).for_each(drop);
    page.groups.iter_mut().chain(&mut page.next).for_each(name);
    page
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
        let view = View::new(Source::Held(engine.hold()?), Cow::Owned(scope));
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
