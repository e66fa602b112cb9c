//! Ordered, complete, unique, atomic.

use std::sync::{Arc, Mutex};

use watchkeep::{Error, ErrorKind, Event, Filter, Item, Kind, Revision, WatchOptions};

use super::{Fault, ready, relaxed, revisions};

#[test]
fn ordered() -> Result<(), Fault> {
    let (_folder, store) = relaxed()?;
    let heard: Arc<Mutex<Vec<u64>>> = Arc::default();
    let subscriptions: Vec<_> = (0..3)
        .map(|_| {
            let heard = heard.clone();
            store.on_change(move |event| heard.lock().unwrap().push(event.revision().get()))
        })
        .collect();
    let mut watchers = [store.watch("*", "*"), store.watch("g1", "*"), store.watch("*", "k3")];
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..150 {
                    let (group, key) = (format!("g{}", number % 3), format!("k{}", number % 5));
                    let before = store.last_revision().unwrap();
                    let revision = store.set(&group, &key, format!("{writer}")).unwrap();
                    assert!(revision > before, "a write that began later has the higher revision");
                }
            });
        }
    });

    let order: Vec<u64> = (1..=600).collect();
    // Each callback was called for every event, and none went on before all had been called.
    let expected: Vec<u64> = order.iter().flat_map(|revision| [*revision; 3]).collect();
    assert_eq!(*heard.lock().unwrap(), expected);
    drop(subscriptions);
    let log = store.history(Filter::everything(), Revision::ZERO).collect::<Result<Vec<_>, _>>()?;
    assert_eq!(revisions(&log), order);
    for (watcher, filter) in watchers.iter_mut().zip([("*", "*"), ("g1", "*"), ("*", "k3")]) {
        let filter = Filter::from_pattern(filter.0, filter.1);
        let wanted: Vec<&Event> = log.iter().filter(|event| filter.matches(event)).collect();
        assert_eq!(revisions(&ready(watcher)?), revisions(wanted));
    }
    Ok(())
}

#[test]
fn complete() -> Result<(), Fault> {
    let (_folder, store) = relaxed()?;
    let mut stopped = store.watch_with(Filter::everything(), WatchOptions::new().buffer(1))?;
    for number in 0..10_000 {
        store.set("counter", "n", number.to_string())?;
    }
    for number in 0..10_000 {
        let event = stopped.try_recv().ok_or("the watcher has nothing more")??;
        assert_eq!(event.value().unwrap(), &number.to_string());
    }
    assert!(stopped.try_recv().is_none());

    // What retention takes before it is read is called lost, exactly and in its place.
    let first = store.set("counter", "n", "first")?;
    for number in 0..100 {
        store.set("counter", "n", number.to_string())?;
    }
    let last = store.last_revision()?;
    store.compact(Revision::new(last.get() - 9))?;
    let mut items = stopped.items();
    assert!(matches!(items.try_recv(), Some(Ok(Item::Event(event))) if event.revision() == first));
    let Some(Ok(Item::Lagged(lagged))) = items.try_recv() else { return Err("no loss is told".into()) };
    assert_eq!((lagged.from.get(), lagged.to.get()), (first.get() + 1, last.get() - 10));
    let rest = revisions(&ready(&mut stopped)?);
    assert_eq!(rest, (lagged.to.get() + 1..=last.get()).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn unique() -> Result<(), Fault> {
    let (_folder, store) = relaxed()?;
    // Small buffers: they fall behind and join the live feed again all the time.
    let watchers: Vec<_> = [1, 2, 3, 16, 64]
        .into_iter()
        .map(|buffer| store.watch_with(Filter::everything(), WatchOptions::new().buffer(buffer)))
        .collect::<Result<_, _>>()?;
    std::thread::scope(|scope| {
        let readers: Vec<_> = watchers
            .into_iter()
            .map(|mut watcher| {
                scope.spawn(move || {
                    let mut seen = Vec::new();
                    while let Some(event) = watcher.recv() {
                        let event = event.unwrap();
                        if event.key() == Some("last") {
                            break;
                        }
                        seen.push(event.revision().get());
                    }
                    seen
                })
            })
            .collect();
        for number in 0..4_000 {
            store.set("g", &format!("k{}", number % 7), "v").unwrap();
        }
        store.set("g", "last", "v").unwrap();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), (1..=4_000).collect::<Vec<u64>>());
        }
    });
    Ok(())
}

#[test]
fn atomic() -> Result<(), Fault> {
    let (_folder, store) = relaxed()?;
    let mut watcher = store.watch("*", "*");
    let mut committed = Vec::new();
    std::thread::scope(|scope| -> Result<(), Fault> {
        let reader = scope.spawn(|| {
            for _ in 0..100 {
                let snapshot = store.snapshot().unwrap();
                let values: Vec<_> = ["a", "b", "c"].map(|group| snapshot.get(group, "k").unwrap()).into();
                assert!(values.iter().all(|value| *value == values[0]), "half of a transaction: {values:?}");
            }
        });
        for number in 0..200 {
            let value = number.to_string();
            let done = store.transaction(|tx| {
                for group in ["a", "b", "c"] {
                    tx.set(group, "k", value.as_str())?;
                }
                if number % 3 == 0 { Err(Error::abort("as planned")) } else { Ok(()) }
            });
            match done {
                Ok(done) => committed.push((done.revision.get(), value)),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Aborted),
            }
        }
        reader.join().map_err(|_| "a snapshot showed half of a transaction")?;
        Ok(())
    })?;

    let events = ready(&mut watcher)?;
    assert_eq!(events.len(), committed.len() * 3);
    for (events, (revision, value)) in events.chunks(3).zip(committed) {
        assert_eq!(revisions(events), [revision - 2, revision - 1, revision]);
        for event in events {
            assert_eq!((event.kind(), event.commit().get()), (Kind::Set, revision));
            assert_eq!(event.value().unwrap(), &value);
        }
    }
    Ok(())
}
