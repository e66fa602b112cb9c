//! What rules ask of an engine: few reads and writes, in which a write sees what it has written.

use std::sync::Arc;

use crate::types::batch::{BatchId, Outcome};
use crate::types::clock::Timestamp;
use crate::types::error::{Error, Reason, Result};
use crate::types::event::{Change, Kind};
use crate::types::filter::Filter;
use crate::types::name::NameRange;
use crate::types::quota::{Quota, Usage};
use crate::types::revision::{Cursor, Revision};
use crate::types::value::Value;

use super::Did;

/// The n-th event of a write, counted from zero: its revision may be known only once it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(pub(crate) u64);

/// A group, with its counters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupRow<G> {
    /// What names it, and no group before or after it.
    pub(crate) id: G,
    pub(crate) keys: i64,
    pub(crate) bytes: i64,
}

/// An entry without its value, due or not.
#[derive(Debug, Clone)]
pub(crate) struct Head<S> {
    pub(crate) slot: S,
    pub(crate) revision: Revision,
    pub(crate) deadline: Option<Timestamp>,
    /// Of key and value.
    pub(crate) bytes: i64,
}

/// What a namespace with a quota holds, and may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) usage: Usage,
    pub(crate) quota: Quota,
}

/// A group, if it is there, and the room in its namespace; none where nothing limits it.
pub(crate) type GroupAndRoom<G> = (Option<GroupRow<G>>, Option<Room>);

/// An entry whose deadline has come, as far as it can be read.
#[derive(Debug)]
pub(crate) struct Due<S> {
    pub(crate) slot: S,
    /// None when the group was deleted.
    pub(crate) group: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) details: Details,
}

/// What is due, a step of it.
#[derive(Debug)]
pub(crate) struct DuePage<S> {
    pub(crate) due: Vec<Due<S>>,
    /// Whether there is more.
    pub(crate) more: bool,
}

/// What an event says besides its kind and its place.
#[derive(Debug, Default)]
pub(crate) struct Details {
    pub(crate) value: Option<Value>,
    pub(crate) content_type: Option<Box<str>>,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) previous: Option<Revision>,
}

/// An event for the log.
#[derive(Debug)]
pub(crate) struct Logged<'a> {
    pub(crate) kind: Kind,
    pub(crate) group: &'a str,
    pub(crate) key: Option<&'a str>,
    pub(crate) details: Details,
    pub(crate) origin: Option<&'a Arc<str>>,
    pub(crate) timestamp: Timestamp,
}

impl Logged<'_> {
    /// The event as it is logged, as its own commit until that is known.
    pub(crate) fn change(self, revision: Revision) -> Change {
        Change {
            revision,
            commit: revision,
            kind: self.kind,
            group: self.group.into(),
            key: self.key.map(Into::into),
            value: self.details.value,
            content_type: self.details.content_type,
            deadline: self.details.deadline,
            previous: self.details.previous,
            origin: self.origin.cloned(),
            timestamp: self.timestamp,
        }
    }
}

/// An entry on its way into the rows.
#[derive(Debug)]
pub(crate) struct New<'a> {
    /// The event that announces it.
    pub(crate) stamp: Stamp,
    pub(crate) updated: Timestamp,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) value: &'a Value,
}

/// Where a row of the log lies, for those who look for changes and need no values.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) revision: Revision,
    /// None of one that only a newer release knows.
    pub(crate) kind: Option<Kind>,
    pub(crate) group: &'a str,
    pub(crate) key: Option<&'a str>,
    pub(crate) origin: Option<&'a str>,
}

/// A named consumer, without its filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConsumerRow {
    /// Everything up to this revision is acknowledged; none while it begins with a snapshot.
    pub(crate) acked: Option<Revision>,
    pub(crate) acked_at: Option<Timestamp>,
    pub(crate) created: Timestamp,
    /// The number of its last taking.
    pub(crate) fence: u64,
    pub(crate) holder: Option<String>,
    pub(crate) lease_until: Option<Timestamp>,
    /// Whether the holder lives, where the engine knows that by itself. Where it does not, the end of the lease tells.
    pub(crate) lives: Option<bool>,
    /// In milliseconds.
    pub(crate) lease: i64,
}

/// What a batch with an id did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Stands for all that the batch said.
    pub(crate) body: u32,
    pub(crate) revision: Revision,
    pub(crate) outcomes: Vec<Outcome>,
}

