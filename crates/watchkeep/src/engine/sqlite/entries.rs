//! The rows of entries. A small value lies in its entry's row, a large one apart, under the
//! revision at which the entry came to be: an overwrite finds its place again.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, ToSql, params};

use crate::rules::Head;
use crate::types::clock::Timestamp;
use crate::types::error::{Reason, Result};
use crate::types::limits::INLINE;
use crate::types::revision::Revision;
use crate::types::value::Value;

use super::columns::{SqlValue, value_bytes};

const FIND: &str = concat!(
    "SELECT e.revision, e.deadline, ",
    value_bytes!(),
    ", e.created, e.apart IS NOT NULL FROM wk_entries e WHERE e.group_id = ?1 AND e.key = ?2"
);
/// Over one that is there; `created` and `more` stay as they are then.
const PUT: &str = "INSERT INTO wk_entries (group_id, key, created, revision, updated, deadline, content_type, apart, value) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) \
     ON CONFLICT (group_id, key) DO UPDATE SET revision = excluded.revision, updated = excluded.updated, \
     deadline = excluded.deadline, content_type = excluded.content_type, apart = excluded.apart, value = excluded.value";
const SET_DEADLINE: &str = "UPDATE wk_entries SET deadline = ?3 WHERE group_id = ?1 AND key = ?2";
const REMOVE: &str = "DELETE FROM wk_entries WHERE group_id = ?1 AND key = ?2";
const PUT_APART: &str = "INSERT INTO wk_values (created, value) VALUES (?1, ?2) \
     ON CONFLICT (created) DO UPDATE SET value = excluded.value";
const REMOVE_APART: &str = "DELETE FROM wk_values WHERE created = ?1";

/// The key behind so many others of its group.
const KEY_BEHIND: &str = "SELECT key FROM wk_entries WHERE group_id = ?1 ORDER BY key LIMIT 1 OFFSET ?2";
const SWEEP_APART: &str = "DELETE FROM wk_values WHERE created IN \
     (SELECT created FROM wk_entries WHERE group_id = ?1 AND (?2 IS NULL OR key < ?2) AND apart IS NOT NULL)";
const SWEEP: &str = "DELETE FROM wk_entries WHERE group_id = ?1 AND (?2 IS NULL OR key < ?2)";

/// A key as it stands in the file: bytes, which are TEXT or a BLOB, and may be damaged.
#[derive(Debug, Clone)]
struct Key {
    bytes: Box<[u8]>,
    is_text: bool,
}

impl FromSql for Key {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Key> {
        match value {
            ValueRef::Text(bytes) => Ok(Key { bytes: bytes.into(), is_text: true }),
            ValueRef::Blob(bytes) => Ok(Key { bytes: bytes.into(), is_text: false }),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

impl ToSql for Key {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = if self.is_text { ValueRef::Text(&self.bytes) } else { ValueRef::Blob(&self.bytes) };
        Ok(ToSqlOutput::Borrowed(value))
    }
}

/// Where an entry lies.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    group: i64,
    key: Key,
    created: i64,
    /// Its value lies apart.
    is_apart: bool,
}

impl Slot {
    pub(super) fn new(group: i64, key: ValueRef<'_>, created: i64, is_apart: bool) -> rusqlite::Result<Slot> {
        Ok(Slot { group, key: Key::column_result(key)?, created, is_apart })
    }

    /// Of an entry that comes to be at this revision.
    pub(super) fn fresh(group: i64, key: &str, created: Revision) -> Slot {
        let key = Key { bytes: key.as_bytes().into(), is_text: true };
        Slot { group, key, created: created.as_i64(), is_apart: false }
    }
}

/// What an entry says besides its place.
pub(super) struct Row<'a> {
    pub(super) revision: Revision,
    pub(super) updated: Timestamp,
    pub(super) deadline: Option<Timestamp>,
    pub(super) content_type: Option<&'a str>,
    pub(super) value: &'a Value,
}

pub(super) fn find(conn: &Connection, group: i64, key: &str) -> Result<Option<Head<Slot>>> {
    let mut statement = conn.prepare_cached(FIND)?;
    let mut rows = statement.query(params![group, key])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let revision = Revision::from_i64(row.get(0)?)?;
    let value_bytes: Option<i64> = row.get(2)?;
    let damaged = || Reason::Corrupt { what: format!("the entry {key:?} has no value") };
    Ok(Some(Head {
        revision,
        deadline: row.get::<_, Option<i64>>(1)?.map(Timestamp::from_millis),
        bytes: value_bytes.ok_or_else(damaged)? + i64::try_from(key.len()).unwrap_or(i64::MAX),
        slot: Slot::new(group, key.into(), row.get(3)?, row.get(4)?)?,
    }))
}

/// Writes an entry: over the one in this slot, or a new one.
pub(super) fn put(conn: &Connection, slot: &Slot, row: &Row<'_>) -> Result<()> {
    let size = slot.key.bytes.len() + row.content_type.map_or(0, str::len) + row.value.len();
    let (apart, value) = if size > INLINE {
        conn.prepare_cached(PUT_APART)?.execute(params![slot.created, SqlValue(row.value)])?;
        (Some(i64::try_from(row.value.len()).unwrap_or(i64::MAX)), None)
    } else {
        remove_value(conn, slot)?;
        (None, Some(SqlValue(row.value)))
    };
    conn.prepare_cached(PUT)?.execute(params![
        slot.group,
        slot.key,
        slot.created,
        row.revision.as_i64(),
        row.updated.as_millis(),
        row.deadline.map(Timestamp::as_millis),
        row.content_type,
        apart,
        value,
    ])?;
    Ok(())
}

pub(super) fn set_deadline(conn: &Connection, slot: &Slot, deadline: Option<Timestamp>) -> Result<()> {
    let until = deadline.map(Timestamp::as_millis);
    conn.prepare_cached(SET_DEADLINE)?.execute(params![slot.group, slot.key, until])?;
    Ok(())
}

pub(super) fn remove(conn: &Connection, slot: &Slot) -> Result<()> {
    remove_value(conn, slot)?;
    conn.prepare_cached(REMOVE)?.execute(params![slot.group, slot.key])?;
    Ok(())
}

fn remove_value(conn: &Connection, slot: &Slot) -> Result<()> {
    if slot.is_apart {
        conn.prepare_cached(REMOVE_APART)?.execute([slot.created])?;
    }
    Ok(())
}

/// Removes entries of a group that is gone, a bounded number; whether these were all.
pub(super) fn sweep(conn: &Connection, group: i64, step: usize) -> Result<bool> {
    let step = i64::try_from(step).unwrap_or(i64::MAX);
    let next: Option<Key> =
        conn.prepare_cached(KEY_BEHIND)?.query_row(params![group, step], |row| row.get(0)).optional()?;
    let upto: [&dyn ToSql; 2] = [&group, &next];
    conn.prepare_cached(SWEEP_APART)?.execute(upto)?;
    conn.prepare_cached(SWEEP)?.execute(upto)?;
    Ok(next.is_none())
}
