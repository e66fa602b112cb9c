//! Which files this thread has a transaction open on: a write to one of them from inside the closure, through
//! whatever handle, would wait for itself.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::path::Path;

use crate::types::error::{Reason, Result};

/// What a file is, whatever path leads to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileKey(Key);

#[cfg(unix)]
type Key = (u64, u64);
#[cfg(not(unix))]
type Key = std::path::PathBuf;

impl FileKey {
    pub(super) fn of(path: &Path) -> Result<FileKey> {
        FileKey::read(path).map_err(|cause| {
            let what = format!("{path:?} cannot be looked at; check its permissions");
            Reason::Io { what, cause }.into()
        })
    }

    #[cfg(unix)]
    pub(super) fn read(path: &Path) -> std::io::Result<FileKey> {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::metadata(path)?;
        Ok(FileKey((file.dev(), file.ino())))
    }

    #[cfg(not(unix))]
    pub(super) fn read(path: &Path) -> std::io::Result<FileKey> {
        path.canonicalize().map(FileKey)
    }
}

/// A transaction that is open: of which file, if it has one, and whose turn.
type Open = (Option<FileKey>, usize);

thread_local! {
    /// It has no destructor: a store may be used and closed by the destructors that run when a thread ends. So what is
    /// empty must hold no memory.
    static OPEN: ManuallyDrop<RefCell<Vec<Open>>> =
        const { ManuallyDrop::new(RefCell::new(Vec::new())) };
}

/// Runs a transaction's closure; `turn` says whose. A store in memory has no file.
pub(super) fn inside<T>(file: Option<&FileKey>, turn: usize, f: impl FnOnce() -> T) -> T {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            OPEN.with(|open| {
                let mut open = open.borrow_mut();
                open.pop();
                if open.is_empty() {
                    *open = Vec::new();
                }
            });
        }
    }
    OPEN.with(|open| open.borrow_mut().push((file.cloned(), turn)));
    let _leave = Leave;
    f()
}

/// Refuses a write from inside a transaction on the same file.
pub(super) fn refuse(file: &FileKey) -> Result<()> {
    let nested = OPEN.with(|open| open.borrow().iter().any(|(known, _)| known.as_ref() == Some(file)));
    if nested { Err(Reason::Nested.into()) } else { Ok(()) }
}

/// Refuses to wait for a turn that this thread has. Another engine's, on the same file, may be waited for.
pub(super) fn refuse_turn(turn: usize) -> Result<()> {
    let held = OPEN.with(|open| open.borrow().iter().any(|(_, known)| *known == turn));
    if held { Err(Reason::Nested.into()) } else { Ok(()) }
}
