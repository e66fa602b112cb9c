//! Values and rows, to and from SQLite.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Row, ToSql};

use crate::types::clock::Timestamp;
use crate::types::entry::{Entry, KeyInfo};
use crate::types::error::{Reason, Result};
use crate::types::revision::Revision;
use crate::types::value::Value;

/// The value of an entry, from where it lies.
macro_rules! value_column {
    () => {
        "CASE WHEN e.apart IS NULL THEN e.value ELSE (SELECT v.value FROM wk_values v WHERE v.created = e.created) END"
    };
}
pub(super) use value_column;

/// The size of an entry's value, known without reading it.
macro_rules! value_bytes {
    () => {
        "coalesce(e.apart, octet_length(e.value))"
    };
}
pub(super) use value_bytes;

/// The columns that [`read_entry`] reads, in its order.
macro_rules! entry_columns {
    () => {
        concat!("e.key, ", value_column!(), ", e.revision, e.created, e.updated, e.deadline, e.content_type")
    };
}
pub(super) use entry_columns;

/// The columns that [`read_key`] reads, in its order.
macro_rules! key_columns {
    () => {
        concat!("e.key, ", value_bytes!(), ", e.revision, e.created, e.updated, e.deadline, e.content_type")
    };
}
pub(super) use key_columns;

/// What a row of the log weighs in its running total, as SQL; `Change::payload` is the same for what we write.
macro_rules! payload {
    () => {
        "(octet_length(group_name) + coalesce(octet_length(key), 0) + coalesce(octet_length(content_type), 0) \
         + coalesce(octet_length(value), 0) + coalesce(octet_length(more), 0) + coalesce(octet_length(replaced), 0))"
    };
}
pub(super) use payload;

/// A value on its way into the file: TEXT when it is text, so that the `sqlite3` shell shows it, else a BLOB.
pub(super) struct SqlValue<'a>(pub(super) &'a Value);

impl ToSql for SqlValue<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let bytes = self.0.as_bytes();
        let value = if self.0.as_str().is_some() { ValueRef::Text(bytes) } else { ValueRef::Blob(bytes) };
        Ok(ToSqlOutput::Borrowed(value))
    }
}

pub(super) fn read_value(value: ValueRef<'_>) -> Result<Value> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(Value::from(bytes)),
        other => Err(Reason::Corrupt { what: format!("a value is stored as {}", other.data_type()) }.into()),
    }
}

pub(super) fn optional_text(row: &Row<'_>, column: usize) -> Result<Option<Box<str>>> {
    Ok(row.get::<_, Option<Box<str>>>(column)?)
}

pub(super) fn read_entry(row: &Row<'_>) -> Result<Entry> {
    Ok(Entry {
        key: row.get(0)?,
        value: read_value(row.get_ref(1)?)?,
        revision: Revision::from_i64(row.get(2)?)?,
        created: Revision::from_i64(row.get(3)?)?,
        updated: Timestamp::from_millis(row.get(4)?),
        deadline: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_millis),
        content_type: row.get(6)?,
    })
}

pub(super) fn read_key(row: &Row<'_>) -> Result<KeyInfo> {
    Ok(KeyInfo {
        key: row.get(0)?,
        bytes: count(row.get(1)?)?,
        revision: Revision::from_i64(row.get(2)?)?,
        created: Revision::from_i64(row.get(3)?)?,
        updated: Timestamp::from_millis(row.get(4)?),
        deadline: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_millis),
        content_type: row.get(6)?,
    })
}

/// A count from the file; what is negative there is damage.
pub(super) fn count(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| Reason::Corrupt { what: format!("{number} is no count") }.into())
}
