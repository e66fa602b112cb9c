//! The store stays alive: under an open load, with a damaged row, beside a neighbour that stands still, with extreme
//! options, and with a user's code that panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use watchkeep::{
    Clock, ConsumerOptions, Durability, ErrorKind, Filter, Force, Kind, ManualClock, Options, Retention,
    Store, SystemClock, Timestamp, WatchOptions,
};
use watchkeep_testkit::availability::{Probe, Report, probe};
use watchkeep_testkit::surface::{Fault, block_on};

/// Far longer than anything takes that goes right.
const LIMIT: Duration = Duration::from_secs(60);

fn open(options: Options) -> Result<(tempfile::TempDir, Store), Fault> {
    let folder = tempfile::tempdir()?;
    let store = options.open(folder.path().join("app.db"))?;
    Ok((folder, store))
}

fn usual(label: &str) -> Probe<'_> {
    Probe { label, limit: LIMIT, patience: LIMIT }
}

fn assert_alive(report: &Report) {
    assert!(report.is_clean() && report.came >= 11, "{report:?}");
}

#[test]
fn everything_is_answered_and_told() -> Result<(), Fault> {
    let (_folder, store) = open(Options::new())?;
    assert_alive(&probe(&store, usual("a"))?);
    assert_alive(&probe(&Store::open_in_memory()?, usual("b"))?);
    Ok(())
}

#[test]
fn asynchronous_writes_that_nobody_awaits_starve_nobody() -> Result<(), Fault> {
    let (_folder, store) = open(Options::new().durability(Durability::Full))?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // At this pace, whatever becomes of them: faster than a disk commits one by one.
            let (store, mut next) = (store.to_async(), Instant::now());
            while !over.load(Ordering::Acquire) {
                drop(store.set("load", "k", "v"));
                next += Duration::from_micros(20);
                while Instant::now() < next {
                    std::hint::spin_loop();
                }
            }
        });
        let report = probe(&store, usual("a"));
        over.store(true, Ordering::Release);
        let report = report?;
        // Where the machine is too slow for this load, the queue is full now and then.
        let full =
            |(what, kind): &(&str, ErrorKind)| *what == "an asynchronous write" && *kind == ErrorKind::Busy;
        assert!(report.silences.is_empty() && report.refused.iter().all(full), "{report:?}");
        Ok(())
    })
}

#[test]
fn a_damaged_row_that_is_due_goes_and_stops_nothing_else() -> Result<(), Fault> {
    let clock = Arc::new(ManualClock::default());
    let (_folder, store) = open(Options::new().clock(clock.clone()))?;
    let minute = Duration::from_secs(60);
    for key in ["number", "nothing", "name", "whole"] {
        store.set_with_ttl("g", key, "v", minute)?;
    }
    let damage = Connection::open(store.path().ok_or("it is in memory")?)?;
    damage.busy_timeout(LIMIT)?;
    damage.execute(
        "UPDATE wk_entries SET value = 5, content_type = 7, revision = -1 WHERE key = 'number'",
        [],
    )?;
    damage.execute("UPDATE wk_entries SET value = 5.5 WHERE key = 'nothing'", [])?;
    damage.execute("UPDATE wk_entries SET key = x'ff00' WHERE key = 'name'", [])?;
    let mut watcher = store.watch_with(Filter::group("g"), WatchOptions::new())?;
    clock.advance(minute);
    let mut expired = Vec::new();
    for _ in 0..3 {
        let event = watcher.recv_timeout(LIMIT).ok_or("no event")??;
        assert_eq!(event.kind(), Kind::Expire);
        let value = event.value().map(|value| value.to_string_lossy().into_owned());
        expired.push((event.key().unwrap_or_default().to_owned(), value));
    }
    expired.sort();
    let gone = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
    assert_eq!(expired, [gone("nothing", None), gone("number", None), gone("whole", Some("v"))]);
    // Its name is not told, but it does not come first for ever, either.
    let rows: i64 = damage.query_row("SELECT count(*) FROM wk_entries", [], |row| row.get(0))?;
    assert_eq!(rows, 0);
    store.set("g", "after", "v")?;
    assert_eq!(watcher.recv_timeout(LIMIT).ok_or("no event")??.key(), Some("after"));
    Ok(())
}

