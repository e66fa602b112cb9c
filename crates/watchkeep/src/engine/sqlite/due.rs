//! Entries whose deadline has come, and those that deleted groups left.

use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use crate::rules::{self, Details, DuePage};
use crate::types::clock::Timestamp;
use crate::types::error::{Error, Result};
use crate::types::limits::BATCH_BYTES;
use crate::types::name::NameRange;
use crate::types::revision::Revision;

use super::columns::{read_value, value_column};
use super::entries::{self, Slot};

macro_rules! due_sql {
    ($from:literal) => {
        concat!(
            "SELECT e.group_id, g.name, e.key, e.revision, e.deadline, e.content_type, ",
            value_column!(),
            ", e.created, e.apart IS NOT NULL FROM wk_entries e ",
            $from
        )
    };
}
/// What is due in a range of groups, the earliest first. Groups of a newer release are its own.
const DUE: &str = due_sql!(
    "INDEXED BY wk_deadlines JOIN wk_groups g ON g.id = e.group_id \
     WHERE e.deadline <= ?1 AND g.name >= ?2 AND (?3 IS NULL OR g.name < ?3) AND g.flags = 0 ORDER BY e.deadline LIMIT ?4"
);
const DUE_KEY: &str = due_sql!("JOIN wk_groups g ON g.id = e.group_id WHERE g.id = ?1 AND e.key = ?2");
/// What is due anywhere. Entries of deleted groups, without a name here, are due for nobody, but must go as well.
const DUE_ANYWHERE: &str = due_sql!(
    "INDEXED BY wk_deadlines LEFT JOIN wk_groups g ON g.id = e.group_id LEFT JOIN wk_dead d ON d.group_id = e.group_id \
     WHERE e.deadline <= ?1 AND ?2 = '' AND ?3 IS NULL AND coalesce(g.flags, d.flags, 0) = 0 ORDER BY e.deadline LIMIT ?4"
);
const IS_DUE: &str = "SELECT 1 FROM wk_entries e INDEXED BY wk_deadlines JOIN wk_groups g ON g.id = e.group_id \
     WHERE e.deadline <= ?1 AND g.name >= ?2 AND (?3 IS NULL OR g.name < ?3) AND g.flags = 0 LIMIT 1";

/// An entry whose deadline has come.
pub(super) type Due = rules::Due<Slot>;

/// A damaged entry goes with the others, once its time has come, and is announced as far as it can be read: left
/// where it is, it would come first for ever.
fn read(row: &Row<'_>) -> Result<Due> {
    let mut damage = None;
    let group: Option<String> = readable(row.get(1), &mut damage).flatten();
    let key: Option<String> = readable(row.get(2), &mut damage);
    let previous = readable(row.get(3), &mut damage);
    let previous = previous.and_then(|number| readable(Revision::from_i64(number), &mut damage));
    let details = Details {
        value: readable(row.get_ref(6).map_err(Error::from).and_then(read_value), &mut damage),
        content_type: readable(row.get(5), &mut damage).flatten(),
        deadline: readable(row.get::<_, Option<i64>>(4), &mut damage).flatten().map(Timestamp::from_millis),
        previous,
    };
    if let Some(error) = damage {
        tracing::warn!(%error, group, key, "an entry that was due is damaged; it is removed, and its event says what could be read");
    }
    let (created, is_apart) = match row.get(7) {
        Ok(created) => (created, row.get(8)?),
        Err(_) => (0, false),
    };
    Ok(Due { slot: Slot::new(row.get(0)?, row.get_ref(2)?, created, is_apart)?, group, key, details })
}

/// What could be read; the damage is noted.
fn readable<T, E: Into<Error>>(read: std::result::Result<T, E>, damage: &mut Option<Error>) -> Option<T> {
    read.map_err(|error| damage.get_or_insert(error.into()).clone()).ok()
}

