//! All rows of a store in memory, in maps that share what did not change: a copy is a few pointers.

use std::ops::Bound;
use std::sync::Arc;

use crate::engine::epochs::Epochs;
use crate::rules::{Answer, ConsumerRow, Lag, LogRow, Past, search, whole_transactions};
use crate::types::batch::Outcome;
use crate::types::clock::Timestamp;
use crate::types::consumer::Force;
use crate::types::entry::Entry;
use crate::types::error::{Reason, Result};
use crate::types::event::Change;
use crate::types::filter::Filter;
use crate::types::name::NameRange;
use crate::types::options::Retention;
use crate::types::quota::{Quota, Usage};
use crate::types::revision::{Epoch, Revision};
use crate::types::value::Value;

use super::spacing::Spacing;

/// How many elements lie together: what a commit copies to change one of them, in memory and on the stack.
const CHUNK: usize = 16;

/// What an entry or a row of the log takes beside its names and its value, in bytes, about.
pub(super) const OVERHEAD: u64 = 256;

pub(super) type Map<K, V> = immutable_chunkmap::map::Map<K, V, CHUNK>;
type Set<K> = immutable_chunkmap::set::Set<K, CHUNK>;

/// An entry.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) value: Value,
    pub(super) revision: Revision,
    pub(super) created: Revision,
    pub(super) updated: Timestamp,
    pub(super) deadline: Option<Timestamp>,
    pub(super) content_type: Option<Box<str>>,
}

impl Stored {
    pub(super) fn entry(&self, key: &str) -> Entry {
        Entry {
            key: key.to_owned(),
            value: self.value.clone(),
            revision: self.revision,
            created: self.created,
            updated: self.updated,
            deadline: self.deadline,
            content_type: self.content_type.as_deref().map(str::to_owned),
        }
    }
}

/// A group, with its entries.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) name: Arc<str>,
    pub(super) keys: i64,
    pub(super) bytes: i64,
    pub(super) entries: Map<Arc<str>, Arc<Stored>>,
}

/// What a namespace holds, and may hold.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Namespace {
    pub(super) usage: Usage,
    pub(super) quota: Quota,
}

/// A row of the log.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) change: Arc<Change>,
    /// The running total of bytes, with it.
    pub(super) total: i64,
}

impl From<&Row> for LogRow {
    fn from(row: &Row) -> LogRow {
        LogRow { revision: row.change.revision, total: row.total, timestamp: row.change.timestamp }
    }
}

/// The revision of a group's first event: never used before, never again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupId(pub(super) u64);

/// A deadline of an entry.
pub(super) type Deadline = (Timestamp, GroupId, Arc<str>);

#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) names: Map<Arc<str>, GroupId>,
    pub(super) groups: Map<GroupId, Group>,
    pub(super) deadlines: Set<Deadline>,
    pub(super) namespaces: Map<Arc<str>, Namespace>,
    pub(super) consumers: Map<Arc<str>, (ConsumerRow, Filter)>,
    pub(super) answers: Map<(Arc<str>, u64), (Timestamp, Answer)>,
    pub(super) log: Map<Revision, Row>,
    pub(super) trimmed: Revision,
    /// Why nothing is written, if nothing is.
    pub(super) sealed: Option<Arc<str>>,
    /// Of all entries.
    pub(super) keys: i64,
    pub(super) bytes: i64,
    /// What the answers take, in bytes, about.
    pub(super) answered: u64,
    /// The number of the last taking of a consumer.
    pub(super) fence: u64,
    /// How much of the past the log keeps.
    pub(super) retention: Retention,
    pub(super) epochs: Arc<Epochs>,
    /// How far it is from one revision to the next.
    pub(super) spacing: Spacing,
    /// Which commit it is as of: some change rows without a revision.
    pub(super) commit: u64,
}

impl State {
    pub(super) fn new(epoch: Epoch, spacing: Spacing) -> State {
        State {
            epochs: Arc::new(Epochs::only(epoch)),
            names: Map::new(),
            groups: Map::new(),
            deadlines: Set::new(),
            namespaces: Map::new(),
            consumers: Map::new(),
            answers: Map::new(),
            log: Map::new(),
            trimmed: Revision::ZERO,
            sealed: None,
            keys: 0,
            bytes: 0,
            answered: 0,
            fence: 0,
            retention: Retention::default(),
            spacing,
            commit: 0,
        }
    }

