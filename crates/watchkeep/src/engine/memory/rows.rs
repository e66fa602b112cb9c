//! The rows of a store in memory, within one transaction: a copy of the state that nobody else sees yet.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::engine::job::Transaction;
use crate::rules::{
    Answer, ConsumerRow, Details, Did, Due, DuePage, GroupAndRoom, GroupRow, Head, Logged, New, Place, Room,
    Rows, Stamp,
};
use crate::types::batch::BatchId;
use crate::types::clock::Timestamp;
use crate::types::error::{Error, Reason, Result};
use crate::types::event::Change;
use crate::types::filter::Filter;
use crate::types::limits::{ANSWERS, BATCH_BYTES};
use crate::types::name::{NameRange, namespace_of};
use crate::types::quota::{Quota, Usage};
use crate::types::revision::{Cursor, Revision};

use super::spacing::Spacing;
use super::state::{Group, GroupId, Map, Namespace, OVERHEAD, Row, State, Stored, payload};

/// Where an entry is.
pub(super) type Slot = (GroupId, Arc<str>);

/// What a transaction has changed, and nobody sees yet.
pub(super) struct MemoryRows {
    /// Shared with those who read inside the transaction.
    pub(super) state: Rc<RefCell<State>>,
    marked: Option<State>,
    /// The last revision before the transaction.
    pub(super) base: Revision,
    /// The last revision with all jobs sealed so far.
    pub(super) last: Revision,
    /// What the job at hand logged, and how many bytes that is.
    pending: Vec<Change>,
    pending_bytes: i64,
    /// How many bytes all may take.
    most: u64,
    /// What the sealed jobs changed.
    changes: Vec<Arc<Change>>,
    /// Whether a deadline was given that is earlier than all others.
    pub(super) has_sooner: bool,
    spacing: Spacing,
}

impl MemoryRows {
    pub(super) fn begin(state: State, most: u64) -> MemoryRows {
        let (base, spacing) = (state.last(), state.spacing);
        MemoryRows {
            state: Rc::new(RefCell::new(state)),
            marked: None,
            base,
            last: base,
            pending: Vec::new(),
            pending_bytes: 0,
            most,
            changes: Vec::new(),
            has_sooner: false,
            spacing,
        }
    }

    /// The state with what was written, and what the jobs changed.
    pub(super) fn into_parts(self) -> (State, Vec<Arc<Change>>) {
        let state =
            Rc::try_unwrap(self.state).map_or_else(|shared| shared.borrow().clone(), RefCell::into_inner);
        (state, self.changes)
    }

    fn nth(&self, stamp: Stamp) -> Revision {
        self.revision(self.last, stamp)
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.borrow_mut())
    }

    /// Changes what a namespace holds; it goes with its last group, unless it has a quota.
    fn use_more(&self, group: &str, keys: i64, groups: i64, bytes: i64) {
        let Some(namespace) = namespace_of(group) else { return };
        self.with(|state| {
            let mut row = state.namespaces.get(namespace).copied().unwrap_or_default();
            row.usage = row.usage.plus(keys, groups, bytes);
            put_namespace(state, namespace, row);
        });
    }

    fn update(&self, group: GroupId, f: impl FnOnce(&mut Group)) {
        self.with(|state| state.groups.get_mut_cow(&group).map(f));
    }

    /// Changes an entry's deadline in the order of deadlines.
    fn reschedule(&mut self, slot: &Slot, from: Option<Timestamp>, to: Option<Timestamp>) {
        if from == to {
            return;
        }
        let at = |deadline| (deadline, slot.0, slot.1.clone());
        let sooner = self.with(|state| {
            from.map(|from| state.deadlines.remove_cow(&at(from)));
            let earliest = (&state.deadlines).into_iter().next().map(|(earliest, ..)| *earliest);
            to.map(|to| state.deadlines.insert_cow(at(to)));
            to.is_some_and(|to| earliest.is_none_or(|earliest| to < earliest))
        });
        self.has_sooner |= sooner;
    }

    fn read_due(&self, (_, id, key): &super::state::Deadline) -> Option<Due<Slot>> {
        self.with(|state| {
            let group = state.groups.get(id)?;
            let stored = group.entries.get(key)?;
            let details = Details {
                value: Some(stored.value.clone()),
                content_type: stored.content_type.clone(),
                deadline: stored.deadline,
                previous: Some(stored.revision),
            };
            let slot = (*id, key.clone());
            Some(Due { slot, group: Some(group.name.to_string()), key: Some(key.to_string()), details })
        })
    }
}

