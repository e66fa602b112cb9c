//! The snapshot that a watch may begin with, without a read transaction that stays open.
//!
//! Entries are read in pages, in the order of group and key, each page at a revision of its own. When all are given,
//! what the log says since the first page is passed on, up to the last page's revision, except where a page was read
//! later than that. So the end is fixed when the last page is read, however fast others write.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use crate::engine::floors::Floor;
use crate::engine::{Answer, Engine, Part, Place, Query};
use crate::types::entry::Entry;
use crate::types::error::Result;
use crate::types::event::{Change, Item, Kind, Lagged};
use crate::types::filter::Filter;
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

impl Walk {
    /// The next part of the snapshot without asking, where it is of the log and the page is at hand. A part may be empty.
    pub(super) fn at_hand(&mut self, log: &LogCache, shape: &Shape) -> Option<Vec<Item>> {
        let (after, upto) = self.replay?;
        Some(self.pass_on(&*log.find(after)?, shape, after, upto))
    }

    /// What to ask for the next part. After an error it is the same again.
    pub(super) fn query<'f>(&mut self, engine: &dyn Engine, filter: Cow<'f, Filter>) -> Query<'f> {
        if let Some((after, _)) = self.replay {
            return Query::Log { after };
        }
        if let (None, Some(chores)) = (&self.floor, engine.chores()) {
            // All of the log, until it is known from where on it is needed.
            self.floor = Some(chores.floors().hold(Revision::ZERO));
        }
        Query::Part { filter, given: self.given.clone() }
    }

    /// The next part out of the answer.
    pub(super) fn answered(
        &mut self,
        answer: Result<Answer>,
        log: &LogCache,
        shape: &Shape,
    ) -> Result<Vec<Item>> {
        Ok(match self.replay {
            Some((after, upto)) => self.pass_on(&log.add(after, answer?.try_into()?), shape, after, upto),
            None => self.give(answer?.try_into()?, shape),
        })
    }

    /// The next entries.
    fn give(&mut self, part: Part, shape: &Shape) -> Vec<Item> {
        let revision = part.revision;
        if let (true, Some(floor)) = (self.pages.is_empty(), &self.floor) {
            floor.raise(revision);
        }
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
    use super::super::load::{Loaded, Request};
    use super::*;
    use crate::driver::Signal;
    use crate::engine::Settled;
    use crate::engine::memory::MemoryEngine;
    use crate::rules::{Author, Write};
    use crate::types::batch::Operation;
    use crate::types::limits::{PAGE_BYTES, SNAPSHOT_ENTRIES};
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
        walk: Box<Walk>,
        taken: usize,
        events: usize,
    }

    impl Steps<'_> {
        fn of(engine: &MemoryEngine, filter: Filter) -> Steps<'_> {
            let shape = Shape::new(filter, "", &WatchOptions::new());
            Steps { engine, log: LogCache::default(), shape, walk: Box::default(), taken: 0, events: 0 }
        }

        fn step(&mut self) -> Result<Vec<Item>> {
            let request = Request::Snapshot(std::mem::take(&mut self.walk));
            let Loaded::Snapshot(items, walk) = request.load(self.engine, &self.log, &self.shape) else {
                unreachable!("a snapshot was asked for");
            };
            self.walk = walk;
            let items = items?;
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
