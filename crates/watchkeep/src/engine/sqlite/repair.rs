//! Repairing what can be told from the rest: the counters, from the entries; and epochs, of which none is needed.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use crate::types::error::{Reason, Result};
use crate::types::name::namespace_of;

use super::columns::value_bytes;
use super::counters::DROP_USAGE;
use super::{check, epochs};

const GROUPS: &str = "SELECT id, name, keys, bytes, flags FROM wk_groups";
const ENTRIES: &str = concat!(
    "SELECT count(*), coalesce(sum(octet_length(e.key) + ",
    value_bytes!(),
    "), 0) FROM wk_entries e WHERE e.group_id = ?1"
);
const NAMESPACES: &str = "SELECT name, keys, groups, bytes FROM wk_namespaces";
/// A quota stays.
const SET_USAGE: &str = "INSERT INTO wk_namespaces (name, keys, groups, bytes) VALUES (?1, ?2, ?3, ?4) \
     ON CONFLICT (name) DO UPDATE SET keys = ?2, groups = ?3, bytes = ?4";

/// Rebuilds the counters of groups and namespaces, and begins the epochs anew where they are damaged, inside a write transaction; what was changed, a sentence each.
///
/// Refused when SQLite's own check finds damage: what is counted in a damaged tree is not what is there.
pub(super) fn counters(conn: &Connection) -> Result<Vec<String>> {
    let sound: String = conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if sound != "ok" {
        return Err(Reason::Corrupt { what: format!("SQLite: {sound}") }.into());
    }
    let mut changed = Vec::new();
    let namespaces = groups(conn, &mut changed)?;
    namespaces_from(conn, namespaces, &mut changed)?;
    let mut problems = Vec::new();
    check::epochs(conn, &mut problems)?;
    if !problems.is_empty() {
        epochs::begin_anew(conn)?;
        changed.push(
            "the epochs were damaged, and begin anew: every cursor that was given is refused".to_owned(),
        );
    }
    Ok(changed)
}

/// Keys, groups and bytes of a namespace.
type Sums = [i64; 3];

fn groups(conn: &Connection, changed: &mut Vec<String>) -> Result<BTreeMap<String, Sums>> {
    let mut sums: BTreeMap<String, Sums> = BTreeMap::new();
    let mut statement = conn.prepare(GROUPS)?;
    let mut entries = conn.prepare(ENTRIES)?;
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
    let groups: Vec<(i64, String, i64, i64, i64)> =
        statement.query_map([], row)?.collect::<rusqlite::Result<_>>()?;
    for (id, name, keys, bytes, flags) in groups {
        // What a newer release's counters count, it knows.
        let real: (i64, i64) = match flags {
            0 => entries.query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?,
            _ => (keys, bytes),
        };
        if real.0 == 0 && flags == 0 {
            conn.execute("DELETE FROM wk_groups WHERE id = ?1", [id])?;
            changed.push(format!("group {name:?} has no entries, and is gone"));
            continue;
        }
        if real != (keys, bytes) {
            conn.execute(
                "UPDATE wk_groups SET keys = ?2, bytes = ?3 WHERE id = ?1",
                params![id, real.0, real.1],
            )?;
            changed.push(format!(
                "group {name:?} counted {keys} keys and {bytes} bytes, now {} and {}",
                real.0, real.1
            ));
        }
        if let Some(namespace) = namespace_of(&name) {
            let [keys, groups, bytes] = sums.entry(namespace.to_owned()).or_default();
            (*keys, *groups, *bytes) = (*keys + real.0, *groups + 1, *bytes + real.1);
        }
    }
    Ok(sums)
}

fn namespaces_from(
    conn: &Connection,
    mut real: BTreeMap<String, Sums>,
    changed: &mut Vec<String>,
) -> Result<()> {
    let mut statement = conn.prepare(NAMESPACES)?;
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?]));
    let counted: BTreeMap<String, Sums> = statement.query_map([], row)?.collect::<rusqlite::Result<_>>()?;
    for name in counted.keys() {
        real.entry(name.clone()).or_default();
    }
    for (name, is) in real {
        let was = counted.get(&name).copied().unwrap_or_default();
        if was != is {
            let [keys, groups, bytes] = is;
            conn.execute(SET_USAGE, params![name, keys, groups, bytes])?;
            changed.push(format!("namespace {name:?} counted keys, groups, bytes as {was:?}, now {is:?}"));
        }
        if is == Sums::default() {
            conn.execute(DROP_USAGE, [name])?;
        }
    }
    Ok(())
}
