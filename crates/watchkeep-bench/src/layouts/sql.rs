//! The layouts, and their statements: each does what the library's does, in as many steps.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// How the entries of a store lie in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A table by rowid, and an index that leads to it.
    Rowid,
    /// Rows in the key's own tree.
    Clustered,
    /// The same, but a value of more than so many bytes lies in a table by revision. Reads follow it by a join, or by a
    /// second statement where a row has no value.
    Apart { above: usize, join: bool },
}

impl Layout {
    /// Whether a value of this size lies in the other table.
    pub(super) fn is_apart(self, size: usize) -> bool {
        matches!(self, Layout::Apart { above, .. } if size > above)
    }
}

impl Display for Layout {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Layout::Rowid => f.write_str("rowid"),
            Layout::Clustered => f.write_str("clustered"),
            Layout::Apart { above, join: false } => write!(f, "apart-{above}"),
            Layout::Apart { above, join: true } => write!(f, "apart-{above}-join"),
        }
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Layout, String> {
        let (above, join) = match text {
            "rowid" => return Ok(Layout::Rowid),
            "clustered" => return Ok(Layout::Clustered),
            text => text.strip_suffix("-join").map_or((text, false), |text| (text, true)),
        };
        let above = above.strip_prefix("apart-").and_then(|bytes| bytes.parse().ok());
        let wanted = || "rowid, clustered, apart-BYTES or apart-BYTES-join is wanted".to_owned();
        above.map(|above| Layout::Apart { above, join }).ok_or_else(wanted)
    }
}

pub(super) const GROUP: &str = "SELECT id, keys, bytes FROM groups WHERE name = ?1";
pub(super) const ADD: &str = "UPDATE groups SET keys = keys + ?2, bytes = bytes + ?3 WHERE id = ?1";
/// Where a value lies apart.
pub(super) const LARGE: &str = "SELECT value FROM large WHERE id = ?1";
pub(super) const INSERT_LARGE: &str = "INSERT INTO large (id, value) VALUES (?1, ?2)";
pub(super) const REMOVE_LARGE: &str = "DELETE FROM large WHERE id = ?1";
/// The last key of the next step of a sweep.
pub(super) const STEP: &str = "SELECT key FROM entries WHERE group_id = ?1 ORDER BY key LIMIT 1 OFFSET ?2";
pub(super) const SWEEP_LARGE: &str = "DELETE FROM large WHERE id IN \
     (SELECT revision FROM entries WHERE group_id = ?1 AND (?2 IS NULL OR key <= ?2) AND large IS NOT NULL)";
pub(super) const SWEEP_TO: &str = "DELETE FROM entries WHERE group_id = ?1 AND key <= ?2";
pub(super) const SWEEP_REST: &str = "DELETE FROM entries WHERE group_id = ?1";
pub(super) const SWEEP_ROWIDS: &str =
    "DELETE FROM entries WHERE rowid IN (SELECT rowid FROM entries WHERE group_id = ?1 LIMIT ?2)";

/// The statements that differ.
#[derive(Debug, Clone)]
pub(super) struct Sql {
    pub(super) tables: String,
    pub(super) find: &'static str,
    pub(super) insert: &'static str,
    pub(super) update: &'static str,
    pub(super) get: String,
    pub(super) scan: String,
    pub(super) keys: String,
}

impl Sql {
    pub(super) fn of(layout: Layout) -> Sql {
        let (size, joined, more, from) = match layout {
            Layout::Apart { join: true, .. } => (
                "coalesce(e.large, octet_length(e.value))",
                ", l.value",
                " LEFT JOIN large l ON l.id = iif(e.large IS NULL, NULL, e.revision)",
                "large INTEGER, more BLOB, value",
            ),
            Layout::Apart { join: false, .. } => {
                ("coalesce(e.large, octet_length(e.value))", "", "", "large INTEGER, more BLOB, value")
            }
            Layout::Clustered => ("octet_length(e.value)", "", "", "more BLOB, value NOT NULL"),
            Layout::Rowid => ("octet_length(e.value)", "", "", "value NOT NULL"),
        };
        let (key, end) = match layout {
            Layout::Rowid => ("UNIQUE (group_id, key)", ""),
            _ => ("PRIMARY KEY (group_id, key)", " WITHOUT ROWID"),
        };
        // Only the two statements of an apart get need the revision.
        let second =
            if matches!(layout, Layout::Apart { join: false, .. }) { ", e.revision" } else { joined };
        let range = "e.key > ?2 AND (e.deadline IS NULL OR e.deadline > ?3) ORDER BY e.key LIMIT ?4";
        let rest = "e.revision, e.created, e.updated, e.deadline, e.content_type";
        let entries = "FROM groups g JOIN entries e ON e.group_id = g.id";
        Sql {
            tables: format!(
                "CREATE TABLE groups (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, keys INTEGER NOT NULL, \
                     bytes INTEGER NOT NULL);
                 CREATE TABLE entries (group_id INTEGER NOT NULL, key TEXT NOT NULL, revision INTEGER NOT NULL, \
                     created INTEGER NOT NULL, updated INTEGER NOT NULL, deadline INTEGER, content_type TEXT, {from}, \
                     {key}){end};
                 CREATE INDEX deadlines ON entries (deadline, group_id) WHERE deadline IS NOT NULL;
                 CREATE TABLE large (id INTEGER PRIMARY KEY, value NOT NULL);"
            ),
            find: match layout {
                Layout::Rowid => "SELECT revision, deadline, octet_length(value), rowid FROM entries \
                     WHERE group_id = ?1 AND key = ?2",
                Layout::Clustered => "SELECT revision, deadline, octet_length(value) FROM entries \
                     WHERE group_id = ?1 AND key = ?2",
                Layout::Apart { .. } => "SELECT revision, deadline, coalesce(large, octet_length(value)) FROM entries \
                     WHERE group_id = ?1 AND key = ?2",
            },
            insert: match layout {
                Layout::Apart { .. } => "INSERT INTO entries (group_id, key, revision, created, updated, value, large) \
                     VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?6)",
                _ => "INSERT INTO entries (group_id, key, revision, created, updated, value) \
                     VALUES (?1, ?2, ?3, ?3, ?4, ?5)",
            },
            update: match layout {
                Layout::Rowid => "UPDATE entries SET revision = ?2, updated = ?3, deadline = ?4, content_type = ?5, \
                     value = ?6 WHERE rowid = ?1",
                Layout::Clustered => "UPDATE entries SET revision = ?2, updated = ?3, deadline = ?4, content_type = ?5, \
                     value = ?6 WHERE group_id = ?1 AND key = ?7",
                Layout::Apart { .. } => "UPDATE entries SET revision = ?2, updated = ?3, deadline = ?4, \
                     content_type = ?5, value = ?6, large = ?8 WHERE group_id = ?1 AND key = ?7",
            },
            get: format!("SELECT e.value, e.deadline{second} {entries}{more} WHERE g.name = ?1 AND e.key = ?2"),
            scan: format!("SELECT e.key, e.value, {rest}{joined} {entries}{more} WHERE g.name = ?1 AND {range}"),
            keys: format!("SELECT e.key, {size}, {rest} {entries} WHERE g.name = ?1 AND {range}"),
        }
    }
}
