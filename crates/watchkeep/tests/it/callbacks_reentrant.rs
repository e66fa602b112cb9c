//! Callbacks are free to do with the store what they like.

use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use crate::support::numbers::{number, numbers};
use crate::support::seen::{Seen, lines_of};
use crate::support::{
    Anywhere as _, LIMIT, Result, anywhere, eventually, line, lines, next, take, within_limit,
};
use watchkeep::{ErrorKind, Filter, Kind, Options, Retention, Revision, Store, Subscription, WatchOptions};

#[test]
fn a_write_inside_a_callback_is_with_the_watchers_at_once_and_called_back_after_the_event() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let weak = store.downgrade();
        let (order, watcher) = (Seen::new(), Arc::new(Mutex::new(store.watch("out", "*"))));
        let _first = store.on_change({
            let order = order.clone();
            move |event| {
                order.push(("a", Some(event.clone())));
                if let (Some(store), "in") = (weak.upgrade(), event.group()) {
                    let revision = store.set("out", "k", "v").ok();
                    let seen = watcher
                        .lock()
                        .ok()
                        .and_then(|mut watcher| watcher.try_recv())
                        .and_then(|event| event.ok());
                    assert_eq!(
                        seen.map(|event| event.revision()),
                        revision,
                        "a watcher holds it when the write returns"
                    );
                    let read = store.get("out", "k").ok().flatten();
                    assert!(read.is_some(), "and it can be read");
                    order.push(("a", None));
                }
            }
        });
        let _second = store.on_change({
            let order = order.clone();
            move |event| order.push(("b", Some(event.clone())))
        });
        store.set("in", "k", "v")?;
        let expected =
            ["a: 1 set in/k=v", "a: done", "b: 1 set in/k=v", "a: 2 set out/k=v", "b: 2 set out/k=v"];
        let done = || "done".to_owned();
        let order = order.all().into_iter();
        let order: Vec<_> =
            order.map(|(who, event)| format!("{who}: {}", event.as_ref().map_or_else(done, line))).collect();
        assert_eq!(order, expected, "and the outermost write returns after all of it");
        Ok(())
    })
}

#[test]
fn chains_of_writes_inside_callbacks_end_before_the_outermost_write_returns() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let weak = store.downgrade();
        let _down = store.on_change(move |event| {
            let left: u32 = event.key().and_then(|key| key.parse().ok()).unwrap_or(0);
            let Some(store) = weak.upgrade().filter(|_| left > 0) else { return };
            let key = (left - 1).to_string();
            match left % 3 {
                0 => drop(store.transaction(|tx| tx.set("g", &key, "v"))),
                1 => drop(store.set("g", &key, "v")),
                _ => drop(store.scoped("ns").and_then(|scoped| scoped.set("g", &key, "v"))),
            }
        });
        let (seen, _all) = lines_of(&store);
        store.set("g", "300", "v")?;
        assert_eq!(seen.all().len(), 301);
        assert_eq!(number(store.last_revision()?), 301);
        Ok(())
    })
}

#[test]
fn a_write_whose_callbacks_another_thread_runs_returns_after_what_they_wrote_as_well() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let weak = store.downgrade();
        let (held, holding) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let (returned, after) = mpsc::channel();
        let order = Seen::new();
        let _subscription = store.on_change({
            let order = order.clone();
            move |event| {
                let Some(store) = weak.upgrade() else { return };
                match event.group() {
                    // Holds the first writer's thread until the second has committed, and keeps it for what follows.
                    "first" => {
                        let _ = held.send(());
                        let _ = released.recv();
                        let _ = store.set("more", "k", "v");
                    }
                    "second" => drop(store.set("answer", "k", "v")),
                    // Nobody may return before this has run: there is nothing to receive.
                    "answer" => {
                        let early = after.recv_timeout(Duration::from_millis(50)).is_ok();
                        order.push(format!("answer, early: {early}"));
                    }
                    _ => {}
                }
            }
        });
        let first = thread::spawn({
            let store = store.clone();
            move || store.set("first", "k", "v")
        });
        holding.recv_timeout(LIMIT)?;
        let second = thread::spawn({
            let (store, order) = (store.clone(), order.clone());
            move || {
                let set = store.set("second", "k", "v");
                let _ = returned.send(());
                order.push("returned".to_owned());
                set
            }
        });
        eventually("the second write is committed", || Ok(number(store.last_revision()?) == 2))?;
        release.send(())?;
        first.join().map_err(|_| "the first writer panicked")??;
        second.join().map_err(|_| "the second writer panicked")??;
        assert_eq!(order.all(), ["answer, early: false", "returned"]);
        Ok(())
    })
}

