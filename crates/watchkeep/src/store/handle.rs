//! The handle that users hold: cheap to clone, the whole store or one namespace of it.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Bounds, File, Query, Receipt, Transact};
use crate::rules::{Author, Work, Write};
use crate::types::batch::{Applied, Batch, Operation};
use crate::types::consumer::Force;
use crate::types::entry::{Entry, GroupPage, KeyPage, ListOptions, Page};
use crate::types::error::{Reason, Result};
use crate::types::name::{NameRange, Scope};
use crate::types::options::{Durability, Options};
use crate::types::revision::{Cursor, Revision, StoreId};
use crate::types::value::Value;
use crate::types::writing::{DeleteOptions, SetOptions};

use super::core::{Core, Life};
use super::list::{Entries, Groups};
use super::transaction::{Committed, Transaction};
use super::view::{Snapshot, Source, View};

/// An open store: cheap to clone, and to share between threads.
///
/// When the last handle goes, the store closes. A handle may be [scoped](Store::scoped) to a namespace, and may
/// [label](Store::with_origin) what it writes.
///
/// ```
/// use watchkeep::Store;
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("app.db");
/// let store = Store::open(&path)?;
/// let mut watcher = store.watch("config", "*");
/// store.set("config", "theme", "dark")?;
/// assert_eq!(store.get("config", "theme")?.unwrap(), "dark");
/// assert_eq!(watcher.recv().unwrap()?.key(), Some("theme"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Store {
    pub(super) life: Arc<Life>,
    pub(super) author: Author,
}

