//! Many writers at once: committed together, acknowledged one by one, and refused at their own deadlines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::futures::{block_on, poll_once};
use crate::support::numbers::number;
use crate::support::{LIMIT, Result, anywhere, file_of, next, revisions, take, within_limit};
use rusqlite::Connection;
use watchkeep::{Durability, ErrorKind, Filter, Options, Revision, SetOptions, Store, WatchOptions};

/// Another program's connection to the file, which waits for nobody.
fn outsider(store: &Store) -> Result<Connection> {
    let conn = Connection::open(file_of(store))?;
    conn.busy_timeout(Duration::ZERO)?;
    Ok(conn)
}

#[test]
fn every_acknowledged_write_of_16_threads_is_in_the_log_exactly_once() -> Result {
    let folder = tempfile::tempdir()?;
    let store = Options::new().durability(Durability::Relaxed).open(folder.path().join("app.db"))?;
    let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().buffer(8))?;
    let acknowledged = thread::scope(|scope| -> Result<Vec<(u64, String)>> {
        let writers: Vec<_> = (0..16)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || -> Result<Vec<(u64, String)>> {
                    let mut acknowledged = Vec::new();
                    for number in 0..150 {
                        let key = format!("{writer}-{number}");
                        let revision = match number % 5 {
                            0 => store.transaction(|tx| tx.set("g", &key, "v"))?.revision,
                            1 => {
                                // Refused, and nothing in it counts.
                                let refused = store.set_with(
                                    "g",
                                    "once",
                                    "v",
                                    SetOptions::new().if_revision(Revision::new(1 << 40)),
                                );
                                assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::Conflict));
                                store.set("g", &key, "v")?
                            }
                            _ => store.set("g", &key, "v")?,
                        };
                        acknowledged.push((revision.get(), key));
                    }
                    Ok(acknowledged)
                })
            })
            .collect();
        let mut all = Vec::new();
        for writer in writers {
            all.extend(writer.join().map_err(|_| "panicked")??);
        }
        Ok(all)
    })?;
    let acknowledged: BTreeMap<_, _> = acknowledged.into_iter().collect();
    assert_eq!(acknowledged.len(), 16 * 150, "a revision for each");
    let logged: Vec<_> = store
        .history(Filter::everything(), Revision::ZERO)
        .map(|event| event.map(|event| (event.revision().get(), event.key().unwrap_or_default().to_owned())))
        .collect::<std::result::Result<_, _>>()?;
    assert_eq!(logged, acknowledged.into_iter().collect::<Vec<_>>());
    assert_eq!(revisions(&take(&mut watcher, 2_400)?), (1..=2_400).collect::<Vec<_>>());
    assert!(store.check()?.is_ok());
    Ok(())
}

#[test]
fn transactions_keep_their_events_together_among_16_threads() -> Result {
    let store = anywhere()?;
    let mut watcher = store.watch("*", "*");
    thread::scope(|scope| -> Result {
        let writers: Vec<_> = (0..16)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || -> Result {
                    for number in 0..40 {
                        let done = store.transaction(|tx| {
                            (0..=writer % 4)
                                .try_for_each(|n| tx.set(&format!("{writer}"), &format!("{number}-{n}"), "v"))
                        })?;
                        assert_eq!(
                            store
                                .entry(&format!("{writer}"), &format!("{number}-{}", writer % 4))?
                                .map(|entry| entry.revision),
                            Some(done.revision)
                        );
                        store.set("single", &format!("{writer}"), "v")?;
                    }
                    Ok(())
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| "panicked")?)
    })?;
    let last = number(store.last_revision()?);
    let mut after = 0;
    while after < last {
        let first = next(&mut watcher)?;
        let more = number(first.commit()) - number(first.revision());
        let rest = take(&mut watcher, usize::try_from(more)?)?;
        let expected = if first.group() == "single" { 1 } else { first.group().parse::<usize>()? % 4 + 1 };
        assert_eq!(rest.len() + 1, expected, "a transaction is whole");
        assert!(rest.iter().all(|event| event.group() == first.group() && event.commit() == first.commit()));
        assert_eq!(number(first.revision()), after + 1);
        after = number(first.commit());
    }
    Ok(())
}

