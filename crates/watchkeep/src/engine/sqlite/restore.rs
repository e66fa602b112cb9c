//! Restoring: a backup is checked, then copied to the store's place under a new identity. What was there is put aside.

use std::path::Path;

use rusqlite::{Connection, ErrorCode};

use crate::types::backup::{Backup, BackupOptions};
use crate::types::error::{Error, Reason, Result};

use super::backup::{BEHIND_TARGET, absolute, copy, refuse_taken};
use super::place::{self, WAL, beside, folder_of, io_failed, is_there, put_aside};
use super::{check, connection, open};

/// Makes a store of a backup.
pub(crate) fn restore(backup: &Path, target: &Path, mut options: BackupOptions) -> Result<Backup> {
    let (backup, target) = (absolute(backup)?, absolute(target)?);
    place::refuse_long(&backup, 0)?;
    place::refuse_long(&target, BEHIND_TARGET)?;
    let source = verified(&backup)?;
    let there = place::file(&target)?.is_some();
    if there && !options.replace {
        return Err(Reason::TargetExists { path: target }.into());
    }
    // A link leads to the store itself.
    let target = target.canonicalize().unwrap_or(target);
    let hold = there.then(|| Hold::take(&target)).transpose()?;
    refuse_taken(&target, !there)?;
    let copy = copy(&source, &target, &mut options)?;
    let aside = hold.as_ref().map(|_| put_aside(&target)).transpose()?;
    match copy.publish(&target) {
        Ok(backup) => Ok(Backup { replaced: aside, ..backup }),
        Err(error) => {
            if let Some(aside) = aside.filter(|_| !is_there(&target)) {
                std::fs::rename(&aside, &target).map_err(|cause| io_failed(&aside, cause))?;
            }
            Err(error)
        }
    }
}

/// Opens a backup to be read, and looks it over.
fn verified(path: &Path) -> Result<Connection> {
    let file = place::file(path)?.ok_or_else(|| Reason::NoFile { path: path.to_owned() })?;
    place::refuse_other_names(path, &file)?;
    let source = readable(path)?;
    open::trusted(&source, path)?;
    let (problems, _) = check::check(&source)?;
    if problems.is_empty() {
        Ok(source)
    } else {
        Err(Reason::BadBackup { path: path.to_owned(), problems }.into())
    }
}

fn readable(path: &Path) -> Result<Connection> {
    let source = connection::open_for_reading(path).map_err(|error| open::cannot_open(path, error))?;
    let tables = match open::survey(&source) {
        // In write-ahead mode SQLite must write beside a file even to read it. Where nobody can write, nobody does.
        Err(_) if place::is_read_only(folder_of(path)) && !is_there(&beside(path, WAL)) => {
            let source = connection::open_immutable(path).map_err(|error| open::cannot_open(path, error))?;
            let tables = open::survey(&source).map_err(|error| open::unreadable(path, error))?;
            return ours(source, &tables, path);
        }
        tables => tables.map_err(|error| open::unreadable(path, error))?,
    };
    ours(source, &tables, path)
}

fn ours(conn: Connection, tables: &open::Tables, path: &Path) -> Result<Connection> {
    if tables.ours { Ok(conn) } else { Err(open::foreign(path, "it holds no store").into()) }
}

/// A store that nobody has open, and nobody can open while this is held.
///
/// SQLite itself tells: only the last connection of all processes may take a file out of write-ahead mode. That also
/// moves everything into the one file, so it is whole where it is put.
struct Hold(#[expect(dead_code, reason = "it is held for its lock")] Connection);

impl Hold {
    fn take(path: &Path) -> Result<Hold> {
        let conn = connection::open(path, false).map_err(|error| open::cannot_open(path, error))?;
        let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Error::from(Reason::InUse { path: path.to_owned() })
            }
            _ => open::unreadable(path, error),
        };
        conn.busy_timeout(std::time::Duration::ZERO)?;
        let tables = open::survey(&conn).map_err(failed)?;
        let conn = ours(conn, &tables, path)?;
        conn.execute_batch("PRAGMA locking_mode = EXCLUSIVE").map_err(failed)?;
        // The journal is kept in memory: as a file it would lie there as long as the lock is held, beside the new store.
        let mode =
            conn.pragma_update_and_check(None, "journal_mode", "MEMORY", |row| row.get::<_, String>(0));
        if mode.map_err(failed)? != "memory" {
            return Err(Reason::InUse { path: path.to_owned() }.into());
        }
        conn.execute_batch("BEGIN EXCLUSIVE").map_err(failed)?;
        Ok(Hold(conn))
    }
}
