//! The rows of a store in a cluster, within one transaction that is not sent yet.

use std::cell::{RefCell, RefMut};
use std::collections::HashMap;
use std::rc::Rc;

use crate::engine::job::Transaction;
use crate::rules::{
    Answer, ConsumerRow, Details, Did, Due, DuePage, GroupAndRoom, GroupRow as Group, Head, Logged, New,
    Place, Room, Rows, Stamp,
};
use crate::types::batch::BatchId;
use crate::types::clock::Timestamp;
use crate::types::error::{Error, Reason, Result};
use crate::types::event::Change;
use crate::types::filter::Filter;
use crate::types::limits::{ANSWERS, BATCH_BYTES};
use crate::types::name::{NameRange, SEPARATOR, namespace_of};
use crate::types::quota::{Quota, Usage};
use crate::types::revision::{Cursor, Revision, random};

use super::buffer::{Buffer, Of};
use super::holders;
use super::keys::{Generation, Keys};
use super::stored::{AnswerRow, EntryRow, GroupRow, NamedRow, NamespaceRow, Number, Text, number_of, open};

/// Where an entry is.
pub(super) type Slot = (Generation, Box<str>);

/// Counters are kept in namespaces with a quota only. Elsewhere a group has this many keys: more than rules ask for.
const UNCOUNTED: i64 = i64::MAX / 4;

/// What a transaction reads and writes.
pub(super) struct EtcdRows {
    /// Shared with those who read inside the transaction.
    pub(super) buffer: Rc<RefCell<Buffer>>,
    keys: Keys,
    /// The names of the groups that were met.
    names: HashMap<Generation, String>,
    /// How many entries the job at hand has put more than removed, and not counted yet, by group.
    uncounted: HashMap<Generation, i64>,
    /// The events of the jobs that are sealed.
    pub(super) sealed: Vec<Change>,
    /// What the job at hand logged.
    pending: Vec<Change>,
    /// Whether a deadline was given.
    pub(super) has_deadline: bool,
    /// Whether groups were deleted: somebody has to sweep.
    pub(super) has_buried: bool,
}

impl EtcdRows {
    pub(super) fn begin(buffer: Buffer) -> EtcdRows {
        let keys = buffer.cluster.keys.clone();
        EtcdRows {
            buffer: Rc::new(RefCell::new(buffer)),
            keys,
            names: HashMap::new(),
            uncounted: HashMap::new(),
            sealed: Vec::new(),
            pending: Vec::new(),
            has_deadline: false,
            has_buried: false,
        }
    }

