//! Files from the future: what a newer release may put into a file is refused, passed over or kept, and never damaged.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{LIMIT, Result, eventually, file_of, rows};
use rusqlite::{Connection, params};
use tempfile::TempDir;
use watchkeep::{
    Batch, Condition, Durability, Error, ErrorKind, Filter, Kind, ListOptions, ManualClock, Options,
    Revision, Store, WatchOptions,
};

const MINUTE: Duration = Duration::from_secs(60);

fn store(clock: &Arc<ManualClock>) -> Result<(TempDir, Store)> {
    let folder = tempfile::tempdir()?;
    let options = Options::new().durability(Durability::Relaxed).clock(clock.clone());
    let store = options.open(folder.path().join("app.db"))?;
    Ok((folder, store))
}

fn edit(store: &Store, sql: &str) -> Result {
    let conn = Connection::open(file_of(store))?;
    conn.busy_timeout(LIMIT)?;
    Ok(conn.execute_batch(sql)?)
}

fn is_sound(store: &Store) -> Result {
    assert_eq!(store.check()?.problems, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_feature_that_is_not_known_is_named_and_the_file_left_as_it_is() -> Result {
    for list in ["needs_read", "needs_write"] {
        let (_folder, store) = store(&Arc::default())?;
        store.set("g", "k", "v")?;
        let tables = "CREATE TABLE wk_x_spaces (name TEXT PRIMARY KEY) WITHOUT ROWID";
        edit(&store, &format!("{tables}; UPDATE wk_meta SET value = 'spaces' WHERE name = '{list}'"))?;
        let path = file_of(&store).to_owned();
        store.close()?;
        let before = fs::read(&path)?;
        for options in [Options::new(), Options::new().create(false), Options::new().adopt(true)] {
            let error = options.open(&path).err().ok_or("it was opened")?;
            assert_eq!(error.kind(), ErrorKind::NewerFormat, "{error}");
            assert!(error.to_string().contains("\"spaces\""), "{error}");
        }
        assert!(fs::read(&path)? == before, "the file was changed");
    }
    Ok(())
}

/// What fails because a group is a newer release's.
fn newer<T: std::fmt::Debug>(done: std::result::Result<T, Error>) {
    assert_eq!(done.as_ref().map_err(Error::kind).err(), Some(ErrorKind::NewerFormat), "{done:?}");
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[test]
fn a_group_of_a_newer_release_is_neither_read_nor_written_and_its_neighbours_are() -> Result {
    for flag in [1_i64, 2, 4, 8, 1 << 40] {
        let clock = Arc::new(ManualClock::default());
        let (_folder, store) = store(&clock)?;
        let large = "v".repeat(2_000);
        store.set("t:new", "k", &large[..])?;
        store.set_with_ttl("t:new", "due", "v", MINUTE)?;
        store.set_with_ttl("t:old", "due", "v", MINUTE)?;
        store.set("t:old", "k", "v")?;
        edit(&store, &format!("UPDATE wk_groups SET flags = {flag} WHERE name = 't:new'"))?;
        let contents = "SELECT * FROM wk_entries JOIN wk_groups ON id = group_id WHERE name = 't:new'";
        let before = rows(&store, contents)?;
        let last = store.last_revision()?;

        newer(store.get("t:new", "k"));
        newer(store.get("t:new", "no such key"));
        newer(store.entry("t:new", "k"));
        newer(store.count("t:new"));
        newer(store.page("t:new", ListOptions::new()));
        newer(store.keys_page("t:new", ListOptions::new()));
        newer(store.set("t:new", "k", "w"));
        newer(store.set("t:new", "another", "w"));
        newer(store.delete("t:new", "k"));
        newer(store.touch("t:new", "k", MINUTE));
        newer(store.delete_group("t:new"));
        newer(store.delete_prefix("t:"));
        newer(store.transaction(|tx| tx.set("t:old", "k", "w").and_then(|()| tx.set("t:new", "k", "w"))));
        assert_eq!(store.last_revision()?, last);

        // What is due there is not ours to remove, and keeps nobody awake; what is due elsewhere goes.
        clock.advance(MINUTE);
        eventually("it expires", || Ok(store.last_revision()? > last))?;
        assert_eq!(store.purge_expired()?, 0);
        assert_eq!((store.get("t:old", "k")?, store.get("t:old", "due")?), (Some("v".into()), None));
        store.set("t:old", "k", "w")?;
        store.delete_group("t:old")?;
        assert_eq!(rows(&store, contents)?, before);
        assert_eq!(rows(&store, "SELECT count(*) FROM wk_values")?, ["Integer(1)"]);
        is_sound(&store)?;
        assert_eq!(store.repair_counters()?, Vec::<String>::new());
        assert_eq!(rows(&store, contents)?, before);
    }
    Ok(())
}

#[test]
fn what_is_due_in_a_group_of_a_newer_release_is_counted_by_nobody_and_is_not_what_expires_next() -> Result {
    let clock = Arc::new(ManualClock::default());
    let (_folder, store) = store(&clock)?;
    store.set("new", "k", "v")?;
    store.set_with_ttl("new", "due", "v", MINUTE)?;
    store.set("old", "k", "v")?;
    store.set_with_ttl("old", "later", "v", 3 * MINUTE)?;
    edit(&store, "UPDATE wk_groups SET flags = 4 WHERE name = 'new'")?;
    let later = store.entry("old", "later")?.and_then(|entry| entry.deadline).ok_or("no deadline")?;
    for (entries, minutes) in [(4, 0), (3, 2)] {
        clock.advance(minutes * MINUTE);
        let stats = store.stats()?;
        assert_eq!(
            (store.count_all("")?, stats.entries, stats.groups, stats.bytes),
            (entries, entries, 2, 14)
        );
        // Nobody of this release removes the other, however long it is due.
        assert_eq!(stats.next_deadline, Some(later));
    }
    Ok(())
}

#[test]
fn a_group_of_a_newer_release_is_named_whatever_it_holds_here() -> Result {
    for flag in [2_i64, 1 << 40] {
        let (_folder, store) = store(&Arc::default())?;
        for group in ["a", "new", "z"] {
            store.set(group, "k", "v")?;
        }
        edit(
            &store,
            &format!(
                "BEGIN; UPDATE wk_groups SET flags = {flag}, keys = 0 WHERE name = 'new'; \
                 DELETE FROM wk_entries WHERE group_id = (SELECT id FROM wk_groups WHERE name = 'new'); COMMIT"
            ),
        )?;
        assert_eq!(store.groups("").collect::<watchkeep::Result<Vec<_>>>()?, ["a", "new", "z"]);
        newer(store.page("new", ListOptions::new()));
        newer(store.get("new", "k"));
        // Who reads everything is not told that this was all.
        let mut everything = store.watch_with(Filter::everything(), WatchOptions::new().snapshot())?;
        let told = std::iter::from_fn(|| everything.recv_timeout(LIMIT)).find(std::result::Result::is_err);
        newer(told.ok_or("it ends without an error")?);
    }
    Ok(())
}

#[test]
fn what_a_newer_release_deleted_it_sweeps_itself() -> Result {
    let clock = Arc::new(ManualClock::default());
    let (_folder, store) = store(&clock)?;
    store.set_with_ttl("gone", "k", "v", MINUTE)?;
    store.set("other", "k", "v")?;
    edit(
        &store,
        "BEGIN; INSERT INTO wk_dead (group_id, flags) SELECT id, 8 FROM wk_groups WHERE name = 'gone'; \
         DELETE FROM wk_groups WHERE name = 'gone'; COMMIT",
    )?;
    clock.advance(MINUTE);
    store.delete_group("other")?;
    eventually("the other is swept", || Ok(rows(&store, "SELECT count(*) FROM wk_dead")? == ["Integer(1)"]))?;
    assert_eq!(store.purge_expired()?, 0);
    assert_eq!(rows(&store, "SELECT key FROM wk_entries")?, ["Text([107])"]);
    Ok(())
}

/// A row of the log as a newer release may write it.
struct Row<'r> {
    kind: i64,
    key: Option<&'r [u8]>,
    is_text: bool,
    more: Option<&'r [u8]>,
    replaced: Option<&'r [u8]>,
}

impl Row<'_> {
    /// The checksum as `docs/format.md` has it, by its words alone.
    fn checksum(&self, salt: u32, revision: i64, group: &str, value: &[u8]) -> i64 {
        let mut bytes = Vec::new();
        for number in [revision, revision, self.kind, -1, -1, 7] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let mut sized = |bytes_of: Option<&[u8]>| {
            let len = bytes_of.map_or(-1, |bytes| signed(bytes.len()));
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(bytes_of.unwrap_or_default());
        };
        for text in [Some(group.as_bytes()), self.key, None, None, Some(value)] {
            sized(text);
        }
        let blob = (!self.is_text).then_some(&[][..]);
        for (column, later) in [(5_i64, blob), (13, self.more), (15, self.replaced)] {
            if let Some(later) = later {
                bytes.extend_from_slice(&column.to_le_bytes());
                bytes.extend_from_slice(&signed(later.len()).to_le_bytes());
                bytes.extend_from_slice(later);
            }
        }
        let mut crc = crc32fast::Hasher::new_with_initial(salt);
        crc.update(&bytes);
        i64::from(crc.finalize())
    }

    fn append(&self, conn: &Connection) -> Result {
        let number = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
        let revision = number("SELECT max(revision) + 1 FROM wk_log")?;
        let total = number("SELECT total_bytes FROM wk_log ORDER BY revision DESC LIMIT 1")?;
        let salt = u32::try_from(number("SELECT value FROM wk_meta WHERE name = 'salt'")?)?;
        let (group, value) = ("new", b"value");
        let key = self.key.map(|key| match self.is_text {
            true => rusqlite::types::Value::Text(String::from_utf8_lossy(key).into_owned()),
            false => rusqlite::types::Value::Blob(key.to_vec()),
        });
        let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let weight = group.len() + len(self.key) + value.len() + len(self.more) + len(self.replaced);
        conn.execute(
            "INSERT INTO wk_log (revision, commit_revision, kind, group_name, key, timestamp, total_bytes, checksum, more, \
             value, replaced) VALUES (?1, ?1, ?2, ?3, ?4, 7, ?5, ?6, ?7, CAST(?8 AS TEXT), ?9)",
            params![
                revision,
                self.kind,
                group,
                key,
                total + signed(weight),
                self.checksum(salt, revision, group, value),
                self.more,
                value,
                self.replaced
            ],
        )?;
        Ok(())
    }
}

const PLAIN: Row<'_> = Row { kind: 1, key: Some(b"k"), is_text: true, more: None, replaced: None };

#[test]
fn events_that_are_not_known_are_passed_over_and_the_others_arrive() -> Result {
    let (_folder, store) = store(&Arc::default())?;
    let mut live = store.watch("*", "*");
    store.set("g", "1", "v")?; // 1
    let conn = Connection::open(file_of(&store))?;
    conn.busy_timeout(LIMIT)?;
    conn.execute_batch("BEGIN IMMEDIATE")?;
    Row { kind: 9, ..PLAIN }.append(&conn)?; // 2
    Row { kind: 31, key: None, ..PLAIN }.append(&conn)?; // 3
    Row { key: Some(b"\xff\0"), is_text: false, ..PLAIN }.append(&conn)?; // 4
    Row { more: Some(b"\x01\x01x"), replaced: Some(b"before"), ..PLAIN }.append(&conn)?; // 5
    Row { kind: 9, ..PLAIN }.append(&conn)?; // 6
    conn.execute_batch("COMMIT")?;
    store.set("g", "2", "v")?; // 7
    conn.execute_batch("BEGIN IMMEDIATE")?;
    for _ in 0..600 {
        Row { kind: 9, ..PLAIN }.append(&conn)?; // to 607
    }
    conn.execute_batch("COMMIT")?;
    store.set("g", "3", "v")?; // 608
    let expected = [1, 5, 7, 608];
    let told = |watcher: &mut watchkeep::Watcher| -> Result<Vec<u64>> {
        let mut told = Vec::new();
        while told.last() != Some(&608) {
            let event = watcher.recv_timeout(LIMIT).ok_or("no event")??;
            assert_eq!((event.kind(), event.key().is_some()), (Kind::Set, true));
            told.push(event.revision().get());
        }
        Ok(told)
    };
    assert_eq!(told(&mut live)?, expected);
    for after in [0, 2, 6, 100, 607] {
        let options = WatchOptions::new().after(Revision::new(after)).buffer(1);
        let mut watcher = store.watch_with(Filter::everything().kinds(Kind::ALL), options)?;
        let rest: Vec<_> = expected.into_iter().filter(|revision| *revision > after).collect();
        assert_eq!(told(&mut watcher)?, rest, "after {after}");
    }
    let history: Vec<_> =
        store.history(Filter::everything(), Revision::ZERO).collect::<watchkeep::Result<_>>()?;
    assert_eq!(history.iter().map(|event| event.revision().get()).collect::<Vec<_>>(), expected);
    // What this release does not know it does not call damage either; and damage there it finds.
    let problems = store.check()?.problems;
    assert_eq!(problems, Vec::<String>::new());
    for damage in ["more = x'02'", "more = NULL", "replaced = NULL", "replaced = x'00'"] {
        conn.execute_batch(&format!("BEGIN; UPDATE wk_log SET {damage} WHERE revision = 5"))?;
        conn.execute_batch("COMMIT")?;
        assert!(!store.check()?.is_ok(), "{damage}");
        conn.execute_batch(
            "UPDATE wk_log SET more = x'010178', replaced = x'6265666f7265' WHERE revision = 5",
        )?;
    }
    is_sound(&store)
}

#[test]
fn what_is_not_known_counts_as_a_change_and_hides_no_damage_elsewhere() -> Result {
    let (_folder, store) = store(&Arc::default())?;
    store.set("new", "k", "v")?;
    store.set("g", "a", "v")?;
    let since = store.cursor(store.set("g", "b", "v")?);
    let conn = Connection::open(file_of(&store))?;
    conn.busy_timeout(LIMIT)?;
    for row in [Row { kind: 9, ..PLAIN }, Row { key: Some(b"\xff"), is_text: false, ..PLAIN }] {
        row.append(&conn)?;
    }
    // The entry that such an event wrote.
    conn.execute("UPDATE wk_entries SET revision = (SELECT max(revision) FROM wk_log) WHERE key = 'k'", [])?;
    let unchanged = |filter| store.apply(Batch::new().require(Condition::unchanged(filter, since))).map(drop);
    for filter in [Filter::group("new"), Filter::key("new", "k"), Filter::everything()] {
        assert_eq!(unchanged(filter).map_err(|error| error.kind()), Err(ErrorKind::Conflict));
    }
    unchanged(Filter::group("g"))?;
    is_sound(&store)?;
    conn.execute_batch(
        "BEGIN; DELETE FROM wk_entries WHERE key = 'a'; \
         UPDATE wk_groups SET keys = keys - 1, bytes = bytes - 2 WHERE name = 'g'; COMMIT",
    )?;
    assert!(!store.check()?.is_ok(), "a lost entry was not found");
    Ok(())
}

#[test]
fn a_snapshot_over_a_group_of_a_newer_release_ends_the_watch_with_one_error() -> Result {
    let (_folder, store) = store(&Arc::default())?;
    store.set("a", "k", "v")?;
    store.set("new", "k", "v")?;
    edit(&store, "UPDATE wk_groups SET flags = 8 WHERE name = 'new'")?;
    let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().snapshot())?;
    let error = std::iter::from_fn(|| watcher.recv_timeout(LIMIT)).find_map(|told| told.err());
    assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::NewerFormat));
    assert!(watcher.recv_timeout(LIMIT).is_none());
    Ok(())
}

