//! Named consumers: a row each in `wk_consumers`, and what the log keeps for them.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::engine::Act;
use crate::types::clock::Timestamp;
use crate::types::consumer::{ConsumerInfo, ConsumerStart, Force, Holder};
use crate::types::error::{Error, Reason, Result};
use crate::types::event::Lagged;
use crate::types::filter::{Filter, Part, Target};
use crate::types::name::{NameRange, SEPARATOR, namespace_of};
use crate::types::revision::Revision;

use super::columns::payload;
use super::{log, reserve};

const SELECT: &str = "SELECT name, acked, acked_at, created, fence, holder, lease_until, lease_ms, target, target_group, \
     target_key, kinds, group_deletions, excluded_origin FROM wk_consumers \
     WHERE name >= ?1 AND (?2 IS NULL OR name < ?2) ORDER BY name";
/// Where the columns of the filter begin.
const FILTER: usize = 8;
/// The target of a filter that has none, or several: they stand in `target_key`, as JSON.
const UNION: &str = "any";
const ADD_PART: &str = "SELECT json_insert(?1, '$[#]', json_object('target', ?2, 'target_group', ?3, 'target_key', ?4, \
     'kinds', ?5, 'group_deletions', ?6, 'excluded_origin', ?7))";
const PARTS: &str = "SELECT value ->> 'target', value ->> 'target_group', value ->> 'target_key', value ->> 'kinds', \
     value ->> 'group_deletions', value ->> 'excluded_origin' FROM json_each(?1)";
const INSERT: &str = "INSERT INTO wk_consumers (name, acked, created, fence, lease_ms, target, target_group, kinds, \
     group_deletions) VALUES (?1, ?2, ?3, 0, 0, '', '', 0, 0)";
const SET_FILTER: &str = "UPDATE wk_consumers SET target = ?2, target_group = ?3, target_key = ?4, kinds = ?5, \
     group_deletions = ?6, excluded_origin = ?7 WHERE name = ?1";
const TAKE: &str = "UPDATE wk_consumers SET fence = ?2, holder = ?3, lease_until = min(?4, 9223372036854775807 - ?5) + ?5, lease_ms = ?5 \
     WHERE name = ?1";
/// A comparison with a position that is not known yet is neither true nor false, and leaves it so.
const KEEP: &str = "UPDATE wk_consumers SET lease_until = min(?3, 9223372036854775807 - lease_ms) + lease_ms, \
     acked = CASE WHEN acked >= ?4 THEN max(acked, ?5) ELSE acked END WHERE name = ?1 AND fence = ?2";
const ACK: &str = "UPDATE wk_consumers SET lease_until = min(?3, 9223372036854775807 - lease_ms) + lease_ms, \
     acked_at = iif(?4 IS NULL, acked_at, ?3), acked = iif(?4 IS NULL, acked, max(coalesce(acked, 0), ?4)) \
     WHERE name = ?1 AND fence = ?2";
/// Once more writes nothing.
const RELEASE: &str = "UPDATE wk_consumers SET holder = NULL, lease_until = NULL \
     WHERE name = ?1 AND fence = ?2 AND holder IS NOT NULL";
const RESET: &str =
    "UPDATE wk_consumers SET acked = ?2, fence = ?3, holder = NULL, lease_until = NULL WHERE name = ?1";
const SET_ACKED: &str = "UPDATE wk_consumers SET acked = ?2 WHERE name = ?1";
const REMOVE: &str = "DELETE FROM wk_consumers WHERE name = ?1";
/// Numbers grow over all consumers: one that is removed and comes again gets none that an old holder knows.
const NEXT_FENCE: &str = "INSERT INTO wk_meta (name, value) VALUES ('fences', 1) \
     ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value";
const FENCES: &str = "SELECT coalesce((SELECT value FROM wk_meta WHERE name = 'fences'), 0)";
/// A row whose position cannot be read holds nothing back: it would hold back everything, for ever.
const FLOOR: &str = "SELECT name, acked FROM wk_consumers WHERE typeof(acked) = 'integer' AND acked >= 0 ORDER BY acked LIMIT 1";
const THERE: &str = "SELECT 1 FROM wk_consumers WHERE name = ?1";
/// The first event after a revision, and the bytes of all that was logged before it.
const FIRST_AFTER: &str = concat!(
    "SELECT timestamp, total_bytes - ",
    payload!(),
    " FROM wk_log WHERE revision > ?1 ORDER BY revision LIMIT 1"
);

