//! What is done to the file now and then: trim the log, sweep deleted groups, give space back, move
//! the write-ahead log into the file. All in small steps, so that writers hardly wait.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::rules;
use crate::types::consumer::Force;
use crate::types::error::Result;
use crate::types::limits::{CHECKPOINT_LAST_PAGES, CHECKPOINT_PASSES, SCARCE_PAGES, SWEEP_STEP, TRIM_STEP};
use crate::types::revision::Revision;

use super::guard::Stamp;
use super::writer::Writer;
use super::{SqliteEngine, answers, consumers, due, log, place, retention};
use crate::engine::File;
use crate::engine::lead::Lead;
use crate::engine::turn::Admission;

/// Space is given back when more than a quarter of the file is free, and more pages than this.
const FREE_PAGES: i64 = 1_024;
const VACUUM_STEP: i64 = 128;

impl SqliteEngine {
    /// Runs with the turn, in a transaction that announces nothing.
    pub(super) fn exclusively<T>(
        &self,
        patience: Duration,
        f: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        self.with_turn(patience, |writer, queued| {
            let done = writer.transaction(queued, patience, f);
            self.spare(writer);
            done
        })
    }

    /// Puts a seal, or lifts it. Synced at either durability: a power cut must not open a store again that has moved.
    pub(super) fn under_seal<T>(&self, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.refuse_nested()?;
        self.may_write()?;
        let patience = self.busy_timeout;
        let done = self.with_turn(patience, |writer, queued| {
            let done = writer.synced(|writer| writer.transaction(queued, patience, f));
            self.spare(writer);
            done
        });
        done.inspect_err(|error| self.notice(error))
    }

    fn with_turn<T>(
        &self,
        patience: Duration,
        f: impl FnOnce(&mut Writer, Instant) -> Result<T>,
    ) -> Result<T> {
        let queued = Instant::now();
        match self.turn.enter(|| None, patience)? {
            Admission::Lead(writer) => Lead::new(&self.turn, writer).with(|writer| f(writer, queued)),
            // Only a write as data is ever done by others.
            Admission::Done(result) => {
                Err(result.err().unwrap_or_else(|| crate::types::error::Reason::Closed.into()))
            }
        }
    }

    pub(super) fn maintenance_step(&self, patience: Duration) -> Result<bool> {
        self.pool.end_old();
        self.ballast.keep();
        let mut more = false;
        if self.ballast.is_tight() {
            self.empty_log(patience)?;
        } else if self.wal.wants_moving() {
            self.checkpoint(patience)?;
        } else if self.wal.is_idle(Stamp::of(&place::beside(&self.path, place::WAL))) {
            self.empty_log(patience)?;
        }
        if self.pool.for_upkeep(due::has_dead)? {
            more |= self.exclusively(patience, |conn| due::sweep(conn, SWEEP_STEP))?;
        }
        if self.pool.for_upkeep(|conn| answers::has_old(conn, self.clock.now()))? {
            self.exclusively(patience, |conn| answers::drop_old(conn, self.clock.now()))?;
            more = true;
        }
        let find_cut = |conn: &Connection| {
            // On a full disk nobody's snapshot counts.
            let needed = self.floors.least().filter(|_| !self.ballast.is_tight());
            rules::cut(conn, &retention::read(conn)?, self.clock.now(), needed)
        };
        if self.pool.for_upkeep(find_cut)?.is_some() {
            // Looked up again with the turn: meanwhile a consumer may have come that needs what lies there.
            self.exclusively(patience, |conn| {
                find_cut(conn)?.map_or(Ok(()), |cut| mark_trimmed(conn, cut))?;
                drop_trimmed(conn).map(drop)
            })?;
            more = true;
        }
        if self.pool.for_upkeep(has_leftovers)? {
            self.exclusively(patience, |conn| drop_trimmed(conn).map(drop))?;
            more = true;
        }
        let tight = self.ballast.is_tight();
        if self.pool.for_upkeep(|conn| wastes_space(conn, tight))? {
            self.exclusively(patience, give_back)?;
            more = true;
        }
        if tight {
            self.empty_log(patience)?;
            self.ballast.keep();
        }
        if more {
            self.upkeep.want();
        }
        Ok(more)
    }

    /// Moves the write-ahead log into the file: most of it while others write, the rest in a moment of quiet, after
    /// which the log begins again from its start. SQLite does not stop a pass part-way, and each leaves what was written
    /// meanwhile: so passes are made until the last, for which writers wait, is short.
    fn checkpoint(&self, patience: Duration) -> Result<()> {
        for _ in 0..CHECKPOINT_PASSES {
            let before = self.wal.pages();
            self.pool.for_upkeep(|conn| checkpoint(conn, "PASSIVE"))?;
            if self.wal.pages().saturating_sub(before) <= CHECKPOINT_LAST_PAGES {
                break;
            }
        }
        self.with_turn(patience, |writer, _| checkpoint(&writer.conn, "PASSIVE"))?;
        self.wal.was_moved();
        Ok(())
    }

    /// On a full disk every page counts, those of the write-ahead log as well.
    fn empty_log(&self, patience: Duration) -> Result<()> {
        self.with_turn(patience, |writer, _| self.empty_log_of(&writer.conn))
    }