fn put_namespace(state: &mut State, name: &str, row: Namespace) {
    let name: Arc<str> = name.into();
    if row.usage.groups == 0 && !row.quota.limits() {
        state.namespaces.remove_cow(&name);
    } else {
        state.namespaces.insert_cow(name, row);
    }
}

impl Transaction for MemoryRows {
    fn mark(&mut self) -> Result<()> {
        self.marked = Some(self.state.borrow().clone());
        Ok(())
    }

    fn unmark(&mut self) -> Result<()> {
        self.marked = None;
        Ok(())
    }

    fn undo(&mut self) -> Result<()> {
        if let Some(marked) = self.marked.take() {
            *self.state.borrow_mut() = marked;
        }
        Ok(())
    }

    fn stands(&self) -> bool {
        true
    }

    fn sealed(&self) -> Option<Arc<str>> {
        self.state.borrow().sealed.clone()
    }

    fn seal(&mut self) -> Result<Option<Revision>> {
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let Some(commit) = pending.last().map(|change| change.revision) else { return Ok(None) };
        let state = &mut *self.state.borrow_mut();
        let mut total = state.newest().map_or(0, |row| row.total);
        for change in pending {
            let change = Arc::new(Change { commit, ..change });
            total += payload(&change);
            state.log.insert_cow(change.revision, Row { change: change.clone(), total });
            self.changes.push(change);
        }
        self.last = commit;
        Ok(Some(commit))
    }

    fn forget(&mut self) {
        self.pending.clear();
        self.pending_bytes = 0;
    }

    fn end(&self) -> Revision {
        self.last
    }

    fn revision(&self, end: Revision, stamp: Stamp) -> Revision {
        self.spacing.after(end, stamp.0)
    }
}

impl Rows for MemoryRows {
    type Group = GroupId;
    type Slot = Slot;

    fn group(&mut self, name: &str) -> Result<Option<GroupRow<GroupId>>> {
        Ok(self.with(|state| state.group(name).map(|(id, group)| row(id, group))))
    }

    fn group_and_room(&mut self, name: &str) -> Result<GroupAndRoom<GroupId>> {
        let group = self.group(name)?;
        let room = namespace_of(name).and_then(|namespace| {
            let Namespace { usage, quota } = self.with(|state| state.namespaces.get(namespace).copied())?;
            quota.limits().then_some(Room { usage, quota })
        });
        Ok((group, room))
    }

    fn holds(&mut self, group: GroupId, now: Timestamp) -> Result<bool> {
        let is_there = |stored: &Arc<Stored>| stored.deadline.is_none_or(|deadline| deadline > now);
        Ok(self.with(|state| {
            let group = state.groups.get(&group);
            group.is_some_and(|group| group.entries.into_iter().any(|(_, stored)| is_there(stored)))
        }))
    }

    fn groups(&mut self, names: &NameRange) -> Result<Vec<String>> {
        Ok(self.with(|state| state.groups_in(names).map(|(_, group)| group.name.to_string()).collect()))
    }

    fn make_group(&mut self, name: &str, stamp: Stamp) -> Result<GroupRow<GroupId>> {
        let id = GroupId(self.nth(stamp).get());
        let group = Group { name: name.into(), keys: 0, bytes: 0, entries: Map::new() };
        let row = row(id, &group);
        self.with(|state| {
            state.names.insert_cow(group.name.clone(), id);
            state.groups.insert_cow(id, group);
        });
        self.use_more(name, 0, 1, 0);
        Ok(row)
    }

    fn count(&mut self, group: &GroupRow<GroupId>, name: &str, keys: i64, bytes: i64) -> Result<()> {
        self.with(|state| (state.keys, state.bytes) = (state.keys + keys, state.bytes + bytes));
        if group.keys + keys == 0 {
            self.with(|state| {
                state.groups.remove_cow(&group.id);
                state.names.remove_cow(&Arc::from(name));
            });
            self.use_more(name, keys, -1, bytes);
        } else {
            self.update(group.id, |group| {
                group.keys += keys;
                group.bytes += bytes;
            });
            self.use_more(name, keys, 0, bytes);
        }
        Ok(())
    }

    fn bury(&mut self, group: &GroupRow<GroupId>, name: &str) -> Result<u64> {
        self.with(|state| {
            (state.keys, state.bytes) = (state.keys - group.keys, state.bytes - group.bytes);
            state.groups.remove_cow(&group.id);
            state.names.remove_cow(&Arc::from(name));
        });
        self.use_more(name, -group.keys, -1, -group.bytes);
        Ok(u64::try_from(group.keys).unwrap_or(0))
    }