    fn buffer(&self) -> RefMut<'_, Buffer> {
        self.buffer.borrow_mut()
    }

    fn nth(&self, stamp: Stamp) -> Revision {
        open(self.sealed.len() as u64 + stamp.0)
    }

    fn namespace(&self, group: &str) -> Result<Option<(String, NamespaceRow)>> {
        let Some(name) = namespace_of(group) else { return Ok(None) };
        let row = self.buffer().row::<NamespaceRow>(&self.keys.namespace(name))?;
        Ok(row.map(|row| (name.to_owned(), row)))
    }

    fn use_more(&self, group: &str, keys: i64, groups: i64, bytes: i64) -> Result<()> {
        if let Some((name, row)) = self.namespace(group)? {
            let row = NamespaceRow { usage: row.usage.plus(keys, groups, bytes), ..row };
            self.buffer().put(self.keys.namespace(&name), row);
        }
        Ok(())
    }

    /// A group that is there; where keys are counted, one that holds none is not.
    fn find(&mut self, name: &str, counted: bool) -> Result<Option<Group<Generation>>> {
        let Some(id) = generation(&mut self.buffer(), &self.keys, name)? else { return Ok(None) };
        self.names.insert(id, name.to_owned());
        if !counted {
            return Ok(Some(Group { id, keys: UNCOUNTED, bytes: 0 }));
        }
        let (from, to) = self.keys.entries(id, &NameRange::prefix(""));
        let keys = i64::try_from(self.buffer().count((&from, &to))?).unwrap_or(i64::MAX);
        let keys = keys - self.uncounted.get(&id).copied().unwrap_or_default();
        Ok((keys > 0).then_some(Group { id, keys, bytes: 0 }))
    }

    fn entry_row(&self, (group, key): (Generation, &str)) -> Result<Option<EntryRow>> {
        self.buffer().row(&self.keys.entry(group, key))
    }

    /// Moves an entry's deadline in the order of deadlines.
    fn reschedule(
        &mut self,
        (group, key): (Generation, &str),
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) {
        let mut buffer = self.buffer.borrow_mut();
        if let Some(from) = from.filter(|from| Some(*from) != to) {
            // It is written whether or not it was read: nobody else may have touched it, for the entry is compared.
            buffer.remove(self.keys.deadline(from, group, key));
        }
        if let Some(to) = to {
            let name = self.names.get(&group).cloned().unwrap_or_default();
            buffer.put(self.keys.deadline(to, group, key), Text(name));
            self.has_deadline = true;
        }
    }

    fn read_due(&self, group: &str, id: Generation, key: &str) -> Result<Option<(Due<Slot>, usize)>> {
        let is_there = generation(&mut self.buffer(), &self.keys, group)? == Some(id);
        let Some(row) = self.entry_row((id, key))? else { return Ok(None) };
        let bytes = row.value.len();
        let details = Details {
            previous: Some(row.revision),
            deadline: row.deadline,
            content_type: row.content_type,
            value: Some(row.value),
        };
        let group = is_there.then(|| group.to_owned());
        let due = Due { slot: (id, key.into()), group, key: Some(key.to_owned()), details };
        Ok(Some((due, bytes)))
    }

    /// Goes through what is due in a range of groups, the earliest first, until told to stop.
    fn each_due(
        &self,
        groups: &NameRange,
        now: Timestamp,
        mut each: impl FnMut(&str, Generation, &str, Timestamp) -> Result<bool>,
    ) -> Result<()> {
        let mut found = Vec::new();
        self.buffer().each(self.keys.due(now), Of::Rows, |_, key, row| {
            let Some((deadline, id, entry)) = self.keys.deadline_of(key) else { return Ok(true) };
            let Text(group) = row.row(key)?;
            if groups.contains(&group) {
                found.push((group, id, entry.to_owned(), deadline));
            }
            Ok(found.len() < DUE_LOOKED_AT)
        })?;
        for (group, id, key, deadline) in found {
            if !each(&group, id, &key, deadline)? {
                break;
            }
        }
        Ok(())
    }

    /// What a namespace holds.
    fn usage(&self, namespace: &str) -> Result<Usage> {
        let mut groups = Vec::new();
        let names = NameRange::prefix(&format!("{namespace}{SEPARATOR}"));
        let mut buffer = self.buffer();
        buffer.each(self.keys.groups(&names), Of::Rows, |_, key, row| {
            groups.extend(row.row::<GroupRow>(key)?.generation);
            Ok(true)
        })?;
        let mut usage = Usage::default();
        for id in groups {
            let (mut keys, mut bytes) = (0, 0);
            buffer.each(self.keys.entries(id, &NameRange::prefix("")), Of::Rows, |_, key, row| {
                let len = self.keys.entry_of(key).map_or(0, |(_, key)| key.len());
                keys += 1;
                bytes += size(len, row.row::<EntryRow>(key)?.value.len());
                Ok(true)
            })?;
            usage = usage.plus(keys, i64::from(keys > 0), bytes);
        }
        Ok(usage)
    }
}

/// How many due entries a step looks at.
const DUE_LOOKED_AT: usize = 64;

fn size(key: usize, value: usize) -> i64 {
    i64::try_from(key + value).unwrap_or(i64::MAX)
}

/// The generation of a group that was made and not deleted since.
pub(super) fn generation(buffer: &mut Buffer, keys: &Keys, name: &str) -> Result<Option<Generation>> {
    match buffer.row::<GroupRow>(&keys.group(name))? {
        Some(GroupRow { flags, .. }) if flags != 0 => {
            Err(Reason::NewerGroup { group: name.to_owned(), flags }.into())
        }
        row => Ok(row.and_then(|row| row.generation)),
    }
}

/// Whether a group holds an entry that is not due. What is not there must not come before this is committed.
pub(super) fn holds(buffer: &mut Buffer, keys: &Keys, group: Generation, now: Timestamp) -> Result<bool> {
    let range = keys.entries(group, &NameRange::prefix(""));
    let nothing = buffer.each(range.clone(), Of::Rows, |buffer, key, row| {
        let is_there = !row.row::<EntryRow>(key)?.is_due(now);
        if is_there {
            // It is compared, so that it is there when this is committed.
            buffer.row::<EntryRow>(key)?;
        }
        Ok(!is_there)
    })?;
    if nothing {
        buffer.hold_range(range);
    }
    Ok(!nothing)
}

impl Transaction for EtcdRows {
    fn mark(&mut self) -> Result<()> {
        self.buffer().mark();
        Ok(())
    }

    fn unmark(&mut self) -> Result<()> {
        self.buffer().unmark();
        Ok(())
    }

