//! A store of one layout: raw `rusqlite`, with the settings and the steps of the library.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::Null;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::sql::{self, Layout, Sql};
use crate::Result;
use crate::data::Name;

/// How many entries a page of a scan has.
pub(super) const PAGE: usize = 256;
/// The present moment, as a condition on deadlines has it.
const NOW: i64 = 1_700_000_000_000;

/// A file and how to open it.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) path: PathBuf,
    pub(super) layout: Layout,
    pub(super) page_size: u32,
    /// SQLite's own 2 MB unless given.
    pub(super) cache_mib: Option<u32>,
    pub(super) wal_autocheckpoint: u32,
    pub(super) sql: Sql,
}

/// What a scan reads of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Box<str>,
    value: Box<[u8]>,
    revision: i64,
    created: i64,
    updated: i64,
    deadline: Option<i64>,
    content_type: Option<Box<str>>,
}

/// What a listing of keys reads of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyInfo {
    pub(super) key: Box<str>,
    bytes: i64,
    revision: i64,
    created: i64,
    updated: i64,
    deadline: Option<i64>,
    content_type: Option<Box<str>>,
}

impl Store {
    /// Makes the file, with groups of these names.
    pub(super) fn create(&self, groups: impl Iterator<Item = String>) -> Result<()> {
        let conn = Connection::open(&self.path)?;
        let page = format!("PRAGMA page_size = {}; PRAGMA auto_vacuum = INCREMENTAL;", self.page_size);
        conn.execute_batch(&page)?;
        conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
        conn.execute_batch(&self.sql.tables)?;
        for (number, group) in (1_i64..).zip(groups) {
            conn.execute(
                "INSERT INTO groups (id, name, keys, bytes) VALUES (?1, ?2, 0, 0)",
                params![number, group],
            )?;
        }
        Ok(())
    }

    fn connect(&self) -> Result<Connection> {
        let conn = Connection::open(&self.path)?;
        conn.busy_timeout(Duration::from_secs(20))?;
        conn.set_prepared_statement_cache_capacity(64);
        // Without it, this SQLite prepares the read anew whenever its cached statement was given back.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        let cache = self.cache_mib.map(|mib| format!("PRAGMA cache_size = -{};", mib * 1024));
        conn.execute_batch(&format!(
            "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA synchronous = NORMAL; \
             PRAGMA wal_autocheckpoint = {}; {}",
            self.wal_autocheckpoint,
            cache.unwrap_or_default()
        ))?;
        Ok(conn)
    }

    pub(super) fn reader(&self) -> Result<Reader<'_>> {
        let conn = self.connect()?;
        conn.execute_batch("PRAGMA query_only = ON")?;
        Ok(Reader { conn, sql: &self.sql, layout: self.layout })
    }

    pub(super) fn writer(&self) -> Result<Writer<'_>> {
        let (conn, counts) = (self.connect()?, BTreeMap::new());
        let revision =
            conn.query_row("SELECT coalesce(max(revision), 0) FROM entries", [], |row| row.get(0))?;
        Ok(Writer { conn, sql: &self.sql, layout: self.layout, revision, counts })
    }
}

#[derive(Debug)]
pub(super) struct Reader<'s> {
    conn: Connection,
    sql: &'s Sql,
    layout: Layout,
}

impl Reader<'_> {
    pub(super) fn get(&self, name: &Name) -> Result<Option<Box<[u8]>>> {
        let mut statement = self.conn.prepare_cached(&self.sql.get)?;
        let mut rows = statement.query(params![name.group, name.key])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let deadline: Option<i64> = row.get(1)?;
        if deadline.is_some_and(|deadline| deadline <= NOW) {
            return Ok(None);
        }
        self.value(row, 0, 2, 2).map(Some)
    }

    /// The value, wherever it lies. The first statement is still open, so a second one reads as of the same moment.
    fn value(&self, row: &Row<'_>, place: usize, joined: usize, revision: usize) -> Result<Box<[u8]>> {
        if let Some(bytes) = row.get_ref(place)?.as_bytes_or_null()? {
            return Ok(bytes.into());
        }
        if matches!(self.layout, Layout::Apart { join: true, .. }) {
            return Ok(row.get_ref(joined)?.as_bytes()?.into());
        }
        let mut statement = self.conn.prepare_cached(sql::LARGE)?;
        let mut rows = statement.query([row.get::<_, i64>(revision)?])?;
        let row = rows.next()?.ok_or("a large value is missing")?;
        Ok(row.get_ref(0)?.as_bytes()?.into())
    }

    /// A page of a group, after this key.
    pub(super) fn entries(&self, group: &str, after: &str) -> Result<Vec<Entry>> {
        let entry = |row: &Row<'_>| {
            Ok(Entry {
                key: row.get(0)?,
                value: self.value(row, 1, 7, 2)?,
                revision: row.get(2)?,
                created: row.get(3)?,
                updated: row.get(4)?,
                deadline: row.get(5)?,
                content_type: row.get(6)?,
            })
        };
        self.page(&self.sql.scan, group, after, entry)
    }

    /// The same without the values, but with their sizes.
    pub(super) fn keys(&self, group: &str, after: &str) -> Result<Vec<KeyInfo>> {
        let key = |row: &Row<'_>| {
            Ok(KeyInfo {
                key: row.get(0)?,
                bytes: row.get(1)?,
                revision: row.get(2)?,
                created: row.get(3)?,
                updated: row.get(4)?,
                deadline: row.get(5)?,
                content_type: row.get(6)?,
            })
        };
        self.page(&self.sql.keys, group, after, key)
    }

    fn page<T>(
        &self,
        sql: &str,
        group: &str,
        after: &str,
        read: impl Fn(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params![group, after, NOW, i64::try_from(PAGE)?])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(read(row)?);
        }
        Ok(found)
    }
}

