//! The file's tables. `docs/format.md` describes them for people with only the `sqlite3` shell.

use std::collections::BTreeSet;

use rusqlite::Connection;

use crate::types::error::Result;

/// Stands in the header of files that we made: "WKST".
pub(super) const APPLICATION_ID: i64 = 0x574b_5354;

/// The format's version, in `wk_meta`. A newer one is refused.
pub(super) const FORMAT: i64 = 1;

/// A group's id is the revision at which it came to be, so it is never used again: `delete_group` removes the row
/// of `wk_groups` and notes the id in `wk_dead`; its entries are swept later.
///
/// Entries lie in the order of group and key, so a group is read in one piece. A large value lies apart, under the
/// revision at which its entry came to be: in between it would make its neighbours slow to read. What a later release may add has its
/// place already (decision 0020): `flags`, `more` and `replaced`.
pub(super) const TABLES: &str = "
CREATE TABLE wk_meta (
  name  TEXT PRIMARY KEY,
  value
) WITHOUT ROWID;

CREATE TABLE wk_groups (
  id    INTEGER NOT NULL UNIQUE,
  name  TEXT PRIMARY KEY,
  keys  INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  flags INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE wk_namespaces (
  name       TEXT PRIMARY KEY,
  keys       INTEGER NOT NULL,
  groups     INTEGER NOT NULL,
  bytes      INTEGER NOT NULL,
  max_keys   INTEGER NOT NULL DEFAULT 0,
  max_groups INTEGER NOT NULL DEFAULT 0,
  max_bytes  INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE wk_entries (
  group_id     INTEGER NOT NULL,
  key          TEXT NOT NULL,
  revision     INTEGER NOT NULL,
  created      INTEGER NOT NULL,
  updated      INTEGER NOT NULL,
  deadline     INTEGER,
  content_type TEXT,
  more         BLOB,
  apart        INTEGER,
  value,
  PRIMARY KEY (group_id, key)
) WITHOUT ROWID;

CREATE TABLE wk_values (
  created INTEGER PRIMARY KEY,
  value   NOT NULL
);

CREATE INDEX wk_deadlines ON wk_entries (deadline, group_id) WHERE deadline IS NOT NULL;

CREATE TABLE wk_dead (
  group_id INTEGER PRIMARY KEY,
  flags    INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE wk_log (
  revision        INTEGER PRIMARY KEY,
  commit_revision INTEGER NOT NULL,
  kind            INTEGER NOT NULL,
  group_name      TEXT NOT NULL,
  key             TEXT,
  content_type    TEXT,
  deadline        INTEGER,
  previous        INTEGER,
  origin          TEXT,
  timestamp       INTEGER NOT NULL,
  total_bytes     INTEGER NOT NULL,
  checksum        INTEGER NOT NULL,
  more            BLOB,
  value,
  replaced
);

CREATE TABLE wk_epochs (
  ordinal INTEGER PRIMARY KEY,
  tag     TEXT NOT NULL,
  boot    TEXT,
  file    TEXT,
  floor   INTEGER NOT NULL
);

CREATE TABLE wk_answers (
  client   TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  at       INTEGER NOT NULL,
  body     INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  outcomes TEXT NOT NULL,
  PRIMARY KEY (client, sequence)
) WITHOUT ROWID;

CREATE INDEX wk_old_answers ON wk_answers (at);

CREATE TABLE wk_consumers (
  name            TEXT PRIMARY KEY,
  acked           INTEGER,
  acked_at        INTEGER,
  created         INTEGER NOT NULL,
  fence           INTEGER NOT NULL,
  holder          TEXT,
  lease_until     INTEGER,
  lease_ms        INTEGER NOT NULL,
  target          TEXT NOT NULL,
  target_group    TEXT NOT NULL,
  target_key      TEXT,
  kinds           INTEGER NOT NULL,
  group_deletions INTEGER NOT NULL,
  excluded_origin TEXT
) WITHOUT ROWID;
";

/// Everything in the file that bears a name of ours, or hangs on a table of ours, but for what SQLite adds itself.
const OURS: &str = "
SELECT type, name, tbl_name, sql FROM sqlite_schema
WHERE (name LIKE 'wk\\_%' ESCAPE '\\' OR tbl_name LIKE 'wk\\_%' ESCAPE '\\')
  AND NOT (type = 'index' AND sql IS NULL AND name LIKE 'sqlite\\_autoindex\\_%' ESCAPE '\\')";

/// What of our tables is missing, changed or added to, a sentence each. A table that is not exactly what we create may
/// do anything when it is written to or read: have a trigger, compute its columns, be a view.
pub(super) fn faults(conn: &Connection) -> Result<Vec<String>> {
    let mut wanted: BTreeSet<&str> = TABLES.split(';').map(str::trim).filter(|sql| !sql.is_empty()).collect();
    let mut faults = Vec::new();
    let mut statement = conn.prepare(OURS)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, name, table): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let sql: Option<String> = row.get(3)?;
        if !sql.is_some_and(|sql| wanted.remove(sql.as_str())) {
            let on = if table == name { String::new() } else { format!(" on {table}") };
            faults.push(format!("the {kind} {name}{on} is not one that we made"));
        }
    }
    // CREATE TABLE name, CREATE INDEX name.
    let name = |sql: &str| sql.split_whitespace().nth(2).unwrap_or_default().to_owned();
    let told = |name: &String| faults.iter().any(|fault| fault.contains(name.as_str()));
    let missing: Vec<String> = wanted.into_iter().map(name).filter(|name| !told(name)).collect();
    faults.extend(missing.into_iter().map(|name| format!("{name} is missing")));
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(more: &str) -> Result<Vec<String>> {
        let conn = Connection::open_in_memory()?;
        conn.execute_batch(TABLES)?;
        conn.execute_batch(more)?;
        faults(&conn)
    }

    #[test]
    fn what_we_make_has_no_fault_whatever_else_is_there() -> Result<()> {
        let others = "CREATE TABLE other (wk_x); CREATE VIEW v AS SELECT 1; CREATE TABLE wkmeta (x)";
        assert_eq!(made(others)?, Vec::<String>::new());
        Ok(())
    }

    #[test]
    fn what_is_changed_missing_or_added_is_a_fault() -> Result<()> {
        for (sql, fault) in [
            ("DROP INDEX wk_deadlines", "wk_deadlines is missing"),
            ("DROP TABLE wk_dead", "wk_dead is missing"),
            ("ALTER TABLE wk_dead ADD COLUMN x", "the table wk_dead"),
            ("ALTER TABLE wk_entries ADD COLUMN x AS (abs(revision))", "the table wk_entries"),
            ("CREATE TRIGGER t AFTER INSERT ON wk_log BEGIN SELECT 1; END", "the trigger t on wk_log"),
            ("CREATE INDEX i ON wk_log (key)", "the index i on wk_log"),
            ("CREATE VIEW wk_view AS SELECT 1", "the view wk_view"),
            ("DROP TABLE wk_dead; CREATE VIEW WK_dead AS SELECT 1 AS group_id", "the view WK_dead"),
        ] {
            let faults = made(sql)?;
            assert!(faults.iter().any(|found| found.starts_with(fault)), "{sql}: {faults:?}");
        }
        Ok(())
    }
}
