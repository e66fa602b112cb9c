//! What can be said about a store as a whole.

use std::path::{Path, PathBuf};

use crate::engine::{File, Query, Survey, Whole};
use crate::types::clock::Timestamp;
use crate::types::consumer::ConsumerInfo;
use crate::types::counters::Counters;
use crate::types::error::{Reason, Result};
use crate::types::options::{Durability, Retention, Waking};
use crate::types::quota::Quota;
use crate::types::revision::{Revision, StoreId};

use super::handle::Store;

/// Counts and sizes, of the handle's namespace where it has one; the log and the file are the whole store's.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The store's identity.
    pub store: StoreId,
    /// The file.
    pub path: Option<PathBuf>,
    /// The cluster, as it was connected to.
    pub address: Option<String>,
    /// What the member of the cluster runs that was asked first, as in `etcd 3.5.28`, if it said so.
    pub server: Option<String>,
    /// The namespace that the handle is scoped to.
    pub namespace: Option<String>,
    /// The file's durability.
    pub durability: Durability,
    /// How much of the past the log keeps.
    pub retention: Retention,
    /// Entries that are not due.
    pub entries: u64,
    /// Groups, those with due entries only included.
    pub groups: u64,
    /// Bytes of keys and values, of due entries too.
    pub bytes: u64,
    /// What the namespace may hold; none where nothing limits it.
    pub quota: Option<Quota>,
    /// The last revision.
    pub last_revision: Revision,
    /// The oldest revision in the log.
    pub first_revision: Revision,
    /// Events in the log.
    pub log_events: u64,
    /// Bytes of names and values in the log.
    pub log_bytes: u64,
    /// How this process hears of what others commit.
    pub waking: Waking,
    /// When the next entry expires.
    pub next_deadline: Option<Timestamp>,
    /// Named consumers, with their positions and holders.
    pub consumers: Vec<ConsumerInfo>,
    /// Watchers of this process, held consumers included.
    pub watchers: u64,
    /// Callbacks of this process.
    pub callbacks: u64,
    /// The file's size in bytes.
    pub file_bytes: u64,
    /// The size of its write-ahead log in bytes.
    pub wal_bytes: u64,
    /// The version of SQLite that is built in.
    pub sqlite_version: &'static str,
}

/// What [`Store::check`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// What is wrong, a sentence each; empty when nothing is.
    pub problems: Vec<String>,
    /// How many entries were looked at.
    pub entries: u64,
    /// How many groups were looked at.
    pub groups: u64,
    /// How many events of the log were looked at.
    pub events: u64,
    /// The version of SQLite that looked.
    pub sqlite_version: &'static str,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

impl Store {
    /// What has happened since this process opened the store: how much was committed and delivered, and how often
    /// watchers fell behind. It reads numbers in memory, and never the file.
    ///
    /// ```
    /// use watchkeep::Store;
    /// let store = Store::open_in_memory()?;
    /// store.set("config", "theme", "dark")?;
    /// assert_eq!(store.counters().events, 1);
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    pub fn counters(&self) -> Counters {
        self.core().hub.counters()
    }

    /// Counts and sizes.
    ///
    /// # Errors
    ///
    /// `Closed`, `Io`, `Corrupt`.
    pub fn stats(&self) -> Result<Stats> {
        let survey: Box<Survey> = self.survey().ask(&*self.core().engine)?;
        Ok(self.told(*survey))
    }

    /// What asks for them.
    pub(super) fn survey(&self) -> Query<'static> {
        let namespace = self.namespace().map(|namespace| namespace.to_owned().into());
        Query::Survey { names: self.scope().groups(""), namespace }
    }

    /// Together with what this process knows.
    pub(super) fn told(&self, survey: Survey) -> Stats {
        let core = self.core();
        let Survey { totals, quota, consumers, retention } = survey;
        let file = core.engine.file();
        let (file_bytes, wal_bytes) = file.map_or((0, 0), File::sizes);
        Stats {
            store: self.id(),
            address: core.engine.address().map(str::to_owned),
            server: core.engine.server().map(|version| format!("etcd {version}")),
            path: self.path().map(Path::to_path_buf),
            namespace: self.namespace().map(str::to_owned),
            durability: self.durability(),
            retention,
            entries: totals.entries,
            groups: totals.groups,
            bytes: totals.bytes,
            quota,
            last_revision: totals.last,
            first_revision: totals.first,
            log_events: totals.log_events,
            log_bytes: totals.log_bytes,
            waking: file.map_or(Waking::Alone, File::waking),
            next_deadline: totals.next_deadline,
            consumers: self.known(consumers),
            watchers: core.hub.watchers(),
            callbacks: core.hub.callback_count(),
            file_bytes,
            wal_bytes,
            sqlite_version: rusqlite::version(),
        }
    }

    /// What is done with the store as a whole.
    pub(super) fn whole(&self) -> Result<&dyn Whole> {
        self.core().engine.whole().ok_or_else(|| Reason::Remote.into())
    }

    /// Looks the whole file over: SQLite's own check, every row of the log against its checksum, the counters
    /// against the entries, and the entries against the log. Reads everything, from one moment; writers go on.
    ///
    /// # Errors
    ///
    /// `Closed`, `Io`. Damage is in the report, unless nothing can be read at all.
    pub fn check(&self) -> Result<CheckReport> {
        let (problems, [entries, groups, events]) = self.whole()?.check()?;
        Ok(CheckReport { problems, entries, groups, events, sqlite_version: rusqlite::version() })
    }

    /// Rebuilds the counters of groups and namespaces from the entries, in one transaction; what was changed, a
    /// sentence each. Where the table of epochs is damaged it begins anew, and no cursor that was given is good any more.
    /// Nothing else is ever repaired: damage of the log or of an entry stays as it is, for
    /// [`check`](Store::check) to tell and a [backup](Store::backup) to heal.
    ///
    /// ```
    /// use watchkeep::Store;
    /// let store = Store::open_in_memory()?;
    /// store.set("config", "theme", "dark")?;
    /// assert!(store.repair_counters()?.is_empty());
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidArgument` on a scoped handle; `Corrupt` when SQLite's own check finds damage, and then nothing is
    /// changed; `Busy`, `Nested`, `Full`, `Closed`, `Io`.
    pub fn repair_counters(&self) -> Result<Vec<String>> {
        self.refuse_scope("its counters are repaired")?;
        self.whole()?.repair()
    }
}
