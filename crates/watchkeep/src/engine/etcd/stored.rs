//! What stands in the rows: messages of protocol buffers, whose unknown fields an older release passes over.
//!
//! A revision of the commit that writes a row is not known before that commit: it is written as how many events of the
//! commit come after it, and read with the row's own `mod_revision`.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::rules::{Answer, ConsumerRow};
use crate::types::batch::Outcome;
use crate::types::clock::Timestamp;
use crate::types::entry::Entry;
use crate::types::error::{Error, Reason};
use crate::types::event::{Change, Kind};
use crate::types::filter::{Filter, Part, Target};
use crate::types::quota::{Quota, Usage};
use crate::types::revision::Revision;
use crate::types::value::Value;

use super::keys::Generation;

/// How many revisions each commit has: its last event has the last of them, so that the end of the log is known from the
/// feed's `mod_revision` alone.
pub(super) const PER_COMMIT: u64 = 4_096;
/// Revisions of a commit that is not made yet: its n-th event has the n-th after this.
const OPEN: u64 = 1 << 52;

/// The last revision of the commit with this `mod_revision`; zero is before the first.
pub(super) fn end_of(modified: i64) -> Revision {
    match u64::try_from(modified) {
        Ok(modified) if modified > 0 => Revision::new(modified * PER_COMMIT + PER_COMMIT - 1),
        _ => Revision::ZERO,
    }
}

/// The `mod_revision` of the commit of a revision.
pub(super) fn commit_of(revision: Revision) -> i64 {
    i64::try_from(revision.get() / PER_COMMIT).unwrap_or(i64::MAX)
}

/// The n-th event of the commit at hand.
pub(super) fn open(number: u64) -> Revision {
    Revision::new(OPEN + number)
}

/// Which event of the commit at hand that is, if it is one.
pub(super) fn number_of(revision: Revision) -> Option<u64> {
    revision.get().checked_sub(OPEN)
}

/// Makes revisions of the commit at hand real.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) modified: i64,
    /// How many events it has.
    pub(super) events: u64,
}

impl Made {
    pub(super) fn real(self, revision: Revision) -> Revision {
        match number_of(revision) {
            Some(number) => {
                let after = self.events.saturating_sub(1).saturating_sub(number);
                Revision::new(end_of(self.modified).get().saturating_sub(after))
            }
            None => revision,
        }
    }
}

/// A revision as it is stored.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct At {
    /// Zero where it is one of the commit that wrote the row.
    #[prost(uint64, tag = "1")]
    revision: u64,
    /// How many events of that commit come after it.
    #[prost(uint64, tag = "2")]
    before_end: u64,
}

impl At {
    fn of(revision: Revision, events: u64) -> At {
        match number_of(revision) {
            Some(number) => At { revision: 0, before_end: events.saturating_sub(1).saturating_sub(number) },
            // Before the first event nothing lies: a zero that is one.
            None => At { revision: revision.get() + 1, before_end: 0 },
        }
    }

    fn read(self, modified: i64) -> Revision {
        match self.revision.checked_sub(1) {
            Some(revision) => Revision::new(revision),
            None => Revision::new(end_of(modified).get().saturating_sub(self.before_end)),
        }
    }
}

/// A row that is not there.
pub(super) fn damaged(what: &str, key: &[u8]) -> Error {
    let key = String::from_utf8_lossy(key);
    Reason::Corrupt { what: format!("the {what} at {key:?} cannot be read") }.into()
}

/// A row of any kind, before it is known which commit writes it.
pub(super) trait Row: Sized {
    /// What it is, in an error.
    const WHAT: &'static str;
    /// `events`: how many the commit has that writes it.
    fn encode(&self, events: u64) -> Bytes;
    /// `modified`: of the row.
    fn decode(bytes: &[u8], modified: i64) -> Option<Self>;
    /// The lease with which it goes, if it does.
    fn lease(&self) -> i64 {
        0
    }
}

