//! The snapshot that a watch may begin with, without a read transaction that stays open.
//!
//! Entries are read in pages, in the order of group and key. Before each page, what the log says about the part
//! that was already given is passed on. So after each page the part given so far is exact at that page's revision,
//! and after the last one all of it is.

use std::sync::Arc;

use crate::engine::{Engine, Read};
use crate::types::entry::Entry;
use crate::types::error::Result;
use crate::types::event::{Change, Item, Kind, Lagged};
use crate::types::filter::Target;
use crate::types::limits::PAGE_ENTRIES;
use crate::types::name::NameRange;
use crate::types::revision::Revision;

use super::inbox::Shape;

/// How far a snapshot is.
#[derive(Debug, Clone, Default)]
pub(super) struct Walk {
    /// What was given so far: all groups before this one, and of it all keys up to this one, or all.
    given: Option<(String, Option<String>)>,
    /// The revision at which that is exact.
    at: Option<Revision>,
    /// All of it is given.
    pub(super) ready: Option<Revision>,
}

impl Walk {
    /// The next part of the snapshot.
    pub(super) fn step(mut self, engine: &dyn Engine, shape: &Shape) -> Result<(Vec<Item>, Walk)> {
        let mut items = Vec::new();
        engine.read(&mut |read| {
            items = self.next(read, shape)?;
            Ok(())
        })?;
        Ok((items, self))
    }

    fn next(&mut self, read: &dyn Read, shape: &Shape) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        let end = match self.at {
            None => read.last()?,
            Some(at) => {
                let page = read.log(at, PAGE_ENTRIES)?;
                if page.trimmed > at {
                    // What happened to the part that was given is not known any more: begin again.
                    *self = Walk::default();
                    let from = at.next().unwrap_or(at);
                    return Ok(vec![Item::Lagged(Lagged { from, to: page.trimmed })]);
                }
                let concerns =
                    |change: &&Arc<Change>| self.covers(change) && shape.filter.matches_change(change);
                items.extend(page.changes.iter().filter(concerns).map(|change| in_snapshot(shape, change)));
                let next = page.next(at);
                if next < page.end {
                    self.at = Some(next);
                    return Ok(items);
                }
                page.end
            }
        };
        self.at = Some(end);
        let limit = shape.capacity.min(PAGE_ENTRIES);
        let entries = self.entries(read, &shape.filter.target, limit)?;
        for (group, entry) in entries {
            let change = Arc::new(as_change(group, entry));
            if shape.filter.concerns_state(&change) {
                items.push(in_snapshot(shape, &change));
            }
        }
        if self.ready.is_some() {
            self.ready = Some(end);
            items.push(Item::Ready(end));
        }
        Ok(items)
    }

    /// Whether a change is about the part that was given.
    fn covers(&self, change: &Change) -> bool {
        let Some((group, key)) = &self.given else { return false };
        match change.group.as_ref().cmp(group.as_str()) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Greater => false,
            std::cmp::Ordering::Equal => match (key, &change.key) {
                (Some(upto), Some(key)) => key.as_ref() <= upto.as_str(),
                _ => true,
            },
        }
    }

    /// The next entries of what the filter is about, at most `limit`; notes how far that is.
    fn entries(&mut self, read: &dyn Read, target: &Target, limit: usize) -> Result<Vec<(String, Entry)>> {
        let mut entries = Vec::new();
        let (groups, keys) = ranges(target);
        while entries.len() < limit {
            let (group, after) = match self.given.take() {
                Some((group, Some(key))) => (group, Some(key)),
                done => {
                    let before = done.as_ref().map(|(group, _)| group.as_str());
                    let next = read.groups(&groups.clone().after(before), 1)?.pop();
                    match next {
                        Some(group) => (group, None),
                        None => {
                            self.given = done;
                            self.ready = self.at;
                            break;
                        }
                    }
                }
            };
            let range = keys.clone().after(after.as_deref());
            let (page, more) = read.entries(&group, &range, limit - entries.len())?;
            let upto = page.last().map(|entry| entry.key.clone()).filter(|_| more);
            entries.extend(page.into_iter().map(|entry| (group.clone(), entry)));
            self.given = Some((group, upto));
        }
        Ok(entries)
    }
}

/// Which groups, and which of their keys, a target is about.
fn ranges(target: &Target) -> (NameRange, NameRange) {
    let all = || NameRange::prefix("");
    match target {
        Target::Groups { prefix } => (NameRange::prefix(prefix), all()),
        Target::Group(group) => (NameRange::exactly(group), all()),
        Target::Key { group, key } => (NameRange::exactly(group), NameRange::exactly(key)),
        Target::KeyPrefix { group, prefix } => (NameRange::exactly(group), NameRange::prefix(prefix)),
        Target::KeyName { groups, key } => (NameRange::prefix(groups), NameRange::exactly(key)),
    }
}

fn in_snapshot(shape: &Shape, change: &Arc<Change>) -> Item {
    Item::Event(shape.event(change).in_snapshot())
}

/// An entry as the change that made it what it is.
fn as_change(group: String, entry: Entry) -> Change {
    Change {
        revision: entry.revision,
        commit: entry.revision,
        kind: Kind::Set,
        group: group.into(),
        key: Some(entry.key.into()),
        value: Some(entry.value),
        content_type: entry.content_type.map(Into::into),
        deadline: entry.deadline,
        previous: None,
        origin: None,
        timestamp: entry.updated,
    }
}
