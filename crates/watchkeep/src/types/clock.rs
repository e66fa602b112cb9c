//! Time as a parameter.

use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::error::{Reason, Result};
use super::limits::MAX_DEADLINE_MS;

/// A point in time: milliseconds since 1970-01-01 UTC, as the wall clock shows it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The point so many milliseconds after 1970-01-01 UTC.
    pub const fn from_millis(millis: i64) -> Timestamp {
        Timestamp(millis)
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The deadline of something that lives this long from now on, at least one millisecond.
    pub(crate) fn deadline(self, ttl: Duration) -> Result<Timestamp> {
        let millis = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        self.ahead(Timestamp(self.0.saturating_add(millis)))
    }

    /// A deadline that lies ahead of now.
    pub(crate) fn ahead(self, deadline: Timestamp) -> Result<Timestamp> {
        if deadline > self && deadline.0 <= MAX_DEADLINE_MS {
            Ok(deadline)
        } else {
            Err(Reason::BadDeadline.into())
        }
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Timestamp {
        let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Timestamp(millis(after)),
            Err(before) => Timestamp(-millis(before.duration())),
        }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> SystemTime {
        let span = Duration::from_millis(time.0.unsigned_abs());
        if time.0 < 0 { UNIX_EPOCH - span } else { UNIX_EPOCH + span }
    }
}

/// Where a store takes the time from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock's time.
    fn now(&self) -> Timestamp;

    /// How much time has passed since some moment, whatever the wall clock was set to meanwhile.
    fn monotonic(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }

    /// Asks to be told when the time is set by hand. A clock that only runs has nothing to tell.
    fn on_step(&self, wake: Box<dyn Fn() + Send + Sync>) {
        drop(wake);
    }
}

/// The machine's clock: what a store uses unless it is given another.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine for the time")]
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

/// A clock that moves only when told to, for tests of expiry that do not sleep.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use watchkeep::{ManualClock, Options};
/// let clock = Arc::new(ManualClock::default());
/// let store = Options::new().clock(clock.clone()).open_in_memory()?;
/// store.set_with_ttl("session", "token", "abc", Duration::from_secs(60))?;
/// clock.advance(Duration::from_secs(60));
/// assert!(store.get("session", "token")?.is_none());
/// # Ok::<(), watchkeep::Error>(())
/// ```
pub struct ManualClock {
    /// What it shows, and by how much it was moved on.
    now: Mutex<(Timestamp, Duration)>,
    wakes: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
}

impl ManualClock {
    /// A clock that shows this time.
    pub fn new(now: Timestamp) -> ManualClock {
        ManualClock { now: Mutex::new((now, Duration::ZERO)), wakes: Mutex::new(Vec::new()) }
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.step(|(now, passed)| (Timestamp(now.0.saturating_add(millis)), passed.saturating_add(by)));
    }

    /// Sets the clock, backwards too. No time passes by that.
    pub fn set(&self, to: Timestamp) {
        self.step(|(_, passed)| (to, passed));
    }

    fn step(&self, to: impl FnOnce((Timestamp, Duration)) -> (Timestamp, Duration)) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        *now = to(*now);
        drop(now);
        for wake in self.wakes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            wake();
        }
    }
}

impl Default for ManualClock {
    /// Shows 2026-01-01 00:00:00 UTC.
    fn default() -> Self {
        ManualClock::new(Timestamp(1_767_225_600_000))
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.now()).finish()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn monotonic(&self) -> Duration {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    fn on_step(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.wakes.lock().unwrap_or_else(PoisonError::into_inner).push(wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_at_least_a_millisecond_ahead_and_within_the_calendar() {
        let now = Timestamp(1_000);
        assert_eq!(now.deadline(Duration::from_millis(5)).ok(), Some(Timestamp(1_005)));
        assert!(now.deadline(Duration::ZERO).is_err());
        assert!(now.deadline(Duration::from_nanos(1)).is_err());
        assert!(now.deadline(Duration::MAX).is_err());
    }

    #[test]
    fn timestamps_convert_both_ways_on_either_side_of_1970() {
        for millis in [-1_500, 0, 1_767_225_600_123] {
            assert_eq!(Timestamp::from(SystemTime::from(Timestamp(millis))).as_millis(), millis);
        }
    }
}
