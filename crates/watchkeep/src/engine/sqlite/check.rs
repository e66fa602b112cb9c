//! Looking the file over: SQLite's own check, then ours, in one read transaction.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use crate::types::clock::Timestamp;
use crate::types::entry::Entry;
use crate::types::error::{Error, ErrorKind, Reason, Result};
use crate::types::event::{Change, Kind};
use crate::types::limits::PAGE_ENTRIES;
use crate::types::name::namespace_of;
use crate::types::revision::Revision;

use super::columns::{entry_columns, payload, read_entry, value_bytes, value_column};
use super::schema;
use super::{consumers, epochs, log, retention, seal};

/// More than this many problems of one sort say nothing new.
const MOST: usize = 20;

const GROUPS: &str = concat!(
    "SELECT g.name, g.keys, g.bytes, g.flags, (SELECT count(*) FROM wk_entries e WHERE e.group_id = g.id), \
     (SELECT coalesce(sum(octet_length(e.key) + ",
    value_bytes!(),
    "), 0) FROM wk_entries e WHERE e.group_id = g.id) FROM wk_groups g"
);
const SETTINGS: &str = "SELECT name, typeof(value) = 'integer' AND value >= 0 FROM wk_meta";
/// What stands in wk_meta as text.
const TEXTS: [&str; 5] = ["store", "durability", "needs_read", "needs_write", seal::NAME];
const NAMESPACES: &str =
    "SELECT name, keys, groups, bytes, min(max_keys, max_groups, max_bytes) FROM wk_namespaces";
const ORPHANS: &str = "SELECT count(*) FROM wk_entries e WHERE NOT EXISTS (SELECT 1 FROM wk_groups g WHERE g.id = e.group_id) \
     AND NOT EXISTS (SELECT 1 FROM wk_dead d WHERE d.group_id = e.group_id)";
const DEAD_AND_ALIVE: &str = "SELECT g.name FROM wk_groups g JOIN wk_dead d ON d.group_id = g.id";
/// Groups that a newer release made: what lies in them, it knows.
const NEWER: &str = "SELECT name FROM wk_groups WHERE flags <> 0";
const ENTRIES: &str = concat!(
    "SELECT ",
    entry_columns!(),
    ", g.name, typeof(",
    value_column!(),
    "), e.apart FROM wk_groups g JOIN wk_entries e ON e.group_id = g.id WHERE g.flags = 0"
);
/// Values that lie apart, and belong to no entry.
const LOST_VALUES: &str = "SELECT count(*) FROM wk_values \
     WHERE created NOT IN (SELECT created FROM wk_entries WHERE apart IS NOT NULL)";
/// Rows whose running total is not that of the row before plus their own weight.
const TOTALS: &str = concat!(
    "SELECT revision FROM (SELECT revision, total_bytes - lag(total_bytes) OVER (ORDER BY revision) AS grown, ",
    payload!(),
    " AS weight FROM wk_log WHERE revision > ?1) WHERE grown IS NOT NULL AND grown <> weight"
);

/// Epochs that do not come after the one before them, or begin after the log's end.
const EPOCHS: &str = "
SELECT ordinal FROM (
  SELECT ordinal, floor, lag(ordinal, 1, -1) OVER (ORDER BY ordinal) AS before,
         lag(floor, 1, 0) OVER (ORDER BY ordinal) AS least FROM wk_epochs)
WHERE ordinal <> before + 1 OR floor < least OR floor > ?1";

const SAME_EPOCHS: &str = "SELECT count(*) - count(DISTINCT tag) FROM wk_epochs";

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
    problems.append(&mut schema::faults(conn)?);
    settings(conn, problems)?;
    let groups = groups(conn, problems)?;
    let mut replay = Replay::default();
    let events = events(conn, problems, &mut replay)?;
    totals(conn, problems)?;
    let entries = entries(conn, problems, replay)?;
    consumers::check(conn, problems)?;
    epochs(conn, problems)?;
    Ok([entries, groups, events])
}

/// Adds a problem, unless enough of its sort are there.
fn add(problems: &mut Vec<String>, sort: &str, what: impl FnOnce() -> String) {
    if problems.iter().filter(|problem| problem.starts_with(sort)).count() < MOST {
        problems.push(format!("{sort} {}", what()));
    }
}

