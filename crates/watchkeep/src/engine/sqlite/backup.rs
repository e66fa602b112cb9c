//! Backups: a whole copy of one moment, made beside its place and put there only when it is complete and synced.
//!
//! The pages are copied as they are, in one read transaction, so writers go on and the copy is one state. Whoever has
//! the copy has one file in rollback mode: it can be read where nothing can be written beside it. It becomes a store
//! again, in write-ahead mode, when it is opened.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rusqlite::backup::StepResult;
use rusqlite::{Connection, OpenFlags};
use tempfile::NamedTempFile;

use crate::types::backup::{Backup, BackupOptions};
use crate::types::error::{Error, Reason, Result};
use crate::types::limits::{COPY_PAGES, MIN_FREE};
use crate::types::revision::StoreId;

use super::place::{self, INDEX, JOURNAL, WAL, beside, folder_of, io_failed, is_there, sync_folder};
use super::{consumers, epochs, log};

/// The name of a copy that is not complete is that of its target with this behind it, and so many drawn characters.
const PARTIAL: &str = "-partial-";
const PARTIAL_DRAWN: usize = 8;
/// How many bytes are put behind the target's name, with those that SQLite adds.
pub(super) const BEHIND_TARGET: usize = PARTIAL.len() + PARTIAL_DRAWN + JOURNAL.len();

/// Copies what a connection sees to where nothing is yet.
pub(super) fn backup(source: &Connection, target: &Path, options: &mut BackupOptions) -> Result<Backup> {
    let target = absolute(target)?;
    place::refuse_long(&target, BEHIND_TARGET)?;
    refuse_taken(&target, true)?;
    let copy = copy(source, &target, options)?;
    copy.publish(&target)
}

pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    let failed = |cause| Reason::Io { what: format!("{path:?} is no path of a file; name one"), cause };
    let path = std::path::absolute(path).map_err(failed)?;
    if folder_of(&path).is_dir() {
        Ok(path)
    } else {
        Err(Reason::NoFolder { path: folder_of(&path).into() }.into())
    }
}

/// Refuses a name that is taken; also by what would be taken for the copy's own log or journal.
pub(super) fn refuse_taken(target: &Path, itself: bool) -> Result<()> {
    let own = itself.then_some("");
    match own
        .into_iter()
        .chain([WAL, JOURNAL])
        .map(|suffix| beside(target, suffix))
        .find(|path| is_there(path))
    {
        Some(path) => Err(Reason::TargetExists { path }.into()),
        None => Ok(()),
    }
}

/// A copy that is complete, and not in its place yet.
pub(super) struct Copy {
    partial: Partial,
    backup: Backup,
}

impl Copy {
    /// Puts the copy into its place, where nothing may be. When this returns it stays there.
    pub(super) fn publish(self, target: &Path) -> Result<Backup> {
        let Copy { mut partial, backup } = self;
        let failed = |cause: io::Error| match cause.kind() {
            io::ErrorKind::AlreadyExists => Error::from(Reason::TargetExists { path: target.to_owned() }),
            _ => io_failed(target, cause),
        };
        place::rename_new(partial.path(), target).map_err(failed)?;
        partial.file.disable_cleanup(true);
        sync_folder(target)?;
        Ok(backup)
    }
}

/// Copies what a connection sees beside a target.
pub(super) fn copy(source: &Connection, target: &Path, options: &mut BackupOptions) -> Result<Copy> {
    let partial = Partial::take(target)?;
    source.execute_batch("BEGIN")?;
    let copied = transfer(source, &partial, options);
    let ended = source.execute_batch("COMMIT");
    let backup = copied?;
    ended?;
    partial.file.as_file().sync_all().map_err(|cause| io_failed(partial.path(), cause))?;
    Ok(Copy { partial, backup })
}

fn transfer(source: &Connection, partial: &Partial, options: &mut BackupOptions) -> Result<Backup> {
    let number = |sql: &str| source.query_row(sql, [], |row| row.get::<_, i64>(0));
    // The first read fixes what the transaction sees.
    let revision = log::end(source)?.0;
    let page_size = number("PRAGMA page_size")?.unsigned_abs();
    let total = number("PRAGMA page_count")?.unsigned_abs() * page_size;
    place::need_room(partial.path(), total + MIN_FREE)?;

    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(partial.path(), flags)?;
    // What fails is thrown away whole, so nothing is kept to roll back. With exclusive locks there is no index.
    conn.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = OFF; PRAGMA synchronous = FULL",
    )?;
    let copying = rusqlite::backup::Backup::new(source, &mut conn)?;
    loop {
        let step = copying.step(COPY_PAGES)?;
        let left = u64::try_from(copying.progress().remaining).unwrap_or(0) * page_size;
        if options.report(total.saturating_sub(left), total) == ControlFlow::Break(()) {
            return Err(Reason::GivenUp.into());
        }
        match step {
            StepResult::Done => break,
            StepResult::More => {}
            _ => return Err(Reason::InUse { path: partial.path().to_owned() }.into()),
        }
    }
    drop(copying);
    let store = StoreId::random()?;
    conn.execute("UPDATE wk_meta SET value = ?1 WHERE name = 'store'", [store.as_str()])?;
    epochs::begin_anew(&conn)?;
    // Nobody holds its consumers.
    consumers::release_all(&conn)?;
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0))?;
    if mode != "delete" {
        return Err(Reason::InUse { path: partial.path().to_owned() }.into());
    }
    conn.close().map_err(|(_, error)| error)?;
    let bytes = partial.file.as_file().metadata().map_err(|cause| io_failed(partial.path(), cause))?.len();
    Ok(Backup { store, revision, bytes, replaced: None })
}

/// The file that a copy is made in, beside its target. Its name is drawn and must be free, so nothing that lies there is
/// taken for it. A process that is killed leaves it behind; nobody else can know that it is not needed any more.
struct Partial {
    /// For the last sync. SQLite has closed its own by then.
    file: NamedTempFile,
}

impl Partial {
    fn take(target: &Path) -> Result<Partial> {
        let name = beside(target, PARTIAL);
        let mut builder = tempfile::Builder::new();
        builder.prefix(name.file_name().unwrap_or_default()).rand_bytes(PARTIAL_DRAWN);
        let file = builder.tempfile_in(folder_of(target)).map_err(|cause| io_failed(target, cause))?;
        place::restrict_open(file.as_file()).map_err(|cause| io_failed(target, cause))?;
        Ok(Partial { file })
    }

    fn path(&self) -> &Path {
        self.file.path()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        for suffix in [WAL, INDEX, JOURNAL] {
            let _ = std::fs::remove_file(beside(self.path(), suffix));
        }
    }
}