#[test]
fn writers_in_callbacks_from_8_threads_at_once_do_not_deadlock() -> Result {
    within_limit(|| {
        let store = Options::new().retention(Retention::FOREVER).anywhere()?;
        let weak = store.downgrade();
        let (echo, order) = (store.downgrade(), Seen::new());
        let _echo = store.on_change(move |event| {
            if let (Some(store), "in") = (echo.upgrade(), event.group()) {
                let key = event.key().unwrap_or_default();
                store.set("out", key, "v").map_err(|error| error.to_string()).unwrap_or_default();
            }
        });
        let _second = store.on_change(move |event| {
            if let (Some(store), "out") = (weak.upgrade(), event.group()) {
                store
                    .transaction(|tx| {
                        tx.set("twice", "n", "1")?;
                        tx.set("twice", event.key().unwrap_or_default(), "v")
                    })
                    .map(drop)
                    .unwrap_or_default();
            }
        });
        let _order = store.on_change({
            let order = order.clone();
            move |event| order.push(event.revision())
        });
        let asynchronous = store.to_async();
        thread::scope(|scope| -> Result {
            let writers: Vec<_> = (0..8)
                .map(|writer| {
                    let (store, asynchronous) = (&store, &asynchronous);
                    scope.spawn(move || -> Result {
                        for number in 0..60 {
                            let key = format!("{writer}-{number}");
                            match number % 5 {
                                4 => drop(asynchronous.set("in", &key, "v")),
                                _ => {
                                    store.set("in", &key, "v")?;
                                    // Its callbacks have run; for what they wrote the thread answers that ran them.
                                    assert!(store.contains("out", &key)?, "{key}");
                                }
                            }
                        }
                        Ok(())
                    })
                })
                .collect();
            writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| "panicked")?)
        })?;
        eventually("all echoes", || Ok(order.all().len() == 8 * 60 * 4))?;
        assert_eq!(numbers(&order.all()), (1..=8 * 60 * 4).collect::<Vec<_>>());
        Ok(())
    })
}

#[test]
fn a_callback_may_unregister_itself_and_others_and_as_often_as_it_likes() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let (slots, seen): (Arc<[OnceLock<Subscription>; 3]>, _) = (Arc::default(), Seen::new());
        for number in 0..3 {
            let (mine, seen) = (slots.clone(), seen.clone());
            let subscription = store.on_change(move |event| {
                seen.push((number, event.revision()));
                if number == 1 {
                    for slot in mine.iter().flat_map(OnceLock::get) {
                        slot.unregister();
                        slot.unregister();
                    }
                }
            });
            slots[number].set(subscription).map_err(|_| "set twice")?;
        }
        store.set("g", "k", "v")?;
        // The third was unregistered before its turn came.
        let first = store.last_revision()?;
        assert_eq!(seen.all(), [(0, first), (1, first)]);
        store.set("g", "k", "v")?;
        assert_eq!((seen.all().len(), store.stats()?.callbacks), (2, 0));
        let (again, _subscription) = lines_of(&store);
        store.set("g", "k", "v")?;
        assert_eq!(again.all(), ["3 set g/k=v"]);
        Ok(())
    })
}

#[test]
fn a_callback_may_register_another_which_sees_only_what_comes_later() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let (weak, seen, kept) = (store.downgrade(), Seen::new(), Arc::new(Mutex::new(Vec::new())));
        let _outer = store.on_change({
            let (seen, kept) = (seen.clone(), kept.clone());
            move |event| {
                let (Some(store), "register") = (weak.upgrade(), event.group()) else { return };
                let seen = seen.clone();
                let inner = store.on_change(move |event| seen.push(event.clone()));
                if let Ok(mut kept) = kept.lock() {
                    kept.push(inner);
                }
                store.set("g", "inside", "v").unwrap_or_default();
            }
        });
        store.set("register", "k", "v")?;
        store.set("g", "later", "v")?;
        assert_eq!(lines(&seen.all()), ["2 set g/inside=v", "3 set g/later=v"]);
        Ok(())
    })
}

#[test]
fn a_callback_may_watch_and_sees_what_is_written_after_that() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let (weak, (opened, watchers)) = (store.downgrade(), mpsc::channel());
        let _watching = store.on_change(move |event| {
            let (Some(store), "watch") = (weak.upgrade(), event.group()) else { return };
            let mut watcher = store.watch("*", "*");
            assert!(watcher.try_recv().is_none(), "what is there already is not news");
            store.set("g", "inside", "v").unwrap_or_default();
            opened.send(watcher).ok();
        });
        store.set("watch", "k", "v")?;
        store.set("g", "later", "v")?;
        let mut watcher = watchers.recv_timeout(LIMIT)?;
        assert_eq!(lines(&take(&mut watcher, 2)?), ["2 set g/inside=v", "3 set g/later=v"]);
        assert!(watcher.try_recv().is_none());
        Ok(())
    })
}

