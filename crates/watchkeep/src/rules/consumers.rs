//! Named consumers: who holds one, and up to where it has acknowledged.

use std::time::Duration;

use crate::types::clock::Timestamp;
use crate::types::consumer::{ConsumerInfo, ConsumerStart, Force, Holder};
use crate::types::error::{Error, Reason};
use crate::types::event::Lagged;
use crate::types::filter::Filter;
use crate::types::name::{SEPARATOR, namespace_of};
use crate::types::revision::Revision;

use super::{Act, ConsumerRow, Job, Lag, Result, Rows, refuse};

impl<R: Rows> Job<'_, R> {
    /// What is refused is refused before the first change.
    pub(super) fn consumer(&mut self, name: &str, act: &Act) -> Result<u64> {
        let now = self.moment.now;
        match act {
            Act::Take { filter, start, holder, lease } => {
                self.take(name, filter.as_ref(), *start, holder, millis(*lease))
            }
            Act::Keep { fence, handed, seen } => {
                let mut row = self.held(name, *fence)?;
                // A consumer that begins with a snapshot has no position yet, and leaves it so.
                if let Some(acked) = row.acked.filter(|acked| acked >= handed) {
                    row.acked = Some(acked.max(*seen));
                }
                row.lease_until = Some(row.lease_from(now));
                self.rows.put_consumer(name, &row)?;
                Ok(*fence)
            }
            Act::Ack { fence, upto } => {
                let mut row = self.held(name, *fence)?;
                if let Some(upto) = *upto {
                    self.refuse_ahead(upto)?;
                    row.acked = Some(row.acked.unwrap_or_default().max(upto));
                    row.acked_at = Some(now);
                }
                row.lease_until = Some(row.lease_from(now));
                self.rows.put_consumer(name, &row)?;
                Ok(*fence)
            }
            Act::Release { fence } => {
                let row = self.rows.consumer(name)?;
                // Once more writes nothing.
                if let Some(row) = row.filter(|row| row.fence == *fence && row.holder.is_some()) {
                    self.rows.put_consumer(name, &row.free())?;
                }
                Ok(0)
            }
            Act::Reset { to, force } => {
                self.may_be_changed(name, *force)?;
                let acked = self.position(*to)?;
                let row = match force {
                    // By force also when the row cannot be read.
                    Force::Yes => self.rows.consumer(name).ok().flatten(),
                    Force::No => self.rows.consumer(name)?,
                };
                let row = row.unwrap_or_else(|| ConsumerRow::new(None, now)).free();
                let row = ConsumerRow { acked, fence: self.rows.fence()?, ..row };
                self.rows.put_consumer(name, &row)?;
                Ok(0)
            }
            Act::Remove { force } => {
                self.may_be_changed(name, *force)?;
                self.rows.remove_consumer(name)?;
                Ok(0)
            }
        }
    }

    fn take(
        &mut self,
        name: &str,
        filter: Option<&Filter>,
        start: ConsumerStart,
        holder: &str,
        lease: i64,
    ) -> Result<u64> {
        let now = self.moment.now;
        let there = self.rows.consumer(name)?;
        let is_new = there.is_none();
        let mut row = match there {
            Some(row) => {
                refuse_held(name, &row, now)?;
                self.pull_back(name, row)?
            }
            None => ConsumerRow::new(self.position(start)?, now),
        };
        row.fence = self.rows.fence()?;
        row.lease = lease;
        row.lease_until = Some(row.lease_from(now));
        row.holder = Some(holder.to_owned());
        self.rows.put_consumer(name, &row)?;
        // A consumer of a namespace sees nothing else.
        let everything = || {
            let namespace = namespace_of(name);
            Filter::group_prefix(namespace.map_or(String::new(), |name| format!("{name}{SEPARATOR}")))
        };
        match filter {
            Some(filter) => self.rows.set_consumer_filter(name, filter)?,
            None if is_new => self.rows.set_consumer_filter(name, &everything())?,
            None => {}
        }
        Ok(row.fence)
    }

    /// The row of a consumer that is held under this number.
    fn held(&mut self, name: &str, fence: u64) -> Result<ConsumerRow> {
        match self.rows.consumer(name)? {
            Some(row) if row.fence == fence => Ok(row),
            other => refuse(Reason::Fenced { name: name.to_owned(), by: other.and_then(|row| row.holder) }),
        }
    }

    /// That the consumer is there, and nobody holds it, or that does not matter.
    fn may_be_changed(&mut self, name: &str, force: Force) -> Result<()> {
        // By force also when the row cannot be read: it is the way to be rid of it.
        if !self.rows.has_consumer(name)? {
            return refuse(Reason::NoConsumer { name: name.to_owned() });
        }
        match force {
            Force::Yes => Ok(()),
            Force::No => {
                let row = self.rows.consumer(name)?;
                row.map_or(Ok(()), |row| refuse_held(name, &row, self.moment.now))
            }
        }
    }

    /// A position after the last revision goes back to that: its consumer would pass over what comes until then. Earlier
    /// releases let one be set there.
    fn pull_back(&mut self, name: &str, row: ConsumerRow) -> Result<ConsumerRow> {
        let last = self.rows.last()?;
        let Some(acked) = row.acked.filter(|acked| *acked > last) else { return Ok(row) };
        tracing::warn!(consumer = name, %acked, %last, "a consumer stood after the last revision; it goes on from there");
        Ok(ConsumerRow { acked: Some(last), ..row })
    }

    fn position(&mut self, start: ConsumerStart) -> Result<Option<Revision>> {
        Ok(match start {
            ConsumerStart::Now => Some(self.rows.last()?),
            ConsumerStart::Beginning => Some(self.rows.trimmed()?),
            ConsumerStart::After(revision) => {
                self.refuse_ahead(revision)?;
                Some(revision)
            }
            ConsumerStart::AfterCursor(cursor) => {
                self.refuse_lost(cursor)?;
                Some(cursor.revision())
            }
            ConsumerStart::Snapshot => None,
        })
    }
}

