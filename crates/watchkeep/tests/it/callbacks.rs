//! Callbacks: in commit order, and before the write returns.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::support::needs::needs;
use crate::support::numbers::{number, numbers};
use crate::support::seen::{Seen, lines_of};
use crate::support::{
    Anywhere as _, LIMIT, Result, anywhere, eventually, line, lines, revisions, take, within_limit,
};
use watchkeep::{ErrorKind, Event, Filter, Item, Kind, Options, Quota, Retention, Revision, Store};

#[test]
fn every_callback_has_run_for_a_write_when_it_returns() -> Result {
    let store = anywhere()?;
    let (seen, _one) = lines_of(&store);
    let (also, _two) = lines_of(&store);
    store.set("g", "a", "1")?;
    assert_eq!((seen.all().len(), also.all().len()), (1, 1));
    store.transaction(|tx| {
        tx.set("g", "b", "2")?;
        tx.delete("g", "a").map(drop)
    })?;
    store.touch("g", "b", LIMIT)?;
    assert!(!store.delete("g", "nothing")?);
    store.delete_group("g")?;
    let expected = ["1 set g/a=1", "2 set g/b=2", "3 delete g/a", "5 delete_group g"];
    assert_eq!(
        (seen.all(), also.all()),
        (expected.map(str::to_owned).to_vec(), expected.map(str::to_owned).to_vec())
    );
    Ok(())
}

#[test]
fn callbacks_and_watchers_see_one_order_across_8_writers() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let mut watcher = store.watch("*", "*");
        let (one, two, running) = (Seen::new(), Seen::new(), Arc::new(AtomicUsize::new(0)));
        let subscriptions = [&one, &two].map(|seen| {
            let (seen, running) = (seen.clone(), running.clone());
            store.on_change(move |event| {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "one call at a time");
                seen.push(event.revision());
                running.fetch_sub(1, Ordering::SeqCst);
            })
        });
        thread::scope(|scope| -> Result {
            let writers: Vec<_> = (0..8)
                .map(|writer| {
                    let (store, one, two) = (&store, &one, &two);
                    scope.spawn(move || -> Result {
                        for number in 0..100 {
                            let revision = match number % 4 {
                                0 => {
                                    store
                                        .transaction(|tx| {
                                            tx.set("g", &format!("{writer}"), "v")?;
                                            tx.set("h", &format!("{writer}"), "v")
                                        })?
                                        .revision
                                }
                                _ => store.set("g", &format!("{writer}-{number}"), "v")?,
                            };
                            for seen in [one, two] {
                                assert!(
                                    seen.all().contains(&revision),
                                    "not called before the write returned"
                                );
                            }
                        }
                        Ok(())
                    })
                })
                .collect();
            writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| "panicked")?)
        })?;
        let all: Vec<_> = (1..=8 * 125).collect();
        assert_eq!((numbers(&one.all()), numbers(&two.all())), (all.clone(), all.clone()));
        assert_eq!(revisions(&take(&mut watcher, 1_000)?), all);
        drop(subscriptions);
        Ok(())
    })
}

#[test]
fn a_panicking_callback_harms_neither_the_write_nor_the_other_callbacks() -> Result {
    let store = anywhere()?;
    let mut watcher = store.watch("*", "*");
    let calls = Arc::new(AtomicU64::new(0));
    let _panicking = store.on_change({
        let calls = calls.clone();
        move |_| {
            calls.fetch_add(1, Ordering::SeqCst);
            std::panic::resume_unwind(Box::new("on purpose"));
        }
    });
    let (seen, _after) = lines_of(&store);
    store.set("g", "a", "1")?;
    store.transaction(|tx| tx.set("g", "b", "2"))?;
    assert_eq!(seen.all(), ["1 set g/a=1", "2 set g/b=2"]);
    assert_eq!(calls.load(Ordering::SeqCst), 2, "it stays registered");
    assert_eq!(take(&mut watcher, 2)?.len(), 2);
    Ok(())
}

