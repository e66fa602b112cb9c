//! How the demo's threads spread over its seconds, and end early when asked to.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the last events may take.
const GRACE: Duration = Duration::from_secs(10);

/// The time that the demo has.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    begin: Instant,
    length: Duration,
    stopped: Arc<(Mutex<bool>, Condvar)>,
}

impl Pace {
    pub(super) fn new(length: Duration) -> Pace {
        Pace { begin: Instant::now(), length, stopped: Arc::default() }
    }

    /// Ends every pause and the whole demo.
    pub(super) fn stop(&self) {
        *self.lock() = true;
        self.stopped.1.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        *self.lock()
    }

    /// Waits so long; false when the demo is over.
    pub(super) fn pause(&self, length: Duration) -> bool {
        self.pause_until(self.begin.elapsed() + length)
    }

    /// Waits for this part of the demo's time, in percent; false when the demo is over.
    pub(super) fn until_percent(&self, percent: u32) -> bool {
        self.pause_until(self.at_percent(percent))
    }

    /// Whether this part of the demo's time, in percent, is over.
    pub(super) fn is_past_percent(&self, percent: u32) -> bool {
        self.begin.elapsed() >= self.at_percent(percent)
    }

    /// Whether everything that was to come should have come long ago: what is still missing then is missing.
    pub(super) fn is_overdue(&self) -> bool {
        self.begin.elapsed() > self.length + GRACE
    }

    fn at_percent(&self, percent: u32) -> Duration {
        self.length * percent / 100
    }

    fn pause_until(&self, at: Duration) -> bool {
        let mut stopped = self.lock();
        while !*stopped {
            let left = at.min(self.length).saturating_sub(self.begin.elapsed());
            if left.is_zero() {
                return at <= self.length;
            }
            let waited = self.stopped.1.wait_timeout(stopped, left);
            stopped = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.stopped.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
