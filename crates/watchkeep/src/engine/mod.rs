//! Engines: what stores and orders. An engine commits and knows nothing of watchers; it hands out an ordered feed
//! of its commits and reads the change log back.

pub(crate) mod feed;
pub(crate) mod floors;
mod hold;
mod job;
mod lead;
pub(crate) mod memory;
mod nesting;
pub(crate) mod sqlite;
mod turn;
mod upkeep;
pub(crate) mod workers;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::rules::{Act, Author, Effect, Stamp, Write};

use crate::types::backup::{Backup, BackupOptions};
use crate::types::batch::{Applied, Operation, Outcome};
use crate::types::clock::Timestamp;
use crate::types::consumer::{ConsumerInfo, Force};
use crate::types::entry::{Entry, KeyInfo};
use crate::types::error::{Error, Reason, Result};
use crate::types::event::Change;
use crate::types::name::NameRange;
use crate::types::options::{Durability, Retention, Waking};
use crate::types::quota::Quota;
use crate::types::revision::{Revision, StoreId};
use crate::types::value::Value;

use feed::Feed;
use floors::Floors;

/// What a committed write did.
#[derive(Debug, Clone)]
pub(crate) enum Done {
    /// Each operation.
    Batch(Vec<Outcome>),
    /// The same, some time before.
    Repeated(Vec<Outcome>),
    /// How many due keys were removed in one step, and whether there may be more.
    Reaped { keys: u64, more: bool },
    /// A consumer is held under this number; zero when it is not held.
    Consumer(u64),
    /// A quota is set.
    Quota,
}

impl Done {
    /// An effect, once it is known which revisions its events have.
    pub(crate) fn of(effect: Effect, revision: impl Fn(Stamp) -> Revision) -> Done {
        match effect {
            Effect::Batch(done) => Done::Batch(done.into_iter().map(|did| did.at(&revision)).collect()),
            Effect::Repeated { outcomes, .. } => Done::Repeated(outcomes),
            Effect::Reaped { keys, more } => Done::Reaped { keys, more },
            Effect::Consumer(fence) => Done::Consumer(fence),
            Effect::Quota => Done::Quota,
        }
    }
}

/// What became of a committed write.
#[derive(Debug, Clone)]
pub(crate) struct Receipt {
    pub(crate) done: Done,
    /// The last revision of the store as of this write.
    pub(crate) revision: Revision,
    /// The last of its events; none when it announced nothing.
    pub(crate) announced: Option<Revision>,
}

impl Receipt {
    /// Of a batch.
    pub(crate) fn applied(self) -> Result<Applied> {
        match self.done {
            Done::Batch(outcomes) => Ok(Applied { revision: self.revision, outcomes, repeated: false }),
            Done::Repeated(outcomes) => Ok(Applied { revision: self.revision, outcomes, repeated: true }),
            _ => Err(mixed_up()),
        }
    }

    /// Of a batch of one operation.
    pub(crate) fn outcome(&self) -> Result<Outcome> {
        match &self.done {
            Done::Batch(outcomes) => outcomes.first().copied().ok_or_else(mixed_up),
            _ => Err(mixed_up()),
        }
    }

    /// Of one set.
    pub(crate) fn set(&self) -> Result<Revision> {
        match self.outcome()? {
            Outcome::Set(revision) => Ok(revision),
            _ => Err(mixed_up()),
        }
    }

    /// Of a step of expiry.
    pub(crate) fn reaped(&self) -> Result<(u64, bool)> {
        match self.done {
            Done::Reaped { keys, more } => Ok((keys, more)),
            _ => Err(mixed_up()),
        }
    }

    /// Of a consumer that was taken.
    pub(crate) fn fence(&self) -> Result<u64> {
        match self.done {
            Done::Consumer(fence) => Ok(fence),
            _ => Err(mixed_up()),
        }
    }
}

/// An answer is not of the kind of its write: impossible by construction.
pub(crate) fn mixed_up() -> Error {
    Reason::WorkerDied { what: "a commit" }.into()
}

/// What became of a committed closure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sealed {
    /// The last revision of the store as of this transaction.
    pub(crate) revision: Revision,
    pub(crate) announced: Option<Revision>,
}

/// A page of the change log.
#[derive(Debug, Clone)]
pub(crate) struct LogPage {
    /// Everything up to this revision is trimmed, as of the same read transaction.
    pub(crate) trimmed: Revision,
    /// The log's end, as of the same read transaction.
    pub(crate) end: Revision,
    /// In the order of their revisions, without a gap.
    pub(crate) changes: Vec<Arc<Change>>,
}