#[test]
fn a_callback_with_marks_is_told_exactly_what_retention_took_from_it() -> Result {
    needs!(Trimming);
    within_limit(|| {
        let store = Options::new().retention(Retention::FOREVER).anywhere()?;
        let (items, (inside, entered), (go_on, released)) =
            (Seen::new(), mpsc::channel(), mpsc::channel::<()>());
        let _marks = store.on_change_with(Filter::everything(), {
            let items = items.clone();
            move |item| {
                items.push(item.clone());
                if items.all().len() == 1 {
                    inside.send(()).ok();
                    released.recv_timeout(LIMIT).ok();
                }
            }
        });
        let plain = Seen::new();
        let _plain = store.on_change({
            let plain = plain.clone();
            move |event| plain.push(event.revision().get())
        });
        thread::scope(|scope| -> Result {
            let first = scope.spawn(|| store.set("g", "first", "v"));
            entered.recv_timeout(LIMIT)?;
            // While the callback is busy: far more than its queue holds, then the log is cut.
            let large = scope.spawn(|| {
                store.transaction(|tx| (0..6_000).try_for_each(|n| tx.set("g", &n.to_string(), "v")))
            });
            eventually("the large one is committed", || Ok(store.last_revision()?.get() == 6_001))?;
            let last = scope.spawn(|| store.set("g", "done", "v"));
            eventually("and so is the last", || Ok(store.last_revision()?.get() == 6_002))?;
            store.compact(Revision::new(6_002))?;
            go_on.send(())?;
            first.join().map_err(|_| "panicked")??;
            large.join().map_err(|_| "panicked")??;
            last.join().map_err(|_| "panicked")??;
            Ok(())
        })?;
        let (mut after, mut lost) = (0, 0);
        for item in items.all() {
            match item {
                Item::Event(event) => {
                    assert_eq!(event.revision().get(), after + 1);
                    after += 1;
                }
                Item::Lagged(lagged) => {
                    assert_eq!(lagged.from.get(), after + 1);
                    after = lagged.to.get();
                    lost += after + 1 - lagged.from.get();
                }
                other => return Err(format!("unexpected: {other:?}").into()),
            }
        }
        assert_eq!(after, 6_002);
        assert!(lost > 0, "nothing was lost: the test shows nothing");
        assert_eq!(plain.all().len() as u64, 6_002 - lost);
        Ok(())
    })
}

#[test]
fn a_callback_of_a_scoped_handle_never_sees_out_and_has_local_names() -> Result {
    let store = anywhere()?;
    let scoped = store.scoped("a")?;
    let (seen, _subscription) = lines_of(&scoped);
    for group in ["a:g", "ab:g", "A:g", "a", "b:a:g", ":a:g"] {
        store.set(group, "k", "v")?;
    }
    scoped.set("g:h", "k", "v")?;
    store.delete_group("a:g")?;
    assert_eq!(seen.all(), ["1 set g/k=v", "7 set g:h/k=v", "8 delete_group g"]);
    Ok(())
}

#[test]
fn a_filter_chooses_what_a_callback_sees_touch_only_when_asked_for() -> Result {
    let store = anywhere()?;
    let seen = Seen::new();
    let filter = Filter::key_prefix("g", "a").kinds([Kind::Touch, Kind::Delete]).exclude_origin("me");
    let _subscription = store.on_change_with(filter, {
        let seen = seen.clone();
        move |item| item.event().cloned().into_iter().for_each(|event| seen.push(event))
    });
    let me = store.with_origin("me");
    for handle in [&store, &me] {
        handle.set_with_ttl("g", "abc", "v", LIMIT)?;
        handle.touch("g", "abc", LIMIT * 2)?;
        handle.persist("g", "abc")?;
        handle.delete("g", "abc")?;
    }
    assert_eq!(lines(&seen.all()), ["2 touch g/abc", "3 touch g/abc", "4 delete g/abc"]);
    Ok(())
}

#[test]
fn a_detached_callback_stays_and_a_dropped_subscription_ends_it() -> Result {
    let store = anywhere()?;
    let (stays, subscription) = lines_of(&store);
    subscription.detach();
    let (goes, subscription) = lines_of(&store);
    store.set("g", "k", "v")?;
    drop(subscription);
    store.set("g", "k", "v")?;
    assert_eq!((stays.all().len(), goes.all().len()), (2, 1));
    assert_eq!(store.stats()?.callbacks, 1);
    Ok(())
}

