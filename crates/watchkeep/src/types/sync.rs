//! What threads meet at: the standard library's, or that of a model checker, which decides who goes on at every one
//! of these and so explores the interleavings. The checkers are built with `--cfg loom` or `--cfg shuttle`, never for
//! users.

use std::sync::PoisonError;
use std::task::Waker;

#[cfg(not(any(loom, shuttle)))]
mod chosen {
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
    pub(crate) use std::{thread, thread_local};
}

/// Its threads are those of the models: what starts threads itself is explored by the other one.
#[cfg(loom)]
mod chosen {
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, atomic};
    pub(crate) use std::{thread, thread_local};
}

#[cfg(shuttle)]
mod chosen {
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard, atomic};
    pub(crate) use shuttle::{thread, thread_local};
}

pub(crate) use chosen::*;

/// Locks, whatever became of the thread that held the lock before: no code of a user runs under our locks, and
/// what they guard is changed in steps that stand by themselves.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes a task of a user's runtime. A waker that panics must not keep others from being woken.
pub(crate) fn wake(waker: Waker) {
    if caught(|| waker.wake()).is_none() {
        tracing::error!("waking a task panicked; the store goes on");
    }
}

/// What a function returns; none when it panicked.
#[cfg(not(any(loom, shuttle)))]
pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).ok()
}

/// The checkers unwind threads that they abandon.
#[cfg(any(loom, shuttle))]
pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> Option<T> {
    Some(f())
}