/// Does something with a consumer; the number under which it is held. What is refused is refused before the first
/// change. `last` is the last revision.
pub(super) fn apply(conn: &Connection, now: Timestamp, last: Revision, name: &str, act: &Act) -> Result<u64> {
    let known = |sql: &str, params: &[&dyn rusqlite::ToSql], fence: u64| match conn
        .prepare_cached(sql)?
        .execute(params)?
    {
        0 => Err(fenced(conn, now, name)?),
        _ => Ok(fence),
    };
    let now_ms = now.as_millis();
    match act {
        Act::Take { filter, start, holder, lease } => {
            match one(conn, now, name)? {
                Some(row) => {
                    refuse_held(&row, now)?;
                    pull_back(conn, &row, last)?;
                }
                None => {
                    let acked = position(conn, last, *start)?;
                    conn.prepare_cached(INSERT)?.execute(params![name, acked, now_ms])?;
                    // A consumer of a namespace sees nothing else.
                    let everything = namespace_of(name)
                        .map_or(String::new(), |namespace| format!("{namespace}{SEPARATOR}"));
                    set_filter(conn, name, &Filter::group_prefix(everything))?;
                }
            }
            if let Some(filter) = filter {
                set_filter(conn, name, filter)?;
            }
            let (fence, lease) = (next_fence(conn)?, millis(*lease));
            conn.prepare_cached(TAKE)?.execute(params![name, number(fence), holder, now_ms, lease])?;
            Ok(fence)
        }
        Act::Keep { fence, handed, seen } => {
            let params = params![name, number(*fence), now_ms, handed.as_i64(), seen.as_i64()];
            known(KEEP, params, *fence)
        }
        Act::Ack { fence, upto } => {
            known(ACK, params![name, number(*fence), now_ms, upto.map(Revision::as_i64)], *fence)
        }
        Act::Release { fence } => {
            conn.prepare_cached(RELEASE)?.execute(params![name, number(*fence)])?;
            Ok(0)
        }
        Act::Reset { to, force } => {
            there(conn, now, name, *force)?;
            let (acked, fence) = (position(conn, last, *to)?, next_fence(conn)?);
            conn.prepare_cached(RESET)?.execute(params![name, acked, number(fence)])?;
            Ok(0)
        }
        Act::Remove { force } => {
            there(conn, now, name, *force)?;
            conn.prepare_cached(REMOVE)?.execute([name])?;
            Ok(0)
        }
    }
}

/// Nobody holds any of them: of a copy that was just made.
pub(super) fn release_all(conn: &Connection) -> Result<()> {
    conn.execute("UPDATE wk_consumers SET holder = NULL, lease_until = NULL", [])?;
    Ok(())
}

/// That the consumer is there, and nobody holds it, or that does not matter.
fn there(conn: &Connection, now: Timestamp, name: &str, force: Force) -> Result<()> {
    // By force also when the row cannot be read: it is the way to be rid of it.
    if !conn.prepare_cached(THERE)?.exists([name])? {
        return Err(Reason::NoConsumer { name: name.to_owned() }.into());
    }
    match force {
        Force::Yes => Ok(()),
        Force::No => one(conn, now, name)?.map_or(Ok(()), |row| refuse_held(&row, now)),
    }
}

/// A position after the last revision goes back to that: its consumer would pass over what comes until then. Earlier
/// releases let one be set there.
fn pull_back(conn: &Connection, row: &ConsumerInfo, last: Revision) -> Result<()> {
    let Some(acked) = row.acked.filter(|acked| *acked > last) else { return Ok(()) };
    tracing::warn!(consumer = row.name, %acked, %last, "a consumer stood after the last revision; it goes on from there");
    conn.prepare_cached(SET_ACKED)?.execute(params![row.name, last.as_i64()])?;
    Ok(())
}

fn refuse_held(row: &ConsumerInfo, now: Timestamp) -> Result<()> {
    match &row.holder {
        Some(Holder { label, until, is_alive: true }) => {
            Err(Reason::Held { name: row.name.clone(), holder: label.clone(), left: until.since(now) }.into())
        }
        _ => Ok(()),
    }
}

/// Why a number is stale: who has the consumer now, if anybody.
fn fenced(conn: &Connection, now: Timestamp, name: &str) -> Result<Error> {
    let by = one(conn, now, name)?.and_then(|row| row.holder).map(|holder| holder.label);
    Ok(Reason::Fenced { name: name.to_owned(), by }.into())
}

fn position(conn: &Connection, last: Revision, start: ConsumerStart) -> Result<Option<i64>> {
    let there = |revision| {
        if revision > last {
            return Err(Error::from(Reason::Ahead { revision, last }));
        }
        reserve::refuse_lost(conn, revision).map(|()| Some(revision))
    };
    Ok(match start {
        ConsumerStart::Now => Some(last),
        ConsumerStart::Beginning => Some(log::trimmed(conn)?),
        ConsumerStart::After(revision) => there(revision)?,
        ConsumerStart::AfterCursor(cursor) => there(cursor.revision())?,
        ConsumerStart::Snapshot => None,
    }
    .map(Revision::as_i64))
}