impl ConsumerRow {
    fn new(acked: Option<Revision>, now: Timestamp) -> ConsumerRow {
        ConsumerRow {
            acked,
            acked_at: None,
            created: now,
            fence: 0,
            holder: None,
            lease_until: None,
            lives: None,
            lease: 0,
        }
    }

    /// Until when a lease runs that begins now.
    fn lease_from(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_millis(now.as_millis().saturating_add(self.lease))
    }

    fn free(self) -> ConsumerRow {
        ConsumerRow { holder: None, lease_until: None, ..self }
    }

    /// Whether the holder lives, if there is one.
    pub(crate) fn is_alive(&self, now: Timestamp) -> bool {
        self.lives.unwrap_or_else(|| self.lease_until.is_some_and(|until| is_running(now, until, self.lease)))
    }

    /// Until when it lives without another sign of life, at the most; until when it lived.
    fn until(&self, now: Timestamp) -> Option<Timestamp> {
        self.lease_until.map(|until| match self.lives {
            None => until,
            Some(true) => self.lease_from(now),
            Some(false) => until.min(now),
        })
    }
}

/// A consumer as users see it.
pub(crate) fn describe(
    name: String,
    row: ConsumerRow,
    filter: Filter,
    log: &impl Lag,
    now: Timestamp,
) -> Result<ConsumerInfo, Error> {
    let (until, is_alive) = (row.until(now), row.is_alive(now));
    let ConsumerRow { acked, acked_at, created, fence, holder, .. } = row;
    let holder = holder.zip(until).map(|(label, until)| Holder { label, until, is_alive });
    let (lag_events, lag_bytes, oldest_unacked, lost) = (0, 0, None, None);
    let mut info = ConsumerInfo {
        name,
        filter,
        acked,
        acked_at,
        created,
        fence,
        holder,
        lag_events,
        lag_bytes,
        oldest_unacked,
        lost,
    };
    let Some(acked) = acked else { return Ok(info) };
    let trimmed = log.trimmed()?;
    info.lost = acked.next().filter(|_| trimmed > acked).map(|from| Lagged { from, to: trimmed });
    info.lag_events = log.events_after(acked)?;
    if let Some((first, before)) = log.first_after(acked.max(trimmed))? {
        info.oldest_unacked = Some(first.timestamp);
        info.lag_bytes = u64::try_from(log.end()?.1.saturating_sub(before)).unwrap_or(0);
    }
    Ok(info)
}

fn refuse_held(name: &str, row: &ConsumerRow, now: Timestamp) -> Result<()> {
    match (&row.holder, row.until(now)) {
        (Some(holder), Some(until)) if row.is_alive(now) => {
            refuse(Reason::Held { name: name.to_owned(), holder: holder.clone(), left: until.since(now) })
        }
        _ => Ok(()),
    }
}

/// Whether a lease still runs. One that reaches much farther than it may is of a clock that went back since.
fn is_running(now: Timestamp, until: Timestamp, lease: i64) -> bool {
    now < until && until.as_millis().saturating_sub(now.as_millis()) <= lease.saturating_mul(2)
}

fn millis(time: Duration) -> i64 {
    // A hundred million years are enough, and leave room for the present.
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_of_a_clock_that_went_back_does_not_run_for_hours() {
        let at = Timestamp::from_millis;
        assert!(is_running(at(1_000), at(1_001), 10));
        assert!(is_running(at(1_000), at(1_019), 10), "a small step back is no reason");
        assert!(!is_running(at(1_000), at(1_000), 10));
        assert!(!is_running(at(1_000), at(4_000_000), 10));
    }
}