    fn set_quota(&mut self, namespace: &str, quota: Quota) -> Result<()> {
        self.with(|state| {
            let usage: Usage = state.namespaces.get(namespace).map_or_else(Usage::default, |row| row.usage);
            put_namespace(state, namespace, Namespace { usage, quota });
        });
        Ok(())
    }

    fn entry(&mut self, group: GroupId, key: &str) -> Result<Option<Head<Slot>>> {
        Ok(self.with(|state| {
            let (key, stored) = state.groups.get(&group)?.entries.get_full(key)?;
            let bytes = i64::try_from(key.len() + stored.value.len()).unwrap_or(i64::MAX);
            let slot = (group, key.clone());
            Some(Head { slot, revision: stored.revision, deadline: stored.deadline, bytes })
        }))
    }

    fn put(&mut self, group: GroupId, key: &str, over: Option<&Slot>, new: &New<'_>) -> Result<()> {
        let slot = over.cloned().unwrap_or_else(|| (group, key.into()));
        let revision = self.nth(new.stamp);
        let (mut had, mut created) = (None, revision);
        if let Some((_, key)) = over {
            self.with(|state| {
                if let Some(stored) = state.groups.get(&group).and_then(|group| group.entries.get(key)) {
                    (had, created) = (stored.deadline, stored.created);
                }
            });
        }
        let stored = Stored {
            value: new.value.clone(),
            revision,
            created,
            updated: new.updated,
            deadline: new.deadline,
            content_type: new.content_type.map(Into::into),
        };
        self.update(group, |group| drop(group.entries.insert_cow(slot.1.clone(), Arc::new(stored))));
        self.reschedule(&slot, had, new.deadline);
        Ok(())
    }

    fn set_deadline(&mut self, slot: &Slot, deadline: Option<Timestamp>) -> Result<()> {
        let mut had = None;
        self.update(slot.0, |group| {
            let Some(stored) = group.entries.get_mut_cow(&slot.1) else { return };
            had = stored.deadline;
            let Stored { value, content_type, .. } = &**stored;
            let (value, content_type) = (value.clone(), content_type.clone());
            *stored = Arc::new(Stored { value, content_type, deadline, ..**stored });
        });
        self.reschedule(slot, had, deadline);
        Ok(())
    }

    fn remove(&mut self, slot: &Slot) -> Result<()> {
        let mut had = None;
        self.update(slot.0, |group| {
            had = group.entries.remove_cow(&slot.1).and_then(|stored| stored.deadline);
        });
        self.reschedule(slot, had, None);
        Ok(())
    }

    fn due_entry(&mut self, group: GroupId, key: &str) -> Result<Option<Due<Slot>>> {
        Ok(self.read_due(&(Timestamp::default(), group, key.into())))
    }

    fn due(&mut self, groups: &NameRange, now: Timestamp, limit: usize) -> Result<DuePage<Slot>> {
        // What deleted groups left is nobody's event.
        self.with(|state| {
            let gone = |(_, id, _): &&_| state.groups.get(id).is_none();
            let gone: Vec<_> = state.due(now).take(limit).filter(gone).cloned().collect();
            for deadline in &gone {
                state.deadlines.remove_cow(deadline);
            }
        });
        let found: Vec<_> = self.with(|state| {
            let within =
                |(_, id, _): &&_| state.groups.get(id).is_some_and(|group| groups.contains(&group.name));
            state.due(now).filter(within).take(limit.saturating_add(1)).cloned().collect()
        });
        let (mut due, mut bytes) = (Vec::new(), 0);
        for deadline in &found {
            if due.len() >= limit || bytes >= BATCH_BYTES {
                return Ok(DuePage { due, more: true });
            }
            let Some(entry) = self.read_due(deadline) else { continue };
            bytes += entry.details.value.as_deref().map_or(0, <[u8]>::len);
            due.push(entry);
        }
        Ok(DuePage { due, more: false })
    }

    fn has_due(&mut self, groups: &NameRange, now: Timestamp) -> Result<bool> {
        Ok(self.with(|state| {
            state
                .due(now)
                .any(|(_, id, _)| state.groups.get(id).is_some_and(|group| groups.contains(&group.name)))
        }))
    }

    fn is_full(&mut self, bytes: i64) -> Result<bool> {
        let pending = u64::try_from(self.pending.len()).unwrap_or(u64::MAX).saturating_mul(OVERHEAD);
        let both =
            u64::try_from(self.pending_bytes.saturating_add(bytes.saturating_mul(2))).unwrap_or(u64::MAX);
        let more = both.saturating_add(pending).saturating_add(2 * OVERHEAD);
        Ok(self.state.borrow().taken(self.most).saturating_add(more) > self.most)
    }