#[test]
fn damage_in_other_columns_and_tables_stops_no_expiry_either() -> Result<(), Fault> {
    for damage in [
        "UPDATE wk_entries SET deadline = deadline + 0.5 WHERE key = 'bad'",
        "UPDATE wk_entries SET deadline = 'soon' WHERE key = 'bad'",
        "UPDATE wk_groups SET keys = 'x' WHERE name = 'ns:bad'",
        "UPDATE wk_groups SET bytes = x'00' WHERE name = 'ns:bad'",
        "UPDATE wk_groups SET name = x'ff' WHERE name = 'ns:bad'",
    ] {
        let clock = Arc::new(ManualClock::default());
        let (_folder, store) = open(Options::new().clock(clock.clone()))?;
        let minute = Duration::from_secs(60);
        store.set_with_ttl("ns:bad", "bad", "v", minute)?;
        let mut watcher = store.watch_with(Filter::group("good"), WatchOptions::new().buffer(1_000))?;
        let conn = Connection::open(store.path().ok_or("it is in memory")?)?;
        conn.busy_timeout(LIMIT)?;
        conn.execute(damage, [])?;
        for round in 0..3 {
            store.set_with_ttl("good", "k", round.to_string(), minute)?;
            clock.advance(minute);
            let kinds: Vec<_> = (0..2)
                .map(|_| Ok(watcher.recv_timeout(LIMIT).ok_or("no event")??.kind()))
                .collect::<Result<_, Fault>>()?;
            assert_eq!(kinds, [Kind::Set, Kind::Expire], "{damage}");
        }
    }
    Ok(())
}

#[test]
fn a_damaged_consumer_holds_nothing_back_and_can_be_removed() -> Result<(), Fault> {
    for acked in ["'x'", "-5"] {
        let (_folder, store) = open(Options::new().retention(Retention {
            max_events: 50,
            min_events: 10,
            ..Retention::FOREVER
        }))?;
        drop(store.consumer("billing")?);
        let conn = Connection::open(store.path().ok_or("it is in memory")?)?;
        conn.busy_timeout(LIMIT)?;
        conn.execute(&format!("UPDATE wk_consumers SET acked = {acked}"), [])?;
        for number in 0..300 {
            store.set("g", "k", number.to_string())?;
        }
        let began = Instant::now();
        while conn.query_row("SELECT count(*) FROM wk_log", [], |row| row.get::<_, i64>(0))? > 100 {
            assert!(began.elapsed() < LIMIT, "nothing is trimmed");
            store.set("g", "k", "more")?;
        }
        store.remove_consumer("billing", Force::Yes)?;
        assert_eq!(store.consumers()?.len(), 0);
    }
    Ok(())
}

#[test]
fn reads_wait_neither_for_a_neighbour_that_writes_nor_for_transactions_that_do() -> Result<(), Fault> {
    let (_folder, store) = open(Options::new().busy_timeout(LIMIT * 2))?;
    store.set("g", "k", "v")?;
    let neighbour = Connection::open(store.path().ok_or("it is in memory")?)?;
    neighbour.execute_batch("BEGIN IMMEDIATE")?;
    // More of them than there are threads of any kind.
    let waiting: Vec<_> = (0..40)
        .map(|_| {
            let store = store.to_async();
            thread::spawn(move || block_on(store.transaction(|tx| tx.set("g", "k", "w"))).map(drop))
        })
        .collect();
    let late = store.to_async();
    let (answered, answer) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || answered.send(block_on(late.get("g", "k"))).is_ok());
    let value = answer.recv_timeout(LIMIT)??;
    assert_eq!(value.as_deref(), Some(&b"v"[..]));
    neighbour.execute_batch("ROLLBACK")?;
    for transaction in waiting {
        transaction.join().map_err(|_| "panicked")??;
    }
    reader.join().map_err(|_| "panicked")?;
    assert_alive(&probe(&store, usual("a"))?);
    Ok(())
}

#[test]
fn a_neighbour_that_stands_still_costs_writers_their_busy_timeout_and_no_more() -> Result<(), Fault> {
    let (_folder, store) = open(Options::new().busy_timeout(Duration::from_millis(50)))?;
    let neighbour = Connection::open(store.path().ok_or("it is in memory")?)?;
    neighbour.execute_batch("BEGIN IMMEDIATE")?;
    let report = probe(&store, Probe { patience: Duration::from_millis(50), ..usual("a") })?;
    assert_eq!(report.silences, [], "{report:?}");
    let refused =
        |what| report.refused.iter().any(|(refused, kind)| (*refused, *kind) == (what, ErrorKind::Busy));
    assert!(
        refused("a write") && refused("an asynchronous write") && refused("another handle's write"),
        "{report:?}"
    );
    neighbour.execute_batch("ROLLBACK")?;
    assert_alive(&probe(&store, usual("b"))?);
    Ok(())
}

