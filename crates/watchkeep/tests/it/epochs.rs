//! Epochs: whatever a power cut takes, and whoever copies the file, no cursor means two things.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Result, next, revisions};
use watchkeep::{
    Batch, Condition, ConsumerOptions, ConsumerStart, Cursor, Durability, ErrorKind, Event, Filter, Force,
    Options, Retention, Revision, Store, WatchOptions,
};

const BOTH: [Durability; 2] = [Durability::Full, Durability::Relaxed];

fn open(path: &Path, durability: Durability, boot: &str) -> Result<Store> {
    Ok(Options::new().durability(durability).retention(Retention::FOREVER).boot_id(boot).open(path)?)
}

/// The files as they are now, as if the power had gone. By another program: this process must not open them.
fn copy(store: &Path, to: &Path) -> Result {
    let script = "cp \"$1\" \"$2\" && { ! [ -e \"$1-wal\" ] || cp \"$1-wal\" \"$2-wal\"; }";
    let done = Command::new("sh").args(["-c", script, "copy"]).args([store, to]).status()?;
    if done.success() { Ok(()) } else { Err("the files could not be copied".into()) }
}

/// A store of ten events, and what was told of a hundred more that a power cut took from it.
fn cut(folder: &Path, durability: Durability) -> Result<(PathBuf, Vec<Cursor>)> {
    let (path, after) = (folder.join("store.db"), folder.join("after.db"));
    let store = open(&path, durability, "first")?;
    (0..10).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
    copy(&path, &after)?;
    let told = (0..100).map(|_| Ok(store.cursor(store.set("g", "lost", "v")?)));
    Ok((after, told.collect::<Result<_>>()?))
}

fn epochs(path: &Path) -> Result<i64> {
    let sql = "SELECT count(*) FROM wk_epochs";
    Ok(rusqlite::Connection::open(path)?.query_row(sql, [], |row| row.get(0))?)
}

/// How every door refuses a cursor; all in the same way.
fn refusals(store: &Store, cursor: Cursor) -> Result<Vec<Option<ErrorKind>>> {
    let everything = Filter::everything;
    let start = || ConsumerOptions::new().start(ConsumerStart::AfterCursor(cursor));
    store.consumer("stays")?.close()?;
    let refused = [
        store.revision_of(cursor).err(),
        store.watch_with(everything(), WatchOptions::new().after_cursor(cursor)).err(),
        store.changes(everything(), Some(cursor), 10).err(),
        store.apply(Batch::new().require(Condition::at("g", "lost", cursor)).set("g", "other", "v")).err(),
        store.apply(Batch::new().require(Condition::unchanged(everything(), cursor))).err(),
        store.consumer_with("new", start()).err(),
        store.reset_consumer("stays", ConsumerStart::AfterCursor(cursor), Force::No).err(),
    ];
    Ok(refused.into_iter().map(|error| error.map(|error| error.kind())).collect())
}

#[test]
fn what_a_power_cut_took_is_refused_and_what_stayed_goes_on() -> Result {
    for durability in BOTH {
        let folder = tempfile::tempdir()?;
        let (path, lost) = cut(folder.path(), durability)?;
        let after = open(&path, durability, "second")?;
        let kept = after.cursor(Revision::new(9));
        // Before anything is written, and after the numbers were given again.
        for written in [false, true] {
            if written {
                (0..200).try_for_each(|_| after.set("g", "lost", "another").map(drop))?;
            }
            for cursor in [lost[0], lost[50], lost[99]] {
                assert_eq!(refusals(&after, cursor)?, [Some(ErrorKind::LostCursor); 7], "{cursor}");
            }
            assert_eq!(after.cursor(Revision::new(9)), kept);
            assert_eq!(after.revision_of(kept)?, Revision::new(9));
        }
        let again = after.cursor(lost[0].revision());
        assert_ne!(again, lost[0]);
        assert_eq!(after.revision_of(again)?, lost[0].revision());
        // Who had seen only what is still there goes on, and misses nothing.
        let mut watcher = after.watch_with(Filter::everything(), WatchOptions::new().after_cursor(kept))?;
        assert_eq!(next(&mut watcher)?.revision(), Revision::new(10));
        assert_eq!(next(&mut watcher)?.revision(), Revision::new(11));
        let all: Vec<Event> =
            after.history(Filter::everything(), Revision::ZERO).collect::<std::result::Result<_, _>>()?;
        assert_eq!(revisions(&all), (1..=210).collect::<Vec<_>>());
        assert!(after.check()?.is_ok());
        assert_eq!(epochs(&path)?, 2);
    }
    Ok(())
}

