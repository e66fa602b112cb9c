//! A database of the original, the Go library go-store, in either of its schemas.

use std::io::Read;
use std::path::{Path, PathBuf};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};
use watchkeep::{Timestamp, Value};

use super::import::{Place, Source};
use super::render::unreadable;
use crate::exit::{BAD_FILE, FAILURE, Failure, Result};
use crate::line::Record;
use crate::output;
use crate::time::unless_never;

/// The table of each schema, the newer first, and its rows as group, key, value, expiry in Unix milliseconds.
const SCHEMAS: [(&str, &str); 2] = [
    (
        "entries",
        "SELECT group_name, entry_key, entry_value, expires_at FROM entries ORDER BY group_name, entry_key",
    ),
    ("kv", "SELECT grp, key, value, expires_at FROM kv ORDER BY grp, key"),
];

/// The old database, read as it was when it was opened.
#[derive(Debug)]
pub(super) struct GoStore {
    path: PathBuf,
    conn: Connection,
    rows: &'static str,
}

impl GoStore {
    pub(super) fn open(path: &Path) -> Result<GoStore> {
        std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        let conn = connect(path).map_err(|error| cannot_read(path, &error))?;
        let tables = tables(&conn).map_err(|error| cannot_read(path, &error))?;
        let mut found = SCHEMAS.into_iter().filter(|(table, _)| tables.iter().any(|it| it == table));
        let Some((table, rows)) = found.next() else {
            let what = format!("{path:?} is not a go-store database: it has neither a table kv nor entries");
            return Err(Failure::new(BAD_FILE, format!("{what}; name another file")));
        };
        if let Some((older, _)) = found.next() {
            output::warn(format_args!(
                "{path:?} has both schemas; only the newer table {table} is read, not {older}"
            ));
        }
        // Both looks at the rows, before and while writing, see the same.
        conn.execute_batch("BEGIN").map_err(|error| cannot_read(path, &error))?;
        conn.prepare(rows).map_err(|error| {
            let what = format!("{path:?} is not a go-store database: {error}; name another file");
            Failure::new(BAD_FILE, what)
        })?;
        Ok(GoStore { path: path.to_owned(), conn, rows })
    }
}

/// Opens the file for reading only. Where nobody uses it, SQLite is told that it stays as it is: otherwise it would
/// leave a write-ahead log and its index beside it.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match path.to_str().filter(|_| is_at_rest(path)) {
        Some(name) => {
            let name = name.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            let uri = format!("file:{name}?immutable=1");
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
        }
        None => Connection::open_with_flags(path, flags),
    }
}

/// Whether the file is in WAL mode, as its header says, and has neither log nor index: then nobody has it open.
fn is_at_rest(path: &Path) -> bool {
    let mut header = [0; 20];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
    let companion = |suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        Path::new(&name).exists()
    };
    read.is_ok() && header.ends_with(&[2, 2]) && !companion("-wal") && !companion("-shm")
}

fn tables(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut names = conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    names.query_map([], |row| row.get(0))?.collect()
}

fn cannot_read(path: &Path, error: &rusqlite::Error) -> Failure {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            Failure::new(BAD_FILE, format!("{path:?} is not an SQLite file; name another file"))
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            Failure::new(BAD_FILE, format!("{path:?} is damaged: {error}; restore a backup"))
        }
        _ => Failure::new(
            FAILURE,
            format!("{path:?} cannot be read: {error}; close what uses it, or copy it first"),
        ),
    }
}

impl Source for GoStore {
    fn each(&mut self, visit: &mut dyn FnMut(Place, Record) -> Result<()>) -> Result<()> {
        let failed = |error: rusqlite::Error| cannot_read(&self.path, &error);
        let mut statement = self.conn.prepare(self.rows).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let mut place = Place { noun: "row", number: 0 };
        while let Some(row) = rows.next().map_err(failed)? {
            place.number += 1;
            let record = record(row).map_err(|error| {
                let what = format!("{place} of {:?}, in the order of group and key: {error}", self.path);
                Failure::new(BAD_FILE, what)
            })?;
            visit(place, record)?;
        }
        Ok(())
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let value = match row.get_ref(2)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Value::from(bytes),
        ValueRef::Integer(number) => Value::from(number.to_string()),
        ValueRef::Real(number) => Value::from(number.to_string()),
        ValueRef::Null => Value::default(),
    };
    let expires: Option<i64> = row.get(3)?;
    Ok(Record {
        group: row.get(0)?,
        key: row.get(1)?,
        value,
        deadline: expires.filter(|&millis| millis != 0).map(Timestamp::from_millis).and_then(unless_never),
        content_type: None,
    })
}
