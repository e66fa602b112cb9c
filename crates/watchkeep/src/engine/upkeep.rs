//! When a store is looked after.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::types::limits::UPKEEP;
use crate::types::sync::{Mutex, lock};

/// When it was last looked after, and whether it is time again.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    wanted: AtomicBool,
    done: Mutex<Option<Instant>>,
}

impl Upkeep {
    /// There is something to do.
    pub(super) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    fn is_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }

    /// Whether to look: when it is wanted, and now and then for what the clock or other processes brought.
    pub(super) fn is_due(&self) -> bool {
        let mut done = lock(&self.done);
        let due = self.is_wanted() || done.is_none_or(|done| done.elapsed() >= UPKEEP);
        if due {
            *done = Some(Instant::now());
        }
        due
    }
}