#[derive(Clone, PartialEq, Message)]
struct GroupMessage {
    #[prost(bytes = "bytes", tag = "1")]
    generation: Bytes,
    /// A group that a newer release made.
    #[prost(int64, tag = "2")]
    flags: i64,
}

/// A group; none while it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupRow {
    pub(super) generation: Option<Generation>,
    pub(super) flags: i64,
}

impl Row for GroupRow {
    const WHAT: &'static str = "group";

    fn encode(&self, _: u64) -> Bytes {
        let generation = self.generation.map(|id| id.0.to_be_bytes().to_vec().into()).unwrap_or_default();
        GroupMessage { generation, flags: self.flags }.encode_to_vec().into()
    }

    fn decode(bytes: &[u8], _: i64) -> Option<GroupRow> {
        let GroupMessage { generation, flags } = GroupMessage::decode(bytes).ok()?;
        let generation = match generation.len() {
            0 => None,
            _ => Some(Generation(u128::from_be_bytes(generation[..].try_into().ok()?))),
        };
        Some(GroupRow { generation, flags })
    }
}

#[derive(Clone, PartialEq, Message)]
struct EntryMessage {
    #[prost(bytes = "bytes", tag = "1")]
    value: Bytes,
    #[prost(message, optional, tag = "2")]
    revision: Option<At>,
    #[prost(message, optional, tag = "3")]
    created: Option<At>,
    #[prost(sint64, tag = "4")]
    updated: i64,
    #[prost(sint64, optional, tag = "5")]
    deadline: Option<i64>,
    #[prost(string, optional, tag = "6")]
    content_type: Option<String>,
}

/// An entry without its key.
#[derive(Debug, Clone)]
pub(super) struct EntryRow {
    pub(super) value: Value,
    pub(super) revision: Revision,
    pub(super) created: Revision,
    pub(super) updated: Timestamp,
    pub(super) deadline: Option<Timestamp>,
    pub(super) content_type: Option<Box<str>>,
}

impl EntryRow {
    pub(super) fn entry(self, key: &str) -> Entry {
        Entry {
            key: key.to_owned(),
            value: self.value,
            revision: self.revision,
            created: self.created,
            updated: self.updated,
            deadline: self.deadline,
            content_type: self.content_type.map(Into::into),
        }
    }

    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

impl Row for EntryRow {
    const WHAT: &'static str = "entry";

    fn encode(&self, events: u64) -> Bytes {
        let message = EntryMessage {
            value: self.value.clone().into_bytes(),
            revision: Some(At::of(self.revision, events)),
            created: Some(At::of(self.created, events)),
            updated: self.updated.as_millis(),
            deadline: self.deadline.map(Timestamp::as_millis),
            content_type: self.content_type.as_deref().map(str::to_owned),
        };
        message.encode_to_vec().into()
    }

    fn decode(bytes: &[u8], modified: i64) -> Option<EntryRow> {
        let message = EntryMessage::decode(bytes).ok()?;
        Some(EntryRow {
            value: Value::from(message.value),
            revision: message.revision?.read(modified),
            created: message.created?.read(modified),
            updated: Timestamp::from_millis(message.updated),
            deadline: message.deadline.map(Timestamp::from_millis),
            content_type: message.content_type.map(Into::into),
        })
    }
}

#[derive(Clone, PartialEq, Message)]
struct NamespaceMessage {
    #[prost(uint64, repeated, tag = "1")]
    usage: Vec<u64>,
    #[prost(uint64, repeated, tag = "2")]
    quota: Vec<u64>,
}

/// What a namespace holds, and may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct NamespaceRow {
    pub(super) usage: Usage,
    pub(super) quota: Quota,
}

impl Row for NamespaceRow {
    const WHAT: &'static str = "quota";

    fn encode(&self, _: u64) -> Bytes {
        let NamespaceRow { usage, quota } = self;
        let message = NamespaceMessage {
            usage: vec![usage.keys, usage.groups, usage.bytes],
            quota: vec![quota.max_keys, quota.max_groups, quota.max_bytes],
        };
        message.encode_to_vec().into()
    }