#[test]
fn a_write_is_busy_after_the_busy_timeout_and_works_again_after_it() -> Result {
    within_limit(|| {
        let folder = tempfile::tempdir()?;
        let timeout = Duration::from_millis(200);
        let store = Options::new().busy_timeout(timeout).open(folder.path().join("app.db"))?;
        store.set("g", "before", "v")?;
        let other = outsider(&store)?;
        other.execute_batch("BEGIN IMMEDIATE")?;
        let start = Instant::now();
        let refused = store.set("g", "k", "v").map_err(|error| error.kind());
        assert_eq!(refused, Err(ErrorKind::Busy));
        assert!(start.elapsed() >= timeout, "it gave up early");
        assert!(start.elapsed() < LIMIT / 3, "it gave up late");
        assert_eq!(
            store.transaction(|tx| tx.set("g", "k", "v")).map_err(|error| error.kind()).err(),
            Some(ErrorKind::Busy)
        );
        // Readers do not mind.
        assert!(store.contains("g", "before")? && !store.contains("g", "k")?);
        other.execute_batch("COMMIT")?;
        store.set("g", "k", "v")?;
        assert_eq!(store.count("g")?, 2);
        Ok(())
    })
}

#[test]
fn those_who_queue_behind_a_busy_leader_are_busy_at_their_own_deadlines() -> Result {
    within_limit(|| {
        let folder = tempfile::tempdir()?;
        let timeout = Duration::from_millis(300);
        let store = Options::new().busy_timeout(timeout).open(folder.path().join("app.db"))?;
        let other = outsider(&store)?;
        other.execute_batch("BEGIN IMMEDIATE")?;
        let (done, results) = mpsc::channel();
        let writers: Vec<_> = (0..120)
            .map(|number: u64| {
                let (store, done) = (store.clone(), done.clone());
                thread::spawn(move || {
                    // They come one after the other, spread over more than one timeout.
                    let (_never, pause) = mpsc::channel::<()>();
                    pause.recv_timeout(Duration::from_millis(4 * number)).ok();
                    let start = Instant::now();
                    let result = match number % 3 {
                        0 => store.transaction(|tx| tx.set("g", "k", "v")).map(drop),
                        _ => store.set("g", &number.to_string(), "v").map(drop),
                    };
                    done.send((number, result.map_err(|error| error.kind()), start.elapsed())).ok();
                })
            })
            .collect();
        for _ in 0..120 {
            let (number, result, waited) = results.recv_timeout(LIMIT)?;
            assert_eq!(result, Err(ErrorKind::Busy), "writer {number}");
            assert!(waited >= timeout, "writer {number} gave up after {waited:?}, before its own deadline");
            // One after the other they would wait for 36 s.
            assert!(waited < timeout * 100, "writer {number} gave up after {waited:?}");
        }
        for writer in writers {
            writer.join().map_err(|_| "panicked")?;
        }
        other.execute_batch("COMMIT")?;
        assert_eq!(store.set("g", "k", "v")?, Revision::new(1), "nothing of it is in the file");
        Ok(())
    })
}

#[test]
fn who_queues_behind_a_busy_asynchronous_write_is_not_busy_before_its_own_deadline() -> Result {
    within_limit(|| {
        let folder = tempfile::tempdir()?;
        let timeout = Duration::from_millis(600);
        let store = Options::new().busy_timeout(timeout).open(folder.path().join("app.db"))?;
        let other = outsider(&store)?;
        other.execute_batch("BEGIN IMMEDIATE")?;
        // The store's own thread leads for this one.
        let writing = store.to_async().set("g", "asynchronous", "v");
        let writers: Vec<_> = (0..10)
            .map(|number: u64| {
                let store = store.clone();
                thread::spawn(move || {
                    let (_never, pause) = mpsc::channel::<()>();
                    pause.recv_timeout(Duration::from_millis(50 + 50 * number)).ok();
                    let start = Instant::now();
                    let result = store.set("g", &number.to_string(), "v").map_err(|error| error.kind());
                    (result, start.elapsed())
                })
            })
            .collect();
        for writer in writers {
            let (result, waited) = writer.join().map_err(|_| "panicked")?;
            assert_eq!(result, Err(ErrorKind::Busy));
            assert!(waited >= timeout, "gave up after {waited:?}, before its own deadline of {timeout:?}");
        }
        drop(writing);
        other.execute_batch("COMMIT")?;
        Ok(())
    })
}

