//! Named consumers: a row each in `wk_consumers`, and what the log keeps for them.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::rules::{ConsumerRow, describe};
use crate::types::clock::Timestamp;
use crate::types::consumer::ConsumerInfo;
use crate::types::error::{Reason, Result};
use crate::types::filter::{Filter, Part, Target};
use crate::types::name::NameRange;
use crate::types::revision::Revision;

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
const ROW: &str = "SELECT name, acked, acked_at, created, fence, holder, lease_until, lease_ms FROM wk_consumers WHERE name = ?1";
const PUT: &str = "INSERT INTO wk_consumers (name, acked, acked_at, created, fence, holder, lease_until, lease_ms, target, \
     target_group, kinds, group_deletions) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, '', '', 0, 0) \
     ON CONFLICT (name) DO UPDATE SET acked = ?2, acked_at = ?3, created = ?4, fence = ?5, holder = ?6, lease_until = ?7, \
     lease_ms = ?8";
const SET_FILTER: &str = "UPDATE wk_consumers SET target = ?2, target_group = ?3, target_key = ?4, kinds = ?5, \
     group_deletions = ?6, excluded_origin = ?7 WHERE name = ?1";
const REMOVE: &str = "DELETE FROM wk_consumers WHERE name = ?1";
const NEXT_FENCE: &str = "INSERT INTO wk_meta (name, value) VALUES ('fences', 1) \
     ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value";
const FENCES: &str = "SELECT coalesce((SELECT value FROM wk_meta WHERE name = 'fences'), 0)";
/// A row whose position cannot be read holds nothing back: it would hold back everything, for ever.
const FLOOR: &str = "SELECT name, acked FROM wk_consumers WHERE typeof(acked) = 'integer' AND acked >= 0 ORDER BY acked LIMIT 1";
const THERE: &str = "SELECT 1 FROM wk_consumers WHERE name = ?1";

/// The columns of [`row`] and [`put`], but for the name.
fn read_row(row: &Row<'_>) -> Result<ConsumerRow> {
    let time = |column: usize| -> Result<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
    };
    Ok(ConsumerRow {
        acked: row.get::<_, Option<i64>>(1)?.map(Revision::from_i64).transpose()?,
        acked_at: time(2)?,
        created: time(3)?.unwrap_or_default(),
        fence: unsigned(row.get(4)?, "fence")?,
        holder: row.get(5)?,
        lease_until: time(6)?,
        lives: None,
        lease: row.get(7)?,
    })
}

pub(super) fn row(conn: &Connection, name: &str) -> Result<Option<ConsumerRow>> {
    let mut statement = conn.prepare_cached(ROW)?;
    let mut rows = statement.query([name])?;
    rows.next()?.map(read_row).transpose()
}

pub(super) fn put(conn: &Connection, name: &str, row: &ConsumerRow) -> Result<()> {
    let millis = |time: Option<Timestamp>| time.map(Timestamp::as_millis);
    conn.prepare_cached(PUT)?.execute(params![
        name,
        row.acked.map(Revision::as_i64),
        millis(row.acked_at),
        row.created.as_millis(),
        i64::try_from(row.fence).unwrap_or(i64::MAX),
        row.holder,
        millis(row.lease_until),
        row.lease,
    ])?;
    Ok(())
}

/// Also of a row that cannot be read.
pub(super) fn is_there(conn: &Connection, name: &str) -> Result<bool> {
    Ok(conn.prepare_cached(THERE)?.exists([name])?)
}

pub(super) fn remove(conn: &Connection, name: &str) -> Result<()> {
    conn.prepare_cached(REMOVE)?.execute([name])?;
    Ok(())
}

pub(super) fn next_fence(conn: &Connection) -> Result<u64> {
    let fence: i64 = conn.prepare_cached(NEXT_FENCE)?.query_row([], |row| row.get(0))?;
    unsigned(fence, "fence")
}

/// Nobody holds any of them: of a copy that was just made.
pub(super) fn release_all(conn: &Connection) -> Result<()> {
    conn.execute("UPDATE wk_consumers SET holder = NULL, lease_until = NULL", [])?;
    Ok(())
}

fn unsigned(number: i64, what: &str) -> Result<u64> {
    u64::try_from(number)
        .map_err(|_| Reason::Corrupt { what: format!("{number} is no {what} of a consumer") }.into())
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

pub(super) fn set_filter(conn: &Connection, name: &str, filter: &Filter) -> Result<()> {
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

/// The consumers of a range of names.
pub(super) fn list(conn: &Connection, now: Timestamp, names: &NameRange) -> Result<Vec<ConsumerInfo>> {
    let mut statement = conn.prepare_cached(SELECT)?;
    let mut rows = statement.query(params![names.lower(), names.to])?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(describe(row.get(0)?, read_row(row)?, read_filter(conn, row)?, conn, now)?);
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
            let row = ConsumerRow {
                acked: Some(Revision::new(7)),
                acked_at: None,
                created: Timestamp::from_millis(1),
                fence: 3,
                holder: Some("me".to_owned()),
                lease_until: Some(Timestamp::from_millis(2)),
                lives: None,
                lease: 1,
            };
            put(&conn, &name, &row)?;
            set_filter(&conn, &name, &filter)?;
            assert_eq!(super::row(&conn, &name)?, Some(row));
            let listed = list(&conn, Timestamp::default(), &NameRange::exactly(&name))?.pop();
            assert_eq!(listed.expect("it is there").filter, filter);
        }
        Ok(())
    }
}
