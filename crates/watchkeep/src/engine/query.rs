//! Reads as data: what may be asked of an engine, and what it answers. Plain values, so that an engine that reads over a
//! network serves them without a thread for each.

use std::borrow::Cow;
use std::sync::Arc;

use crate::types::clock::Timestamp;
use crate::types::consumer::ConsumerInfo;
use crate::types::entry::{Entry, GroupPage, KeyPage, Page};
use crate::types::error::{Error, Result};
use crate::types::event::Change;
use crate::types::filter::Filter;
use crate::types::name::NameRange;
use crate::types::options::Retention;
use crate::types::quota::Quota;
use crate::types::revision::{Cursor, Revision, StoreId};
use crate::types::value::Value;

use super::mixed_up;

/// A name that stands in the file.
type Name<'q> = Cow<'q, str>;

/// What is asked. Each answer is of one moment, and an entry that is due is not there.
#[derive(Debug, Clone)]
pub(crate) enum Query<'q> {
    /// `Option<Value>`.
    Value { group: Name<'q>, key: Name<'q> },
    /// [`Dated`].
    Entry { group: Name<'q>, key: Name<'q> },
    /// [`Page`]: at most `limit` entries, and at most about a megabyte.
    Entries { group: Name<'q>, keys: NameRange, limit: usize },
    /// [`KeyPage`]: at most `limit` keys.
    Keys { group: Name<'q>, keys: NameRange, limit: usize },
    /// [`GroupPage`]: at most `limit` names.
    Groups { names: NameRange, limit: usize },
    /// `u64`: how many keys a group holds.
    Count { group: Name<'q> },
    /// `u64`: how many keys a range of groups holds.
    CountAll { groups: NameRange },
    /// `Option<Quota>`: none when nothing limits the namespace.
    Quota { namespace: Name<'q> },
    /// `Vec<ConsumerInfo>`: the named consumers of a range of names.
    Consumers { names: NameRange },
    /// [`Survey`] of a range of names of groups and consumers.
    Survey { names: NameRange, namespace: Option<Name<'q>> },
    /// [`Revision`]: the last.
    Last,
    /// [`Bounds`]. Refuses a cursor of this store whose event is not here: a power cut took it, or only another copy has it.
    Bounds { after: Option<Cursor> },
    /// [`LogPage`] of what follows a place that is not lost. Answered after the close, too, while the file is there:
    /// watchers still drain.
    Log { after: Revision },
    /// `Option<Arc<Change>>`: one row of the log, if it still holds it. Answered after the close, as `Log`.
    Change { revision: Revision },
    /// [`Part`]: the next entries of what a filter is about, after those that were given.
    Part { filter: Cow<'q, Filter>, given: Option<Place> },
}

/// Whoever can be asked: a store, a moment of it that is held, an open transaction.
pub(crate) trait Ask {
    /// Answers at once. Waits for no writer.
    fn ask(&self, query: &Query<'_>) -> Result<Answer>;
}

impl Query<'_> {
    /// What asks this store for its bounds, for somebody who begins after a cursor.
    pub(crate) fn bounds(store: StoreId, after: Option<Cursor>) -> Result<Query<'static>> {
        after.map_or(Ok(()), |after| after.refuse_foreign(store))?;
        Ok(Query::Bounds { after })
    }

    /// The answer, as what it is.
    pub(crate) fn ask<T: TryFrom<Answer, Error = Error>>(&self, whom: &(impl Ask + ?Sized)) -> Result<T> {
        whom.ask(self)?.try_into()
    }

    /// Whether one statement answers it: that is of one moment by itself.
    pub(super) fn is_glance(&self) -> bool {
        use Query::{Count, Entry, Last, Quota, Value};
        matches!(self, Value { .. } | Entry { .. } | Count { .. } | Quota { .. } | Last)
    }

    /// Whether it is about the log and not about entries.
    pub(super) fn is_of_log(&self) -> bool {
        matches!(self, Query::Last | Query::Bounds { .. } | Query::Log { .. } | Query::Change { .. })
    }

    /// Whether it is answered after the close.
    pub(super) fn lingers(&self) -> bool {
        matches!(self, Query::Log { .. } | Query::Change { .. })
    }
}

/// The kinds of answers, and the way to each from what it is and back.
macro_rules! answers {
    ($($kind:ident($is:ty),)*) => {
        /// What is answered.
        #[derive(Debug, Clone)]
        pub(crate) enum Answer {
            $($kind($is),)*
        }

        $(impl From<$is> for Answer {
            fn from(is: $is) -> Answer {
                Answer::$kind(is)
            }
        }

        impl TryFrom<Answer> for $is {
            type Error = Error;

            fn try_from(answer: Answer) -> Result<$is> {
                match answer {
                    Answer::$kind(is) => Ok(is),
                    _ => Err(mixed_up()),
                }
            }
        })*
    };
}

answers! {
    Value(Option<Value>),
    Entry(Dated),
    Entries(Page),
    Keys(KeyPage),
    Groups(GroupPage),
    Number(u64),
    Quota(Option<Quota>),
    Consumers(Vec<ConsumerInfo>),
    Survey(Box<Survey>),
    Revision(Revision),
    Bounds(Bounds),
    Log(LogPage),
    Change(Option<Arc<Change>>),
    Part(Part),
}

/// An entry, if it is there, and when.
#[derive(Debug, Clone)]
pub(crate) struct Dated {
    pub(crate) entry: Option<Entry>,
    pub(crate) now: Timestamp,
}

/// Where the log begins and ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Everything up to this revision is trimmed.
    pub(crate) trimmed: Revision,
    /// The last revision.
    pub(crate) end: Revision,
}

/// A page of the change log.
#[derive(Debug, Clone)]
pub(crate) struct LogPage {
    /// Everything up to this revision is trimmed.
    pub(crate) trimmed: Revision,
    /// The log's end.
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

/// A group and a key in it; without a key, the group's end.
pub(crate) type Place = (String, Option<String>);

/// Some entries of what a filter is about, in the order of group and key.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// The revision that it was read at.
    pub(crate) revision: Revision,
    pub(crate) entries: Vec<(String, Entry)>,
    /// How far that is. A part may give nothing, and yet reach farther than the one before.
    pub(crate) reached: Option<Place>,
    /// These are the last.
    pub(crate) all: bool,
}

/// What can be said about a store, or a namespace of it, for people.
#[derive(Debug, Clone)]
pub(crate) struct Survey {
    pub(crate) totals: Totals,
    pub(crate) quota: Option<Quota>,
    pub(crate) consumers: Vec<ConsumerInfo>,
    /// How much of the past the log keeps.
    pub(crate) retention: Retention,
}

/// Sizes and counts.
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
