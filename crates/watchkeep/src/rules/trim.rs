//! Retention: up to where a log is trimmed.

use std::time::Duration;

use crate::types::clock::Timestamp;
use crate::types::error::Result;
use crate::types::limits::{SNAPSHOT_LOG_BYTES, SNAPSHOT_LOG_EVENTS, TRIM_STEP};
use crate::types::options::Retention;
use crate::types::revision::Revision;

/// A row of a log, for those who trim it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogRow {
    pub(crate) revision: Revision,
    /// The running total of bytes, with it.
    pub(crate) total: i64,
    pub(crate) timestamp: Timestamp,
}

/// What tells how far somebody is behind.
pub(crate) trait Lag {
    /// Everything up to this revision is trimmed.
    fn trimmed(&self) -> Result<Revision>;
    /// The last revision, and the running total there.
    fn end(&self) -> Result<(Revision, i64)>;
    /// The first row after a revision, and the running total before it.
    fn first_after(&self, revision: Revision) -> Result<Option<(LogRow, i64)>>;
    /// How many events come after a revision.
    fn events_after(&self, revision: Revision) -> Result<u64>;
}

/// What tells how old and how large a log is.
pub(crate) trait Past: Lag {
    /// The revision after which the newest so many events lie.
    fn before_newest(&self, count: u64) -> Result<Revision>;
    /// The revision that comes so many events after another, whether or not it was given yet.
    fn ahead(&self, revision: Revision, events: u64) -> Result<Revision>;
    /// The first row from a revision on.
    fn row_from(&self, revision: Revision) -> Result<Option<LogRow>>;
    /// The end of the transaction of a revision, if its row is there.
    fn commit_of(&self, revision: Revision) -> Result<Option<Revision>>;
    /// The first row after a revision, up to another, that was written in this time.
    fn first_within(
        &self,
        rows: (Revision, Revision),
        time: (Timestamp, Timestamp),
    ) -> Result<Option<Revision>>;
    /// The last row after a revision, up to another, that was written before this time.
    fn last_before(&self, rows: (Revision, Revision), time: Timestamp) -> Result<Option<Revision>>;
    /// The last row after a revision, up to another, that ends its transaction.
    fn last_end(&self, rows: (Revision, Revision)) -> Result<Option<Revision>>;
    /// Up to where the consumer that has acknowledged least has done so.
    fn floor(&self) -> Result<Option<Revision>>;
}

/// Up to where retention trims now; none when there is nothing worth a step. What comes after `needed` is left as long
/// as the log is short enough.
pub(crate) fn cut(
    log: &impl Past,
    retention: &Retention,
    now: Timestamp,
    needed: Option<Revision>,
) -> Result<Option<Revision>> {
    let trimmed = log.trimmed()?;
    let kept = log.events_after(trimmed)?;
    if kept <= retention.min_events {
        return Ok(None);
    }
    let excess = kept.saturating_sub(retention.max_events);
    // A log that hovers about its limit is not trimmed event by event.
    let by_count = match excess >= slack(retention.max_events) {
        true => log.before_newest(retention.max_events)?,
        false => Revision::ZERO,
    };
    let by_bytes = by_bytes(log, retention.max_bytes)?;
    let by_age = by_age(log, retention.max_age, now)?;
    let wanted = by_count.max(by_bytes).max(by_age).min(log.before_newest(retention.min_events)?);
    // A log that somebody holds back is not trimmed acknowledgement by acknowledgement, or page by page, either.
    let worth_it = |floor: Revision| -> Result<Revision> {
        let freed = kept.saturating_sub(log.events_after(floor)?);
        Ok(if floor > trimmed && freed >= slack(retention.max_events) { floor } else { Revision::ZERO })
    };
    let mut to = wanted;
    if let Some(floor) = log.floor()?.filter(|floor| *floor < to) {
        let by_bytes = self::by_bytes(log, retention.consumer_bytes)?;
        let ceiling = self::by_age(log, retention.consumer_age, now)?.max(by_bytes);
        to = to.min(ceiling.max(worth_it(floor)?));
    }
    if let Some(floor) = needed.filter(|floor| *floor < to) {
        let ceiling = log.before_newest(SNAPSHOT_LOG_EVENTS)?.max(self::by_bytes(log, SNAPSHOT_LOG_BYTES)?);
        to = to.min(ceiling.max(worth_it(floor)?));
    }
    whole_transactions(log, to)
}

