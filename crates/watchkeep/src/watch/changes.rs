//! Pages of the change log for readers that come and go: each looks at a bounded number of rows, whether or not they
//! match, so that no filter is rare enough to read the whole log at once.

use std::sync::Arc;

use crate::types::error::{Error, Reason, Result};
use crate::types::event::{Change, ChangePage, Event, Lagged};
use crate::types::filter::Filter;
use crate::types::limits::{CHANGES_ROWS, PAGE_BYTES};
use crate::types::revision::{Cursor, Revision};

use super::hub::Hub;

/// A page that is being read.
struct Page {
    filter: Filter,
    /// How much of the groups' names is the reader's namespace.
    scope: u16,
    events: Vec<Event>,
    bytes: usize,
    /// How many rows it may still look at.
    left: usize,
    /// Everything up to this is looked at.
    reached: Revision,
}

impl Page {
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
        filter.check()?;
        let (mut floor, end) = self.bounds(after)?;
        let after = after.map(|after| after.revision());
        let mut page = Page {
            filter,
            scope: u16::try_from(scope.len()).unwrap_or(u16::MAX),
            events: Vec::new(),
            bytes: 0,
            left: rows.min(CHANGES_ROWS),
            reached: after.unwrap_or(floor),
        };
        let start = page.reached;
        while page.has_room() && page.reached < end {
            let segment = match self.log.read(&*self.engine, page.reached) {
                // What comes before a damaged row is told first, as everywhere.
                Err(_) if page.reached > start => break,
                segment => segment?,
            };
            if segment.page.trimmed > page.reached {
                // It was trimmed since we looked. The next page tells so.
                if page.reached > start {
                    break;
                }
                if after.is_some() {
                    return Err(lost(page.reached, segment.page.trimmed));
                }
                floor = segment.page.trimmed;
            }
            let before = page.reached;
            let new = segment.page.changes.iter().filter(|change| change.revision > before);
            for change in new.take_while(|change| change.revision <= end) {
                if !page.has_room() {
                    break;
                }
                page.look_at(change);
            }
            if page.reached == before {
                break;
            }
        }
        let cursor = |revision| self.engine.cursor(revision);
        Ok(ChangePage {
            events: page.events,
            next: cursor(page.reached.max(floor)),
            floor: cursor(floor),
            end: cursor(end.max(floor)),
        })
    }

    /// Up to where the log is trimmed, and its end; refuses a position that nothing can go on from.
    fn bounds(&self, after: Option<Cursor>) -> Result<(Revision, Revision)> {
        after.map_or(Ok(()), |after| after.refuse_foreign(self.engine.id()))?;
        let (mut floor, mut end) = (Revision::ZERO, Revision::ZERO);
        self.engine.read(&mut |read| {
            end = read.last()?;
            // No row is needed, only up to where they are gone.
            floor = read.log(end, 0)?.trimmed;
            after.map_or(Ok(()), |after| read.refuse_lost(after))
        })?;
        match after.map(|after| after.revision()) {
            Some(revision) if revision < floor => Err(lost(revision, floor)),
            _ => Ok((floor, end)),
        }
    }
}

fn lost(after: Revision, floor: Revision) -> Error {
    Reason::Lagged(Lagged { from: after.next().unwrap_or(after), to: floor }).into()
}
