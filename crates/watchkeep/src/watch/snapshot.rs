//! The snapshot that a watch may begin with, without a read transaction that stays open.
//!
//! Entries are read in pages, in the order of group and key, each page at a revision of its own. When all are given,
//! what the log says since the first page is passed on, up to the last page's revision, except where a page was read
//! later than that. So the end is fixed when the last page is read, however fast others write.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use crate::engine::floors::Floor;
use crate::engine::{Engine, Read};
use crate::types::entry::Entry;
use crate::types::error::Result;
use crate::types::event::{Change, Item, Kind, Lagged};
use crate::types::filter::Filter;
use crate::types::limits::{PAGE_BYTES, SNAPSHOT_ENTRIES, SNAPSHOT_GROUPS};
use crate::types::name::NameRange;
use crate::types::revision::Revision;

use super::inbox::Shape;
use super::log_cache::{LogCache, Segment};

/// More pages than this are remembered with the revision of the earliest of two: some changes come although their
/// entries have them, which changes nothing in the end.
const PAGES: usize = 1_024;

/// More deleted groups than this are not remembered by name: from there on all changes are passed on, for the same
/// price.
const DELETED: usize = 1_024;

/// How far a snapshot is.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// What was given so far: all groups before this one, and of it all keys up to this one, or all.
    given: Option<Place>,
    /// How far each page reached, and the revision at which it was read.
    pages: Vec<(Place, Revision)>,
    /// All entries are given; the log is passed on from the first revision to the second.
    replay: Option<(Revision, Revision)>,
    /// Groups whose deletion was passed on: what came after it counts, whatever the pages say.
    deleted: HashSet<Box<str>>,
    /// There were too many of them: everything counts.
    all_counts: bool,
    /// Keeps in the log what is needed of it, from the first page on.
    pub(super) floor: Option<Floor>,
    /// All of it is given.
    pub(super) ready: Option<Revision>,
}

/// A group and a key in it; without a key, the group's end.
type Place = (String, Option<String>);

/// What one step found.
struct Part {
    entries: Vec<(String, Entry)>,
    /// How far that is.
    reached: Option<Place>,
    /// These are the last.
    all: bool,
}

impl Walk {
    /// The next part of the snapshot; it may be empty. After an error the same part comes next.
    pub(super) fn step(&mut self, engine: &dyn Engine, log: &LogCache, shape: &Shape) -> Result<Vec<Item>> {
        if let Some((after, upto)) = self.replay {
            return Ok(self.pass_on(&*log.read(engine, after)?, shape, after, upto));
        }
        let (mut revision, mut part) = (Revision::ZERO, None);
        engine.read(&mut |read| {
            revision = read.last()?;
            self.floor.get_or_insert_with(|| engine.floors().hold(revision));
            part = Some(entries(read, &shape.filter, self.given.clone())?);
            Ok(())
        })?;
        Ok(part.map_or_else(Vec::new, |part| self.give(part, shape, revision)))
    }

    /// The next entries, read at a revision.
    fn give(&mut self, part: Part, shape: &Shape, revision: Revision) -> Vec<Item> {
        if let Some(place) = &part.reached {
            match self.pages.last_mut() {
                Some((reached, read_at)) if *read_at == revision => reached.clone_from(place),
                _ => self.pages.push((place.clone(), revision)),
            }
        }
        self.given = part.reached;
        if self.pages.len() > PAGES {
            self.thin_out();
        }
        let changes = part.entries.into_iter().map(|(group, entry)| Arc::new(as_change(group, entry)));
        let mut items: Vec<_> = changes
            .filter(|change| shape.filter.concerns_state(change))
            .map(|change| in_snapshot(shape, &change))
            .collect();
        if part.all {
            let first = self.pages.first().map_or(revision, |(_, first)| *first);
            self.replay = Some((first, revision));
            self.finish(first, revision, &mut items);
        }
        items
    }

    /// The next changes since the first page.
    fn pass_on(&mut self, segment: &Segment, shape: &Shape, after: Revision, upto: Revision) -> Vec<Item> {
        let trimmed = segment.page.trimmed;
        if trimmed > after {
            // What happened to the entries that were given is not known any more: begin again.
            let lost = Lagged { from: after.next().unwrap_or(after), to: trimmed };
            let (from, to) = (lost.from, lost.to);
            tracing::warn!(%from, %to, "a watcher's snapshot begins again: the log that it needs was trimmed");
            *self = Walk::default();
            return vec![Item::Lagged(lost)];
        }
        let mut items = Vec::new();
        for change in segment.page.changes.iter().take_while(|change| change.revision <= upto) {
            if change.revision > after && shape.filter.concerns_state(change) && self.is_news(change) {
                items.push(in_snapshot(shape, change));
            }
        }
        let reached = segment.next.min(upto);
        self.replay = Some((reached, upto));
        if let Some(floor) = &self.floor {
            floor.raise(reached);
        }
        self.finish(reached, upto, &mut items);
        items
    }