    fn undo(&mut self) -> Result<()> {
        self.buffer().undo();
        Ok(())
    }

    fn stands(&self) -> bool {
        true
    }

    fn seal(&mut self) -> Result<Option<Revision>> {
        let Some(last) = self.pending.last() else { return Ok(None) };
        let commit = last.revision;
        let pending = std::mem::take(&mut self.pending);
        self.sealed.extend(pending.into_iter().map(|change| Change { commit, ..change }));
        Ok(Some(commit))
    }

    fn forget(&mut self) {
        self.uncounted.clear();
        self.pending.clear();
    }

    fn end(&self) -> Revision {
        match self.sealed.last() {
            Some(last) => last.revision,
            None => self.buffer().cluster.tail.end(),
        }
    }

    fn revision(&self, end: Revision, stamp: Stamp) -> Revision {
        open(number_of(end).map_or(0, |number| number + 1) + stamp.0)
    }
}

impl Rows for EtcdRows {
    type Group = Generation;
    type Slot = Slot;

    fn group(&mut self, name: &str) -> Result<Option<Group<Generation>>> {
        let counted = self.namespace(name)?.is_some();
        self.find(name, counted)
    }

    fn group_and_room(&mut self, name: &str) -> Result<GroupAndRoom<Generation>> {
        let namespace = self.namespace(name)?;
        let group = self.find(name, namespace.is_some())?;
        let room = namespace.map(|(_, NamespaceRow { usage, quota })| Room { usage, quota });
        Ok((group, room.filter(|room| room.quota.limits())))
    }

    fn holds(&mut self, group: Generation, now: Timestamp) -> Result<bool> {
        holds(&mut self.buffer(), &self.keys, group, now)
    }

    fn groups(&mut self, names: &NameRange) -> Result<Vec<String>> {
        let (range, mut groups) = (self.keys.groups(names), Vec::new());
        let mut buffer = self.buffer();
        buffer.each(range.clone(), Of::Rows, |_, key, row| {
            let row: GroupRow = row.row(key)?;
            let name = self.keys.group_of(key).filter(|_| row.generation.is_some() || row.flags != 0);
            groups.extend(name.map(str::to_owned));
            Ok(true)
        })?;
        buffer.hold_range(range);
        Ok(groups)
    }

    fn make_group(&mut self, name: &str, _: Stamp) -> Result<Group<Generation>> {
        let key = self.keys.group(name);
        // Where keys are counted, a group that holds none counts as not there; it keeps its generation.
        let known = generation(&mut self.buffer(), &self.keys, name)?;
        let id = match known {
            Some(id) => id,
            None => Generation(u128::from_be_bytes(random()?)),
        };
        self.names.insert(id, name.to_owned());
        self.buffer().put(key, GroupRow { generation: Some(id), flags: 0 });
        self.use_more(name, 0, 1, 0)?;
        let keys = if self.namespace(name)?.is_some() { 0 } else { UNCOUNTED };
        Ok(Group { id, keys, bytes: 0 })
    }

    fn count(&mut self, group: &Group<Generation>, name: &str, keys: i64, bytes: i64) -> Result<()> {
        *self.uncounted.entry(group.id).or_default() -= keys;
        if keys < 0 {
            self.buffer().put(self.keys.removals(group.id), Text(String::new()));
        }
        let groups = if group.keys + keys == 0 { -1 } else { 0 };
        self.use_more(name, keys, groups, bytes)
    }

    fn bury(&mut self, group: &Group<Generation>, name: &str) -> Result<u64> {
        let range = self.keys.entries(group.id, &NameRange::prefix(""));
        let counted = self.namespace(name)?.is_some();
        let (mut keys, mut bytes) = (0, 0);
        if counted {
            self.buffer().each(range, Of::Rows, |_, key, row| {
                let len = self.keys.entry_of(key).map_or(0, |(_, key)| key.len());
                keys += 1;
                bytes += size(len, row.row::<EntryRow>(key)?.value.len());
                Ok(true)
            })?;
            self.use_more(name, -keys, -1, -bytes)?;
        } else {
            keys = i64::try_from(self.buffer().count((&range.0, &range.1))?).unwrap_or(i64::MAX);
        }
        let mut buffer = self.buffer();
        buffer.put(self.keys.group(name), GroupRow { generation: None, flags: 0 });
        buffer.put(self.keys.buried(group.id), Text(name.to_owned()));
        drop(buffer);
        self.has_buried = true;
        Ok(u64::try_from(keys).unwrap_or(0))
    }