#[test]
fn a_refused_group_spoils_no_transaction_that_looks_away() -> Result {
    let (_folder, store) = store(&Arc::default())?;
    store.set("a:new", "k", "v")?;
    store.set("a:old", "k", "v")?;
    edit(&store, "UPDATE wk_groups SET flags = 8 WHERE name = 'a:new'")?;
    store.transaction(|tx| {
        newer(tx.set("a:new", "k", "w"));
        newer(tx.delete_prefix("a:"));
        tx.set("a:old", "k", "w")
    })?;
    newer(store.delete_prefix("a:"));
    assert_eq!(store.get("a:old", "k")?, Some("w".into()));
    Ok(())
}

#[test]
fn a_feature_that_comes_while_the_store_is_open_ends_it() -> Result {
    let clock = Arc::new(ManualClock::default());
    let (_folder, store) = store(&clock)?;
    store.set("g", "k", "v")?;
    let mut watcher = store.watch("*", "*");
    edit(&store, "UPDATE wk_meta SET value = 'spaces' WHERE name = 'needs_write'")?;
    // Looked at with the deadlines, whenever others may have changed them.
    clock.advance(MINUTE);
    eventually("it is noticed", || Ok(store.set("g", "k", "w").is_err()))?;
    newer(store.set("g", "k", "w"));
    newer(store.get("g", "k"));
    assert!(std::iter::from_fn(|| watcher.recv_timeout(LIMIT)).any(|told| told.is_err()));
    store.close()?;
    Ok(())
}

#[test]
fn what_stands_in_the_spare_column_of_an_entry_stays_whatever_is_written_over_it() -> Result {
    let (_folder, store) = store(&Arc::default())?;
    let large = "v".repeat(2_000);
    store.set("g", "k", "v")?;
    edit(&store, "UPDATE wk_entries SET more = x'ff0101'")?;
    store.set("g", "k", &large[..])?;
    store.touch("g", "k", MINUTE)?;
    store.set("g", "k", "w")?;
    assert_eq!(rows(&store, "SELECT hex(more) FROM wk_entries")?, ["Text([70, 70, 48, 49, 48, 49])"]);
    assert_eq!(store.get("g", "k")?, Some("w".into()));
    is_sound(&store)
}
