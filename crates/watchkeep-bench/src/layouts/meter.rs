//! What a measurement came to. Beside the time by the clock, which others on the machine stretch, it counts what they
//! do not: the processor's time, and what is written and read.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::Result;

/// Four figures of one measurement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Figure {
    /// Entries a second, by the clock; or the size of the file.
    pub(super) clock: f64,
    /// Entries for each second that this thread had of a processor.
    pub(super) cpu: f64,
    /// Bytes that the process gave to be written, for each entry.
    pub(super) written: f64,
    /// Bytes that came from the disk, for each entry.
    pub(super) read: f64,
}

/// Adds up what is between its start and stop.
#[derive(Debug, Default)]
pub(super) struct Meter {
    clock: Duration,
    cpu: Duration,
    written: u64,
    read: u64,
}

impl Meter {
    pub(super) fn around<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let ((written, read), cpu, clock) = (io()?, cpu()?, Instant::now());
        let done = work()?;
        self.clock += clock.elapsed();
        self.cpu += self::cpu()?.saturating_sub(cpu);
        let after = io()?;
        (self.written, self.read) = (self.written + after.0 - written, self.read + after.1 - read);
        Ok(done)
    }

    pub(super) fn figure(&self, entries: usize) -> Figure {
        let entries = entries as f64;
        Figure {
            clock: entries / self.clock.as_secs_f64(),
            cpu: entries / self.cpu.as_secs_f64(),
            written: self.written as f64 / entries,
            read: self.read as f64 / entries,
        }
    }
}

/// The time that this thread had.
fn cpu() -> Result<Duration> {
    Ok(Duration::try_from(clock_gettime(ClockId::ThreadCPUTime))?)
}

/// The bytes that this process wrote, and those that it had read from the disk.
fn io() -> Result<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    field("wchar:").zip(field("read_bytes:")).ok_or_else(|| "what was read and written is not told".into())
}
