//! What the store's thread does to the file now and then: trim the log, sweep deleted groups, give space back, move
//! the write-ahead log into the file. All in small steps, so that writers hardly wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Row, ToSql};

use crate::types::clock::Timestamp;
use crate::types::consumer::Force;
use crate::types::error::{Error, Result};
use crate::types::limits::{
    SCARCE_PAGES, SNAPSHOT_LOG_BYTES, SNAPSHOT_LOG_EVENTS, SWEEP_STEP, TRIM_STEP, UPKEEP,
};
use crate::types::options::Retention;
use crate::types::revision::Revision;
use crate::types::sync::{Mutex, lock};

use super::lead::Lead;
use super::writer::Writer;
use super::{SqliteEngine, answers, consumers, due, log, place, reserve, retention};
use crate::engine::Engine;
use crate::engine::turn::Admission;

/// Space is given back when more than a quarter of the file is free, and more pages than this.
const FREE_PAGES: i64 = 1_024;
const VACUUM_STEP: i64 = 128;

/// When the file was last looked after, and whether it is time again.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    wanted: AtomicBool,
    done: Mutex<Option<Instant>>,
}

impl Upkeep {
    /// There is something to do.
    pub(super) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    fn is_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }

    /// Whether to look: when it is wanted, and now and then for what the clock or other processes brought.
    pub(super) fn is_due(&self) -> bool {
        let mut done = lock(&self.done);
        let due = self.is_wanted() || done.is_none_or(|done| done.elapsed() >= UPKEEP);
        if due {
            *done = Some(Instant::now());
        }
        due
    }
}

impl SqliteEngine {
    /// Runs with the turn, in a transaction that announces nothing.
    pub(super) fn exclusively<T>(&self, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.with_turn(|writer, queued| {
            let done = writer.transaction(queued, self.busy_timeout, f);
            self.spare(writer);
            done
        })
    }

    fn with_turn<T>(&self, f: impl FnOnce(&mut Writer, Instant) -> Result<T>) -> Result<T> {
        let queued = Instant::now();
        match self.turn.enter(|| None, self.busy_timeout)? {
            Admission::Lead(writer) => Lead::new(&self.turn, writer).with(|writer| f(writer, queued)),
            // Only a write as data is ever done by others.
            Admission::Done(result) => {
                Err(result.err().unwrap_or_else(|| crate::types::error::Reason::Closed.into()))
            }
        }
    }

    pub(super) fn maintenance_step(&self) -> Result<bool> {
        self.pool.end_held(false);
        self.ballast.keep();
        let mut more = false;
        if self.ballast.is_tight() {
            self.empty_log()?;
        } else if self.wal.wants_moving() {
            self.checkpoint()?;
        }
        if self.pool.with(due::has_dead)? {
            more |= self.exclusively(|conn| due::sweep(conn, SWEEP_STEP))?;
        }
        if self.pool.with(|conn| answers::has_old(conn, self.clock.now()))? {
            self.exclusively(|conn| answers::drop_old(conn, self.clock.now()))?;
            more = true;
        }
        let find_cut = |conn: &Connection| {
            // On a full disk nobody's snapshot counts.
            let needed = self.floors.least().filter(|_| !self.ballast.is_tight());
            cut(conn, &retention::read(conn)?, self.clock.now(), needed)
        };
        if self.pool.with(find_cut)?.is_some() {
            // Looked up again with the turn: meanwhile a consumer may have come that needs what lies there.
            self.exclusively(|conn| {
                find_cut(conn)?.map_or(Ok(()), |cut| mark_trimmed(conn, cut))?;
                drop_trimmed(conn).map(drop)
            })?;
            more = true;
        }
        if self.pool.with(has_leftovers)? {
            self.exclusively(|conn| drop_trimmed(conn).map(drop))?;
            more = true;
        }
        let tight = self.ballast.is_tight();
        if self.pool.with(|conn| wastes_space(conn, tight))? {
            self.exclusively(give_back)?;
            more = true;
        }
        if tight {
            self.empty_log()?;
            self.ballast.keep();
        }
        if more {
            self.upkeep.want();
        }
        Ok(more)
    }