#[test]
fn unregistering_does_not_wait_for_a_call_under_way() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let ((inside, entered), (go_on, released)) = (mpsc::channel(), mpsc::channel::<()>());
        let subscription = store.on_change(move |_| {
            inside.send(()).ok();
            released.recv_timeout(LIMIT).ok();
        });
        let writer = {
            let store = store.clone();
            thread::spawn(move || store.set("g", "k", "v").is_ok())
        };
        entered.recv_timeout(LIMIT)?;
        subscription.unregister();
        drop(subscription);
        go_on.send(())?;
        assert!(writer.join().map_err(|_| "panicked")?);
        Ok(())
    })
}

#[test]
fn callbacks_hear_of_writes_through_another_handle_on_the_file() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let (one, two) = (Store::open(&path)?, Store::open(&path)?);
    let (seen, _subscription) = lines_of(&one);
    for number in 0..20 {
        two.set("g", "k", number.to_string())?;
        if number % 5 == 0 {
            one.set("h", "k", number.to_string())?;
        }
    }
    eventually("all of them", || Ok(seen.all().len() == 24))?;
    let logged: Vec<_> = one
        .history(Filter::everything(), Revision::ZERO)
        .map(|event| event.map(|event: Event| line(&event)))
        .collect::<std::result::Result<_, _>>()?;
    assert_eq!(seen.all(), logged);
    Ok(())
}

#[test]
fn what_a_refused_write_made_room_with_is_announced_too() -> Result {
    let clock = Arc::new(watchkeep::ManualClock::default());
    let store = Options::new().clock(clock.clone()).anywhere()?;
    let tenant = store.scoped("t")?.with_quota(Quota { max_bytes: 10, ..Quota::default() })?;
    let (seen, _subscription) = lines_of(&tenant);
    tenant.set_with_ttl("g", "k", "v", Duration::from_secs(1))?;
    clock.advance(Duration::from_secs(1));
    let refused = tenant.set("g", "large", "0123456789");
    assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::QuotaExceeded));
    eventually("the expiry", || Ok(seen.all() == ["1 set g/k=v", "2 expire g/k=v"]))
}

#[test]
fn registering_and_unregistering_while_8_threads_write_loses_no_call() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let stop = AtomicBool::new(false);
        let steady = Seen::new();
        let _steady = store.on_change({
            let steady = steady.clone();
            move |event| steady.push(event.revision())
        });
        thread::scope(|scope| -> Result {
            let writers: Vec<_> = (0..8)
                .map(|writer| {
                    let (store, stop) = (&store, &stop);
                    scope.spawn(move || -> Result {
                        let mut number = 0;
                        while !stop.load(Ordering::Relaxed) {
                            store.set("g", &format!("{writer}-{}", number % 10), "v")?;
                            number += 1;
                        }
                        Ok(())
                    })
                })
                .collect();
            for _ in 0..200 {
                let seen = Seen::new();
                let subscription = store.on_change({
                    let seen = seen.clone();
                    move |event| seen.push(event.revision())
                });
                let revision = store.set("mine", "k", "v")?;
                drop(subscription);
                let (seen, revision) = (numbers(&seen.all()), number(revision));
                assert!(seen.contains(&revision), "its own write is not among {seen:?}");
                assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "a gap in {seen:?}");
            }
            stop.store(true, Ordering::Relaxed);
            writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| "panicked")?)
        })?;
        let last = number(store.last_revision()?);
        assert_eq!(numbers(&steady.all()), (1..=last).collect::<Vec<_>>());
        Ok(())
    })
}

#[test]
fn callbacks_that_come_and_go_altogether_while_threads_write_leave_nobody_waiting() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| -> Result {
            let writers: Vec<_> = (0..4)
                .map(|writer| {
                    let (store, stop) = (&store, &stop);
                    scope.spawn(move || -> Result {
                        while !stop.load(Ordering::Relaxed) {
                            store.set("g", &format!("{writer}"), "v")?;
                        }
                        Ok(())
                    })
                })
                .collect();
            // Most of the time there is none: the feed begins and ends again and again.
            for _ in 0..400 {
                let (seen, subscription) = lines_of(&store);
                store.set("mine", "k", "v")?;
                assert!(!seen.all().is_empty());
                subscription.unregister();
            }
            stop.store(true, Ordering::Relaxed);
            writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| "panicked")?)
        })?;
        assert_eq!((store.stats()?.callbacks, store.stats()?.watchers), (0, 0));
        Ok(())
    })
}