    /// Moving a part of the log would only use up the room that is left for deleting: it is moved when all of it finds
    /// room.
    fn empty_log_of(&self, conn: &Connection) -> Result<()> {
        let number = |sql: &str| conn.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0));
        let whole = number("PRAGMA page_count")? * number("PRAGMA page_size")?;
        let growth = whole.unsigned_abs().saturating_sub(self.sizes().0);
        match place::free(place::folder_of(&self.path)) {
            Some(free) if growth > free => Ok(()),
            _ => {
                if checkpoint(conn, "TRUNCATE")? {
                    self.wal.was_emptied();
                }
                Ok(())
            }
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
        let patience = self.busy_timeout;
        let events = self.exclusively(patience, |conn| {
            let trimmed = log::trimmed(conn)?;
            let Some(cut) = rules::whole_transactions(conn, to)? else { return Ok(0) };
            if force == Force::No {
                consumers::refuse_to_lose(conn, cut)?;
            }
            mark_trimmed(conn, cut)?;
            Ok(cut.get().saturating_sub(trimmed.get()))
        })?;
        while events > 0 && self.exclusively(patience, drop_trimmed)? > 0 {}
        Ok(events)
    }
}

/// Says that everything up to `to` is trimmed.
fn mark_trimmed(conn: &Connection, to: Revision) -> Result<()> {
    conn.prepare_cached("UPDATE wk_meta SET value = ?1 WHERE name = 'trimmed'")?.execute([to.as_i64()])?;
    Ok(())
}

/// Whether nobody was in its way.
fn checkpoint(conn: &Connection, mode: &str) -> Result<bool> {
    Ok(conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| Ok(!row.get::<_, bool>(0)?))?)
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
    use crate::driver::Signal;
    use crate::engine::sqlite::schema;
    use crate::engine::{Engine, Settled};
    use crate::rules::{Author, Write, by_age, cut};
    use crate::types::batch::Operation;
    use crate::types::clock::Timestamp;
    use crate::types::error::Error;
    use crate::types::limits::{CHECKPOINT_RETRY_PAGES, SNAPSHOT_LOG_BYTES, WAL_IDLE_LOOKS};
    use crate::types::options::{Durability, Options, Retention};
    use crate::types::writing::SetOptions;

    const AGE: Duration = Duration::from_millis(100);
    const NOW: i64 = 1_000;
    const OLD: i64 = NOW - 101;
    const YOUNG: i64 = NOW - 100;
    const FUTURE: i64 = NOW + 1;

    /// A page that is being read while the log is moved puts its restart off, and not by as much as it is long.
    #[test]
    fn a_reader_in_the_way_lets_the_write_ahead_log_grow_by_a_tenth() -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options::new().durability(Durability::Relaxed).ballast(false);
        let signal = Signal::unheard();
        let engine = SqliteEngine::open(&folder.path().join("app.db"), &options, signal)?;
        let write = || {
            let set = Operation::set("g", "k", vec![0; 3_000].into(), SetOptions::new());
            engine
                .write(Write { author: Author::default(), work: set.into() }, &mut Settled::default())
                .map(drop)
        };
        let fill = || {
            while !engine.wal.wants_moving() {
                write()?;
            }
            Ok::<_, Error>(engine.wal.pages())
        };
        let whole = fill()?;
        let held = engine.hold()?;
        write()?;
        engine.checkpoint(engine.busy_timeout)?;
        drop(held);
        let grown = fill()?;
        assert!(grown > whole && grown <= whole + CHECKPOINT_RETRY_PAGES + 32, "{whole}, then {grown}");
        engine.checkpoint(engine.busy_timeout)?;
        write()?;
        assert!(engine.wal.pages() < 32, "{} pages: it did not begin again", engine.wal.pages());
        Ok(())
    }

    #[test]
    fn the_write_ahead_log_is_emptied_when_nobody_writes_any_more() -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options::new().durability(Durability::Relaxed).ballast(false);
        let engine = SqliteEngine::open(&folder.path().join("app.db"), &options, Signal::unheard())?;
        let set = || -> Result<()> {
            let set = Operation::set("g", "k", vec![0; 3_000].into(), SetOptions::new());
            let write = Write { author: Author::default(), work: set.into() };
            engine.write(write, &mut Settled::default()).map(drop)
        };
        let look =
            |times: u32| (0..times).try_for_each(|_| engine.maintenance_step(engine.busy_timeout).map(drop));
        // Whoever writes in between keeps it.
        for _ in 0..3 {
            set()?;
            look(WAL_IDLE_LOOKS)?;
            assert!(engine.sizes().1 > 0);
        }
        // So does another store on the file, as another process has it.
        let other = SqliteEngine::open(&folder.path().join("app.db"), &options, Signal::unheard())?;
        for _ in 0..3 {
            let set = Operation::set("g", "other", vec![0; 300_000].into(), SetOptions::new());
            other.write(Write { author: Author::default(), work: set.into() }, &mut Settled::default())?;
            look(WAL_IDLE_LOOKS)?;
            assert!(engine.sizes().1 > 0);
        }
        drop(other);
        // So does somebody who reads what is in it, as long as that lasts.
        let held = engine.hold()?;
        set()?;
        look(3 * WAL_IDLE_LOOKS)?;
        assert!(engine.sizes().1 > 0);
        drop(held);
        look(1)?;
        assert_eq!(engine.sizes().1, 0);
        set()?;
        assert!(engine.sizes().1 > 0);
        Ok(())
    }

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
            let cut = by_age(&conn, AGE, Timestamp::from_millis(NOW))?;
            assert_eq!(cut, Revision::new(expected), "{transactions:?}");
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
