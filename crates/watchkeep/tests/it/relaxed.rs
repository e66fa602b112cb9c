//! Relaxed durability: whatever a power cut takes, no revision is given twice.

use std::path::Path;
use std::process::Command;

use crate::support::{Result, next, revisions};
use watchkeep::{
    ConsumerOptions, ConsumerStart, Durability, ErrorKind, Event, Filter, Force, Options, Retention,
    Revision, Store, WatchOptions,
};

fn open(path: &Path) -> Result<Store> {
    Ok(Options::new().durability(Durability::Relaxed).retention(Retention::FOREVER).open(path)?)
}

/// The files as they are now, as if the power had gone. By another program: this process must not open them.
fn cut(store: &Path, to: &Path) -> Result {
    let script = "cp \"$1\" \"$2\" && { ! [ -e \"$1-wal\" ] || cp \"$1-wal\" \"$2-wal\"; }";
    let done = Command::new("sh").args(["-c", script, "cut"]).args([store, to]).status()?;
    if done.success() { Ok(()) } else { Err("the files could not be copied".into()) }
}

fn history(store: &Store) -> Result<Vec<Event>> {
    Ok(store.history(Filter::everything(), Revision::ZERO).collect::<std::result::Result<_, _>>()?)
}

#[test]
fn after_an_unclean_end_no_revision_comes_again() -> Result {
    let folder = tempfile::tempdir()?;
    let (path, copy) = (folder.path().join("store.db"), folder.path().join("copy.db"));
    let store = open(&path)?;
    (0..10).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
    cut(&path, &copy)?;
    // What the cut took: given, and seen, and gone.
    let mut lost = Vec::new();
    for _ in 0..2_000 {
        lost.push(store.set("g", "lost", "v")?);
    }
    let after = open(&copy)?;
    let first = after.set("g", "new", "v")?;
    assert!(lost.iter().all(|lost| *lost < first), "{first} comes again");
    for lost in [lost[0], lost[1_000], lost[1_999]] {
        for refused in [
            after.watch_with(Filter::everything(), WatchOptions::new().after(lost)).err(),
            after.history(Filter::everything(), lost).next().and_then(std::result::Result::err),
            after.changes(Filter::everything(), Some(after.cursor(lost)), 10).err(),
        ] {
            let error = refused.ok_or("it was not refused")?;
            assert_eq!(error.kind(), ErrorKind::ForeignCursor, "{error}");
            assert!(error.to_string().contains(&lost.to_string()), "{error}");
        }
    }
    // Who had seen only what is still there goes on, and misses nothing.
    let mut watcher = after.watch_with(Filter::everything(), WatchOptions::new().after(Revision::new(9)))?;
    assert_eq!(next(&mut watcher)?.revision(), Revision::new(10));
    assert_eq!(next(&mut watcher)?.revision(), first);
    let mut seen = revisions(&history(&after)?);
    assert_eq!(seen.pop(), Some(first.get()));
    assert_eq!(seen, (1..=10).collect::<Vec<_>>());
    let stats = after.stats()?;
    assert_eq!((stats.log_events, stats.last_revision), (11, first));
    let report = after.check()?;
    assert!(report.is_ok() && report.events == 11, "{report:?}");
    Ok(())
}

#[test]
fn a_consumer_goes_on_behind_what_a_cut_took_and_cannot_be_set_into_it() -> Result {
    let folder = tempfile::tempdir()?;
    let (path, copy) = (folder.path().join("store.db"), folder.path().join("copy.db"));
    let store = open(&path)?;
    let mut consumer = store.consumer("c")?;
    (0..10).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
    crate::support::take(&mut consumer, 10)?;
    consumer.ack(Revision::new(8))?;
    consumer.close()?;
    cut(&path, &copy)?;
    let lost = store.set("g", "lost", "v")?;
    let after = open(&copy)?;
    let first = after.set("g", "new", "v")?;
    let refused = [
        after.reset_consumer("c", ConsumerStart::After(lost), Force::No).err(),
        after.consumer_with("new", ConsumerOptions::new().start(ConsumerStart::After(lost))).err(),
    ];
    for refused in refused {
        assert_eq!(refused.ok_or("it was not refused")?.kind(), ErrorKind::ForeignCursor);
    }
    let row = after.consumers()?.pop().ok_or("it is gone")?;
    assert_eq!((row.acked, row.lag_events), (Some(Revision::new(8)), 3), "a gap is no event");
    let mut consumer = after.consumer("c")?;
    let seen: Vec<_> = crate::support::take(&mut consumer, 3)?.iter().map(Event::revision).collect();
    assert_eq!(seen, [Revision::new(9), Revision::new(10), first]);
    consumer.ack(first)?;
    assert_eq!(after.consumers()?.pop().map(|row| row.lag_events), Some(0));
    Ok(())
}

