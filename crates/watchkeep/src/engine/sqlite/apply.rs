//! Operations on the rows: every change of an entry goes through here, and logs what it did.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use crate::engine::{Act, Author};
use crate::types::batch::{Operation, Outcome};
use crate::types::clock::Timestamp;
use crate::types::error::{Error, ErrorKind, Reason, Result};
use crate::types::event::{Change, Kind};
use crate::types::limits::{BATCH_BYTES, Limits, REAP_STEP};
use crate::types::name::{NameRange, SEPARATOR, check_content_type, check_label, namespace_of};
use crate::types::quota::Usage;
use crate::types::revision::Revision;
use crate::types::value::Value;
use crate::types::writing::{Expected, Ttl};

use super::columns::{SqlValue, read_value};
use super::consumers;
use super::counters::{Counters, Group, Room};
use super::log::{self, Salt};
use super::read::SqliteRead;

const FIND: &str = "SELECT revision, deadline, octet_length(value), rowid FROM wk_entries \
     WHERE group_id = ?1 AND key = ?2";
const INSERT: &str = "INSERT INTO wk_entries (group_id, key, revision, created, updated, deadline, content_type, value) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
const UPDATE: &str = "UPDATE wk_entries SET revision = ?2, updated = ?3, deadline = ?4, content_type = ?5, value = ?6 \
     WHERE rowid = ?1";
const SET_DEADLINE: &str = "UPDATE wk_entries SET deadline = ?2 WHERE rowid = ?1";
const REMOVE: &str = "DELETE FROM wk_entries WHERE rowid = ?1";
macro_rules! due_sql {
    ($from:literal) => {
        concat!(
            "SELECT e.rowid, g.name, e.key, e.revision, e.deadline, e.content_type, e.value FROM wk_entries e ",
            $from
        )
    };
}
/// What is due in a range of groups, the earliest first.
const DUE: &str = due_sql!(
    "INDEXED BY wk_deadlines JOIN wk_groups g ON g.id = e.group_id \
     WHERE e.deadline <= ?1 AND g.name >= ?2 AND (?3 IS NULL OR g.name < ?3) ORDER BY e.deadline LIMIT ?4"
);
const DUE_KEY: &str = due_sql!("JOIN wk_groups g ON g.id = e.group_id WHERE g.id = ?1 AND e.key = ?2");
/// What is due anywhere. Entries of deleted groups, without a name here, are due for nobody, but must go as well.
const DUE_ANYWHERE: &str = due_sql!(
    "INDEXED BY wk_deadlines LEFT JOIN wk_groups g ON g.id = e.group_id \
     WHERE e.deadline <= ?1 AND ?2 = '' AND ?3 IS NULL ORDER BY e.deadline LIMIT ?4"
);
const GROUPS: &str =
    "SELECT name FROM wk_groups WHERE name >= ?1 AND (?2 IS NULL OR name < ?2) ORDER BY name";

/// One SQL transaction, in which several jobs are committed.
pub(super) struct Commit<'c> {
    conn: &'c Connection,
    pub(super) now: Timestamp,
    limits: Limits,
    /// The log's end before the transaction.
    pub(super) base: Revision,
    /// The log's end with all jobs sealed so far.
    pub(super) last: Revision,
    total_bytes: i64,
    salt: Salt,
    /// The disk is full: nothing may grow.
    pub(super) is_tight: bool,
    /// What the sealed jobs changed.
    pub(super) changes: Vec<Arc<Change>>,
    /// The earliest deadline that was given to an entry.
    pub(super) earliest: Option<Timestamp>,
}

impl<'c> Commit<'c> {
    /// Inside a transaction that was just begun: the base is read in it, so it tells what others committed.
    pub(super) fn begin(conn: &'c Connection, now: Timestamp, limits: Limits) -> Result<Commit<'c>> {
        let (base, total_bytes) = log::end(conn)?;
        if base == Revision::ZERO && log::was_written(conn)? {
            let what = "its log is gone, and with it the last revision".to_owned();
            return Err(Reason::Corrupt { what }.into());
        }
        let (salt, changes) = (Salt::read(conn)?, Vec::new());
        let (earliest, is_tight) = (None, false);
        Ok(Commit { conn, now, limits, base, last: base, total_bytes, salt, is_tight, changes, earliest })
    }

    pub(super) fn job<'b>(&'b mut self, author: &'b Author) -> Job<'b, 'c> {
        let last = self.last;
        Job { commit: self, author, last, pending: Vec::new() }
    }

