//! The file's tables. `docs/format.md` describes them for people with only the `sqlite3` shell.

/// Stands in the header of files that we made: "WKST".
pub(super) const APPLICATION_ID: i64 = 0x574b_5354;

/// The format's version, in `wk_meta`. A newer one is refused.
pub(super) const FORMAT: i64 = 1;

/// The tables and indices.
pub(super) const NAMES: [&str; 9] = [
    "wk_meta",
    "wk_groups",
    "wk_namespaces",
    "wk_entries",
    "wk_deadlines",
    "wk_dead",
    "wk_log",
    "wk_gaps",
    "wk_consumers",
];

/// A group's id is the revision at which it came to be, so it is never used again: `delete_group` removes the row
/// of `wk_groups` and notes the id in `wk_dead`; its entries are swept later.
pub(super) const TABLES: &str = "
CREATE TABLE wk_meta (
  name  TEXT PRIMARY KEY,
  value
) WITHOUT ROWID;

CREATE TABLE wk_groups (
  id    INTEGER PRIMARY KEY,
  name  TEXT NOT NULL UNIQUE,
  keys  INTEGER NOT NULL,
  bytes INTEGER NOT NULL
);

CREATE TABLE wk_namespaces (
  name   TEXT PRIMARY KEY,
  keys   INTEGER NOT NULL,
  groups INTEGER NOT NULL,
  bytes  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE wk_entries (
  group_id     INTEGER NOT NULL,
  key          TEXT NOT NULL,
  revision     INTEGER NOT NULL,
  created      INTEGER NOT NULL,
  updated      INTEGER NOT NULL,
  deadline     INTEGER,
  content_type TEXT,
  value        NOT NULL,
  UNIQUE (group_id, key)
);

CREATE INDEX wk_deadlines ON wk_entries (deadline, group_id) WHERE deadline IS NOT NULL;

CREATE TABLE wk_dead (
  group_id INTEGER PRIMARY KEY
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
  value
);

CREATE INDEX wk_gaps ON wk_log (revision) WHERE kind = 0;

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