/// The rows of a store, within one write. Reads see what the write has written. Point reads are the truth; ranges are
/// hints where an engine's transactions cannot hold them still, and what they find is read again there.
pub(crate) trait Rows {
    /// Names a group without another search.
    type Group: Copy;
    /// Names an entry without another search.
    type Slot: Clone;

    fn group(&mut self, name: &str) -> Result<Option<GroupRow<Self::Group>>>;
    fn group_and_room(&mut self, name: &str) -> Result<GroupAndRoom<Self::Group>>;
    /// Whether a group holds an entry that is not due.
    fn holds(&mut self, group: Self::Group, now: Timestamp) -> Result<bool>;
    /// The names of the groups of a range.
    fn groups(&mut self, names: &NameRange) -> Result<Vec<String>>;
    /// A new group, for the event that brings its first entry.
    fn make_group(&mut self, name: &str, stamp: Stamp) -> Result<GroupRow<Self::Group>>;
    /// Counts a change of a group's entries; the group goes with its last key.
    fn count(&mut self, group: &GroupRow<Self::Group>, name: &str, keys: i64, bytes: i64) -> Result<()>;
    /// Removes a group at constant cost, with all that it holds; how many keys that are.
    fn bury(&mut self, group: &GroupRow<Self::Group>, name: &str) -> Result<u64>;
    /// Gives a namespace a quota, or takes it away.
    fn set_quota(&mut self, namespace: &str, quota: Quota) -> Result<()>;

    fn entry(&mut self, group: Self::Group, key: &str) -> Result<Option<Head<Self::Slot>>>;
    /// Writes an entry: over the one in this slot, or a new one.
    fn put(&mut self, group: Self::Group, key: &str, over: Option<&Self::Slot>, new: &New<'_>) -> Result<()>;
    fn set_deadline(&mut self, slot: &Self::Slot, deadline: Option<Timestamp>) -> Result<()>;
    fn remove(&mut self, slot: &Self::Slot) -> Result<()>;

    /// One entry that is due, with what its event says.
    fn due_entry(&mut self, group: Self::Group, key: &str) -> Result<Option<Due<Self::Slot>>>;
    /// What is due in a range of groups, the earliest first, at most so many and about a megabyte. Over all groups, with
    /// what deleted groups left.
    fn due(&mut self, groups: &NameRange, now: Timestamp, limit: usize) -> Result<DuePage<Self::Slot>>;
    /// Whether anything is due in a range of groups.
    fn has_due(&mut self, groups: &NameRange, now: Timestamp) -> Result<bool>;

    /// Whether so many bytes more, in an entry and in the log, are more than there is room for, as far as the rows know.
    fn is_full(&mut self, bytes: i64) -> Result<bool>;

    /// What is said then.
    fn why_full(&mut self) -> Reason {
        Reason::Tight
    }

    fn log(&mut self, event: Logged<'_>) -> Result<Stamp>;
    /// The last revision, with what this write has logged.
    fn last(&mut self) -> Result<Revision>;
    /// Everything up to this revision is trimmed.
    fn trimmed(&mut self) -> Result<Revision>;
    /// Why a cursor of this store stands for nothing that is here, if it does not: a power cut took its event, say.
    fn lost(&mut self, cursor: Cursor) -> Result<Option<Error>>;
    /// Hands on rows of the log after a revision, at most so many, until told to stop; how many.
    fn logged(
        &mut self,
        after: Revision,
        limit: usize,
        each: &mut dyn FnMut(&Place<'_>) -> bool,
    ) -> Result<usize>;

    fn answer(&mut self, id: &BatchId) -> Result<Option<Answer>>;
    /// The highest sequence of a client that has an answer.
    fn newest_answer(&mut self, client: &str) -> Result<Option<u64>>;
    /// Keeps what this write did, and forgets the client's answers that are too far back.
    fn keep_answer(&mut self, id: &BatchId, at: Timestamp, body: u32, done: &[Did]) -> Result<()>;

    /// Whether a consumer is there, even one whose row cannot be read.
    fn has_consumer(&mut self, name: &str) -> Result<bool>;
    fn consumer(&mut self, name: &str) -> Result<Option<ConsumerRow>>;
    fn put_consumer(&mut self, name: &str, row: &ConsumerRow) -> Result<()>;
    fn set_consumer_filter(&mut self, name: &str, filter: &Filter) -> Result<()>;
    fn remove_consumer(&mut self, name: &str) -> Result<()>;
    /// A number that no taking had before, over all consumers: one that is removed and comes again gets none that an old
    /// holder knows.
    fn fence(&mut self) -> Result<u64>;
}
