//! The check finds damage that SQLite does not know of, done here by hand.

use crate::support::{Result, file_of};
use rusqlite::Connection;
use tempfile::TempDir;
use watchkeep::{Filter, Kind, Options, Retention, Revision, Store};

fn store() -> Result<(TempDir, Store)> {
    let folder = tempfile::tempdir()?;
    let store = Options::new()
        .durability(watchkeep::Durability::Relaxed)
        .retention(Retention::FOREVER)
        .open(folder.path().join("app.db"))?;
    for number in 0..5 {
        store.set("g", &number.to_string(), "v")?; // 1 to 5
    }
    store.set("g", "0", "newer")?; // 6
    store.set_with_ttl("t:h", "k", "v", crate::support::LIMIT * 1_000)?; // 7
    store.touch("t:h", "k", crate::support::LIMIT * 2_000)?; // 8
    store.transaction(|tx| {
        tx.set("t:h", "a", "1")?; // 9
        tx.set("t:h", "b", "2")?; // 10
        tx.delete("g", "4").map(drop) // 11
    })?;
    store.set("gone", "k", "v")?; // 12
    store.delete_group("gone")?; // 13
    store.with_origin("me").set("last", "k", "v")?; // 14
    Ok((folder, store))
}

/// What the check says after some damage.
fn damaged(sql: &str) -> Result<Vec<String>> {
    let (_folder, store) = store()?;
    let report = store.check()?;
    assert!(report.is_ok(), "before: {report:?}");
    assert_eq!((report.groups, report.events), (3, 14));
    let changed = Connection::open(file_of(&store))?.execute(sql, [])?;
    assert!(changed > 0, "{sql}: nothing was damaged");
    Ok(store.check()?.problems)
}

/// The damages that the check does not find.
fn unnoticed(damages: &[&str]) -> Result<Vec<String>> {
    let mut unnoticed = Vec::new();
    for sql in damages {
        match damaged(sql) {
            Ok(problems) if problems.is_empty() => unnoticed.push((*sql).to_owned()),
            Ok(_) => {}
            Err(error) => return Err(format!("{sql}: {error}").into()),
        }
    }
    Ok(unnoticed)
}

#[test]
fn a_sound_file_has_no_problems_whatever_was_done_to_it() -> Result {
    let (_folder, store) = store()?;
    for round in 0..3 {
        store.compact(Revision::new(5 * round))?;
        assert_eq!(store.check()?.problems, Vec::<String>::new());
        store.delete_group("g")?;
        store.set("g", "1", "again")?;
    }
    Ok(())
}

#[test]
fn the_check_counts_what_is_there_and_not_what_was_deleted_with_its_group() -> Result {
    let (_folder, store) = store()?;
    store.transaction(|tx| (0..3_000).try_for_each(|n| tx.set("large", &n.to_string(), "v")))?;
    store.delete_group("large")?;
    assert_eq!((store.check()?.entries, store.stats()?.entries), (8, 8));
    Ok(())
}

#[test]
fn a_counter_that_was_changed_is_found() -> Result {
    let left = unnoticed(&[
        "UPDATE wk_groups SET keys = keys + 1 WHERE name = 'g'",
        "UPDATE wk_groups SET keys = keys - 1 WHERE name = 't:h'",
        "UPDATE wk_groups SET bytes = bytes + 1 WHERE name = 'g'",
        "UPDATE wk_groups SET name = 'renamed' WHERE name = 'g'",
        "UPDATE wk_namespaces SET keys = keys + 1",
        "UPDATE wk_namespaces SET groups = groups + 1",
        "UPDATE wk_namespaces SET bytes = bytes - 1",
        "UPDATE wk_namespaces SET name = 'other'",
        "DELETE FROM wk_namespaces",
        "INSERT INTO wk_namespaces (name, keys, groups, bytes) VALUES ('other', 0, 1, 0)",
        "UPDATE wk_namespaces SET max_groups = -1",
        "INSERT INTO wk_groups (id, name, keys, bytes) VALUES (99, 'empty', 0, 0)",
        "DELETE FROM wk_groups WHERE name = 'g'",
    ])?;
    assert!(left.is_empty(), "not found: {left:#?}");
    Ok(())
}