    /// Moves the write-ahead log into the file: most of it while others write, the rest in a moment of quiet, after
    /// which the log begins again from its start.
    fn checkpoint(&self) -> Result<()> {
        self.pool.with(|conn| checkpoint(conn, "PASSIVE"))?;
        self.with_turn(|writer, _| checkpoint(&writer.conn, "PASSIVE"))?;
        self.wal.was_moved();
        Ok(())
    }

    /// On a full disk every page counts, those of the write-ahead log as well.
    fn empty_log(&self) -> Result<()> {
        self.with_turn(|writer, _| self.empty_log_of(&writer.conn))
    }

    /// Moving a part of the log would only use up the room that is left for deleting: it is moved when all of it finds
    /// room.
    fn empty_log_of(&self, conn: &Connection) -> Result<()> {
        let number = |sql: &str| conn.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0));
        let whole = number("PRAGMA page_count")? * number("PRAGMA page_size")?;
        let growth = whole.unsigned_abs().saturating_sub(self.sizes().0);
        match place::free(place::folder_of(&self.path)) {
            Some(free) if growth > free => Ok(()),
            _ => checkpoint(conn, "TRUNCATE"),
        }
    }

    /// Where room is scarce, who writes keeps the write-ahead log short.
    pub(super) fn spare(&self, writer: &Writer) {
        if self.ballast.is_scarce() && self.wal.pages() >= SCARCE_PAGES {
            self.empty_log_of(&writer.conn).unwrap_or_else(|error| self.notice(&error));
        }
    }

    /// Trims up to a revision, as far as whole transactions go; the newest transaction always stays.
    pub(super) fn trim_to(&self, to: Revision, force: Force) -> Result<u64> {
        let events = self.exclusively(|conn| {
            let trimmed = log::trimmed(conn)?;
            let Some(cut) = whole_transactions(conn, trimmed, to)? else { return Ok(0) };
            if force == Force::No {
                consumers::refuse_to_lose(conn, cut)?;
            }
            mark_trimmed(conn, cut)?;
            let missing = reserve::missing_after(conn, trimmed)? - reserve::missing_after(conn, cut)?;
            Ok((cut.get() - trimmed.get()).saturating_sub(missing))
        })?;
        while events > 0 && self.exclusively(drop_trimmed)? > 0 {}
        Ok(events)
    }
}

/// Says that everything up to `to` is trimmed.
fn mark_trimmed(conn: &Connection, to: Revision) -> Result<()> {
    conn.prepare_cached("UPDATE wk_meta SET value = ?1 WHERE name = 'trimmed'")?.execute([to.as_i64()])?;
    Ok(())
}

fn checkpoint(conn: &Connection, mode: &str) -> Result<()> {
    conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))?;
    Ok(())
}

fn first(conn: &Connection) -> Result<Option<Revision>> {
    let first: Option<i64> =
        conn.prepare_cached("SELECT min(revision) FROM wk_log")?.query_row([], |row| row.get(0))?;
    first.map(Revision::from_i64).transpose()
}

/// Whether the log still holds rows that are trimmed.
fn has_leftovers(conn: &Connection) -> Result<bool> {
    let trimmed = log::trimmed(conn)?;
    Ok(first(conn)?.is_some_and(|first| first <= trimmed))
}

/// Removes rows that are trimmed, a bounded number; how many.
fn drop_trimmed(conn: &Connection) -> Result<u64> {
    let trimmed = log::trimmed(conn)?;
    let Some(first) = first(conn)?.filter(|first| *first <= trimmed) else { return Ok(0) };
    let to = trimmed.min(Revision::new(first.get() + TRIM_STEP - 1));
    let gone = conn.prepare_cached("DELETE FROM wk_log WHERE revision <= ?1")?.execute([to.as_i64()])?;
    Ok(u64::try_from(gone).unwrap_or(u64::MAX))
}

