//! Operations on entries: every change of one goes through here, and logs what it did.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::batch::Operation;
use crate::types::clock::Timestamp;
use crate::types::error::{ErrorKind, Reason};
use crate::types::event::Kind;
use crate::types::name::{NameRange, SEPARATOR, check_content_type, namespace_of};
use crate::types::quota::Usage;
use crate::types::revision::Revision;
use crate::types::value::Value;
use crate::types::writing::{Expected, Ttl};

use super::{
    Details, Did, Due, GroupRow, Head, Job, Logged, New, Result, Room, Rows, Stamp, Stop, checked, refuse,
};

/// The parts of [`Operation::Set`].
struct Set<'a> {
    group: &'a str,
    key: &'a str,
    value: &'a Value,
    ttl: Ttl,
    expected: Option<Expected>,
    content_type: Option<&'a str>,
}

/// A group and one of its entries that is there.
type There<R> = (GroupRow<<R as Rows>::Group>, Head<<R as Rows>::Slot>);

/// A group and one of its entries, due or not.
struct Spot<R: Rows> {
    group: Option<GroupRow<R::Group>>,
    head: Option<Head<R::Slot>>,
}

impl<R: Rows> Job<'_, R> {
    pub(super) fn entries(&mut self, operation: &Operation) -> Result<Did> {
        match operation {
            Operation::Set { group, key, value, ttl, expected, content_type } => self.set(&Set {
                group,
                key,
                value,
                ttl: *ttl,
                expected: *expected,
                content_type: content_type.as_deref(),
            }),
            Operation::Delete { group, key, expected } => self.delete(group, key, *expected),
            Operation::DeleteGroup { group } => self.delete_group(group),
            Operation::DeletePrefix { prefix } => self.delete_groups(prefix),
            Operation::Touch { group, key, ttl } => self.touch(group, key, *ttl),
        }
    }

    pub(super) fn is_due(&self, deadline: Option<Timestamp>) -> bool {
        deadline.is_some_and(|deadline| deadline <= self.moment.now)
    }

    fn set(&mut self, set: &Set<'_>) -> Result<Did> {
        let (limits, now) = (self.moment.limits, self.moment.now);
        checked(limits.check_group(set.group))?;
        checked(limits.check_key(set.key))?;
        checked(limits.check_value(set.value))?;
        checked(set.content_type.map_or(Ok(()), check_content_type))?;
        let (group, room) = self.rows.group_and_room(set.group)?;
        let head = self.head(group.as_ref(), set.key)?;
        let mut spot: Spot<R> = Spot { group, head };
        let there = spot.head.as_ref().filter(|head| !self.is_due(head.deadline)).cloned();
        expect(set.expected, set.group, set.key, there.as_ref())?;
        let deadline = match set.ttl {
            Ttl::Clear => None,
            Ttl::Keep => there.as_ref().and_then(|there| there.deadline),
            Ttl::For(ttl) => Some(checked(now.deadline(ttl))?),
            Ttl::Until(deadline) => Some(checked(now.ahead(deadline))?),
        };
        if self.moment.is_tight || self.rows.is_full(len(set.key) + len(set.value))? {
            return refuse(self.rows.why_full());
        }
        self.need_room(set, room, &spot)?;

        // Everything that can refuse the write came before this.
        if there.is_none() && spot.head.is_some() {
            self.expire_here(&spot, set.key)?;
            spot = Spot { group: self.rows.group(set.group)?, head: None };
        }
        let details = Details {
            value: Some(set.value.clone()),
            content_type: set.content_type.map(Into::into),
            deadline,
            previous: there.as_ref().map(|there| there.revision),
        };
        let stamp = self.log(Kind::Set, set.group, Some(set.key), details)?;
        let group = match spot.group {
            Some(group) => group,
            None => self.rows.make_group(set.group, stamp)?,
        };
        let new = New { stamp, updated: now, deadline, content_type: set.content_type, value: set.value };
        self.rows.put(group.id, set.key, there.as_ref().map(|there| &there.slot), &new)?;
        let bytes = len(set.key) + len(set.value) - there.as_ref().map_or(0, |there| there.bytes);
        self.rows.count(&group, set.group, i64::from(there.is_none()), bytes)?;
        Ok(Did::Set(stamp))
    }

    fn head(&mut self, group: Option<&GroupRow<R::Group>>, key: &str) -> Result<Option<Head<R::Slot>>> {
        match group {
            Some(group) => Ok(self.rows.entry(group.id, key)?),
            None => Ok(None),
        }
    }

    /// Refuses what the quota does not allow. What is due holds no places: where they are needed, it goes first.
    fn need_room(&mut self, set: &Set<'_>, room: Option<Room>, spot: &Spot<R>) -> Result<()> {
        let (Some(Room { usage, quota }), Some(namespace)) = (room, namespace_of(set.group)) else {
            return Ok(());
        };
        let is_due = spot.head.as_ref().is_some_and(|head| self.is_due(head.deadline));
        let (had, had_bytes) = spot.head.as_ref().map_or((0, 0), |head| (1, head.bytes));
        let is_new = |group: &GroupRow<_>| is_due && group.keys == 1;
        let group_goes = i64::from(spot.group.as_ref().is_some_and(is_new));
        // A due entry is gone before this one comes.
        let before = if is_due { usage.plus(-had, -group_goes, -had_bytes) } else { usage };
        let (keys, bytes) = if is_due { (1, 0) } else { (1 - had, had_bytes) };
        let groups = i64::from(spot.group.is_none()) + group_goes;
        let after = before.plus(keys, groups, len(set.key) + len(set.value) - bytes);
        // What is due may hide that the write takes more than before: it makes room whenever a limit is passed.
        let namespace_range = || NameRange::prefix(&format!("{namespace}{SEPARATOR}"));
        if quota.exceeded(namespace, Usage::default(), after).is_some() {
            let groups = namespace_range();
            if self.rows.has_due(&groups, self.moment.now)? {
                return Err(Stop::Reap(groups));
            }
        }
        match quota.exceeded(namespace, before, after) {
            Some(exceeded) => refuse(Reason::Quota(exceeded)),
            None => Ok(()),
        }
    }

    fn delete(&mut self, name: &str, key: &str, expected: Option<Expected>) -> Result<Did> {
        let Some((group, head)) = self.present(name, key, expected)? else { return Ok(Did::Was(false)) };
        let details = Details { previous: Some(head.revision), ..Details::default() };
        self.log(Kind::Delete, name, Some(key), details)?;
        self.rows.remove(&head.slot)?;
        self.rows.count(&group, name, -1, -head.bytes)?;
        Ok(Did::Was(true))
    }

    fn touch(&mut self, name: &str, key: &str, ttl: Option<Duration>) -> Result<Did> {
        let deadline = checked(ttl.map(|ttl| self.moment.now.deadline(ttl)).transpose())?;
        let Some((_, head)) = self.present(name, key, None)? else { return Ok(Did::Was(false)) };
        if head.deadline != deadline {
            self.log(Kind::Touch, name, Some(key), Details { deadline, ..Details::default() })?;
            self.rows.set_deadline(&head.slot, deadline)?;
        }
        Ok(Did::Was(true))
    }

    /// A group and an entry that is there and as expected. One that is due is logged and removed, and not there any more.
    fn present(&mut self, name: &str, key: &str, expected: Option<Expected>) -> Result<Option<There<R>>> {
        let group = self.rows.group(name)?;
        let head = self.head(group.as_ref(), key)?;
        let there = head.clone().filter(|head| !self.is_due(head.deadline));
        expect(expected, name, key, there.as_ref())?;
        if there.is_none() && head.is_some() {
            self.expire_here(&Spot { group, head }, key)?;
        }
        Ok(group.zip(there))
    }

    fn delete_group(&mut self, name: &str) -> Result<Did> {
        // A key has one end, so what is due comes to it before its group does.
        self.reap_first(NameRange::exactly(name))?;
        self.bury(name).map(Did::Keys)
    }

    fn delete_groups(&mut self, prefix: &str) -> Result<Did> {
        let names = NameRange::prefix(prefix);
        self.reap_first(names.clone())?;
        let groups = self.rows.groups(&names)?;
        // All that may be refused comes before the first of them goes.
        groups.iter().try_for_each(|name| self.rows.group(name).map(drop))?;
        groups.iter().map(|name| self.bury(name)).sum::<Result<u64>>().map(Did::Keys)
    }

    /// What is due in these groups is announced first.
    pub(super) fn reap_first(&mut self, groups: NameRange) -> Result<()> {
        if self.rows.has_due(&groups, self.moment.now)? { Err(Stop::Reap(groups)) } else { Ok(()) }
    }

    fn bury(&mut self, name: &str) -> Result<u64> {
        let Some(group) = self.rows.group(name)? else { return Ok(0) };
        // Not every engine counts the keys of a group, and forgets it with the last of them.
        if !self.rows.holds(group.id, self.moment.now)? {
            return Ok(0);
        }
        self.log(Kind::DeleteGroup, name, None, Details::default())?;
        Ok(self.rows.bury(&group, name)?)
    }

    fn expire_here(&mut self, spot: &Spot<R>, key: &str) -> Result<()> {
        let Some(group) = spot.group else { return Ok(()) };
        let due = self.rows.due_entry(group.id, key)?;
        self.expire(due)
    }

    /// Logs that the deadlines of due entries came, with their last values, and removes them.
    pub(super) fn expire(&mut self, due: impl IntoIterator<Item = Due<R::Slot>>) -> Result<()> {
        let mut gone: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        for Due { slot, group, key, details } in due {
            self.rows.remove(&slot)?;
            let Some(group) = group else { continue };
            let bytes = key.as_ref().map_or(0, len) + details.value.as_deref().map_or(0, len);
            if let Some(key) = key {
                self.log(Kind::Expire, &group, Some(&key), details)?;
            }
            let (keys, total) = gone.entry(group).or_default();
            (*keys, *total) = (*keys + 1, *total + bytes);
        }
        for (name, (keys, bytes)) in gone {
            let counted = match self.rows.group(&name) {
                Ok(Some(group)) => self.rows.count(&group, &name, -keys, -bytes),
                other => other.map(drop),
            };
            match counted {
                // What is damaged there must not keep what is due here.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::warn!(%error, group = name, "the counters of a group are damaged; `check --repair` rebuilds them");
                }
                done => done?,
            }
        }
        Ok(())
    }

    fn log(&mut self, kind: Kind, group: &str, key: Option<&str>, details: Details) -> Result<Stamp> {
        // Time let it expire, not the handle whose write came across it.
        let origin = self.author.origin.as_ref().filter(|_| kind != Kind::Expire);
        Ok(self.rows.log(Logged { kind, group, key, details, origin, timestamp: self.moment.now })?)
    }
}

fn expect<S>(expected: Option<Expected>, group: &str, key: &str, there: Option<&Head<S>>) -> Result<()> {
    let current: Option<Revision> = there.map(|head| head.revision);
    match expected {
        Some(expected) if !expected.holds(current) => {
            refuse(Reason::Conflict { group: group.to_owned(), key: key.to_owned(), current })
        }
        _ => Ok(()),
    }
}

fn len(bytes: impl AsRef<[u8]>) -> i64 {
    i64::try_from(bytes.as_ref().len()).unwrap_or(i64::MAX)
}