    fn set_quota(&mut self, namespace: &str, quota: Quota) -> Result<()> {
        let key = self.keys.namespace(namespace);
        let row = self.buffer().row::<NamespaceRow>(&key)?;
        if !quota.limits() {
            self.buffer().remove(key);
            return Ok(());
        }
        let usage = match row {
            Some(row) => row.usage,
            None => {
                // Nobody counts yet: nothing may be written while we do.
                self.buffer().hold_everything()?;
                self.usage(namespace)?
            }
        };
        self.buffer().put(key, NamespaceRow { usage, quota });
        Ok(())
    }

    fn entry(&mut self, group: Generation, key: &str) -> Result<Option<Head<Slot>>> {
        Ok(self.entry_row((group, key))?.map(|row| Head {
            slot: (group, key.into()),
            revision: row.revision,
            deadline: row.deadline,
            bytes: size(key.len(), row.value.len()),
        }))
    }

    fn put(&mut self, id: Generation, key: &str, over: Option<&Slot>, new: &New<'_>) -> Result<()> {
        let revision = self.nth(new.stamp);
        let before = self.entry_row((id, key))?;
        *self.uncounted.entry(id).or_default() += i64::from(before.is_none());
        let created = before.as_ref().filter(|_| over.is_some()).map_or(revision, |row| row.created);
        let row = EntryRow {
            value: new.value.clone(),
            revision,
            created,
            updated: new.updated,
            deadline: new.deadline,
            content_type: new.content_type.map(Into::into),
        };
        self.buffer().put(self.keys.entry(id, key), row);
        self.reschedule((id, key), before.and_then(|row| row.deadline), new.deadline);
        Ok(())
    }

    fn set_deadline(&mut self, slot: &Slot, deadline: Option<Timestamp>) -> Result<()> {
        let (id, key) = (slot.0, &*slot.1);
        let Some(row) = self.entry_row((id, key))? else { return Ok(()) };
        let before = row.deadline;
        self.buffer().put(self.keys.entry(id, key), EntryRow { deadline, ..row });
        self.reschedule((id, key), before, deadline);
        Ok(())
    }

    fn remove(&mut self, slot: &Slot) -> Result<()> {
        let (id, key) = (slot.0, &*slot.1);
        let before = self.entry_row((id, key))?;
        *self.uncounted.entry(id).or_default() -= i64::from(before.is_some());
        self.buffer().remove(self.keys.entry(id, key));
        self.reschedule((id, key), before.and_then(|row| row.deadline), None);
        Ok(())
    }

    fn due_entry(&mut self, group: Generation, key: &str) -> Result<Option<Due<Slot>>> {
        let name = self.names.get(&group).cloned().unwrap_or_default();
        Ok(self.read_due(&name, group, key)?.map(|(due, _)| due))
    }

    fn due(&mut self, groups: &NameRange, now: Timestamp, limit: usize) -> Result<DuePage<Slot>> {
        // Each takes a few puts, of which a transaction has not many.
        let limit = limit.min(DUE_LOOKED_AT / 4);
        let (mut due, mut bytes, mut more) = (Vec::new(), 0, false);
        let mut stale = Vec::new();
        self.each_due(groups, now, |group, id, key, deadline| {
            if due.len() >= limit || bytes >= BATCH_BYTES || stale.len() >= limit {
                more = true;
                return Ok(false);
            }
            match self.read_due(group, id, key)? {
                Some((found, size)) if found.details.deadline == Some(deadline) => {
                    bytes += size;
                    due.push(found);
                }
                // A sweep came between.
                _ => stale.push(self.keys.deadline(deadline, id, key)),
            }
            Ok(true)
        })?;
        stale.into_iter().for_each(|key| self.buffer().remove(key));
        Ok(DuePage { due, more })
    }

    fn has_due(&mut self, groups: &NameRange, now: Timestamp) -> Result<bool> {
        let mut has_due = false;
        self.each_due(groups, now, |group, id, key, deadline| {
            let found = self.read_due(group, id, key)?;
            has_due =
                found.is_some_and(|(due, _)| due.group.is_some() && due.details.deadline == Some(deadline));
            Ok(!has_due)
        })?;
        Ok(has_due)
    }

    fn is_full(&mut self, _: i64) -> Result<bool> {
        Ok(self.buffer().cluster.full().is_some())
    }

    fn why_full(&mut self) -> Reason {
        self.buffer().cluster.full().unwrap_or(Reason::Tight)
    }

    fn log(&mut self, event: Logged<'_>) -> Result<Stamp> {
        let stamp = Stamp(self.pending.len() as u64);
        let revision = self.nth(stamp);
        self.pending.push(event.change(revision));
        Ok(stamp)
    }