impl LogPage {
    /// The revision after which the next page begins.
    pub(crate) fn next(&self, after: Revision) -> Revision {
        self.changes.last().map_or(self.end.max(after), |change| change.revision)
    }
}

/// Sizes and counts, for people.
#[derive(Debug, Clone)]
pub(crate) struct Totals {
    pub(crate) entries: u64,
    pub(crate) groups: u64,
    pub(crate) bytes: u64,
    pub(crate) last: Revision,
    pub(crate) first: Revision,
    pub(crate) log_events: u64,
    pub(crate) log_bytes: u64,
    pub(crate) next_deadline: Option<Timestamp>,
}

/// Reads, all as of one moment.
pub(crate) trait Read {
    /// The moment: entries whose deadline is not after it are not there.
    fn now(&self) -> Timestamp;
    fn value(&self, group: &str, key: &str) -> Result<Option<Value>>;
    fn entry(&self, group: &str, key: &str) -> Result<Option<Entry>>;
    /// The entries of a group, at most `limit` and at most about a megabyte; and whether there may be more.
    fn entries(&self, group: &str, keys: &NameRange, limit: usize) -> Result<(Vec<Entry>, bool)>;
    /// The entries of a group without their values, at most `limit`.
    fn keys(&self, group: &str, keys: &NameRange, limit: usize) -> Result<Vec<KeyInfo>>;
    fn groups(&self, names: &NameRange, limit: usize) -> Result<Vec<String>>;
    fn count(&self, group: &str) -> Result<u64>;
    fn count_all(&self, groups: &NameRange) -> Result<u64>;
    /// The last revision.
    fn last(&self) -> Result<Revision>;
    fn log(&self, after: Revision, limit: usize) -> Result<LogPage>;
    /// Refuses a revision whose event a power cut took: what followed it there is not what follows here.
    fn refuse_lost(&self, revision: Revision) -> Result<()>;
    /// One row of the log, if it still holds it.
    fn change(&self, revision: Revision) -> Result<Option<Arc<Change>>>;
    fn totals(&self, groups: &NameRange) -> Result<Totals>;
    /// What a namespace may hold; none when nothing limits it.
    fn quota(&self, namespace: &str) -> Result<Option<Quota>>;
    /// The named consumers of a range of names, under the names that stand in the file.
    fn consumers(&self, names: &NameRange) -> Result<Vec<ConsumerInfo>>;
}

/// An open write transaction.
pub(crate) trait Transact {
    fn apply(&self, operation: &Operation) -> Result<Outcome>;
    /// Does something with a named consumer.
    fn consumer(&self, name: &str, act: &Act) -> Result<()>;
    /// Makes the transaction fail with this error, whatever comes of the closure.
    fn spoil(&self, error: &Error);
    /// Reads that see what the transaction has written.
    fn read(&self, f: &mut dyn FnMut(&dyn Read) -> Result<()>) -> Result<()>;
}

/// Reads that all see one revision, held until dropped or too old.
pub(crate) trait Held: Send + Sync {
    fn read(&self, f: &mut dyn FnMut(&dyn Read) -> Result<()>) -> Result<()>;
}

/// What to do when a write that nobody's thread waits for is committed and its events are delivered.
pub(crate) type Completion = Box<dyn FnOnce(Result<Receipt>) + Send>;

/// Such writes that are committed or refused: whoever gets them delivers their events, and completes them.
#[derive(Default)]
pub(crate) struct Settled {
    /// The store's own, which may be completed at once, anywhere.
    pub(crate) own: Vec<(Completion, Result<Receipt>)>,
    /// A completion may run code of theirs.
    pub(crate) users: Vec<(Completion, Result<Receipt>)>,
}

impl Settled {
    /// The last of their events.
    pub(crate) fn announced(&self) -> Option<Revision> {
        let announced = |(_, result): &(_, Result<Receipt>)| result.as_ref().ok()?.announced;
        self.own.iter().chain(&self.users).filter_map(announced).max()
    }
}

