//! What wakes the driver where nothing but this process can.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::types::sync::{Condvar, Mutex, lock};

use super::ears::Ears;

/// A flag that the driver waits for. Rung twice before it is heard is rung once.
#[derive(Debug)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    waiting: Condvar,
}

impl Bell {
    pub(super) fn new() -> std::io::Result<Bell> {
        Ok(Bell { rung: Mutex::new(false), waiting: Condvar::new() })
    }

    pub(super) fn ring(&self) {
        *lock(&self.rung) = true;
        self.waiting.notify_one();
    }

    /// Waits until rung, or for this long; none: for ever. Whether there may be something in the ears.
    pub(super) fn wait(&self, timeout: Option<Duration>, _: &Ears) -> bool {
        let start = Instant::now();
        let mut rung = lock(&self.rung);
        while !*rung {
            let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
            rung = match left {
                Some(Duration::ZERO) => break,
                Some(left) => self.waiting.wait_timeout(rung, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.waiting.wait(rung).unwrap_or_else(PoisonError::into_inner),
            };
        }
        *rung = false;
        false
    }
}
