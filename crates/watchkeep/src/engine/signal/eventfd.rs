//! The signal as descriptors that one `poll` waits for: an eventfd that this process raises, and one more that
//! becomes readable when another process did something.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{read, write};

use super::Woken;

/// A flag that one thread waits for. Raising it twice before it is seen is raising it once.
#[derive(Debug)]
pub(crate) struct Signal {
    raised: AtomicBool,
    bell: OwnedFd,
    listening: OnceLock<OwnedFd>,
}

impl Signal {
    pub(crate) fn new() -> std::io::Result<Signal> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Signal { raised: AtomicBool::new(false), bell, listening: OnceLock::new() })
    }

    pub(crate) fn raise(&self) {
        if !self.raised.swap(true, Ordering::AcqRel) {
            // It fails only when the counter overflows, and then the descriptor is readable all the more.
            let _ = write(&self.bell, &1_u64.to_le_bytes());
        }
    }

    /// From now on a wait may also end because this descriptor, which does not block, is readable.
    pub(crate) fn listen_to(&self, other: OwnedFd) {
        // A store listens to one thing all its life.
        let _ = self.listening.set(other);
    }

    /// Waits until raised or, if it is to listen, until something is heard, or for this long; lowers it.
    pub(crate) fn wait(&self, timeout: Duration, listen: bool) -> Woken {
        let other = self.listening.get().filter(|_| listen);
        let mut waits =
            [PollFd::new(&self.bell, PollFlags::IN), PollFd::new(other.unwrap_or(&self.bell), PollFlags::IN)];
        let waits = if other.is_some() { &mut waits[..] } else { &mut waits[..1] };
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // Interrupted, it ends early: whoever waits looks again.
        let _ = poll(waits, Some(&timeout));
        let mut ready = waits.iter().map(|wait| wait.revents().contains(PollFlags::IN));
        let (raised, heard) = (ready.next() == Some(true), ready.next() == Some(true));
        let mut seen = [0; 4096];
        if raised {
            // First emptied, then lowered: a raise in between is seen by the caller, who looks after this.
            let _ = read(&self.bell, &mut seen[..8]);
            self.raised.swap(false, Ordering::AcqRel);
        }
        if heard {
            let _ = other.map(|other| read(other, &mut seen));
            return Woken::Heard;
        }
        if raised { Woken::Raised } else { Woken::Timeout }
    }
}
