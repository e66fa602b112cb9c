//! The driver of this process. A forked child has a copy of its parent's, and none of its threads: whatever lock one of
//! them held is held for ever there. So each process has a place of its own, found without a lock, and leaves those of
//! its ancestors alone.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::types::sync::thread_local;

use super::crew::{Driver, Size};
use super::signal::Signal;

struct Place {
    /// Whose it is; nobody's while zero.
    process: AtomicU32,
    driver: Mutex<Weak<Driver>>,
}

/// As many as a process has ancestors that had stores open; past that, each store has a driver of its own.
static PLACES: [Place; 16] =
    [const { Place { process: AtomicU32::new(0), driver: Mutex::new(Weak::new()) } }; 16];

fn place(process: u32) -> Option<&'static Place> {
    PLACES.iter().find(|place| {
        let claimed = place.process.compare_exchange(0, process, Ordering::AcqRel, Ordering::Acquire);
        claimed.is_ok() || claimed == Err(process)
    })
}

/// A store comes to the driver of this process.
pub(crate) fn of_this_process() -> std::io::Result<Arc<Signal>> {
    let Some(place) = place(std::process::id()) else { return fresh(|_| {}) };
    let mut driver = place.driver.lock().unwrap_or_else(PoisonError::into_inner);
    // With its last store it ends.
    if let Some(signal) = driver.upgrade().and_then(|driver| driver.enter().transpose()) {
        return signal;
    }
    fresh(|fresh| *driver = Arc::downgrade(fresh))
}

fn fresh(keep: impl FnOnce(&Arc<Driver>)) -> std::io::Result<Arc<Signal>> {
    let driver = Driver::new(Size::default())?;
    let signal = driver.enter()?;
    keep(&driver);
    signal.ok_or_else(|| std::io::Error::other("a driver ended before it began"))
}

thread_local! {
    /// The process in which this thread is one of a driver's.
    static OWN: Cell<u32> = const { Cell::new(0) };
}

/// The calling thread is one of a driver's from now on.
pub(super) fn become_own() {
    OWN.with(|own| own.set(std::process::id()));
}

/// Whether the calling thread is one of a driver's; not in a child that was forked there.
pub(super) fn on_own_thread() -> bool {
    OWN.with(Cell::get) == std::process::id()
}

/// Runs something while the lock of this process's place is held.
#[cfg(all(test, unix, not(any(loom, shuttle))))]
pub(super) fn while_held<T>(f: impl FnOnce() -> T) -> Option<T> {
    let place = place(std::process::id())?;
    let held = place.driver.lock().unwrap_or_else(PoisonError::into_inner);
    let done = f();
    drop(held);
    Some(done)
}
