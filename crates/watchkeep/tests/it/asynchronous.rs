//! The store for callers that must not block: on any runtime, and whatever is dropped on the way.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::support::futures::{block_on, next, poll_once};
use crate::support::numbers::{number, numbers};
use crate::support::{
    Anywhere as _, LIMIT, Result, anywhere, eventually, file_of, line, scaled, within_limit,
};
use futures_executor::ThreadPool;
use watchkeep::{
    DeleteOptions, Error, ErrorKind, Filter, ListOptions, Options, Retention, Revision, SetOptions, Store,
    WatchOptions,
};

fn kind<T>(result: std::result::Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn every_operation_does_what_its_blocking_twin_does() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let asynchronous = store.to_async();
        block_on(async {
            let first = asynchronous.set("g", "k", "v").await?;
            assert_eq!(number(first), 1);
            assert_eq!(asynchronous.get("g", "k").await?.ok_or("gone")?, "v");
            let second = asynchronous.set_with("g", "k", "w", SetOptions::new().if_revision(first)).await?;
            assert_eq!(asynchronous.entry("g", "k").await?.map(|entry| entry.revision), Some(second));
            let refused = asynchronous.set_with("g", "k", "x", SetOptions::new().if_absent()).await;
            assert_eq!(refused.err().and_then(|error| error.current_revision()), Some(second));
            asynchronous.set_with_ttl("g", "timed", "v", LIMIT).await?;
            assert!(
                asynchronous.touch("g", "timed", LIMIT * 2).await?
                    && asynchronous.persist("g", "timed").await?
            );
            assert!(asynchronous.contains("g", "timed").await?);
            assert_eq!((asynchronous.count("g").await?, asynchronous.count_all("").await?), (2, 2));
            assert_eq!(asynchronous.page("g", ListOptions::new()).await?.entries.len(), 2);
            let done = asynchronous
                .transaction(|tx| {
                    tx.set("h", "a", "1")?;
                    tx.set("h", "b", "2")?;
                    tx.count("h")
                })
                .await?;
            assert_eq!((done.value, done.revision), (2, store.last_revision()?));
            assert!(!asynchronous.delete("g", "none").await? && asynchronous.delete("g", "timed").await?);
            let wrong = asynchronous.delete_with("g", "k", DeleteOptions::new().if_revision(first)).await;
            assert_eq!(kind(wrong), Some(ErrorKind::Conflict));
            assert_eq!(asynchronous.blocking(|store| Ok(store.groups("").count())).await?, 2);
            assert_eq!(asynchronous.delete_group("h").await?, 2);
            assert_eq!((asynchronous.delete_prefix("").await?, asynchronous.purge_expired().await?), (1, 0));
            assert_eq!(kind(asynchronous.set("g", &"x".repeat(1025), "v").await), Some(ErrorKind::TooLarge));
            assert!(store.check()?.is_ok());
            Ok(())
        })
    })
}

#[test]
fn a_thousand_writes_under_way_at_once_are_committed_in_the_order_they_were_asked_for() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().buffer(4))?;
        let asynchronous = store.to_async();
        let writing: Vec<_> = (0..1_000).map(|n| asynchronous.set("g", "k", n.to_string())).collect();
        let mut got = Vec::new();
        for writing in writing {
            got.push(block_on(writing)?);
        }
        assert_eq!(numbers(&got), (1..=1_000).collect::<Vec<_>>());
        let seen = crate::support::take(&mut watcher, 1_000)?;
        assert!(seen.iter().enumerate().all(|(n, event)| line(event) == format!("{} set g/k={n}", n + 1)));
        Ok(())
    })
}

#[test]
fn tasks_on_a_runtime_of_several_threads_write_read_and_watch() -> Result {
    within_limit(|| {
        let pool = ThreadPool::builder().pool_size(3).create()?;
        let store = anywhere()?;
        let (done, results) = mpsc::channel();
        for task in 0..40_usize {
            let (asynchronous, done) = (store.to_async(), done.clone());
            pool.spawn_ok(async move {
                let run = async {
                    let mut watcher = asynchronous.store().watch(&format!("g{task}"), "*");
                    for number in 0..25 {
                        let revision =
                            asynchronous.set(&format!("g{task}"), &number.to_string(), "v").await?;
                        let event = next(&mut watcher).await.ok_or("the stream ended")??;
                        assert_eq!(event.revision(), revision);
                        assert!(asynchronous.contains(&format!("g{task}"), &number.to_string()).await?);
                    }
                    Result::<usize>::Ok(task)
                };
                done.send(run.await).ok();
            });
        }
        drop(done);
        let mut tasks = BTreeSet::new();
        for _ in 0..40 {
            tasks.insert(results.recv_timeout(LIMIT)??);
        }
        assert_eq!((tasks.len(), store.count_all("")?), (40, 1_000));
        Ok(())
    })
}

#[test]
fn dropping_the_future_of_a_write_does_not_take_it_back() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let asynchronous = store.to_async();
        for number in 0..200 {
            let mut writing = Box::pin(asynchronous.set("g", &number.to_string(), "v"));
            if number % 2 == 0 {
                let _ = poll_once(writing.as_mut());
            }
            drop(writing);
        }
        eventually("all of them", || Ok(store.count("g")? == 200))?;
        assert_eq!(number(store.last_revision()?), 200);
        Ok(())
    })
}

