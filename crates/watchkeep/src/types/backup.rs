//! Backups: how they are asked for, and what became of them.

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;

use super::revision::{Revision, StoreId};

/// How far a backup is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupProgress {
    /// What is copied.
    pub done: u64,
    /// What there is to copy.
    pub total: u64,
}

pub(crate) type OnProgress = Box<dyn FnMut(BackupProgress) -> ControlFlow<()> + Send>;

/// How a backup is made, or restored.
///
/// ```
/// use std::ops::ControlFlow;
/// use watchkeep::{BackupOptions, ErrorKind, Store};
/// # let folder = tempfile::tempdir()?;
/// let store = Store::open_in_memory()?;
/// let target = folder.path().join("backup.db");
///
/// let hurried = BackupOptions::new().on_progress(|_| ControlFlow::Break(()));
/// assert_eq!(store.backup_with(&target, hurried).unwrap_err().kind(), ErrorKind::Aborted);
/// assert!(!target.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct BackupOptions {
    pub(crate) on_progress: Option<OnProgress>,
    pub(crate) replace: bool,
}

impl BackupOptions {
    /// Without progress, and without replacing anything.
    pub fn new() -> BackupOptions {
        BackupOptions::default()
    }

    /// Called after every megabyte or so; it can also give up, and then the backup fails with kind
    /// [`Aborted`](crate::ErrorKind::Aborted) and leaves nothing behind.
    #[must_use]
    pub fn on_progress(
        mut self,
        f: impl FnMut(BackupProgress) -> ControlFlow<()> + Send + 'static,
    ) -> BackupOptions {
        self.on_progress = Some(Box::new(f));
        self
    }

    /// Of [`Store::restore`](crate::Store::restore) only: whether a store that is there already is put aside and
    /// replaced. False unless set.
    #[must_use]
    pub fn replace(mut self, replace: bool) -> BackupOptions {
        self.replace = replace;
        self
    }

    pub(crate) fn report(&mut self, done: u64, total: u64) -> ControlFlow<()> {
        self.on_progress.as_mut().map_or(ControlFlow::Continue(()), |f| f(BackupProgress { done, total }))
    }
}

impl fmt::Debug for BackupOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupOptions").field("replace", &self.replace).finish_non_exhaustive()
    }
}

/// What a backup or a restored store is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backup {
    /// The identity of the copy, never that of the original.
    pub store: StoreId,
    /// The last revision in it: it holds everything up to there, and nothing after it.
    pub revision: Revision,
    /// Its size in bytes.
    pub bytes: u64,
    /// Where the store went that was there before.
    pub replaced: Option<PathBuf>,
}