    fn decode(bytes: &[u8], _: i64) -> Option<NamespaceRow> {
        let NamespaceMessage { usage, quota } = NamespaceMessage::decode(bytes).ok()?;
        let [keys, groups, bytes] = usage[..].try_into().ok()?;
        let [max_keys, max_groups, max_bytes] = quota[..].try_into().ok()?;
        Some(NamespaceRow {
            usage: Usage { keys, groups, bytes },
            quota: Quota { max_keys, max_groups, max_bytes },
        })
    }
}

#[derive(Clone, PartialEq, Message)]
struct PartMessage {
    #[prost(string, tag = "1")]
    target: String,
    #[prost(string, tag = "2")]
    group: String,
    #[prost(string, optional, tag = "3")]
    key: Option<String>,
    #[prost(uint32, tag = "4")]
    kinds: u32,
    #[prost(bool, tag = "5")]
    group_deletions: bool,
    #[prost(string, optional, tag = "6")]
    excluded_origin: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ConsumerMessage {
    #[prost(message, optional, tag = "1")]
    acked: Option<At>,
    #[prost(sint64, optional, tag = "2")]
    acked_at: Option<i64>,
    #[prost(sint64, tag = "3")]
    created: i64,
    #[prost(uint64, tag = "4")]
    fence: u64,
    #[prost(string, optional, tag = "5")]
    holder: Option<String>,
    #[prost(sint64, optional, tag = "6")]
    lease_until: Option<i64>,
    #[prost(sint64, tag = "7")]
    lease: i64,
    #[prost(message, repeated, tag = "8")]
    filter: Vec<PartMessage>,
}

/// A named consumer and what it is about.
#[derive(Debug, Clone)]
pub(super) struct NamedRow {
    pub(super) row: ConsumerRow,
    pub(super) filter: Filter,
}

impl From<&Part> for PartMessage {
    fn from(part: &Part) -> PartMessage {
        let (target, group, key) = match &part.target {
            Target::Groups { prefix } => ("groups", prefix, None),
            Target::Group(group) => ("group", group, None),
            Target::Key { group, key } => ("key", group, Some(key)),
            Target::KeyPrefix { group, prefix } => ("key_prefix", group, Some(prefix)),
            Target::KeyName { groups, key } => ("key_name", groups, Some(key)),
        };
        PartMessage {
            target: target.to_owned(),
            group: group.to_string(),
            key: key.map(ToString::to_string),
            kinds: part.kinds.into(),
            group_deletions: part.group_deletions,
            excluded_origin: part.excluded_origin.as_deref().map(str::to_owned),
        }
    }
}

impl PartMessage {
    fn part(self) -> Option<Part> {
        let (group, key): (Box<str>, Option<Box<str>>) = (self.group.into(), self.key.map(Into::into));
        let target = match (self.target.as_str(), key) {
            ("groups", None) => Target::Groups { prefix: group },
            ("group", None) => Target::Group(group),
            ("key", Some(key)) => Target::Key { group, key },
            ("key_prefix", Some(prefix)) => Target::KeyPrefix { group, prefix },
            ("key_name", Some(key)) => Target::KeyName { groups: group, key },
            _ => return None,
        };
        Some(Part {
            target,
            kinds: self.kinds.try_into().ok()?,
            group_deletions: self.group_deletions,
            excluded_origin: self.excluded_origin.map(Into::into),
        })
    }
}

impl Row for NamedRow {
    const WHAT: &'static str = "consumer";

    fn encode(&self, events: u64) -> Bytes {
        let ConsumerRow { acked, acked_at, created, fence, holder, lease_until, lives: _, lease } = &self.row;
        let message = ConsumerMessage {
            acked: acked.map(|acked| At::of(acked, events)),
            acked_at: acked_at.map(Timestamp::as_millis),
            created: created.as_millis(),
            fence: *fence,
            holder: holder.clone(),
            lease_until: lease_until.map(Timestamp::as_millis),
            lease: *lease,
            filter: self.filter.parts().iter().map(Into::into).collect(),
        };
        message.encode_to_vec().into()
    }