/// Up to where retention trims now; none when there is nothing worth a step. What comes after `needed` is left as long
/// as the log is short enough.
fn cut(
    conn: &Connection,
    retention: &Retention,
    now: Timestamp,
    needed: Option<Revision>,
) -> Result<Option<Revision>> {
    let (last, total) = log::end(conn)?;
    let trimmed = log::trimmed(conn)?;
    let span = last.get().saturating_sub(trimmed.get());
    let kept = span.saturating_sub(reserve::missing_after(conn, trimmed)?);
    if kept <= retention.min_events {
        return Ok(None);
    }
    let excess = kept.saturating_sub(retention.max_events);
    // A log that hovers about its limit is not trimmed event by event.
    let newest = |count| Ok::<_, Error>(reserve::before_newest(conn, last, count)?.get());
    let by_count = if excess >= slack(retention.max_events) { newest(retention.max_events)? } else { 0 };
    let by_bytes = by_bytes(conn, total, retention.max_bytes)?;
    let by_age = by_age(conn, trimmed, retention.max_age, now)?;
    let wanted = by_count.max(by_bytes).max(by_age).min(newest(retention.min_events)?);
    // A log that somebody holds back is not trimmed acknowledgement by acknowledgement, or page by page, either.
    let worth_it = |floor: Revision| {
        let freed = floor.get().saturating_sub(trimmed.get());
        if freed >= slack(retention.max_events) { floor.get() } else { 0 }
    };
    let mut to = wanted;
    if let Some((_, floor)) = consumers::floor(conn)?.filter(|(_, floor)| floor.get() < to) {
        let by_bytes = self::by_bytes(conn, total, retention.consumer_bytes)?;
        let ceiling = self::by_age(conn, trimmed, retention.consumer_age, now)?.max(by_bytes);
        to = to.min(ceiling.max(worth_it(floor)));
    }
    if let Some(floor) = needed.filter(|floor| floor.get() < to) {
        let ceiling = newest(SNAPSHOT_LOG_EVENTS)?.max(self::by_bytes(conn, total, SNAPSHOT_LOG_BYTES)?);
        to = to.min(ceiling.max(worth_it(floor)));
    }
    whole_transactions(conn, trimmed, Revision::new(to))
}

fn slack(max_events: u64) -> u64 {
    (max_events / 8).clamp(1, TRIM_STEP)
}

/// The last revision that must go so that the log weighs no more than it may.
fn by_bytes(conn: &Connection, total: i64, max_bytes: u64) -> Result<u64> {
    let Some((first, before)) = log::begin(conn)? else { return Ok(0) };
    let allowed = total.saturating_sub(i64::try_from(max_bytes).unwrap_or(i64::MAX));
    if allowed <= before {
        return Ok(0);
    }
    // The running total grows with the revisions: halve the range until the first row is found that reaches it.
    let (mut low, mut high) = (first.get(), log::end(conn)?.0.get());
    while low < high {
        let middle = low + (high - low) / 2;
        match row_from(conn, middle)? {
            Some(row) if row.total < allowed => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(row_from(conn, low)?.map_or(low, |row| row.revision))
}

/// A row of the log: its revision, the running total there, and when it was written.
struct LogRow {
    revision: u64,
    total: i64,
    timestamp: i64,
}

/// The first row from a revision on.
fn row_from(conn: &Connection, revision: u64) -> Result<Option<LogRow>> {
    let sql =
        "SELECT revision, total_bytes, timestamp FROM wk_log WHERE revision >= ?1 ORDER BY revision LIMIT 1";
    let from = Revision::new(revision).as_i64();
    let columns = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?));
    let row = conn.prepare_cached(sql)?.query_row([from], columns).optional()?;
    row.map(|(revision, total, timestamp)| {
        Ok(LogRow { revision: Revision::from_i64(revision)?.get(), total, timestamp })
    })
    .transpose()
}

