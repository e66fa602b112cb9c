//! Looking the file over: SQLite's own check, then ours, in one read transaction.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use crate::types::error::{Error, ErrorKind, Reason, Result};
use crate::types::event::Kind;
use crate::types::limits::PAGE_ENTRIES;
use crate::types::name::namespace_of;
use crate::types::revision::Revision;

use super::log;

/// More than this many problems of one sort say nothing new.
const MOST: usize = 20;

const GROUPS: &str = "
SELECT g.name, g.keys, g.bytes,
       (SELECT count(*) FROM wk_entries e WHERE e.group_id = g.id),
       (SELECT coalesce(sum(octet_length(e.key) + octet_length(e.value)), 0) FROM wk_entries e WHERE e.group_id = g.id)
FROM wk_groups g";
const NAMESPACES: &str = "SELECT name, keys, groups, bytes FROM wk_namespaces";
const ORPHANS: &str = "SELECT count(*) FROM wk_entries e WHERE NOT EXISTS (SELECT 1 FROM wk_groups g WHERE g.id = e.group_id) \
     AND NOT EXISTS (SELECT 1 FROM wk_dead d WHERE d.group_id = e.group_id)";
const NEWEST: &str = "SELECT g.name, e.key, e.revision, l.kind, l.group_name, l.key, l.value = e.value \
     FROM wk_entries e JOIN wk_groups g ON g.id = e.group_id LEFT JOIN wk_log l ON l.revision = e.revision \
     WHERE e.revision > ?1";

/// What is wrong, and how many entries, groups and events were looked at.
pub(super) fn check(conn: &Connection) -> Result<(Vec<String>, [u64; 3])> {
    conn.execute_batch("BEGIN")?;
    let mut problems = Vec::new();
    let checked = all(conn, &mut problems);
    let ended = conn.execute_batch("COMMIT");
    match checked {
        Ok(counts) => ended.map(|()| (problems, counts)).map_err(Error::from),
        // What was found so far explains why the rest could not be read.
        Err(error) if error.kind() == ErrorKind::Corrupt || !problems.is_empty() => {
            problems.push(damage(&error));
            Ok((problems, [0; 3]))
        }
        Err(error) => Err(error),
    }
}

/// What is damaged, without the advice to check.
fn damage(error: &Error) -> String {
    match error.reason() {
        Reason::Corrupt { what } => what.clone(),
        Reason::CorruptFile(cause) => format!("SQLite: {cause}"),
        _ => error.to_string(),
    }
}

fn all(conn: &Connection, problems: &mut Vec<String>) -> Result<[u64; 3]> {
    let mut integrity = conn.prepare("PRAGMA integrity_check(20)")?;
    let mut rows = integrity.query([])?;
    while let Some(row) = rows.next()? {
        let line: String = row.get(0)?;
        if line != "ok" {
            problems.push(format!("SQLite: {line}"));
        }
    }
    let groups = groups(conn, problems)?;
    let entries = entries(conn, problems)?;
    let events = events(conn, problems)?;
    Ok([entries, groups, events])
}

/// Adds a problem, unless enough of its sort are there.
fn add(problems: &mut Vec<String>, sort: &str, what: impl FnOnce() -> String) {
    if problems.iter().filter(|problem| problem.starts_with(sort)).count() < MOST {
        problems.push(format!("{sort} {}", what()));
    }
}

