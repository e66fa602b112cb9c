//! Groups and their counters, and those of the namespaces with their quotas: kept by every write, so that a group is
//! counted, and deleted, at constant cost.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::rules::{GroupAndRoom, GroupRow, Room};
use crate::types::error::{Reason, Result};
use crate::types::name::{NameRange, namespace_of};
use crate::types::quota::{Quota, Usage};

use super::columns::count;

const GROUP: &str = "SELECT flags, id, keys, bytes FROM wk_groups WHERE name = ?1";
const CREATE: &str = "INSERT INTO wk_groups (id, name, keys, bytes) VALUES (?1, ?2, 0, 0)";
const ADD: &str = "UPDATE wk_groups SET keys = keys + ?2, bytes = bytes + ?3 WHERE name = ?1";
const DROP: &str = "DELETE FROM wk_groups WHERE name = ?1";
const BURY: &str = "INSERT INTO wk_dead (group_id) VALUES (?1)";
pub(super) const NEWER: &str = "SELECT flags FROM wk_groups WHERE name = ?1 AND flags <> 0";
const GROUPS: &str =
    "SELECT name FROM wk_groups WHERE name >= ?1 AND (?2 IS NULL OR name < ?2) ORDER BY name";
/// A group, there or not, with the counters and the quota of its namespace, where that has one.
const GROUP_AND_ROOM: &str = "SELECT g.flags, g.id, g.keys, g.bytes, n.keys, n.groups, n.bytes, n.max_keys, n.max_groups, n.max_bytes \
     FROM (SELECT 1) LEFT JOIN wk_groups g ON g.name = ?1 \
     LEFT JOIN wk_namespaces n ON n.name = ?2 AND (n.max_keys, n.max_groups, n.max_bytes) <> (0, 0, 0)";
const ADD_USAGE: &str = "INSERT INTO wk_namespaces (name, keys, groups, bytes) VALUES (?1, ?2, ?3, ?4) \
     ON CONFLICT (name) DO UPDATE SET keys = keys + ?2, groups = groups + ?3, bytes = bytes + ?4";
/// A namespace goes with its last group, unless it has a quota.
pub(super) const DROP_USAGE: &str = "DELETE FROM wk_namespaces \
     WHERE name = ?1 AND groups = 0 AND (max_keys, max_groups, max_bytes) = (0, 0, 0)";
const QUOTA: &str = "SELECT max_keys, max_groups, max_bytes FROM wk_namespaces WHERE name = ?1";
const QUOTAS: &str = "SELECT name, max_keys, max_groups, max_bytes FROM wk_namespaces \
     WHERE (max_keys, max_groups, max_bytes) <> (0, 0, 0) ORDER BY name";
/// SQLite writes no page for a row that is as it was.
const SET_QUOTA: &str = "INSERT INTO wk_namespaces (name, keys, groups, bytes, max_keys, max_groups, max_bytes) \
     VALUES (?1, 0, 0, 0, ?2, ?3, ?4) \
     ON CONFLICT (name) DO UPDATE SET max_keys = ?2, max_groups = ?3, max_bytes = ?4";

/// A group, by its id.
type Group = GroupRow<i64>;

pub(super) fn group(conn: &Connection, name: &str) -> Result<Option<Group>> {
    let mut statement = conn.prepare_cached(GROUP)?;
    let mut rows = statement.query([name])?;
    rows.next()?.map(|row| read_group(row, name)).transpose()
}

/// Four columns, from the first on: a group that this release knows how to write in.
fn read_group(row: &Row<'_>, name: &str) -> Result<Group> {
    refuse_newer(name, row.get(0)?)?;
    Ok(Group { id: row.get(1)?, keys: row.get(2)?, bytes: row.get(3)? })
}

/// Refuses a group that a newer release made: whoever does not know what its flags mean would leave it wrong.
pub(super) fn refuse_newer(name: &str, flags: i64) -> Result<()> {
    if flags == 0 { Ok(()) } else { Err(Reason::NewerGroup { group: name.to_owned(), flags }.into()) }
}

/// The same where nothing else is asked of the group.
pub(super) fn refuse_newer_group(conn: &Connection, name: &str) -> Result<()> {
    let flags: Option<i64> = conn.prepare_cached(NEWER)?.query_row([name], |row| row.get(0)).optional()?;
    flags.map_or(Ok(()), |flags| refuse_newer(name, flags))
}