fn next_fence(conn: &Connection) -> Result<u64> {
    let fence: i64 = conn.prepare_cached(NEXT_FENCE)?.query_row([], |row| row.get(0))?;
    unsigned(fence, "fence")
}

fn number(fence: u64) -> i64 {
    i64::try_from(fence).unwrap_or(i64::MAX)
}

fn unsigned(number: i64, what: &str) -> Result<u64> {
    u64::try_from(number)
        .map_err(|_| Reason::Corrupt { what: format!("{number} is no {what} of a consumer") }.into())
}

fn millis(time: Duration) -> i64 {
    // A hundred million years are enough, and leave room for the present.
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

/// The values of the columns `target` to `excluded_origin`.
type Columns<'p> = (&'p str, &'p str, Option<&'p str>, u8, bool, Option<&'p str>);

fn columns(part: &Part) -> Columns<'_> {
    let (target, group, key) = match &part.target {
        Target::Groups { prefix } => ("groups", prefix, None),
        Target::Group(group) => ("group", group, None),
        Target::Key { group, key } => ("key", group, Some(key)),
        Target::KeyPrefix { group, prefix } => ("key_prefix", group, Some(prefix)),
        Target::KeyName { groups, key } => ("key_name", groups, Some(key)),
    };
    (target, group, key.map(|key| &**key), part.kinds, part.group_deletions, part.excluded_origin.as_deref())
}

fn set_filter(conn: &Connection, name: &str, filter: &Filter) -> Result<()> {
    let mut union = "[]".to_owned();
    let columns = match filter.parts() {
        [part] => columns(part),
        parts => {
            for (target, group, key, kinds, deletions, origin) in parts.iter().map(columns) {
                let params = params![union, target, group, key, kinds, deletions, origin];
                union = conn.prepare_cached(ADD_PART)?.query_row(params, |row| row.get(0))?;
            }
            (UNION, "", Some(union.as_str()), 0, false, None)
        }
    };
    let (target, group, key, kinds, deletions, origin) = columns;
    conn.prepare_cached(SET_FILTER)?.execute(params![name, target, group, key, kinds, deletions, origin])?;
    Ok(())
}

fn read_filter(conn: &Connection, row: &Row<'_>) -> Result<Filter> {
    if row.get_ref(FILTER)?.as_str().is_ok_and(|target| target == UNION) {
        let mut statement = conn.prepare_cached(PARTS)?;
        let mut rows = statement.query([row.get::<_, String>(FILTER + 2)?])?;
        let mut parts = Vec::new();
        while let Some(row) = rows.next()? {
            parts.push(read_part(row, 0)?);
        }
        return Ok(Filter::of_parts(parts));
    }
    Ok(Filter::of_parts(vec![read_part(row, FILTER)?]))
}

/// What stands in six columns from `first` on.
fn read_part(row: &Row<'_>, first: usize) -> Result<Part> {
    let (target, group): (String, Box<str>) = (row.get(first)?, row.get(first + 1)?);
    let key: Option<Box<str>> = row.get(first + 2)?;
    let target = match (target.as_str(), key) {
        ("groups", None) => Target::Groups { prefix: group },
        ("group", None) => Target::Group(group),
        ("key", Some(key)) => Target::Key { group, key },
        ("key_prefix", Some(prefix)) => Target::KeyPrefix { group, prefix },
        ("key_name", Some(key)) => Target::KeyName { groups: group, key },
        _ => return Err(Reason::Corrupt { what: format!("{target:?} is no target of a consumer") }.into()),
    };
    let (kinds, group_deletions) = (row.get(first + 3)?, row.get(first + 4)?);
    Ok(Part { target, kinds, group_deletions, excluded_origin: row.get(first + 5)? })
}

/// Whether a lease still runs. One that reaches much farther than it may is of a clock that went back since.
fn is_alive(now: Timestamp, until: Timestamp, lease_ms: i64) -> bool {
    now < until && until.as_millis().saturating_sub(now.as_millis()) <= lease_ms.saturating_mul(2)
}

fn one(conn: &Connection, now: Timestamp, name: &str) -> Result<Option<ConsumerInfo>> {
    Ok(list(conn, now, &NameRange::exactly(name))?.pop())
}

