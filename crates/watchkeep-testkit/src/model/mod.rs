//! The model of a store: a map and a list of changes. It says what every call must give, and follows the log.
//!
//! The store alone decides when it announces that an entry's deadline came. So the model is not run beside the
//! store but led by its log: before a step it predicts what the step gives and logs, after it it takes the new rows
//! of the log in, which must be the predicted ones in their order, with expiries of due entries anywhere between
//! them, but before whatever else happens to the entry.

mod follow;
mod read;
mod write;

use std::collections::BTreeMap;

use watchkeep::{ErrorKind, Limits, Quota, Revision, Timestamp};

use crate::ops::{Call, Op, Outcome, Refusal, Step};
use crate::record::{Cell, Log, Seen, State};

pub use follow::agree;
pub use read::read;

/// A store as a map and a list.
#[derive(Debug, Clone)]
pub struct Model {
    /// All entries, those that are due included until their expiry is logged.
    state: State,
    /// All changes that were ever logged, trimmed or not.
    rows: Vec<Seen>,
    /// Everything up to here is trimmed.
    trimmed: Revision,
    /// What names and values may have.
    limits: Limits,
    /// What the namespaces may hold.
    quotas: BTreeMap<String, Quota>,
    /// The latest time that the clock has shown.
    latest: Timestamp,
}

/// What a step must give and log.
#[derive(Debug, Clone)]
pub struct Prediction {
    /// What it gives.
    pub outcome: Outcome,
    /// What it logs, with revisions of its own beyond [`PROVISIONAL`].
    pub rows: Vec<Seen>,
    /// The label that it logs them under.
    pub label: String,
    /// When.
    pub now: Timestamp,
}

/// The revisions of what is predicted count from here: which they will be is the store's to say.
pub const PROVISIONAL: u64 = 1 << 52;

impl Model {
    /// Of a store with nothing in it.
    pub fn new(limits: Limits) -> Model {
        Model {
            state: State::default(),
            rows: Vec::new(),
            trimmed: Revision::ZERO,
            limits,
            quotas: BTreeMap::new(),
            latest: Timestamp::default(),
        }
    }

    /// All entries, due or not.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// All changes that were ever logged.
    pub fn log(&self) -> Log {
        Log::new(self.rows.clone())
    }

    /// The changes that the log still holds.
    pub fn held(&self) -> &[Seen] {
        let trimmed = self.rows.partition_point(|row| row.revision <= self.trimmed);
        self.rows.get(trimmed..).unwrap_or_default()
    }

    /// The last revision.
    pub fn last(&self) -> Revision {
        self.rows.last().map_or(Revision::ZERO, |row| row.revision)
    }

    /// Everything up to here is trimmed.
    pub fn trimmed(&self) -> Revision {
        self.trimmed
    }

    /// The entry that a step's handle finds at a place.
    pub fn find(&self, step: &Step, group: &str, key: &str, now: Timestamp) -> Option<&Cell> {
        self.state.cell(&step.full(group), key).filter(|cell| !cell.is_due(now))
    }

    /// How many entries are due.
    pub fn due(&self, now: Timestamp) -> usize {
        self.state.cells().filter(|(_, _, cell)| cell.is_due(now)).count()
    }

    /// Takes in the quota that a step sets before its operation, whatever comes of that.
    pub fn allot(&mut self, step: &Step) {
        if let (Some(namespace), Some(quota)) = (&step.namespace, step.quota) {
            self.quotas.insert(namespace.clone(), quota);
        }
    }

    /// What a step gives and logs when the clock shows this. Of history, trimming and what is about the clock or
    /// the life of the store nothing is predicted: [`Model::past`] and [`Model::trim`] judge the first two.
    pub fn predict(&self, step: &Step, label: &str, now: Timestamp) -> Prediction {
        let mut scratch = write::Scratch::new(self, step, label, now);
        let outcome = match &step.op {
            Op::Write(write) => match scratch.write(write) {
                Ok(Outcome::Done) => Outcome::At(scratch.last()),
                outcome => outcome.unwrap_or_else(Outcome::Refused),
            },
            Op::Read(one) => read(&self.state, step, now, one),
            Op::Transaction { calls, lenient, abort } => {
                let outcomes = run(&mut scratch, calls, *lenient);
                let aborted = if *abort { Err(Refusal::Kind(ErrorKind::Aborted)) } else { Ok(()) };
                match outcomes.and_then(|outcomes| aborted.map(|()| outcomes)) {
                    Ok(outcomes) => Outcome::Committed(outcomes, scratch.last()),
                    Err(refusal) => {
                        scratch.rows.clear();
                        Outcome::Refused(refusal)
                    }
                }
            }
            Op::Batch(writes) => match scratch.batch(writes) {
                Ok(outcomes) => Outcome::Committed(outcomes, scratch.last()),
                Err(refusal) => {
                    scratch.rows.clear();
                    Outcome::Refused(refusal)
                }
            },
            Op::Snapshot(reads) => {
                let reads = reads.iter().map(|one| read(&self.state, step, now, one));
                Outcome::Snapshot(reads.collect(), self.last())
            }
            _ => Outcome::Done,
        };
        Prediction { outcome, rows: scratch.rows, label: label.to_owned(), now }
    }
}

fn run(scratch: &mut write::Scratch<'_>, calls: &[Call], lenient: bool) -> Result<Vec<Outcome>, Refusal> {
    let mut outcomes = Vec::new();
    for call in calls {
        let outcome = match call {
            Call::Write(write) => scratch.write(write),
            Call::Read(one) => Ok(read(&scratch.state, scratch.step, scratch.now, one)),
        };
        outcomes.push(match outcome {
            Err(refusal) if lenient => Outcome::Refused(refusal),
            outcome => outcome?,
        });
    }
    Ok(outcomes)
}
