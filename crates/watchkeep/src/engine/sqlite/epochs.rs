//! The epochs of a file. A power cut may take its last commits, and their revisions are given again; a copy gives the same
//! revisions as the file it was made of. So whoever writes first after a boot, or in a copy, begins an epoch, which is on
//! the disk before a revision is given in it.
//!
//! Nobody has to know whether the file was closed in good order, or who else has it open: a boot changes its id, whatever
//! came before it, and two that begin an epoch at once are ordered by the write lock.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::engine::epochs::Epochs;
use crate::types::error::{Error, ErrorKind, Reason, Result};
use crate::types::revision::{Cursor, Epoch, Revision, StoreId};

use super::{log, seal};

const ALL: &str = "SELECT tag, floor FROM wk_epochs ORDER BY ordinal";
const NEWEST_HOME: &str = "SELECT boot, file FROM wk_epochs ORDER BY ordinal DESC LIMIT 1";
const ADD: &str = "INSERT INTO wk_epochs (ordinal, tag, boot, file, floor) \
     SELECT coalesce(max(ordinal) + 1, 0), ?1, ?2, ?3, ?4 FROM wk_epochs";

/// Where a file is written: in which boot of the machine, and which file it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Home {
    /// None where the machine does not tell: then each opening begins an epoch.
    boot: Option<String>,
    file: Option<String>,
}

impl Home {
    /// Of nobody yet: whoever writes first begins an epoch.
    pub(super) const NOWHERE: Home = Home { boot: None, file: None };

    pub(super) fn of(path: &Path, boot: Option<&str>) -> Home {
        Home { boot: boot.map(str::to_owned).or_else(boot_id), file: file_id(path) }
    }

    /// Whether the newest epoch began here. A home that cannot be read is nobody's.
    pub(super) fn is_of_newest(&self, conn: &Connection) -> Result<bool> {
        let mut newest = conn.prepare_cached(NEWEST_HOME)?;
        let home = |row: &Row<'_>| {
            Ok(Home { boot: row.get(0).unwrap_or_default(), file: row.get(1).unwrap_or_default() })
        };
        let newest = newest.query_row([], home).optional()?.ok_or_else(none)?;
        Ok(self.boot.is_some() && newest == *self)
    }
}

#[cfg(target_os = "linux")]
fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(not(target_os = "linux"))]
fn boot_id() -> Option<String> {
    None
}

/// A number may come again when a file is removed, so the time of its birth belongs to it, where that is known.
fn file_id(path: &Path) -> Option<String> {
    let file = std::fs::metadata(path).ok()?;
    let born = file.created().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    Some(format!("{}:{}", number(&file), born.map_or(0, |born| born.as_nanos())))
}

#[cfg(unix)]
fn number(file: &std::fs::Metadata) -> String {
    use std::os::unix::fs::MetadataExt;
    format!("{}:{}", file.dev(), file.ino())
}

#[cfg(not(unix))]
fn number(_: &std::fs::Metadata) -> &'static str {
    ""
}

/// Begins an epoch after a revision.
pub(super) fn add(conn: &Connection, home: &Home, floor: Revision) -> Result<()> {
    let tag = Epoch::random()?;
    conn.prepare_cached(ADD)?.execute(params![tag.as_str(), home.boot, home.file, floor.as_i64()])?;
    Ok(())
}

/// Begins an epoch unless the newest began here, or the file is sealed; in a transaction that is synced. Whether the newest
/// is one that began here.
pub(super) fn enter(conn: &Connection, home: &Home) -> Result<bool> {
    if home.is_of_newest(conn)? {
        return Ok(true);
    }
    if seal::text(conn)?.is_some() {
        return Ok(false);
    }
    add(conn, home, log::end(conn)?.0)?;
    Ok(true)
}

/// From now on no cursor that anybody has is good: the file has another identity, or its epochs are damaged.
pub(super) fn begin_anew(conn: &Connection) -> Result<()> {
    conn.execute("DELETE FROM wk_epochs", [])?;
    add(conn, &Home::NOWHERE, Revision::ZERO)
}

pub(super) fn all(conn: &Connection) -> Result<Epochs> {
    let mut statement = conn.prepare_cached(ALL)?;
    let mut rows = statement.query([])?;
    let mut epochs = Vec::new();
    while let Some(row) = rows.next()? {
        let epoch = row.get::<_, String>(0).ok().and_then(|tag| tag.parse().ok());
        let floor = row.get::<_, i64>(1).ok().and_then(|floor| Revision::from_i64(floor).ok());
        let damaged = || Reason::Corrupt { what: "a row of wk_epochs cannot be read".to_owned() };
        epochs.push(epoch.zip(floor).ok_or_else(damaged)?);
    }
    Epochs::new(epochs).ok_or_else(none)
}

fn none() -> Error {
    Reason::Corrupt { what: "wk_epochs is empty".to_owned() }.into()
}

/// What is known of the epochs, without looking.
#[derive(Debug)]
pub(super) struct Known {
    epochs: RwLock<Epochs>,
    /// No epoch that is not among these has a revision up to this.
    upto: AtomicU64,
}

impl Known {
    /// Where the epochs are damaged, nothing is known: no cursor is good, nothing can be written, and the rest can be read.
    pub(super) fn at(conn: &Connection) -> Result<Known> {
        let known = Known { epochs: RwLock::new(Epochs::only(Epoch::NONE)), upto: AtomicU64::new(0) };
        match known.look_again(conn) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::error!(%error, "no cursor is good, and nothing is written, until `check --repair`");
                Ok(known)
            }
            looked => looked.map(|()| known),
        }
    }

    pub(super) fn upto(&self) -> Revision {
        Revision::new(self.upto.load(Ordering::Acquire))
    }

    /// Everything up to a revision was given in the epochs that are known.
    pub(super) fn reaches(&self, last: Revision) {
        self.upto.fetch_max(last.get(), Ordering::AcqRel);
    }

    /// The cursor of a revision, as far as it can be told without another look.
    pub(super) fn cursor(&self, store: StoreId, revision: Revision) -> Option<Cursor> {
        (revision <= self.upto()).then(|| self.last_cursor(store, revision))
    }

    /// The cursor of a revision with what was known last. Where that is too little, the cursor is refused later: it never
    /// stands for another event.
    pub(super) fn last_cursor(&self, store: StoreId, revision: Revision) -> Cursor {
        self.epochs.read().unwrap_or_else(PoisonError::into_inner).cursor(store, revision)
    }

    pub(super) fn look_again(&self, conn: &Connection) -> Result<()> {
        // In this order: an epoch that begins in between has its floor at that end, or after it.
        let upto = log::end(conn)?.0;
        self.look_at(conn, upto)
    }

    /// The same where the end of the log is known.
    pub(super) fn look_at(&self, conn: &Connection, upto: Revision) -> Result<()> {
        let epochs = all(conn)?;
        *self.epochs.write().unwrap_or_else(PoisonError::into_inner) = epochs;
        self.reaches(upto);
        Ok(())
    }
}
