//! Pages of the change log for readers that come and go: each looks at a bounded number of rows, whether or not they
//! match, so that no filter is rare enough to read the whole log at once.

use std::sync::Arc;

use crate::engine::{Bounds, Engine, Query};
use crate::types::error::{Error, Reason, Result};
use crate::types::event::{Change, ChangePage, Event, Lagged};
use crate::types::filter::Filter;
use crate::types::limits::{CHANGES_ROWS, PAGE_BYTES};
use crate::types::revision::{Cursor, Revision};

use super::hub::Hub;
use super::log_cache::Segment;

/// A page that is being read: its bounds first, then one page of the log after another.
pub(crate) struct Reading {
    filter: Filter,
    /// How much of the groups' names is the reader's namespace.
    scope: u16,
    after: Option<Revision>,
    /// Up to where the log is trimmed, and its end.
    floor: Revision,
    end: Revision,
    start: Revision,
    /// Everything up to this is looked at.
    reached: Revision,
    events: Vec<Event>,
    bytes: usize,
    /// How many rows it may still look at.
    left: usize,
    /// There is no use in reading on.
    done: bool,
}

impl Hub {
    /// A page of what follows a position, or of all that is kept. `scope` is the namespace's prefix, which the filter
    /// contains already.
    pub(crate) fn changes(
        &self,
        filter: Filter,
        scope: &str,
        after: Option<Cursor>,
        rows: usize,
    ) -> Result<ChangePage> {
        let bounds = Query::bounds(self.engine.id(), after)?.ask(&*self.engine)?;
        let mut page = Reading::new(bounds, filter, scope, after, rows)?;
        while let Some(after) = page.wants() {
            page.take(self.log.read(&*self.engine, after))?;
        }
        Ok(page.finish(&*self.engine))
    }
}

impl Reading {
    /// Begins one, where the store has these bounds; refuses a position that nothing can go on from.
    pub(crate) fn new(
        bounds: Bounds,
        filter: Filter,
        scope: &str,
        after: Option<Cursor>,
        rows: usize,
    ) -> Result<Reading> {
        filter.check()?;
        let (Bounds { trimmed: floor, end }, after) = (bounds, after.map(|after| after.revision()));
        if let Some(after) = after.filter(|after| *after < floor) {
            return Err(lost(after, floor));
        }
        let start = after.unwrap_or(floor);
        Ok(Reading {
            filter,
            scope: u16::try_from(scope.len()).unwrap_or(u16::MAX),
            after,
            floor,
            end,
            start,
            reached: start,
            events: Vec::new(),
            bytes: 0,
            left: rows.min(CHANGES_ROWS),
            done: false,
        })
    }

    /// The revision after which the next page of the log is needed.
    pub(crate) fn wants(&self) -> Option<Revision> {
        (!self.done && self.has_room() && self.reached < self.end).then_some(self.reached)
    }

    /// Takes what is needed out of a page of the log.
    pub(crate) fn take(&mut self, segment: Result<Arc<Segment>>) -> Result<()> {
        let before = self.reached;
        // What comes before a damaged row is told first, as everywhere. What was trimmed since we looked, the next page
        // tells.
        self.done =
            before > self.start && segment.as_ref().map_or(true, |segment| segment.page.trimmed > before);
        if self.done {
            return Ok(());
        }
        let page = &segment?.page;
        if page.trimmed > before {
            if self.after.is_some() {
                return Err(lost(before, page.trimmed));
            }
            self.floor = page.trimmed;
        }
        let end = self.end;
        let new = page.changes.iter().filter(|change| change.revision > before);
        for change in new.take_while(|change| change.revision <= end) {
            if !self.has_room() {
                break;
            }
            self.look_at(change);
        }
        self.done = self.reached == before;
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.left > 0 && self.bytes < PAGE_BYTES
    }

    fn look_at(&mut self, change: &Arc<Change>) {
        if self.filter.matches_change(change) {
            self.bytes += change.weight();
            self.events.push(Event::new(change.clone(), self.scope));
        }
        self.left -= 1;
        self.reached = change.revision;
    }

    pub(crate) fn finish(self, engine: &dyn Engine) -> ChangePage {
        let cursor = |revision| engine.cursor(revision);
        ChangePage {
            events: self.events,
            next: cursor(self.reached.max(self.floor)),
            floor: cursor(self.floor),
            end: cursor(self.end.max(self.floor)),
        }
    }
}

fn lost(after: Revision, floor: Revision) -> Error {
    Reason::Lagged(Lagged { from: after.next().unwrap_or(after), to: floor }).into()
}
