//! Raw `rusqlite` on a file of the same form: the limit of the file. It writes the entry and its log row in one
//! transaction, and nothing else: no conditions, no counters, no look at what was there. It knows revisions and
//! groups from memory, so nobody else may write. Its watch is a model: a hash map of channels.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Row, params};
use watchkeep::{Clock, Durability, SystemClock};

use super::limits::{Event, Receiving, lock};
use super::{Contender, Peer, Replayed, Session, Watch};
use crate::Result;
use crate::data::{self, Name, value};
use crate::machine::version_of;
use crate::plan::{Cell, Workload};

const PUT: &str = "INSERT INTO wk_entries (group_id, key, revision, created, updated, deadline, content_type, value) \
     VALUES (?1, ?2, ?3, ?3, ?4, NULL, NULL, ?5) ON CONFLICT (group_id, key) DO UPDATE SET \
     revision = excluded.revision, updated = excluded.updated, value = excluded.value";
const LOG: &str = "INSERT INTO wk_log (revision, commit_revision, kind, group_name, key, content_type, deadline, \
     previous, origin, timestamp, total_bytes, checksum, value) \
     VALUES (?1, ?1, 1, ?2, ?3, NULL, NULL, ?4, NULL, ?5, ?6, ?7, ?8)";
const GET: &str = "SELECT e.value, e.deadline FROM wk_groups g JOIN wk_entries e ON e.group_id = g.id \
     WHERE g.name = ?1 AND e.key = ?2";
const REPLAY: &str = "SELECT revision, commit_revision, kind, group_name, key, content_type, deadline, previous, \
     origin, timestamp, checksum, value FROM wk_log WHERE revision > 0 ORDER BY revision";
/// As many bytes as a real one.
const CHECKSUM: i64 = 0x9e37_79b9;
const DUE: &str = "SELECT e.group_id, g.name, e.key FROM wk_entries e JOIN wk_groups g ON g.id = e.group_id \
     WHERE e.deadline <= 2 ORDER BY e.deadline LIMIT ?1";
const REMOVE: &str = "DELETE FROM wk_entries WHERE group_id = ?1 AND key = ?2";
const SCAN: &str = "SELECT e.key, e.revision, e.created, e.updated, e.deadline, e.content_type, e.value \
     FROM wk_groups g JOIN wk_entries e ON e.group_id = g.id \
     WHERE g.name = ?1 AND e.key > ?2 ORDER BY e.key LIMIT ?3";
const PAGE: i64 = 256;
const BATCH: usize = 2_000;

/// What a store of ours keeps for its writer, and for all readers together; and the length of the write-ahead log at which
/// it is moved into the file.
const WRITER_MIB: u32 = 16;
const READERS_MIB: u32 = 48;
const CHECKPOINT_PAGES: u32 = 16_000;

/// Raw `rusqlite`.
#[derive(Debug)]
pub(crate) struct Raw {
    name: &'static str,
    /// The page cache of each connection, where it has more than ours.
    cache_mib: Option<u32>,
    /// Whether a set writes its log row.
    log: bool,
}

pub(crate) static PLAIN: Raw = Raw { name: "rusqlite", cache_mib: None, log: true };
pub(crate) static CACHE: Raw = Raw { name: "rusqlite-cache", cache_mib: Some(256), log: true };
/// What the peers write: the entry alone.
pub(crate) static NO_LOG: Raw = Raw { name: "rusqlite-no-log", cache_mib: None, log: false };

impl Contender for Raw {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> String {
        match self.cache_mib {
            _ if !self.log => "as rusqlite, without the row of the log: what the peers write".to_owned(),
            None => format!(
                "rusqlite {} with SQLite {}: the entry and its log row in one transaction, the same tables and indices; \
                 cached statements that stay prepared; no checks of pages; WAL, automatic checkpoints at {CHECKPOINT_PAGES} pages, a page cache of {WRITER_MIB} MiB for the writer \
                 and {READERS_MIB} MiB for all readers; one writing connection behind a mutex, one reading \
                 connection a thread, the value copied out; its watch is a hash map of `sync_channel(16)`",
                version_of("rusqlite"),
                rusqlite::version()
            ),
            Some(mib) => format!("as rusqlite, with a page cache of {mib} MiB for each connection"),
        }
    }