/// What is counted in wk_meta is a number, and nothing else stands there.
fn settings(conn: &Connection, problems: &mut Vec<String>) -> Result<()> {
    let mut statement = conn.prepare(SETTINGS)?;
    let mut rows = statement.query([])?;
    let mut is_trimmed = false;
    while let Some(row) = rows.next()? {
        let (name, is_number): (String, bool) = (row.get(0)?, row.get(1)?);
        is_trimmed |= name == "trimmed";
        let counts =
            ["format", "salt", "trimmed", "fences"].contains(&&*name) || retention::NAMES.contains(&&*name);
        if counts && !is_number {
            add(problems, "setting", || format!("{name:?} is no number"));
        } else if !counts && !TEXTS.contains(&&*name) {
            add(problems, "setting", || format!("{name:?} is not known"));
        }
    }
    if !is_trimmed {
        problems.push("wk_meta has no row 'trimmed'".to_owned());
    }
    Ok(())
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
        let (flags, real_keys, real_bytes): (i64, i64, i64) = (row.get(3)?, row.get(4)?, row.get(5)?);
        if flags != 0 {
            // What its counters count, a newer release knows.
        } else if (keys, bytes) == (0, 0) && real_keys == 0 {
            add(problems, "group", || format!("{name:?} is there without an entry"));
        } else if (keys, bytes) != (real_keys, real_bytes) || real_keys == 0 {
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
        let name: String = row.get(0)?;
        if row.get::<_, i64>(4)? < 0 {
            add(problems, "namespace", || format!("{name:?} has a quota below zero"));
        }
        let [counted, _] = namespaces.entry(name).or_default();
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

/// What the log says last of an entry.
#[derive(Clone, Copy)]
struct Said {
    /// The revision of its value; none when that was set before the log begins.
    revision: Option<Revision>,
    /// The revision at which the key came to be, likewise.
    created: Option<Revision>,
    deadline: Option<Timestamp>,
}

/// What the log says about entries, as far as it goes back.
#[derive(Default)]
struct Replay {
    /// The last that was said of a key; none when it went.
    keys: BTreeMap<(String, String), Option<Said>>,
    /// When a group was last deleted.
    deleted: BTreeMap<String, Revision>,
    /// A row could not be read: what follows from the log is not known.
    broken: bool,
    /// Groups in which something happened that only a newer release knows.
    unknown: BTreeSet<String>,
}

impl Replay {
    fn apply(&mut self, change: &Change) {
        let group = change.group.to_string();
        if change.kind == Kind::Other {
            self.unknown.insert(group);
            return;
        }
        let Some(key) = &change.key else {
            self.keys
                .range_mut((group.clone(), String::new())..)
                .take_while(|((name, _), _)| *name == group)
                .for_each(|(_, state)| *state = None);
            self.deleted.insert(group, change.revision);
            return;
        };
        let place = (group, key.to_string());
        let before = self.keys.get(&place).copied().flatten();
        let created = before.and_then(|said| said.created);
        let (revision, deadline) = (Some(change.revision), change.deadline);
        match change.kind {
            Kind::Set => {
                let created = if change.previous.is_none() { revision } else { created };
                self.keys.insert(place, Some(Said { revision, created, deadline }));
            }
            Kind::Touch => {
                let revision = before.and_then(|said| said.revision);
                self.keys.insert(place, Some(Said { revision, created, deadline }));
            }
            Kind::Delete | Kind::DeleteGroup | Kind::Expire => drop(self.keys.insert(place, None)),
            Kind::Other => {}
        }
    }
}

/// Every entry belongs to a group and is what the log made it, as far as the log goes back; and nothing is missing.
fn entries(conn: &Connection, problems: &mut Vec<String>, mut replay: Replay) -> Result<u64> {
    let orphans: i64 = conn.query_row(ORPHANS, [], |row| row.get(0))?;
    if orphans > 0 {
        problems.push(format!("{orphans} entries belong to no group"));
    }
    let lost: i64 = conn.query_row(LOST_VALUES, [], |row| row.get(0))?;
    if lost > 0 {
        problems.push(format!("{lost} values belong to no entry"));
    }
    let mut dead = conn.prepare(DEAD_AND_ALIVE)?;
    let mut rows = dead.query([])?;
    while let Some(row) = rows.next()? {
        let group: String = row.get(0)?;
        add(problems, "group", || format!("{group:?} is there, and noted as deleted"));
    }
    let mut newer = conn.prepare(NEWER)?;
    let newer: BTreeSet<String> = newer.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    replay.keys.retain(|(group, _), _| !newer.contains(group));
    let trimmed = log::trimmed(conn)?;
    let mut number = 0;
    let mut statement = conn.prepare(ENTRIES)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        number += 1;
        let (group, stored): (String, String) = (row.get(7)?, row.get(8)?);
        let entry = match read_entry(row) {
            Ok(entry) => entry,
            // The others are looked at all the same.
            Err(error) => {
                let key: String = row.get(0).unwrap_or_default();
                add(problems, "entry", || format!("{group:?} {key:?} cannot be read: {}", damage(&error)));
                replay.keys.remove(&(group, key));
                continue;
            }
        };
        if (stored == "text") != entry.value.as_str().is_some() {
            add(problems, "entry", || format!("{group:?} {:?} is stored as {stored}", entry.key));
        }
        let apart: Option<i64> = row.get(9)?;
        if apart.is_some_and(|bytes| usize::try_from(bytes) != Ok(entry.value.len())) {
            add(problems, "entry", || format!("{group:?} {:?} does not say how large it is", entry.key));
        }
        let place = (group, entry.key.clone());
        let said = replay.keys.remove(&place);
        let agrees = match said {
            _ if replay.broken || replay.unknown.contains(&place.0) => {
                written_by_its_row(conn, &place, &entry, trimmed)
            }
            Some(Some(Said { revision: Some(revision), created, deadline })) => {
                entry.revision == revision
                    && entry.deadline == deadline
                    && created.is_none_or(|created| created == entry.created)
                    && log::change(conn, revision)?.is_some_and(|change| made(&change, &entry))
            }
            Some(Some(Said { deadline, .. })) => entry.revision <= trimmed && entry.deadline == deadline,
            Some(None) => false,
            None => {
                let survives = !replay.deleted.contains_key(&place.0);
                survives && entry.revision <= trimmed && entry.created <= entry.revision
            }
        };
        if !agrees {
            let (group, key) = &place;
            add(problems, "entry", || format!("{group:?} {key:?} is not what the log made it"));
        }
    }
    for ((group, key), said) in replay.keys {
        if said.is_some() && !replay.broken && !replay.unknown.contains(&group) {
            add(problems, "entry", || {
                format!("{group:?} {key:?} is missing, the log does not say that it went")
            });
        }
    }
    Ok(number)
}

/// Whether an entry is what the row of its revision wrote: all that can be said when other rows cannot be read.
fn written_by_its_row(conn: &Connection, place: &(String, String), entry: &Entry, trimmed: Revision) -> bool {
    match log::change(conn, entry.revision) {
        Ok(Some(change)) if change.kind == Kind::Other => true,
        Ok(Some(change)) => {
            let same_place = *change.group == place.0 && change.key.as_deref() == Some(place.1.as_str());
            same_place && made(&change, entry)
        }
        Ok(None) => entry.revision <= trimmed,
        // That row is among the problems already.
        Err(_) => true,
    }
}

/// Whether an entry is what a change made of it, its deadline aside.
fn made(change: &Change, entry: &Entry) -> bool {
    let created = match change.previous {
        Some(_) => entry.created < entry.revision,
        None => entry.created == entry.revision,
    };
    change.kind == Kind::Set
        && change.value.as_ref() == Some(&entry.value)
        && change.content_type.as_deref() == entry.content_type.as_deref()
        && change.timestamp == entry.updated
        && created
}

/// The log's running total, by which retention trims.
fn totals(conn: &Connection, problems: &mut Vec<String>) -> Result<()> {
    let mut statement = conn.prepare(TOTALS)?;
    let mut rows = statement.query([log::trimmed(conn)?.as_i64()])?;
    while let Some(row) = rows.next()? {
        let revision: i64 = row.get(0)?;
        add(problems, "log:", || format!("the running total of revision {revision} does not follow"));
    }
    Ok(())
}

/// Epochs follow one another, and none begins after the log's end.
pub(super) fn epochs(conn: &Connection, problems: &mut Vec<String>) -> Result<()> {
    if let Err(error) = epochs::all(conn) {
        add(problems, "epoch:", || damage(&error));
    }
    let mut statement = conn.prepare(EPOCHS)?;
    let mut rows = statement.query([log::end(conn)?.0.as_i64()])?;
    while let Some(row) = rows.next()? {
        let ordinal: i64 = row.get(0)?;
        add(problems, "epoch:", || format!("number {ordinal} does not follow the one before it"));
    }
    let same: i64 = conn.query_row(SAME_EPOCHS, [], |row| row.get(0))?;
    if same > 0 {
        problems.push(format!("epoch: {same} bear the name of another"));
    }
    Ok(())
}

/// Every row of the log has its checksum, revisions have no gap, and commits end where they say.
fn events(conn: &Connection, problems: &mut Vec<String>, replay: &mut Replay) -> Result<u64> {
    let (trimmed, end) = (log::trimmed(conn)?, log::end(conn)?.0);
    if trimmed >= end && trimmed > Revision::ZERO {
        problems.push(format!(
            "the log is trimmed up to {trimmed}, but the newest event, {end}, is never trimmed"
        ));
        replay.broken = true;
    }
    let (mut after, mut number) = (trimmed, 0);
    let mut commit = trimmed;
    while after < end {
        let page = match log::page(conn, after, PAGE_ENTRIES) {
            Ok(page) => page,
            Err(error) => {
                // The page holds a damaged row: go on row by row, past it.
                add(problems, "log:", || damage(&error));
                replay.broken = true;
                after = skip(conn, after)?;
                commit = commit.max(after);
                continue;
            }
        };
        for change in &page.changes {
            number += 1;
            replay.apply(change);
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

/// The end of the damage that comes first after `after`: the row that cannot be read, or the last that is missing.
fn skip(conn: &Connection, mut after: Revision) -> Result<Revision> {
    while let Ok(page) = log::page(conn, after, 1) {
        let Some(change) = page.changes.first() else { break };
        after = change.revision;
    }
    let damaged = after.next().unwrap_or(after);
    let next = log::next_row(conn, after)?;
    Ok(next.filter(|next| *next > damaged).map_or(damaged, |next| Revision::new(next.get() - 1)))
}