    fn finish(&mut self, reached: Revision, upto: Revision, items: &mut Vec<Item>) {
        if reached >= upto {
            self.ready = Some(upto);
            items.push(Item::Ready(upto));
        }
    }

    /// Whether the entries that were given do not have this change yet.
    fn is_news(&mut self, change: &Change) -> bool {
        if self.all_counts {
            return true;
        }
        let Some(key) = &change.key else {
            let first = self.pages.partition_point(|((group, _), _)| group.as_str() < &*change.group);
            let news = self.pages.get(first).is_none_or(|(_, read_at)| change.revision > *read_at);
            if news {
                self.deleted.insert(change.group.clone());
                self.all_counts = self.deleted.len() > DELETED;
            }
            return news;
        };
        if self.deleted.contains(&change.group) {
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
}

/// The next entries of what the filter is about, after what was given: as many as one step may read, or fewer where it
/// has looked at many groups.
fn entries(read: &dyn Read, filter: &Filter, given: Option<Place>) -> Result<Part> {
    let mut part = Part { entries: Vec::new(), reached: given, all: false };
    let (groups, mut bytes) = (groups(filter), 0);
    for _ in 0..SNAPSHOT_GROUPS {
        let room = SNAPSHOT_ENTRIES.saturating_sub(part.entries.len());
        if room == 0 || bytes >= PAGE_BYTES {
            break;
        }
        let (group, after) = match &part.reached {
            Some((group, Some(key))) => (group.clone(), Some(key.as_str())),
            done => {
                let before = done.as_ref().map(|(group, _)| group.as_str());
                let Some(next) = next_group(read, NameRange::rest(groups.clone(), before))? else {
                    part.all = true;
                    break;
                };
                (next, None)
            }
        };
        let (mut page, mut more) = (Vec::new(), false);
        for keys in NameRange::rest(keys(filter, &group), after) {
            more = page.len() >= room || bytes >= PAGE_BYTES;
            if !more {
                let (mut found, cut) = read.entries(&group, &keys, room.saturating_sub(page.len()))?;
                bytes += found.iter().map(|entry| entry.key.len() + entry.value.len()).sum::<usize>();
                page.append(&mut found);
                more = cut;
            }
            if more {
                break;
            }
        }
        let upto = page.last().map(|entry| entry.key.clone()).filter(|_| more);
        part.entries.extend(page.into_iter().map(|entry| (group.clone(), entry)));
        part.reached = Some((group, upto));
    }
    Ok(part)
}

fn next_group(read: &dyn Read, ranges: impl Iterator<Item = NameRange>) -> Result<Option<String>> {
    for range in ranges {
        if let Some(next) = read.groups(&range, 1)?.pop() {
            return Ok(Some(next));
        }
    }
    Ok(None)
}

/// Which groups a filter is about.
fn groups(filter: &Filter) -> Vec<NameRange> {
    NameRange::union(filter.parts().iter().map(|part| part.target.ranges().0).collect())
}

/// Which keys of a group a filter is about.
fn keys(filter: &Filter, group: &str) -> Vec<NameRange> {
    let ranges = filter.parts().iter().map(|part| part.target.ranges());
    NameRange::union(ranges.filter_map(|(groups, keys)| groups.contains(group).then_some(keys)).collect())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Signal;
    use crate::engine::Settled;
    use crate::engine::memory::MemoryEngine;
    use crate::rules::{Author, Write};
    use crate::types::batch::Operation;
    use crate::types::options::Options;
    use crate::types::watching::WatchOptions;
    use crate::types::writing::Ttl;

    fn engine() -> Result<MemoryEngine> {
        MemoryEngine::open(&Options::new(), Signal::unheard())
    }

    fn set(engine: &MemoryEngine, entries: impl IntoIterator<Item = (String, String, usize)>) -> Result<()> {
        let operations: Vec<_> = entries
            .into_iter()
            .map(|(group, key, size)| Operation::Set {
                group,
                key,
                value: vec![0; size].into(),
                ttl: Ttl::Clear,
                expected: None,
                content_type: None,
            })
            .collect();
        engine
            .transact(
                &Author::default(),
                &mut |tx| operations.iter().try_for_each(|operation| tx.apply(operation).map(drop)),
                &mut Settled::default(),
            )
            .map(drop)
    }

    /// A snapshot, step by step, each one read of the file at the most.
    struct Steps<'e> {
        engine: &'e MemoryEngine,
        log: LogCache,
        shape: Shape,
        walk: Walk,
        taken: usize,
        events: usize,
    }

    impl Steps<'_> {
        fn of(engine: &MemoryEngine, filter: Filter) -> Steps<'_> {
            let shape = Shape::new(filter, "", &WatchOptions::new());
            Steps { engine, log: LogCache::default(), shape, walk: Walk::default(), taken: 0, events: 0 }
        }

