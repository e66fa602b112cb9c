//! Reads: key ranges, never `LIKE`; an entry that is due is not there.

use std::ops::Bound;
use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use crate::engine::LogPage;
use crate::engine::query::Totals;
use crate::engine::reads::Reads;
use crate::types::clock::Timestamp;
use crate::types::consumer::ConsumerInfo;
use crate::types::entry::{Entry, KeyInfo};
use crate::types::error::Result;
use crate::types::event::Change;
use crate::types::limits::{PAGE_BYTES, PAGE_ENTRIES};
use crate::types::name::NameRange;
use crate::types::options::Retention;
use crate::types::quota::Quota;
use crate::types::revision::{Cursor, Revision};
use crate::types::value::Value;

use super::columns::{
    count, entry_columns, key_columns, read_entry, read_key, read_value, value_bytes, value_column,
};
use super::{consumers, counters, epochs, log, retention};

/// The group's row comes first, and tells by its flags whether what follows is known here. The order of a cross join is
/// kept, whatever statistics a file has. A value that lies apart is read by [`LARGE_VALUE`]: what finds both costs every read
/// of a small one a twelfth.
const VALUE: &str = "SELECT e.value, e.deadline, e.apart, g.flags FROM wk_groups g \
     CROSS JOIN wk_entries e ON e.group_id = g.id AND e.key = ?2 WHERE g.name = ?1";
const LARGE_VALUE: &str = concat!(
    "SELECT ",
    value_column!(),
    ", e.deadline FROM wk_groups g JOIN wk_entries e ON e.group_id = g.id WHERE g.name = ?1 AND e.key = ?2"
);
const ENTRY: &str = concat!(
    "SELECT ",
    entry_columns!(),
    ", g.flags, e.key IS NOT NULL FROM wk_groups g \
     LEFT JOIN wk_entries e ON e.group_id = g.id AND e.key = ?2 WHERE g.name = ?1"
);

/// `?1` is the group, `?2` the present moment, `?3` the lower bound, `?4` the limit, `?5` the upper bound if any.
macro_rules! entries_sql {
    ($columns:ident, $above:literal, $below:literal) => {
        concat!(
            "SELECT ",
            $columns!(),
            " FROM wk_groups g JOIN wk_entries e ON e.group_id = g.id WHERE g.name = ?1 AND e.key ",
            $above,
            " ?3",
            $below,
            " AND (e.deadline IS NULL OR e.deadline > ?2) ORDER BY e.key LIMIT ?4"
        )
    };
}

/// A group is there while it holds an entry that is not due; one of a newer release is, whatever it holds here, so that nobody
/// passes over it. Parameters as for the entries.
macro_rules! groups_sql {
    ($above:literal, $below:literal) => {
        concat!(
            "SELECT g.name FROM wk_groups g WHERE g.name ",
            $above,
            " ?3",
            $below,
            " AND (g.flags <> 0 OR EXISTS (SELECT 1 FROM wk_entries e WHERE e.group_id = g.id AND (e.deadline IS NULL OR e.deadline > ?2))) \
             AND ?1 IS NOT NULL ORDER BY g.name LIMIT ?4"
        )
    };
}

const COUNT: &str = "SELECT g.flags, g.keys - (SELECT count(*) FROM wk_entries INDEXED BY wk_deadlines \
     WHERE deadline <= ?2 AND group_id = g.id) FROM wk_groups g WHERE g.name = ?1";
/// The counters' sums over a range of groups, and what of it is due: `?1` from, `?2` to or NULL, `?3` now. Groups of a newer
/// release are among them: whatever their flags, `keys` counts rows and `deadline` says when one is gone, so what is left is
/// what is there, although nobody of this release removes the rest.
const SUMS: &str = "SELECT coalesce(sum(keys), 0), count(*), coalesce(sum(bytes), 0) FROM wk_groups \
     WHERE name >= ?1 AND (?2 IS NULL OR name < ?2)";