#[test]
fn a_callback_may_close_the_store_which_happens_soon_after() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let mut watcher = store.watch("*", "*");
        let (weak, (closing, results)) = (store.downgrade(), mpsc::channel());
        let _closing = store.on_change(move |_| {
            let Some(store) = weak.upgrade() else { return };
            closing.send(store.close().is_ok() && store.close().is_ok()).ok();
        });
        store.set("g", "k", "v")?;
        assert!(results.recv_timeout(LIMIT)?);
        eventually("it is closed", || Ok(store.get("g", "k").is_err()))?;
        assert_eq!(store.set("g", "k", "v").map_err(|error| error.kind()), Err(ErrorKind::Closed));
        assert_eq!(lines(&watcher.by_ref().collect::<std::result::Result<Vec<_>, _>>()?), ["1 set g/k=v"]);
        store.close()?;
        Ok(())
    })
}

#[test]
fn a_callback_on_the_store_s_own_thread_may_close_too() -> Result {
    within_limit(|| {
        let clock = Arc::new(watchkeep::ManualClock::default());
        let store = Options::new().clock(clock.clone()).anywhere()?;
        let mut watcher = store.watch("*", "*");
        let weak = store.downgrade();
        let _closing = store.on_change(move |event| {
            if let (Some(store), Kind::Expire) = (weak.upgrade(), event.kind()) {
                store.close().unwrap_or_default();
            }
        });
        store.set_with_ttl("g", "k", "v", Duration::from_secs(1))?;
        clock.advance(Duration::from_secs(1));
        let seen: Vec<_> = watcher.by_ref().collect::<std::result::Result<_, _>>()?;
        assert_eq!(lines(&seen), ["1 set g/k=v", "2 expire g/k=v"]);
        assert!(watcher.is_ended());
        Ok(())
    })
}

#[test]
fn closing_inside_a_callback_while_another_thread_closes_does_not_block() -> Result {
    within_limit(|| {
        for _ in 0..20 {
            let store = anywhere()?;
            let weak = store.downgrade();
            let _closing = store.on_change(move |_| {
                if let Some(store) = weak.upgrade() {
                    eventually("the other closes", || Ok(store.is_closed())).unwrap_or_default();
                    store.close().unwrap_or_default();
                }
            });
            let writer = {
                let store = store.clone();
                thread::spawn(move || store.set("g", "k", "v").is_ok())
            };
            let mut watcher =
                store.watch_with(Filter::everything(), WatchOptions::new().after(Revision::ZERO))?;
            next(&mut watcher)?;
            store.close()?;
            assert!(writer.join().map_err(|_| "panicked")?);
        }
        Ok(())
    })
}

#[test]
fn the_last_handle_may_be_dropped_inside_a_callback() -> Result {
    within_limit(|| {
        let folder = tempfile::tempdir()?;
        let store = Store::open(folder.path().join("app.db"))?;
        let mut watcher = store.watch("*", "*");
        let held = Arc::new(Mutex::new(Some(store.clone())));
        let (dropping, dropped) = mpsc::channel();
        let subscription = store.on_change({
            let held = held.clone();
            move |_| {
                let last = held.lock().ok().and_then(|mut held| held.take());
                dropping.send(last.is_some()).ok();
            }
        });
        // The last but one goes with the thread that writes, on which the callback runs.
        let writing = store.to_async();
        drop(store);
        let pending = writing.set("g", "k", "v");
        drop(writing);
        assert!(dropped.recv_timeout(LIMIT)?);
        drop(pending);
        assert_eq!(lines(&watcher.by_ref().collect::<std::result::Result<Vec<_>, _>>()?), ["1 set g/k=v"]);
        drop((watcher, subscription));
        eventually("it is closed", || Ok(!folder.path().join("app.db-wal").exists()))
    })
}

#[test]
fn a_captured_handle_that_is_the_last_goes_when_the_callback_is_unregistered() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let mut watcher = store.watch("*", "*");
        let captured = store.clone();
        let subscription = store.on_change(move |event| {
            captured
                .set("echo", event.key().unwrap_or_default(), "v")
                .ok()
                .filter(|_| event.group() == "never");
        });
        drop(store);
        assert!(watcher.try_recv().is_none() && !watcher.is_ended());
        subscription.unregister();
        assert!(watcher.recv().is_none() && watcher.is_ended());
        Ok(())
    })
}

