//! Reserved revisions, so that none is ever given twice, although a relaxed file may lose its last commits in a power
//! cut.
//!
//! Before a revision is given, a block of them is reserved, and that is synced. Whoever opens the file as the only one
//! and finds a reservation knows that the file was not closed in good order: it goes on after the reserved block, and
//! leaves a row of kind [`Kind::Gap`] in the log that says what lies between. No filter lets such a row through; it
//! takes no part in anything but the counting of revisions, and in the refusal of cursors from inside the gap.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension};

use crate::types::clock::Timestamp;
use crate::types::error::{Reason, Result};
use crate::types::event::{Change, Kind};
use crate::types::limits::REVISION_BLOCK;
use crate::types::revision::Revision;

use super::connection::{self, Sync};
use super::log::{self, Salt};

const READ: &str = "SELECT value FROM wk_meta WHERE name = 'reserved'";
const RESERVE: &str = "INSERT OR REPLACE INTO wk_meta (name, value) VALUES ('reserved', ?1)";
const RELEASE: &str = "DELETE FROM wk_meta WHERE name = 'reserved'";
/// What follows a revision in the log.
const FOLLOWS: &str =
    "SELECT kind, previous, revision FROM wk_log WHERE revision > ?1 ORDER BY revision LIMIT 1";
/// The gaps that end after a revision, the newest first: from which revision to which.
const GAPS: &str =
    "SELECT previous, revision FROM wk_log WHERE kind = 0 AND revision > ?1 ORDER BY revision DESC";

/// Up to which revision they were reserved when this process last looked: a hint when to reserve more. What may be given
/// is read in the transaction that gives it, as another process that takes itself for the last may have removed it.
#[derive(Debug, Default)]
pub(super) struct Reserved(Revision);

impl Reserved {
    pub(super) fn upto(revision: Revision) -> Reserved {
        Reserved(revision)
    }

    pub(super) fn is_known(&self) -> bool {
        self.0 > Revision::ZERO
    }

    /// Whether everything up to a revision may be given, in the transaction that is open.
    pub(super) fn covers(&mut self, conn: &Connection, last: Revision) -> Result<bool> {
        self.0 = reserved(conn)?.unwrap_or_default();
        Ok(last <= self.0)
    }

    /// Whether more should be reserved soon, while nobody waits for it.
    pub(super) fn is_short(&self, last: Revision) -> bool {
        last.get() + REVISION_BLOCK / 2 > self.0.get()
    }
}

/// Reserves a block after a revision; up to where. The transaction that this is part of must be synced.
pub(super) fn extend(conn: &Connection, after: Revision) -> Result<Revision> {
    let wanted = Revision::new(after.get().saturating_add(REVISION_BLOCK));
    // Another process may have been faster.
    if let Some(there) = reserved(conn)?.filter(|there| *there >= wanted) {
        return Ok(there);
    }
    conn.prepare_cached(RESERVE)?.execute([wanted.as_i64()])?;
    Ok(wanted)
}

/// After an end that was not in good order: goes on where nothing was ever given. Only when nobody else has the file
/// open; a shell, or others of ours where nothing tells of them, are waited for.
pub(super) fn recover(conn: &Connection, now: Timestamp, timeout: Duration) -> Result<()> {
    if reserved(conn)?.is_none() {
        return Ok(());
    }
    synced(conn, timeout, || {
        // It may have been released meanwhile.
        let Some(reserved) = reserved(conn)? else { return Ok(()) };
        let (end, total) = log::end(conn)?;
        if reserved > end {
            tracing::warn!(
                "the file was not closed in good order: commits after revision {end} may be lost, and revisions up to \
                 {reserved} are not given again"
            );
            log::append(conn, Salt::read(conn)?, &gap(end, reserved, now)?, total)?;
        }
        conn.execute(RELEASE, [])?;
        Ok(())
    })
}

/// Closing in good order, as the last: what was given is synced, so nothing is lost.
pub(super) fn release(conn: &Connection) -> Result<()> {
    if reserved(conn)?.is_none() {
        return Ok(());
    }
    synced(conn, Duration::ZERO, || release_here(conn))
}

/// The same in whatever transaction is open.
pub(super) fn release_here(conn: &Connection) -> Result<()> {
    conn.execute(RELEASE, [])?;
    Ok(())
}

