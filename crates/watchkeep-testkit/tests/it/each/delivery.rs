//! Before return, visible, armed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use watchkeep::{Error, Filter, LagPolicy, WatchOptions};

use super::{Fault, ready, relaxed};

#[test]
fn before_return() -> Result<(), Fault> {
    let (_folder, store) = relaxed()?;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                let group = format!("g{thread}");
                let mut live = store.watch(&group, "*");
                let mut small =
                    store.watch_with(Filter::group(&group), WatchOptions::new().buffer(1)).unwrap();
                let latest = WatchOptions::new().policy(LagPolicy::Latest);
                let mut latest = store.watch_with(Filter::group(&group), latest).unwrap();
                let called = Arc::new(AtomicU64::new(0));
                let _subscription = store.on_change_with(Filter::group(&group), {
                    let called = called.clone();
                    move |item| {
                        let revision = item.event().map_or(0, |event| event.revision().get());
                        called.store(revision, Ordering::SeqCst);
                    }
                });
                for number in 0..100 {
                    let revision = store.set(&group, "k", number.to_string()).unwrap();
                    assert_eq!(called.load(Ordering::SeqCst), revision.get(), "the callback had not run");
                    for watcher in [&mut live, &mut small, &mut latest] {
                        let event = watcher.try_recv().expect("the watcher had nothing").unwrap();
                        assert_eq!(event.revision(), revision);
                    }
                }
            });
        }
    });
    Ok(())
}

#[test]
fn before_return_of_a_write_inside_a_callback() -> Result<(), Fault> {
    let (_folder, store) = relaxed()?;
    let answers = store.watch("answers", "*");
    let inside = Arc::new(AtomicBool::new(false));
    let (weak, flag, mut answers) = (store.downgrade(), inside.clone(), answers);
    let _asked = store.on_change_with(Filter::group("questions"), move |_| {
        let store = weak.upgrade().expect("the store is open");
        flag.store(true, Ordering::SeqCst);
        let revision = store.set("answers", "a", "42").unwrap();
        // The watchers hold it when the inner write returns; its callbacks run later.
        assert_eq!(answers.try_recv().unwrap().unwrap().revision(), revision);
        flag.store(false, Ordering::SeqCst);
    });
    let answered = Arc::new(AtomicU64::new(0));
    let _answered = store.on_change_with(Filter::group("answers"), {
        let (answered, inside) = (answered.clone(), inside.clone());
        move |_| {
            assert!(!inside.load(Ordering::SeqCst), "called in the middle of another callback");
            answered.fetch_add(1, Ordering::SeqCst);
        }
    });
    for number in 1..=20 {
        store.set("questions", "q", number.to_string())?;
        assert_eq!(answered.load(Ordering::SeqCst), number, "the outer write returned before");
    }
    Ok(())
}

#[test]
fn visible() -> Result<(), Fault> {
    let (_folder, store) = relaxed()?;
    let checked = Arc::new(AtomicU64::new(0));
    let (weak, count) = (store.downgrade(), checked.clone());
    let _subscription = store.on_change(move |event| {
        let store = weak.upgrade().expect("the store is open");
        let entry = store.entry(event.group(), event.key().unwrap()).unwrap().expect("it was set");
        assert!(entry.revision >= event.revision());
        assert!(store.last_revision().unwrap() >= event.revision());
        count.fetch_add(1, Ordering::SeqCst);
    });
    let mut watcher = store.watch("*", "*");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for event in (&mut watcher).take(400) {
                let event = event.unwrap();
                let entry = store.entry(event.group(), event.key().unwrap()).unwrap().expect("it was set");
                assert!(entry.revision >= event.revision());
            }
        });
        for writer in 0..2 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..200 {
                    store.set("g", &format!("k{}", (number + writer) % 3), number.to_string()).unwrap();
                }
            });
        }
    });
    assert_eq!(checked.load(Ordering::SeqCst), 400);
    Ok(())
}

#[test]
fn armed() -> Result<(), Fault> {
    let (_folder, store) = relaxed()?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<(), Fault> {
        // Others write all the while.
        let busy = scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                store.set("busy", "k", "v").unwrap();
            }
        });
        let result = (|| {
            for number in 0..200 {
                let early = store.set("mine", "early", number.to_string())?;
                let mut watcher = store.watch("*", "*");
                assert!(watcher.start() >= early);
                // A write that another thread begins after `watch` has returned.
                let barrier = Barrier::new(2);
                let late = std::thread::scope(|scope| {
                    let writer = scope.spawn(|| {
                        barrier.wait();
                        store.set("mine", "late", number.to_string())
                    });
                    barrier.wait();
                    writer.join().map_err(|_| Error::abort("the writer panicked"))?
                })?;
                let events = ready(&mut watcher)?;
                let mine: Vec<_> = events.iter().filter(|event| event.group() == "mine").collect();
                assert_eq!(mine.len(), 1, "{mine:?}");
                assert_eq!(mine[0].revision(), late);
            }
            Ok(())
        })();
        over.store(true, Ordering::SeqCst);
        busy.join().map_err(|_| "the busy writer panicked")?;
        result
    })
}