#[derive(Debug)]
pub(super) struct Writer<'s> {
    conn: Connection,
    sql: &'s Sql,
    layout: Layout,
    revision: i64,
    /// What the transaction at hand adds to the counters of groups: they are written once, before it ends.
    counts: BTreeMap<i64, (i64, i64)>,
}

impl Writer<'_> {
    fn run(&self, sql: &str) -> Result<()> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// Writes these in one transaction; `text` makes the value of a revision.
    pub(super) fn set<'n>(
        &mut self,
        names: impl Iterator<Item = &'n Name>,
        mut text: impl FnMut(&mut String, i64) -> Result<()>,
    ) -> Result<()> {
        let mut value = String::new();
        self.run("BEGIN IMMEDIATE")?;
        for name in names {
            text(&mut value, self.revision + 1)?;
            self.put(name, &value)?;
        }
        self.commit()
    }

    fn commit(&mut self) -> Result<()> {
        for (group, (keys, bytes)) in std::mem::take(&mut self.counts) {
            if (keys, bytes) != (0, 0) {
                self.conn.prepare_cached(sql::ADD)?.execute(params![group, keys, bytes])?;
            }
        }
        self.run("COMMIT")
    }

    fn put(&mut self, name: &Name, value: &str) -> Result<()> {
        self.revision += 1;
        let (number, key) = (self.revision, &name.key);
        let group: i64 = self.conn.prepare_cached(sql::GROUP)?.query_row([&name.group], |row| row.get(0))?;
        let old = |row: &Row<'_>| {
            let slot = if self.layout == Layout::Rowid { row.get(3)? } else { group };
            Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, i64>(2)?, slot))
        };
        let old = self.conn.prepare_cached(self.sql.find)?.query_row(params![group, key], old).optional()?;
        let (bytes, apart) = (i64::try_from(value.len())?, self.layout.is_apart(value.len()));
        let (inline, large) = (Some(value).filter(|_| !apart), Some(bytes).filter(|_| apart));
        let counts = self.counts.entry(group).or_default();
        if let Some((before, _, size, slot)) = old {
            counts.1 += bytes - size;
            if self.layout.is_apart(usize::try_from(size)?) {
                self.conn.prepare_cached(sql::REMOVE_LARGE)?.execute([before])?;
            }
            let mut update = self.conn.prepare_cached(self.sql.update)?;
            match self.layout {
                Layout::Rowid => update.execute(params![slot, number, NOW, Null, Null, value])?,
                Layout::Clustered => update.execute(params![slot, number, NOW, Null, Null, value, key])?,
                Layout::Apart { .. } => {
                    update.execute(params![slot, number, NOW, Null, Null, inline, key, large])?
                }
            };
        } else {
            *counts = (counts.0 + 1, counts.1 + bytes + i64::try_from(key.len())?);
            let mut insert = self.conn.prepare_cached(self.sql.insert)?;
            match self.layout {
                Layout::Apart { .. } => insert.execute(params![group, key, number, NOW, inline, large])?,
                _ => insert.execute(params![group, key, number, NOW, value])?,
            };
        }
        if apart {
            self.conn.prepare_cached(sql::INSERT_LARGE)?.execute(params![number, value])?;
        }
        Ok(())
    }

    /// Removes so many entries of a group, in one transaction; how many they were.
    pub(super) fn sweep(&mut self, group: &str, step: usize) -> Result<usize> {
        let step = i64::try_from(step)?;
        self.run("BEGIN IMMEDIATE")?;
        let group: i64 = self.conn.prepare_cached(sql::GROUP)?.query_row([group], |row| row.get(0))?;
        let swept = if self.layout == Layout::Rowid {
            self.conn.prepare_cached(sql::SWEEP_ROWIDS)?.execute(params![group, step])?
        } else {
            let last = params![group, step - 1];
            let last: Option<String> =
                self.conn.prepare_cached(sql::STEP)?.query_row(last, |row| row.get(0)).optional()?;
            if matches!(self.layout, Layout::Apart { .. }) {
                self.conn.prepare_cached(sql::SWEEP_LARGE)?.execute(params![group, last])?;
            }
            match last {
                Some(last) => self.conn.prepare_cached(sql::SWEEP_TO)?.execute(params![group, last])?,
                None => self.conn.prepare_cached(sql::SWEEP_REST)?.execute([group])?,
            }
        };
        self.commit()?;
        Ok(swept)
    }

    /// Moves the write-ahead log into the file, and empties it.
    pub(super) fn checkpoint(&self) -> Result<()> {
        let busy: i64 = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if busy == 0 { Ok(()) } else { Err("the checkpoint was refused".into()) }
    }
}
