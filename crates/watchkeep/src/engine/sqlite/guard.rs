//! Whether an open store still stands on the files that it opened, in the process that opened them. Found out by `stat`
//! alone: nothing but SQLite opens them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::types::error::{Error, Reason, Result};
use crate::types::limits::GUARD_EVERY;

use super::nesting::FileKey;
use super::place::{INDEX, WAL, beside};

/// The files of an open store, as they were when it was opened. The write-ahead log and its index stay the same files
/// for as long as anybody has the store open.
pub(super) struct Guard {
    process: u32,
    file: Known,
    companions: Vec<Known>,
    began: Instant,
    /// When a writer last had a look, in microseconds after `began`.
    looked: AtomicU64,
    /// Why the store may not be used any more.
    lost: OnceLock<Error>,
}

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
        let companions = [WAL, INDEX].map(|suffix| Known::of(beside(path, suffix)));
        Ok(Guard {
            process: std::process::id(),
            file: Known { path: path.to_owned(), key: file },
            companions: companions.into_iter().collect::<Result<_>>()?,
            began: Instant::now(),
            looked: AtomicU64::new(0),
            lost: OnceLock::new(),
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
        self.file.lost().or_else(|| self.companions.iter().find_map(Known::lost))
    }

    /// Whether the files are known to be lost, or are now. Before the store lets go of them only: afterwards their
    /// companions may go.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.get().is_some() || self.look().is_some()
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
    fn a_writer_looks_now_and_then() -> Result<()> {
        let folder = tempfile::tempdir().map_err(|cause| Reason::Io { what: String::new(), cause })?;
        let guard = guard(&folder.path().join("app.db"))?;
        guard.looked.store(u64::MAX, Ordering::Relaxed);
        assert!(!guard.is_due());
        Ok(())
    }
}
