//! Reads of a state in memory: whoever has one sees nothing that is written later.

use std::sync::Arc;

use crate::engine::LogPage;
use crate::engine::query::Totals;
use crate::engine::reads::Reads;
use crate::rules::{Lag as _, describe};
use crate::types::clock::Timestamp;
use crate::types::consumer::ConsumerInfo;
use crate::types::entry::{Entry, KeyInfo};
use crate::types::error::Result;
use crate::types::event::Change;
use crate::types::limits::{PAGE_BYTES, PAGE_ENTRIES};
use crate::types::name::NameRange;
use crate::types::options::Retention;
use crate::types::quota::Quota;
use crate::types::revision::{Cursor, Revision};
use crate::types::value::Value;

use super::state::{GroupId, State, Stored, bounds};

/// Reads as of one moment.
pub(super) struct MemoryRead<'s> {
    pub(super) state: &'s State,
    pub(super) now: Timestamp,
}

impl MemoryRead<'_> {
    fn is_there(&self, stored: &Stored) -> bool {
        stored.deadline.is_none_or(|deadline| deadline > self.now)
    }

    /// The entries of a range of keys that are there.
    fn range<'a>(
        &'a self,
        group: &str,
        keys: &'a NameRange,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Stored>)> {
        let group = self.state.group(group);
        let entries = group.map(|(_, group)| group.entries.range::<str, _>(bounds(keys)));
        entries.into_iter().flatten().filter(|(_, stored)| self.is_there(stored))
    }

    /// How many entries of these groups are due.
    fn due(&self, is_meant: impl Fn(GroupId) -> bool) -> u64 {
        let due = self.state.due(self.now).filter(|(_, id, _)| is_meant(*id)).count();
        u64::try_from(due).unwrap_or(u64::MAX)
    }

    fn due_in(&self, groups: &NameRange) -> u64 {
        let name = |id| self.state.groups.get(&id).map(|group| &group.name);
        self.due(|id| name(id).is_some_and(|name| groups.contains(name)))
    }
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

impl Reads for MemoryRead<'_> {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn value(&self, group: &str, key: &str) -> Result<Option<Value>> {
        let stored = self.state.stored(group, key).filter(|stored| self.is_there(stored));
        Ok(stored.map(|stored| stored.value.clone()))
    }

    fn entry(&self, group: &str, key: &str) -> Result<Option<Entry>> {
        let stored = self.state.stored(group, key).filter(|stored| self.is_there(stored));
        Ok(stored.map(|stored| stored.entry(key)))
    }

    fn entries(&self, group: &str, keys: &NameRange, limit: usize) -> Result<(Vec<Entry>, bool)> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for (key, stored) in self.range(group, keys) {
            if entries.len() >= limit || bytes >= PAGE_BYTES {
                break;
            }
            bytes += key.len() + stored.value.len();
            entries.push(stored.entry(key));
        }
        let more = entries.len() >= limit || bytes >= PAGE_BYTES;
        Ok((entries, more))
    }

    fn keys(&self, group: &str, keys: &NameRange, limit: usize) -> Result<Vec<KeyInfo>> {
        Ok(self.range(group, keys).take(limit).map(|(key, stored)| (&stored.entry(key)).into()).collect())
    }

    fn groups(&self, names: &NameRange, limit: usize) -> Result<Vec<String>> {
        let groups = self.state.groups_in(names);
        let there = groups.filter(|(_, group)| group.entries.into_iter().any(|(_, it)| self.is_there(it)));
        Ok(there.take(limit).map(|(_, group)| group.name.to_string()).collect())
    }

    fn count(&self, group: &str) -> Result<u64> {
        Ok(self
            .state
            .group(group)
            .map_or(0, |(id, group)| count(group.keys).saturating_sub(self.due(|due| due == id))))
    }

    fn count_all(&self, groups: &NameRange) -> Result<u64> {
        let keys = self.state.groups_in(groups).map(|(_, group)| count(group.keys)).sum::<u64>();
        Ok(keys.saturating_sub(self.due_in(groups)))
    }

    fn last(&self) -> Result<Revision> {
        Ok(self.state.last())
    }

    fn trimmed(&self) -> Result<Revision> {
        Ok(self.state.trimmed)
    }

    fn log(&self, after: Revision) -> Result<LogPage> {
        let (trimmed, end) = (self.state.trimmed, self.state.last());
        let (mut changes, mut bytes) = (Vec::new(), 0);
        for row in self.state.rows_after(after.max(trimmed)).take(PAGE_ENTRIES) {
            bytes += row.change.weight();
            changes.push(row.change.clone());
            if bytes >= PAGE_BYTES {
                break;
            }
        }
        Ok(LogPage { trimmed, end, changes })
    }

    fn refuse_lost(&self, cursor: Cursor) -> Result<()> {
        self.state.epochs.refuse_lost(cursor, self.state.last())
    }

    fn change(&self, revision: Revision) -> Result<Option<Arc<Change>>> {
        let row = self.state.log.get(&revision).filter(|_| revision > self.state.trimmed);
        Ok(row.map(|row| row.change.clone()))
    }

    fn retention(&self) -> Result<Retention> {
        Ok(self.state.retention)
    }

    fn totals(&self, groups: &NameRange) -> Result<Totals> {
        let (mut keys, mut number, mut bytes) = (0, 0, 0);
        for (_, group) in self.state.groups_in(groups) {
            (keys, number, bytes) = (keys + count(group.keys), number + 1, bytes + count(group.bytes));
        }
        let is_meant = |id: &GroupId| self.state.groups.get(id).is_some_and(|it| groups.contains(&it.name));
        let mut deadlines = self.state.deadlines.into_iter();
        let (last, total) = self.state.end()?;
        let first = self.state.first_after(self.state.trimmed)?;
        Ok(Totals {
            entries: keys.saturating_sub(self.due_in(groups)),
            groups: number,
            bytes,
            last,
            first: first.map_or(last, |(row, _)| row.revision),
            log_events: self.state.events_after(self.state.trimmed)?,
            log_bytes: first.map_or(0, |(_, before)| count(total - before)),
            next_deadline: deadlines.find(|(_, id, _)| is_meant(id)).map(|(deadline, ..)| *deadline),
        })
    }

    fn quota(&self, namespace: &str) -> Result<Option<Quota>> {
        let row = self.state.namespaces.get(namespace);
        Ok(row.map(|row| row.quota).filter(Quota::limits))
    }

    fn consumers(&self, names: &NameRange) -> Result<Vec<ConsumerInfo>> {
        let rows = self.state.consumers.range::<str, _>(bounds(names));
        rows.map(|(name, (row, filter))| {
            describe(name.to_string(), row.clone(), filter.clone(), self.state, self.now)
        })
        .collect()
    }
}
