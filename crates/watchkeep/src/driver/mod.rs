//! The driver: one thread a process that waits for all open stores, and a few workers that do what is to be done.
//!
//! The driver only waits and sorts: it holds the timers, hears what other processes signal, and says what is ready. It
//! runs no code of a user, and takes no lock that is held across a sync, a wait or a user's code. What is ready waits in
//! line for a worker; a store has two [lanes](Lane), each of which at most one worker serves at a time.

#[cfg(any(not(target_os = "linux"), watchkeep_portable))]
#[path = "bell_condvar.rs"]
mod bell;
#[cfg(all(target_os = "linux", not(watchkeep_portable)))]
#[path = "bell_eventfd.rs"]
mod bell;
mod crew;
#[cfg(any(not(target_os = "linux"), watchkeep_portable))]
#[path = "ears_none.rs"]
mod ears;
#[cfg(all(target_os = "linux", not(watchkeep_portable)))]
#[path = "ears_inotify.rs"]
mod ears;
mod process;
mod seat;
mod signal;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
mod timers;

#[cfg(all(test, not(loom)))]
pub(crate) use crew::{Driver, Size};
pub(crate) use process::of_this_process;
pub(crate) use seat::{Lane, Rounds, Woken};
pub(crate) use signal::Signal;