/// Makes the file refuse some writes: an error that takes the statement, or the whole transaction, with it. Triggers
/// are off in our connections, so it is a column that may not be what it comes out as.
fn refuse(store: &Store, table: &str, conflict: &str) -> Result {
    Ok(outsider(store)?.execute_batch(&format!(
        "ALTER TABLE {table} ADD COLUMN refuse AS (CASE WHEN key LIKE 'bad%' THEN NULL ELSE 1 END) \
         NOT NULL ON CONFLICT {conflict}"
    ))?)
}

/// Nothing is wrong but the column that was added.
fn sound_but_for(store: &Store, table: &str) -> Result {
    let problems = store.check()?.problems;
    assert_eq!(problems, [format!("the table {table} is not one that we made")]);
    Ok(())
}

#[test]
fn a_write_that_takes_the_whole_transaction_with_it_fails_alone() -> Result {
    for table in ["wk_entries", "wk_log"] {
        for raise in ["ABORT", "ROLLBACK", "FAIL"] {
            let folder = tempfile::tempdir()?;
            let store = Options::new().durability(Durability::Relaxed).open(folder.path().join("app.db"))?;
            refuse(&store, table, raise)?;
            let mut watcher = store.watch("*", "*");
            let asynchronous = store.to_async();
            // While the closure runs, these queue up; the leader takes them along.
            let (mut good, mut bad) = (Vec::new(), Vec::new());
            let led = store.transaction(|tx| {
                elsewhere(|| {
                    // What it shares a commit with makes it run again.
                    for number in good.len()..20 {
                        good.push(asynchronous.set("g", &format!("good-{number}"), "v"));
                        if number % 5 == 2 {
                            bad.push(asynchronous.set("g", &format!("bad-{number}"), "v"));
                        }
                    }
                });
                tx.set("g", "leader", "v")
            });
            led.map_err(|error| format!("{table} {raise}: the leader failed: {error}"))?;
            let mut seen = BTreeSet::new();
            for (number, writing) in good.into_iter().enumerate() {
                let revision = block_on(writing).map_err(|error| format!("{table} {raise}: {error}"))?;
                let entry = store.entry("g", &format!("good-{number}"))?.ok_or("gone")?;
                assert_eq!(entry.revision, revision, "{table} {raise}");
                assert!(seen.insert(revision));
            }
            for writing in bad {
                assert!(block_on(writing).is_err(), "{table} {raise}");
            }
            let last = store.last_revision()?.get();
            assert_eq!((store.count("g")?, last), (21, 21), "{table} {raise}");
            assert_eq!(revisions(&take(&mut watcher, 21)?), (1..=21).collect::<Vec<_>>(), "{table} {raise}");
            assert!(watcher.try_recv().is_none());
            sound_but_for(&store, table)?;
        }
    }
    Ok(())
}

#[test]
fn a_panic_when_a_transaction_is_run_again_loses_nobody_who_was_taken_along() -> Result {
    // A leader that was slow takes nobody along, and its transaction is not run again: then it is tried anew.
    within_limit(|| {
        while !panics_when_run_again()? {}
        Ok(())
    })
}

/// Whether it was run again.
fn panics_when_run_again() -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let store = Options::new().durability(Durability::Relaxed).open(folder.path().join("app.db"))?;
    refuse(&store, "wk_entries", "ROLLBACK")?;
    let asynchronous = store.to_async();
    let (mut good, mut bad, mut runs) = (Vec::new(), Vec::new(), 0);
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        store.transaction(|tx| {
            runs += 1;
            if runs == 2 {
                std::panic::resume_unwind(Box::new("on purpose"));
            }
            elsewhere(|| {
                good.push(asynchronous.set("g", "one", "v"));
                bad.push(asynchronous.set("g", "bad", "v"));
                good.push(asynchronous.set("g", "two", "v"));
            });
            tx.set("g", "never", "v")
        })
    }));
    if unwound.is_ok() {
        assert_eq!(runs, 1);
        return Ok(false);
    }
    assert_eq!(runs, 2);
    for writing in good {
        block_on(writing)?;
    }
    for writing in bad {
        assert!(block_on(writing).is_err());
    }
    assert_eq!((store.count("g")?, store.last_revision()?.get()), (2, 2));
    Ok(true)
}

