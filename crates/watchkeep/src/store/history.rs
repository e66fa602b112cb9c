//! The change log as an iterator.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::engine::{Bounds, Engine, LogPage, Query};
use crate::types::error::{Reason, Result};
use crate::types::event::{Change, Event, Lagged};
use crate::types::filter::Filter;
use crate::types::revision::Revision;

/// The events of the change log, oldest first; see [`Store::history`](crate::Store::history).
///
/// It reads in pages and ends at the log's end. An error of kind `Lagged` does not end it, any other does.
pub struct History {
    engine: Arc<dyn Engine>,
    filter: Filter,
    scope: u16,
    after: Revision,
    page: VecDeque<Arc<Change>>,
    done: bool,
}

impl History {
    pub(super) fn new(engine: Arc<dyn Engine>, filter: Filter, scope: &str, after: Revision) -> History {
        let scope = u16::try_from(scope.len()).unwrap_or(u16::MAX);
        History { engine, filter, scope, after, page: VecDeque::new(), done: false }
    }

    fn fill(&mut self) -> Result<()> {
        self.filter.check()?;
        // Refused after the close, and `Log` is not.
        let _: Bounds = Query::Bounds { after: None }.ask(&*self.engine)?;
        let page: LogPage = Query::Log { after: self.after }.ask(&*self.engine)?;
        if page.trimmed > self.after {
            // From the beginning means from wherever it begins.
            let lost = Lagged { from: self.after.next().unwrap_or(self.after), to: page.trimmed };
            let asked_for = self.after > Revision::ZERO;
            self.after = page.trimmed;
            if asked_for {
                return Err(Reason::Lagged(lost).into());
            }
        }
        let next = page.next(self.after);
        self.done = next >= page.end;
        self.after = next;
        self.page = page.changes.into();
        Ok(())
    }
}

impl Iterator for History {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        loop {
            while let Some(change) = self.page.pop_front() {
                if self.filter.matches_change(&change) {
                    return Some(Ok(Event::new(change, self.scope)));
                }
            }
            if self.done {
                return None;
            }
            if let Err(error) = self.fill() {
                self.done = error.lagged().is_none();
                return Some(Err(error));
            }
        }
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History")
            .field("filter", &self.filter)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}