#[test]
fn a_callback_that_panics_while_it_writes_does_not_stop_the_store() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let weak = store.downgrade();
        let _panicking = store.on_change(move |event| {
            let (Some(store), "in") = (weak.upgrade(), event.group()) else { return };
            store
                .transaction(|tx| {
                    tx.set("out", "k", "v")?;
                    std::panic::resume_unwind(Box::new("on purpose")) as watchkeep::Result<()>
                })
                .map(drop)
                .unwrap_or_default();
        });
        let (seen, _after) = lines_of(&store);
        store.set("in", "k", "v")?;
        store.set("g", "k", "v")?;
        assert_eq!(seen.all(), ["1 set in/k=v", "2 set g/k=v"]);
        assert!(!store.contains("out", "k")?);
        Ok(())
    })
}

#[test]
fn a_callback_may_write_to_another_store_whose_callbacks_write_too() -> Result {
    within_limit(|| {
        let (one, two) = (anywhere()?, anywhere()?);
        let (from, to) = (one.downgrade(), two.downgrade());
        let _mirror = one.on_change(move |event| {
            if let Some(to) = to.upgrade() {
                to.set("mirror", event.key().unwrap_or_default(), "v").unwrap_or_default();
            }
        });
        let to = two.downgrade();
        let _count = two.on_change(move |event| {
            if let (Some(from), Some(to), "mirror") = (from.upgrade(), to.upgrade(), event.group()) {
                let number = from.count("g").unwrap_or_default();
                to.set("counted", &number.to_string(), "v").unwrap_or_default();
            }
        });
        for number in 1..=50_u64 {
            one.set("g", &number.to_string(), "v")?;
            assert_eq!((two.count("mirror")?, two.count("counted")?), (number, number));
        }
        Ok(())
    })
}

/// Whether a thread of this process sleeps.
fn sleeps(thread: &str) -> Result<bool> {
    let stat = std::fs::read_to_string(format!("/proc/{thread}/stat"))?;
    Ok(stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S')))
}

/// The name of this thread under `/proc`.
fn this_thread() -> Option<String> {
    Some(std::fs::read_link("/proc/thread-self").ok()?.to_string_lossy().into_owned())
}

#[test]
fn a_write_inside_a_callback_is_not_stuck_behind_an_asynchronous_one() -> Result {
    within_limit(|| {
        let clock = Arc::new(watchkeep::ManualClock::default());
        let store = Options::new().clock(clock.clone()).busy_timeout(LIMIT * 2).anywhere()?;
        store.set_with_ttl("in", "k", "v", Duration::from_secs(1))?;
        let ((inside, entered), (go_on, released)) = (mpsc::channel(), mpsc::channel::<()>());
        let weak = store.downgrade();
        let _echo = store.on_change(move |event| {
            let (Some(store), Kind::Expire) = (weak.upgrade(), event.kind()) else { return };
            inside.send(this_thread()).ok();
            released.recv_timeout(LIMIT).ok();
            store.set("out", "k", "v").unwrap_or_default();
        });
        let mut watcher = store.watch("out", "*");
        // A callback runs on the store's own thread, which is the one that leads for asynchronous writes ...
        clock.advance(Duration::from_secs(1));
        let callback = entered.recv_timeout(LIMIT)?.ok_or("no /proc")?;
        // ... such a write waits for a leader, then the callback's write behind it, and the turn comes back from a
        // transaction that panicked, and so took nobody along.
        let (asynchronous, queued) = (store.to_async(), Mutex::new(None));
        let transaction = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            store.transaction(|_| {
                thread::scope(|scope| {
                    scope.spawn(|| {
                        let writing = asynchronous.set("g", "asynchronous", "v");
                        queued.lock().map(|mut queued| *queued = Some(writing)).unwrap_or_default();
                    });
                });
                go_on.send(()).ok();
                let mut calm = 0;
                eventually("the callback's write waits", || {
                    calm = if sleeps(&callback)? { calm + 1 } else { 0 };
                    Ok(calm == 20)
                })
                .unwrap_or_default();
                std::panic::resume_unwind(Box::new("on purpose")) as watchkeep::Result<()>
            })
        }));
        assert!(transaction.is_err());
        // Both come through at once, whatever the busy timeout.
        assert_eq!(next(&mut watcher)?.key(), Some("k"));
        eventually("the asynchronous one", || Ok(store.contains("g", "asynchronous")?))
    })
}
