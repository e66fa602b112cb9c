//! Several processes on one file, one of which may be killed or frozen at any moment.
//!
//! A [member] is a program that has the store open and does what it is told, line by line; it tells line by line what
//! it did and what its watchers and callbacks heard, with times of a clock that all processes share. A [`Process`] is a
//! member seen from outside: it collects that as [recordings](crate::record), which the
//! [promises](crate::promises) take as they take those of one process.
//!
//! [`kill`] has the rounds in which members are killed.

pub mod kill;
mod line;
pub mod member;
mod process;

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

use crate::record::Moment;

pub use process::{Process, Told, evidence};

/// This moment, by a clock that all processes of the machine share: a moment in one process is before a moment in
/// another when it has the smaller place.
pub fn now() -> Moment {
    let time = clock_gettime(ClockId::Monotonic);
    let at = Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    );
    Moment { tick: u64::try_from(at.as_nanos()).unwrap_or(u64::MAX), at }
}

/// Lets time pass: nothing is waited for.
pub fn pause(time: Duration) {
    let (_never, pause) = std::sync::mpsc::channel::<()>();
    let _ = pause.recv_timeout(time);
}