/// What only a file has, which other processes may open as well.
pub(crate) trait File {
    fn path(&self) -> &Path;
    fn durability(&self) -> Durability;
    /// Sizes of the file and of its write-ahead log, in bytes.
    fn sizes(&self) -> (u64, u64);
    /// Whether the store may still be used here: its files are those that it opened. Once it may not, it never may.
    fn stand(&self) -> Result<()>;
    /// How it hears of other processes' commits.
    fn waking(&self) -> Waking;
    /// Looks after that; whether the next such commit raises the signal.
    fn hears_others(&self) -> bool;
    /// Whether nobody has written to it since it was last read, as far as that can be told without reading. For that it is
    /// asked before each reading.
    fn is_untouched(&self) -> bool;
}

/// What stores and orders.
pub(crate) trait Engine: Send + Sync {
    fn id(&self) -> StoreId;
    /// What only a file has, where it is one.
    fn file(&self) -> Option<&dyn File>;

    /// How many events come after one revision up to another, or a few more. Nobody else may tell that from their numbers,
    /// which are ordered and not dense. Must not wait for anything.
    fn distance(&self, from: Revision, to: Revision) -> u64;

    /// Commits a write, and what it takes along. Their commit is in the feed when this returns.
    fn write(&self, write: Write, settled: &mut Settled) -> Result<Receipt>;
    /// Runs a closure in a transaction, perhaps more than once, and commits it.
    fn transact(
        &self,
        author: &Author,
        f: &mut dyn FnMut(&dyn Transact) -> Result<()>,
        settled: &mut Settled,
    ) -> Result<Sealed>;
    /// Queues a write; the signal is raised when somebody has to settle it. Not for a [vital](crate::rules::Work::is_vital)
    /// one: whoever submits it settles it.
    fn submit(&self, write: Write, done: Completion);
    /// Commits some of what was submitted and not taken along by others, without waiting for anybody. The signal is raised
    /// when there is more; where somebody else holds the store, it is to be tried again after this time.
    fn settle(&self, settled: &mut Settled) -> Option<Duration>;
    /// Whether some of that is [vital](crate::rules::Work::is_vital).
    fn has_vital(&self) -> bool;

    /// One statement's worth of reading.
    fn glance(&self, f: &mut dyn FnMut(&dyn Read) -> Result<()>) -> Result<()>;
    /// Several reads of one moment. Must not wait for anything.
    fn read(&self, f: &mut dyn FnMut(&dyn Read) -> Result<()>) -> Result<()>;
    /// As `read`, but also after the close, while the file is there: for watchers that still drain.
    fn linger(&self, f: &mut dyn FnMut(&dyn Read) -> Result<()>) -> Result<()>;
    fn hold(&self) -> Result<Arc<dyn Held>>;

    fn feed(&self) -> &Feed;
    /// What upkeep leaves in the log for those who read a snapshot.
    fn floors(&self) -> &Arc<Floors>;

    /// The earliest deadline of all entries.
    fn next_deadline(&self) -> Result<Option<Timestamp>>;
    /// One small step of what must be done now and then; whether there is more to do.
    fn maintain(&self) -> Result<bool>;
    /// How much of the past the log keeps.
    fn retention(&self) -> Result<Retention>;
    /// Trims the log before this revision, as far as whole transactions go; how many events went. Refuses to take from a
    /// consumer what it still needs, unless forced.
    fn trim(&self, before: Revision, force: Force) -> Result<u64>;
    /// What is wrong with the file, with the number of entries, groups and events looked at.
    fn check(&self) -> Result<(Vec<String>, [u64; 3])>;
    /// Rebuilds the counters from the entries; what was changed.
    fn repair(&self) -> Result<Vec<String>>;
    /// Copies the whole store as of one moment, under a new identity, to where nothing is yet.
    fn backup(&self, target: &Path, options: &mut BackupOptions) -> Result<Backup>;
    /// Whether this process inherited the store from the one that opened it.
    fn is_forked(&self) -> bool;

    fn is_closed(&self) -> bool;
    /// Refuses writes on a thread that is inside a transaction's closure on the same file, through whatever engine.
    fn refuse_nested(&self) -> Result<()>;
    /// Refuses, on a thread that is inside a transaction's closure of this engine, what would wait for its end.
    fn refuse_own_turn(&self) -> Result<()>;
    /// Refuses new writes, and fails those that wait, with this error from now on.
    fn poison(&self, error: &Error, settled: &mut Settled);
    /// Refuses new writes and waits for those that are under way.
    fn seal(&self, settled: &mut Settled) -> Result<()>;
    /// Refuses reads as well, and lets go of the file.
    fn close(&self);
}
