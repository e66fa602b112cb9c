//! What a run left behind besides its recordings.

use std::collections::HashMap;
use std::time::Duration;

use watchkeep::{Revision, Timestamp};

use super::log::Log;
use super::moment::{Moment, Span};
use super::seen::Seen;

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It returned, with its last revision where the call tells it.
    Done(Option<Revision>),
    /// It was refused, or rolled back: nothing of it may be anywhere.
    Undone,
    /// It failed in a way that leaves open whether it is in the file.
    Unknown,
}

/// A write that a workload made.
#[derive(Debug, Clone)]
pub struct Write {
    /// The label that it was made under; no other write has the same.
    pub label: String,
    /// Through which opened store it was made.
    pub hub: usize,
    /// The call.
    pub span: Span,
    /// The event in whose callback it was made, if it was made in one.
    pub cause: Option<Revision>,
    /// What became of it.
    pub fate: Fate,
}

/// A reading of the whole store that claims to be as of one revision.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Who took it.
    pub name: String,
    /// The revision that it claims.
    pub revision: Revision,
    /// Group, key and revision of each entry in it.
    pub entries: Vec<(String, String, Revision)>,
    /// The clock when it was taken; none when the clock was moved meanwhile.
    pub now: Option<Timestamp>,
}

/// Everything that the checkers hold a recording against.
#[derive(Debug, Default, Clone)]
pub struct Evidence {
    /// The whole log, touched deadlines included, read back from the file as it grew.
    pub log: Log,
    /// The log as it was read again after each restart, as far as retention still held it.
    pub lives: Vec<Log>,
    /// The writes, by label.
    pub writes: HashMap<String, Write>,
    /// Consistent readings.
    pub pictures: Vec<Picture>,
    /// The oldest revision that the log still held when all was over.
    pub floor: Revision,
    /// For each opened store that nobody else wrote to, when the last write had returned.
    pub quiet: HashMap<usize, Moment>,
    /// The latest time that the clock ever showed.
    pub latest: Timestamp,
    /// Up to this time every entry whose deadline came must have been announced.
    pub settled: Option<Timestamp>,
    /// When the run began, by the store's clock, where that is the machine's.
    pub began: Option<Timestamp>,
    /// How late expiries may be announced, for the 99th of a hundred, where the clock is the machine's.
    pub expiry_limit: Option<Duration>,
    /// How long a write may take before it counts as blocked.
    pub write_limit: Option<Duration>,
}

impl Evidence {
    /// What these rows tell, with nothing known of writes.
    pub fn of(log: Log) -> Evidence {
        let floor = log.rows().first().map_or(Revision::ZERO, |row| row.revision);
        Evidence { log, floor, ..Evidence::default() }
    }

    /// The write that made a change, if it is known.
    pub fn write_of(&self, row: &Seen) -> Option<&Write> {
        self.writes.get(row.origin.as_deref()?)
    }

    /// When the callbacks of a write must have run: when it returned or, made inside a callback, when the write
    /// returned that it goes back to. The cause counts, not the thread that ran the callback. None where nobody waits:
    /// the event at the root was announced by the store itself, or through another opened store.
    pub fn callbacks_by(&self, write: &Write) -> Option<Moment> {
        let mut root = write;
        while let Some(cause) = root.cause {
            root = self.write_of(self.log.get(cause)?).filter(|root| root.hub == write.hub)?;
        }
        Some(root.span.returned)
    }
}
