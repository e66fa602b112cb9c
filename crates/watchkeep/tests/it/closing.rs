//! Closing: waits for what is under way, ends every watcher after it has drained, and leaves nothing behind.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use crate::support::{LIMIT, Result, eventually, lines, next, revisions, scaled, within_limit};
use watchkeep::{
    Error, ErrorKind, Filter, Item, ListOptions, Options, Quota, Revision, Store, WatchOptions, Watcher,
};

/// A store in a file, or a private one.
fn both() -> Result<Vec<(&'static str, Store, tempfile::TempDir)>> {
    let (one, two) = (tempfile::tempdir()?, tempfile::tempdir()?);
    Ok(vec![
        ("file", Store::open(one.path().join("app.db"))?, one),
        ("in memory", Store::open_in_memory()?, two),
    ])
}

fn drain(watcher: &mut Watcher) -> Result<Vec<watchkeep::Event>> {
    let mut events = Vec::new();
    while let Some(event) = watcher.recv_timeout(LIMIT) {
        events.push(event?);
    }
    if watcher.is_ended() { Ok(events) } else { Err("the watcher did not end".into()) }
}

#[test]
fn a_blocked_reader_ends_when_the_store_closes() -> Result {
    for (name, store, _folder) in both()? {
        let mut watcher = store.watch("*", "*");
        let reader = thread::spawn(move || (watcher.recv().is_none(), watcher.is_ended()));
        store.close()?;
        within_limit(move || {
            assert_eq!(reader.join().map_err(|_| "panicked")?, (true, true), "{name}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_watcher_with_room_hands_out_its_buffer_in_order_after_the_close() -> Result {
    for (name, store, _folder) in both()? {
        let mut watcher = store.watch("*", "*");
        for number in 1..=5 {
            store.set("g", &number.to_string(), "v")?;
        }
        store.close()?;
        assert_eq!(revisions(&drain(&mut watcher)?), [1, 2, 3, 4, 5], "{name}");
    }
    Ok(())
}

#[test]
fn a_lagging_watcher_drains_buffer_then_log_in_order_after_the_close() -> Result {
    for (buffer, read) in [(1, 0), (2, 1), (16, 0), (16, 5)] {
        for (name, store, _folder) in both()? {
            let mut watcher = store.watch_with(Filter::group("g"), WatchOptions::new().buffer(buffer))?;
            for number in 0..40 {
                store.set("g", &number.to_string(), "v")?;
            }
            let mut events = crate::support::take(&mut watcher, read)?;
            store.close()?;
            events.extend(drain(&mut watcher)?);
            assert_eq!(revisions(&events), (1..=40).collect::<Vec<_>>(), "{name}, buffer {buffer}");
        }
    }
    Ok(())
}

#[test]
fn many_lagging_watchers_drain_completely_whatever_moment_the_close_comes() -> Result {
    for round in 0..scaled(3)? {
        for (name, store, _folder) in both()? {
            let buffers = [1, 3, 16];
            let watchers: Vec<_> = (0..24)
                .map(|n| store.watch_with(Filter::everything(), WatchOptions::new().buffer(buffers[n % 3])))
                .collect::<std::result::Result<_, _>>()?;
            for number in 0..300 {
                store.set("g", &number.to_string(), "v")?;
            }
            let start = Arc::new(Barrier::new(watchers.len() + 1));
            let readers: Vec<_> = watchers
                .into_iter()
                .map(|mut watcher| {
                    let start = start.clone();
                    thread::spawn(move || {
                        start.wait();
                        drain(&mut watcher).map(|events| revisions(&events))
                    })
                })
                .collect();
            start.wait();
            store.close()?;
            for reader in readers {
                let seen = reader.join().map_err(|_| "panicked")??;
                assert_eq!(seen, (1..=300).collect::<Vec<_>>(), "{name}, round {round}");
            }
        }
    }
    Ok(())
}

#[test]
fn the_close_may_come_between_any_two_reads_of_the_log() -> Result {
    // Pages too large for the shared cache, so that everybody reads the file all the time.
    let value = vec![b'x'; 60_000];
    for round in 0..scaled(2)? {
        for (name, store, _folder) in both()? {
            store.transaction(|tx| {
                (0..250).try_for_each(|n| tx.set("g", &format!("{n}"), value.as_slice()))
            })?;
            let start = Arc::new(Barrier::new(7));
            let readers: Vec<_> = (0..6_u64)
                .map(|reader| {
                    let (store, start) = (store.clone(), start.clone());
                    thread::spawn(move || {
                        let options = WatchOptions::new().after(Revision::new(reader * 20)).buffer(1);
                        let mut watcher = store.watch_with(Filter::everything(), options)?;
                        drop(store);
                        let first = next(&mut watcher)?;
                        start.wait();
                        let rest = drain(&mut watcher)?;
                        let seen = revisions([&first].into_iter().chain(&rest));
                        assert_eq!(seen, (reader * 20 + 1..=250).collect::<Vec<_>>());
                        Result::<()>::Ok(())
                    })
                })
                .collect();
            start.wait();
            store.close()?;
            for reader in readers {
                reader
                    .join()
                    .map_err(|_| "panicked")?
                    .map_err(|error| format!("{name}, {round}: {error}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_watcher_that_resumes_from_the_log_drains_up_to_the_close_and_no_farther() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let store = Store::open(&path)?;
    for number in 0..700 {
        store.set("g", &number.to_string(), "v")?;
    }
    let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().after(Revision::ZERO))?;
    assert_eq!(next(&mut watcher)?.revision().get(), 1);
    store.close()?;
    let again = Store::open(&path)?;
    again.set("g", "later", "v")?;
    assert_eq!(revisions(&drain(&mut watcher)?), (2..=700).collect::<Vec<_>>());
    Ok(())
}

/// The kind of the error that something ends with.
fn kind<T>(result: std::result::Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn every_later_call_fails_with_closed_through_whatever_handle() -> Result {
    for (name, store, _folder) in both()? {
        store.set("g", "k", "v")?;
        let (clone, scoped) = (store.clone(), store.scoped("ns")?);
        let limited = scoped.with_quota(Quota { max_keys: 1, ..Quota::default() })?;
        let mut half_read = store.entries("g");
        let weak = store.downgrade();
        clone.close()?;
        assert!(store.is_closed() && scoped.is_closed());
        for handle in [&store, &clone, &scoped, &limited, &weak.upgrade().ok_or("gone")?] {
            let calls = [
                ("set", kind(handle.set("g", "k", "v"))),
                ("set_with_ttl", kind(handle.set_with_ttl("g", "k", "v", LIMIT))),
                ("delete", kind(handle.delete("g", "k"))),
                ("delete of nothing", kind(handle.delete("g", "nothing"))),
                ("delete_group", kind(handle.delete_group("g"))),
                ("delete_prefix", kind(handle.delete_prefix(""))),
                ("touch", kind(handle.touch("g", "k", LIMIT))),
                ("persist", kind(handle.persist("g", "k"))),
                ("purge_expired", kind(handle.purge_expired())),
                ("transaction", kind(handle.transaction(|_| Ok(())))),
                ("get", kind(handle.get("g", "k"))),
                ("entry", kind(handle.entry("g", "k"))),
                ("contains", kind(handle.contains("g", "k"))),
                ("remaining_ttl", kind(handle.remaining_ttl("g", "k"))),
                ("count", kind(handle.count("g"))),
                ("count_all", kind(handle.count_all(""))),
                ("groups", handle.groups("").next().and_then(kind)),
                ("entries", handle.entries("g").next().and_then(kind)),
                ("page", kind(handle.page("g", ListOptions::new()))),
                ("snapshot", kind(handle.snapshot())),
                ("last_revision", kind(handle.last_revision())),
                ("stats", kind(handle.stats())),
                ("check", kind(handle.check())),
                ("watch", handle.watch("*", "*").next().and_then(kind)),
                ("watch_with", kind(handle.watch_with(Filter::everything(), WatchOptions::new()))),
                ("render", kind(handle.render("{{ k }}", "g"))),
            ];
            for (call, kind) in calls {
                assert_eq!(kind, Some(ErrorKind::Closed), "{name}: {call}");
            }
        }
        assert_eq!(kind(store.compact(Revision::new(9))), Some(ErrorKind::Closed), "{name}: compact");
        assert_eq!(half_read.next().and_then(kind), Some(ErrorKind::Closed), "{name}: an iterator");
        // A watch of a closed store says so once, and ends.
        let mut watcher = store.watch("g", "*");
        assert!(watcher.recv().is_some() && watcher.recv().is_none() && watcher.is_ended());
        // A callback is taken, and never called.
        store.on_change(|_| {}).unregister();
    }
    Ok(())
}

#[test]
fn history_after_the_close_fails_with_closed() -> Result {
    for (name, store, _folder) in both()? {
        store.set("g", "k", "v")?;
        let mut before = store.history(Filter::everything(), Revision::ZERO);
        store.close()?;
        let mut after = store.history(Filter::everything(), Revision::ZERO);
        assert_eq!(after.next().and_then(kind), Some(ErrorKind::Closed), "{name}: asked for after it");
        assert_eq!(before.next().and_then(kind), Some(ErrorKind::Closed), "{name}: asked for before it");
    }
    Ok(())
}

#[test]
fn a_snapshot_fails_with_closed_after_the_close() -> Result {
    for (name, store, _folder) in both()? {
        store.set("g", "k", "v")?;
        let snapshot = store.snapshot()?;
        store.close()?;
        assert_eq!(kind(snapshot.get("g", "k")), Some(ErrorKind::Closed), "{name}");
    }
    Ok(())
}

#[test]
fn no_thread_outlives_the_store() -> Result {
    // Other tests of this file have stores too: threads are told apart by a child process of our own.
    if std::env::var_os("WATCHKEEP_TEST_ALONE").is_none() {
        let output = std::process::Command::new(std::env::current_exe()?)
            .args(["--exact", "closing::no_thread_outlives_the_store", "--test-threads=1", "--nocapture"])
            .env("WATCHKEEP_TEST_ALONE", "1")
            .output()?;
        let text = String::from_utf8([output.stdout, output.stderr].concat())?;
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return Ok(());
    }
    let count = || -> Result<usize> { Ok(std::fs::read_dir("/proc/self/task")?.count()) };
    let before = count()?;
    for how in ["close", "drop", "drop of a clone", "close twice"] {
        for private in [false, true] {
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("app.db");
            let store = if private { Store::open_in_memory()? } else { Store::open(&path)? };
            let mut watcher = store.watch("*", "*");
            store.on_change(|_| {}).detach();
            store.set_with_ttl("g", "k", "v", LIMIT)?;
            // Work for the threads that serve asynchronous callers.
            let busy: Vec<_> = (0..8).map(|_| Box::pin(poll_once(store.to_async()))).collect();
            drop(busy);
            assert!(count()? > before, "{how}");
            match how {
                "close" => store.close()?,
                "close twice" => store.close().and_then(|()| store.close())?,
                "drop of a clone" => {
                    let clone = store.clone();
                    drop(store);
                    drop(clone);
                }
                _ => drop(store),
            }
            // A thread that was joined may be listed for a moment.
            eventually(&format!("{how}: as many threads as before"), || Ok(count()? == before))?;
            assert_eq!(next(&mut watcher)?.key(), Some("k"));
            assert!(watcher.recv().is_none());
            drop(folder);
        }
    }
    Ok(())
}

/// Starts a read for an asynchronous caller, and forgets it.
fn poll_once(store: watchkeep::AsyncStore) -> impl Future<Output = ()> {
    {
        let mut reading = Box::pin(async move { store.get("g", "k").await.map(drop).unwrap_or_default() });
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = reading.as_mut().poll(&mut context);
        reading
    }
}

#[test]
fn dropping_the_last_handle_closes() -> Result {
    for (name, store, _folder) in both()? {
        let mut watcher = store.watch("*", "*");
        let (clone, scoped, asynchronous) = (store.clone(), store.scoped("ns")?, store.to_async());
        let (weak, watched) = (store.downgrade(), store.on_change(|_| {}));
        drop(store);
        drop(clone);
        assert!(watcher.try_recv().is_none() && !watcher.is_ended(), "{name}: a scoped handle is a handle");
        drop(scoped);
        assert!(watcher.try_recv().is_none() && !watcher.is_ended(), "{name}: and so is an asynchronous one");
        asynchronous.store().set("g", "k", "v")?;
        drop(asynchronous);
        assert_eq!(lines(&drain(&mut watcher)?), ["1 set g/k=v"], "{name}");
        assert!(weak.upgrade().is_none(), "{name}");
        watched.unregister();
    }
    Ok(())
}

#[test]
fn closing_twice_and_from_two_threads_is_closing_once() -> Result {
    for _ in 0..50 {
        let store = Store::open_in_memory()?;
        store.set("g", "k", "v")?;
        let start = Arc::new(Barrier::new(3));
        let closers: Vec<_> = (0..3)
            .map(|_| {
                let (store, start) = (store.clone(), start.clone());
                thread::spawn(move || {
                    start.wait();
                    store.close().is_ok() && store.get("g", "k").is_err() && store.close().is_ok()
                })
            })
            .collect();
        within_limit(move || {
            for closer in closers {
                assert!(closer.join().map_err(|_| "panicked")?);
            }
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn close_while_writers_write_loses_nothing_that_was_acknowledged() -> Result {
    for round in 0..10 {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("app.db");
        let store = Options::new().durability(watchkeep::Durability::Relaxed).open(&path)?;
        let mut watcher = store.watch("*", "*");
        let (enough, some) = mpsc::channel();
        let writers: Vec<_> = (0..8)
            .map(|writer: usize| {
                let (store, enough) = (store.clone(), enough.clone());
                thread::spawn(move || {
                    let mut acknowledged = Vec::new();
                    loop {
                        let key = format!("{writer}-{}", acknowledged.len());
                        let written = match acknowledged.len() % 3 {
                            0 => store.transaction(|tx| tx.set("g", &key, "v")).map(|done| done.revision),
                            _ => store.set("g", &key, "v"),
                        };
                        match written {
                            Ok(revision) => acknowledged.push((revision, key)),
                            Err(error) => return (acknowledged, error.kind()),
                        }
                        if acknowledged.len() == 20 {
                            enough.send(()).ok();
                        }
                    }
                })
            })
            .collect();
        for _ in 0..4 {
            some.recv_timeout(LIMIT)?;
        }
        store.close()?;
        let mut acknowledged = Vec::new();
        for writer in writers {
            let (revisions, kind) = writer.join().map_err(|_| "panicked")?;
            assert_eq!(kind, ErrorKind::Closed, "round {round}");
            acknowledged.extend(revisions);
        }
        acknowledged.sort();
        let again = Store::open(&path)?;
        for (revision, key) in &acknowledged {
            let entry = again.entry("g", key)?.ok_or("an acknowledged write is gone")?;
            assert_eq!(entry.revision, *revision, "round {round}");
        }
        let seen = revisions(&drain(&mut watcher)?);
        assert_eq!(seen, (1..=seen.len() as u64).collect::<Vec<_>>(), "round {round}");
        assert_eq!(again.last_revision()?.get(), seen.len() as u64, "round {round}");
        assert_eq!(acknowledged.len(), seen.len(), "round {round}: what was committed was acknowledged");
        assert!(again.check()?.is_ok());
    }
    Ok(())
}

#[test]
fn close_waits_for_a_transaction_under_way() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let store = Store::open(&path)?;
    let (inside, entered) = mpsc::channel();
    let (go_on, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let writer = {
        let store = store.clone();
        thread::spawn(move || {
            store.transaction(|tx| {
                tx.set("g", "one", "1")?;
                inside.send(()).ok();
                released.lock().map(|released| released.recv_timeout(LIMIT).ok()).ok();
                tx.set("g", "two", "2")
            })
        })
    };
    entered.recv_timeout(LIMIT)?;
    let closed = Arc::new(AtomicBool::new(false));
    let closer = {
        let (store, closed) = (store.clone(), closed.clone());
        thread::spawn(move || {
            let result = store.close();
            closed.store(true, Ordering::SeqCst);
            result
        })
    };
    eventually("the close has begun", || Ok(store.is_closed()))?;
    assert!(!closed.load(Ordering::SeqCst), "it did not wait");
    assert_eq!(kind(store.set("g", "three", "3")), Some(ErrorKind::Closed));
    go_on.send(())?;
    within_limit(move || {
        closer.join().map_err(|_| "panicked")??;
        writer.join().map_err(|_| "panicked")??;
        Ok(())
    })?;
    assert_eq!(Store::open(&path)?.count("g")?, 2);
    Ok(())
}

#[test]
fn closing_inside_a_transaction_is_refused_as_nested() -> Result {
    let store = Store::open_in_memory()?;
    let done = store.transaction(|tx| {
        assert_eq!(kind(store.close()), Some(ErrorKind::Nested));
        tx.set("g", "k", "v")
    });
    assert!(done.is_ok() && !store.is_closed());
    Ok(())
}

#[test]
fn closing_inside_a_transaction_is_refused_also_while_another_thread_closes() -> Result {
    within_limit(|| {
        let store = Store::open_in_memory()?;
        let (inside, entered) = mpsc::channel();
        let writer = {
            let store = store.clone();
            thread::spawn(move || {
                let mut inner = None;
                let outer = store.transaction(|tx| {
                    inside.send(()).ok();
                    eventually("the other's close has begun", || Ok(store.is_closed())).ok();
                    inner = kind(store.close());
                    tx.set("g", "k", "v")
                });
                (inner, outer.is_ok())
            })
        };
        entered.recv_timeout(LIMIT)?;
        store.close()?;
        assert_eq!(writer.join().map_err(|_| "panicked")?, (Some(ErrorKind::Nested), true));
        Ok(())
    })
}

#[test]
fn a_store_in_memory_has_no_file_and_its_watchers_drain_after_it() -> Result {
    for how in ["close", "drop", "a watcher that lags"] {
        let store = Store::open_in_memory()?;
        let mut watcher = store.watch("*", "*");
        for number in 0..40 {
            store.set("g", &number.to_string(), "v")?;
            if how != "a watcher that lags" {
                next(&mut watcher)?;
            }
        }
        assert_eq!((store.path(), store.stats()?.file_bytes), (None, 0));
        match how {
            "close" => store.close()?,
            _ => drop(store),
        }
        assert_eq!(drain(&mut watcher)?.len(), if how == "a watcher that lags" { 40 } else { 0 });
    }
    Ok(())
}

#[test]
fn a_snapshot_that_is_under_way_ends_with_an_error_not_with_silence() -> Result {
    let store = Store::open_in_memory()?;
    for number in 0..600 {
        store.set("g", &format!("{number:03}"), "v")?;
    }
    let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().snapshot())?;
    let mut items = watcher.items();
    assert!(matches!(items.recv(), Some(Ok(Item::Event(_)))));
    store.close()?;
    let rest: Vec<_> = items.by_ref().collect();
    let complete = rest.iter().any(|item| matches!(item, Ok(Item::Ready(_))));
    let told = rest.iter().any(|item| matches!(item, Err(error) if error.kind() == ErrorKind::Closed));
    assert!(complete || told, "neither ready nor an error");
    Ok(())
}

/// What a thread keeps until it ends: dropped after what the library keeps for the thread, which it first used later.
struct Kept(Store);

impl Drop for Kept {
    fn drop(&mut self) {
        let written = self.0.set("g", "last", "words");
        let nested = self.0.transaction(|tx| {
            tx.set("g", "inner", "v")?;
            assert_eq!(self.0.set("g", "nested", "v").map_err(|error| error.kind()), Err(ErrorKind::Nested));
            Ok(())
        });
        let closed = self.0.close();
        assert!(written.is_ok() && nested.is_ok() && closed.is_ok(), "{written:?} {nested:?} {closed:?}");
    }
}

#[test]
fn a_store_that_a_thread_keeps_may_be_used_and_is_closed_when_the_thread_ends() -> Result {
    thread_local! {
        static KEPT: std::cell::RefCell<Option<Kept>> = const { std::cell::RefCell::new(None) };
    }
    let uses: [fn(&Store) -> Result; 4] = [
        |_| Ok(()),
        |store| Ok(store.set("g", "k", "v").map(|_| ())?),
        |store| Ok(store.transaction(|tx| tx.set("g", "k", "v")).map(|_| ())?),
        |store| {
            // A callback that writes: its own writes must not wait for it.
            let inner = store.clone();
            store
                .on_change(move |event| {
                    if event.key() == Some("last") {
                        inner.set("g", "told", "v").unwrap();
                    }
                })
                .detach();
            Ok(store.set("g", "k", "v").map(|_| ())?)
        },
    ];
    for used in uses {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("app.db");
        let opened = path.clone();
        within_limit(move || {
            let thread = thread::spawn(move || -> Result {
                KEPT.with(|kept| -> Result {
                    let store = Store::open(&opened)?;
                    let watcher = store.watch("*", "*");
                    *kept.borrow_mut() = Some(Kept(store));
                    drop(watcher);
                    used(&kept.borrow().as_ref().ok_or("it is gone")?.0)
                })
            });
            thread.join().map_err(|_| "panicked")?
        })?;
        assert!(!path.with_file_name("app.db-wal").exists(), "it is closed");
        assert_eq!(Store::open(&path)?.get("g", "last")?.ok_or("it is missing")?, "words");
    }
    Ok(())
}