/// A group and, in the same statement, the room in its namespace; none where nothing limits it.
pub(super) fn group_and_room(conn: &Connection, name: &str, namespace: &str) -> Result<GroupAndRoom<i64>> {
    let mut statement = conn.prepare_cached(GROUP_AND_ROOM)?;
    let mut rows = statement.query([name, namespace])?;
    let Some(row) = rows.next()? else { return Ok((None, None)) };
    let group = match row.get::<_, Option<i64>>(0)? {
        Some(_) => Some(read_group(row, name)?),
        None => None,
    };
    let room = match row.get(4)? {
        Some(keys) => Some(Room {
            usage: Usage { keys: count(keys)?, groups: count(row.get(5)?)?, bytes: count(row.get(6)?)? },
            quota: read_quota(row, 7)?,
        }),
        None => None,
    };
    Ok((group, room))
}

pub(super) fn groups(conn: &Connection, names: &NameRange) -> Result<Vec<String>> {
    let mut statement = conn.prepare_cached(GROUPS)?;
    let rows = statement.query_map(params![names.lower(), names.to], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn create(conn: &Connection, name: &str, id: i64) -> Result<Group> {
    let group = Group { id, keys: 0, bytes: 0 };
    conn.prepare_cached(CREATE)?.execute(params![group.id, name])?;
    add_usage(conn, name, 0, 1, 0)?;
    Ok(group)
}

pub(super) fn add(conn: &Connection, group: &Group, name: &str, keys: i64, bytes: i64) -> Result<()> {
    if keys != 0 && group.keys + keys == 0 {
        conn.prepare_cached(DROP)?.execute([name])?;
        return add_usage(conn, name, keys, -1, bytes);
    }
    add_to(conn, name, keys, bytes)
}

/// To a group that stays.
pub(super) fn add_to(conn: &Connection, name: &str, keys: i64, bytes: i64) -> Result<()> {
    if keys == 0 && bytes == 0 {
        return Ok(());
    }
    conn.prepare_cached(ADD)?.execute(params![name, keys, bytes])?;
    add_usage(conn, name, keys, 0, bytes)
}

/// Removes a group's row at constant cost; its entries are swept later.
pub(super) fn bury(conn: &Connection, group: &Group, name: &str) -> Result<()> {
    conn.prepare_cached(DROP)?.execute([name])?;
    conn.prepare_cached(BURY)?.execute([group.id])?;
    add_usage(conn, name, -group.keys, -1, -group.bytes)
}

pub(super) fn set_quota(conn: &Connection, namespace: &str, quota: Quota) -> Result<()> {
    let [keys, groups, bytes] = [quota.max_keys, quota.max_groups, quota.max_bytes]
        .map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
    conn.prepare_cached(SET_QUOTA)?.execute(params![namespace, keys, groups, bytes])?;
    conn.prepare_cached(DROP_USAGE)?.execute([namespace])?;
    Ok(())
}

fn add_usage(conn: &Connection, group: &str, keys: i64, groups: i64, bytes: i64) -> Result<()> {
    let Some(namespace) = namespace_of(group) else { return Ok(()) };
    conn.prepare_cached(ADD_USAGE)?.execute(params![namespace, keys, groups, bytes])?;
    if groups < 0 {
        conn.prepare_cached(DROP_USAGE)?.execute([namespace])?;
    }
    Ok(())
}

/// The quota of a namespace, if it has one.
pub(super) fn quota(conn: &Connection, namespace: &str) -> Result<Option<Quota>> {
    let mut statement = conn.prepare_cached(QUOTA)?;
    let mut rows = statement.query([namespace])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(read_quota(row, 0)?).filter(Quota::limits))
}

/// The namespaces that have one.
pub(super) fn quotas(conn: &Connection) -> Result<Vec<(String, Quota)>> {
    let mut statement = conn.prepare_cached(QUOTAS)?;
    let (mut rows, mut quotas) = (statement.query([])?, Vec::new());
    while let Some(row) = rows.next()? {
        quotas.push((row.get(0)?, read_quota(row, 1)?));
    }
    Ok(quotas)
}

/// Three columns, from this one on.
fn read_quota(row: &Row<'_>, first: usize) -> Result<Quota> {
    Ok(Quota {
        max_keys: count(row.get(first)?)?,
        max_groups: count(row.get(first + 1)?)?,
        max_bytes: count(row.get(first + 2)?)?,
    })
}
