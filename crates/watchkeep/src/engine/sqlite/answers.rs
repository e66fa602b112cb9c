//! The answers to batches with an id: what is applied once more is answered once more, and not done again.

use rusqlite::{Connection, OptionalExtension, params};

use crate::rules::Answer;
use crate::types::batch::{BatchId, Outcome};
use crate::types::clock::Timestamp;
use crate::types::error::{Error, Reason, Result};
use crate::types::limits::{ANSWER_STEP, ANSWER_TIME, ANSWERS};
use crate::types::revision::Revision;

const ANSWER: &str = "SELECT body, revision, outcomes FROM wk_answers WHERE client = ?1 AND sequence = ?2";
const LAST: &str = "SELECT max(sequence) FROM wk_answers WHERE client = ?1";
const KEEP: &str =
    "INSERT INTO wk_answers (client, sequence, at, body, revision, outcomes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const FORGET: &str = "DELETE FROM wk_answers WHERE client = ?1 AND sequence <= ?2";
const HAS_OLD: &str = "SELECT 1 FROM wk_answers WHERE at < ?1 LIMIT 1";
const DROP_OLD: &str = "DELETE FROM wk_answers WHERE (client, sequence) IN \
     (SELECT client, sequence FROM wk_answers WHERE at < ?1 LIMIT ?2)";

pub(super) fn find(conn: &Connection, id: &BatchId) -> Result<Option<Answer>> {
    let row: Option<(u32, i64, String)> = conn
        .prepare_cached(ANSWER)?
        .query_row(params![id.client, number(id.sequence)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((body, revision, outcomes)) = row else { return Ok(None) };
    Ok(Some(Answer { body, revision: Revision::from_i64(revision)?, outcomes: read(&outcomes)? }))
}

pub(super) fn newest(conn: &Connection, client: &str) -> Result<Option<u64>> {
    let last: Option<i64> = conn.prepare_cached(LAST)?.query_row([client], |row| row.get(0))?;
    Ok(last.map(i64::unsigned_abs))
}

/// Keeps an answer, in the transaction of what it answers, and forgets those that are too far back.
pub(super) fn keep(conn: &Connection, at: Timestamp, id: &BatchId, answer: &Answer) -> Result<()> {
    let Answer { body, revision, outcomes } = answer;
    let sequence = number(id.sequence);
    let row = params![id.client, sequence, at.as_millis(), body, revision.as_i64(), write(outcomes)];
    conn.prepare_cached(KEEP)?.execute(row)?;
    conn.prepare_cached(FORGET)?.execute(params![id.client, sequence.saturating_sub(number(ANSWERS))])?;
    Ok(())
}

/// A sequence is no larger than a revision.
fn number(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

fn before(now: Timestamp) -> i64 {
    now.as_millis().saturating_sub(i64::try_from(ANSWER_TIME.as_millis()).unwrap_or(i64::MAX))
}

/// Whether there are answers that nobody asks for any more.
pub(super) fn has_old(conn: &Connection, now: Timestamp) -> Result<bool> {
    Ok(conn.prepare_cached(HAS_OLD)?.exists([before(now)])?)
}

/// Drops some of them.
pub(super) fn drop_old(conn: &Connection, now: Timestamp) -> Result<()> {
    conn.prepare_cached(DROP_OLD)?.execute(params![before(now), ANSWER_STEP])?;
    Ok(())
}

/// `set:12 was:1 keys:3`
fn write(outcomes: &[Outcome]) -> String {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Set(revision) => format!("set:{revision}"),
        Outcome::Was(was) => format!("was:{}", u8::from(*was)),
        Outcome::Keys(keys) => format!("keys:{keys}"),
    };
    outcomes.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn read(text: &str) -> Result<Vec<Outcome>> {
    let outcome = |word: &str| {
        let (what, number) = word.split_once(':')?;
        let number: u64 = number.parse().ok()?;
        match what {
            "set" => Some(Outcome::Set(Revision::new(number))),
            "was" => Some(Outcome::Was(number > 0)),
            "keys" => Some(Outcome::Keys(number)),
            _ => None,
        }
    };
    let bad = || Error::from(Reason::Corrupt { what: format!("{text:?} is no answer to a batch") });
    text.split_whitespace().map(|word| outcome(word).ok_or_else(bad)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_survives_its_text() -> Result<()> {
        for outcomes in [
            vec![],
            vec![Outcome::Set(Revision::new(12)), Outcome::Was(true), Outcome::Was(false), Outcome::Keys(3)],
        ] {
            assert_eq!(read(&write(&outcomes))?, outcomes);
        }
        assert!(read("set").is_err() && read("set:x").is_err() && read("other:1").is_err());
        Ok(())
    }
}