#[test]
fn a_transaction_that_fails_while_it_is_logged_leaves_no_event_behind() -> Result {
    for raise in ["ABORT", "ROLLBACK", "FAIL"] {
        let folder = tempfile::tempdir()?;
        let store = Options::new().durability(Durability::Relaxed).open(folder.path().join("app.db"))?;
        refuse(&store, "wk_log", raise)?;
        let mut watcher = store.watch("*", "*");
        let asynchronous = store.to_async();
        let mut others = Vec::new();
        let refused = store.transaction(|tx| {
            elsewhere(|| {
                if others.is_empty() {
                    others.push(asynchronous.set("g", "other", "v"));
                }
            });
            tx.set("g", "phantom", "v")?;
            tx.set("g", "bad", "v")
        });
        assert!(refused.is_err(), "{raise}");
        for other in others {
            block_on(other)?;
        }
        store.set("g", "last", "v")?;
        let seen: Vec<_> = take(&mut watcher, 2)?.iter().map(crate::support::line).collect();
        assert_eq!(seen, ["1 set g/other=v", "2 set g/last=v"], "{raise}");
        assert!(watcher.try_recv().is_none(), "{raise}");
        assert!(!store.contains("g", "phantom")?, "{raise}");
        sound_but_for(&store, "wk_log")?;
    }
    Ok(())
}

/// Does something on another thread, which may write while this one is inside a transaction.
fn elsewhere(f: impl FnOnce() + Send) {
    thread::scope(|scope| drop(scope.spawn(f)));
}

#[test]
fn asynchronous_writes_are_refused_at_once_when_too_many_bytes_of_them_are_queued() -> Result {
    let folder = tempfile::tempdir()?;
    let store = Options::new().busy_timeout(LIMIT).open(folder.path().join("app.db"))?.to_async();
    let outsider = outsider(store.store())?;
    outsider.execute_batch("BEGIN IMMEDIATE")?;
    let value = vec![0; 4 << 20];
    let mut queued = Vec::new();
    let refused = loop {
        let mut write = Box::pin(store.set("g", "k", value.clone()));
        match poll_once(write.as_mut()) {
            Some(outcome) => break outcome,
            None => queued.push(write),
        }
        assert!(queued.len() <= 16, "64 MiB are queued, and more is taken in");
    };
    let error = refused.err().ok_or("it was committed beside another's lock")?;
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(error.to_string().contains("await"), "{error}");
    // Nothing of it is lost, and afterwards there is room again.
    outsider.execute_batch("ROLLBACK")?;
    let accepted = queued.len();
    for write in queued {
        block_on(write)?;
    }
    let last = block_on(store.set("g", "k", "v"))?;
    assert_eq!((accepted, last.get()), (15, 16));
    Ok(())
}

#[test]
fn asynchronous_transactions_are_refused_at_once_when_too_many_wait_for_a_thread() -> Result {
    let folder = tempfile::tempdir()?;
    let store = Options::new().busy_timeout(Duration::ZERO).open(folder.path().join("app.db"))?.to_async();
    let (go, gone) = mpsc::channel::<()>();
    let gone = std::sync::Arc::new(std::sync::Mutex::new(gone));
    // One for each thread there can be, and then some.
    let stuck: Vec<_> = (0..64)
        .map(|_| {
            let gone = gone.clone();
            let mut call = Box::pin(store.blocking(move |_| {
                drop(gone.lock().map(|gone| gone.recv()));
                Ok(())
            }));
            assert!(poll_once(call.as_mut()).is_none());
            call
        })
        .collect();
    let mut queued = 0;
    let refused = loop {
        let mut write = Box::pin(store.transaction(|tx| tx.set("g", "k", "v")));
        match poll_once(write.as_mut()) {
            Some(outcome) => break outcome,
            None => queued += 1,
        }
        assert!(queued <= 70_000, "they are taken in without a bound");
    };
    assert_eq!(refused.err().map(|error| error.kind()), Some(ErrorKind::Busy));
    assert!(queued > 60_000, "{queued}");
    drop(go);
    for call in stuck {
        block_on(call)?;
    }
    Ok(())
}

#[test]
fn no_patience_is_enough_where_nobody_else_writes() -> Result {
    let folder = tempfile::tempdir()?;
    for patience in [Duration::ZERO, Duration::from_nanos(1)] {
        let store = Options::new().busy_timeout(patience).open(folder.path().join("app.db"))?.to_async();
        for number in 0..20 {
            block_on(store.set("g", &number.to_string(), "v"))?;
        }
    }
    Ok(())
}
