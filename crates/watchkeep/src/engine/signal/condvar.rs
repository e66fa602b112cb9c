//! The signal where nothing but this process can raise it.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::types::sync::{Condvar, Mutex, lock};

use super::Woken;

/// A flag that one thread waits for. Raising it twice before it is seen is raising it once.
#[derive(Debug)]
pub(crate) struct Signal {
    raised: Mutex<bool>,
    waiting: Condvar,
}

impl Signal {
    pub(crate) fn new() -> std::io::Result<Signal> {
        Ok(Signal { raised: Mutex::new(false), waiting: Condvar::new() })
    }

    pub(crate) fn raise(&self) {
        let mut raised = lock(&self.raised);
        if !*raised {
            *raised = true;
            drop(raised);
            self.waiting.notify_one();
        }
    }

    /// Waits until raised, or for this long; lowers it.
    pub(crate) fn wait(&self, timeout: Duration, _listen: bool) -> Woken {
        let start = Instant::now();
        let mut raised = lock(&self.raised);
        while !*raised {
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                break;
            }
            raised = self.waiting.wait_timeout(raised, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if std::mem::take(&mut *raised) { Woken::Raised } else { Woken::Timeout }
    }
}
