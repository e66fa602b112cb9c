//! Backups of a store, and stores from backups.

use std::path::Path;

use crate::engine::sqlite;
use crate::types::backup::{Backup, BackupOptions};
use crate::types::error::Result;
use crate::types::sync::lock;
use crate::types::sync::thread::{ThreadId, current};

use super::core::Core;
use super::handle::Store;

impl Store {
    /// Copies the whole store into a new file while writers go on: everything up to one revision, the log and the
    /// retention included, and in an [adopted](crate::Options::adopt) file what belongs to others, too.
    ///
    /// The copy has a new identity, so it refuses cursors of this store. It is made under another name beside the
    /// target, synced, and then renamed: under the target's name there is a whole backup or nothing.
    /// While it is made the write-ahead log grows by what is written.
    ///
    /// ```
    /// use watchkeep::{ErrorKind, Filter, Store, WatchOptions};
    /// # let folder = tempfile::tempdir()?;
    /// # let target = folder.path().join("backup.db");
    /// let store = Store::open_in_memory()?;
    /// let cursor = store.cursor(store.set("config", "theme", "dark")?);
    /// let backup = store.backup(&target)?;
    /// assert_eq!(backup.revision, cursor.revision());
    ///
    /// let copy = Store::open(&target)?;
    /// assert_eq!(copy.get("config", "theme")?.unwrap(), "dark");
    /// let refused = copy.watch_with(Filter::everything(), WatchOptions::new().after_cursor(cursor));
    /// assert_eq!(refused.unwrap_err().kind(), ErrorKind::ForeignCursor);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when something has the target's name already, and on a scoped handle; `NotFound` when its
    /// folder is missing; `Full` when there is no room for it; `ReadOnly` when nothing can be written there; `Aborted`
    /// by its progress; `Corrupt`, `Closed`, `Io`.
    pub fn backup(&self, target: impl AsRef<Path>) -> Result<Backup> {
        self.backup_with(target, BackupOptions::new())
    }

    /// A [`backup`](Store::backup) that tells how far it is, and can be given up. The progress may use the store; a
    /// [`close`](Store::close) in it takes place when the backup is complete.
    ///
    /// # Errors
    ///
    /// As [`backup`](Store::backup).
    pub fn backup_with(&self, target: impl AsRef<Path>, mut options: BackupOptions) -> Result<Backup> {
        self.refuse_scope("it is backed up")?;
        let core = self.core();
        let _here = Here::enter(core);
        self.whole()?.backup(target.as_ref(), &mut options)
    }

    /// Makes a store of a backup, or of any file of a store: looks it over, then copies it to the store's place, each
    /// time under a new identity. The backup itself is only read.
    ///
    /// A store that is there already is replaced only if [asked for](BackupOptions::replace), and only while no
    /// process has it open; it is kept beside the new one, and [`Backup::replaced`] says where.
    ///
    /// ```
    /// use watchkeep::{BackupOptions, Store};
    /// # let folder = tempfile::tempdir()?;
    /// # let (backup, path) = (folder.path().join("backup.db"), folder.path().join("app.db"));
    /// let store = Store::open_in_memory()?;
    /// store.set("config", "theme", "dark")?;
    /// store.backup(&backup)?;
    ///
    /// Store::restore(&backup, &path, BackupOptions::new())?;
    /// assert_eq!(Store::open(&path)?.get("config", "theme")?.unwrap(), "dark");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `NotFound` and `ForeignFile` when there is no backup there, `Corrupt` when it is not sound; `InvalidArgument`
    /// when a store is there already, `Busy` when it is to be replaced and is open; otherwise as
    /// [`backup`](Store::backup). After an error the store that was there is there.
    pub fn restore(
        backup: impl AsRef<Path>,
        path: impl AsRef<Path>,
        options: BackupOptions,
    ) -> Result<Backup> {
        sqlite::restore(backup.as_ref(), path.as_ref(), options)
    }
}

/// This thread makes a backup.
struct Here<'c>(&'c Core, ThreadId);

impl Here<'_> {
    fn enter(core: &Core) -> Here<'_> {
        let here = current().id();
        lock(&core.backing_up).push(here);
        Here(core, here)
    }
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        let mut threads = lock(&self.0.backing_up);
        if let Some(place) = threads.iter().position(|thread| *thread == self.1) {
            threads.swap_remove(place);
        }
    }
}