/// The consumers of a range of names.
pub(super) fn list(conn: &Connection, now: Timestamp, names: &NameRange) -> Result<Vec<ConsumerInfo>> {
    let (end, trimmed) = (log::end(conn)?, log::trimmed(conn)?);
    let mut statement = conn.prepare_cached(SELECT)?;
    let mut rows = statement.query(params![names.lower(), names.to])?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        let time = |column: usize| -> Result<Option<Timestamp>> {
            Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
        };
        let acked = row.get::<_, Option<i64>>(1)?.map(Revision::from_i64).transpose()?;
        let lease_ms: i64 = row.get(7)?;
        let holder = match (row.get::<_, Option<String>>(5)?, time(6)?) {
            (Some(label), Some(until)) => {
                Some(Holder { label, until, is_alive: is_alive(now, until, lease_ms) })
            }
            _ => None,
        };
        let mut info = ConsumerInfo {
            name: row.get(0)?,
            filter: read_filter(conn, row)?,
            acked,
            acked_at: time(2)?,
            created: time(3)?.unwrap_or_default(),
            fence: unsigned(row.get(4)?, "fence")?,
            holder,
            lag_events: 0,
            lag_bytes: 0,
            oldest_unacked: None,
            lost: None,
        };
        if let Some(acked) = acked {
            let lost = || Some(Lagged { from: acked.next()?, to: trimmed });
            info.lost = if trimmed > acked { lost() } else { None };
            let written = end.0.get().saturating_sub(acked.get());
            info.lag_events = written.saturating_sub(reserve::missing_after(conn, acked)?);
            let first = conn
                .prepare_cached(FIRST_AFTER)?
                .query_row([acked.max(trimmed).as_i64()], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))
                .optional()?;
            if let Some((written, before)) = first {
                info.oldest_unacked = Some(Timestamp::from_millis(written));
                info.lag_bytes = u64::try_from(end.1.saturating_sub(before)).unwrap_or(0);
            }
        }
        list.push(info);
    }
    Ok(list)
}

/// The consumer that has acknowledged least, and up to where.
pub(super) fn floor(conn: &Connection) -> Result<Option<(String, Revision)>> {
    let row: Option<(String, i64)> =
        conn.prepare_cached(FLOOR)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    row.map(|(name, acked)| Ok((name, Revision::from_i64(acked)?))).transpose()
}

/// Refuses to trim what a consumer still needs.
pub(super) fn refuse_to_lose(conn: &Connection, cut: Revision) -> Result<()> {
    match floor(conn)? {
        Some((name, after)) if after < cut => Err(Reason::Needed { name, after }.into()),
        _ => Ok(()),
    }
}

/// Every row can be read, and no number of a taking is one that was not given out.
pub(super) fn check(conn: &Connection, problems: &mut Vec<String>) -> Result<()> {
    let given: i64 = conn.query_row(FENCES, [], |row| row.get(0))?;
    for row in list(conn, Timestamp::default(), &NameRange::prefix(""))? {
        if row.fence > unsigned(given, "fence")? {
            problems
                .push(format!("consumer {:?} has the number {}, the last is {given}", row.name, row.fence));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::event::Kind;

    #[test]
    fn every_filter_survives_the_file() -> Result<()> {
        let conn = Connection::open_in_memory()?;
        conn.execute_batch(super::super::schema::TABLES)?;
        let filters = [
            Filter::everything(),
            Filter::group("a"),
            Filter::group_prefix("a"),
            Filter::key("a", "b").without_group_deletions(),
            Filter::key_prefix("a", "b").exclude_origin("me"),
            Filter::key_name("b").kinds(Kind::ALL),
            Filter::any([]),
            Filter::any([
                Filter::group("a\0\"\\\u{1f511}"),
                Filter::key_name("12").kinds([]),
                Filter::key("a", "null").without_group_deletions(),
                Filter::key_prefix("a", "").exclude_origin("me"),
                Filter::group_prefix("a"),
            ]),
        ];
        for (at, filter) in filters.into_iter().enumerate() {
            let name = at.to_string();
            let act = Act::Take {
                filter: Some(filter.clone()),
                start: ConsumerStart::Now,
                holder: "me".to_owned(),
                lease: Duration::MAX,
            };
            let fence = apply(&conn, Timestamp::default(), Revision::ZERO, &name, &act)?;
            let row = one(&conn, Timestamp::default(), &name)?.expect("it was taken");
            assert_eq!((row.filter, row.fence), (filter, fence));
            assert!(row.holder.is_some_and(|holder| holder.is_alive));
        }
        Ok(())
    }

    #[test]
    fn a_lease_of_a_clock_that_went_back_does_not_run_for_hours() {
        let at = Timestamp::from_millis;
        assert!(is_alive(at(1_000), at(1_001), 10));
        assert!(is_alive(at(1_000), at(1_019), 10), "a small step back is no reason");
        assert!(!is_alive(at(1_000), at(1_000), 10));
        assert!(!is_alive(at(1_000), at(4_000_000), 10));
    }
}