#[test]
fn no_option_is_too_large() -> Result<(), Fault> {
    let most = Duration::MAX;
    let (_folder, store) = open(Options::new().busy_timeout(most).snapshot_age(most))?;
    let neighbour = Connection::open(store.path().ok_or("it is in memory")?)?;
    neighbour.execute_batch("BEGIN IMMEDIATE")?;
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let store = store.clone();
            thread::spawn(move || store.set("g", "k", "v").map(drop))
        })
        .collect();
    neighbour.execute_batch("ROLLBACK")?;
    for writer in waiting {
        writer.join().map_err(|_| "panicked")??;
    }
    let options = move || ConsumerOptions::new().wait(most).lease(most).progress(most);
    let first = store.consumer_with("billing", options())?;
    let patient = store.clone();
    let second = thread::spawn(move || patient.consumer_with("billing", options()).map(drop));
    drop(first);
    second.join().map_err(|_| "panicked")??;
    let _watcher = store.watch_with(Filter::everything(), WatchOptions::new().progress(most))?;
    assert!(
        store
            .set_with_ttl("g", "k", "v", most)
            .is_err_and(|error| error.kind() == ErrorKind::InvalidArgument)
    );
    assert_alive(&probe(&store, usual("a"))?);
    Ok(())
}

#[test]
fn no_lease_passes_the_end_of_time() -> Result<(), Fault> {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(i64::MAX - 10)));
    let (_folder, store) = open(Options::new().clock(clock.clone()))?;
    let mut consumer = store.consumer("billing")?;
    clock.advance(Duration::from_millis(5));
    store.set("g", "k", "v")?;
    let event = consumer.recv_timeout(LIMIT).ok_or("no event")??;
    consumer.acker().ack(event.revision())?;
    drop(consumer);
    drop(store.consumer("billing")?);
    Ok(())
}

/// A clock that panics on the store's own thread, once it is told to.
#[derive(Debug, Default)]
struct Broken(AtomicBool);

impl Clock for Broken {
    fn now(&self) -> Timestamp {
        let here = thread::current();
        assert!(here.name() != Some("watchkeep") || !self.0.load(Ordering::Acquire), "the clock is broken");
        SystemClock.now()
    }
}

#[test]
fn a_panic_on_the_stores_thread_poisons_the_store_and_nobody_waits_in_silence() -> Result<(), Fault> {
    let clock = Arc::new(Broken::default());
    let (folder, store) = open(Options::new().clock(clock.clone()))?;
    store.set_with_ttl("g", "k", "v", Duration::from_secs(3600))?;
    let (mut watcher, mut consumer) =
        (store.watch_with(Filter::everything(), WatchOptions::new())?, store.consumer("billing")?);
    clock.0.store(true, Ordering::Release);
    // With a deadline there is always something for which that thread asks the time.
    let queued = store.to_async().set_with_ttl("g", "k2", "v", Duration::from_secs(1800));
    let told = watcher.recv_timeout(LIMIT).ok_or("the watch was not told")?;
    let error = told.err().or_else(|| watcher.recv_timeout(LIMIT).and_then(Result::err)).ok_or("no error")?;
    assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
    let error =
        std::iter::from_fn(|| consumer.recv_timeout(LIMIT)).find_map(Result::err).ok_or("no error")?;
    assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
    // It may have been committed before that thread died.
    drop(block_on(queued));
    assert!(store.get("g", "k")?.is_some());
    let poisoned = |refused: Result<_, watchkeep::Error>| refused.map(drop).map_err(|error| error.kind());
    assert_eq!(poisoned(store.set("g", "k", "w").map(drop)), Err(ErrorKind::Poisoned));
    assert_eq!(poisoned(block_on(store.to_async().set("g", "k", "w")).map(drop)), Err(ErrorKind::Poisoned));
    assert_eq!(poisoned(store.transaction(|tx| tx.set("g", "k", "w")).map(drop)), Err(ErrorKind::Poisoned));
    assert_eq!(
        poisoned(store.watch_with(Filter::everything(), WatchOptions::new()).map(drop)),
        Err(ErrorKind::Poisoned)
    );
    drop((watcher, consumer));
    store.close()?;
    let again = Store::open(folder.path().join("app.db"))?;
    assert_eq!(again.get("g", "k")?.as_deref(), Some(&b"v"[..]));
    assert_alive(&probe(&again, usual("a"))?);
    Ok(())
}
