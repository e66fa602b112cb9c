//! The signal where nothing but this process can raise it.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::types::lock;

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
        let raised = lock(&self.raised);
        let (mut raised, _) = match self.waiting.wait_timeout_while(raised, timeout, |raised| !*raised) {
            Ok(woken) => woken,
            Err(poisoned) => poisoned.into_inner(),
        };
        if std::mem::take(&mut *raised) { Woken::Raised } else { Woken::Timeout }
    }
}