const DUE: &str = "SELECT count(*) FROM wk_entries e INDEXED BY wk_deadlines JOIN wk_groups g ON g.id = e.group_id \
     WHERE e.deadline <= ?3 AND g.name >= ?1 AND (?2 IS NULL OR g.name < ?2)";
/// A deadline that is damaged, text say, is larger than any number, and comes for nobody. What is due in groups of a newer
/// release is not ours to remove, nor to wake up for.
const NEXT_DEADLINE: &str = "SELECT CAST(e.deadline AS INTEGER) FROM wk_entries e INDEXED BY wk_deadlines \
     LEFT JOIN wk_groups g ON g.id = e.group_id LEFT JOIN wk_dead d ON d.group_id = e.group_id \
     WHERE e.deadline IS NOT NULL AND e.deadline <= 9223372036854775807 AND coalesce(g.flags, d.flags, 0) = 0 \
     ORDER BY e.deadline LIMIT 1";
/// Of entries that are there: those of deleted groups wait to be swept, and those of a newer release's groups go when that
/// says so.
const NEXT_EXPIRY: &str = "SELECT CAST(e.deadline AS INTEGER) FROM wk_entries e INDEXED BY wk_deadlines JOIN wk_groups g ON g.id = e.group_id \
     WHERE e.deadline IS NOT NULL AND e.deadline <= 9223372036854775807 AND g.flags = 0 AND g.name >= ?1 AND (?2 IS NULL OR g.name < ?2) ORDER BY e.deadline LIMIT 1";

/// Reads on a connection, as of one moment.
pub(super) struct SqliteRead<'a> {
    pub(super) conn: &'a Connection,
    pub(super) now: Timestamp,
}

/// The four statements for a range: the bound below included or not, a bound above or none.
struct RangeSql {
    included: [&'static str; 2],
    excluded: [&'static str; 2],
}

const ENTRIES: RangeSql = RangeSql {
    included: [entries_sql!(entry_columns, ">=", ""), entries_sql!(entry_columns, ">=", " AND e.key < ?5")],
    excluded: [entries_sql!(entry_columns, ">", ""), entries_sql!(entry_columns, ">", " AND e.key < ?5")],
};
const KEYS: RangeSql = RangeSql {
    included: [entries_sql!(key_columns, ">=", ""), entries_sql!(key_columns, ">=", " AND e.key < ?5")],
    excluded: [entries_sql!(key_columns, ">", ""), entries_sql!(key_columns, ">", " AND e.key < ?5")],
};
const GROUPS: RangeSql = RangeSql {
    included: [groups_sql!(">=", ""), groups_sql!(">=", " AND g.name < ?5")],
    excluded: [groups_sql!(">", ""), groups_sql!(">", " AND g.name < ?5")],
};

pub(super) fn next_deadline(conn: &Connection) -> Result<Option<Timestamp>> {
    let millis: Option<i64> =
        conn.prepare_cached(NEXT_DEADLINE)?.query_row([], |row| row.get(0)).optional()?;
    Ok(millis.map(Timestamp::from_millis))
}

impl SqliteRead<'_> {
    /// Runs a range's statement and hands each row on until told to stop.
    fn range(
        &self,
        sql: &RangeSql,
        group: &str,
        range: &NameRange,
        limit: usize,
        mut each: impl FnMut(&rusqlite::Row<'_>) -> Result<bool>,
    ) -> Result<()> {
        let [open, bounded] =
            if matches!(range.from, Bound::Excluded(_)) { sql.excluded } else { sql.included };
        let from = range.lower();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let now = self.now.as_millis();
        let mut statement = self.conn.prepare_cached(if range.to.is_some() { bounded } else { open })?;
        let mut rows = match &range.to {
            Some(to) => statement.query(params![group, now, from, limit, to])?,
            None => statement.query(params![group, now, from, limit])?,
        };
        while let Some(row) = rows.next()? {
            if !each(row)? {
                break;
            }
        }
        Ok(())
    }

    /// All of it is read anew, in one statement: the row that said where the value lies may be of an earlier moment.
    fn large_value(&self, group: &str, key: &str) -> Result<Option<Value>> {
        let mut statement = self.conn.prepare_cached(LARGE_VALUE)?;
        let mut rows = statement.query(params![group, key])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        self.value_until(row.get(1)?, row.get_ref(0)?)
    }

    /// A value, unless it is due.
    fn value_until(&self, deadline: Option<i64>, value: ValueRef<'_>) -> Result<Option<Value>> {
        if deadline.is_some_and(|deadline| deadline <= self.now.as_millis()) {
            return Ok(None);
        }
        read_value(value).map(Some)
    }

    fn due(&self, groups: &NameRange) -> Result<u64> {
        let params = params![groups.lower(), groups.to, self.now.as_millis()];
        count(self.conn.prepare_cached(DUE)?.query_row(params, |row| row.get(0))?)
    }
}

impl Reads for SqliteRead<'_> {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn value(&self, group: &str, key: &str) -> Result<Option<Value>> {
        let mut statement = self.conn.prepare_cached(VALUE)?;
        let mut rows = statement.query(params![group, key])?;
        let Some(row) = rows.next()? else {
            // In a group that a newer release made, a key may be there all the same. To ask that of all reads costs a twentieth.
            return counters::refuse_newer_group(self.conn, group).map(|()| None);
        };
        counters::refuse_newer(group, row.get(3)?)?;
        match row.get_ref(2)? {
            ValueRef::Null => self.value_until(row.get(1)?, row.get_ref(0)?),
            _ => self.large_value(group, key),
        }
    }

