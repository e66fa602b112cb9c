//! Reads of a store in a cluster, all as of one revision.

use std::cell::{RefCell, RefMut};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::engine::LogPage;
use crate::engine::query::Totals;
use crate::engine::reads::Reads;
use crate::rules::describe;
use crate::types::clock::Timestamp;
use crate::types::consumer::ConsumerInfo;
use crate::types::entry::{Entry, KeyInfo};
use crate::types::error::Result;
use crate::types::event::Change;
use crate::types::limits::PAGE_BYTES;
use crate::types::name::NameRange;
use crate::types::options::Retention;
use crate::types::quota::Quota;
use crate::types::revision::{Cursor, Revision};
use crate::types::value::Value;

use super::buffer::{Buffer, Of};
use super::holders::{HolderRow, signed};
use super::keys::Generation;
use super::past::Past;
use super::rows::{generation, holds};
use super::settings::Settings;
use super::stored::{EntryRow, GroupRow, NamedRow, NamespaceRow};

/// Reads through a buffer, and what it writes if it writes something.
pub(super) struct EtcdRead<'b> {
    pub(super) buffer: &'b RefCell<Buffer>,
    pub(super) now: Timestamp,
    /// Whether what is read must not change before something is committed.
    pub(super) holds: bool,
}

impl EtcdRead<'_> {
    fn buffer(&self) -> RefMut<'_, Buffer> {
        self.buffer.borrow_mut()
    }

    fn row(&self, group: &str, key: &str) -> Result<Option<EntryRow>> {
        let mut buffer = self.buffer();
        let keys = buffer.cluster.keys.clone();
        let Some(id) = generation(&mut buffer, &keys, group)? else { return Ok(None) };
        let row = buffer.row::<EntryRow>(&keys.entry(id, key))?;
        Ok(row.filter(|row| !row.is_due(self.now)))
    }

    /// Goes through the entries of a group that are there, until told to stop.
    fn each(
        &self,
        group: &str,
        range: &NameRange,
        mut each: impl FnMut(&str, EntryRow) -> bool,
    ) -> Result<()> {
        let mut buffer = self.buffer();
        let keys = buffer.cluster.keys.clone();
        let Some(id) = generation(&mut buffer, &keys, group)? else { return Ok(()) };
        let range = keys.entries(id, range);
        if self.holds {
            self.hold(&mut buffer, id, range.clone())?;
        }
        buffer.each(range, Of::Rows, |_, at, row| {
            let row: EntryRow = row.row(at)?;
            let Some((_, key)) = keys.entry_of(at) else { return Ok(true) };
            Ok(row.is_due(self.now) || each(key, row))
        })?;
        Ok(())
    }

    /// Neither what is put into a range of entries nor what is removed from it goes unnoticed.
    fn hold(&self, buffer: &mut Buffer, id: Generation, range: (bytes::Bytes, bytes::Bytes)) -> Result<()> {
        buffer.hold_range(range);
        let removals = buffer.cluster.keys.removals(id);
        buffer.row::<super::stored::Text>(&removals).map(drop)
    }

    /// The groups of a range, with those that hold nothing.
    fn all_groups(&self, names: &NameRange) -> Result<Vec<(String, Generation)>> {
        let (mut buffer, mut groups) = (self.buffer(), Vec::new());
        let keys = buffer.cluster.keys.clone();
        let range = keys.groups(names);
        if self.holds {
            buffer.hold_range(range.clone());
        }
        buffer.each(range, Of::Rows, |_, key, row| {
            let id = row.row::<GroupRow>(key)?.generation;
            groups.extend(keys.group_of(key).map(str::to_owned).zip(id));
            Ok(true)
        })?;
        Ok(groups)
    }

    /// How many entries are due, of the groups that are meant.
    fn due(&self, is_meant: impl Fn(Generation) -> bool) -> Result<u64> {
        let (mut buffer, mut due) = (self.buffer(), 0);
        let keys = buffer.cluster.keys.clone();
        buffer.each(keys.due(self.now), Of::Keys, |_, key, _| {
            due += u64::from(keys.deadline_of(key).is_some_and(|(_, id, _)| is_meant(id)));
            Ok(true)
        })?;
        Ok(due)
    }

    fn count_of(&self, id: Generation) -> Result<u64> {
        let mut buffer = self.buffer();
        let (from, to) = buffer.cluster.keys.entries(id, &NameRange::prefix(""));
        if self.holds {
            self.hold(&mut buffer, id, (from.clone(), to.clone()))?;
        }
        buffer.count((&from, &to))
    }
}

