//! Resumable; snapshot, then tail; bookmarkable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use watchkeep::{
    ErrorKind, Event, Filter, Item, Kind, ManualClock, Options, Revision, Store, WatchOptions, Watcher,
};

use super::{Fault, ready, relaxed, revisions};

fn after(store: &Store, revision: u64) -> Result<Watcher, Fault> {
    Ok(store
        .watch_with(Filter::everything(), WatchOptions::new().after(Revision::new(revision)).buffer(4))?)
}

#[test]
fn resumable() -> Result<(), Fault> {
    let (folder, store) = relaxed()?;
    for number in 0..40 {
        store.set("g", &format!("k{}", number % 3), "v")?;
        if number % 5 == 0 {
            store.transaction(|tx| {
                tx.set("h", "a", "v")?;
                tx.delete("g", "k1")
            })?;
        }
    }
    let (last, cursor) = (store.last_revision()?.get(), store.cursor(Revision::new(3)));
    // From every revision, in this life of the store and in the next.
    for revision in 0..=last {
        let mut watcher = after(&store, revision)?;
        assert_eq!(watcher.start().get(), revision);
        assert_eq!(revisions(&ready(&mut watcher)?), (revision + 1..=last).collect::<Vec<_>>());
    }
    store.close()?;
    let store = Store::open(folder.path().join("store.db"))?;
    for revision in 0..=last {
        let rest = revisions(&ready(&mut after(&store, revision)?)?);
        assert_eq!(rest, (revision + 1..=last).collect::<Vec<_>>());
    }
    let resumed = WatchOptions::new().after_cursor(cursor);
    let rest = revisions(&ready(&mut store.watch_with(Filter::everything(), resumed)?)?);
    assert_eq!(rest, (4..=last).collect::<Vec<_>>());

    // A position ahead of the log waits until the store gets there.
    let mut ahead = after(&store, last + 2)?;
    for _ in 0..4 {
        store.set("g", "k", "v")?;
    }
    assert_eq!(revisions(&ready(&mut ahead)?), [last + 3, last + 4]);

    // From before what is trimmed: the loss first. Opened anew, since pages of the log are kept in memory for a while.
    store.compact(Revision::new(20))?;
    store.close()?;
    let store = Store::open(folder.path().join("store.db"))?;
    let trimmed = store.stats()?.first_revision.get() - 1;
    for revision in 1..trimmed {
        let mut watcher = after(&store, revision)?;
        let lost = watcher.try_recv().ok_or("nothing came")?.unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::Lagged);
        let lost = lost.lagged().ok_or("which revisions?")?;
        assert_eq!((lost.from.get(), lost.to.get()), (revision + 1, trimmed));
        assert_eq!(revisions(&ready(&mut watcher)?), (trimmed + 1..=last + 4).collect::<Vec<_>>());
    }

    let other = Store::open_in_memory()?;
    let foreign = other.watch_with(Filter::everything(), WatchOptions::new().after_cursor(cursor));
    assert_eq!(foreign.unwrap_err().kind(), ErrorKind::ForeignCursor);
    Ok(())
}

/// Entries as a reader of events has them.
type State = BTreeMap<(String, String), u64>;

fn fold(state: &mut State, event: &Event) {
    let group = event.group().to_owned();
    match (event.kind(), event.key()) {
        (Kind::Set, Some(key)) => drop(state.insert((group, key.to_owned()), event.revision().get())),
        (Kind::Touch, _) => {}
        (_, Some(key)) => drop(state.remove(&(group, key.to_owned()))),
        (_, None) => state.retain(|(other, _), _| *other != group),
    }
}

#[test]
fn snapshot_then_tail() -> Result<(), Fault> {
    let (_folder, store) = relaxed()?;
    for number in 0..1_000 {
        store.set(&format!("g{}", number % 7), &format!("k{number}"), "v")?;
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<(), Fault> {
        for writer in 0..2 {
            let (store, over) = (&store, &over);
            scope.spawn(move || {
                let mut number = writer;
                while !over.load(Ordering::SeqCst) {
                    number = (number * 31 + 7) % 1_009;
                    let (group, key) = (format!("g{}", number % 7), format!("k{number}"));
                    match number % 5 {
                        0 => drop(store.delete(&group, &key).unwrap()),
                        1 if number % 97 == 1 => drop(store.delete_group(&group).unwrap()),
                        _ => drop(store.set(&group, &key, "w").unwrap()),
                    }
                }
            });
        }
        let result = (0..12).try_for_each(|number| {
            let options = WatchOptions::new().snapshot().buffer(1 + number * 20);
            let watcher = store.watch_with(Filter::everything(), options)?;
            follow(&store, watcher)
        });
        over.store(true, Ordering::SeqCst);
        result
    })
}

/// Reads a snapshot and a hundred events more, and compares with the log.
fn follow(store: &Store, mut watcher: Watcher) -> Result<(), Fault> {
    let (mut state, mut items) = (State::new(), watcher.items());
    let ready = loop {
        match items.recv().ok_or("the stream ended")?? {
            Item::Event(event) => {
                assert!(event.is_snapshot());
                fold(&mut state, &event);
            }
            Item::Ready(revision) => break revision.get(),
            other => return Err(format!("{other:?} in a snapshot").into()),
        }
    };
    let mut expected = State::new();
    let log = store.history(Filter::everything(), Revision::ZERO).collect::<Result<Vec<_>, _>>()?;
    log.iter().filter(|event| event.revision().get() <= ready).for_each(|event| fold(&mut expected, event));
    assert_eq!(state, expected, "at {ready}");
    for revision in ready + 1..=ready + 100 {
        match items.recv().ok_or("the stream ended")?? {
            Item::Event(event) => {
                assert_eq!((event.revision().get(), event.is_snapshot()), (revision, false))
            }
            other => return Err(format!("{other:?} after a snapshot").into()),
        }
    }
    Ok(())
}

#[test]
fn bookmarkable() -> Result<(), Fault> {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).open_in_memory()?;
    let idle = Filter::group("nobody writes here");
    let mut watcher =
        store.watch_with(idle.clone(), WatchOptions::new().progress(Duration::from_millis(50)))?;
    let mut last_mark = Revision::ZERO;
    for _ in 0..3 {
        for _ in 0..40 {
            store.set("busy", "k", "v")?;
        }
        clock.advance(Duration::from_millis(50));
        let item = watcher.items().recv_timeout(Duration::from_secs(60)).ok_or("no mark came")??;
        let Item::Progress(mark) = item else { return Err(format!("{item:?} is no mark").into()) };
        assert_eq!(mark, store.last_revision()?);
        assert!(mark > last_mark);
        last_mark = mark;
    }
    // The mark is a place to go on from, although no event ever came.
    drop(watcher);
    let mine = store.set("nobody writes here", "k", "v")?;
    let mut resumed = store.watch_with(idle, WatchOptions::new().after(last_mark))?;
    assert_eq!(revisions(&ready(&mut resumed)?), [mine.get()]);
    Ok(())
}
