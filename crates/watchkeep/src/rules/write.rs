//! Writes as data, and what they did.

use std::sync::Arc;
use std::time::Duration;

use crate::types::batch::{Batch, Operation, Outcome};
use crate::types::consumer::{ConsumerStart, Force};
use crate::types::filter::Filter;
use crate::types::name::{NameRange, Scope};
use crate::types::quota::Quota;
use crate::types::revision::Revision;

use super::Stamp;

/// What is done with a named consumer. Whoever took it is known by the number of its taking, its fence: another taking,
/// a reset or a removal makes that number stale, and every act that bears it is refused from then on.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Makes it ours, and first of all makes it, if it is not there.
    Take {
        filter: Option<Filter>,
        start: ConsumerStart,
        holder: String,
        lease: Duration,
    },
    /// A sign of life. Once `handed` is acknowledged, so is everything up to `seen`.
    Keep {
        fence: u64,
        handed: Revision,
        seen: Revision,
    },
    /// Acknowledges everything up to a revision; what was acknowledged before stays so. Without one it only makes
    /// sure that the consumer is ours.
    Ack {
        fence: u64,
        upto: Option<Revision>,
    },
    /// Gives it back; nothing when it is not ours any more.
    Release {
        fence: u64,
    },
    Reset {
        to: ConsumerStart,
        force: Force,
    },
    Remove {
        force: Force,
    },
}

/// In whose name a write is made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Author {
    pub(crate) scope: Scope,
    pub(crate) origin: Option<Arc<str>>,
}

/// A write as data, which any thread may commit. Names are those that stand in the file.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) author: Author,
    pub(crate) work: Work,
}

/// What a write does.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Batch(Batch),
    /// Removes due entries of a range of groups, a bounded number.
    Reap {
        groups: NameRange,
    },
    /// What becomes of a named consumer. It changes no entry and announces nothing.
    Consumer {
        name: String,
        act: Act,
    },
    /// What a namespace may hold from now on. It changes no entry and announces nothing.
    Quota {
        namespace: String,
        quota: Quota,
    },
}

impl From<Operation> for Work {
    fn from(operation: Operation) -> Work {
        Work::Batch(operation.into())
    }
}

impl Work {
    /// What it weighs, to bound a group commit.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Work::Batch(batch) => batch.weight(),
            Work::Reap { .. } | Work::Consumer { .. } | Work::Quota { .. } => 64,
        }
    }

    /// The entries that it is about, as group and key.
    #[cfg(feature = "etcd")]
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        let operations = if let Work::Batch(batch) = self { batch.operations.as_slice() } else { &[] };
        operations.iter().filter_map(|operation| match operation {
            Operation::Set { group, key, .. }
            | Operation::Delete { group, key, .. }
            | Operation::Touch { group, key, .. } => Some((&**group, &**key)),
            Operation::DeleteGroup { .. } | Operation::DeletePrefix { .. } => None,
        })
    }

    /// Whether it is done before what others wait for: signs of life, and expiry.
    pub(crate) fn goes_first(&self) -> bool {
        matches!(self, Work::Consumer { act: Act::Keep { .. }, .. } | Work::Reap { .. })
    }

    /// Whether it is done in a sealed store: who holds a consumer goes on holding it, and can give it back.
    pub(crate) fn passes_seals(&self) -> bool {
        matches!(self, Work::Consumer { act: Act::Keep { .. } | Act::Release { .. }, .. })
    }

    /// Whether it is one of those that a store writes by itself, when nobody's thread waits for it: they wait behind
    /// nobody's callbacks.
    pub(crate) fn is_vital(&self) -> bool {
        self.goes_first() || matches!(self, Work::Consumer { act: Act::Release { .. }, .. })
    }

    /// Whether it may have changed rows when it is refused.
    pub(crate) fn is_several(&self) -> bool {
        matches!(self, Work::Batch(batch) if !batch.is_single())
    }
}

/// What an operation did, before it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Did {
    /// Set an entry, with this event.
    Set(Stamp),
    /// Deleted or touched an entry, if it was there.
    Was(bool),
    /// Deleted groups with so many keys.
    Keys(u64),
}

impl Did {
    /// The same, once it is known which revisions its events have.
    pub(crate) fn at(self, revision: impl Fn(Stamp) -> Revision) -> Outcome {
        match self {
            Did::Set(stamp) => Outcome::Set(revision(stamp)),
            Did::Was(was) => Outcome::Was(was),
            Did::Keys(keys) => Outcome::Keys(keys),
        }
    }
}

/// What a write did, before it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Each operation.
    Batch(Vec<Did>),
    /// Nothing: it was applied some time before, and did this.
    Repeated {
        revision: Revision,
        outcomes: Vec<Outcome>,
    },
    /// Removed so many due keys of groups that are there; there may be more.
    Reaped {
        keys: u64,
        more: bool,
    },
    /// A consumer is held under this number; zero when it is not held.
    Consumer(u64),
    Quota,
}