/// The last revision that is too old, of those before the first that is young enough, looking a few steps ahead.
///
/// A row that is newer than now was written while the clock was wrong, and cannot tell its age: it is as old as the
/// next one that can, and as if written now when there is none.
fn by_age(conn: &Connection, trimmed: Revision, max_age: Duration, now: Timestamp) -> Result<u64> {
    let age = i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX);
    let Some(oldest) = now.as_millis().checked_sub(age) else { return Ok(0) };
    let Some((first, _)) = log::begin(conn)? else { return Ok(0) };
    let ahead = Revision::new(first.get() + 8 * TRIM_STEP);
    let young = "SELECT revision FROM wk_log WHERE revision > ?1 AND revision <= ?2 AND timestamp BETWEEN ?3 AND ?4 \
                 ORDER BY revision LIMIT 1";
    let old = "SELECT revision FROM wk_log WHERE revision > ?1 AND revision <= ?2 AND timestamp < ?3 \
               ORDER BY revision DESC LIMIT 1";
    let number = |sql: &str, params: &[&dyn ToSql]| {
        let row: Option<i64> = conn.prepare_cached(sql)?.query_row(params, |row| row.get(0)).optional()?;
        row.map(Revision::from_i64).transpose()
    };
    let (from, now) = (trimmed.as_i64(), now.as_millis());
    let upto = match number(young, &[&from, &ahead.as_i64(), &oldest, &now])? {
        Some(young) => Revision::new(young.get() - 1),
        // What lies ahead tells of the rows here that cannot tell.
        None if first_that_tells(conn, ahead.get(), now)?.is_some_and(|row| row.timestamp < oldest) => {
            return whole(conn, ahead);
        }
        None => ahead,
    };
    number(old, &[&from, &upto.as_i64(), &oldest])?.map_or(Ok(0), |old| whole(conn, old))
}

/// From a revision on, a row that is not newer than now and follows one that is, or the first; none when the newest row
/// of all is newer than now.
fn first_that_tells(conn: &Connection, from: u64, now: i64) -> Result<Option<LogRow>> {
    let (mut low, mut high) = (from, log::end(conn)?.0.get());
    let tells = |row: &LogRow| row.timestamp <= now;
    if !row_from(conn, high)?.is_some_and(|row| tells(&row)) {
        return Ok(None);
    }
    // Mostly the clock was wrong for a while, so that those rows lie together: halve the range, as it may be long.
    while low < high {
        let middle = low + (high - low) / 2;
        match row_from(conn, middle)? {
            Some(row) if !tells(&row) => low = row.revision + 1,
            _ => high = middle,
        }
    }
    row_from(conn, low)
}

/// The end of the transaction of a revision: all of it is of one age, however far it reaches.
fn whole(conn: &Connection, revision: Revision) -> Result<u64> {
    Ok(commit_of(conn, revision)?.map_or(revision.get(), |commit| commit.get().max(revision.get())))
}

fn commit_of(conn: &Connection, revision: Revision) -> Result<Option<Revision>> {
    let sql = "SELECT commit_revision FROM wk_log WHERE revision = ?1";
    let commit: Option<i64> =
        conn.prepare_cached(sql)?.query_row([revision.as_i64()], |row| row.get(0)).optional()?;
    commit.map(Revision::from_i64).transpose()
}

/// The end of the last whole transaction up to `to`, after `trimmed`; never that of the newest one.
fn whole_transactions(conn: &Connection, trimmed: Revision, to: Revision) -> Result<Option<Revision>> {
    let last = log::end(conn)?.0;
    let to = to.min(Revision::new(last.get().saturating_sub(1)));
    let sql = "SELECT revision FROM wk_log WHERE revision <= ?1 AND revision > ?2 AND revision = commit_revision \
               ORDER BY revision DESC LIMIT 1";
    let cut: Option<i64> =
        conn.prepare_cached(sql)?.query_row([to.as_i64(), trimmed.as_i64()], |row| row.get(0)).optional()?;
    cut.map(Revision::from_i64).transpose()
}

