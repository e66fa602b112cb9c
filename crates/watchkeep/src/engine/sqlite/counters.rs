//! Groups and their counters, and those of the namespaces: kept by every write, so that a group is counted, and
//! deleted, at constant cost.

use rusqlite::{Connection, OptionalExtension, params};

use crate::types::error::Result;
use crate::types::name::namespace_of;
use crate::types::quota::Usage;
use crate::types::revision::Revision;

use super::columns::count;

const GROUP: &str = "SELECT id, keys, bytes FROM wk_groups WHERE name = ?1";
const CREATE: &str = "INSERT INTO wk_groups (id, name, keys, bytes) VALUES (?1, ?2, 0, 0)";
const ADD: &str = "UPDATE wk_groups SET keys = keys + ?2, bytes = bytes + ?3 WHERE id = ?1";
const DROP: &str = "DELETE FROM wk_groups WHERE id = ?1";
const BURY: &str = "INSERT INTO wk_dead (group_id) VALUES (?1)";
const USAGE: &str = "SELECT keys, groups, bytes FROM wk_namespaces WHERE name = ?1";
const ADD_USAGE: &str = "INSERT INTO wk_namespaces (name, keys, groups, bytes) VALUES (?1, ?2, ?3, ?4) \
     ON CONFLICT (name) DO UPDATE SET keys = keys + ?2, groups = groups + ?3, bytes = bytes + ?4";
const DROP_USAGE: &str = "DELETE FROM wk_namespaces WHERE name = ?1 AND groups = 0";

/// A group's row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub(super) id: i64,
    pub(super) keys: i64,
    pub(super) bytes: i64,
}

impl Usage {
    pub(super) fn plus(self, keys: i64, groups: i64, bytes: i64) -> Usage {
        Usage {
            keys: self.keys.saturating_add_signed(keys),
            groups: self.groups.saturating_add_signed(groups),
            bytes: self.bytes.saturating_add_signed(bytes),
        }
    }
}

/// The counters, inside a write transaction.
pub(super) struct Counters<'c> {
    pub(super) conn: &'c Connection,
}

impl Counters<'_> {
    pub(super) fn group(&self, name: &str) -> Result<Option<Group>> {
        let mut statement = self.conn.prepare_cached(GROUP)?;
        let row =
            |row: &rusqlite::Row<'_>| Ok(Group { id: row.get(0)?, keys: row.get(1)?, bytes: row.get(2)? });
        Ok(statement.query_row([name], row).optional()?)
    }

    /// A new group, for the event of this revision, which is its id: never used before, never again.
    pub(super) fn create(&self, name: &str, revision: Revision) -> Result<Group> {
        let group = Group { id: revision.as_i64(), keys: 0, bytes: 0 };
        self.conn.prepare_cached(CREATE)?.execute(params![group.id, name])?;
        self.add_usage(name, 0, 1, 0)?;
        Ok(group)
    }

    /// Counts a change of a group's entries; the group goes with its last key.
    pub(super) fn add(&self, group: &Group, name: &str, keys: i64, bytes: i64) -> Result<()> {
        if keys == 0 && bytes == 0 {
            return Ok(());
        }
        if group.keys + keys == 0 {
            self.conn.prepare_cached(DROP)?.execute([group.id])?;
            return self.add_usage(name, keys, -1, bytes);
        }
        self.conn.prepare_cached(ADD)?.execute(params![group.id, keys, bytes])?;
        self.add_usage(name, keys, 0, bytes)
    }

    /// Removes a group's row at constant cost; its entries are swept later.
    pub(super) fn bury(&self, group: &Group, name: &str) -> Result<()> {
        self.conn.prepare_cached(DROP)?.execute([group.id])?;
        self.conn.prepare_cached(BURY)?.execute([group.id])?;
        self.add_usage(name, -group.keys, -1, -group.bytes)
    }

    pub(super) fn usage(&self, namespace: &str) -> Result<Usage> {
        let mut statement = self.conn.prepare_cached(USAGE)?;
        let row: Option<(i64, i64, i64)> =
            statement.query_row([namespace], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
        let (keys, groups, bytes) = row.unwrap_or_default();
        Ok(Usage { keys: count(keys)?, groups: count(groups)?, bytes: count(bytes)? })
    }

    fn add_usage(&self, group: &str, keys: i64, groups: i64, bytes: i64) -> Result<()> {
        let Some(namespace) = namespace_of(group) else { return Ok(()) };
        self.conn.prepare_cached(ADD_USAGE)?.execute(params![namespace, keys, groups, bytes])?;
        if groups < 0 {
            self.conn.prepare_cached(DROP_USAGE)?.execute([namespace])?;
        }
        Ok(())
    }
}