    /// What entries take, in bytes, about.
    fn entry_weight(&self) -> u64 {
        let entries = u64::try_from(self.keys).unwrap_or(0).saturating_mul(OVERHEAD);
        entries.saturating_add(u64::try_from(self.bytes).unwrap_or(0))
    }

    /// What the log takes, in bytes, about.
    pub(super) fn log_weight(&self) -> u64 {
        let first = self.rows_after(self.trimmed).next();
        first.map_or(0, |first| self.weight_from(&first.into()).saturating_add(first.change.payload() as u64))
    }

    /// What the log takes after a row, with an overhead for that row itself.
    fn weight_from(&self, row: &LogRow) -> u64 {
        let bytes = self.newest().map_or(0, |newest| newest.total.saturating_sub(row.total));
        let rows = self.spacing.events(row.revision, self.last()) + 1;
        u64::try_from(bytes).unwrap_or(0).saturating_add(rows.saturating_mul(OVERHEAD))
    }

    /// What entries take, and the log as far as it may.
    pub(super) fn taken(&self, most: u64) -> u64 {
        let log = self.log_weight().min(most / 2);
        self.entry_weight().saturating_add(self.answered).saturating_add(log)
    }

    /// Drops as much of the log as leaves no more than this, in whole transactions; the newest always stays.
    pub(super) fn trim_to(&mut self, most: u64) {
        let range = (self.trimmed, self.last());
        let row = search(self, range, |row| self.weight_from(row).saturating_sub(OVERHEAD) <= most);
        // What is in memory can be read.
        if let Ok(Some(row)) = row
            && let Ok(Some(cut)) = whole_transactions(self, row.revision)
        {
            self.trim(cut);
        }
    }

    pub(super) fn last(&self) -> Revision {
        self.newest().map_or(self.trimmed, |row| row.change.revision)
    }

    pub(super) fn newest(&self) -> Option<&Row> {
        self.log.into_iter().next_back().map(|(_, row)| row)
    }

    pub(super) fn group(&self, name: &str) -> Option<(GroupId, &Group)> {
        let id = *self.names.get(name)?;
        Some((id, self.groups.get(&id)?))
    }

    pub(super) fn stored(&self, group: &str, key: &str) -> Option<&Arc<Stored>> {
        self.group(group)?.1.entries.get(key)
    }

    /// The groups of a range of names.
    pub(super) fn groups_in<'a>(
        &'a self,
        names: &'a NameRange,
    ) -> impl Iterator<Item = (GroupId, &'a Group)> {
        let ids = self.names.range::<str, _>(bounds(names)).map(|(_, id)| *id);
        ids.filter_map(|id| Some((id, self.groups.get(&id)?)))
    }

    /// The rows of the log after a revision.
    pub(super) fn rows_after(&self, after: Revision) -> impl DoubleEndedIterator<Item = &Row> {
        self.rows_in(after, None)
    }

    /// The rows of the log after a revision, up to another.
    pub(super) fn rows_in(
        &self,
        after: Revision,
        upto: Option<Revision>,
    ) -> impl DoubleEndedIterator<Item = &Row> {
        let upto = upto.map_or(Bound::Unbounded, |upto| Bound::Included(upto.max(after)));
        self.log.range::<Revision, _>((Bound::Excluded(after), upto)).map(|(_, row)| row)
    }

    /// Drops the log up to a revision.
    pub(super) fn trim(&mut self, cut: Revision) {
        let gone: Vec<_> = self.log.range::<Revision, _>(..=cut).map(|(revision, _)| *revision).collect();
        gone.iter().for_each(|revision| drop(self.log.remove_cow(revision)));
        self.trimmed = self.trimmed.max(cut);
    }

    /// Trims before a revision, as far as whole transactions go; how many events went.
    pub(super) fn trim_before(&mut self, before: Revision, force: Force) -> Result<u64> {
        let to = Revision::new(before.get().saturating_sub(1));
        let Some(cut) = whole_transactions(self, to)? else { return Ok(0) };
        let held = self.consumers.into_iter().filter_map(|(name, (row, _))| Some((name, row.acked?)));
        match held.min_by_key(|(_, acked)| *acked) {
            Some((name, after)) if after < cut && force == Force::No => {
                return Err(Reason::Needed { name: name.to_string(), after }.into());
            }
            _ => {}
        }
        let kept = self.log.len();
        self.trim(cut);
        Ok(u64::try_from(kept - self.log.len()).unwrap_or(u64::MAX))
    }

    pub(super) fn keep_answer(&mut self, id: (Arc<str>, u64), at: Timestamp, answer: Answer) {
        self.answered += answer_weight(&answer);
        if let Some((_, before)) = self.answers.insert_cow(id, (at, answer)) {
            self.answered -= answer_weight(&before);
        }
    }

    pub(super) fn forget_answer(&mut self, id: &(Arc<str>, u64)) {
        if let Some((_, answer)) = self.answers.remove_cow(id) {
            self.answered -= answer_weight(&answer);
        }
    }

    /// The answers that were given before a time.
    pub(super) fn old_answers(&self, before: Timestamp) -> Vec<(Arc<str>, u64)> {
        let old = self.answers.into_iter().filter(|(_, (at, _))| *at < before);
        old.map(|(id, _)| id.clone()).collect()
    }

    /// Counters that are not what they count, a sentence each.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (_, group) in &self.groups {
            let sizes = group.entries.into_iter().map(|(key, stored)| key.len() + stored.value.len());
            let is = (group.entries.len(), sizes.sum::<usize>());
            if (usize::try_from(group.keys), usize::try_from(group.bytes)) != (Ok(is.0), Ok(is.1)) {
                let (name, keys, bytes) = (&group.name, group.keys, group.bytes);
                problems
                    .push(format!("group {name:?} counts {keys} keys and {bytes} bytes, and holds {is:?}"));
            }
        }
        problems
    }

    /// Deadlines that have come, the earliest first.
    pub(super) fn due(&self, now: Timestamp) -> impl Iterator<Item = &Deadline> {
        self.deadlines.into_iter().take_while(move |(deadline, ..)| *deadline <= now)
    }
}

