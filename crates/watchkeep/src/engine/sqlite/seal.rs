//! The seal: a row of `wk_meta`, which every write transaction reads, with the salt, before it writes anything. So it binds
//! all processes from one commit on. Releases that do not know it are told by a word of `needs_write`.

use rusqlite::{Connection, OptionalExtension};

use crate::types::error::Result;

/// The row that says why, and the word for those who do not know it.
pub(super) const NAME: &str = "sealed";

const TEXT: &str = "SELECT value FROM wk_meta WHERE name = 'sealed'";
const PUT: &str = "INSERT OR REPLACE INTO wk_meta (name, value) VALUES ('sealed', ?1)";
const DROP: &str = "DELETE FROM wk_meta WHERE name = 'sealed'";
const WORDS: &str = "SELECT value FROM wk_meta WHERE name = 'needs_write'";
const SET_WORDS: &str = "INSERT OR REPLACE INTO wk_meta (name, value) VALUES ('needs_write', ?1)";

/// Why the file is sealed, if it is.
pub(super) fn text(conn: &Connection) -> Result<Option<String>> {
    Ok(conn.prepare_cached(TEXT)?.query_row([], |row| row.get(0)).optional()?)
}

/// Seals the file, or changes the text of its seal, inside a write transaction.
pub(super) fn put(conn: &Connection, why: &str) -> Result<()> {
    conn.execute(PUT, [why])?;
    need(conn, true)
}

/// Lifts the seal, inside a write transaction.
pub(super) fn lift(conn: &Connection) -> Result<()> {
    conn.execute(DROP, [])?;
    need(conn, false)
}

/// Has our word stand in `needs_write` or not. The words of others stay.
fn need(conn: &Connection, needed: bool) -> Result<()> {
    let words: Option<String> = conn.query_row(WORDS, [], |row| row.get(0)).optional()?;
    let words = words.unwrap_or_default();
    let others = words.split_whitespace().filter(|word| *word != NAME);
    let words: Vec<&str> = others.chain(needed.then_some(NAME)).collect();
    conn.execute(SET_WORDS, [words.join(" ")])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sqlite::schema::TABLES;

    #[test]
    fn a_seal_tells_older_releases_and_leaves_the_words_of_others() -> Result<()> {
        let conn = Connection::open_in_memory()?;
        conn.execute_batch(TABLES)?;
        let words = || Ok::<String, crate::Error>(conn.query_row(WORDS, [], |row| row.get(0))?);
        conn.execute(SET_WORDS, ["theirs"])?;
        for why in ["moving", "it's moved"] {
            put(&conn, why)?;
            assert_eq!((text(&conn)?.as_deref(), words()?.as_str()), (Some(why), "theirs sealed"));
        }
        lift(&conn)?;
        lift(&conn)?;
        assert_eq!((text(&conn)?, words()?.as_str()), (None, "theirs"));
        Ok(())
    }
}
