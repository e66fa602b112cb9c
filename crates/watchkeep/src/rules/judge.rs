//! Whether the conditions of a batch hold, before its first operation.

use crate::types::batch::{Condition, Must, Unmet};
use crate::types::error::{Error, Reason};
use crate::types::filter::Filter;
use crate::types::limits::MAX_UNCHANGED_EVENTS;
use crate::types::revision::{Cursor, Revision};

use super::{Job, Result, Rows, Stop, checked, refuse};

/// Whether nothing that a filter lets through came after a revision.
enum Unchanged {
    Yes,
    /// This did.
    No(Revision),
    /// More came than is looked at, or it is trimmed.
    TooOld,
}

impl<R: Rows> Job<'_, R> {
    /// Refuses a batch whose conditions do not hold, and tells all of them.
    pub(super) fn judge(&mut self, conditions: &[Condition]) -> Result<()> {
        let mut unmet = Vec::new();
        for (condition, Condition(must)) in conditions.iter().enumerate() {
            let (holds, current, is_too_old) = match must {
                Must::Entry { group, key, be, at } => {
                    at.map_or(Ok(()), |at| self.refuse_lost(at))?;
                    let current = self.current(group, key)?;
                    (be.holds(current), current, false)
                }
                Must::Group { group, present } => (self.is_group(group)? == *present, None, false),
                Must::Unchanged { filter, since } => match self.unchanged(filter, *since)? {
                    Unchanged::Yes => continue,
                    Unchanged::No(change) => (false, Some(change), false),
                    Unchanged::TooOld => (false, None, true),
                },
            };
            if !holds {
                unmet.push(Unmet { condition, current, is_too_old });
            }
        }
        if unmet.is_empty() { Ok(()) } else { refuse(Reason::Unmet(unmet)) }
    }

    /// The revision of an entry that is there and not due.
    fn current(&mut self, group: &str, key: &str) -> Result<Option<Revision>> {
        let Some(group) = self.rows.group(group)? else { return Ok(None) };
        let head = self.rows.entry(group.id, key)?;
        Ok(head.filter(|head| !self.is_due(head.deadline)).map(|head| head.revision))
    }

    /// Whether a group holds a key that is not due.
    fn is_group(&mut self, group: &str) -> Result<bool> {
        match self.rows.group(group)? {
            Some(group) => Ok(self.rows.holds(group.id, self.moment.now)?),
            None => Ok(false),
        }
    }

    /// Looks at the log after a revision, as far as that takes no longer than a write may.
    fn unchanged(&mut self, filter: &Filter, since: Cursor) -> Result<Unchanged> {
        checked(filter.check())?;
        self.refuse_lost(since)?;
        let since = since.revision();
        // What is due is not there, and the log says so once it has gone.
        for part in filter.parts() {
            self.reap_first(part.target.ranges().0)?;
        }
        if since < self.rows.trimmed()? {
            return Ok(Unchanged::TooOld);
        }
        let (mut found, mut looked_at) = (None, 0);
        self.rows.logged(since, MAX_UNCHANGED_EVENTS + 1, &mut |place| {
            looked_at += 1;
            let matches = |kind| filter.lets_through(kind, place.origin, place.group, place.key);
            // What a newer release logged may have changed anything in its group.
            let matches = || place.kind.map_or_else(|| filter.reaches(place.group), matches);
            found = (looked_at <= MAX_UNCHANGED_EVENTS && matches()).then_some(place.revision);
            found.is_none()
        })?;
        Ok(match found {
            Some(change) => Unchanged::No(change),
            None if looked_at > MAX_UNCHANGED_EVENTS => Unchanged::TooOld,
            None => Unchanged::Yes,
        })
    }

    /// Refuses a revision that was not given yet.
    pub(super) fn refuse_ahead(&mut self, revision: Revision) -> Result<()> {
        let last = self.rows.last()?;
        if revision > last { refuse(Reason::Ahead { revision, last }) } else { Ok(()) }
    }

    /// Refuses a cursor of this store whose event is not here.
    pub(super) fn refuse_lost(&mut self, cursor: Cursor) -> Result<()> {
        let lost: Option<Error> = self.rows.lost(cursor)?;
        lost.map_or(Ok(()), |lost| Err(Stop::Refused(lost)))
    }
}
