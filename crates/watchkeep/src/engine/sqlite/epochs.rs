//! The epochs of a file. A power cut may take its last commits, and their revisions are given again; a copy gives the same
//! revisions as the file it was made of. So whoever writes first after a boot, or in a copy, begins an epoch, which is on
//! the disk before a revision is given in it.
//!
//! Nobody has to know whether the file was closed in good order, or who else has it open: a boot changes its id, whatever
//! came before it, and two that begin an epoch at once are ordered by the write lock.

use std::path::Path;
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::engine::epochs::Epochs;
use crate::types::error::{Error, Reason, Result};
use crate::types::revision::{Cursor, Epoch, Revision, StoreId};

use super::log;

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

    /// Whether the newest epoch began here.
    fn is_of_newest(&self, conn: &Connection) -> Result<bool> {
        let mut newest = conn.prepare_cached(NEWEST_HOME)?;
        let home = |row: &Row<'_>| Ok(Home { boot: row.get(0)?, file: row.get(1)? });
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

/// Begins an epoch unless the newest began here; in a transaction that is synced.
pub(super) fn enter(conn: &Connection, home: &Home) -> Result<()> {
    if home.is_of_newest(conn)? { Ok(()) } else { add(conn, home, log::end(conn)?.0) }
}

/// Whether nothing is left to [enter].
pub(super) fn is_entered(conn: &Connection, home: &Home) -> Result<bool> {
    home.is_of_newest(conn)
}

/// Of a file that has another identity from now on: no cursor that anybody has is one of it.
pub(super) fn begin_anew(conn: &Connection) -> Result<()> {
    conn.execute("DELETE FROM wk_epochs", [])?;
    add(conn, &Home::NOWHERE, Revision::ZERO)
}

pub(super) fn all(conn: &Connection) -> Result<Epochs> {
    let mut statement = conn.prepare_cached(ALL)?;
    let mut rows = statement.query([])?;
    let mut epochs = Vec::new();
    while let Some(row) = rows.next()? {
        let (tag, floor): (String, i64) = (row.get(0)?, row.get(1)?);
        let damaged = |_| Reason::Corrupt { what: format!("{tag:?} in wk_epochs names no epoch") };
        epochs.push((tag.parse().map_err(damaged)?, Revision::from_i64(floor)?));
    }
    Epochs::new(epochs).ok_or_else(none)
}

fn none() -> Error {
    Reason::Corrupt { what: "wk_epochs is empty".to_owned() }.into()
}

/// What is known of the epochs, without looking.
#[derive(Debug)]
pub(super) struct Known(RwLock<Look>);

#[derive(Debug)]
struct Look {
    epochs: Epochs,
    /// No epoch that is not among these has a revision up to this.
    upto: Revision,
    /// The newest began here, so no other begins while this process lives.
    is_settled: bool,
}

impl Look {
    fn at(conn: &Connection, home: &Home) -> Result<Look> {
        // In this order: an epoch that begins in between has its floor at that end, or after it.
        let is_settled = home.is_of_newest(conn)?;
        let upto = log::end(conn)?.0;
        Ok(Look { epochs: all(conn)?, upto, is_settled })
    }
}

impl Known {
    pub(super) fn at(conn: &Connection, home: &Home) -> Result<Known> {
        Ok(Known(RwLock::new(Look::at(conn, home)?)))
    }

    /// The cursor of a revision, as far as it can be told without another look.
    pub(super) fn cursor(&self, store: StoreId, revision: Revision) -> Option<Cursor> {
        let look = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (look.is_settled || revision <= look.upto).then(|| look.epochs.cursor(store, revision))
    }

    /// The cursor of a revision with what was known last. Where that is too little, the cursor is refused later: it never
    /// stands for another event.
    pub(super) fn last_cursor(&self, store: StoreId, revision: Revision) -> Cursor {
        let look = self.0.read().unwrap_or_else(PoisonError::into_inner);
        look.epochs.cursor(store, revision)
    }

    pub(super) fn look_again(&self, conn: &Connection, home: &Home) -> Result<()> {
        let look = Look::at(conn, home)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = look;
        Ok(())
    }
}