/// Gives some free pages back. The pragma frees one page a step.
fn give_back(conn: &Connection) -> Result<()> {
    let mut statement = conn.prepare_cached(&format!("PRAGMA incremental_vacuum({VACUUM_STEP})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Whether enough of the file is free to give some back; on a full disk, anything is.
fn wastes_space(conn: &Connection, tight: bool) -> Result<bool> {
    let pragma = |sql: &str| conn.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0));
    let free = pragma("PRAGMA freelist_count")?;
    let least = if tight { 0 } else { FREE_PAGES.max(pragma("PRAGMA page_count")? / 4) };
    Ok(free > least && pragma("PRAGMA auto_vacuum")? == 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sqlite::schema;

    const AGE: Duration = Duration::from_millis(100);
    const NOW: i64 = 1_000;
    const OLD: i64 = NOW - 101;
    const YOUNG: i64 = NOW - 100;
    const FUTURE: i64 = NOW + 1;

    /// A log of transactions of so many events, each with the time of its writing.
    fn written(transactions: &[(u64, i64)]) -> Result<Connection> {
        let conn = Connection::open_in_memory()?;
        conn.execute_batch(schema::TABLES)?;
        conn.execute_batch("INSERT INTO wk_meta (name, value) VALUES ('trimmed', 0)")?;
        let mut last = 0_i64;
        for (events, timestamp) in transactions {
            let commit = last + events.cast_signed();
            for revision in last + 1..=commit {
                let sql = "INSERT INTO wk_log (revision, commit_revision, kind, group_name, timestamp, total_bytes, checksum) \
                           VALUES (?1, ?2, 1, 'g', ?3, ?1, 0)";
                conn.prepare_cached(sql)?.execute([revision, commit, *timestamp])?;
            }
            last = commit;
        }
        Ok(conn)
    }

    #[test]
    fn rows_of_the_future_are_as_old_as_the_next_that_can_tell() -> Result<()> {
        let window = 8 * TRIM_STEP;
        for (transactions, expected) in [
            (&[(3, OLD), (2, YOUNG)][..], 3),
            (&[(1, FUTURE), (3, OLD), (2, YOUNG)], 4),
            (&[(2, OLD), (2, FUTURE), (3, OLD)], 7),
            (&[(2, OLD), (2, FUTURE), (3, YOUNG)], 2),
            (&[(2, FUTURE), (3, YOUNG), (3, OLD)], 0),
            (&[(2, FUTURE)], 0),
            (&[(2, OLD), (3, FUTURE)], 2),
            // Farther than one looks ahead.
            (&[(window + 10, FUTURE), (2, OLD)], window + 10),
            (&[(window + 10, FUTURE), (2, YOUNG)], 0),
            (&[(window + 10, FUTURE)], 0),
            (&[(window + 10, OLD), (2, YOUNG)], window + 10),
            (&[(3, OLD), (window + 10, FUTURE), (2, YOUNG)], 3),
        ] {
            let conn = written(transactions)?;
            let cut = by_age(&conn, Revision::ZERO, AGE, Timestamp::from_millis(NOW))?;
            assert_eq!(cut, expected, "{transactions:?}");
        }
        Ok(())
    }

    #[test]
    fn a_damaged_mark_past_the_log_trims_nothing() -> Result<()> {
        let conn = written(&[(3, OLD)])?;
        mark_trimmed(&conn, Revision::new(1_000))?;
        let retention = Retention { min_events: 0, ..Retention::events(1) };
        assert_eq!(cut(&conn, &retention, Timestamp::from_millis(NOW), None)?, None);
        Ok(())
    }

    #[test]
    fn what_a_snapshot_needs_stays_while_the_log_is_short_enough() -> Result<()> {
        let ceiling = SNAPSHOT_LOG_BYTES.cast_signed();
        for (total, needed, expected) in [
            (100, None, Some(90)),
            (100, Some(40), Some(40)),
            (100, Some(95), Some(90)),
            (100, Some(0), None),
            // The last row alone weighs more than may stay for a snapshot, or almost.
            (ceiling + 50, Some(40), Some(50)),
            (ceiling + 5, Some(40), Some(40)),
        ] {
            let conn = written(&[(1, NOW); 100])?;
            conn.execute("UPDATE wk_log SET total_bytes = ?1 WHERE revision = 100", [total])?;
            let retention = Retention { min_events: 0, ..Retention::events(10) };
            let cut = cut(&conn, &retention, Timestamp::from_millis(NOW), needed.map(Revision::new))?;
            assert_eq!(cut, expected.map(Revision::new), "{total} bytes, {needed:?} needed");
        }
        Ok(())
    }
}
