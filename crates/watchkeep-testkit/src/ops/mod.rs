//! Operations as data: what a store can be asked to do, what it answers, and how both are made up.

mod choices;
mod draw;
mod names;
mod perform;
mod strategy;

use watchkeep::{ErrorKind, MAX_REVISION, Quota, QuotaLimit, Revision, Timestamp, Value};

use crate::record::{Cell, Want};

pub use choices::{Choices, Dice, Tape};
pub use draw::Draw;
pub use names::{GROUPS, KEYS, NAMESPACES};
pub use perform::perform;
pub use strategy::steps;

/// A group and a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The group, as the handle names it.
    pub group: String,
    /// The key.
    pub key: String,
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// The key is not there.
    Absent,
    /// The entry has the revision that it has: filled in when the operation is made.
    Current,
    /// The entry has another revision than it has: filled in when the operation is made.
    Stale,
    /// The entry has this revision.
    Revision(Revision),
}

/// What a write does to the deadline; times to live are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// None from now on.
    Clear,
    /// The one it has.
    Keep,
    /// So long from now.
    For(u64),
    /// At this time.
    Until(Timestamp),
}

/// A change of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// An entry gets a value.
    Set {
        /// Where.
        place: Place,
        /// The value.
        value: Value,
        /// What becomes of the deadline.
        ttl: Ttl,
        /// When.
        condition: Condition,
        /// The content type.
        content_type: Option<String>,
    },
    /// An entry goes.
    Delete {
        /// Where.
        place: Place,
        /// When; only a revision can be asked for.
        condition: Condition,
    },
    /// A group goes.
    DeleteGroup(String),
    /// All groups go whose name starts so.
    DeletePrefix(String),
    /// An entry gets a deadline, so many milliseconds ahead.
    Touch(Place, u64),
    /// An entry loses its deadline.
    Persist(Place),
}

/// Something read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// The value.
    Get(Place),
    /// The entry.
    Entry(Place),
    /// Whether it is there.
    Contains(Place),
    /// How long it has left.
    RemainingTtl(Place),
    /// How many keys a group has.
    Count(String),
    /// How many keys the groups have whose name starts so.
    CountAll(String),
    /// The groups whose name starts so.
    Groups(String),
    /// The entries of a group: with keys that start so, after a key, at most so many.
    Entries(String, String, Option<String>, Option<usize>),
    /// A page of them.
    Page(String, String, Option<String>, Option<usize>),
}

/// What a transaction does, step by step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// It writes.
    Write(Write),
    /// It reads, and sees what it has written.
    Read(Read),
}

/// What a store can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A write by itself.
    Write(Write),
    /// A read by itself.
    Read(Read),
    /// All of it or nothing.
    Transaction {
        /// Step by step.
        calls: Vec<Call>,
        /// Whether it goes on when a step is refused.
        lenient: bool,
        /// Whether it gives up at the end.
        abort: bool,
    },
    /// All of it or nothing, as data: what the writes require is judged first.
    Batch(Vec<Write>),
    /// Reads of one moment.
    Snapshot(Vec<Read>),
    /// The log after so many events before its end.
    History(Want, u64),
    /// Removes what is due.
    PurgeExpired,
    /// Trims the log but for so many events.
    Compact(u64),
    /// Moves the clock on, in milliseconds.
    Advance(u64),
    /// Moves the clock back, in milliseconds.
    StepBack(u64),
    /// Closes the store and opens it again.
    Restart,
}

/// An operation through a handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The namespace that the handle is scoped to.
    pub namespace: Option<String>,
    /// The quota that its namespace is given before the operation, for good.
    pub quota: Option<Quota>,
    /// The operation.
    pub op: Op,
}

/// An entry as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The key.
    pub key: String,
    /// All else.
    pub cell: Cell,
}