    /// Reads that see what the transaction has written.
    pub(super) fn read(&self) -> SqliteRead<'c> {
        SqliteRead { conn: self.conn, now: self.now }
    }
}

/// One user's transaction: its events have consecutive revisions and name the last one.
pub(super) struct Job<'b, 'c> {
    pub(super) commit: &'b mut Commit<'c>,
    author: &'b Author,
    last: Revision,
    pending: Vec<Change>,
}

/// An entry as it stands in the file, due or not.
pub(super) struct Found {
    rowid: i64,
    pub(super) revision: Revision,
    pub(super) deadline: Option<Timestamp>,
    bytes: i64,
}

/// What a set finds where it goes.
struct Spot {
    group: Option<Group>,
    /// Due or not.
    found: Option<Found>,
    /// None where nothing limits the namespace.
    room: Option<Room>,
}

/// An entry whose deadline has come.
struct Due {
    rowid: i64,
    /// None when the group was deleted.
    group: Option<String>,
    /// None when it cannot be read.
    key: Option<String>,
    details: Details,
}

impl Due {
    /// A damaged entry goes with the others, once its time has come, and is announced as far as it can be read: left
    /// where it is, it would come first for ever.
    fn read(row: &Row<'_>) -> Result<Due> {
        let mut damage = None;
        let group: Option<String> = readable(row.get(1), &mut damage).flatten();
        let key: Option<String> = readable(row.get(2), &mut damage);
        let previous = readable(row.get(3), &mut damage);
        let previous = previous.and_then(|number| readable(Revision::from_i64(number), &mut damage));
        let details = Details {
            value: readable(row.get_ref(6).map_err(Error::from).and_then(read_value), &mut damage),
            content_type: readable(row.get(5), &mut damage).flatten(),
            deadline: readable(row.get::<_, Option<i64>>(4), &mut damage)
                .flatten()
                .map(Timestamp::from_millis),
            previous,
        };
        if let Some(error) = damage {
            tracing::warn!(%error, group, key, "an entry that was due is damaged; it is removed, and its event says what could be read");
        }
        Ok(Due { rowid: row.get(0)?, group, key, details })
    }
}

/// What could be read; the damage is noted.
fn readable<T, E: Into<Error>>(read: std::result::Result<T, E>, damage: &mut Option<Error>) -> Option<T> {
    read.map_err(|error| damage.get_or_insert(error.into()).clone()).ok()
}

/// What a logged change says besides its kind and place.
#[derive(Default)]
struct Details {
    value: Option<Value>,
    content_type: Option<Box<str>>,
    deadline: Option<Timestamp>,
    previous: Option<Revision>,
}

impl Job<'_, '_> {
    /// Writes the log rows; the last revision, if there is one. The batch knows of the job only when all are
    /// written: one that fails here leaves nothing behind.
    pub(super) fn seal(self) -> Result<Option<Revision>> {
        let Some(commit) = self.pending.last().map(|change| change.revision) else { return Ok(None) };
        let (mut total, mut changes) = (self.commit.total_bytes, Vec::with_capacity(self.pending.len()));
        for change in self.pending {
            let change = Change { commit, ..change };
            total += log::payload(&change);
            log::append(self.commit.conn, self.commit.salt, &change, total)?;
            changes.push(Arc::new(change));
        }
        self.commit.total_bytes = total;
        self.commit.changes.append(&mut changes);
        self.commit.last = commit;
        Ok(Some(commit))
    }

    pub(super) fn conn(&self) -> &Connection {
        self.commit.conn
    }