    fn decode(bytes: &[u8], modified: i64) -> Option<NamedRow> {
        let message = ConsumerMessage::decode(bytes).ok()?;
        let row = ConsumerRow {
            acked: message.acked.map(|acked| acked.read(modified)),
            acked_at: message.acked_at.map(Timestamp::from_millis),
            created: Timestamp::from_millis(message.created),
            fence: message.fence,
            holder: message.holder,
            lease_until: message.lease_until.map(Timestamp::from_millis),
            lives: None,
            lease: message.lease,
        };
        let parts = message.filter.into_iter().map(PartMessage::part).collect::<Option<Vec<_>>>()?;
        Some(NamedRow { row, filter: Filter::of_parts(parts) })
    }
}

#[derive(Clone, PartialEq, Message)]
struct OutcomeMessage {
    #[prost(message, optional, tag = "1")]
    set: Option<At>,
    #[prost(bool, optional, tag = "2")]
    was: Option<bool>,
    #[prost(uint64, optional, tag = "3")]
    keys: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct AnswerMessage {
    #[prost(uint32, tag = "1")]
    body: u32,
    #[prost(message, optional, tag = "2")]
    revision: Option<At>,
    #[prost(message, repeated, tag = "3")]
    outcomes: Vec<OutcomeMessage>,
    #[prost(sint64, tag = "4")]
    at: i64,
}

/// The answer to a batch, and when it was given.
#[derive(Debug, Clone)]
pub(super) struct AnswerRow {
    pub(super) answer: Answer,
    pub(super) at: Timestamp,
}

impl Row for AnswerRow {
    const WHAT: &'static str = "answer";

    fn encode(&self, events: u64) -> Bytes {
        let empty = OutcomeMessage::default();
        let outcome = |outcome: &Outcome| match outcome {
            Outcome::Set(revision) => OutcomeMessage { set: Some(At::of(*revision, events)), ..empty },
            Outcome::Was(was) => OutcomeMessage { was: Some(*was), ..empty },
            Outcome::Keys(keys) => OutcomeMessage { keys: Some(*keys), ..empty },
        };
        let message = AnswerMessage {
            body: self.answer.body,
            revision: Some(At::of(self.answer.revision, events)),
            outcomes: self.answer.outcomes.iter().map(outcome).collect(),
            at: self.at.as_millis(),
        };
        message.encode_to_vec().into()
    }

    fn decode(bytes: &[u8], modified: i64) -> Option<AnswerRow> {
        let message = AnswerMessage::decode(bytes).ok()?;
        let outcome = |outcome: OutcomeMessage| match (outcome.set, outcome.was, outcome.keys) {
            (Some(set), None, None) => Some(Outcome::Set(set.read(modified))),
            (None, Some(was), None) => Some(Outcome::Was(was)),
            (None, None, Some(keys)) => Some(Outcome::Keys(keys)),
            _ => None,
        };
        let outcomes = message.outcomes.into_iter().map(outcome).collect::<Option<_>>()?;
        let answer = Answer { body: message.body, revision: message.revision?.read(modified), outcomes };
        Some(AnswerRow { answer, at: Timestamp::from_millis(message.at) })
    }
}

/// A number by itself.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Number {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
}

impl Row for Number {
    const WHAT: &'static str = "number";

    fn encode(&self, _: u64) -> Bytes {
        self.encode_to_vec().into()
    }

    fn decode(bytes: &[u8], _: i64) -> Option<Number> {
        <Number as Message>::decode(bytes).ok()
    }
}

/// A name by itself; empty for a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

impl Row for Text {
    const WHAT: &'static str = "name";

    fn encode(&self, _: u64) -> Bytes {
        self.0.clone().into()
    }