    fn rows(&self) -> u32 {
        if self.log { 2 } else { 1 }
    }

    fn takes(&self, cell: &Cell) -> bool {
        match cell.workload {
            Workload::Floor => false,
            Workload::Set => true,
            Workload::Get | Workload::GetZipf => self.log,
            Workload::Batch => self.cache_mib.is_none(),
            Workload::ImportSorted | Workload::ImportRandom => true,
            _ => self.log && self.cache_mib.is_none(),
        }
    }

    fn open(&self, folder: &Path, cell: &Cell) -> Result<Box<dyn Peer>> {
        let path = folder.join("store.db");
        if !path.exists() {
            // The file is made by the library, so that it has the same tables, indices and page size.
            drop(super::watchkeep::open(folder, cell.durability)?);
        }
        let sync = if cell.durability == Durability::Full { "FULL" } else { "NORMAL" };
        let settings = |mib: u32| {
            format!(
                "PRAGMA synchronous = {sync}; PRAGMA cache_size = -{}; \
                 PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};",
                self.cache_mib.unwrap_or(mib) * 1_024
            )
        };
        let readers = match cell.workload {
            Workload::Get | Workload::GetZipf | Workload::GetBusy => u32::try_from(cell.size)?,
            _ => 1,
        };
        let conn = connect(&path, &settings(WRITER_MIB))?;
        let settings = settings(READERS_MIB / readers);
        let groups = groups(&conn)?;
        let revision =
            conn.query_row("SELECT coalesce(max(revision), 0) FROM wk_log", [], |row| row.get(0))?;
        let writer = Mutex::new(Writer { conn, groups, revision, bytes: 0, log: self.log });
        Ok(Box::new(Open { path, settings, writer, watchers: RwLock::default() }))
    }
}

fn connect(path: &Path, settings: &str) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(Duration::from_secs(20))?;
    // Without it, this SQLite prepares the read anew whenever its cached statement was given back.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.execute_batch(settings)?;
    Ok(conn)
}

/// The groups' rows, made where they are missing.
fn groups(conn: &Connection) -> Result<HashMap<String, i64>> {
    let mut groups = HashMap::new();
    let known: i64 = conn.query_row("SELECT count(*) FROM wk_groups", [], |row| row.get(0))?;
    for number in 0..data::GROUPS {
        let (name, id) = (data::group(number), i64::try_from(number)? + 1);
        if known == 0 {
            conn.execute(
                "INSERT INTO wk_groups (id, name, keys, bytes) VALUES (?1, ?2, 1, 1)",
                params![id, name],
            )?;
        }
        groups.insert(name, id);
    }
    Ok(groups)
}

struct Writer {
    conn: Connection,
    groups: HashMap<String, i64>,
    revision: i64,
    bytes: i64,
    log: bool,
}

impl Writer {
    /// Writes both rows, or the entry alone.
    fn put(&mut self, name: &Name, value: &str) -> Result<u64> {
        let id = self.groups.get(&name.group).ok_or("no such group")?;
        let (now, revision) = (SystemClock.now().as_millis(), self.revision + 1);
        self.conn.prepare_cached(PUT)?.execute(params![id, name.key, revision, now, value])?;
        self.log(name, value)
    }

    /// Counts the revision, and writes its row where there is a log.
    fn log(&mut self, name: &Name, value: &str) -> Result<u64> {
        let (now, previous) = (SystemClock.now().as_millis(), self.revision);
        self.revision += 1;
        self.bytes += i64::try_from(name.group.len() + name.key.len() + value.len())?;
        if self.log {
            let row =
                params![self.revision, name.group, name.key, previous, now, self.bytes, CHECKSUM, value];
            self.conn.prepare_cached(LOG)?.execute(row)?;
        }
        Ok(u64::try_from(self.revision)?)
    }

    fn run(&self, sql: &str) -> Result<()> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
}