#[test]
fn an_entry_that_was_changed_is_found() -> Result {
    let left = unnoticed(&[
        "UPDATE wk_entries SET value = 'w' WHERE key = '1'",
        "UPDATE wk_entries SET value = x'76' WHERE key = '1'",
        "UPDATE wk_entries SET value = 'longer' WHERE key = '1'",
        "UPDATE wk_entries SET key = '9' WHERE key = '1'",
        "UPDATE wk_entries SET revision = 3 WHERE key = '1'",
        "UPDATE wk_entries SET revision = 99 WHERE key = '1'",
        "UPDATE wk_entries SET group_id = (SELECT id FROM wk_groups WHERE name = 'last') WHERE key = '1'",
        "UPDATE wk_entries SET group_id = 12345 WHERE key = '1'",
        "DELETE FROM wk_entries WHERE key = '1'",
        "INSERT INTO wk_entries SELECT group_id, 'new', revision, created, updated, deadline, content_type, more, apart, value \
         FROM wk_entries WHERE key = '1'",
    ])?;
    assert!(left.is_empty(), "not found: {left:#?}");
    Ok(())
}

#[test]
fn an_entry_whose_other_columns_were_changed_is_found() -> Result {
    let left = unnoticed(&[
        "UPDATE wk_entries SET deadline = 5000000000000 WHERE key = '1'",
        "UPDATE wk_entries SET deadline = NULL WHERE key = 'k' AND deadline IS NOT NULL",
        "UPDATE wk_entries SET deadline = deadline + 1 WHERE deadline IS NOT NULL",
        "UPDATE wk_entries SET content_type = 'text/html' WHERE key = '1'",
        "UPDATE wk_entries SET created = 1 WHERE key = '1'",
        "UPDATE wk_entries SET created = 2 WHERE key = '0'",
        "UPDATE wk_entries SET updated = updated + 1 WHERE key = '1'",
    ])?;
    assert!(left.is_empty(), "not found: {left:#?}");
    Ok(())
}

#[test]
fn an_entry_that_fell_back_to_an_older_value_of_its_own_is_found() -> Result {
    // The log wrote this once, but something newer after it.
    let (_folder, store) = store()?;
    let conn = Connection::open(file_of(&store))?;
    conn.execute_batch(
        "BEGIN; UPDATE wk_groups SET bytes = bytes - 4 WHERE name = 'g'; \
         UPDATE wk_entries SET revision = 1, value = 'v' WHERE key = '0'; COMMIT",
    )?;
    assert!(!store.check()?.is_ok(), "a lost update was not found");
    Ok(())
}

#[test]
fn an_entry_that_was_lost_or_came_back_is_found_though_its_counters_agree() -> Result {
    let (_one, lost) = store()?;
    Connection::open(file_of(&lost))?.execute_batch(
        "BEGIN; DELETE FROM wk_entries WHERE key = '1'; \
         UPDATE wk_groups SET keys = keys - 1, bytes = bytes - 2 WHERE name = 'g'; COMMIT",
    )?;
    let (_two, back) = store()?;
    Connection::open(file_of(&back))?.execute_batch(
        "BEGIN; INSERT INTO wk_entries SELECT group_id, '4', 5, 5, updated, NULL, NULL, NULL, NULL, 'v' FROM wk_entries WHERE key = '1'; \
         UPDATE wk_groups SET keys = keys + 1, bytes = bytes + 2 WHERE name = 'g'; COMMIT",
    )?;
    let found = (!lost.check()?.is_ok(), !back.check()?.is_ok());
    assert_eq!(found, (true, true), "lost, and back again");
    Ok(())
}

#[test]
fn a_row_of_the_log_that_was_changed_is_found_whatever_the_column() -> Result {
    let left = unnoticed(&[
        "UPDATE wk_log SET revision = 99 WHERE revision = 14",
        "UPDATE wk_log SET commit_revision = 10 WHERE revision = 9",
        "UPDATE wk_log SET commit_revision = 12 WHERE revision = 11",
        "UPDATE wk_log SET kind = 2 WHERE revision = 3",
        "UPDATE wk_log SET kind = 77 WHERE revision = 3",
        "UPDATE wk_log SET group_name = 'h' WHERE revision = 3",
        "UPDATE wk_log SET key = 'x' WHERE revision = 3",
        "UPDATE wk_log SET key = NULL WHERE revision = 3",
        "UPDATE wk_log SET content_type = 'x' WHERE revision = 3",
        "UPDATE wk_log SET deadline = 5 WHERE revision = 3",
        "UPDATE wk_log SET deadline = NULL WHERE revision = 8",
        "UPDATE wk_log SET previous = 1 WHERE revision = 3",
        "UPDATE wk_log SET previous = NULL WHERE revision = 6",
        "UPDATE wk_log SET origin = 'x' WHERE revision = 3",
        "UPDATE wk_log SET origin = NULL WHERE revision = 14",
        "UPDATE wk_log SET timestamp = timestamp + 1 WHERE revision = 3",
        "UPDATE wk_log SET checksum = checksum + 1 WHERE revision = 3",
        "UPDATE wk_log SET value = 'w' WHERE revision = 3",
        "UPDATE wk_log SET value = NULL WHERE revision = 3",
        "UPDATE wk_log SET value = 5 WHERE revision = 3",
        "UPDATE wk_log SET value = 'w' WHERE revision = 13",
    ])?;
    assert!(left.is_empty(), "not found: {left:#?}");
    Ok(())
}