#[test]
fn what_one_copy_gave_the_other_refuses_in_both_directions() -> Result {
    for (by, durability) in
        [("cp", Durability::Full), ("cp", Durability::Relaxed), (".backup", Durability::Full)]
    {
        let folder = tempfile::tempdir()?;
        let (path, other) = (folder.path().join("store.db"), folder.path().join("other.db"));
        let store = open(&path, durability, "boot")?;
        let common = store.cursor(store.set("g", "k", "v")?);
        match by {
            "cp" => copy(&path, &other)?,
            _ => {
                let command = format!(".backup '{}'", other.display());
                assert!(Command::new("sqlite3").arg(&path).arg(command).status()?.success());
            }
        }
        // In the same boot, and with the same number.
        let copied = open(&other, durability, "boot")?;
        let ours = store.cursor(store.set("g", "k", "ours")?);
        let theirs = copied.cursor(copied.set("g", "k", "theirs")?);
        assert_eq!((ours.store(), ours.revision()), (theirs.store(), theirs.revision()));
        for store in [&store, &copied] {
            assert_eq!(store.revision_of(common)?, common.revision(), "{by}");
        }
        assert_eq!(refusals(&store, theirs)?, [Some(ErrorKind::LostCursor); 7], "{by}");
        assert_eq!(refusals(&copied, ours)?, [Some(ErrorKind::LostCursor); 7], "{by}");
        assert_eq!((epochs(&path)?, epochs(&other)?), (1, 2), "the one that stays begins nothing");
    }
    Ok(())
}

#[test]
fn an_epoch_begins_with_the_first_write_of_a_boot_and_no_cursor_changes() -> Result {
    for durability in BOTH {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("store.db");
        let mut given = Vec::new();
        for boot in 1..=3 {
            // Three openings of a boot, the first of which only reads.
            for opening in 0..3 {
                let store = open(&path, durability, &boot.to_string())?;
                for (nth, cursor) in given.iter().enumerate() {
                    let revision = Revision::new(nth as u64 + 1);
                    assert_eq!((store.cursor(revision), store.revision_of(*cursor)?), (*cursor, revision));
                }
                if opening > 0 {
                    let revision = store.set("g", "k", "v")?;
                    given.push(store.cursor(revision));
                    assert_eq!(revision, Revision::new(given.len() as u64));
                }
                store.close()?;
                assert_eq!(epochs(&path)?, if opening == 0 { i64::max(1, boot - 1) } else { boot });
            }
        }
        let mut tags: Vec<_> = given.iter().map(Cursor::epoch).collect();
        tags.dedup();
        assert_eq!(tags.len(), 3);
    }
    Ok(())
}

#[test]
fn one_that_was_open_before_knows_the_epoch_that_another_began() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.db");
    let first = open(&path, Durability::Relaxed, "one")?;
    let before = first.cursor(first.set("g", "k", "v")?);
    first.close()?;
    let [reads, writes] = [(); 2].map(|()| open(&path, Durability::Relaxed, "two"));
    let (reads, writes) = (reads?, writes?);
    let mut watcher = reads.watch("g", "k");
    let after = writes.set("g", "k", "v")?;
    assert_eq!(next(&mut watcher)?.revision(), after);
    assert_eq!(reads.cursor(after), writes.cursor(after));
    assert_ne!(reads.cursor(after).epoch(), before.epoch());
    assert_eq!(reads.cursor(before.revision()), before);
    // Its own first write begins no other.
    assert_eq!(reads.cursor(reads.set("g", "k", "v")?).epoch(), writes.cursor(after).epoch());
    assert_eq!(epochs(&path)?, 2);
    Ok(())
}

#[test]
fn many_that_write_first_at_once_begin_one_epoch() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.db");
    open(&path, Durability::Relaxed, "one")?.set("g", "k", "v")?;
    let stores: Vec<_> = (0..8).map(|_| open(&path, Durability::Relaxed, "two")).collect::<Result<_>>()?;
    let start = std::sync::Barrier::new(stores.len());
    std::thread::scope(|scope| {
        let write = |store| {
            let start = &start;
            move || {
                start.wait();
                Store::set(store, "g", "k", "v")
            }
        };
        let threads: Vec<_> = stores.iter().map(|store| scope.spawn(write(store))).collect();
        threads.into_iter().try_for_each(|thread| -> Result {
            thread.join().map_err(|_| "it panicked")??;
            Ok(())
        })
    })?;
    let (last, all) = (stores[0].last_revision()?, stores[0].cursor(Revision::new(2)).epoch());
    assert_eq!(last, Revision::new(9));
    assert!(stores.iter().all(|store| store.cursor(last).epoch() == all));
    assert_eq!(epochs(&path)?, 2);
    Ok(())
}