type Watchers = HashMap<String, HashMap<String, Vec<SyncSender<Arc<Event>>>>>;

struct Open {
    path: PathBuf,
    settings: String,
    writer: Mutex<Writer>,
    watchers: RwLock<Watchers>,
}

impl Open {
    fn announce(&self, name: &Name, value: &str, revision: u64) -> Result<()> {
        let watchers = self.watchers.read().unwrap_or_else(PoisonError::into_inner);
        let Some(matching) = watchers.get(&name.group).and_then(|keys| keys.get(&name.key)) else {
            return Ok(());
        };
        let event = Arc::new(Event::new(name, value, revision));
        for sender in matching {
            if let Err(TrySendError::Full(_)) = sender.try_send(event.clone()) {
                return Err("a channel is full".into());
            }
        }
        Ok(())
    }
}

impl Peer for Open {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Thread { open: self, reader: None }))
    }

    fn load(&self, names: &[Name], count: usize) -> Result<()> {
        let mut writer = lock(&self.writer);
        let mut text = String::new();
        for serial in 0..count {
            if serial % BATCH == 0 {
                writer.run("BEGIN IMMEDIATE")?;
            }
            let number = serial % names.len().max(1);
            value(&mut text, number, serial as u64)?;
            writer.put(names.get(number).ok_or("no such name")?, &text)?;
            if serial % BATCH == BATCH - 1 || serial + 1 == count {
                writer.run("COMMIT")?;
            }
        }
        Ok(())
    }

    fn trim(&self) -> Result<()> {
        lock(&self.writer).run("DELETE FROM wk_log")
    }

    fn delete_group(&self, group: &str) -> Result<()> {
        let mut writer = lock(&self.writer);
        let id = *writer.groups.get(group).ok_or("no such group")?;
        writer.run("BEGIN IMMEDIATE")?;
        writer.conn.execute("DELETE FROM wk_entries WHERE group_id = ?1", [id])?;
        let gone = Name { group: group.to_owned(), key: String::new() };
        writer.log(&gone, "")?;
        writer.run("COMMIT")
    }

    fn load_expiring(&self, names: &[Name], count: usize) -> Result<()> {
        self.load(names, count)?;
        lock(&self.writer).run("UPDATE wk_entries SET deadline = 1")
    }

    fn expire(&self) -> Result<()> {
        loop {
            // In steps, so that others come in between.
            let mut writer = lock(&self.writer);
            writer.run("BEGIN IMMEDIATE")?;
            let due: Vec<(i64, String, String)> = writer
                .conn
                .prepare_cached(DUE)?
                .query_map([i64::try_from(BATCH)?], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<rusqlite::Result<_>>()?;
            for (id, group, key) in &due {
                writer.conn.prepare_cached(REMOVE)?.execute(params![id, key])?;
                writer.log(&Name { group: group.clone(), key: key.clone() }, "")?;
            }
            writer.run("COMMIT")?;
            if due.is_empty() {
                return Ok(());
            }
        }
    }

    fn logged(&self) -> Result<Option<u64>> {
        let writer = lock(&self.writer);
        if !writer.log {
            return Ok(None);
        }
        let count: i64 = writer.conn.query_row("SELECT count(*) FROM wk_log", [], |row| row.get(0))?;
        Ok(Some(u64::try_from(count)?))
    }

    fn watch(&self, name: &Name) -> Result<Box<dyn Watch>> {
        let (sender, receiver) = sync_channel(16);
        let mut watchers = self.watchers.write().unwrap_or_else(PoisonError::into_inner);
        let keys = watchers.entry(name.group.clone()).or_default();
        keys.entry(name.key.clone()).or_default().push(sender);
        Ok(Box::new(Receiving(receiver)))
    }

    fn replay(&self, _: Workload, _: u64, watchers: usize) -> Result<Replayed> {
        let conn = connect(&self.path, &self.settings)?;
        let mut statement = conn.prepare_cached(REPLAY)?;
        let mut rows = statement.query([])?;
        let mut replayed = Replayed::default();
        while let Some(row) = rows.next()? {
            let logged = std::hint::black_box(Arc::new(Logged::read(row)?));
            // It is read once, and handed to each.
            for _ in 0..watchers {
                let logged = std::hint::black_box(logged.clone());
                replayed.events += 1;
                replayed.revisions += u64::try_from(logged.revision)?;
                replayed.bytes += logged.value.as_ref().map_or(0, |value| value.len() as u64);
            }
        }
        Ok(replayed)
    }
}