#[test]
fn a_transaction_whose_future_is_dropped_polled_or_not_happens_whole() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let asynchronous = store.to_async();
        for number in 0..50 {
            let mut writing = Box::pin(asynchronous.transaction(move |tx| {
                tx.set("a", &number.to_string(), "v")?;
                tx.set("b", &number.to_string(), "v")
            }));
            let polled = number % 3 > 0 && poll_once(writing.as_mut()).is_none();
            assert!(polled || number % 3 == 0 || store.contains("a", &number.to_string())?);
        }
        eventually("they end", || Ok(store.count("a")? == 50))?;
        assert_eq!(store.count("b")?, 50);
        let all: Vec<_> =
            store.history(Filter::everything(), Revision::ZERO).collect::<std::result::Result<_, _>>()?;
        assert!(all.chunks(2).all(|pair| pair[0].commit() == pair[1].revision()));
        Ok(())
    })
}

#[test]
fn deletions_of_groups_whose_futures_are_dropped_unpolled_happen() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        for group in ["a", "b1", "b2", "c"] {
            store.set(group, "k", "v")?;
        }
        drop(store.to_async().delete_group("a"));
        drop(store.to_async().delete_prefix("b"));
        eventually("they are gone", || Ok(store.count_all("")? == 1))
    })
}

#[test]
fn a_panicking_closure_is_an_error_and_the_next_call_works() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let asynchronous = store.to_async();
        for _ in 0..10 {
            let panicked = block_on(asynchronous.transaction(|tx| {
                tx.set("g", "never", "v")?;
                std::panic::resume_unwind(Box::new("on purpose")) as watchkeep::Result<()>
            }));
            assert_eq!(kind(panicked.map(drop)), Some(ErrorKind::Io));
            let panicked =
                block_on(asynchronous.blocking(|_| {
                    std::panic::resume_unwind(Box::new("on purpose")) as watchkeep::Result<()>
                }));
            assert_eq!(kind(panicked), Some(ErrorKind::Io));
        }
        block_on(asynchronous.transaction(|tx| tx.set("g", "k", "v")))?;
        block_on(asynchronous.set("g", "l", "v"))?;
        assert_eq!((store.count("g")?, block_on(asynchronous.count("g"))?), (2, 2));
        Ok(())
    })
}

#[test]
fn after_the_close_every_future_of_a_write_fails_with_closed() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let asynchronous = store.to_async();
        store.close()?;
        let calls = [
            ("set", kind(block_on(asynchronous.set("g", "k", "v")))),
            ("delete", kind(block_on(asynchronous.delete("g", "k")))),
            ("touch", kind(block_on(asynchronous.touch("g", "k", LIMIT)))),
            ("persist", kind(block_on(asynchronous.persist("g", "k")))),
        ];
        for (call, kind) in calls {
            assert_eq!(kind, Some(ErrorKind::Closed), "{call}");
        }
        Ok(())
    })
}

#[test]
fn writes_asked_for_while_the_store_closes_are_all_answered() -> Result {
    within_limit(|| {
        for _ in 0..scaled(8)? {
            let store = anywhere()?;
            let asynchronous = store.to_async();
            let (begun, some) = mpsc::channel();
            let closed = Arc::new(AtomicBool::new(false));
            let over = closed.clone();
            let writer = thread::spawn(move || {
                let (mut writing, mut late) = (Vec::new(), 0);
                while late < 10 {
                    late += u32::from(over.load(Ordering::SeqCst));
                    writing.push(asynchronous.set("g", "k", "v"));
                    if writing.len() == 100 {
                        begun.send(()).ok();
                    }
                }
                // All are answered, committed or closed.
                let kinds: BTreeSet<_> = writing
                    .into_iter()
                    .map(|writing| kind(block_on(writing)) == Some(ErrorKind::Closed))
                    .collect();
                kinds.contains(&false)
            });
            some.recv_timeout(LIMIT)?;
            store.close()?;
            closed.store(true, Ordering::SeqCst);
            assert!(writer.join().map_err(|_| "panicked")?);
        }
        Ok(())
    })
}

#[test]
fn after_the_close_every_other_future_fails_with_closed_and_streams_drain() -> Result {
    within_limit(|| {
        let store = Options::new().retention(Retention::FOREVER).anywhere()?;
        let asynchronous = store.to_async();
        let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().buffer(3))?;
        (0..300).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
        store.close()?;
        let calls = [
            ("delete_group", kind(block_on(asynchronous.delete_group("g")))),
            ("transaction", kind(block_on(asynchronous.transaction(|tx| tx.set("g", "k", "v"))))),
            ("get", kind(block_on(asynchronous.get("g", "k")))),
            ("count", kind(block_on(asynchronous.count("g")))),
            ("page", kind(block_on(asynchronous.page("g", ListOptions::new())))),
            ("blocking", kind(block_on(asynchronous.blocking(|store| store.last_revision())))),
        ];
        for (call, kind) in calls {
            assert_eq!(kind, Some(ErrorKind::Closed), "{call}");
        }
        let mut seen = Vec::new();
        while let Some(event) = block_on(next(&mut watcher)) {
            seen.push(event?.revision());
        }
        assert_eq!(numbers(&seen), (1..=300).collect::<Vec<_>>());
        assert!(watcher.is_ended());
        Ok(())
    })
}

