//! The wake file: a few bytes beside the store that every process writes after its commits, so that the others, who
//! watch it, look at the log at once. It carries no truth: what it says is not read, and without it each process
//! looks now and then by itself.
//!
//! A lock on it tells whether others have the store open: the last to leave removes it.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::driver::Signal;
use crate::types::error::{Reason, Result};
use crate::types::revision::Revision;
use crate::types::sync::{Mutex, lock};

use super::connection::{OPENING, nap};
use crate::engine::nesting::FileKey;

/// Beside a store, `app.db-wake`.
pub(super) struct Wake {
    path: PathBuf,
    store: PathBuf,
    file: Mutex<Option<Bound>>,
    signal: Arc<Signal>,
    /// Commits of other processes are signalled.
    listens: AtomicBool,
    has_left: AtomicBool,
}

/// The file as it was opened: it may be deleted, or another put in its place.
struct Bound {
    file: File,
    key: FileKey,
}

impl Wake {
    pub(super) fn new(store: &Path, signal: Arc<Signal>) -> Wake {
        let mut path = store.to_owned().into_os_string();
        path.push("-wake");
        let wake = Wake {
            path: path.into(),
            store: store.to_owned(),
            file: Mutex::new(None),
            signal,
            listens: AtomicBool::new(false),
            has_left: AtomicBool::new(false),
        };
        wake.bind(&mut lock(&wake.file), false);
        wake
    }

    /// Wakes the other processes: everything up to a revision can be read.
    pub(super) fn announce(&self, last: Revision) {
        let mut file = lock(&self.file);
        let failed = file.as_ref().and_then(|bound| write(&bound.file, last).err());
        if let Some(error) = failed {
            tracing::debug!(%error, "the wake file could not be written; others will find the commit by themselves");
            *file = None;
        }
    }

    /// Puts the file back when it is gone, and listens to the next that is written to the one that is there; whether that
    /// works. Whoever reads the store after this misses nothing.
    pub(super) fn tend(&self) -> bool {
        let mut file = lock(&self.file);
        let there = FileKey::read(&self.path).ok();
        let has_left = self.has_left.load(Ordering::Relaxed);
        if !has_left && (there.is_none() || there != file.as_ref().map(|bound| bound.key.clone())) {
            self.bind(&mut file, true);
        } else if file.is_some() {
            self.listens.store(self.signal.listen(&self.path, false), Ordering::Relaxed);
        }
        self.listens()
    }

    /// Opens the file; `again` when this process had it open and so is among those who have the store open.
    fn bind(&self, file: &mut Option<Bound>, again: bool) {
        let bound = open(&self.path, &self.store)
            .and_then(|file| Ok(Bound { key: FileKey::read(&self.path)?, file }));
        let listens = match bound {
            Ok(bound) => {
                if again && let Err(error) = bound.file.try_lock_shared() {
                    tracing::debug!(%error, "the wake file cannot be locked");
                }
                *file = Some(bound);
                self.signal.listen(&self.path, true)
            }
            Err(error) => {
                tracing::debug!(%error, path = ?self.path, "there is no wake file; commits of others are polled for");
                *file = None;
                false
            }
        };
        self.listens.store(listens, Ordering::Relaxed);
    }

    /// Enters among those who have the store open: while they are there, nobody takes the file along.
    pub(super) fn enter(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let mut file = lock(&self.file);
            let Some(bound) = &*file else { return Ok(()) };
            let entered = match bound.file.try_lock_shared() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(error)) => {
                    tracing::debug!(%error, "the wake file cannot be locked");
                    return Ok(());
                }
            };
            // Whoever closed as the last removed it meanwhile: a lock on what is gone keeps nothing.
            if FileKey::read(&self.path).ok().as_ref() != Some(&bound.key) {
                self.bind(&mut file, false);
            } else if entered {
                return Ok(());
            }
            drop(file);
            // Somebody is leaving as the last: that is short.
            if start.elapsed() > OPENING {
                return Err(Reason::Busy { waited: start.elapsed() }.into());
            }
            nap(Duration::from_millis(1));
        }
    }

    /// Leaves; the last takes the file along.
    pub(super) fn leave(&self) {
        let mut file = lock(&self.file);
        let is_last = |bound: &Bound| {
            bound.file.try_lock().is_ok() && FileKey::read(&self.path).ok().as_ref() == Some(&bound.key)
        };
        if file.as_ref().is_some_and(is_last) {
            // What stays is in nobody's way.
            let _ = std::fs::remove_file(&self.path);
        }
        self.has_left.store(true, Ordering::Relaxed);
        *file = None;
    }

    pub(super) fn listens(&self) -> bool {
        self.listens.load(Ordering::Relaxed)
    }
}

#[cfg(unix)]
fn write(file: &File, last: Revision) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    file.write_all_at(&last.get().to_le_bytes(), 0)
}

#[cfg(not(unix))]
fn write(mut file: &File, last: Revision) -> std::io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&last.get().to_le_bytes())
}

/// Opens or makes the file, with the rights of the store's own, as SQLite does with its companions.
#[cfg(unix)]
fn open(path: &Path, store: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

    use rustix::fs::{Mode, OFlags};
    let like = std::fs::metadata(store)?;
    // Whoever may write in the folder could have put a link or a pipe here.
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => {
            let file = rustix::fs::open(path, flags | OFlags::CREATE, Mode::RUSR | Mode::WUSR)?;
            let file = File::from(file);
            file.set_permissions(PermissionsExt::from_mode(like.mode() & 0o666))?;
            if file.metadata()?.uid() != like.uid() {
                // Only root may; whoever is not keeps it.
                let _ = fchown(&file, Some(like.uid()), Some(like.gid()));
            }
            file
        }
        Err(error) => return Err(error.into()),
    };
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file"))
    }
}

#[cfg(not(unix))]
fn open(path: &Path, _: &Path) -> std::io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}