    fn entry(&self, group: &str, key: &str) -> Result<Option<Entry>> {
        let mut statement = self.conn.prepare_cached(ENTRY)?;
        let mut rows = statement.query(params![group, key])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        counters::refuse_newer(group, row.get(7)?)?;
        let entry = row.get::<_, bool>(8)?.then(|| read_entry(row)).transpose()?;
        Ok(entry.filter(|entry| entry.deadline.is_none_or(|deadline| deadline > self.now)))
    }

    fn entries(&self, group: &str, keys: &NameRange, limit: usize) -> Result<(Vec<Entry>, bool)> {
        counters::refuse_newer_group(self.conn, group)?;
        let (mut entries, mut bytes) = (Vec::with_capacity(limit.min(PAGE_ENTRIES)), 0);
        self.range(&ENTRIES, group, keys, limit, |row| {
            let entry = read_entry(row)?;
            bytes += entry.key.len() + entry.value.len();
            entries.push(entry);
            Ok(bytes < PAGE_BYTES)
        })?;
        let more = entries.len() >= limit || bytes >= PAGE_BYTES;
        Ok((entries, more))
    }

    fn keys(&self, group: &str, keys: &NameRange, limit: usize) -> Result<Vec<KeyInfo>> {
        counters::refuse_newer_group(self.conn, group)?;
        let mut found = Vec::new();
        self.range(&KEYS, group, keys, limit, |row| {
            found.push(read_key(row)?);
            Ok(true)
        })?;
        Ok(found)
    }

    fn groups(&self, names: &NameRange, limit: usize) -> Result<Vec<String>> {
        let mut groups = Vec::new();
        self.range(&GROUPS, "", names, limit, |row| {
            groups.push(row.get(0)?);
            Ok(true)
        })?;
        Ok(groups)
    }

    fn count(&self, group: &str) -> Result<u64> {
        let mut statement = self.conn.prepare_cached(COUNT)?;
        let mut rows = statement.query(params![group, self.now.as_millis()])?;
        let Some(row) = rows.next()? else { return Ok(0) };
        counters::refuse_newer(group, row.get(0)?)?;
        count(row.get(1)?)
    }

    fn count_all(&self, groups: &NameRange) -> Result<u64> {
        let params = params![groups.lower(), groups.to];
        let keys = count(self.conn.prepare_cached(SUMS)?.query_row(params, |row| row.get(0))?)?;
        Ok(keys.saturating_sub(self.due(groups)?))
    }