/// Why something was not done, as far as surfaces can agree on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A condition did not hold; the revision that is there.
    Conflict(Option<Revision>),
    /// Conditions of a batch did not hold: which, and the revisions that are there.
    Unmet(Vec<(usize, Option<Revision>)>),
    /// A quota is used up: which limit, its amount, what was wanted.
    Quota(QuotaLimit, u64, u64),
    /// Something else, by its kind.
    Kind(ErrorKind),
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was done, and there is nothing to say.
    Done,
    /// It was done at this revision.
    At(Revision),
    /// Whether there was something.
    Was(bool),
    /// How many.
    Number(u64),
    /// A value.
    Value(Option<Value>),
    /// An entry.
    Entry(Option<Cell>),
    /// Milliseconds left, if there is a deadline.
    Left(Option<u128>),
    /// Names.
    Names(Vec<String>),
    /// Entries, and the key after which there are more.
    Entries(Vec<Listed>, Option<String>),
    /// What a transaction's steps gave, and its revision.
    Committed(Vec<Outcome>, Revision),
    /// What reads of one moment gave, and the revision they are of.
    Snapshot(Vec<Outcome>, Revision),
    /// It was not done.
    Refused(Refusal),
}

impl Step {
    /// Through a handle on the whole store.
    pub fn whole(op: Op) -> Step {
        Step { namespace: None, quota: None, op }
    }

    /// A group's name as it stands in the file.
    pub fn full(&self, group: &str) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}:{group}"),
            None => group.to_owned(),
        }
    }

    /// Fills in the revisions that conditions leave open, from what an entry has.
    #[must_use]
    pub fn resolved(mut self, mut revision: impl FnMut(&Place) -> Option<Revision>) -> Step {
        let writes: Vec<&mut Write> = match &mut self.op {
            Op::Write(write) => vec![write],
            Op::Batch(writes) => writes.iter_mut().collect(),
            Op::Transaction { calls, .. } => calls
                .iter_mut()
                .filter_map(|call| match call {
                    Call::Write(write) => Some(write),
                    Call::Read(_) => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        for write in writes {
            if let Write::Set { place, condition, .. } | Write::Delete { place, condition } = write {
                // No entry has the last of all revisions.
                let current = |found: Option<Revision>| found.map_or(MAX_REVISION, Revision::get);
                *condition = match *condition {
                    Condition::Current => Condition::Revision(Revision::new(current(revision(place)))),
                    Condition::Stale => Condition::Revision(Revision::new(current(revision(place)) - 1)),
                    other => other,
                };
            }
        }
        self
    }
}

impl Outcome {
    /// Whether it was refused because a write before it failed half way: nothing of it was done.
    pub fn is_poisoned(&self) -> bool {
        matches!(self, Outcome::Refused(Refusal::Kind(ErrorKind::Poisoned)))
    }

    /// Whether the disk failed at it, or at a part of it.
    pub fn is_of_the_disk(&self) -> bool {
        match self {
            Outcome::Refused(Refusal::Kind(kind)) => {
                use ErrorKind::{Full, Io, ReadOnly, UnknownOutcome};
                [Full, Io, ReadOnly, UnknownOutcome].contains(kind)
            }
            Outcome::Committed(parts, _) | Outcome::Snapshot(parts, _) => {
                parts.iter().any(Outcome::is_of_the_disk)
            }
            _ => false,
        }
    }

    /// The same with other revisions.
    #[must_use]
    pub fn map_revisions(self, f: &impl Fn(Revision) -> Revision) -> Outcome {
        let cell = |cell: Cell| Cell { revision: f(cell.revision), created: f(cell.created), ..cell };
        let all = |outcomes: Vec<Outcome>| outcomes.into_iter().map(|one| one.map_revisions(f)).collect();
        match self {
            Outcome::At(revision) => Outcome::At(f(revision)),
            Outcome::Entry(entry) => Outcome::Entry(entry.map(cell)),
            Outcome::Entries(entries, next) => {
                let entry = |Listed { key, cell: old }| Listed { key, cell: cell(old) };
                Outcome::Entries(entries.into_iter().map(entry).collect(), next)
            }
            Outcome::Committed(outcomes, revision) => Outcome::Committed(all(outcomes), f(revision)),
            Outcome::Refused(Refusal::Conflict(current)) => {
                Outcome::Refused(Refusal::Conflict(current.map(f)))
            }
            other => other,
        }
    }
}
