//! What wakes the driver, as descriptors that one `poll` waits for: an eventfd that this process raises, and the ears.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{read, write};

use super::ears::Ears;

/// A flag that the driver waits for. Rung twice before it is heard is rung once.
#[derive(Debug)]
pub(super) struct Bell {
    rung: AtomicBool,
    counter: OwnedFd,
}

impl Bell {
    pub(super) fn new() -> std::io::Result<Bell> {
        let counter = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Bell { rung: AtomicBool::new(false), counter })
    }

    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // It fails only when the counter overflows, and then the descriptor is readable all the more.
            let _ = write(&self.counter, &1_u64.to_le_bytes());
        }
    }

    /// Waits until rung, until something is heard, or for this long; none: for ever. Whether there may be something in
    /// the ears.
    pub(super) fn wait(&self, timeout: Option<Duration>, ears: &Ears) -> bool {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let other = ears.descriptor();
        let mut waits = [
            PollFd::new(&self.counter, PollFlags::IN),
            PollFd::from_borrowed_fd(
                other.unwrap_or_else(|| std::os::fd::AsFd::as_fd(&self.counter)),
                PollFlags::IN,
            ),
        ];
        let waits = if other.is_some() { &mut waits[..] } else { &mut waits[..1] };
        // Interrupted, it ends early: the driver looks again.
        let _ = poll(waits, timeout.as_ref());
        let mut ready = waits.iter().map(|wait| wait.revents().contains(PollFlags::IN));
        let (rung, heard) = (ready.next() == Some(true), ready.next() == Some(true));
        if rung {
            // First emptied, then lowered: what rings in between is seen by the driver, who looks after this.
            let _ = read(&self.counter, &mut [0; 8]);
            self.rung.swap(false, Ordering::AcqRel);
        }
        heard
    }
}
