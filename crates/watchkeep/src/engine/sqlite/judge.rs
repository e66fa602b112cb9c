//! Whether the conditions of a batch hold, before its first operation.

use crate::engine::Read as _;
use crate::types::batch::{Condition, Must, Unmet};
use crate::types::error::{Reason, Result};
use crate::types::name::NameRange;
use crate::types::revision::Revision;

use super::apply::Job;
use super::log::{self, Unchanged};

impl Job<'_, '_> {
    /// The revision of an entry that is there and not due.
    fn current(&self, group: &str, key: &str) -> Result<Option<Revision>> {
        let (_, found) = self.place(group, key)?;
        Ok(found.filter(|found| !self.is_due(found.deadline)).map(|found| found.revision))
    }

    /// Whether a group holds a key that is not due.
    fn is_group(&self, group: &str) -> Result<bool> {
        let page = self.commit.read().keys(group, &NameRange::prefix(""), 1)?;
        Ok(!page.is_empty())
    }

    /// Refuses a batch whose conditions do not hold, and tells all of them.
    pub(super) fn judge(&self, conditions: &[Condition]) -> Result<()> {
        let mut unmet = Vec::new();
        for (condition, Condition(must)) in conditions.iter().enumerate() {
            let (holds, current, is_too_old) = match must {
                Must::Entry { group, key, be, .. } => {
                    let current = self.current(group, key)?;
                    (be.holds(current), current, false)
                }
                Must::Group { group, present } => (self.is_group(group)? == *present, None, false),
                Must::Unchanged { filter, since, .. } => match log::unchanged(self.conn(), filter, *since)? {
                    Unchanged::Yes => continue,
                    Unchanged::No(change) => (false, Some(change), false),
                    Unchanged::TooOld => (false, None, true),
                },
            };
            if !holds {
                unmet.push(Unmet { condition, current, is_too_old });
            }
        }
        if unmet.is_empty() { Ok(()) } else { Err(Reason::Unmet(unmet).into()) }
    }
}