#[test]
fn a_gap_is_no_event_to_retention() -> Result {
    let folder = tempfile::tempdir()?;
    let (path, copy) = (folder.path().join("store.db"), folder.path().join("copy.db"));
    let store = open(&path)?;
    (0..10).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
    cut(&path, &copy)?;
    let options = Options::new().retention(Retention { min_events: 5, ..Retention::events(8) });
    let after = options.open(&copy)?;
    let new: Vec<_> = (0..3).map(|_| after.set("g", "new", "v")).collect::<std::result::Result<_, _>>()?;
    crate::support::eventually("eight stay", || Ok(after.stats()?.log_events == 8))?;
    let kept: Vec<_> = history(&after)?.iter().map(Event::revision).collect();
    let expected: Vec<_> = (6..=10).map(Revision::new).chain(new.iter().copied()).collect();
    assert_eq!(kept, expected);
    assert_eq!(after.compact(Revision::new(u64::MAX))?, 7, "all but the newest");
    assert_eq!(history(&after)?.first().map(Event::revision), new.last().copied());
    Ok(())
}

#[test]
fn closed_in_good_order_revisions_have_no_gap() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.db");
    for round in 1..=3 {
        let (one, other) = (open(&path)?, open(&path)?);
        assert_eq!(one.set("g", "k", "v")?, Revision::new(2 * round - 1));
        // The one that is left still counts on: nothing ended uncleanly.
        one.close()?;
        let third = open(&path)?;
        assert_eq!(other.set("g", "k", "v")?, Revision::new(2 * round));
        other.close()?;
        third.close()?;
    }
    assert_eq!(revisions(&history(&open(&path)?)?), (1..=6).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn a_transaction_larger_than_what_is_reserved_is_reserved_for() -> Result {
    let folder = tempfile::tempdir()?;
    let (path, copy) = (folder.path().join("store.db"), folder.path().join("copy.db"));
    let store = open(&path)?;
    let mut runs = 0;
    let done = store.transaction(|tx| {
        runs += 1;
        (0..10_000).try_for_each(|n| tx.set("g", &n.to_string(), "v"))
    })?;
    assert_eq!((done.revision, runs), (Revision::new(10_000), 2));
    cut(&path, &copy)?;
    assert!(open(&copy)?.set("g", "k", "v")? > Revision::new(10_001));
    Ok(())
}

#[test]
fn a_full_file_has_no_gap_whatever_happens() -> Result {
    let folder = tempfile::tempdir()?;
    let (path, copy) = (folder.path().join("store.db"), folder.path().join("copy.db"));
    let store = Store::open(&path)?;
    store.set("g", "k", "v")?;
    cut(&path, &copy)?;
    assert_eq!(Store::open(&copy)?.set("g", "k", "v")?, Revision::new(2));
    Ok(())
}

/// Without a wake file nobody knows who else has the file open, and each takes itself for the first and the last.
#[test]
fn who_wrongly_takes_itself_for_the_last_takes_no_reservation_from_others() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.db");
    std::fs::create_dir(folder.path().join("store.db-wake"))?;
    let stays = open(&path)?;
    stays.set("g", "k", "v")?;
    for round in 0..3 {
        let goes = open(&path)?;
        goes.set("g", "k", "v")?;
        let before = stays.set("g", "k", "v")?;
        goes.close()?;
        let given = stays.set("g", "k", "v")?;
        assert!(given > before);
        let sql = "SELECT value FROM wk_meta WHERE name = 'reserved'";
        let reserved: i64 = rusqlite::Connection::open(&path)?.query_row(sql, [], |row| row.get(0))?;
        assert!(
            reserved >= given.get().cast_signed(),
            "round {round}: {given} was given, {reserved} are reserved"
        );
    }
    Ok(())
}

/// A folder at the wake file's name: whoever opens the store takes itself for alone.
fn without_wake_file() -> Result<(tempfile::TempDir, std::path::PathBuf)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    std::fs::create_dir(folder.path().join("app.db-wake"))?;
    Ok((folder, path))
}

#[test]
fn an_opening_that_must_recover_waits_for_whoever_has_the_file_locked() -> Result {
    let (_folder, path) = without_wake_file()?;
    let relaxed = Options::new().durability(Durability::Relaxed).busy_timeout(crate::support::LIMIT);
    let store = relaxed.clone().open(&path)?;
    store.set("g", "k", "v")?;
    let shell = rusqlite::Connection::open(&path)?;
    shell.execute_batch("BEGIN IMMEDIATE")?;
    let hasty = relaxed.clone().busy_timeout(std::time::Duration::from_millis(1)).open(&path);
    assert_eq!(hasty.err().ok_or("it was opened")?.kind(), ErrorKind::Busy);
    let (opened, done) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| opened.send(relaxed.open(&path)));
        // Long enough for it to get there, mostly; when it does not, nothing is seen.
        let early = done.recv_timeout(std::time::Duration::from_millis(200));
        shell.execute_batch("COMMIT")?;
        assert!(early.is_err(), "it did not wait: {early:?}");
        done.recv_timeout(crate::support::LIMIT)??.set("g", "k", "v")?;
        Ok(())
    })
}

#[test]
fn whoever_opens_at_once_without_a_wake_file_waits_for_the_others() -> Result {
    let (_folder, path) = without_wake_file()?;
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
