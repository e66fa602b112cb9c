//! The ballast: a file beside the store that takes up room. A full disk lets SQLite not even delete; then the ballast
//! goes, and what frees room works again.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::types::limits::{BALLAST_BYTES, BALLAST_ROOM, MIN_FREE, SCARCE};

use super::place::{BALLAST, beside, folder_of, free, restrict_open};

/// The ballast of a store.
///
/// The disk is *tight* while the ballast is missing and finds no room: then nothing may grow, or whoever is busiest
/// would use up what was given back for deleting.
pub(super) struct Ballast {
    /// None when there is to be none.
    path: Option<PathBuf>,
    /// This handle makes it: it wrote, or gave the room back. Who only reads makes no file.
    ours: AtomicBool,
    tight: AtomicBool,
    /// There is so little room that the disk may soon be tight.
    scarce: AtomicBool,
}

impl Ballast {
    pub(super) fn of(store: &Path, wanted: bool) -> Ballast {
        let path = wanted.then(|| beside(store, BALLAST));
        let no = || AtomicBool::new(false);
        Ballast { path, ours: no(), tight: no(), scarce: no() }
    }

    pub(super) fn is_scarce(&self) -> bool {
        self.scarce.load(Ordering::Relaxed)
    }

    pub(super) fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Relaxed)
    }

    /// Gives the room back; whether there was something to give.
    pub(super) fn release(&self) -> bool {
        let Some(path) = &self.path else { return false };
        self.ours.store(true, Ordering::Relaxed);
        let released = fs::remove_file(path).is_ok();
        if !self.tight.swap(true, Ordering::Relaxed) || released {
            tracing::warn!(?path, released, "the disk is full: nothing is set until the ballast fits again");
        }
        released
    }

    /// Before a write: from the first one on the ballast is kept.
    pub(super) fn want(&self) {
        if !self.ours.load(Ordering::Relaxed) {
            self.ours.store(true, Ordering::Relaxed);
            self.keep();
        }
    }

    /// Sees how much room there is; where the ballast is ours to make, makes it if it is missing and there is room.
    pub(super) fn keep(&self) {
        let Some(path) = &self.path else { return };
        let scarce = free(folder_of(path)).is_some_and(|free| free < SCARCE);
        self.scarce.store(scarce, Ordering::Relaxed);
        let whole = path.symlink_metadata().is_ok_and(|file| file.len() >= BALLAST_BYTES);
        let room = if self.is_tight() { BALLAST_ROOM } else { BALLAST_BYTES + MIN_FREE };
        let fits = || free(folder_of(path)).is_none_or(|free| free >= room);
        let there = whole || fits() && (!self.ours.load(Ordering::Relaxed) || make(path));
        if self.tight.swap(!there, Ordering::Relaxed) && there {
            tracing::info!(?path, "the disk has room again");
        }
    }
}

/// Whether there is a ballast now, or at least room for it.
fn make(path: &Path) -> bool {
    // One that was not finished.
    let _ = fs::remove_file(path);
    let Err(error) = fill(path) else { return true };
    let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    // Another process may just be making it.
    if error.kind() != ErrorKind::AlreadyExists {
        let _ = fs::remove_file(path);
        tracing::debug!(?path, %error, "there is no ballast");
    }
    !full
}

fn fill(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    restrict_open(&file)?;
    // What cannot be compressed takes up room on every file system.
    let mut chunk = [0; 64 << 10];
    for _ in 0..BALLAST_BYTES / chunk.len() as u64 {
        fastrand::fill(&mut chunk);
        file.write_all(&chunk)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_given_back_and_made_again() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let store = folder.path().join("app.db");
        let (ballast, path) = (Ballast::of(&store, true), folder.path().join("app.db-ballast"));
        ballast.keep();
        assert!(!path.exists() && !ballast.is_tight(), "it is made before the first write");
        ballast.want();
        assert!(path.metadata()?.len() == BALLAST_BYTES && !ballast.is_tight());
        assert!(ballast.release() && ballast.is_tight() && !path.exists());
        assert!(!ballast.release());
        ballast.keep();
        assert!(path.exists() && !ballast.is_tight());
        fs::write(&path, "cut short")?;
        ballast.keep();
        assert_eq!(path.metadata()?.len(), BALLAST_BYTES);
        Ok(())
    }

    #[test]
    fn where_it_is_not_wanted_nothing_is_made_and_nothing_refused() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let ballast = Ballast::of(&folder.path().join("app.db"), false);
        ballast.want();
        assert!(!ballast.release() && !ballast.is_tight());
        assert_eq!(fs::read_dir(folder.path())?.count(), 0);
        Ok(())
    }
}