        fn step(&mut self) -> Result<Vec<Item>> {
            let items = self.walk.step(self.engine, &self.log, &self.shape)?;
            self.taken += 1;
            self.events += items.iter().filter(|item| item.event().is_some()).count();
            Ok(items)
        }

        /// Up to the end: how many steps that took, and how many events they gave.
        fn finish(mut self) -> Result<(usize, usize)> {
            while self.walk.ready.is_none() {
                self.step()?;
            }
            Ok((self.taken, self.events))
        }
    }

    #[test]
    fn a_step_gives_a_page_however_small_the_buffer_is() -> Result<()> {
        let engine = engine()?;
        let entry = |n: usize| ("g".to_owned(), format!("{n:04}"), 1);
        set(&engine, (0..1_000).map(entry))?;
        assert_eq!(Steps::of(&engine, Filter::everything()).finish()?, (4, 1_000));
        // What changed meanwhile is read in pages, too, each once.
        let mut steps = Steps::of(&engine, Filter::everything());
        steps.step()?;
        set(&engine, (0..1_000).map(|n| entry(n % 200)))?;
        assert_eq!(steps.finish()?, (8, 2_000));
        Ok(())
    }

    #[test]
    fn a_step_looks_at_so_many_groups_whatever_it_finds() -> Result<()> {
        let engine = engine()?;
        set(&engine, (0..1_000).map(|n| (format!("g{n:04}"), "k".to_owned(), 1)))?;
        set(&engine, [("g0900".to_owned(), "wanted".to_owned(), 1)])?;
        assert_eq!(Steps::of(&engine, Filter::key_name("wanted")).finish()?, (4, 1));
        assert_eq!(Steps::of(&engine, Filter::key_name("k")).finish()?, (4, 1_000));
        Ok(())
    }

    #[test]
    fn a_step_reads_so_many_bytes_over_all_its_groups() -> Result<()> {
        let engine = engine()?;
        set(&engine, (0..20).map(|n| (format!("g{n}"), "k".to_owned(), PAGE_BYTES / 2)))?;
        assert_eq!(Steps::of(&engine, Filter::everything()).finish()?, (11, 20));
        Ok(())
    }

    #[test]
    fn a_step_may_end_between_two_ranges_of_keys() -> Result<()> {
        let engine = engine()?;
        let each = SNAPSHOT_ENTRIES / 16;
        set(&engine, (0..2 * SNAPSHOT_ENTRIES).map(|n| ("g".to_owned(), format!("{:02}x{n}", n / each), 1)))?;
        set(&engine, (0..20).map(|n| ("large".to_owned(), format!("{n}"), PAGE_BYTES / 2)))?;
        let every_range = Filter::any((0..32).map(|n| Filter::key_prefix("g", format!("{n:02}x"))));
        assert_eq!(Steps::of(&engine, every_range).finish()?, (3, 2 * SNAPSHOT_ENTRIES));
        let every_key = Filter::any((0..20).map(|n| Filter::key("large", n.to_string())));
        assert_eq!(Steps::of(&engine, every_key).finish()?, (11, 20));
        Ok(())
    }

    #[test]
    fn of_the_deleted_groups_only_so_many_are_remembered() -> Result<()> {
        let engine = engine()?;
        let groups = DELETED + 300;
        let entry = |n: usize| (format!("g{n:05}"), "k".to_owned(), 1);
        set(&engine, (0..groups).map(entry))?;
        let (mut steps, mut state) = (Steps::of(&engine, Filter::everything()), HashSet::new());
        while steps.walk.ready.is_none() {
            for item in steps.step()? {
                let Some(event) = item.event() else { continue };
                match event.kind() {
                    Kind::DeleteGroup => drop(state.remove(event.group())),
                    _ => drop(state.insert(event.group().to_owned())),
                }
            }
            if steps.taken == 5 {
                for n in 0..groups {
                    let deletion = Operation::DeleteGroup { group: entry(n).0 };
                    engine.write(
                        Write { author: Author::default(), work: deletion.into() },
                        &mut Settled::default(),
                    )?;
                }
                set(&engine, [entry(3)])?;
            }
            assert!(steps.walk.deleted.len() <= DELETED + 1);
        }
        assert!(steps.walk.all_counts, "so many were not deleted");
        assert_eq!(state.into_iter().collect::<Vec<_>>(), ["g00003"]);
        Ok(())
    }
}