impl Reads for EtcdRead<'_> {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn value(&self, group: &str, key: &str) -> Result<Option<Value>> {
        Ok(self.row(group, key)?.map(|row| row.value))
    }

    fn entry(&self, group: &str, key: &str) -> Result<Option<Entry>> {
        Ok(self.row(group, key)?.map(|row| row.entry(key)))
    }

    fn entries(&self, group: &str, keys: &NameRange, limit: usize) -> Result<(Vec<Entry>, bool)> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        self.each(group, keys, |key, row| {
            bytes += key.len() + row.value.len();
            entries.push(row.entry(key));
            entries.len() < limit && bytes < PAGE_BYTES
        })?;
        let more = entries.len() >= limit || bytes >= PAGE_BYTES;
        Ok((entries, more))
    }

    fn keys(&self, group: &str, keys: &NameRange, limit: usize) -> Result<Vec<KeyInfo>> {
        let mut found = Vec::new();
        self.each(group, keys, |key, row| {
            found.push((&row.entry(key)).into());
            found.len() < limit
        })?;
        Ok(found)
    }

    fn groups(&self, names: &NameRange, limit: usize) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for (name, id) in self.all_groups(names)? {
            if found.len() >= limit {
                break;
            }
            let mut buffer = self.buffer();
            let keys = buffer.cluster.keys.clone();
            if holds(&mut buffer, &keys, id, self.now)? {
                found.push(name);
            }
        }
        Ok(found)
    }

    fn count(&self, group: &str) -> Result<u64> {
        let id = {
            let mut buffer = self.buffer();
            let keys = buffer.cluster.keys.clone();
            generation(&mut buffer, &keys, group)?
        };
        let Some(id) = id else { return Ok(0) };
        Ok(self.count_of(id)?.saturating_sub(self.due(|due| due == id)?))
    }

    fn count_all(&self, groups: &NameRange) -> Result<u64> {
        let groups = self.all_groups(groups)?;
        let mut keys = 0;
        for (_, id) in &groups {
            keys += self.count_of(*id)?;
        }
        Ok(keys.saturating_sub(self.due(|due| groups.iter().any(|(_, id)| *id == due))?))
    }

    fn last(&self) -> Result<Revision> {
        self.buffer().end()
    }

    fn trimmed(&self) -> Result<Revision> {
        Ok(self.buffer().cluster.tail.trimmed())
    }

    fn log(&self, after: Revision) -> Result<LogPage> {
        let cluster = self.buffer().cluster.clone();
        cluster.log(after)
    }

    fn refuse_lost(&self, cursor: Cursor) -> Result<()> {
        let mut buffer = self.buffer();
        let end = buffer.end()?;
        buffer.cluster.refuse_lost(cursor, end)
    }

    fn change(&self, revision: Revision) -> Result<Option<Arc<Change>>> {
        let cluster = self.buffer().cluster.clone();
        cluster.change(revision)
    }

    fn totals(&self, groups: &NameRange) -> Result<Totals> {
        let all = self.all_groups(groups)?;
        let (mut entries, mut number, mut bytes) = (0, 0, 0);
        for (name, _) in &all {
            // Sizes are counted nowhere: all of it is read.
            let mut held = 0_u64;
            self.each(name, &NameRange::prefix(""), |key, row| {
                held += 1;
                bytes += (key.len() + row.value.len()) as u64;
                true
            })?;
            (entries, number) = (entries + held, number + u64::from(held > 0));
        }
        let mut buffer = self.buffer();
        let last = buffer.end()?;
        let past = Past(buffer.cluster.clone());
        let keys = buffer.cluster.keys.clone();
        let groups: HashSet<_> = all.iter().map(|(_, id)| *id).collect();
        let mut next_deadline = None;
        buffer.each(keys.all_deadlines(), Of::Keys, |_, key, _| {
            let meant = keys.deadline_of(key).filter(|(_, id, _)| groups.contains(id));
            next_deadline = meant.map(|(deadline, ..)| deadline);
            Ok(next_deadline.is_none())
        })?;
        drop(buffer);
        let (first, log_events, log_bytes) = past.extent(last)?;
        Ok(Totals { entries, groups: number, bytes, last, first, log_events, log_bytes, next_deadline })
    }

    fn quota(&self, namespace: &str) -> Result<Option<Quota>> {
        let mut buffer = self.buffer();
        let key = buffer.cluster.keys.namespace(namespace);
        Ok(buffer.row::<NamespaceRow>(&key)?.map(|row| row.quota).filter(Quota::limits))
    }

    fn consumers(&self, names: &NameRange) -> Result<Vec<ConsumerInfo>> {
        let (mut buffer, mut found) = (self.buffer(), Vec::new());
        let keys = buffer.cluster.keys.clone();
        let mut holders: HashMap<String, HolderRow> = HashMap::new();
        buffer.each(keys.holders(names), Of::Rows, |_, key, row| {
            // One that cannot be read says nothing.
            holders.extend(keys.held_of(key).map(str::to_owned).zip(row.row(key).ok()));
            Ok(true)
        })?;
        buffer.each(keys.consumers(names), Of::Rows, |_, key, row| {
            let NamedRow { row, filter } = row.row(key)?;
            found.extend(
                keys.consumer_of(key).map(|name| (name.to_owned(), signed(row, holders.get(name)), filter)),
            );
            Ok(true)
        })?;
        let past = Past(buffer.cluster.clone());
        drop(buffer);
        found.into_iter().map(|(name, row, filter)| describe(name, row, filter, &past, self.now)).collect()
    }

    fn retention(&self) -> Result<Retention> {
        let mut buffer = self.buffer();
        let key = buffer.cluster.keys.settings();
        Ok(buffer.row::<Settings>(&key)?.unwrap_or_default().kept())
    }
}
