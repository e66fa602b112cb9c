//! What tells how old and how large the log of the file is.

use rusqlite::{Connection, OptionalExtension, Row, ToSql};

use crate::rules::{Lag, LogRow, Past};
use crate::types::clock::Timestamp;
use crate::types::error::Result;
use crate::types::revision::Revision;

use super::columns::payload;
use super::{consumers, log};

const ROW_FROM: &str =
    "SELECT revision, total_bytes, timestamp FROM wk_log WHERE revision >= ?1 ORDER BY revision LIMIT 1";
const FIRST_AFTER: &str = concat!(
    "SELECT revision, total_bytes, timestamp, total_bytes - ",
    payload!(),
    " FROM wk_log WHERE revision > ?1 ORDER BY revision LIMIT 1"
);
const COMMIT_OF: &str = "SELECT commit_revision FROM wk_log WHERE revision = ?1";
const FIRST_WITHIN: &str = "SELECT revision FROM wk_log WHERE revision > ?1 AND revision <= ?2 \
     AND timestamp BETWEEN ?3 AND ?4 ORDER BY revision LIMIT 1";
const LAST_BEFORE: &str = "SELECT revision FROM wk_log WHERE revision > ?1 AND revision <= ?2 AND timestamp < ?3 \
     ORDER BY revision DESC LIMIT 1";
const LAST_END: &str = "SELECT revision FROM wk_log WHERE revision > ?1 AND revision <= ?2 AND revision = commit_revision \
     ORDER BY revision DESC LIMIT 1";

impl Lag for Connection {
    fn trimmed(&self) -> Result<Revision> {
        log::trimmed(self)
    }

    fn end(&self) -> Result<(Revision, i64)> {
        log::end(self)
    }

    fn first_after(&self, revision: Revision) -> Result<Option<(LogRow, i64)>> {
        let columns = |row: &Row<'_>| Ok((row_columns(row)?, row.get(3)?));
        let row = self.prepare_cached(FIRST_AFTER)?.query_row([revision.as_i64()], columns).optional()?;
        row.map(|(row, before)| Ok((log_row(row)?, before))).transpose()
    }

    fn events_after(&self, revision: Revision) -> Result<u64> {
        Ok(log::end(self)?.0.get().saturating_sub(revision.get()))
    }
}

impl Past for Connection {
    fn before_newest(&self, count: u64) -> Result<Revision> {
        Ok(Revision::new(log::end(self)?.0.get().saturating_sub(count)))
    }

    fn ahead(&self, revision: Revision, events: u64) -> Result<Revision> {
        Ok(Revision::new(revision.get().saturating_add(events)))
    }

    fn row_from(&self, revision: Revision) -> Result<Option<LogRow>> {
        let row = self.prepare_cached(ROW_FROM)?.query_row([revision.as_i64()], row_columns).optional()?;
        row.map(log_row).transpose()
    }

    fn commit_of(&self, revision: Revision) -> Result<Option<Revision>> {
        number(self, COMMIT_OF, &[&revision.as_i64()])
    }

    fn first_within(
        &self,
        (after, upto): (Revision, Revision),
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Option<Revision>> {
        let params: [&dyn ToSql; 4] = [&after.as_i64(), &upto.as_i64(), &from.as_millis(), &to.as_millis()];
        number(self, FIRST_WITHIN, &params)
    }

    fn last_before(&self, (after, upto): (Revision, Revision), time: Timestamp) -> Result<Option<Revision>> {
        number(self, LAST_BEFORE, &[&after.as_i64(), &upto.as_i64(), &time.as_millis()])
    }

    fn last_end(&self, (after, upto): (Revision, Revision)) -> Result<Option<Revision>> {
        number(self, LAST_END, &[&after.as_i64(), &upto.as_i64()])
    }

    fn floor(&self) -> Result<Option<Revision>> {
        Ok(consumers::floor(self)?.map(|(_, acked)| acked))
    }
}

/// Revision, running total, timestamp.
type Columns = (i64, i64, i64);

fn row_columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn log_row((revision, total, timestamp): Columns) -> Result<LogRow> {
    Ok(LogRow {
        revision: Revision::from_i64(revision)?,
        total,
        timestamp: Timestamp::from_millis(timestamp),
    })
}

fn number(conn: &Connection, sql: &str, params: &[&dyn ToSql]) -> Result<Option<Revision>> {
    let row: Option<i64> = conn.prepare_cached(sql)?.query_row(params, |row| row.get(0)).optional()?;
    row.map(Revision::from_i64).transpose()
}