    fn decode(bytes: &[u8], _: i64) -> Option<Text> {
        Some(Text(std::str::from_utf8(bytes).ok()?.to_owned()))
    }
}

#[derive(Clone, PartialEq, Message)]
struct ChangeMessage {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(string, tag = "2")]
    group: String,
    #[prost(string, optional, tag = "3")]
    key: Option<String>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    value: Option<Bytes>,
    #[prost(string, optional, tag = "5")]
    content_type: Option<String>,
    #[prost(sint64, optional, tag = "6")]
    deadline: Option<i64>,
    #[prost(message, optional, tag = "7")]
    previous: Option<At>,
    #[prost(string, optional, tag = "8")]
    origin: Option<String>,
    #[prost(sint64, tag = "9")]
    timestamp: i64,
    /// How many events of the commit come after the last of this one's transaction.
    #[prost(uint64, tag = "10")]
    commit_before_end: u64,
    /// The value is too large to stand here: it is the one that the commit put at this key of the cluster.
    #[prost(bytes = "bytes", optional, tag = "11")]
    apart: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct RecordMessage {
    #[prost(bytes = "bytes", tag = "1")]
    id: Bytes,
    #[prost(message, repeated, tag = "2")]
    changes: Vec<ChangeMessage>,
}

/// What one version of the feed says: the events of a commit. Their revisions are those of the commit at hand.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// Tells this commit from all others.
    pub(super) id: u128,
    pub(super) changes: Vec<Change>,
}

/// An event as the feed has it, and where its value lies if it is not here.
pub(super) struct Told {
    pub(super) change: Change,
    pub(super) apart: Option<Bytes>,
}

impl Record {
    /// `apart`: where the value of the n-th event lies, if it is not to stand here.
    pub(super) fn encode(&self, apart: impl Fn(usize) -> Option<Bytes>) -> Bytes {
        let events = self.changes.len() as u64;
        let changes = self.changes.iter().enumerate().map(|(number, change)| {
            let apart = apart(number);
            let value = change.value.clone().filter(|_| apart.is_none());
            ChangeMessage {
                kind: change.kind.code().try_into().unwrap_or(0),
                group: change.group.to_string(),
                key: change.key.as_deref().map(str::to_owned),
                value: value.map(Value::into_bytes),
                content_type: change.content_type.as_deref().map(str::to_owned),
                deadline: change.deadline.map(Timestamp::as_millis),
                previous: change.previous.map(|previous| At::of(previous, events)),
                origin: change.origin.as_deref().map(str::to_owned),
                timestamp: change.timestamp.as_millis(),
                commit_before_end: At::of(change.commit, events).before_end,
                apart,
            }
        });
        let id = self.id.to_be_bytes().to_vec().into();
        RecordMessage { id, changes: changes.collect() }.encode_to_vec().into()
    }

    /// The id, and the events of the commit with this `mod_revision`.
    pub(super) fn decode(bytes: &[u8], modified: i64) -> Option<(u128, Vec<Told>)> {
        let RecordMessage { id, changes } = RecordMessage::decode(bytes).ok()?;
        let (events, end) = (changes.len() as u64, end_of(modified).get());
        let told = |(number, message): (u64, ChangeMessage)| {
            let change = Change {
                revision: Revision::new(end - (events - 1 - number)),
                commit: Revision::new(end.checked_sub(message.commit_before_end)?),
                kind: Kind::from_code(message.kind.into()).unwrap_or(Kind::Other),
                group: message.group.into(),
                key: message.key.map(Into::into),
                value: message.value.map(Value::from),
                content_type: message.content_type.map(Into::into),
                deadline: message.deadline.map(Timestamp::from_millis),
                previous: message.previous.map(|previous| previous.read(modified)),
                origin: message.origin.map(Arc::from),
                timestamp: Timestamp::from_millis(message.timestamp),
            };
            Some(Told { change, apart: message.apart })
        };
        let told = (0..).zip(changes).map(told).collect::<Option<_>>()?;
        Some((u128::from_be_bytes(id[..].try_into().ok()?), told))
    }
}

/// A change of the commit at hand, once that is made.
pub(super) fn settled(change: Change, made: Made) -> Change {
    Change {
        revision: made.real(change.revision),
        commit: made.real(change.commit),
        previous: change.previous.map(|previous| made.real(previous)),
        ..change
    }
}
