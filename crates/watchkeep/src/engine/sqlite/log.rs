//! The change log: rows in and out, each with a checksum, since SQLite's pages have none.

use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::engine::LogPage;
use crate::rules::Place;
use crate::types::clock::Timestamp;
use crate::types::error::{Error, Reason, Result};
use crate::types::event::{Change, Kind};
use crate::types::limits::PAGE_BYTES;
use crate::types::revision::{self, Revision};

use super::columns::{SqlValue, optional_text, payload, read_value};

const INSERT: &str = "INSERT INTO wk_log (revision, commit_revision, kind, group_name, key, content_type, deadline, \
     previous, origin, timestamp, total_bytes, checksum, value) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)";
/// The columns that [`decode`] reads, in its order.
macro_rules! log_columns {
    () => {
        "revision, commit_revision, kind, group_name, key, content_type, deadline, previous, origin, timestamp, checksum, \
         value, more, replaced"
    };
}
const AFTER: &str =
    concat!("SELECT ", log_columns!(), " FROM wk_log WHERE revision > ?1 ORDER BY revision LIMIT ?2");
const ONE: &str = concat!("SELECT ", log_columns!(), " FROM wk_log WHERE revision = ?1");
/// Without the values, which may be large, and come last in a row.
const PLACES: &str = "SELECT revision, kind, group_name, key, origin FROM wk_log WHERE revision > ?1 ORDER BY revision LIMIT ?2";
const END: &str = "SELECT revision, total_bytes FROM wk_log ORDER BY revision DESC LIMIT 1";
const BEGIN: &str = concat!(
    "SELECT revision, total_bytes - ",
    payload!(),
    " FROM wk_log WHERE revision > ?1 ORDER BY revision LIMIT 1"
);
const SALT: &str = "SELECT value FROM wk_meta WHERE name = 'salt'";
/// Each write reads both: neighbours, in one statement.
const SALT_AND_SEAL: &str =
    "SELECT value, (SELECT value FROM wk_meta WHERE name = 'sealed') FROM wk_meta WHERE name = 'salt'";
const TRIMMED: &str = "SELECT value FROM wk_meta WHERE name = 'trimmed'";

/// What every checksum of this file begins with: a row of another store, well as it may be, does not match here.
#[derive(Clone, Copy)]
pub(super) struct Salt(u32);

impl Salt {
    pub(super) fn random() -> Result<Salt> {
        Ok(Salt(u32::from_le_bytes(revision::random()?)))
    }

    pub(super) fn read(conn: &Connection) -> Result<Salt> {
        let number: Option<i64> = conn.prepare_cached(SALT)?.query_row([], |row| row.get(0)).optional()?;
        Salt::known(number)
    }

    /// With the text of the seal, if the file is sealed.
    pub(super) fn read_with_seal(conn: &Connection) -> Result<(Salt, Option<Arc<str>>)> {
        let mut statement = conn.prepare_cached(SALT_AND_SEAL)?;
        let row = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let (number, seal): (Option<i64>, Option<Arc<str>>) = row.unwrap_or_default();
        Ok((Salt::known(number)?, seal))
    }

    fn known(number: Option<i64>) -> Result<Salt> {
        let salt = number.and_then(|number| u32::try_from(number).ok()).map(Salt);
        salt.ok_or_else(|| {
            Reason::Corrupt { what: "wk_meta has no salt for the checksums".to_owned() }.into()
        })
    }

    pub(super) fn number(self) -> u32 {
        self.0
    }
}

/// The log's end: its last revision, and the bytes of all that was ever logged up to it.
pub(super) fn end(conn: &Connection) -> Result<(Revision, i64)> {
    let row = conn.prepare_cached(END)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    match row {
        Some((revision, bytes)) => Ok((Revision::from_i64(revision)?, bytes)),
        None => Ok((Revision::ZERO, 0)),
    }
}