/// The groups' counters against their entries, and the namespaces' against those.
fn groups(conn: &Connection, problems: &mut Vec<String>) -> Result<u64> {
    let mut number = 0;
    let mut namespaces: BTreeMap<String, [[i64; 3]; 2]> = BTreeMap::new();
    let mut statement = conn.prepare(GROUPS)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        number += 1;
        let name: String = row.get(0)?;
        let (keys, bytes): (i64, i64) = (row.get(1)?, row.get(2)?);
        let (real_keys, real_bytes): (i64, i64) = (row.get(3)?, row.get(4)?);
        if (keys, bytes) != (real_keys, real_bytes) || real_keys == 0 {
            add(problems, "group", || {
                format!("{name:?} counts {keys} keys and {bytes} bytes, it has {real_keys} and {real_bytes}")
            });
        }
        if let Some(namespace) = namespace_of(&name) {
            let [_, [all_keys, all_groups, all_bytes]] = namespaces.entry(namespace.to_owned()).or_default();
            (*all_keys, *all_groups, *all_bytes) = (*all_keys + keys, *all_groups + 1, *all_bytes + bytes);
        }
    }
    let mut statement = conn.prepare(NAMESPACES)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let [counted, _] = namespaces.entry(row.get(0)?).or_default();
        *counted = [row.get(1)?, row.get(2)?, row.get(3)?];
    }
    for (name, [counted, real]) in namespaces {
        if counted != real {
            add(problems, "namespace", || {
                format!("{name:?} counts keys, groups, bytes as {counted:?}, its groups have {real:?}")
            });
        }
    }
    Ok(number)
}

/// Every entry belongs to a group, and its revision is that of the event that wrote it, where the log has it.
fn entries(conn: &Connection, problems: &mut Vec<String>) -> Result<u64> {
    let orphans: i64 = conn.query_row(ORPHANS, [], |row| row.get(0))?;
    if orphans > 0 {
        problems.push(format!("{orphans} entries belong to no group"));
    }
    let last = log::end(conn)?.0;
    let mut statement = conn.prepare(NEWEST)?;
    let mut rows = statement.query(params![log::trimmed(conn)?.as_i64()])?;
    while let Some(row) = rows.next()? {
        let (group, key, revision): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let kind: Option<i64> = row.get(3)?;
        let same_place = row.get::<_, Option<String>>(4)?.as_ref() == Some(&group)
            && row.get::<_, Option<String>>(5)?.as_ref() == Some(&key);
        let same_value = row.get::<_, Option<bool>>(6)?.unwrap_or(false);
        if kind != Some(Kind::Set.code()) || !same_place || !same_value || revision > last.as_i64() {
            add(problems, "entry", || {
                format!("{group:?} {key:?} is not what revision {revision} of the log wrote")
            });
        }
    }
    let entries: i64 = conn.query_row("SELECT count(*) FROM wk_entries", [], |row| row.get(0))?;
    super::columns::count(entries)
}

/// Every row of the log has its checksum, revisions have no gap, and commits end where they say.
fn events(conn: &Connection, problems: &mut Vec<String>) -> Result<u64> {
    let (trimmed, end) = (log::trimmed(conn)?, log::end(conn)?.0);
    let (mut after, mut number) = (trimmed, 0);
    let mut commit = trimmed;
    while after < end {
        let page = match log::page(conn, after, PAGE_ENTRIES) {
            Ok(page) => page,
            Err(error) => {
                // The page holds a damaged row: go on row by row, past it.
                add(problems, "log:", || damage(&error));
                after = skip(conn, after)?;
                commit = commit.max(after);
                continue;
            }
        };
        for change in &page.changes {
            number += 1;
            if Some(change.revision) != after.next() {
                add(problems, "log:", || format!("revision {} is followed by {}", after, change.revision));
            }
            let begins = after == commit;
            if change.commit < change.revision || (!begins && change.commit != commit) {
                add(problems, "log:", || {
                    format!("revision {} names the commit {}", change.revision, change.commit)
                });
            }
            commit = change.commit;
            after = change.revision;
        }
        if page.changes.is_empty() {
            break;
        }
    }
    Ok(number)
}

/// The revision of the first row after `after` that cannot be read.
fn skip(conn: &Connection, mut after: Revision) -> Result<Revision> {
    while let Ok(page) = log::page(conn, after, 1) {
        let Some(change) = page.changes.first() else { break };
        after = change.revision;
    }
    Ok(after.next().unwrap_or(after))
}
