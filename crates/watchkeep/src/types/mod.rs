//! The words of watchkeep: plain data that does no I/O and knows no engine.

pub(crate) mod backup;
pub(crate) mod clock;
pub(crate) mod consumer;
pub(crate) mod entry;
pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod filter;
pub(crate) mod limits;
pub(crate) mod name;
pub(crate) mod options;
pub(crate) mod quota;
pub(crate) mod revision;
pub(crate) mod value;
pub(crate) mod watching;
pub(crate) mod writing;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whatever became of the thread that held the lock before: no code of a user runs under our locks, and
/// what they guard is changed in steps that stand by themselves.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
