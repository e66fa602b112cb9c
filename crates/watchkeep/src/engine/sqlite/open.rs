//! Opening: is it a file of ours, may we use it, and if it is new, what does it become.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};

use crate::types::error::{Error, Reason, Result};
use crate::types::limits::{MAX_LABEL, MIN_SQLITE};
use crate::types::options::{Durability, Options};
use crate::types::revision::{Revision, StoreId};

use super::connection::{self, Sync};
use super::epochs::{self, Home};
use super::inherited;
use super::log::Salt;
use super::place;
use super::retention;
use super::schema::{self, APPLICATION_ID, FORMAT, TABLES};
use super::seal;
use crate::engine::nesting::FileKey;

const NEEDS: &str =
    "SELECT name, value FROM wk_meta WHERE name IN ('needs_read', 'needs_write') AND trim(value) <> ''";

/// What the file says about itself.
pub(super) struct Identity {
    pub(super) id: StoreId,
    pub(super) durability: Durability,
}

/// A file that was opened.
pub(super) struct Opened {
    pub(super) conn: Connection,
    pub(super) identity: Identity,
    /// What the path led to when the connection was made.
    pub(super) file: FileKey,
}

/// Opens the file, making it ours when it is new and that is wanted.
pub(super) fn open(path: &Path, options: &Options) -> Result<Opened> {
    refuse_old_sqlite(rusqlite::version_number())?;
    refuse_long_boot_id(options.boot_id.as_deref().unwrap_or_default())?;
    let is_missing = place::inspect(path, options)?;
    if is_missing {
        place::make_private(path);
    }
    let before = FileKey::read(path).ok();
    before.as_ref().map_or(Ok(()), |file| inherited::Opened::refuse_inherited(path, file))?;
    let mut conn = connection::open(path, options.create).map_err(|error| cannot_open(path, error))?;
    let file = match before {
        Some(file) => file,
        None => FileKey::of(path)?,
    };
    let tables = survey(&conn).map_err(|error| unreadable(path, error))?;
    if tables.ours {
        writable(&conn, path)?;
        let identity = agree(trusted(&conn, path)?, options)?;
        if let Some(wanted) = options.retention
            && retention::read(&conn)? != wanted
        {
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if let Some(why) = seal::text(&tx)? {
                return Err(Reason::Sealed { why }.into());
            }
            retention::write(&tx, &wanted)?;
            tx.commit()?;
        }
        return Ok(Opened { conn, identity, file });
    }
    if tables.others && !options.adopt {
        return Err(foreign(path, "it holds the tables of something else").into());
    }
    if !options.create {
        return Err(foreign(path, "it is an empty file").into());
    }
    refuse_encoding(&conn, path)?;
    writable(&conn, path)?;
    if is_missing {
        let failed = |cause| Reason::Io { what: format!("the rights of {path:?} could not be set"), cause };
        place::restrict(path).map_err(failed)?;
    }
    create(&mut conn, path, !tables.others, options)?;
    let identity = agree(trusted(&conn, path)?, options)?;
    Ok(Opened { conn, identity, file })
}

/// Commits are lost, in rare cases, with older ones.
fn refuse_old_sqlite(number: i32) -> Result<()> {
    if number < MIN_SQLITE { Err(Reason::OldSqlite { found: rusqlite::version() }.into()) } else { Ok(()) }
}

fn refuse_long_boot_id(id: &str) -> Result<()> {
    let (what, len, limit) = ("boot id", id.len(), MAX_LABEL);
    if len > limit { Err(Reason::TooLong { what, len, limit }.into()) } else { Ok(()) }
}

/// What a file of ours says about itself, its tables being exactly those that we make.
pub(super) fn trusted(conn: &Connection, path: &Path) -> Result<Identity> {
    let identity = identify(conn, path)?;
    match schema::faults(conn)?.into_iter().next() {
        Some(what) => Err(Reason::Corrupt { what }.into()),
        None => Ok(identity),
    }
}

/// Whose tables a file holds.
pub(super) struct Tables {
    pub(super) ours: bool,
    others: bool,
}