/// The log's first row that is not trimmed: its revision, and the bytes of all that was logged before it.
pub(super) fn begin(conn: &Connection) -> Result<Option<(Revision, i64)>> {
    let mut statement = conn.prepare_cached(BEGIN)?;
    let row: Option<(i64, i64)> =
        statement.query_row([trimmed(conn)?.as_i64()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    row.map(|(revision, before)| Ok((Revision::from_i64(revision)?, before))).transpose()
}

/// Whether anything was ever written, as far as what is not the log tells.
pub(super) fn was_written(conn: &Connection) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM wk_groups) OR EXISTS (SELECT 1 FROM wk_dead)";
    Ok(trimmed(conn)? > Revision::ZERO || conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// Everything up to this revision is trimmed.
pub(super) fn trimmed(conn: &Connection) -> Result<Revision> {
    let row: Option<i64> = conn.prepare_cached(TRIMMED)?.query_row([], |row| row.get(0)).optional()?;
    row.map_or(Ok(Revision::ZERO), Revision::from_i64)
}

/// What a checksum covers besides what a [`Change`] says: what only a newer release writes.
struct Raw<'r> {
    kind: i64,
    key: Option<&'r [u8]>,
    /// By the numbers of their columns.
    later: [(i64, Option<&'r [u8]>); 3],
}

/// The numbers of `key`, `more` and `replaced` among the columns of the table, counted from one. The key is there a second
/// time, without bytes, where it is a BLOB: a bit that makes one of a TEXT must not make its row a newer release's.
const LATER: [i64; 3] = [5, 13, 15];

impl<'r> Raw<'r> {
    /// Of a row that we write.
    fn of(change: &'r Change) -> Raw<'r> {
        let key = change.key.as_deref().map(str::as_bytes);
        Raw { kind: change.kind.code(), key, later: LATER.map(|column| (column, None)) }
    }
}

/// CRC-32 (IEEE 802.3) over every column but the running total: integers as 8 bytes, little-endian; text and value
/// as their length, as an integer, then their bytes; NULL as the integer −1. It begins with the file's salt. What a
/// later release may put into `more`, `replaced` and any further column follows, where it is not NULL: the column's
/// number and the length, as integers, and the bytes. Before them, for a key that is a BLOB, its column's number and 0.
fn checksum(salt: Salt, change: &Change, raw: &Raw<'_>) -> i64 {
    // All but the value in one piece: many small ones cost several times as much.
    let mut head = Vec::with_capacity(256);
    for number in [
        change.revision.as_i64(),
        change.commit.as_i64(),
        raw.kind,
        change.deadline.map_or(-1, Timestamp::as_millis),
        change.previous.map_or(-1, Revision::as_i64),
        change.timestamp.as_millis(),
    ] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    let len = |bytes: Option<&[u8]>| {
        bytes.map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX)).to_le_bytes()
    };
    for text in [
        Some(change.group.as_bytes()),
        raw.key,
        change.content_type.as_deref().map(str::as_bytes),
        change.origin.as_deref().map(str::as_bytes),
    ] {
        head.extend_from_slice(&len(text));
        head.extend_from_slice(text.unwrap_or_default());
    }
    let value = change.value.as_deref();
    head.extend_from_slice(&len(value));
    let mut crc = crc32fast::Hasher::new_with_initial(salt.0);
    crc.update(&head);
    crc.update(value.unwrap_or_default());
    for (column, bytes) in raw.later {
        if let Some(bytes) = bytes {
            crc.update(&column.to_le_bytes());
            crc.update(&len(Some(bytes)));
            crc.update(bytes);
        }
    }
    i64::from(crc.finalize())
}

/// Adds a row; `total` is the running total with it.
pub(super) fn append(conn: &Connection, salt: Salt, change: &Change, total: i64) -> Result<()> {
    conn.prepare_cached(INSERT)?.execute(params![
        change.revision.as_i64(),
        change.commit.as_i64(),
        change.kind.code(),
        change.group,
        change.key,
        change.content_type,
        change.deadline.map(Timestamp::as_millis),
        change.previous.map(Revision::as_i64),
        change.origin,
        change.timestamp.as_millis(),
        total,
        checksum(salt, change, &Raw::of(change)),
        change.value.as_ref().map(SqlValue),
    ])?;
    Ok(())
}

/// Hands on where the rows after a revision lie, until told to stop; how many. A row's checksum, which covers its value,
/// is left to those who read that.
pub(super) fn places(
    conn: &Connection,
    after: Revision,
    limit: usize,
    each: &mut dyn FnMut(&Place<'_>) -> bool,
) -> Result<usize> {
    let mut statement = conn.prepare_cached(PLACES)?;
    let mut rows = statement.query(params![after.as_i64(), i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut looked_at = 0;
    while let Some(row) = rows.next()? {
        looked_at += 1;
        let group: Box<str> = row.get(2)?;
        let is_text = !matches!(row.get_ref(3)?, ValueRef::Blob(_));
        let (key, origin) = (if is_text { optional_text(row, 3)? } else { None }, optional_text(row, 4)?);
        let place = Place {
            revision: Revision::from_i64(row.get(0)?)?,
            // One that is not ours is nobody's change, and takes its place all the same.
            kind: Kind::from_code(row.get(1)?).filter(|_| is_text),
            group: &group,
            key: key.as_deref(),
            origin: origin.as_deref(),
        };
        if !each(&place) {
            break;
        }
    }
    Ok(looked_at)
}

/// The rows after a revision, at most `limit` of them and about a megabyte, but at least one.
pub(super) fn page(conn: &Connection, after: Revision, limit: usize) -> Result<LogPage> {
    let (trimmed, end, salt) = (trimmed(conn)?, end(conn)?.0, Salt::read(conn)?);
    let mut page = LogPage { trimmed, end, changes: Vec::new() };
    let mut statement = conn.prepare_cached(AFTER)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut before = after.max(trimmed);
    let mut rows = statement.query(params![before.as_i64(), limit])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let change = match decode(salt, row).and_then(|change| follows(before, change)) {
            // What comes before a damaged row is good: it is told first, and the damage in its place.
            Err(_) if !page.changes.is_empty() => return Ok(page),
            change => change?,
        };
        before = change.revision;
        bytes += change.weight();
        page.changes.push(Arc::new(change));
        if bytes >= PAGE_BYTES {
            break;
        }
    }
    if page.changes.is_empty() && before < end {
        return Err(missing(before));
    }
    Ok(page)
}

/// A page of the file that is damaged may hide rows: in a file, revisions have no gap.
fn follows(before: Revision, change: Change) -> Result<Change> {
    if Some(change.revision) == before.next() { Ok(change) } else { Err(missing(before)) }
}

fn missing(before: Revision) -> Error {
    let revision = before.get().saturating_add(1);
    Reason::Corrupt { what: format!("row {revision} of wk_log is missing") }.into()
}

/// The first row after a revision, without reading more of it than its number.
pub(super) fn next_row(conn: &Connection, after: Revision) -> Result<Option<Revision>> {
    let sql = "SELECT revision FROM wk_log WHERE revision > ?1 ORDER BY revision LIMIT 1";
    let row: Option<i64> =
        conn.prepare_cached(sql)?.query_row([after.as_i64()], |row| row.get(0)).optional()?;
    row.map(Revision::from_i64).transpose()
}

pub(super) fn change(conn: &Connection, revision: Revision) -> Result<Option<Arc<Change>>> {
    if revision <= trimmed(conn)? {
        return Ok(None);
    }
    let salt = Salt::read(conn)?;
    let mut statement = conn.prepare_cached(ONE)?;
    let mut rows = statement.query([revision.as_i64()])?;
    rows.next()?.map(|row| decode(salt, row)).transpose().map(|change| change.map(Arc::new))
}

fn decode(salt: Salt, row: &Row<'_>) -> Result<Change> {
    let number: i64 = row.get(0)?;
    let damaged = |what| Error::from(Reason::Corrupt { what: format!("row {number} of wk_log {what}") });
    let (change, raw) = columns(row).map_err(|_| damaged("cannot be read"))?;
    if checksum(salt, &change, &raw) != row.get::<_, i64>(10)? {
        return Err(damaged("does not match its checksum"));
    }
    Ok(change)
}

/// The columns as a change, and as the checksum sees them. A row with a key that is no text, or of a kind that is not
/// one of ours, is a newer release's: it takes its place, and says nothing to this one.
fn columns<'r>(row: &'r Row<'_>) -> Result<(Change, Raw<'r>)> {
    let bytes = |column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_bytes_or_null()?);
    let (previous, value): (Option<i64>, _) = (row.get(7)?, row.get_ref(11)?);
    let is_text = !matches!(row.get_ref(4)?, ValueRef::Blob(_));
    let ([key, more, replaced], is_blob) = (LATER, (!is_text).then_some(&[][..]));
    let later = [(key, is_blob), (more, bytes(12)?), (replaced, bytes(13)?)];
    let raw = Raw { kind: row.get(2)?, key: bytes(4)?, later };
    let change = Change {
        revision: Revision::from_i64(row.get(0)?)?,
        commit: Revision::from_i64(row.get(1)?)?,
        kind: Kind::from_code(raw.kind).filter(|_| is_text).unwrap_or(Kind::Other),
        group: row.get(3)?,
        key: if is_text { optional_text(row, 4)? } else { None },
        content_type: optional_text(row, 5)?,
        deadline: row.get::<_, Option<i64>>(6)?.map(Timestamp::from_millis),
        previous: previous.map(Revision::from_i64).transpose()?,
        origin: row.get::<_, Option<Arc<str>>>(8)?,
        timestamp: Timestamp::from_millis(row.get(9)?),
        value: if value == ValueRef::Null { None } else { Some(read_value(value)?) },
    };
    Ok((change, raw))
}
