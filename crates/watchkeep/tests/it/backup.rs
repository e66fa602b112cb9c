//! Backups: a whole state of one moment while writers write, under a new identity, or nothing at all; and stores made
//! of them again.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::{Result, eventually, file_of, rows};
use rusqlite::Connection;
use tempfile::TempDir;
use watchkeep::{
    BackupOptions, Durability, ErrorKind, Filter, Options, Retention, Revision, Store, WatchOptions,
};

/// A folder with a store of some megabytes.
fn store() -> Result<(TempDir, Store)> {
    let folder = tempfile::tempdir()?;
    let store = Options::new()
        .durability(Durability::Relaxed)
        .retention(Retention::events(100_000))
        .open(folder.path().join("app.db"))?;
    for batch in 0..4 {
        store.transaction(|tx| {
            (0..500).try_for_each(|n| tx.set("t:g", &format!("{batch}-{n}"), vec![b'x'; 1_000]))
        })?;
    }
    store.delete_group("t:gone")?;
    Ok((folder, store))
}

/// What a folder holds, but for companions of the store `app.db`.
fn others(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for file in fs::read_dir(folder)? {
        names.push(file?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| !name.starts_with("app.db"));
    names.sort();
    Ok(names)
}

fn pragma(path: &Path, name: &str) -> Result<String> {
    let conn = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(conn.query_row(&format!("PRAGMA {name}"), [], |row| Ok(format!("{:?}", row.get_ref(0)?)))?)
}

#[expect(clippy::unwrap_used, reason = "what is not refused fails the test")]
fn refusal<T: std::fmt::Debug>(result: watchkeep::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn backups_while_four_writers_write_are_whole_states_of_one_revision() -> Result {
    let (folder, store) = store()?;
    let stop = AtomicBool::new(false);
    let written = AtomicUsize::new(0);
    thread::scope(|scope| -> Result {
        for writer in 0..4 {
            let (store, stop, written) = (&store, &stop, &written);
            scope.spawn(move || {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    let done = store.transaction(|tx| {
                        // Both or neither: a copy of half a transaction shows.
                        tx.set("pair", &format!("{writer}-a"), round.to_string())?;
                        tx.set("pair", &format!("{writer}-b"), round.to_string())?;
                        tx.delete("t:g", &format!("0-{}", round % 500)).map(drop)
                    });
                    done.map(|_| written.fetch_add(1, Ordering::Relaxed)).unwrap();
                    round += 1;
                }
            });
        }
        // Also when an assertion fails: the writers must end.
        let _stop = Stop(&stop);
        (0..5).try_for_each(|number| -> Result {
            eventually("writers write", || Ok(written.swap(0, Ordering::Relaxed) > 20))?;
            let target = folder.path().join(format!("copy-{number}.db"));
            let (before, backup, after) =
                (store.stats()?.last_revision, store.backup(&target)?, store.stats()?.last_revision);
            assert!((before..=after).contains(&backup.revision), "{before} {} {after}", backup.revision);
            assert_eq!(backup.bytes, fs::metadata(&target)?.len());
            let copy = Store::open(&target)?;
            assert_eq!((copy.id(), copy.stats()?.last_revision), (backup.store, backup.revision));
            assert_eq!(copy.check()?.problems, Vec::<String>::new());
            for writer in 0..4 {
                let of = |side: &str| copy.get("pair", &format!("{writer}-{side}"));
                assert_eq!(of("a")?, of("b")?);
            }
            // Both go on, each by itself.
            copy.set("g", "only here", "v")?;
            assert!(!store.contains("g", "only here")?);
            copy.close()?;
            Ok(())
        })
    })?;
    assert_eq!(store.check()?.problems, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_copy_keeps_what_the_file_is_and_has_another_identity() -> Result {
    let (folder, store) = store()?;
    let target = folder.path().join("copy.db");
    let cursor = store.cursor(Revision::new(7));
    let backup = store.backup(&target)?;
    assert_ne!(backup.store, store.id());
    assert_eq!(fs::metadata(&target)?.permissions().mode() & 0o777, 0o600);
    for name in ["application_id", "user_version", "auto_vacuum", "page_size"] {
        assert_eq!(pragma(&target, name)?, pragma(file_of(&store), name)?, "{name}");
    }
    assert_eq!(others(folder.path())?, ["copy.db"], "it is one file, also after it was read");

    let copy = Store::open(&target)?;
    let (ours, theirs) = (store.stats()?, copy.stats()?);
    assert_eq!((theirs.durability, theirs.retention), (Durability::Relaxed, Retention::events(100_000)));
    assert_eq!((theirs.entries, theirs.log_events), (ours.entries, ours.log_events));
    let refused = copy.watch_with(Filter::everything(), WatchOptions::new().after_cursor(cursor));
    let refused = refused.err().ok_or("the cursor was taken")?;
    assert_eq!(refused.kind(), ErrorKind::ForeignCursor);
    assert!(refused.to_string().contains(backup.store.as_str()), "{refused}");
    let mut watcher = copy.watch_with(Filter::everything(), WatchOptions::new().after(Revision::new(7)))?;
    assert_eq!(crate::support::next(&mut watcher)?.revision(), Revision::new(8));
    // Each copy is another one.
    let again = store.backup(folder.path().join("again.db"))?;
    assert!(again.store != backup.store && again.revision == backup.revision);
    Ok(())
}

#[test]
fn a_name_that_is_taken_is_refused_and_what_is_there_is_left() -> Result {
    let (folder, store) = store()?;
    let at = |name: &str| folder.path().join(name);
    fs::write(at("taken.db"), "mine")?;
    fs::write(at("log.db-wal"), "mine")?;
    fs::create_dir(at("folder.db"))?;
    symlink(at("nowhere"), at("link.db"))?;
    for name in ["taken.db", "log.db", "folder.db", "link.db", "app.db"] {
        assert_eq!(refusal(store.backup(at(name))), ErrorKind::InvalidArgument, "{name}");
    }
    assert_eq!(fs::read(at("taken.db"))?, b"mine");
    assert_eq!(fs::read(at("log.db-wal"))?, b"mine");
    assert_eq!(refusal(store.backup(at("no/such/folder.db"))), ErrorKind::NotFound);
    assert_eq!(refusal(store.scoped("t")?.backup(at("copy.db"))), ErrorKind::InvalidArgument);
    assert_eq!(others(folder.path())?, ["folder.db", "link.db", "log.db-wal", "taken.db"]);
    store.close()?;
    assert_eq!(refusal(store.backup(at("copy.db"))), ErrorKind::Closed);
    Ok(())
}

#[test]
fn progress_goes_up_to_the_whole_and_may_give_up() -> Result {
    let (folder, store) = store()?;
    let (seen, log) = std::sync::mpsc::channel();
    let options = BackupOptions::new().on_progress(move |progress| {
        seen.send((progress.done, progress.total)).ok();
        ControlFlow::Continue(())
    });
    let backup = store.backup_with(folder.path().join("copy.db"), options)?;
    let log: Vec<_> = log.iter().collect();
    assert!(log.len() >= 3 && log.is_sorted(), "{log:?}");
    assert_eq!(log.last(), Some(&(backup.bytes, backup.bytes)));

    let steps = Arc::new(AtomicUsize::new(0));
    let counted = steps.clone();
    let options = BackupOptions::new().on_progress(move |_| {
        if counted.fetch_add(1, Ordering::Relaxed) == 1 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert_eq!(refusal(store.backup_with(folder.path().join("half.db"), options)), ErrorKind::Aborted);
    assert_eq!(steps.load(Ordering::Relaxed), 2);
    assert_eq!(others(folder.path())?, ["copy.db"]);
    store.set("g", "k", "the store goes on")?;
    Ok(())
}

#[test]
fn a_close_that_a_backup_s_progress_asks_for_comes_after_the_backup() -> Result {
    crate::support::within_limit(|| {
        let (folder, store) = store()?;
        for (name, asynchronous) in [("copy.db", false), ("async.db", true)] {
            let (store, target) = (Store::open(file_of(&store))?, folder.path().join(name));
            let inner = store.clone();
            let options = BackupOptions::new().on_progress(move |_| {
                inner.close().unwrap();
                ControlFlow::Continue(())
            });
            let backup = if asynchronous {
                futures_executor::block_on(store.to_async().backup(&target, options))?
            } else {
                store.backup_with(&target, options)?
            };
            assert_eq!(Store::open(&target)?.id(), backup.store);
            store.close()?;
            assert_eq!(refusal(store.get("g", "k")), ErrorKind::Closed);
        }
        Ok(())
    })
}

#[test]
fn of_two_backups_to_one_target_the_one_that_is_complete_first_stays() -> Result {
    let (folder, store) = store()?;
    let target = folder.path().join("copy.db");
    let (inner, second) = (store.clone(), target.clone());
    let (made, first) = std::sync::mpsc::channel();
    let options = BackupOptions::new().on_progress(move |_| {
        made.send(inner.backup(&second)).ok();
        ControlFlow::Continue(())
    });
    assert_eq!(refusal(store.backup_with(&target, options)), ErrorKind::InvalidArgument);
    let first = first.recv()??;
    assert_eq!(others(folder.path())?, ["copy.db"]);
    assert_eq!(Store::open(&target)?.id(), first.store);
    Ok(())
}

#[test]
fn whatever_lies_beside_the_target_is_left_alone_and_hinders_no_backup_or_restore() -> Result {
    crate::support::within_limit(|| {
        let (folder, backup, path) = saved()?;
        let store = Store::open(folder.path().join("app.db"))?;
        let at = |name: &str| folder.path().join(name);
        let script = r#"cd "$0" && mkdir folder.db-partial && mkfifo pipe.db-partial && echo mine > file.db-partial
            ln -s file.db-partial link.db-partial && ln -s nowhere dangling.db-partial && mkdir new.db-partial"#;
        assert!(std::process::Command::new("sh").args(["-c", script]).arg(folder.path()).status()?.success());
        let before = others(folder.path())?;
        for name in ["folder.db", "pipe.db", "file.db", "link.db", "dangling.db"] {
            store.backup(at(name))?;
            assert_eq!(Store::open(at(name))?.count("t:g")?, 2_000);
            assert!(at(&format!("{name}-partial")).symlink_metadata().is_ok(), "{name}");
            fs::remove_file(at(name))?;
            fs::remove_file(at(&format!("{name}-ballast"))).ok();
        }
        restore(&backup, &path, false)?;
        fs::remove_file(&path)?;
        assert_eq!(others(folder.path())?, before);
        assert_eq!(fs::read(at("file.db-partial"))?, b"mine\n");
        Ok(())
    })
}

#[test]
fn a_backup_of_an_adopted_file_holds_everybody_s_tables() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    Connection::open(&path)?.execute_batch(
        "PRAGMA application_id = 77; CREATE TABLE other (x); INSERT INTO other (rowid, x) VALUES (41, 'theirs')",
    )?;
    let store = Options::new().adopt(true).open(&path)?;
    store.set("g", "k", "ours")?;
    let target = folder.path().join("copy.db");
    store.backup(&target)?;
    let theirs: (i64, String) =
        Connection::open(&target)?
            .query_row("SELECT rowid, x FROM other", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    assert_eq!(
        (theirs, pragma(&target, "application_id")?),
        ((41, "theirs".to_owned()), "Integer(77)".to_owned())
    );
    assert_eq!(Store::open(&target)?.get("g", "k")?.ok_or("it is missing")?, "ours");
    Ok(())
}

#[test]
fn asynchronous_callers_back_up_without_blocking() -> Result {
    let (folder, store) = store()?;
    let target = folder.path().join("copy.db");
    let backup = futures_executor::block_on(store.to_async().backup(&target, BackupOptions::new()))?;
    assert_eq!(Store::open(&target)?.id(), backup.store);
    Ok(())
}

fn restore(backup: &Path, path: &Path, replace: bool) -> watchkeep::Result<watchkeep::Backup> {
    Store::restore(backup, path, BackupOptions::new().replace(replace))
}

/// A folder with a backup `saved.db`, and a path where nothing is yet.
fn saved() -> Result<(TempDir, PathBuf, PathBuf)> {
    let (folder, store) = store()?;
    store.backup(folder.path().join("saved.db"))?;
    store.close()?;
    let (backup, path) = (folder.path().join("saved.db"), folder.path().join("new.db"));
    Ok((folder, backup, path))
}

#[test]
fn a_restored_store_is_the_backup_under_another_identity_each_time() -> Result {
    let (folder, backup, path) = saved()?;
    let before = fs::read(&backup)?;
    let restored = restore(&backup, &path, false)?;
    assert_eq!((others(folder.path())?, restored.replaced), (vec!["new.db".into(), "saved.db".into()], None));
    let again = restore(&backup, &folder.path().join("again.db"), false)?;
    let store = Store::open(&path)?;
    assert!(store.id() == restored.store && store.id() != again.store);
    assert_eq!(store.check()?.problems, Vec::<String>::new());
    assert_eq!(store.count("t:g")?, 2_000);
    let cursor = Store::open(folder.path().join("again.db"))?.cursor(Revision::new(7));
    assert_eq!(cursor.store(), again.store);
    let refused = store.watch_with(Filter::everything(), WatchOptions::new().after_cursor(cursor));
    assert_eq!(refused.err().ok_or("the cursor was taken")?.kind(), ErrorKind::ForeignCursor);
    assert!(fs::read(&backup)? == before, "the backup was only read");
    Ok(())
}

#[test]
fn nothing_is_replaced_unasked_and_nothing_that_is_open() -> Result {
    let (folder, backup, _) = saved()?;
    let path = folder.path().join("app.db");
    assert_eq!(refusal(restore(&backup, &path, false)), ErrorKind::InvalidArgument);
    let store = Store::open(&path)?;
    store.set("g", "k", "newer")?;
    assert_eq!(refusal(restore(&backup, &path, true)), ErrorKind::Busy);
    // It was not touched: it goes on in write-ahead mode.
    store.set("g", "k", "newest")?;
    assert_eq!(store.check()?.problems, Vec::<String>::new());
    store.close()?;

    let restored = restore(&backup, &path, true)?;
    let aside = restored.replaced.ok_or("the old store is gone")?;
    assert_eq!(aside, path.canonicalize()?.with_file_name("app.db-replaced"));
    assert!(Store::open(&path)?.get("g", "k")?.is_none());
    assert_eq!(Store::open(&aside)?.get("g", "k")?.ok_or("it is missing")?, "newest");
    let second = restore(&backup, &path, true)?.replaced.ok_or("the old store is gone")?;
    assert!(second.ends_with("app.db-replaced-2") && aside.exists());
    Ok(())
}

#[test]
fn a_store_that_another_process_has_open_is_not_replaced() -> Result {
    let (folder, backup, _) = saved()?;
    let path = folder.path().join("app.db");
    // The shell of SQLite, reading, as any process of ours would.
    let mut shell = std::process::Command::new("sqlite3")
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    use std::io::{BufRead, Write};
    shell.stdin.as_mut().ok_or("no input")?.write_all(b"PRAGMA journal_mode = WAL; SELECT 1;\n")?;
    let mut line = String::new();
    let mut lines = std::io::BufReader::new(shell.stdout.take().ok_or("no output")?);
    lines.read_line(&mut line)?;
    let refused = restore(&backup, &path, true);
    shell.kill()?;
    shell.wait()?;
    assert_eq!(refusal(refused), ErrorKind::Busy);
    restore(&backup, &path, true)?;
    Ok(())
}

#[test]
fn a_backup_that_is_not_sound_is_refused_before_anything_is_touched() -> Result {
    let (folder, backup, path) = saved()?;
    let damaged = |name: &str, sql: &str| -> Result<PathBuf> {
        let copy = folder.path().join(name);
        fs::copy(&backup, &copy)?;
        Connection::open(&copy)?.execute_batch(sql)?;
        Ok(copy)
    };
    let text = folder.path().join("text.db");
    fs::write(&text, "this is a text, and long enough for SQLite to look at it closely")?;
    let cases = [
        (damaged("log.db", "UPDATE wk_log SET value = 'x' WHERE revision = 3")?, ErrorKind::Corrupt),
        (damaged("counter.db", "UPDATE wk_groups SET keys = 1")?, ErrorKind::Corrupt),
        (damaged("newer.db", "UPDATE wk_meta SET value = 99 WHERE name = 'format'")?, ErrorKind::NewerFormat),
        (
            damaged("trigger.db", "CREATE TRIGGER t AFTER INSERT ON wk_log BEGIN SELECT 1; END")?,
            ErrorKind::Corrupt,
        ),
        (text, ErrorKind::ForeignFile),
        (folder.path().to_owned(), ErrorKind::ForeignFile),
        (folder.path().join("missing.db"), ErrorKind::NotFound),
    ];
    let store = folder.path().join("app.db");
    let before = fs::read(&store)?;
    for (backup, kind) in cases {
        for target in [&path, &store] {
            assert_eq!(refusal(restore(&backup, target, true)), kind, "{backup:?}");
        }
    }
    assert!(!path.exists() && fs::read(&store)? == before);
    assert!(!others(folder.path())?.iter().any(|name| name.contains("partial") || name.contains("replaced")));
    // What is no store is not put aside for one.
    let other = folder.path().join("other.db");
    Connection::open(&other)?.execute_batch("CREATE TABLE t (x)")?;
    assert_eq!(refusal(restore(&backup, &other, true)), ErrorKind::ForeignFile);
    Ok(())
}

#[test]
fn counters_are_rebuilt_from_the_entries_and_nothing_else_is() -> Result {
    let (_folder, store) = store()?;
    store.set("plain", "k", "v")?;
    let file = || Connection::open(file_of(&store));
    let contents = |table: &str| rows(&store, &format!("SELECT * FROM {table} ORDER BY 1"));
    assert_eq!(store.repair_counters()?, Vec::<String>::new());
    let tables = ["wk_meta", "wk_groups", "wk_namespaces", "wk_entries", "wk_values", "wk_dead", "wk_log"];
    let before = tables.map(contents);
    file()?.execute_batch(
        "UPDATE wk_groups SET keys = keys + 5 WHERE name = 't:g'; UPDATE wk_groups SET bytes = 0 WHERE name = 'plain'; \
         UPDATE wk_namespaces SET groups = 9; \
         INSERT INTO wk_namespaces (name, keys, groups, bytes) VALUES ('ghost', 1, 1, 1); \
         INSERT INTO wk_groups (id, name, keys, bytes) VALUES (999999, 'empty', 3, 3)",
    )?;
    assert_eq!(store.check()?.problems.len(), 5, "{:?}", store.check()?.problems);
    let changed = store.repair_counters()?;
    assert_eq!(changed.len(), 5, "{changed:?}");
    assert_eq!(store.check()?.problems, Vec::<String>::new());
    for (table, before) in tables.iter().zip(before) {
        assert_eq!(contents(table)?, before?, "{table}");
    }
    // Damage of the log is told, and stays.
    file()?.execute_batch("UPDATE wk_log SET value = 'x' WHERE revision = 3")?;
    let damaged = store.check()?.problems;
    assert_eq!(store.repair_counters()?, Vec::<String>::new());
    assert!(!damaged.is_empty() && store.check()?.problems == damaged);
    assert_eq!(refusal(store.scoped("t")?.repair_counters()), ErrorKind::InvalidArgument);
    Ok(())
}