    pub(super) fn counters(&self) -> Counters<'_> {
        Counters { conn: self.commit.conn }
    }

    fn log(&mut self, kind: Kind, group: &str, key: Option<&str>, details: Details) -> Result<Revision> {
        let revision = self.last.next().ok_or(Reason::NoRevisionLeft)?;
        self.last = revision;
        self.pending.push(Change {
            revision,
            commit: revision,
            kind,
            group: group.into(),
            key: key.map(Into::into),
            value: details.value,
            content_type: details.content_type,
            deadline: details.deadline,
            previous: details.previous,
            // Time let it expire, not the handle whose write came across it.
            origin: self.author.origin.clone().filter(|_| kind != Kind::Expire),
            timestamp: self.commit.now,
        });
        Ok(revision)
    }

    pub(super) fn is_due(&self, deadline: Option<Timestamp>) -> bool {
        deadline.is_some_and(|deadline| deadline <= self.commit.now)
    }

    fn find(&self, group: &Group, key: &str) -> Result<Option<Found>> {
        let mut statement = self.conn().prepare_cached(FIND)?;
        let mut rows = statement.query(params![group.id, key])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let value_bytes: i64 = row.get(2)?;
        Ok(Some(Found {
            revision: Revision::from_i64(row.get(0)?)?,
            deadline: row.get::<_, Option<i64>>(1)?.map(Timestamp::from_millis),
            bytes: value_bytes + len(key),
            rowid: row.get(3)?,
        }))
    }

    /// The group and the entry as they are in the file, due or not.
    pub(super) fn place(&self, group: &str, key: &str) -> Result<(Option<Group>, Option<Found>)> {
        let row = self.counters().group(group)?;
        let found = row.as_ref().map(|row| self.find(row, key)).transpose()?.flatten();
        Ok((row, found))
    }

    /// The group and the entry, with what is due out of the way: logged, removed, and not there any more.
    fn present(&mut self, group: &str, key: &str) -> Result<Option<(Group, Found)>> {
        let Some(row) = self.counters().group(group)? else { return Ok(None) };
        match self.find(&row, key)? {
            Some(found) if self.is_due(found.deadline) => {
                let due = self.read_due(DUE_KEY, params![row.id, key])?;
                self.expire(due)?;
                Ok(None)
            }
            found => Ok(found.map(|found| (row, found))),
        }
    }

    fn set(&mut self, set: &Set<'_>) -> Result<Outcome> {
        self.commit.limits.check_group(set.group)?;
        self.commit.limits.check_key(set.key)?;
        self.commit.limits.check_value(set.value)?;
        set.content_type.map_or(Ok(()), check_content_type)?;
        // Everything that can refuse the write comes before the first change.
        let mut spot = self.spot(set)?;
        let there = spot.found.as_ref().filter(|found| !self.is_due(found.deadline));
        check(set.expected, set.group, set.key, there)?;
        let deadline = match set.ttl {
            Ttl::Clear => None,
            Ttl::Keep => there.and_then(|there| there.deadline),
            Ttl::For(ttl) => Some(self.commit.now.deadline(ttl)?),
            Ttl::Until(deadline) => Some(self.commit.now.ahead(deadline)?),
        };
        if self.commit.is_tight {
            return Err(Reason::Tight.into());
        }
        while self.make_room(set, &spot)? {
            spot = self.spot(set)?;
        }

        let Spot { group: row, found, .. } = spot;
        let bytes = len(set.key) + len(set.value);
        let details = Details {
            value: Some(set.value.clone()),
            content_type: set.content_type.map(Into::into),
            deadline,
            previous: found.as_ref().map(|found| found.revision),
        };
        let revision = self.log(Kind::Set, set.group, Some(set.key), details)?;
        let (number, now, value) = (revision.as_i64(), self.commit.now.as_millis(), SqlValue(set.value));
        let until = deadline.map(Timestamp::as_millis);
        match (row, found) {
            (Some(row), Some(found)) => {
                let columns = params![found.rowid, number, now, until, set.content_type, value];
                self.conn().prepare_cached(UPDATE)?.execute(columns)?;
                self.counters().add(&row, set.group, 0, bytes - found.bytes)?;
            }
            (row, _) => {
                let row = match row {
                    Some(row) => row,
                    None => self.counters().create(set.group, revision)?,
                };
                let columns = params![row.id, set.key, number, number, now, until, set.content_type, value];
                self.conn().prepare_cached(INSERT)?.execute(columns)?;
                self.counters().add(&row, set.group, 1, bytes)?;
            }
        }
        self.note_deadline(deadline);
        Ok(Outcome::Set(revision))
    }

    fn spot(&self, set: &Set<'_>) -> Result<Spot> {
        let (group, room) = self.counters().group_and_room(set.group)?;
        let found = group.as_ref().map(|group| self.find(group, set.key)).transpose()?.flatten();
        Ok(Spot { group, found, room })
    }

    /// Takes what is due out of the way of a set: this very entry, and what holds places that a quota has no more of.
    /// Whether something went, and the spot is to be read again; refuses what the quota does not allow even so.
    fn make_room(&mut self, set: &Set<'_>, spot: &Spot) -> Result<bool> {
        if spot.found.as_ref().is_some_and(|found| self.is_due(found.deadline)) {
            // It holds no place that this write could take over.
            self.present(set.group, set.key)?;
            return Ok(true);
        }
        let (Some(Room { usage, quota }), Some(namespace)) = (spot.room, namespace_of(set.group)) else {
            return Ok(false);
        };
        let bytes = len(set.key) + len(set.value) - spot.found.as_ref().map_or(0, |found| found.bytes);
        let after = usage.plus(i64::from(spot.found.is_none()), i64::from(spot.group.is_none()), bytes);
        // What is due may hide that the write takes more than before: it makes room whenever a limit is passed.
        let over = quota.exceeded(namespace, Usage::default(), after).is_some();
        if over && self.reap(&NameRange::prefix(&format!("{namespace}{SEPARATOR}")))?.1 {
            return Ok(true);
        }
        match quota.exceeded(namespace, usage, after) {
            Some(exceeded) => Err(Reason::Quota(exceeded).into()),
            None => Ok(false),
        }
    }

    fn delete(&mut self, group: &str, key: &str, expected: Option<Expected>) -> Result<Outcome> {
        let Some((row, found)) = self.present(group, key)? else {
            check(expected, group, key, None)?;
            return Ok(Outcome::Was(false));
        };
        check(expected, group, key, Some(&found))?;
        let details = Details { previous: Some(found.revision), ..Details::default() };
        self.log(Kind::Delete, group, Some(key), details)?;
        self.conn().prepare_cached(REMOVE)?.execute([found.rowid])?;
        self.counters().add(&row, group, -1, -found.bytes)?;
        Ok(Outcome::Was(true))
    }

    /// Reads due entries, about a megabyte of them at the most, but at least one.
    fn read_due(&self, sql: &str, params: impl Params) -> Result<Vec<Due>> {
        let mut statement = self.conn().prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let (mut due, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let entry = Due::read(row)?;
            bytes += entry.details.value.as_deref().map_or(0, <[u8]>::len);
            due.push(entry);
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        Ok(due)
    }

    /// Logs that the deadlines of due entries came, with their last values, and removes them.
    fn expire(&mut self, due: Vec<Due>) -> Result<()> {
        let mut gone: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        for Due { rowid, group, key, details } in due {
            self.conn().prepare_cached(REMOVE)?.execute([rowid])?;
            let Some(group) = group else { continue };
            let bytes = key.as_ref().map_or(0, len) + details.value.as_deref().map_or(0, len);
            if let Some(key) = key {
                self.log(Kind::Expire, &group, Some(&key), details)?;
            }
            let (keys, total) = gone.entry(group).or_default();
            (*keys, *total) = (*keys + 1, *total + bytes);
        }
        for (group, (keys, bytes)) in gone {
            let counted = self
                .counters()
                .group(&group)
                .and_then(|row| row.map_or(Ok(()), |row| self.counters().add(&row, &group, -keys, -bytes)));
            match counted {
                // What is damaged there must not keep what is due here.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::warn!(%error, group, "the counters of a group are damaged; `check --repair` rebuilds them");
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// Removes what is due in a range of groups, a bounded number, and announces what has a group; how many, and whether
    /// there may be more.
    pub(super) fn reap(&mut self, groups: &NameRange) -> Result<(u64, bool)> {
        let step = i64::try_from(REAP_STEP).unwrap_or(i64::MAX);
        let sql = if *groups == NameRange::prefix("") { DUE_ANYWHERE } else { DUE };
        let due =
            self.read_due(sql, params![self.commit.now.as_millis(), groups.lower(), groups.to, step])?;
        let (more, keys) = (!due.is_empty(), due.iter().filter(|due| due.group.is_some()).count());
        self.expire(due)?;
        Ok((u64::try_from(keys).unwrap_or(u64::MAX), more))
    }

    fn delete_group(&mut self, group: &str) -> Result<u64> {
        while self.reap(&NameRange::exactly(group))?.1 {}
        let Some(row) = self.counters().group(group)? else { return Ok(0) };
        self.log(Kind::DeleteGroup, group, None, Details::default())?;
        self.counters().bury(&row, group)?;
        Ok(u64::try_from(row.keys).unwrap_or(0))
    }

    fn delete_groups(&mut self, prefix: &str) -> Result<u64> {
        let groups: Vec<String> = {
            let range = NameRange::prefix(prefix);
            let mut statement = self.conn().prepare_cached(GROUPS)?;
            let rows = statement.query_map(params![range.lower(), range.to], |row| row.get(0))?;
            rows.collect::<rusqlite::Result<_>>()?
        };
        groups.iter().map(|group| self.delete_group(group)).sum()
    }

    fn touch(&mut self, group: &str, key: &str, ttl: Option<std::time::Duration>) -> Result<Outcome> {
        let deadline = ttl.map(|ttl| self.commit.now.deadline(ttl)).transpose()?;
        let Some((_, found)) = self.present(group, key)? else { return Ok(Outcome::Was(false)) };
        if found.deadline != deadline {
            self.log(Kind::Touch, group, Some(key), Details { deadline, ..Details::default() })?;
            let until = deadline.map(Timestamp::as_millis);
            self.conn().prepare_cached(SET_DEADLINE)?.execute(params![found.rowid, until])?;
            self.note_deadline(deadline);
        }
        Ok(Outcome::Was(true))
    }

    fn note_deadline(&mut self, deadline: Option<Timestamp>) {
        self.commit.earliest = self.commit.earliest.into_iter().chain(deadline).min();
    }
}

/// The parts of [`Operation::Set`].
struct Set<'a> {
    group: &'a str,
    key: &'a str,
    value: &'a Value,
    ttl: Ttl,
    expected: Option<Expected>,
    content_type: Option<&'a str>,
}

impl Job<'_, '_> {
    /// Does one operation. What refuses it refuses before the first change.
    pub(super) fn apply(&mut self, operation: &Operation) -> Result<Outcome> {
        self.check_origin()?;
        match operation {
            Operation::Set { group, key, value, ttl, expected, content_type } => self.set(&Set {
                group,
                key,
                value,
                ttl: *ttl,
                expected: *expected,
                content_type: content_type.as_deref(),
            }),
            Operation::Delete { group, key, expected } => self.delete(group, key, *expected),
            Operation::DeleteGroup { group } => self.delete_group(group).map(Outcome::Keys),
            Operation::DeletePrefix { prefix } => self.delete_groups(prefix).map(Outcome::Keys),
            Operation::Touch { group, key, ttl } => self.touch(group, key, *ttl),
        }
    }

    fn check_origin(&self) -> Result<()> {
        self.author.origin.as_deref().map_or(Ok(()), |origin| check_label("origin", origin))
    }

    /// Does something with a named consumer; the number under which it is held.
    pub(super) fn consumer(&self, name: &str, act: &Act) -> Result<u64> {
        self.check_origin()?;
        consumers::apply(self.conn(), self.commit.now, self.last, name, act)
    }
}

fn check(expected: Option<Expected>, group: &str, key: &str, there: Option<&Found>) -> Result<()> {
    let current = there.map(|found| found.revision);
    match expected {
        Some(expected) if !expected.holds(current) => {
            Err(Reason::Conflict { group: group.to_owned(), key: key.to_owned(), current }.into())
        }
        _ => Ok(()),
    }
}

fn len(bytes: impl AsRef<[u8]>) -> i64 {
    i64::try_from(bytes.as_ref().len()).unwrap_or(i64::MAX)
}

/// How many due entries a range of groups holds, counted up to one more than a step.
pub(super) fn due(conn: &Connection, now: Timestamp, groups: &NameRange) -> Result<usize> {
    let limit = i64::try_from(REAP_STEP + 1).unwrap_or(i64::MAX);
    let sql = concat!(
        "SELECT count(*) FROM (",
        due_sql!(
            "INDEXED BY wk_deadlines JOIN wk_groups g ON g.id = e.group_id \
         WHERE e.deadline <= ?1 AND g.name >= ?2 AND (?3 IS NULL OR g.name < ?3) LIMIT ?4"
        ),
        ")"
    );
    let params = params![now.as_millis(), groups.lower(), groups.to, limit];
    let due: i64 = conn.prepare_cached(sql)?.query_row(params, |row| row.get(0))?;
    Ok(usize::try_from(due).unwrap_or(0))
}

/// A group that is there is never swept, whatever is noted: what goes without an event must be gone already.
const DEAD: &str = "SELECT group_id FROM wk_dead d WHERE NOT EXISTS (SELECT 1 FROM wk_groups g WHERE g.id = d.group_id) LIMIT 1";

/// Whether there is something to sweep.
pub(super) fn has_dead(conn: &Connection) -> Result<bool> {
    Ok(conn.prepare_cached(DEAD)?.exists([])?)
}

/// Sweeps entries of deleted groups, a bounded number; whether there is more to do.
pub(super) fn sweep(conn: &Connection, step: usize) -> Result<bool> {
    let dead: Option<i64> = conn.prepare_cached(DEAD)?.query_row([], |row| row.get(0)).optional()?;
    let Some(dead) = dead else { return Ok(false) };
    let limit = i64::try_from(step).unwrap_or(i64::MAX);
    let swept = conn
        .prepare_cached("DELETE FROM wk_entries WHERE rowid IN (SELECT rowid FROM wk_entries WHERE group_id = ?1 LIMIT ?2)")?
        .execute(params![dead, limit])?;
    if swept < step {
        conn.prepare_cached("DELETE FROM wk_dead WHERE group_id = ?1")?.execute([dead])?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::engine::signal::Signal;
    use crate::engine::sqlite::SqliteEngine;
    use crate::engine::{Engine, Work, Write};
    use crate::types::clock::ManualClock;
    use crate::types::options::Options;
    use crate::types::writing::SetOptions;

    /// What a deleted group left behind is nobody's event, and just as much work.
    #[test]
    fn a_step_of_expiry_is_bounded_also_where_it_announces_nothing() -> Result<()> {
        let clock = Arc::new(ManualClock::default());
        let signal = Arc::new(Signal::new().expect("a signal"));
        let engine = SqliteEngine::open_private(&Options::new().clock(clock.clone()), signal)?;
        let write = |work| engine.write(Write { author: Author::default(), work });
        let ttl = Duration::from_secs(60);
        for number in 0..2 * REAP_STEP + 10 {
            let options = SetOptions::new().ttl(ttl);
            write(Operation::set("g", &number.to_string(), Value::from("v"), options).into())?;
        }
        write(Operation::delete_group("g").into())?;
        clock.advance(ttl);
        let mut left = Vec::new();
        loop {
            let step = write(Work::Reap { groups: NameRange::prefix("") })?;
            let (keys, more) = step.reaped()?;
            assert_eq!((keys, step.announced), (0, None));
            if !more {
                break;
            }
            let count = "SELECT count(*) FROM wk_entries";
            left.push(engine.pool.with(|conn| Ok(conn.query_row(count, [], |row| row.get::<_, i64>(0))?))?);
        }
        let step = i64::try_from(REAP_STEP).unwrap_or(0);
        assert_eq!(left, [step + 10, 10, 0]);
        Ok(())
    }
}