#[test]
fn a_running_total_of_the_log_that_was_changed_is_found() -> Result {
    // Retention by bytes relies on it.
    let left = unnoticed(&[
        "UPDATE wk_log SET total_bytes = total_bytes + 1000000 WHERE revision = 3",
        "UPDATE wk_log SET total_bytes = 0 WHERE revision = 14",
    ])?;
    assert!(left.is_empty(), "not found: {left:#?}");
    Ok(())
}

#[test]
fn a_row_of_the_log_that_was_removed_is_found() -> Result {
    let statements: Vec<_> = (1..=12)
        .chain([14])
        .map(|revision| format!("DELETE FROM wk_log WHERE revision = {revision}"))
        .collect();
    let mut damages: Vec<_> = statements.iter().map(String::as_str).collect();
    damages.extend(["DELETE FROM wk_log", "DELETE FROM wk_log WHERE revision > 8"]);
    let left = unnoticed(&damages)?;
    assert!(left.is_empty(), "not found: {left:#?}");
    Ok(())
}

#[test]
fn a_trim_mark_beyond_the_newest_event_is_found() -> Result {
    // It would hide the whole log, and have its end trimmed, from which the next revision comes.
    let left = unnoticed(&[
        "UPDATE wk_meta SET value = 14 WHERE name = 'trimmed'",
        "UPDATE wk_meta SET value = 99 WHERE name = 'trimmed'",
    ])?;
    assert!(left.is_empty(), "not found: {left:#?}");
    Ok(())
}

/// Row 3 is damaged so: whoever reads the log gets what comes before it, and then an error in its place.
fn told_in_its_place(damage: &str) -> Result {
    let (_folder, store) = store()?;
    Connection::open(file_of(&store))?.execute_batch(damage)?;
    let mut history = store.history(Filter::everything().kinds(Kind::ALL), Revision::ZERO);
    let error = history.find_map(|event| event.err()).ok_or("it was handed out")?;
    assert_eq!(error.kind(), watchkeep::ErrorKind::Corrupt);
    assert!(error.to_string().contains('3'), "{error}");
    let mut watcher =
        store.watch_with(Filter::everything(), watchkeep::WatchOptions::new().after(Revision::ZERO))?;
    // What comes before it is good, and told first.
    assert_eq!(crate::support::revisions(&crate::support::take(&mut watcher, 2)?), [1, 2]);
    for _ in 0..3 {
        let seen = watcher.recv_timeout(crate::support::LIMIT).ok_or("nothing")?;
        assert_eq!(seen.err().map(|error| error.kind()), Some(watchkeep::ErrorKind::Corrupt));
    }
    Ok(())
}

#[test]
fn a_reader_is_never_handed_a_row_that_does_not_match_its_checksum() -> Result {
    told_in_its_place("UPDATE wk_log SET value = 'forged' WHERE revision = 3")
}

/// As when the write-ahead log of another store lies beside the file: the row is whole, and not of this file.
#[test]
fn a_reader_is_never_handed_a_row_of_another_store() -> Result {
    let (folder, other) = store()?;
    let forge = format!(
        "ATTACH '{}' AS other; INSERT OR REPLACE INTO main.wk_log SELECT * FROM other.wk_log WHERE revision = 3;",
        file_of(&other).display()
    );
    told_in_its_place(&forge)?;
    drop(folder);
    Ok(())
}

#[test]
fn a_reader_never_passes_over_a_row_that_is_missing() -> Result {
    told_in_its_place("DELETE FROM wk_log WHERE revision = 3")?;
    told_in_its_place("DELETE FROM wk_log WHERE revision BETWEEN 3 AND 9")?;
    told_in_its_place("DELETE FROM wk_log WHERE revision BETWEEN 3 AND 13")
}