#[test]
fn what_was_asked_for_before_the_close_is_done_before_it_or_refused_and_never_forgotten() -> Result {
    within_limit(|| {
        for round in 0..scaled(10)? {
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("app.db");
            let store = Options::new().durability(watchkeep::Durability::Relaxed).open(&path)?;
            let asynchronous = store.to_async();
            let writing: Vec<_> = (0..200).map(|n| asynchronous.set("g", &n.to_string(), "v")).collect();
            let transaction =
                thread::spawn(move || block_on(asynchronous.transaction(|tx| tx.set("h", "k", "v"))));
            if round % 2 == 0 {
                store.close()?;
            } else {
                drop(store);
            }
            let mut done = 0;
            for writing in writing {
                match block_on(writing) {
                    Ok(_) => done += 1,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
                }
            }
            let transaction = transaction.join().map_err(|_| "panicked")?;
            let again = Store::open(&path)?;
            assert_eq!(again.count("g")?, done, "round {round}");
            assert_eq!(done, 200, "round {round}: they were queued before the close");
            assert_eq!(again.count("h")?, u64::from(transaction.is_ok()), "round {round}");
        }
        Ok(())
    })
}

#[test]
fn the_last_handle_may_go_while_calls_are_under_way() -> Result {
    within_limit(|| {
        for _ in 0..20 {
            let folder = tempfile::tempdir()?;
            let store = Store::open(folder.path().join("app.db"))?;
            let asynchronous = store.to_async();
            drop(store);
            let mut reading = Box::pin(asynchronous.blocking(|store| {
                store.set("g", "k", "v")?;
                store.count("g")
            }));
            let first = poll_once(reading.as_mut());
            let writing = asynchronous.set("g", "l", "v");
            let count = match first {
                Some(count) => count?,
                None => block_on(reading.as_mut())?,
            };
            assert!(count >= 1);
            drop(reading);
            drop(asynchronous);
            assert!(block_on(writing).is_ok());
            eventually("it is closed", || Ok(!folder.path().join("app.db-wal").exists()))?;
        }
        Ok(())
    })
}

#[test]
fn a_write_has_reached_watchers_and_callbacks_when_its_future_resolves() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().buffer(1_000))?;
        let called = Arc::new(AtomicUsize::new(0));
        let _counting = store.on_change({
            let called = called.clone();
            move |_| {
                called.fetch_add(1, Ordering::SeqCst);
            }
        });
        let asynchronous = store.to_async();
        for number in 1..=200 {
            block_on(asynchronous.set("g", "k", number.to_string()))?;
            assert!(called.load(Ordering::SeqCst) >= number);
            assert!(watcher.try_recv().is_some());
        }
        Ok(())
    })
}

#[test]
fn an_asynchronous_write_is_busy_after_the_busy_timeout_whoever_holds_the_turn() -> Result {
    within_limit(|| {
        let folder = tempfile::tempdir()?;
        let timeout = Duration::from_millis(150);
        let store = Options::new().busy_timeout(timeout).open(folder.path().join("app.db"))?;
        let asynchronous = store.to_async();
        // Another program.
        let other = rusqlite::Connection::open(file_of(&store))?;
        other.execute_batch("BEGIN IMMEDIATE")?;
        assert_eq!(kind(block_on(asynchronous.set("g", "k", "v"))), Some(ErrorKind::Busy));
        assert_eq!(
            kind(block_on(asynchronous.transaction(|tx| tx.set("g", "k", "v")))),
            Some(ErrorKind::Busy)
        );
        other.execute_batch("COMMIT")?;
        block_on(asynchronous.set("g", "k", "v"))?;
        // A transaction of this store, which stays as long as it likes.
        let ((inside, entered), (go_on, released)) = (mpsc::channel(), mpsc::channel::<()>());
        let long = {
            let (store, released) = (store.clone(), std::sync::Mutex::new(released));
            thread::spawn(move || {
                store.transaction(|_| {
                    inside.send(()).ok();
                    released.lock().map(|released| released.recv_timeout(LIMIT).ok()).ok();
                    Ok(())
                })
            })
        };
        entered.recv_timeout(LIMIT)?;
        let (done, result) = mpsc::channel();
        let waiting = thread::spawn(move || done.send(block_on(asynchronous.set("g", "late", "v"))).ok());
        let refused = result.recv_timeout(LIMIT / 2).map(kind);
        go_on.send(())?;
        long.join().map_err(|_| "panicked")??;
        waiting.join().map_err(|_| "panicked")?;
        assert_eq!(refused, Ok(Some(ErrorKind::Busy)), "it waited longer than its timeout");
        assert!(!store.contains("g", "late")?);
        Ok(())
    })
}