#[test]
fn a_backup_begins_anew() -> Result {
    let folder = tempfile::tempdir()?;
    let (path, backup) = (folder.path().join("store.db"), folder.path().join("backup.db"));
    let store = open(&path, Durability::Full, "boot")?;
    let cursor = store.cursor(store.set("g", "k", "v")?);
    store.backup(&backup)?;
    let copied = open(&backup, Durability::Full, "boot")?;
    let same = copied.cursor(cursor.revision());
    assert_ne!((same.store(), same.epoch()), (cursor.store(), cursor.epoch()));
    assert_eq!(copied.revision_of(cursor).map_err(|error| error.kind()), Err(ErrorKind::ForeignCursor));
    copied.set("g", "k", "v")?;
    assert_eq!(copied.revision_of(same)?, cursor.revision());
    assert!(copied.check()?.is_ok());
    Ok(())
}

#[test]
fn epochs_that_are_damaged_are_found_make_no_cursor_and_are_repaired() -> Result {
    for sql in [
        "DELETE FROM wk_epochs",
        "UPDATE wk_epochs SET tag = 'no epoch'",
        "UPDATE wk_epochs SET tag = x'00'",
        "UPDATE wk_epochs SET boot = x'00', file = x'00', floor = 'x'",
        "UPDATE wk_epochs SET floor = -1",
        "UPDATE wk_epochs SET floor = 7",
        "UPDATE wk_epochs SET ordinal = 5",
        "UPDATE wk_epochs SET ordinal = 9223372036854775807",
        "INSERT INTO wk_epochs SELECT 1, tag, boot, file, floor FROM wk_epochs",
    ] {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("store.db");
        let store = open(&path, Durability::Full, "boot")?;
        let given = store.cursor(store.set("g", "k", "v")?);
        store.close()?;
        rusqlite::Connection::open(&path)?.execute_batch(sql)?;
        let store = open(&path, Durability::Full, "boot")?;
        assert_eq!(store.get("g", "k")?.as_deref(), Some(&b"v"[..]), "what is there can be read: {sql}");
        let problems = store.check()?.problems;
        assert!(problems.iter().any(|problem| problem.starts_with("epoch:")), "{sql}: {problems:?}");
        assert_eq!(store.repair_counters()?.len(), 1, "{sql}");
        assert!(store.check()?.is_ok(), "{sql}");
        store.close()?;
        let store = open(&path, Durability::Full, "boot")?;
        assert!(store.revision_of(given).is_err(), "{sql}");
        let again = store.cursor(store.set("g", "k", "w")?);
        assert_eq!(store.revision_of(again)?, Revision::new(2), "{sql}");
    }
    Ok(())
}

#[test]
fn one_that_takes_itself_for_another_machine_s_costs_the_others_no_cursor() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.db");
    let stays = open(&path, Durability::Full, "boot")?;
    let before = stays.cursor(stays.set("g", "k", "v")?);
    for round in 0..3 {
        let other = open(&path, Durability::Full, &format!("other {round}"))?;
        let theirs = other.cursor(other.set("g", "k", "v")?);
        let ours = stays.cursor(stays.set("g", "k", "v")?);
        for cursor in [before, theirs, ours] {
            assert_eq!(stays.revision_of(cursor)?, cursor.revision(), "{round}");
            assert_eq!(other.revision_of(cursor)?, cursor.revision(), "{round}");
        }
    }
    Ok(())
}

#[test]
fn whoever_opens_at_once_without_a_wake_file_waits_for_the_others() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    // A folder at the wake file's name: whoever opens the store takes itself for alone.
    std::fs::create_dir(folder.path().join("app.db-wake"))?;
    let relaxed = Options::new().durability(Durability::Relaxed).busy_timeout(crate::support::LIMIT);
    let store = relaxed.clone().open(&path)?;
    std::thread::scope(|scope| {
        let write = |thread: u64| {
            let (relaxed, path) = (relaxed.clone(), &path);
            move || -> Result {
                for n in 0..8 {
                    let store = relaxed.clone().open(path)?;
                    store.set("g", &format!("{thread}-{n}"), "v")?;
                    store.close()?;
                }
                Ok(())
            }
        };
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(write(thread))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "it panicked")?)
    })?;
    assert_eq!((store.count("g")?, store.check()?.problems), (32, Vec::new()));
    let told: std::collections::BTreeSet<_> = store
        .history(Filter::everything(), Revision::ZERO)
        .map(|event| Ok(event?.key().unwrap_or_default().to_owned()))
        .collect::<Result<_>>()?;
    assert_eq!(told.len(), 32);
    Ok(())
}
