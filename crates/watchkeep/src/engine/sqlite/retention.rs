//! Retention as it stands in the file: six rows of `wk_meta`; one that is missing is no limit.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::types::error::Result;
use crate::types::options::Retention;

const MAX_EVENTS: &str = "max_events";
const MAX_AGE: &str = "max_age_ms";
const MAX_BYTES: &str = "max_bytes";
const MIN_EVENTS: &str = "min_events";
const CONSUMER_AGE: &str = "consumer_age_ms";
const CONSUMER_BYTES: &str = "consumer_bytes";

/// Under which names it stands there.
pub(super) const NAMES: [&str; 6] =
    [MAX_EVENTS, MAX_AGE, MAX_BYTES, MIN_EVENTS, CONSUMER_AGE, CONSUMER_BYTES];

pub(super) fn read(conn: &Connection) -> Result<Retention> {
    let mut statement = conn.prepare_cached("SELECT value FROM wk_meta WHERE name = ?1")?;
    let mut limit = |name: &str| -> Result<Option<u64>> {
        let value: Option<i64> = statement.query_row([name], |row| row.get(0)).optional()?;
        Ok(value.and_then(|value| u64::try_from(value).ok()))
    };
    Ok(Retention {
        max_events: limit(MAX_EVENTS)?.unwrap_or(u64::MAX),
        max_age: limit(MAX_AGE)?.map_or(Duration::MAX, Duration::from_millis),
        max_bytes: limit(MAX_BYTES)?.unwrap_or(u64::MAX),
        min_events: limit(MIN_EVENTS)?.unwrap_or(0),
        consumer_age: limit(CONSUMER_AGE)?.map_or(Duration::MAX, Duration::from_millis),
        consumer_bytes: limit(CONSUMER_BYTES)?.unwrap_or(u64::MAX),
    })
}

pub(super) fn write(conn: &Connection, retention: &Retention) -> Result<()> {
    let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let limits = [
        (MAX_EVENTS, retention.max_events),
        (MAX_AGE, millis(retention.max_age)),
        (MAX_BYTES, retention.max_bytes),
        (MIN_EVENTS, retention.min_events),
        (CONSUMER_AGE, millis(retention.consumer_age)),
        (CONSUMER_BYTES, retention.consumer_bytes),
    ];
    for (name, limit) in limits {
        // What does not fit is no limit.
        match i64::try_from(limit) {
            Ok(limit) => conn.execute(
                "INSERT OR REPLACE INTO wk_meta (name, value) VALUES (?1, ?2)",
                params![name, limit],
            )?,
            Err(_) => conn.execute("DELETE FROM wk_meta WHERE name = ?1", [name])?,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_file_without_limits_and_with() -> Result<()> {
        let conn = Connection::open_in_memory()?;
        conn.execute_batch("CREATE TABLE wk_meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID")?;
        for retention in [Retention::default(), Retention::FOREVER, Retention::events(7)] {
            write(&conn, &retention)?;
            assert_eq!(read(&conn)?, retention);
        }
        Ok(())
    }
}