#[test]
fn the_check_goes_on_past_a_gap_of_any_size() -> Result {
    let problems = damaged(
        "UPDATE wk_log SET revision = 9000000000000000, commit_revision = 9000000000000000 WHERE revision = 14",
    )?;
    assert!(problems.iter().any(|problem| problem.contains("row 9000000000000000")), "{problems:#?}");
    Ok(())
}

#[test]
fn many_problems_are_reported_without_drowning_in_them() -> Result {
    let (_folder, store) = store()?;
    store.transaction(|tx| (0..500).try_for_each(|n| tx.set(&format!("h{n}"), "k", "v")))?;
    Connection::open(file_of(&store))?.execute("UPDATE wk_groups SET keys = 9", [])?;
    let problems = store.check()?.problems;
    assert!((1..=200).contains(&problems.len()), "{} lines", problems.len());
    Ok(())
}

#[test]
fn a_group_that_is_there_is_never_swept_whatever_is_noted() -> Result {
    let (_folder, store) = store()?;
    let sql = "INSERT INTO wk_dead (group_id) SELECT id FROM wk_groups WHERE name = 'g'";
    Connection::open(file_of(&store))?.execute(sql, [])?;
    let said = ["group \"g\" is there, and noted as deleted"];
    for _ in 0..2 {
        assert_eq!(store.check()?.problems, said);
        // What really goes is swept, which the store's thread does after this.
        store.set("goes", "k", "v")?;
        store.delete_group("goes")?;
        let left = "SELECT count(*) FROM wk_dead d WHERE NOT EXISTS (SELECT 1 FROM wk_groups g WHERE g.id = d.group_id)";
        let path = file_of(&store).to_owned();
        crate::support::eventually("it is swept", || {
            Ok(Connection::open(&path)?.query_row(left, [], |row| row.get::<_, i64>(0))? == 0)
        })?;
        assert_eq!(store.count("g")?, store.entries("g").count() as u64);
    }
    assert!(store.contains("g", "0")?);
    Ok(())
}

#[test]
fn a_key_that_became_bytes_is_damage_and_no_event_of_a_newer_release() -> Result {
    let (_folder, store) = store()?;
    let conn = Connection::open(file_of(&store))?;
    conn.execute("UPDATE wk_log SET key = CAST(key AS BLOB) WHERE revision = 3", [])?;
    assert!(store.check()?.problems.iter().any(|it| it.contains("row 3 of wk_log")), "{:?}", store.check()?);
    let told: Vec<_> = store.history(Filter::everything(), Revision::ZERO).collect();
    assert_eq!(told.len(), 3, "two events, and then the damage");
    assert!(told[2].as_ref().is_err_and(|error| error.kind() == watchkeep::ErrorKind::Corrupt));
    Ok(())
}

#[test]
fn an_entry_that_cannot_be_read_hides_no_other() -> Result {
    for damage in ["deadline = 'soon'", "value = 5", "key = x'00ff'", "revision = 'r'"] {
        let (_folder, store) = store()?;
        let conn = Connection::open(file_of(&store))?;
        conn.execute_batch("PRAGMA ignore_check_constraints = ON")?;
        conn.execute(&format!("UPDATE wk_entries SET {damage} WHERE key = '0'"), [])?;
        conn.execute("UPDATE wk_entries SET value = 'wrong' WHERE key = '3'", [])?;
        let problems = store.check()?.problems;
        let told = |what: &str| problems.iter().any(|problem| problem.contains(what));
        assert!(told("cannot be read") && told("\"g\" \"3\" is not what"), "{damage}: {problems:?}");
    }
    Ok(())
}

#[test]
fn settings_and_positions_that_make_no_sense_are_found() -> Result {
    assert_eq!(
        unnoticed(&[
            "UPDATE wk_meta SET value = 'many' WHERE name = 'trimmed'",
            "INSERT OR REPLACE INTO wk_meta VALUES ('max_events', 'many')",
            "INSERT OR REPLACE INTO wk_meta VALUES ('max_events', -1)",
            "INSERT OR REPLACE INTO wk_meta VALUES ('consumer_bytes', 1.5)",
            "INSERT INTO wk_meta VALUES ('max_evnets', 5)",
        ])?,
        Vec::<String>::new()
    );
    Ok(())
}
