//! Which files a process inherited open. SQLite keeps its locks in tables of the process, which a forked child has a copy
//! of: a connection that it makes to a file that its parent had open takes itself for one of the parent's, locks nothing,
//! and loses what it writes.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::engine::nesting::FileKey;
use crate::types::error::{Reason, Result};

use super::connection::nap;

/// Each open store's file, and the process that opened it.
static OPEN: Mutex<Vec<(FileKey, u32)>> = Mutex::new(Vec::new());

/// The process that had the first store open; nobody's while zero.
static FIRST: AtomicU32 = AtomicU32::new(0);

/// How often a child that was forked tries a lock that is held for no longer than a push. Where it is held for good, it was
/// held when the process was forked, and nobody will ever say that it is free.
const TRIES: u32 = 1_000;

fn open() -> Option<MutexGuard<'static, Vec<(FileKey, u32)>>> {
    let own = std::process::id();
    let first = FIRST.compare_exchange(0, own, Ordering::AcqRel, Ordering::Acquire);
    if first.is_ok() || first == Err(own) {
        return Some(OPEN.lock().unwrap_or_else(PoisonError::into_inner));
    }
    for _ in 0..TRIES {
        match OPEN.try_lock() {
            Ok(open) => return Some(open),
            Err(TryLockError::Poisoned(open)) => return Some(open.into_inner()),
            Err(TryLockError::WouldBlock) => nap(Duration::from_millis(1)),
        }
    }
    None
}

/// A file that this process has open.
#[derive(Debug)]
pub(super) struct Opened(FileKey, u32);

impl Opened {
    /// Refuses a file that was open when this process was forked.
    pub(super) fn refuse_inherited(path: &Path, file: &FileKey) -> Result<()> {
        let own = std::process::id();
        let is_inherited =
            |open: &Vec<(FileKey, u32)>| open.iter().any(|(key, of)| key == file && *of != own);
        match open() {
            Some(open) if !is_inherited(&open) => Ok(()),
            _ => Err(Reason::Inherited { path: path.to_owned() }.into()),
        }
    }

    pub(super) fn note(file: FileKey) -> Opened {
        let own = std::process::id();
        if let Some(mut open) = open() {
            open.push((file.clone(), own));
        }
        Opened(file, own)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // What is dropped in a child stays open in the process that it is a copy of, and in SQLite's tables here.
        if self.1 != std::process::id() {
            return;
        }
        if let Some(mut open) = open()
            && let Some(place) = open.iter().position(|(key, of)| (key, *of) == (&self.0, self.1))
        {
            open.swap_remove(place);
        }
    }
}