/// Reads due entries, at most so many, and about a megabyte of them at the most, but at least one.
fn several(conn: &Connection, sql: &str, params: impl Params, limit: usize) -> Result<DuePage<Slot>> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let (mut due, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        if due.len() >= limit || bytes >= BATCH_BYTES {
            return Ok(DuePage { due, more: true });
        }
        let entry = read(row)?;
        bytes += entry.details.value.as_deref().map_or(0, <[u8]>::len);
        due.push(entry);
    }
    Ok(DuePage { due, more: false })
}

pub(super) fn entry(conn: &Connection, group: i64, key: &str) -> Result<Option<Due>> {
    Ok(several(conn, DUE_KEY, params![group, key], 1)?.due.pop())
}

pub(super) fn page(
    conn: &Connection,
    groups: &NameRange,
    now: Timestamp,
    limit: usize,
) -> Result<DuePage<Slot>> {
    let sql = if *groups == NameRange::prefix("") { DUE_ANYWHERE } else { DUE };
    let one_more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    several(conn, sql, params![now.as_millis(), groups.lower(), groups.to, one_more], limit)
}

/// Whether anything is due in a range of groups.
pub(super) fn is_there(conn: &Connection, groups: &NameRange, now: Timestamp) -> Result<bool> {
    Ok(conn.prepare_cached(IS_DUE)?.exists(params![now.as_millis(), groups.lower(), groups.to])?)
}

/// A group that is there is never swept, whatever is noted: what goes without an event must be gone already. What a newer
/// release deleted it sweeps itself.
const DEAD: &str = "SELECT group_id FROM wk_dead d WHERE flags = 0 AND NOT EXISTS (SELECT 1 FROM wk_groups g WHERE g.id = d.group_id) LIMIT 1";

/// Whether there is something to sweep.
pub(super) fn has_dead(conn: &Connection) -> Result<bool> {
    Ok(conn.prepare_cached(DEAD)?.exists([])?)
}

/// Sweeps entries of deleted groups, a bounded number; whether there is more to do.
pub(super) fn sweep(conn: &Connection, step: usize) -> Result<bool> {
    let dead: Option<i64> = conn.prepare_cached(DEAD)?.query_row([], |row| row.get(0)).optional()?;
    let Some(dead) = dead else { return Ok(false) };
    if entries::sweep(conn, dead, step)? {
        conn.prepare_cached("DELETE FROM wk_dead WHERE group_id = ?1")?.execute([dead])?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::driver::Signal;
    use crate::engine::sqlite::SqliteEngine;
    use crate::engine::{Engine, Settled};
    use crate::rules::{Author, Work, Write};
    use crate::types::batch::Operation;
    use crate::types::clock::ManualClock;
    use crate::types::limits::REAP_STEP;
    use crate::types::options::{Durability, Options};
    use crate::types::value::Value;
    use crate::types::writing::SetOptions;

    /// What a deleted group left behind is nobody's event, and just as much work.
    #[test]
    fn a_step_of_expiry_is_bounded_also_where_it_announces_nothing() -> Result<()> {
        let clock = Arc::new(ManualClock::default());
        let signal = Signal::unheard();
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options::new().durability(Durability::Relaxed).clock(clock.clone());
        let engine = SqliteEngine::open(&folder.path().join("app.db"), &options, signal)?;
        let write = |work| engine.write(Write { author: Author::default(), work }, &mut Settled::default());
        let ttl = Duration::from_secs(60);
        for number in 0..2 * REAP_STEP + 10 {
            let options = SetOptions::new().ttl(ttl);
            write(Operation::set("g", &number.to_string(), Value::from("v"), options).into())?;
        }
        write(Operation::delete_group("g").into())?;
        clock.advance(ttl);
        let mut left = Vec::new();
        loop {
            let step = write(Work::Reap { groups: NameRange::prefix("") })?;
            let (keys, more) = step.reaped()?;
            assert_eq!((keys, step.announced), (0, None));
            let count = "SELECT count(*) FROM wk_entries";
            left.push(engine.pool.with(|conn| Ok(conn.query_row(count, [], |row| row.get::<_, i64>(0))?))?);
            if !more {
                break;
            }
        }
        let step = i64::try_from(REAP_STEP).unwrap_or(0);
        assert_eq!(left, [step + 10, 10, 0]);
        Ok(())
    }
}
