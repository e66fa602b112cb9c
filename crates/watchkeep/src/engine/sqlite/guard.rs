//! Whether an open store still stands on the files that it opened, in the process that opened them. Found out by `stat`
//! alone: nothing but SQLite opens them. Only a write-ahead log that is put aside is opened for a lock, which SQLite
//! never takes on it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use crate::types::error::{Error, Reason, Result};
use crate::types::limits::{GUARD_EVERY, TOUCH_GRAIN};
use crate::types::sync::{Mutex, lock};

use super::place::{self, INDEX, WAL, beside};
use crate::engine::nesting::FileKey;

/// The files of an open store, as they were when it was opened. The write-ahead log and its index stay the same files
/// for as long as anybody has the store open.
pub(super) struct Guard {
    process: u32,
    file: Known,
    wal: Known,
    index: Known,
    began: Instant,
    /// When a writer last had a look, in microseconds after `began`.
    looked: AtomicU64,
    /// Why the store may not be used any more.
    lost: OnceLock<Error>,
    seen: Mutex<Seen>,
}

/// What tells that a file was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: SystemTime,
    pub(super) length: u64,
}

impl Stamp {
    pub(super) fn of(path: &Path) -> Option<Stamp> {
        let file = std::fs::metadata(path).ok()?;
        Some(Stamp { modified: file.modified().ok()?, length: file.len() })
    }
}

/// The file and its log, as they were seen when they were last read.
struct Seen {
    stamps: [Option<Stamp>; 2],
    /// Since when they look like this.
    since: Instant,
    read: Instant,
}

/// What became of a file that is the same one, and holds another store.
pub(super) const OVERWRITTEN: &str = "overwritten";

struct Known {
    path: PathBuf,
    key: FileKey,
}

impl Known {
    fn of(path: PathBuf) -> Result<Known> {
        Ok(Known { key: FileKey::of(&path)?, path })
    }

    /// What became of the file. What cannot be looked at is not said to be lost.
    fn lost(&self) -> Option<Reason> {
        let what = match FileKey::read(&self.path) {
            Ok(key) if key == self.key => return None,
            Ok(_) => "replaced",
            Err(error) if error.kind() == io::ErrorKind::NotFound => "removed",
            Err(_) => return None,
        };
        Some(Reason::Replaced { path: self.path.clone(), what })
    }
}

impl Guard {
    /// Of a store that is just opened, with all its companions there. `file` is what was found at the path before.
    pub(super) fn of(path: &Path, file: FileKey) -> Result<Guard> {
        Ok(Guard {
            process: std::process::id(),
            file: Known { path: path.to_owned(), key: file },
            wal: Known::of(beside(path, WAL))?,
            index: Known::of(beside(path, INDEX))?,
            began: Instant::now(),
            looked: AtomicU64::new(0),
            lost: OnceLock::new(),
            seen: Mutex::new(Seen { stamps: [None; 2], since: Instant::now(), read: Instant::now() }),
        })
    }

    /// Refuses what is known to be lost, and a process that inherited the store by forking, without looking.
    pub(super) fn known(&self) -> Result<()> {
        if self.is_forked() {
            return Err(Reason::Forked.into());
        }
        self.lost.get().map_or(Ok(()), |lost| Err(lost.clone()))
    }

    pub(super) fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    /// Refuses a connection that was opened on another file than ours.
    pub(super) fn same_file(&self) -> Result<()> {
        self.file.lost().map_or(Ok(()), |lost| Err(self.lose(lost)))
    }

    /// Looks at all files; what became of one of them.
    pub(super) fn look(&self) -> Option<Reason> {
        [&self.file, &self.wal, &self.index].into_iter().find_map(Known::lost)
    }

    /// Whether neither the file nor its log has been written since it was last read: whoever reads asks this before. A
    /// time that is just fresh says nothing, since it moves in steps.
    pub(super) fn is_untouched(&self) -> bool {
        let stamps = [&self.file, &self.wal].map(|known| Stamp::of(&known.path));
        let now = Instant::now();
        let mut seen = lock(&self.seen);
        let is_same = stamps.iter().all(Option::is_some) && seen.stamps == stamps;
        if is_same && seen.read > seen.since + TOUCH_GRAIN {
            return true;
        }
        if !is_same {
            *seen = Seen { stamps, since: now, read: now };
        }
        seen.read = now;
        false
    }

