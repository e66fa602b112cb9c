//! Connections and their settings. Within a process nothing but SQLite opens the database's files: closing any
//! descriptor of them would drop the process's locks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::types::error::{Reason, Result};
use crate::types::limits::{CHECKPOINT_PAGES, CHECKPOINT_RETRY_PAGES, LEAST_CACHE, WAL_IDLE_LOOKS, WAL_KEPT};
use crate::types::sync::{Mutex, lock};

use super::guard::Stamp;
use super::open::cannot_open;

/// How many prepared statements a connection keeps.
const STATEMENTS: usize = 64;
/// How long SQLite itself waits where we do not: while opening, recovering or checkpointing.
pub(super) const OPENING: Duration = Duration::from_secs(5);

/// When SQLite syncs: its `synchronous` setting, the same for all connections of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    Full,
    Normal,
}

impl Sync {
    pub(super) const fn pragma(self) -> &'static str {
        match self {
            Sync::Full => "PRAGMA synchronous = FULL",
            Sync::Normal => "PRAGMA synchronous = NORMAL",
        }
    }
}

/// Closes a connection to files that are lost. The last to go would move what it knows of the write-ahead log into
/// whatever lies there now.
pub(super) fn forget(conn: Connection) {
    // What fails here leaves the connection open for good, which does no harm.
    if conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).is_err() {
        std::mem::forget(conn);
    }
}

/// Opens the file as it is, without touching it.
pub(super) fn open(path: &Path, create: bool) -> rusqlite::Result<Connection> {
    let create = if create { OpenFlags::SQLITE_OPEN_CREATE } else { OpenFlags::empty() };
    open_with(path, OpenFlags::SQLITE_OPEN_READ_WRITE | create)
}

/// Opens a file to be read only.
pub(super) fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    open_with(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// Opens a file that nobody can write, not even SQLite beside it.
pub(super) fn open_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        if plain(*byte) { uri.push(char::from(*byte)) } else { uri.push_str(&format!("%{byte:02X}")) }
    }
    uri.push_str("?immutable=1");
    open_with(Path::new(&uri), OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI)
}

/// What stands in a file is not trusted from the first read on.
fn open_with(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(OPENING)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    conn.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")?;
    Ok(conn)
}

fn configure(conn: &Connection, sync: Sync) -> Result<()> {
    // Plans must not depend on bound values: otherwise clearing them after each use of a cached statement makes
    // SQLite prepare it anew, which quadruples the cost of a get.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.execute_batch(sync.pragma())?;
    conn.execute_batch("PRAGMA wal_autocheckpoint = 0")?;
    Ok(())
}

/// A connection for reading. `may_read` is asked once the file is open and before anything of it is read: from then on
/// the log beside it counts as its own, and goes into the file when the connection is closed.
pub(super) fn reader(path: &Path, sync: Sync, may_read: impl FnOnce() -> Result<()>) -> Result<Connection> {
    let conn = open(path, false).map_err(|error| cannot_open(path, error))?;
    may_read()?;
    configure(&conn, sync)?;
    conn.execute_batch("PRAGMA query_only = ON")?;
    Ok(conn)
}

/// How long the write-ahead log is, in pages, and how long it was when it was last moved into the file.
#[derive(Debug, Default)]
pub(super) struct WalLength {
    now: AtomicU64,
    moved: AtomicU64,
    /// What it looked like when it was last looked at, and how often in a row.
    seen: Mutex<(Option<Stamp>, u32)>,
}

impl WalLength {
    fn grew_to(&self, pages: u64) {
        if pages < self.now.swap(pages, Ordering::Relaxed) {
            // It began again from its start.
            self.moved.store(0, Ordering::Relaxed);
        }
    }

    /// Whether there is enough to move. A log that was moved begins again with the next write, unless somebody is reading
    /// it just then: the file would grow by as much again if that were tried no sooner.
    pub(super) fn wants_moving(&self) -> bool {
        let moved = self.moved.load(Ordering::Relaxed);
        let enough = if moved == 0 { CHECKPOINT_PAGES } else { CHECKPOINT_RETRY_PAGES };
        self.now.load(Ordering::Relaxed).saturating_sub(moved) >= enough
    }

    pub(super) fn pages(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Looks at its file, as is done now and then; whether there is something in it, and no process has written for some
    /// looks.
    pub(super) fn is_idle(&self, stamp: Option<Stamp>) -> bool {
        let mut seen = lock(&self.seen);
        let looks = if seen.0 == stamp { seen.1.saturating_add(1) } else { 0 };
        *seen = (stamp, looks);
        looks >= WAL_IDLE_LOOKS && stamp.is_some_and(|stamp| stamp.length > 0)
    }

    /// Nothing is left in it.
    pub(super) fn was_emptied(&self) {
        self.grew_to(0);
    }

    pub(super) fn was_moved(&self) {
        self.moved.store(self.now.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Puts the file into write-ahead mode. Others that are just doing the same are waited for: SQLite does not.
pub(super) fn write_ahead(conn: &Connection) -> Result<()> {
    let start = Instant::now();
    loop {
        match conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && start.elapsed() < OPENING =>
            {
                nap(Duration::from_millis(1));
            }
            done => return Ok(done.map(drop)?),
        }
    }
}

/// Begins a transaction that writes, waiting for other processes; SQLite itself does not wait on this connection.
pub(super) fn begin(conn: &Connection, since: Instant, patience: impl Fn() -> Duration) -> Result<()> {
    loop {
        match conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([])) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                if since.elapsed() >= patience() {
                    return Err(Reason::Busy { waited: since.elapsed() }.into());
                }
                // The spread keeps waiting processes from starving each other in step.
                nap(Duration::from_micros(fastrand::u64(100..400)));
            }
            done => return Ok(done.map(drop)?),
        }
    }
}

/// SQLite has no signal for the end of what another process does: this wait is the thing itself.
#[expect(clippy::disallowed_methods, reason = "there is nothing to be woken by")]
pub(super) fn nap(time: Duration) {
    std::thread::sleep(time);
}

/// How much of the file a connection keeps in memory at the most, in KiB. What is above goes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cache(u64);

impl Cache {
    pub(super) fn new(bytes: u64) -> Cache {
        Cache(bytes.max(LEAST_CACHE) / 1_024)
    }

    pub(super) fn set(self, conn: &Connection) -> rusqlite::Result<()> {
        // Below zero it is a size, and not a number of pages.
        conn.pragma_update(None, "cache_size", -i64::try_from(self.0).unwrap_or(i64::MAX))
    }
}

/// Makes a connection the one that writes.
pub(super) fn writer(conn: &mut Connection, sync: Sync, cache: Cache, wal: Arc<WalLength>) -> Result<()> {
    configure(conn, sync)?;
    cache.set(conn)?;
    // A copy of a store may have lost the mode.
    write_ahead(conn)?;
    // The first read makes the write-ahead log and its index, where they are not there.
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    // The leader waits for other processes itself, as long as its own deadline allows.
    conn.busy_timeout(Duration::ZERO)?;
    conn.pragma_update(None, "journal_size_limit", WAL_KEPT)?;
    conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: std::os::raw::c_int| {
        wal.grew_to(u64::try_from(pages).unwrap_or(0));
        Ok(())
    }))?;
    Ok(())
}
