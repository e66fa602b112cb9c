//! A file made of rows that another engine has: SQLite builds it in memory, and a backup of that is the file.

use std::path::Path;

use rusqlite::{Connection, params};

use crate::rules::{Answer, ConsumerRow};
use crate::types::backup::{Backup, BackupOptions};
use crate::types::batch::BatchId;
use crate::types::clock::Timestamp;
use crate::types::entry::Entry;
use crate::types::error::Result;
use crate::types::event::Change;
use crate::types::filter::Filter;
use crate::types::options::{Options, Retention};
use crate::types::quota::{Quota, Usage};
use crate::types::revision::Revision;

use super::epochs::Home;
use super::log::{self, Salt};
use super::{answers, backup, consumers, entries, open, seal};

const GROUP: &str = "INSERT INTO wk_groups (id, name, keys, bytes) VALUES (?1, ?2, ?3, ?4)";
const NAMESPACE: &str = "INSERT INTO wk_namespaces (name, keys, groups, bytes, max_keys, max_groups, max_bytes) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const MARK: &str = "INSERT OR REPLACE INTO wk_meta (name, value) VALUES (?1, ?2)";

/// The file, as far as it is made.
pub(crate) struct Image {
    conn: Connection,
    salt: Salt,
}

impl Image {
    pub(crate) fn new(retention: Retention) -> Result<Image> {
        let conn = Connection::open_in_memory()?;
        conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
        open::make(&conn, true, &Options::new().retention(retention), &Home::NOWHERE)?;
        let salt = Salt::read(&conn)?;
        Ok(Image { conn, salt })
    }

    pub(crate) fn group(&self, id: u64, name: &str, keys: i64, bytes: i64) -> Result<()> {
        self.conn.prepare_cached(GROUP)?.execute(params![signed(id), name, keys, bytes])?;
        Ok(())
    }

    pub(crate) fn entry(&self, group: u64, entry: &Entry) -> Result<()> {
        let row = entries::Row {
            revision: entry.revision,
            updated: entry.updated,
            deadline: entry.deadline,
            content_type: entry.content_type.as_deref(),
            value: &entry.value,
        };
        let slot = entries::Slot::fresh(signed(group), &entry.key, entry.created);
        entries::put(&self.conn, &slot, &row)
    }

    pub(crate) fn namespace(&self, name: &str, usage: Usage, quota: Quota) -> Result<()> {
        let [keys, groups, bytes] = [usage.keys, usage.groups, usage.bytes].map(signed);
        let [max_keys, max_groups, max_bytes] =
            [quota.max_keys, quota.max_groups, quota.max_bytes].map(signed);
        let row = params![name, keys, groups, bytes, max_keys, max_groups, max_bytes];
        self.conn.prepare_cached(NAMESPACE)?.execute(row)?;
        Ok(())
    }

    pub(crate) fn consumer(&self, name: &str, row: &ConsumerRow, filter: &Filter) -> Result<()> {
        consumers::put(&self.conn, name, row)?;
        consumers::set_filter(&self.conn, name, filter)
    }

    pub(crate) fn answer(&self, id: &BatchId, at: Timestamp, answer: &Answer) -> Result<()> {
        answers::keep(&self.conn, at, id, answer)
    }

    /// `total` is the running total with it.
    pub(crate) fn event(&self, change: &Change, total: i64) -> Result<()> {
        log::append(&self.conn, self.salt, change, total)
    }

    pub(crate) fn marks(&self, trimmed: Revision, fence: u64) -> Result<()> {
        let mut set = self.conn.prepare_cached(MARK)?;
        set.execute(params!["trimmed", trimmed.as_i64()])?;
        set.execute(params!["fences", signed(fence)])?;
        Ok(())
    }

    /// Comes last: nothing is written after it.
    pub(crate) fn seal(&self, why: &str) -> Result<()> {
        seal::put(&self.conn, why)
    }

    /// Puts it on the disk, where nothing is yet.
    pub(crate) fn write(self, target: &Path, options: &mut BackupOptions) -> Result<Backup> {
        self.conn.flush_prepared_statement_cache();
        backup::backup(&self.conn, target, options)
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