/// Refuses a revision that lies in a gap: whoever saw it saw what is not in the file any more.
pub(super) fn refuse_lost(conn: &Connection, revision: Revision) -> Result<()> {
    let follows = conn
        .prepare_cached(FOLLOWS)?
        .query_row([revision.as_i64()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let gap: Option<(i64, Option<i64>, i64)> = follows;
    let Some((kind, Some(before), end)) = gap else { return Ok(()) };
    if kind != Kind::Gap.code() || revision.as_i64() <= before {
        return Ok(());
    }
    let (after, next) = (Revision::from_i64(before)?, Revision::from_i64(end)?);
    Err(Reason::LostRevision { revision, after, next }.into())
}

/// How many revisions after this one were never given to an event that is there.
pub(super) fn missing_after(conn: &Connection, after: Revision) -> Result<u64> {
    let mut missing = 0;
    for gap in gaps(conn, after)? {
        missing += gap.len_after(after);
    }
    Ok(missing)
}

/// The revision after which the newest `count` events lie, as far as the log goes back.
pub(super) fn before_newest(conn: &Connection, last: Revision, count: u64) -> Result<Revision> {
    let mut before = last.get().saturating_sub(count);
    for gap in gaps(conn, Revision::ZERO)? {
        if before >= gap.end {
            break;
        }
        before = before.saturating_sub(gap.end - gap.after);
    }
    Ok(Revision::new(before))
}

/// Revisions without an event: after the one, up to the other.
struct Gap {
    after: u64,
    end: u64,
}

impl Gap {
    fn len_after(&self, revision: Revision) -> u64 {
        self.end - self.after.max(revision.get()).min(self.end)
    }
}

fn gaps(conn: &Connection, after: Revision) -> Result<Vec<Gap>> {
    let mut statement = conn.prepare_cached(GAPS)?;
    let mut rows = statement.query([after.as_i64()])?;
    let mut gaps = Vec::new();
    while let Some(row) = rows.next()? {
        let (after, end) = (Revision::from_i64(row.get(0)?)?, Revision::from_i64(row.get(1)?)?);
        gaps.push(Gap { after: after.get(), end: end.get() });
    }
    Ok(gaps)
}

fn reserved(conn: &Connection) -> Result<Option<Revision>> {
    let reserved: Option<i64> = conn.prepare_cached(READ)?.query_row([], |row| row.get(0)).optional()?;
    reserved.map(Revision::from_i64).transpose()
}

/// The row that says which revisions are passed over. Its own is the next one, so that a cursor on the last that may
/// have been given is refused too.
fn gap(end: Revision, reserved: Revision, now: Timestamp) -> Result<Change> {
    let revision = reserved.next().ok_or(Reason::NoRevisionLeft)?;
    Ok(Change {
        revision,
        commit: revision,
        kind: Kind::Gap,
        group: "".into(),
        key: None,
        value: None,
        content_type: None,
        deadline: None,
        previous: Some(end),
        origin: None,
        timestamp: now,
    })
}

/// Runs a transaction that is on the disk when this returns, in a file whose others are not.
fn synced(conn: &Connection, timeout: Duration, f: impl FnOnce() -> Result<()>) -> Result<()> {
    conn.execute_batch(Sync::Full.pragma())?;
    let done = connection::begin(conn, Instant::now(), || timeout)
        .and_then(|()| f())
        .and_then(|()| Ok(conn.execute_batch("COMMIT")?));
    if done.is_err() && !conn.is_autocommit() {
        // What fails here fails again, and is reported, at the next BEGIN.
        let _ = conn.execute_batch("ROLLBACK");
    }
    conn.execute_batch(Sync::Normal.pragma())?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sqlite::schema::TABLES;

    /// A log of single events, with gaps after some of them.
    fn log_with(events: &[u64], gaps: &[(u64, u64)]) -> Result<Connection> {
        let conn = Connection::open_in_memory()?;
        conn.execute_batch(TABLES)?;
        let salt = Salt::random()?;
        for &event in events {
            let at = Revision::new(event);
            let change = Change { kind: Kind::Set, previous: None, ..gap(at, at, Timestamp::default())? };
            log::append(&conn, salt, &Change { revision: at, commit: at, ..change }, 0)?;
        }
        for &(after, reserved) in gaps {
            let (after, reserved) = (Revision::new(after), Revision::new(reserved));
            log::append(&conn, salt, &gap(after, reserved, Timestamp::default())?, 0)?;
        }
        Ok(conn)
    }

    #[test]
    fn a_revision_in_a_gap_is_refused_and_its_ends_are_not() -> Result<()> {
        // The gaps' own rows are 11 and 21.
        let conn = log_with(&[1, 2, 12, 22, 23], &[(2, 10), (12, 20)])?;
        for (revision, lost) in [(0, false), (1, false), (2, false), (3, true), (10, true), (11, false)] {
            assert_eq!(refuse_lost(&conn, Revision::new(revision)).is_err(), lost, "{revision}");
        }
        for (revision, lost) in [(12, false), (13, true), (20, true), (21, false), (23, false), (99, false)] {
            assert_eq!(refuse_lost(&conn, Revision::new(revision)).is_err(), lost, "{revision}");
        }
        Ok(())
    }

    #[test]
    fn gaps_do_not_count_as_events() -> Result<()> {
        let conn = log_with(&[1, 2, 12, 22, 23], &[(2, 10), (12, 20)])?;
        for (after, missing) in [(0, 18), (2, 18), (11, 9), (12, 9), (21, 0), (23, 0)] {
            assert_eq!(missing_after(&conn, Revision::new(after))?, missing, "after {after}");
        }
        let last = Revision::new(23);
        for (count, before) in [(0, 23), (1, 22), (2, 21), (3, 11), (4, 1), (5, 0), (9, 0)] {
            assert_eq!(before_newest(&conn, last, count)?, Revision::new(before), "the newest {count}");
        }
        Ok(())
    }
}