    /// Whether the files are known to be lost, or are now. Before the store lets go of them only: afterwards their
    /// companions may go.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.get().is_some() || self.look().is_some()
    }

    /// When another file has taken the place of ours: puts the write-ahead log of ours aside, and removes its index. SQLite
    /// would take them for those of the other file, and damage it.
    ///
    /// Whoever has our file open besides goes on with what it has open, and is refused by its own guard.
    pub(super) fn clear_the_way(&self) {
        if let Err(error) = self.try_clear_the_way() {
            let path = &self.wal.path;
            tracing::error!(%error, ?path, "the log of a replaced store could not be put aside; move it away");
        }
    }

    fn try_clear_the_way(&self) -> Result<()> {
        let failed = |cause| place::io_failed(&self.wal.path, cause);
        let wal = match File::open(&self.wal.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            wal => wal.map_err(failed)?,
        };
        // Others who had our file open may be at it, too. Once it is aside, what lies there is the other file's.
        wal.lock().map_err(failed)?;
        if self.is_succeeded() && self.wal.lost().is_none() {
            let aside = place::put_aside(&self.wal.path)?;
            tracing::warn!(?aside, "the log of a replaced store was put aside");
            if self.index.lost().is_none() {
                std::fs::remove_file(&self.index.path).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Whether what lies at our path is another store.
    fn is_succeeded(&self) -> bool {
        let overwritten = || {
            let lost = self.lost.get().map(Error::reason);
            matches!(lost, Some(Reason::Replaced { path, what: OVERWRITTEN }) if *path == self.file.path)
        };
        FileKey::read(&self.file.path).is_ok_and(|key| key != self.file.key || overwritten())
    }

    /// Whether it is time for a writer to look.
    pub(super) fn is_due(&self) -> bool {
        let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let now = micros(self.began.elapsed());
        let due = now.saturating_sub(self.looked.load(Ordering::Relaxed)) >= micros(GUARD_EVERY);
        if due {
            self.looked.store(now, Ordering::Relaxed);
        }
        due
    }

    /// From here on the store refuses everything.
    pub(super) fn lose(&self, lost: Reason) -> Error {
        let mut first = false;
        let error = self.lost.get_or_init(|| {
            first = true;
            lost.into()
        });
        if first {
            tracing::error!(%error, "the store lost its files; nothing more is read or written through it");
        }
        error.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::error::ErrorKind;

    fn guard(path: &Path) -> Result<Guard> {
        for suffix in ["", WAL, INDEX] {
            std::fs::write(beside(path, suffix), suffix)
                .map_err(|cause| Reason::Io { what: String::new(), cause })?;
        }
        Guard::of(path, FileKey::of(path)?)
    }

    #[test]
    fn another_process_is_refused() -> Result<()> {
        let folder = tempfile::tempdir().map_err(|cause| Reason::Io { what: String::new(), cause })?;
        let mut guard = guard(&folder.path().join("app.db"))?;
        guard.known()?;
        // As in the child of a fork, whose number is another.
        guard.process += 1;
        assert_eq!(guard.known().map_err(|error| error.kind()), Err(ErrorKind::Closed));
        Ok(())
    }

    #[test]
    fn each_file_that_goes_is_noticed_and_stays_noticed()
    -> std::result::Result<(), Box<dyn std::error::Error>> {
        for suffix in ["", WAL, INDEX] {
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("app.db");
            let guard = guard(&path)?;
            assert!(guard.look().is_none());
            let victim = beside(&path, suffix);
            std::fs::rename(&victim, folder.path().join("away"))?;
            let lost = guard.look().ok_or("nothing was noticed")?;
            assert!(lost.to_string().contains("removed"), "{lost}");
            std::fs::write(&victim, "another")?;
            let lost = guard.look().ok_or("nothing was noticed")?;
            assert!(lost.to_string().contains("replaced"), "{lost}");
            assert_eq!(guard.lose(lost).kind(), ErrorKind::Replaced);
            assert_eq!(guard.known().map_err(|error| error.kind()), Err(ErrorKind::Replaced));
        }
        Ok(())
    }

    #[test]
    fn a_log_is_put_aside_when_another_file_has_the_place_of_its_own()
    -> std::result::Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("app.db");
        let (wal, aside) = (beside(&path, WAL), beside(&path, "-wal-replaced"));
        let guard = guard(&path)?;
        // As long as nothing lies there, whoever moves the store moves its log, too.
        std::fs::rename(&path, folder.path().join("away"))?;
        guard.clear_the_way();
        assert!(wal.exists() && !aside.exists());
        std::fs::write(&path, "another")?;
        guard.clear_the_way();
        assert!(!wal.exists() && !beside(&path, INDEX).exists());
        assert_eq!(std::fs::read_to_string(&aside)?, WAL);
        // The log of the other file.
        std::fs::write(&wal, "another's")?;
        guard.clear_the_way();
        assert_eq!(std::fs::read_to_string(&wal)?, "another's");
        Ok(())
    }

    #[test]
    fn a_log_stays_beside_its_own_file_until_that_is_overwritten()
    -> std::result::Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("app.db");
        let guard = guard(&path)?;
        guard.clear_the_way();
        assert!(beside(&path, WAL).exists());
        guard.lose(Reason::Replaced { path: path.clone(), what: OVERWRITTEN });
        guard.clear_the_way();
        assert!(!beside(&path, WAL).exists());
        Ok(())
    }

    #[test]
    fn a_writer_looks_now_and_then() -> Result<()> {
        let folder = tempfile::tempdir().map_err(|cause| Reason::Io { what: String::new(), cause })?;
        let guard = guard(&folder.path().join("app.db"))?;
        guard.looked.store(u64::MAX, Ordering::Relaxed);
        assert!(!guard.is_due());
        Ok(())
    }
}