/// A range of names as a map takes it.
pub(super) fn bounds(names: &NameRange) -> (Bound<&str>, Bound<&str>) {
    let from = match &names.from {
        Bound::Included(from) => Bound::Included(from.as_str()),
        Bound::Excluded(from) => Bound::Excluded(from.as_str()),
        Bound::Unbounded => Bound::Unbounded,
    };
    (from, names.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded))
}

impl Lag for State {
    fn trimmed(&self) -> Result<Revision> {
        Ok(self.trimmed)
    }

    fn end(&self) -> Result<(Revision, i64)> {
        Ok((self.last(), self.newest().map_or(0, |row| row.total)))
    }

    fn first_after(&self, revision: Revision) -> Result<Option<(LogRow, i64)>> {
        let first = self.rows_after(revision).next();
        Ok(first.map(|row| (row.into(), row.total - payload(&row.change))))
    }

    fn events_after(&self, revision: Revision) -> Result<u64> {
        Ok(self.spacing.events(revision, self.last()))
    }
}

impl Past for State {
    fn before_newest(&self, count: u64) -> Result<Revision> {
        Ok(self.spacing.before_newest(self.last(), count))
    }

    fn ahead(&self, revision: Revision, events: u64) -> Result<Revision> {
        Ok(self.spacing.after(revision, events.saturating_sub(1)))
    }

    fn row_from(&self, revision: Revision) -> Result<Option<LogRow>> {
        Ok(self.log.range::<Revision, _>(revision..).next().map(|(_, row)| row.into()))
    }

    fn commit_of(&self, revision: Revision) -> Result<Option<Revision>> {
        Ok(self.log.get(&revision).map(|row| row.change.commit))
    }

    fn first_within(
        &self,
        (after, upto): (Revision, Revision),
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Option<Revision>> {
        let mut rows = self.rows_in(after, Some(upto));
        let found = rows.find(|row| (from..=to).contains(&row.change.timestamp));
        Ok(found.map(|row| row.change.revision))
    }

    fn last_before(&self, (after, upto): (Revision, Revision), time: Timestamp) -> Result<Option<Revision>> {
        let mut rows = self.rows_in(after, Some(upto)).rev();
        Ok(rows.find(|row| row.change.timestamp < time).map(|row| row.change.revision))
    }

    fn last_end(&self, (after, upto): (Revision, Revision)) -> Result<Option<Revision>> {
        let mut rows = self.rows_in(after, Some(upto)).rev();
        Ok(rows.find(|row| row.change.revision == row.change.commit).map(|row| row.change.revision))
    }

    fn floor(&self) -> Result<Option<Revision>> {
        Ok(self.consumers.into_iter().filter_map(|(_, (row, _))| row.acked).min())
    }
}

fn answer_weight(answer: &Answer) -> u64 {
    OVERHEAD + (answer.outcomes.len() * size_of::<Outcome>()) as u64
}

pub(super) fn payload(change: &Change) -> i64 {
    i64::try_from(change.payload()).unwrap_or(i64::MAX)
}