fn slack(max_events: u64) -> u64 {
    (max_events / 8).clamp(1, TRIM_STEP)
}

/// The last revision that must go so that the log weighs no more than it may.
fn by_bytes(log: &impl Past, max_bytes: u64) -> Result<Revision> {
    let Some((first, before)) = log.first_after(log.trimmed()?)? else { return Ok(Revision::ZERO) };
    let (last, total) = log.end()?;
    let allowed = total.saturating_sub(i64::try_from(max_bytes).unwrap_or(i64::MAX));
    if allowed <= before {
        return Ok(Revision::ZERO);
    }
    // The running total grows with the revisions: the first row that reaches it.
    let row = search(log, (first.revision, last), |row| row.total >= allowed)?;
    Ok(row.map_or(last, |row| row.revision))
}

/// The first row in a range of revisions of which this is so, where it is so of all that follow: halves the range.
pub(crate) fn search(
    log: &impl Past,
    (first, last): (Revision, Revision),
    is_so: impl Fn(&LogRow) -> bool,
) -> Result<Option<LogRow>> {
    let (mut low, mut high) = (first.get(), last.get());
    while low < high {
        let middle = low + (high - low) / 2;
        match log.row_from(Revision::new(middle))? {
            Some(row) if !is_so(&row) => low = row.revision.get() + 1,
            _ => high = middle,
        }
    }
    log.row_from(Revision::new(low))
}

/// The last revision that is too old, of those before the first that is young enough, looking a few steps ahead.
///
/// A row that is newer than now was written while the clock was wrong, and cannot tell its age: it is as old as the
/// next one that can, and as if written now when there is none.
pub(crate) fn by_age(log: &impl Past, max_age: Duration, now: Timestamp) -> Result<Revision> {
    let age = i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX);
    let Some(oldest) = now.as_millis().checked_sub(age).map(Timestamp::from_millis) else {
        return Ok(Revision::ZERO);
    };
    let from = log.trimmed()?;
    let Some((first, _)) = log.first_after(from)? else { return Ok(Revision::ZERO) };
    let ahead = log.ahead(first.revision, 8 * TRIM_STEP)?;
    let upto = match log.first_within((from, ahead), (oldest, now))? {
        Some(young) => Revision::new(young.get() - 1),
        // What lies ahead tells of the rows here that cannot tell.
        None if first_that_tells(log, ahead, now)?.is_some_and(|row| row.timestamp < oldest) => {
            return whole(log, ahead);
        }
        None => ahead,
    };
    log.last_before((from, upto), oldest)?.map_or(Ok(Revision::ZERO), |old| whole(log, old))
}

/// From a revision on, a row that is not newer than now and follows one that is, or the first; none when the newest row
/// of all is newer than now.
fn first_that_tells(log: &impl Past, from: Revision, now: Timestamp) -> Result<Option<LogRow>> {
    let last = log.end()?.0;
    let tells = |row: &LogRow| row.timestamp <= now;
    if !log.row_from(last.max(from))?.is_some_and(|row| tells(&row)) {
        return Ok(None);
    }
    // Mostly the clock was wrong for a while, so that those rows lie together: halve the range, as it may be long.
    search(log, (from, last), tells)
}

/// The end of the transaction of a revision: all of it is of one age, however far it reaches.
fn whole(log: &impl Past, revision: Revision) -> Result<Revision> {
    Ok(log.commit_of(revision)?.map_or(revision, |commit| commit.max(revision)))
}

/// The end of the last whole transaction up to `to`; never that of the newest one.
pub(crate) fn whole_transactions(log: &impl Past, to: Revision) -> Result<Option<Revision>> {
    let last = log.end()?.0;
    let to = to.min(Revision::new(last.get().saturating_sub(1)));
    log.last_end((log.trimmed()?, to))
}