    fn last(&self) -> Result<Revision> {
        Ok(log::end(self.conn)?.0)
    }

    fn refuse_lost(&self, cursor: Cursor) -> Result<()> {
        epochs::all(self.conn)?.refuse_lost(cursor, log::end(self.conn)?.0)
    }

    fn trimmed(&self) -> Result<Revision> {
        log::trimmed(self.conn)
    }

    fn log(&self, after: Revision) -> Result<LogPage> {
        log::page(self.conn, after, PAGE_ENTRIES)
    }

    fn change(&self, revision: Revision) -> Result<Option<Arc<Change>>> {
        log::change(self.conn, revision)
    }

    fn consumers(&self, names: &NameRange) -> Result<Vec<ConsumerInfo>> {
        consumers::list(self.conn, self.now, names)
    }

    fn quota(&self, namespace: &str) -> Result<Option<Quota>> {
        counters::quota(self.conn, namespace)
    }

    fn retention(&self) -> Result<Retention> {
        retention::read(self.conn)
    }

    fn totals(&self, groups: &NameRange) -> Result<Totals> {
        let sums = params![groups.lower(), groups.to];
        let (keys, number, bytes): (i64, i64, i64) = self
            .conn
            .prepare_cached(SUMS)?
            .query_row(sums, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let (last, total) = log::end(self.conn)?;
        let (first, before) = log::begin(self.conn)?.unwrap_or((last, total));
        let next_expiry: Option<i64> =
            self.conn.prepare_cached(NEXT_EXPIRY)?.query_row(sums, |row| row.get(0)).optional()?;
        let log_events = if last == Revision::ZERO { 0 } else { last.get() + 1 - first.get() };
        Ok(Totals {
            entries: count(keys)?.saturating_sub(self.due(groups)?),
            groups: count(number)?,
            bytes: count(bytes)?,
            last,
            first,
            log_events,
            log_bytes: count(total - before)?,
            next_deadline: next_expiry.map(Timestamp::from_millis),
        })
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;
    use crate::engine::sqlite::connection::{self, Sync};
    use crate::engine::sqlite::schema::TABLES;
    use crate::types::error::ErrorKind;

    #[test]
    fn a_count_takes_one_statement_and_refuses_a_newer_release_s_group_all_the_same() -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.db");
        let made = connection::open(&path, true)?;
        made.execute_batch(TABLES)?;
        made.execute_batch("INSERT INTO wk_groups (id, name, keys, bytes, flags) VALUES (1, 'g', 2, 4, 0), (2, 'new', 1, 2, 8)")?;
        let conn = connection::reader(&path, Sync::Normal, || Ok(()))?;
        let read = SqliteRead { conn: &conn, now: Timestamp::from_millis(0) };
        assert_eq!((read.count("g")?, read.count("none")?), (2, 0));
        let refused = read.count("new").map_err(|error| error.kind());
        assert_eq!(refused, Err(ErrorKind::NewerFormat));
        assert_eq!(conn.prepare_cached(counters::NEWER)?.get_status(StatementStatus::Run), 0);
        Ok(())
    }

    /// Using a cached statement again must not make SQLite prepare it again: that would quadruple the cost of a get.
    #[test]
    fn cached_statements_stay_compiled() -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.db");
        connection::open(&path, true)?.execute_batch(TABLES)?;
        let conn = connection::reader(&path, Sync::Normal, || Ok(()))?;
        let read = SqliteRead { conn: &conn, now: Timestamp::from_millis(0) };
        for _ in 0..3 {
            read.value("group", "key")?;
            read.entries("group", &NameRange::prefix("key"), 10)?;
        }
        let [_, bounded] = ENTRIES.included;
        for sql in [VALUE, LARGE_VALUE, bounded] {
            assert_eq!(conn.prepare_cached(sql)?.get_status(StatementStatus::RePrepare), 0, "{sql}");
        }
        Ok(())
    }
}