    fn last(&mut self) -> Result<Revision> {
        match self.pending.last().or(self.sealed.last()) {
            Some(last) => Ok(last.revision),
            None => self.buffer().end(),
        }
    }

    fn trimmed(&mut self) -> Result<Revision> {
        Ok(self.buffer().cluster.tail.trimmed())
    }

    fn lost(&mut self, cursor: Cursor) -> Result<Option<Error>> {
        let end = self.buffer().end()?;
        Ok(self.buffer().cluster.refuse_lost(cursor, end).err())
    }

    fn logged(
        &mut self,
        after: Revision,
        limit: usize,
        each: &mut dyn FnMut(&Place<'_>) -> bool,
    ) -> Result<usize> {
        let mut buffer = self.buffer();
        // What came since is news as well.
        buffer.hold_everything()?;
        let (end, cluster) = (buffer.end()?, buffer.cluster.clone());
        drop(buffer);
        let (mut looked_at, mut at) = (0, after);
        while at < end && looked_at < limit {
            let page = cluster.log(at)?;
            if page.trimmed > at {
                // Run again, it is known that it is trimmed.
                self.buffer().note_gone();
                return Err(Reason::HistoryGone.into());
            }
            let Some(last) = page.changes.last().map(|last| last.revision) else { break };
            for change in &page.changes {
                if looked_at >= limit || change.revision > end {
                    return Ok(looked_at);
                }
                looked_at += 1;
                let place = Place {
                    revision: change.revision,
                    kind: Some(change.kind),
                    group: &change.group,
                    key: change.key.as_deref(),
                    origin: change.origin.as_deref(),
                };
                if !each(&place) {
                    return Ok(looked_at);
                }
            }
            at = last;
        }
        Ok(looked_at)
    }

    fn answer(&mut self, id: &BatchId) -> Result<Option<Answer>> {
        let key = self.keys.answer(&id.client, id.sequence);
        Ok(self.buffer().row::<AnswerRow>(&key)?.map(|row| row.answer))
    }

    fn newest_answer(&mut self, client: &str) -> Result<Option<u64>> {
        let mut newest = None;
        self.buffer().each(self.keys.answers(client), Of::Keys, |_, key, _| {
            newest = newest.max(self.keys.sequence_of(client, key));
            Ok(true)
        })?;
        Ok(newest)
    }

    fn keep_answer(&mut self, id: &BatchId, at: Timestamp, body: u32, done: &[Did]) -> Result<()> {
        let outcomes = done.iter().map(|did| did.at(|stamp| self.nth(stamp))).collect();
        let answer = Answer { body, revision: self.last()?, outcomes };
        self.buffer().put(self.keys.answer(&id.client, id.sequence), AnswerRow { answer, at });
        // As far as this one reaches: the first have none before them.
        let Some(last) = id.sequence.checked_sub(ANSWERS) else { return Ok(()) };
        let mut old = Vec::new();
        self.buffer().each(self.keys.answers(&id.client), Of::Keys, |_, key, _| {
            let is_old = self.keys.sequence_of(&id.client, key).is_some_and(|sequence| sequence <= last);
            old.extend(is_old.then(|| key.clone()));
            Ok(is_old)
        })?;
        old.into_iter().for_each(|key| self.buffer().remove(key));
        Ok(())
    }

    fn has_consumer(&mut self, name: &str) -> Result<bool> {
        let key = self.keys.consumer(name);
        self.buffer().is_there(&key)
    }

    fn consumer(&mut self, name: &str) -> Result<Option<ConsumerRow>> {
        holders::consumer(&mut self.buffer(), name)
    }

    fn put_consumer(&mut self, name: &str, row: &ConsumerRow) -> Result<()> {
        holders::put_consumer(&mut self.buffer(), name, row)
    }

    fn set_consumer_filter(&mut self, name: &str, filter: &Filter) -> Result<()> {
        let key = self.keys.consumer(name);
        let named = self.buffer().row::<NamedRow>(&key)?;
        if let Some(named) = named {
            self.buffer().put(key, NamedRow { filter: filter.clone(), ..named });
        }
        Ok(())
    }

    fn remove_consumer(&mut self, name: &str) -> Result<()> {
        self.buffer().cluster.holders.release(name);
        for key in [self.keys.consumer(name), self.keys.holder(name)] {
            self.buffer().remove(key);
        }
        Ok(())
    }

    fn fence(&mut self) -> Result<u64> {
        let key = self.keys.fences();
        let last = self.buffer().row::<Number>(&key)?.map_or(0, |fence| fence.number);
        self.buffer().put(key, Number { number: last + 1 });
        Ok(last + 1)
    }
}
