//! Engines: what stores and orders. An engine commits and knows nothing of watchers; it hands out an ordered feed
//! of its commits and reads the change log back.

pub(crate) mod epochs;
#[cfg(feature = "etcd")]
pub(crate) mod etcd;
pub(crate) mod feed;
pub(crate) mod floors;
mod hold;
mod job;
mod lead;
mod led;
pub(crate) mod memory;
mod nesting;
mod query;
mod reads;
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
use crate::types::consumer::Force;
use crate::types::error::{Error, Reason, Result};
use crate::types::options::{Durability, Waking};
use crate::types::quota::Quota;
use crate::types::revision::{Cursor, Revision, StoreId};

use feed::Feed;
use floors::Floors;
#[cfg(feature = "async")]
use workers::Workers;

pub(crate) use query::{Answer, Ask, Bounds, Dated, LogPage, Part, Place, Query, Survey};

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

/// An open write transaction. What is asked of it sees what it has written.
pub(crate) trait Transact: Ask {
    fn apply(&self, operation: &Operation) -> Result<Outcome>;
    /// Does something with a named consumer.
    fn consumer(&self, name: &str, act: &Act) -> Result<()>;
    /// Makes the transaction fail with this error, whatever comes of the closure.
    fn spoil(&self, error: &Error);
}

/// A moment of a store, held until dropped or too old.
pub(crate) type Held = Arc<dyn Ask + Send + Sync>;

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

/// What to do with an answer that nobody's thread waits for.
#[cfg(feature = "async")]
pub(crate) type Answered = Box<dyn FnOnce(Result<Answer>) + Send>;

/// What is refused from now on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Close<'e> {
    /// New writes, and those that wait, with this error. It is no close yet.
    Poisoned(&'e Error),
    /// New writes. Those that are under way are waited for.
    Writes,
    /// Reads as well, but those of watchers that drain. The engine lets go of what it has open.
    Reads,
}

/// For what of an engine a thread would wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// A commit to the store, through whatever engine of this process.
    Commit,
    /// The end of what this engine has under way.
    Turn,
}

/// What stores and orders. What only some engines have stands apart, behind an accessor each.
pub(crate) trait Engine: Ask + Send + Sync + 'static {
    fn id(&self) -> StoreId;
    /// The cursor of a revision. Must not wait for anything.
    fn cursor(&self, revision: Revision) -> Cursor;
    /// What only a file has, where it is one.
    fn file(&self) -> Option<&dyn File>;
    /// What a store needs to have done, where those who have it open must see to it.
    fn chores(&self) -> Option<&dyn Chores>;
    /// What is done with a store as a whole, where its rows are at hand.
    fn whole(&self) -> Option<&dyn Whole>;

    /// Where a store in a cluster is.
    fn address(&self) -> Option<&str> {
        None
    }

    /// Which version of etcd the cluster runs, as far as it is known.
    fn server(&self) -> Option<&str> {
        None
    }

    /// Whether the store may still be used here. Once it may not, it never may.
    fn usable(&self) -> Result<()> {
        self.file().map_or(Ok(()), File::stand)
    }

    /// The last revision, as far as anybody here has heard of it. Must not wait for another machine.
    fn heard(&self) -> Result<Revision> {
        Query::Last.ask(self)
    }

    /// Asks without waiting. An engine that can only block does so on one of the readers.
    #[cfg(feature = "async")]
    fn ask_later(self: Arc<Self>, query: Query<'static>, readers: &Workers, done: Answered) {
        readers.spawn(move || done(self.ask(&query)));
    }
    /// Holds the present moment: whatever is asked of it is of one revision.
    fn hold(&self) -> Result<Held>;

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
    /// Commits some of what was submitted and not taken along by others, without waiting for anybody. Where there is more,
    /// or somebody else holds the store, it is to be called again after this time.
    fn settle(&self, settled: &mut Settled) -> Option<Duration>;
    /// Whether some of that is [vital](crate::rules::Work::is_vital).
    fn has_vital(&self) -> bool;

    fn feed(&self) -> &Feed;
    /// How many events come after one revision up to another, or a few more. Nobody else may tell that from their numbers,
    /// which are ordered and not dense. Must not wait for anything.
    fn distance(&self, from: Revision, to: Revision) -> u64;

    /// Refuses a thread that would wait for itself, for it is inside a transaction's closure, and a process that inherited
    /// the store from the one that opened it, where nobody is there to wait for.
    fn may_wait(&self, what_for: Wait) -> Result<()>;
    /// Closes the store, step by step.
    fn close(&self, how: Close<'_>, settled: &mut Settled);
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

/// What a store needs to have done now and then.
pub(crate) trait Chores {
    /// The earliest deadline of all entries: what is due then is removed by a write.
    fn next_deadline(&self) -> Result<Option<Timestamp>>;
    /// How long to leave what is due to another process, whose turn it is first.
    fn leave_due(&self, _due: Timestamp) -> Duration {
        Duration::ZERO
    }
    /// One small step of everything else; whether there is more to do.
    fn maintain(&self) -> Result<bool>;
    /// What that leaves in the log for those who read a snapshot.
    fn floors(&self) -> &Arc<Floors>;
    /// Trims the log before this revision, as far as whole transactions go; how many events went. Refuses to take from a
    /// consumer what it still needs, unless forced.
    fn trim(&self, before: Revision, force: Force) -> Result<u64>;
}

/// What a seal is changed for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    /// The text of the seal; none where the store is not sealed.
    pub(crate) text: Option<&'a str>,
    /// The last revision, where it matters.
    pub(crate) last: Option<Revision>,
}

/// What a store was when its seal was to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The text of its seal.
    pub(crate) text: Option<String>,
    /// The last revision.
    pub(crate) last: Revision,
}

impl Found {
    /// Refuses where it is not what was expected.
    pub(crate) fn meets(&self, expected: Option<&Expected<'_>>) -> Result<()> {
        let Some(Expected { text, last }) = expected else { return Ok(()) };
        if self.text.as_deref() != *text {
            return Err(Reason::OtherSeal { found: self.text.clone() }.into());
        }
        match *last {
            Some(last) if self.last != last => {
                Err(Reason::WrittenMeanwhile { last, found: self.last }.into())
            }
            _ => Ok(()),
        }
    }
}

/// What is done with a store as a whole.
pub(crate) trait Whole {
    /// What is wrong with it, with the number of entries, groups and events looked at.
    fn check(&self) -> Result<(Vec<String>, [u64; 3])>;
    /// Rebuilds the counters from the entries; what was changed.
    fn repair(&self) -> Result<Vec<String>>;
    /// Refuses every write from now on, in every process, with this text, or without one takes writes again. Where
    /// something is expected, only if that is so. What was there.
    fn change_seal(&self, expected: Option<&Expected<'_>>, to: Option<&str>) -> Result<Found>;
    /// The text of the seal, if it is sealed.
    fn sealed(&self) -> Result<Option<String>>;
    /// The namespaces that have a quota.
    fn quotas(&self) -> Result<Vec<(String, Quota)>>;
    /// Copies it as of one moment, under a new identity, to where nothing is yet.
    fn backup(&self, target: &Path, options: &mut BackupOptions) -> Result<Backup>;
}