    fn log(&mut self, event: Logged<'_>) -> Result<Stamp> {
        let stamp = Stamp(u64::try_from(self.pending.len()).unwrap_or(u64::MAX));
        let revision = self.nth(stamp);
        // The last one has none after it.
        revision.next().ok_or(Reason::NoRevisionLeft)?;
        let change = event.change(revision);
        self.pending_bytes += payload(&change);
        self.pending.push(change);
        Ok(stamp)
    }

    fn last(&mut self) -> Result<Revision> {
        Ok(self.pending.last().map_or(self.last, |change| change.revision))
    }

    fn trimmed(&mut self) -> Result<Revision> {
        Ok(self.state.borrow().trimmed)
    }

    fn lost(&mut self, cursor: Cursor) -> Result<Option<Error>> {
        let last = self.last()?;
        Ok(self.state.borrow().epochs.refuse_lost(cursor, last).err())
    }

    fn logged(
        &mut self,
        after: Revision,
        limit: usize,
        each: &mut dyn FnMut(&Place<'_>) -> bool,
    ) -> Result<usize> {
        let mut looked_at = 0;
        for Row { change, .. } in self.state.borrow().rows_after(after).take(limit) {
            looked_at += 1;
            let place = Place {
                revision: change.revision,
                kind: Some(change.kind),
                group: &change.group,
                key: change.key.as_deref(),
                origin: change.origin.as_deref(),
            };
            if !each(&place) {
                break;
            }
        }
        Ok(looked_at)
    }

    fn answer(&mut self, id: &BatchId) -> Result<Option<Answer>> {
        let at = (Arc::from(id.client.as_str()), id.sequence);
        Ok(self.with(|state| state.answers.get(&at).map(|(_, answer)| answer.clone())))
    }

    fn newest_answer(&mut self, client: &str) -> Result<Option<u64>> {
        let client: Arc<str> = client.into();
        let all = (client.clone(), 0)..=(client, u64::MAX);
        Ok(self.with(|state| state.answers.range(all).next_back().map(|((_, sequence), _)| *sequence)))
    }

    fn keep_answer(&mut self, id: &BatchId, at: Timestamp, body: u32, done: &[Did]) -> Result<()> {
        let outcomes = done.iter().map(|did| did.at(|stamp| self.nth(stamp))).collect();
        let answer = Answer { body, revision: self.last()?, outcomes };
        let client: Arc<str> = id.client.as_str().into();
        self.with(|state| {
            state.keep_answer((client.clone(), id.sequence), at, answer);
            // As far as this one reaches: the first have none before them.
            let Some(last) = id.sequence.checked_sub(ANSWERS) else { return };
            let old = (client.clone(), 0)..=(client, last);
            let old: Vec<_> = state.answers.range(old).map(|(id, _)| id.clone()).collect();
            old.iter().for_each(|id| state.forget_answer(id));
        });
        Ok(())
    }

    fn has_consumer(&mut self, name: &str) -> Result<bool> {
        Ok(self.with(|state| state.consumers.get(name).is_some()))
    }

    fn consumer(&mut self, name: &str) -> Result<Option<ConsumerRow>> {
        Ok(self.with(|state| state.consumers.get(name).map(|(row, _)| row.clone())))
    }

    fn put_consumer(&mut self, name: &str, row: &ConsumerRow) -> Result<()> {
        self.with(|state| {
            let filter =
                state.consumers.get(name).map_or_else(Filter::everything, |(_, filter)| filter.clone());
            state.consumers.insert_cow(name.into(), (row.clone(), filter));
        });
        Ok(())
    }

    fn set_consumer_filter(&mut self, name: &str, filter: &Filter) -> Result<()> {
        self.with(|state| {
            if let Some((_, mine)) = state.consumers.get_mut_cow(name) {
                *mine = filter.clone();
            }
        });
        Ok(())
    }

    fn remove_consumer(&mut self, name: &str) -> Result<()> {
        self.with(|state| drop(state.consumers.remove_cow(&Arc::from(name))));
        Ok(())
    }

    fn fence(&mut self) -> Result<u64> {
        Ok(self.with(|state| {
            state.fence += 1;
            state.fence
        }))
    }
}

fn row(id: GroupId, group: &Group) -> GroupRow<GroupId> {
    GroupRow { id, keys: group.keys, bytes: group.bytes }
}
