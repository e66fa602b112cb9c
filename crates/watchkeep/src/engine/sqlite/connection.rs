//! Connections and their settings. Within a process nothing but SQLite opens the database's files: closing any
//! descriptor of them would drop the process's locks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::types::error::Result;

/// How many prepared statements a connection keeps.
const STATEMENTS: usize = 64;
/// How long SQLite itself waits where we do not: while opening, recovering or checkpointing.
const OPENING: Duration = Duration::from_secs(5);

/// When SQLite syncs: its `synchronous` setting, the same for all connections of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    Full,
    Normal,
    Off,
}

impl Sync {
    const fn pragma(self) -> &'static str {
        match self {
            Sync::Full => "PRAGMA synchronous = FULL",
            Sync::Normal => "PRAGMA synchronous = NORMAL",
            Sync::Off => "PRAGMA synchronous = OFF",
        }
    }
}

/// Opens the file as it is, without touching it.
pub(super) fn open(path: &Path, create: bool) -> rusqlite::Result<Connection> {
    let create = if create { OpenFlags::SQLITE_OPEN_CREATE } else { OpenFlags::empty() };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(OPENING)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(conn)
}

fn configure(conn: &Connection, sync: Sync) -> Result<()> {
    conn.execute_batch(sync.pragma())?;
    conn.execute_batch(
        "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA wal_autocheckpoint = 0;",
    )?;
    Ok(())
}

/// A connection for reading.
pub(super) fn reader(path: &Path, sync: Sync) -> Result<Connection> {
    let conn = open(path, false)?;
    configure(&conn, sync)?;
    conn.execute_batch("PRAGMA query_only = ON")?;
    Ok(conn)
}

/// Makes a connection the one that writes; `wal_pages` follows the length of the write-ahead log.
pub(super) fn writer(conn: &mut Connection, sync: Sync, wal_pages: Arc<AtomicU64>) -> Result<()> {
    configure(conn, sync)?;
    // The leader waits for other processes itself, as long as its own deadline allows.
    conn.busy_timeout(Duration::ZERO)?;
    conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: std::os::raw::c_int| {
        wal_pages.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }))?;
    Ok(())
}
