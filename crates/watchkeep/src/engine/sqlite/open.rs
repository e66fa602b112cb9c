//! Opening: is it a file of ours, may we use it, and if it is new, what does it become.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};

use crate::types::error::{Error, Reason, Result};
use crate::types::options::{Durability, Options};
use crate::types::revision::StoreId;

use super::connection::{self, Sync};
use super::retention;
use super::schema::{APPLICATION_ID, FORMAT, TABLES};

/// What the file says about itself.
pub(super) struct Identity {
    pub(super) id: StoreId,
    pub(super) durability: Durability,
}

/// Opens the file, making it ours when it is new and that is wanted.
pub(super) fn open(path: &Path, options: &Options) -> Result<(Connection, Identity)> {
    let is_new = inspect(path, options.create)?;
    let mut conn = connection::open(path, options.create).map_err(|error| cannot_open(path, error))?;
    let tables = survey(&conn).map_err(|error| unreadable(path, error))?;
    if tables.ours {
        writable(&conn, path)?;
        let identity = agree(identify(&conn, path)?, options)?;
        if let Some(wanted) = options.retention
            && retention::read(&conn)? != wanted
        {
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            retention::write(&tx, &wanted)?;
            tx.commit()?;
        }
        return Ok((conn, identity));
    }
    if tables.others && !options.adopt {
        return Err(foreign(path, "it holds the tables of something else").into());
    }
    if !options.create {
        return Err(foreign(path, "it is an empty file").into());
    }
    writable(&conn, path)?;
    if is_new {
        restrict(path)?;
    }
    create(&mut conn, !tables.others, options)?;
    let identity = identify(&conn, path)?;
    agree(identity, options).map(|identity| (conn, identity))
}

/// Looks at the path without opening anything; whether the file is missing and may be made.
fn inspect(path: &Path, create: bool) -> Result<bool> {
    let path_buf = || path.to_owned();
    match std::fs::metadata(path) {
        Ok(file) if file.is_dir() => Err(Reason::IsFolder { path: path_buf() }.into()),
        Ok(_) => Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let folder = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
                _ => PathBuf::from("."),
            };
            match (folder.is_dir(), create) {
                (false, _) => Err(Reason::NoFolder { path: folder }.into()),
                (true, false) => Err(Reason::NoFile { path: path_buf() }.into()),
                (true, true) => Ok(true),
            }
        }
        Err(cause) => {
            Err(Reason::Io { what: format!("{path:?} cannot be looked at; check its permissions"), cause }
                .into())
        }
    }
}

struct Tables {
    ours: bool,
    others: bool,
}

fn survey(conn: &Connection) -> rusqlite::Result<Tables> {
    conn.query_row(
        "SELECT count(*) FILTER (WHERE name = 'wk_meta'), count(*) FILTER (WHERE name NOT LIKE 'wk\\_%' ESCAPE '\\') \
         FROM sqlite_schema",
        [],
        |row| Ok(Tables { ours: row.get::<_, i64>(0)? > 0, others: row.get::<_, i64>(1)? > 0 }),
    )
}

fn writable(conn: &Connection, path: &Path) -> Result<()> {
    if conn.is_readonly("main")? { Err(Reason::ReadOnly { path: path.to_owned() }.into()) } else { Ok(()) }
}

fn identify(conn: &Connection, path: &Path) -> Result<Identity> {
    let format: Option<i64> = meta(conn, "format").map_err(|error| unreadable(path, error))?;
    match format {
        Some(FORMAT) => {}
        Some(found) if found > FORMAT => {
            return Err(Reason::NewerFormat { path: path.to_owned(), found, known: FORMAT }.into());
        }
        _ => return Err(foreign(path, "its table wk_meta names no format").into()),
    }
    let damaged = |what: &str| Error::from(Reason::Corrupt { what: what.to_owned() });
    let id: Option<String> = meta(conn, "store")?;
    let durability: Option<String> = meta(conn, "durability")?;
    let id = id.and_then(|id| id.parse().ok()).ok_or_else(|| damaged("wk_meta has no store id"))?;
    let durability = [Durability::Full, Durability::Relaxed]
        .into_iter()
        .find(|known| durability.as_deref() == Some(known.as_str()))
        .ok_or_else(|| damaged("wk_meta names no durability"))?;
    Ok(Identity { id, durability })
}

fn meta<T: rusqlite::types::FromSql>(conn: &Connection, name: &str) -> rusqlite::Result<Option<T>> {
    conn.query_row("SELECT value FROM wk_meta WHERE name = ?1", [name], |row| row.get(0)).optional()
}

fn agree(identity: Identity, options: &Options) -> Result<Identity> {
    match options.durability {
        Some(wanted) if wanted != identity.durability => {
            let (is, wanted) = (identity.durability.as_str(), wanted.as_str());
            let what = format!(
                "the file was made with {is} durability, it cannot be opened with {wanted}; leave the option out, or export into a new file"
            );
            Err(Reason::Invalid { what }.into())
        }
        _ => Ok(identity),
    }
}

fn create(conn: &mut Connection, whole_file: bool, options: &Options) -> Result<()> {
    if whole_file {
        // Decided now, since later it would need a VACUUM.
        conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    }
    // The new file's name, its header and its tables are on the disk before anybody relies on them.
    conn.execute_batch("PRAGMA synchronous = FULL")?;
    connection::write_ahead(conn)?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster.
    if !survey(&tx)?.ours {
        tx.execute_batch(TABLES)?;
        let mut set = tx.prepare("INSERT INTO wk_meta (name, value) VALUES (?1, ?2)")?;
        set.execute(params!["format", FORMAT])?;
        set.execute(params!["store", StoreId::random().as_str()])?;
        set.execute(params!["durability", options.durability.unwrap_or_default().as_str()])?;
        set.execute(params!["trimmed", 0])?;
        drop(set);
        retention::write(&tx, &options.retention.unwrap_or_default())?;
        if whole_file {
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
            tx.pragma_update(None, "user_version", FORMAT)?;
        }
    }
    tx.commit()?;
    Ok(())
}

/// Only its owner reads and writes a new file; SQLite gives its companions the same rights.
#[cfg(unix)]
fn restrict(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(|cause| {
        Reason::Io { what: format!("the rights of {path:?} could not be set"), cause }.into()
    })
}

#[cfg(not(unix))]
fn restrict(_: &Path) -> Result<()> {
    Ok(())
}

fn foreign(path: &Path, what: &str) -> Reason {
    Reason::ForeignFile { path: path.to_owned(), what: format!("{what}; name another file") }
}

fn unreadable(path: &Path, error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => foreign(path, "it is not an SQLite file").into(),
        _ => cannot_open(path, error),
    }
}

fn cannot_open(path: &Path, error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            Reason::ReadOnly { path: path.to_owned() }.into()
        }
        _ => error.into(),
    }
}

/// How connections to a file of this durability sync; a private one never does.
pub(super) fn sync_of(durability: Durability, private: bool) -> Sync {
    match durability {
        _ if private => Sync::Off,
        Durability::Full => Sync::Full,
        Durability::Relaxed => Sync::Normal,
    }
}