/// A row of the log, with all that it says.
#[derive(Debug)]
#[expect(dead_code, reason = "what a reader wants of an event is read, whether or not it is looked at")]
struct Logged {
    revision: i64,
    commit: i64,
    kind: i64,
    group: Box<str>,
    key: Option<Box<str>>,
    content_type: Option<Box<str>>,
    deadline: Option<i64>,
    previous: Option<i64>,
    origin: Option<Box<str>>,
    timestamp: i64,
    checksum: i64,
    value: Option<Box<[u8]>>,
}

impl Logged {
    fn read(row: &Row<'_>) -> Result<Logged> {
        Ok(Logged {
            revision: row.get(0)?,
            commit: row.get(1)?,
            kind: row.get(2)?,
            group: row.get(3)?,
            key: row.get(4)?,
            content_type: row.get(5)?,
            deadline: row.get(6)?,
            previous: row.get(7)?,
            origin: row.get(8)?,
            timestamp: row.get(9)?,
            checksum: row.get(10)?,
            value: row.get_ref(11)?.as_bytes_or_null()?.map(Into::into),
        })
    }
}

/// An entry of a page, with all that it says.
#[derive(Debug)]
#[expect(dead_code, reason = "what a reader wants of an entry is read, whether or not it is looked at")]
struct Scanned {
    key: String,
    revision: i64,
    created: i64,
    updated: i64,
    deadline: Option<i64>,
    content_type: Option<String>,
    value: Vec<u8>,
}

impl Scanned {
    fn read(row: &Row<'_>) -> rusqlite::Result<Scanned> {
        Ok(Scanned {
            key: row.get(0)?,
            revision: row.get(1)?,
            created: row.get(2)?,
            updated: row.get(3)?,
            deadline: row.get(4)?,
            content_type: row.get(5)?,
            value: row.get_ref(6)?.as_bytes()?.to_vec(),
        })
    }
}

struct Thread<'o> {
    open: &'o Open,
    /// Opened by the first read.
    reader: Option<Connection>,
}

impl Thread<'_> {
    fn reader(&mut self) -> Result<&Connection> {
        match &mut self.reader {
            Some(reader) => Ok(reader),
            none => Ok(none.insert(connect(&self.open.path, &self.open.settings)?)),
        }
    }
}

impl Session for Thread<'_> {
    fn set(&mut self, name: &Name, value: &str) -> Result<()> {
        let mut writer = lock(&self.open.writer);
        writer.run("BEGIN IMMEDIATE")?;
        let revision = writer.put(name, value)?;
        writer.run("COMMIT")?;
        drop(writer);
        self.open.announce(name, value, revision)
    }

    fn get(&mut self, name: &Name, value: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let reader = self.reader()?;
        let mut statement = reader.prepare_cached(GET)?;
        let mut rows = statement.query(params![name.group, name.key])?;
        let Some(row) = rows.next()? else { return Ok(false) };
        let deadline: Option<i64> = row.get(1)?;
        let found: Vec<u8> = row.get_ref(0)?.as_bytes()?.to_vec();
        value(&found);
        Ok(deadline.is_none())
    }

    fn scan(&mut self, group: &str, value: &mut dyn FnMut(&[u8])) -> Result<()> {
        let (reader, mut after) = (self.reader()?, String::new());
        loop {
            let mut statement = reader.prepare_cached(SCAN)?;
            let rows = statement.query_map(params![group, after, PAGE], Scanned::read)?;
            let page: Vec<Scanned> = rows.collect::<rusqlite::Result<_>>()?;
            page.iter().for_each(|entry| value(&entry.value));
            match page.into_iter().next_back() {
                Some(last) => after = last.key,
                None => return Ok(()),
            }
        }
    }
}
