//! The snapshot that a watch may begin with, without a read transaction that stays open.
//!
//! Entries are read in pages, in the order of group and key, each page at a revision of its own. When all are given,
//! what the log says since the first page is passed on, up to the last page's revision, except where a page was read
//! later than that. So the end is fixed when the last page is read, however fast others write.

use std::cmp::Ordering;
use std::collections::HashMap;
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

/// More pages than this are remembered with the revision of the earliest of two: some changes come although their
/// entries have them, which changes nothing in the end.
const PAGES: usize = 1_024;

/// How far a snapshot is.
#[derive(Debug, Clone, Default)]
pub(super) struct Walk {
    /// What was given so far: all groups before this one, and of it all keys up to this one, or all.
    given: Option<(String, Option<String>)>,
    /// How far each page reached, and the revision at which it was read.
    pages: Vec<(Place, Revision)>,
    /// All entries are given; the log is passed on from the first revision to the second.
    replay: Option<(Revision, Revision)>,
    /// Groups whose deletion was passed on: what came after it counts, whatever the pages say.
    deleted: HashMap<String, Revision>,
    /// All of it is given.
    pub(super) ready: Option<Revision>,
}

/// A group and a key in it; without a key, the group's end.
type Place = (String, Option<String>);

impl Walk {
    /// The next part of the snapshot.
    pub(super) fn step(mut self, engine: &dyn Engine, shape: &Shape) -> Result<(Vec<Item>, Walk)> {
        let mut items = Vec::new();
        engine.read(&mut |read| {
            items = match self.replay {
                None => self.give(read, shape)?,
                Some((after, upto)) => self.pass_on(read, shape, after, upto)?,
            };
            Ok(())
        })?;
        Ok((items, self))
    }

    /// The next entries.
    fn give(&mut self, read: &dyn Read, shape: &Shape) -> Result<Vec<Item>> {
        let revision = read.last()?;
        let limit = shape.capacity.min(PAGE_ENTRIES);
        let (entries, all) = self.entries(read, &shape.filter.target, limit)?;
        if let Some(place) = &self.given {
            match self.pages.last_mut() {
                Some((reached, read_at)) if *read_at == revision => *reached = place.clone(),
                _ => self.pages.push((place.clone(), revision)),
            }
        }
        if self.pages.len() > PAGES {
            self.thin_out();
        }
        let changes = entries.into_iter().map(|(group, entry)| Arc::new(as_change(group, entry)));
        let mut items: Vec<_> = changes
            .filter(|change| shape.filter.concerns_state(change))
            .map(|change| in_snapshot(shape, &change))
            .collect();
        if all {
            let first = self.pages.first().map_or(revision, |(_, first)| *first);
            self.replay = Some((first, revision));
            self.finish(first, revision, &mut items);
        }
        Ok(items)
    }

    /// The next changes since the first page.
    fn pass_on(
        &mut self,
        read: &dyn Read,
        shape: &Shape,
        after: Revision,
        upto: Revision,
    ) -> Result<Vec<Item>> {
        let page = read.log(after, PAGE_ENTRIES)?;
        if page.trimmed > after {
            // What happened to the entries that were given is not known any more: begin again.
            *self = Walk::default();
            let from = after.next().unwrap_or(after);
            return Ok(vec![Item::Lagged(Lagged { from, to: page.trimmed })]);
        }
        let (mut items, mut reached) = (Vec::new(), page.next(after).min(upto));
        for change in page.changes.iter().take_while(|change| change.revision <= upto) {
            if items.len() >= shape.capacity {
                break;
            }
            reached = change.revision;
            if shape.filter.concerns_state(change) && self.is_news(change) {
                items.push(in_snapshot(shape, change));
            }
        }
        self.replay = Some((reached, upto));
        self.finish(reached, upto, &mut items);
        Ok(items)
    }

    fn finish(&mut self, reached: Revision, upto: Revision, items: &mut Vec<Item>) {
        if reached >= upto {
            self.ready = Some(upto);
            items.push(Item::Ready(upto));
        }
    }

    /// Whether the entries that were given do not have this change yet.
    fn is_news(&mut self, change: &Change) -> bool {
        let Some(key) = &change.key else {
            let first = self.pages.iter().find(|((group, _), _)| group.as_str() >= &*change.group);
            let news = first.is_none_or(|(_, read_at)| change.revision > *read_at);
            if news {
                self.deleted.insert(change.group.to_string(), change.revision);
            }
            return news;
        };
        if self.deleted.contains_key(&*change.group) {
            return true;
        }
        let before = |(group, upto): &Place| match (**group).cmp(&*change.group) {
            Ordering::Equal => upto.as_ref().is_some_and(|upto| upto.as_str() < &**key),
            order => order == Ordering::Less,
        };
        let page = self.pages.partition_point(|(place, _)| before(place));
        self.pages.get(page).is_none_or(|(_, read_at)| change.revision > *read_at)
    }

    /// Joins pages two by two.
    fn thin_out(&mut self) {
        let pairs = self.pages.chunks(2).filter_map(|pair| {
            let ((_, first), (reached, _)) = (pair.first()?, pair.last()?);
            Some((reached.clone(), *first))
        });
        self.pages = pairs.collect();
    }

    /// The next entries of what the filter is about, at most `limit`, and whether these are the last; notes how far
    /// that is.
    fn entries(
        &mut self,
        read: &dyn Read,
        target: &Target,
        limit: usize,
    ) -> Result<(Vec<(String, Entry)>, bool)> {
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
                            return Ok((entries, true));
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
        Ok((entries, false))
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