impl Store {
    /// Opens a file, or makes it, with the default [`Options`].
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        Options::new().open(path)
    }

    /// Opens a store in an etcd cluster, or makes it, with the default [`Options`].
    ///
    /// # Errors
    ///
    /// As [`Options::connect`].
    #[cfg(feature = "etcd")]
    pub fn connect(address: &str) -> Result<Store> {
        Options::new().connect(address)
    }

    /// A store of its own that is gone when it closes.
    ///
    /// # Errors
    ///
    /// As [`Options::open_in_memory`].
    pub fn open_in_memory() -> Result<Store> {
        Options::new().open_in_memory()
    }

    pub(super) fn start(core: Arc<Core>) -> Result<Store> {
        let author = Author { origin: core.options.origin.clone(), ..Author::default() };
        Ok(Store { life: Arc::new(Life { core }), author })
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.life.core
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.author.scope
    }

    pub(super) fn origin(&self) -> Option<&str> {
        self.author.origin.as_deref()
    }

    /// For one read: to count who has the engine costs readers on several processors more than the rest of the way there.
    fn view(&self) -> View<'_> {
        View::new(Source::Engine(&*self.core().engine), Cow::Borrowed(self.scope()))
    }

    /// For reads that go on after this handle.
    pub(super) fn lasting_view(&self) -> View<'static> {
        View::new(Source::Store(self.core().engine.clone()), Cow::Owned(self.scope().clone()))
    }

    fn write(&self, operation: Operation) -> Result<Receipt> {
        self.core().write(self.authored(operation.within(self.scope()).into()))
    }

    /// A write in the name of this handle, under the names that stand in the file.
    pub(super) fn authored(&self, work: Work) -> Write {
        Write { author: self.author.clone(), work }
    }

    /// The store's identity, which its cursors bear.
    pub fn id(&self) -> StoreId {
        self.core().engine.id()
    }

    /// A revision in the form that may leave the process. It must be one of this store.
    pub fn cursor(&self, revision: Revision) -> Cursor {
        self.core().engine.cursor(revision)
    }

    /// The revision of a cursor, if its event is this store's.
    ///
    /// ```
    /// use watchkeep::{ErrorKind, Store};
    /// let store = Store::open_in_memory()?;
    /// let revision = store.set("config", "theme", "dark")?;
    /// assert_eq!(store.revision_of(store.cursor(revision))?, revision);
    ///
    /// let foreign = Store::open_in_memory()?.cursor(revision);
    /// assert_eq!(store.revision_of(foreign).unwrap_err().kind(), ErrorKind::ForeignCursor);
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `ForeignCursor` for a cursor of another store; `LostCursor` for one whose event a power cut took, and for one that
    /// only another copy of the file gave; `Closed`, `Io`, `Corrupt`.
    pub fn revision_of(&self, cursor: Cursor) -> Result<Revision> {
        let _: Bounds = Query::bounds(self.id(), Some(cursor))?.ask(&*self.core().engine)?;
        Ok(cursor.revision())
    }

    /// The file's path; none of a store in memory.
    pub fn path(&self) -> Option<&Path> {
        self.core().engine.file().map(File::path)
    }

    /// The file's durability; relaxed in memory.
    pub fn durability(&self) -> Durability {
        self.core().engine.file().map_or(Durability::Relaxed, File::durability)
    }

    /// The last revision that is in the file.
    ///
    /// # Errors
    ///
    /// `Closed`, `Io`, `Corrupt`.
    pub fn last_revision(&self) -> Result<Revision> {
        self.view().last()
    }

    /// Writes an entry, without a deadline; its revision.
    ///
    /// When this returns, the entry is as durable as the file is (see [`Durability`](crate::Durability)), every
    /// watcher with room holds the event, and every callback has run.
    ///
    /// # Errors
    ///
    /// `TooLarge`, `QuotaExceeded`, `Busy`, `Nested`, `Full`, `Closed`, `ReadOnly`, `Sealed`, `Corrupt`, `Io`,
    /// `UnknownOutcome`.
    pub fn set(&self, group: &str, key: &str, value: impl Into<Value>) -> Result<Revision> {
        self.set_with(group, key, value, SetOptions::new())
    }

    /// Writes an entry that expires.
    ///
    /// # Errors
    ///
    /// As [`set`](Store::set), and `InvalidArgument` for a time to live below 1 ms or past the year 9999.
    pub fn set_with_ttl(
        &self,
        group: &str,
        key: &str,
        value: impl Into<Value>,
        ttl: Duration,
    ) -> Result<Revision> {
        self.set_with(group, key, value, SetOptions::new().ttl(ttl))
    }

    /// Writes an entry under conditions, with a time to live, with a content type.
    ///
    /// # Errors
    ///
    /// As [`set_with_ttl`](Store::set_with_ttl), and `Conflict`, which tells the entry's
    /// [current revision](crate::Error::current_revision).
    pub fn set_with(
        &self,
        group: &str,
        key: &str,
        value: impl Into<Value>,
        options: SetOptions,
    ) -> Result<Revision> {
        self.write(Operation::set(group, key, value.into(), options))?.set()
    }

    /// Deletes an entry; whether it was there. Deleting what is not there announces nothing.
    ///
    /// # Errors
    ///
    /// `Busy`, `Nested`, `Full`, `Closed`, `ReadOnly`, `Sealed`, `Corrupt`, `Io`, `UnknownOutcome`.
    pub fn delete(&self, group: &str, key: &str) -> Result<bool> {
        self.delete_with(group, key, DeleteOptions::new())
    }

    /// Deletes an entry under a condition; whether it was there.
    ///
    /// # Errors
    ///
    /// As [`delete`](Store::delete), and `Conflict`.
    pub fn delete_with(&self, group: &str, key: &str, options: DeleteOptions) -> Result<bool> {
        Ok(self.write(Operation::delete(group, key, &options))?.outcome()?.was_there())
    }

    /// Deletes a group with all its entries, at constant cost and as one event; how many entries there were.
    ///
    /// # Errors
    ///
    /// As [`delete`](Store::delete).
    pub fn delete_group(&self, group: &str) -> Result<u64> {
        Ok(self.write(Operation::delete_group(group))?.outcome()?.keys())
    }

    /// Deletes all groups whose name starts so, in one transaction, with one event for each; how many entries there
    /// were. The prefix is compared byte by byte.
    ///
    /// # Errors
    ///
    /// As [`delete`](Store::delete).
    pub fn delete_prefix(&self, group_prefix: &str) -> Result<u64> {
        Ok(self.write(Operation::delete_prefix(group_prefix))?.outcome()?.keys())
    }

    /// Gives an entry a new deadline, and leaves its value and revision alone; whether it is there.
    ///
    /// # Errors
    ///
    /// As [`delete`](Store::delete), and `InvalidArgument` for a time to live below 1 ms or past the year 9999.
    pub fn touch(&self, group: &str, key: &str, ttl: Duration) -> Result<bool> {
        Ok(self.write(Operation::touch(group, key, Some(ttl)))?.outcome()?.was_there())
    }

    /// Takes an entry's deadline away; whether it is there.
    ///
    /// # Errors
    ///
    /// As [`delete`](Store::delete).
    pub fn persist(&self, group: &str, key: &str) -> Result<bool> {
        Ok(self.write(Operation::touch(group, key, None))?.outcome()?.was_there())
    }

    /// Removes and announces what is due now, without waiting for the timer; how many entries.
    ///
    /// # Errors
    ///
    /// As [`delete`](Store::delete).
    pub fn purge_expired(&self) -> Result<u64> {
        let groups = NameRange::prefix(self.scope().prefix());
        let mut purged = 0;
        loop {
            let step = self.core().write(self.authored(Work::Reap { groups: groups.clone() }))?;
            let (keys, more) = step.reaped()?;
            purged += keys;
            if !more {
                return Ok(purged);
            }
        }
    }

    /// Applies a batch: all of it, or nothing.
    ///
    /// When this returns, its events are in place as those of a [`set`](Store::set); no other event lies
    /// between them.
    ///
    /// ```
    /// use watchkeep::{Batch, Outcome, Store};
    /// let store = Store::open_in_memory()?;
    /// store.set("inbox", "7", "hello")?;
    /// let applied = store.apply(Batch::new().delete("inbox", "7").set("archive", "7", "hello"))?;
    /// assert_eq!(applied.outcomes, [Outcome::Was(true), Outcome::Set(applied.revision)]);
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Conflict` when conditions do not hold, with [all of them](crate::Error::unmet); `ForeignCursor` and
    /// `LostCursor` for a condition whose cursor stands for no event of this store, see [`revision_of`](Store::revision_of); `InvalidArgument` for
    /// a time to live below 1 ms or past the year 9999, and for an empty prefix to delete; `TooLarge`, `QuotaExceeded`,
    /// `Busy`, `Nested`, `Full`, `Closed`, `ReadOnly`, `Sealed`, `Corrupt`, `Io`, `UnknownOutcome`.
    pub fn apply(&self, batch: Batch) -> Result<Applied> {
        self.core().write(self.batch(batch)?)?.applied()
    }

    /// A batch in the name of this handle.
    pub(super) fn batch(&self, batch: Batch) -> Result<Write> {
        Ok(self.authored(Work::Batch(batch.admitted(self.id(), self.scope())?)))
    }

    /// Runs a closure whose writes are committed together, or not at all.
    ///
    /// It reads its own writes. Returning an error rolls back, and so does a panic, which goes on unwinding. Any other
    /// write to the same file from inside it, through whatever handle, is refused with kind `Nested`. Other writers wait
    /// while it runs.
    ///
    /// The closure may run more than once: when what it shared a commit with made that fail, and when keys whose deadline
    /// has come must go before it can go on, in a group that it deletes or against a quota. The call that meets such keys
    /// fails with kind `Busy`; once they have gone, the closure is run again, whatever it returned.
    ///
    /// ```
    /// use watchkeep::Store;
    /// let store = Store::open_in_memory()?;
    /// store.set("stock", "apples", "3")?;
    /// let done = store.transaction(|tx| {
    ///     let apples: u32 = tx.get("stock", "apples")?.and_then(|value| value.as_str()?.parse().ok()).unwrap_or(0);
    ///     tx.set("stock", "apples", (apples - 1).to_string())?;
    ///     tx.set("orders", "7", "1 apple")?;
    ///     Ok(apples - 1)
    /// })?;
    /// assert_eq!(done.value, 2);
    /// assert_eq!(store.entry("orders", "7")?.unwrap().revision, done.revision);
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// What the closure returns ([`Error::abort`](crate::Error::abort) makes one of anything); `Busy`, `Nested`,
    /// `Full`, `Closed`, `ReadOnly`, `Sealed`, `Corrupt`, `Io`, `UnknownOutcome`.
    pub fn transaction<T>(&self, mut f: impl FnMut(&Transaction<'_>) -> Result<T>) -> Result<Committed<T>> {
        let mut value = None;
        let mut run = |engine: &dyn Transact| {
            value = Some(f(&Transaction::new(engine, self.scope(), self.id()))?);
            Ok(())
        };
        let sealed = self.core().transact(&self.author, &mut run)?;
        match value {
            Some(value) => Ok(Committed { value, revision: sealed.revision }),
            None => Err(Reason::WorkerDied { what: "a transaction" }.into()),
        }
    }

    /// The value of a key, if it is there.
    ///
    /// # Errors
    ///
    /// `Closed`, `Io`, `Corrupt`.
    pub fn get(&self, group: &str, key: &str) -> Result<Option<Value>> {
        self.view().get(group, key)
    }

    /// The value of a key with its revisions and deadline, if it is there.
    ///
    /// # Errors
    ///
    /// As [`get`](Store::get).
    pub fn entry(&self, group: &str, key: &str) -> Result<Option<Entry>> {
        self.view().entry(group, key)
    }

    /// Whether a key is there.
    ///
    /// # Errors
    ///
    /// As [`get`](Store::get).
    pub fn contains(&self, group: &str, key: &str) -> Result<bool> {
        self.view().contains(group, key)
    }

    /// How long a key has left; none when it is not there, or does not expire.
    ///
    /// # Errors
    ///
    /// As [`get`](Store::get).
    pub fn remaining_ttl(&self, group: &str, key: &str) -> Result<Option<Duration>> {
        self.view().remaining_ttl(group, key)
    }

    /// How many keys a group holds, at constant cost.
    ///
    /// # Errors
    ///
    /// As [`get`](Store::get).
    pub fn count(&self, group: &str) -> Result<u64> {
        self.view().count(group)
    }

    /// How many keys all groups hold whose name starts so; costs what those groups are, not what they hold.
    ///
    /// # Errors
    ///
    /// As [`get`](Store::get).
    pub fn count_all(&self, group_prefix: &str) -> Result<u64> {
        self.view().count_all(group_prefix)
    }

    /// The names of all groups that start so, in byte order. A group is there while it holds a key.
    pub fn groups(&self, prefix: &str) -> Groups<'static> {
        self.lasting_view().groups(prefix)
    }

    /// The entries of a group, in the order of their keys, read in pages: what is written meanwhile may or may not
    /// be seen. [`snapshot`](Store::snapshot) gives entries of one moment.
    pub fn entries(&self, group: &str) -> Entries<'static> {
        self.lasting_view().entries(group)
    }

    /// Some entries of a group, in the order of their keys.
    pub fn entries_with(&self, group: &str, options: ListOptions) -> Entries<'static> {
        self.lasting_view().entries_with(group, options)
    }

    /// A page of a group: at most 256 entries or 1 MiB of them, all of one moment.
    ///
    /// # Errors
    ///
    /// As [`get`](Store::get).
    pub fn page(&self, group: &str, options: ListOptions) -> Result<Page> {
        self.view().page(group, options)
    }

    /// A page of a group without the values, however large they are: at most 256 keys, all of one moment.
    ///
    /// ```
    /// use watchkeep::{ListOptions, Store};
    /// let store = Store::open_in_memory()?;
    /// store.set("config", "theme", "dark")?;
    /// let page = store.keys_page("config", ListOptions::new())?;
    /// assert_eq!((page.keys[0].key.as_str(), page.keys[0].bytes), ("theme", 4));
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Store::get).
    pub fn keys_page(&self, group: &str, options: ListOptions) -> Result<KeyPage> {
        self.view().keys_page(group, options)
    }

    /// A page of the names of groups that start so: at most `limit` and 256, all of one moment.
    ///
    /// # Errors
    ///
    /// As [`get`](Store::get).
    pub fn groups_page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<GroupPage> {
        self.view().groups_page(prefix, after, limit)
    }

    /// Reads that all see one revision.
    ///
    /// # Errors
    ///
    /// As [`get`](Store::get).
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::new(&*self.core().engine, self.scope().clone())
    }

    /// The same store, seen through a namespace: groups get the prefix `namespace:`, and nothing outside of it can
    /// be read, counted, listed, watched or written. Events carry the names without the prefix.
    ///
    /// ```
    /// use watchkeep::Store;
    /// let store = Store::open_in_memory()?;
    /// let tenant = store.scoped("tenant-42")?;
    /// tenant.set("config", "theme", "dark")?;
    /// assert_eq!(store.get("tenant-42:config", "theme")?.unwrap(), "dark");
    /// assert_eq!(tenant.groups("").collect::<Result<Vec<_>, _>>()?, ["config"]);
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidName` unless it is letters, digits and hyphens, 1 to 128 of them; `InvalidArgument` when the handle is
    /// scoped already.
    pub fn scoped(&self, namespace: &str) -> Result<Store> {
        if let Some(name) = self.namespace() {
            return Err(Reason::ScopedTwice { name: name.to_owned() }.into());
        }
        let author = Author { scope: Scope::namespace(namespace)?, ..self.author.clone() };
        Ok(Store { life: self.life.clone(), author })
    }

    /// Where the store is, if it is in a cluster: what it was connected with.
    pub fn address(&self) -> Option<&str> {
        self.core().engine.address()
    }

    /// The namespace that this handle is scoped to.
    pub fn namespace(&self) -> Option<&str> {
        self.scope().name()
    }

    /// The same handle, whose writes bear this label, so that a reader can tell them, or skip its own.
    ///
    /// With one longer than [`MAX_LABEL`](crate::MAX_LABEL) bytes, every write is refused with kind `TooLarge`.
    #[must_use]
    pub fn with_origin(&self, label: impl Into<String>) -> Store {
        let author = Author { origin: Some(label.into().into()), ..self.author.clone() };
        Store { life: self.life.clone(), author }
    }

    /// Trims the change log: events before this revision go, whole transactions at a time; how many went. The newest
    /// transaction always stays.
    ///
    /// # Errors
    ///
    /// `Held` when a named consumer still needs some of them; `InvalidArgument` on a scoped handle; `Busy`, `Nested`,
    /// `Full`, `Closed`, `Io`.
    pub fn compact(&self, before: Revision) -> Result<u64> {
        self.compact_with(before, Force::No)
    }

    /// Trims the change log, if need be although a named consumer still needs what goes: it is told then.
    ///
    /// # Errors
    ///
    /// As [`compact`](Store::compact); `Held` only when it is not forced.
    pub fn compact_with(&self, before: Revision, force: Force) -> Result<u64> {
        self.refuse_scope("its log is compacted")?;
        let trimmed = self.core().engine.chores().ok_or(Reason::Remote)?.trim(before, force);
        self.core().hub.forget_pages();
        trimmed
    }

    /// Refuses what concerns more than a namespace.
    pub(super) fn refuse_scope(&self, what: &str) -> Result<()> {
        if self.scope().is_whole() {
            return Ok(());
        }
        let what = format!(
            "the store is one file, and {what} as a whole; do it through a handle that is not scoped"
        );
        Err(Reason::Invalid { what }.into())
    }

    /// Closes the store: waits for what is under way, ends every watcher after it has drained, and makes every later
    /// call, through whatever handle, fail with kind `Closed`. Closing twice does nothing. Inside a callback or the
    /// progress of a backup it is only asked for, and happens soon after; the backup is completed before.
    ///
    /// # Errors
    ///
    /// `Nested` inside a transaction's closure.
    pub fn close(&self) -> Result<()> {
        self.core().close()
    }

    /// Whether the store is closed, or closing.
    pub fn is_closed(&self) -> bool {
        self.core().is_closed()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.path())
            .field("namespace", &self.namespace())
            .field("origin", &self.author.origin)
            .finish_non_exhaustive()
    }
}