pub(super) fn survey(conn: &Connection) -> rusqlite::Result<Tables> {
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

/// Names are compared by their bytes, which are those of UTF-8 in our ranges of names.
fn refuse_encoding(conn: &Connection, path: &Path) -> Result<()> {
    let encoding: String = conn
        .pragma_query_value(None, "encoding", |row| row.get(0))
        .map_err(|error| unreadable(path, error))?;
    match encoding.as_str() {
        "UTF-8" => Ok(()),
        other => Err(foreign(path, &format!("its texts are {other}, and those of a store UTF-8")).into()),
    }
}

fn identify(conn: &Connection, path: &Path) -> Result<Identity> {
    refuse_encoding(conn, path)?;
    let format: Option<i64> = meta(conn, "format").map_err(|error| unreadable(path, error))?;
    match format {
        Some(FORMAT) => {}
        Some(found) if found > FORMAT => {
            return Err(Reason::NewerFormat { path: path.to_owned(), found, known: FORMAT }.into());
        }
        _ => return Err(foreign(path, "its table wk_meta names no format").into()),
    }
    if let Some(newer) = newer_feature(conn, path)? {
        return Err(newer.into());
    }
    let damaged = |what: &str| Error::from(Reason::Corrupt { what: what.to_owned() });
    let id = identity(conn)?;
    let durability: Option<String> = meta(conn, "durability")?;
    let durability = [Durability::Full, Durability::Relaxed]
        .into_iter()
        .find(|known| durability.as_deref() == Some(known.as_str()))
        .ok_or_else(|| damaged("wk_meta names no durability"))?;
    Salt::read(conn)?;
    Ok(Identity { id, durability })
}

/// What a newer release put into the file, by name: who does not know a word of `needs_read` would read it wrong, of
/// `needs_write` write it wrong, and a store is always opened to be written. Looked at before the tables, of which it may
/// have more.
pub(super) fn newer_feature(conn: &Connection, path: &Path) -> Result<Option<Reason>> {
    let mut statement = conn.prepare_cached(NEEDS)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (name, words): (String, String) = (row.get(0)?, row.get(1)?);
        let is_known = |word: &&str| name == "needs_write" && *word == seal::NAME;
        if let Some(word) = words.split_whitespace().find(|word| !is_known(word)) {
            return Ok(Some(Reason::NewerFeature { path: path.to_owned(), word: word.to_owned() }));
        }
    }
    Ok(None)
}

/// Which store it is.
pub(super) fn identity(conn: &Connection) -> Result<StoreId> {
    let id: Option<String> = meta(conn, "store")?;
    let missing = || Reason::Corrupt { what: "wk_meta has no store id".to_owned() };
    Ok(id.and_then(|id| id.parse().ok()).ok_or_else(missing)?)
}

fn meta<T: rusqlite::types::FromSql>(conn: &Connection, name: &str) -> rusqlite::Result<Option<T>> {
    conn.prepare_cached("SELECT value FROM wk_meta WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
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

fn create(conn: &mut Connection, path: &Path, whole_file: bool, options: &Options) -> Result<()> {
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
        make(&tx, whole_file, options, &Home::of(path, options.boot_id.as_deref()))?;
    }
    tx.commit()?;
    Ok(())
}

/// Makes the tables, and says what the file is.
pub(super) fn make(conn: &Connection, whole_file: bool, options: &Options, home: &Home) -> Result<()> {
    conn.execute_batch(TABLES)?;
    let mut set = conn.prepare("INSERT INTO wk_meta (name, value) VALUES (?1, ?2)")?;
    set.execute(params!["format", FORMAT])?;
    set.execute(params!["store", StoreId::random()?.as_str()])?;
    set.execute(params!["durability", options.durability.unwrap_or_default().as_str()])?;
    set.execute(params!["salt", Salt::random()?.number()])?;
    set.execute(params!["trimmed", 0])?;
    set.execute(params!["needs_read", ""])?;
    set.execute(params!["needs_write", ""])?;
    drop(set);
    epochs::add(conn, home, Revision::ZERO)?;
    retention::write(conn, &options.retention.unwrap_or_default())?;
    if whole_file {
        conn.pragma_update(None, "application_id", APPLICATION_ID)?;
        conn.pragma_update(None, "user_version", FORMAT)?;
    }
    Ok(())
}

pub(super) fn foreign(path: &Path, what: &str) -> Reason {
    Reason::ForeignFile { path: path.to_owned(), what: format!("{what}; name another file") }
}

pub(super) fn unreadable(path: &Path, error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => foreign(path, "it is not an SQLite file").into(),
        _ => cannot_open(path, error),
    }
}

pub(super) fn cannot_open(path: &Path, error: rusqlite::Error) -> Error {
    let folder = place::folder_of(path);
    let denied = || {
        let companions = [place::WAL, place::INDEX, place::JOURNAL].map(|suffix| place::beside(path, suffix));
        let locked = |path: &Path| place::is_there(path) && !place::may_write(path);
        std::iter::once(path.to_owned())
            .chain(companions)
            .find(|path| locked(path))
            .or_else(|| (locked(folder) || place::is_read_only(folder)).then(|| path.to_owned()))
    };
    match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            Reason::ReadOnly { path: path.to_owned() }.into()
        }
        Some(ErrorCode::CannotOpen) => match denied() {
            Some(path) => Reason::ReadOnly { path }.into(),
            None => Reason::CannotOpen { path: path.to_owned(), cause: error }.into(),
        },
        _ => error.into(),
    }
}

/// How connections to a file of this durability sync.
pub(super) fn sync_of(durability: Durability) -> Sync {
    match durability {
        Durability::Full => Sync::Full,
        Durability::Relaxed => Sync::Normal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sqlite_inside_is_young_enough_and_an_older_one_is_refused() {
        assert!(refuse_old_sqlite(rusqlite::version_number()).is_ok(), "{}", rusqlite::version());
        assert!(refuse_old_sqlite(3_051_002).is_err());
    }
}
