//! Snapshots: reads of one revision, and watches that begin with the state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::needs::needs;
use crate::support::numbers::number;
use crate::support::{
    Anywhere as _, LIMIT, Result, anywhere, eventually, fill, lines, next, take, within_limit,
};
use watchkeep::{
    ErrorKind, Event, Filter, Item, Kind, LagPolicy, ManualClock, Options, Retention, Revision, Store,
    Timestamp, WatchOptions, Watcher,
};

type State = BTreeMap<(String, String), String>;

fn fold(state: &mut State, event: &Event) -> Result {
    let key = (event.group().to_owned(), event.key().unwrap_or_default().to_owned());
    match event.kind() {
        Kind::Set => drop(state.insert(key, event.value().ok_or("no value")?.to_string_lossy().into_owned())),
        Kind::Delete | Kind::Expire => drop(state.remove(&key)),
        Kind::DeleteGroup => state.retain(|(group, _), _| *group != key.0),
        _ => {}
    }
    Ok(())
}

/// The state at a revision, as the log tells it.
fn state_at(store: &Store, filter: Filter, at: Revision) -> Result<State> {
    let mut state = State::new();
    for event in store.history(filter, Revision::ZERO) {
        let event = event?;
        if event.revision() <= at {
            fold(&mut state, &event)?;
        }
    }
    Ok(state)
}

#[test]
fn all_reads_of_a_snapshot_see_one_revision() -> Result {
    let store = anywhere()?;
    fill(&store, 700, |tx, n| tx.set("g", &format!("{n:03}"), "old"))?;
    let snapshot = store.snapshot()?;
    store.delete("g", "000")?;
    store.set("g", "001", "new")?;
    store.set("g", "zzz", "new")?;
    store.set("h", "k", "new")?;
    store.delete_group("g")?;
    store.set("g", "again", "new")?;
    assert_eq!((number(snapshot.revision()), snapshot.count("g")?, snapshot.count_all("")?), (700, 700, 700));
    assert_eq!(snapshot.groups("").collect::<std::result::Result<Vec<_>, _>>()?, ["g"]);
    assert!(snapshot.entries("g").all(|entry| entry.is_ok_and(|entry| entry.value == "old")));
    assert_eq!(snapshot.entries("g").count(), 700);
    assert_eq!(snapshot.clone().get("g", "001")?.ok_or("gone")?, "old");
    assert_eq!(number(snapshot.page("g", Default::default())?.revision), 700);
    Ok(())
}

#[test]
fn a_snapshot_never_shows_half_of_a_transaction() -> Result {
    let store = anywhere()?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| -> Result {
        let writers: Vec<_> = (0..3)
            .map(|_| {
                let (store, stop) = (&store, &stop);
                scope.spawn(move || -> Result {
                    while !stop.load(Ordering::Relaxed) {
                        store.transaction(|tx| {
                            let number = tx
                                .get("a", "n")?
                                .and_then(|value| value.as_str()?.parse().ok())
                                .unwrap_or(0_u64);
                            tx.set("a", "n", (number + 1).to_string())?;
                            tx.set("b", "n", (number + 1).to_string())
                        })?;
                    }
                    Ok(())
                })
            })
            .collect();
        for _ in 0..200 {
            let snapshot = store.snapshot()?;
            let one = snapshot.get("a", "n")?;
            thread::yield_now();
            let revision = snapshot.entry("b", "n")?.map(|entry| entry.revision);
            assert_eq!(one, snapshot.get("b", "n")?);
            assert_eq!(revision.unwrap_or_default(), snapshot.revision());
        }
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| "panicked")?)
    })
}

#[test]
fn a_snapshot_has_its_own_moment_also_for_deadlines() -> Result {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).anywhere()?;
    store.set_with_ttl("g", "k", "v", Duration::from_secs(5))?;
    let before = store.snapshot()?;
    clock.advance(Duration::from_secs(6));
    assert!(
        before.contains("g", "k")? && !store.contains("g", "k")? && !store.snapshot()?.contains("g", "k")?
    );
    assert_eq!((before.count("g")?, before.remaining_ttl("g", "k")?), (1, Some(Duration::from_secs(5))));
    Ok(())
}

#[test]
fn a_snapshot_that_is_too_old_says_so_and_holds_nothing_any_more() -> Result {
    let clock = Arc::new(ManualClock::default());
    let age = Duration::from_secs(10);
    let store = Options::new().clock(clock.clone()).snapshot_age(age).anywhere()?;
    store.set("g", "k", "v")?;
    let snapshot = store.snapshot()?;
    clock.advance(age);
    assert!(snapshot.contains("g", "k")?);
    clock.advance(Duration::from_millis(1));
    assert_eq!(snapshot.get("g", "k").map_err(|error| error.kind()), Err(ErrorKind::SnapshotTooOld));
    assert_eq!(
        snapshot.entries("g").next().and_then(|entry| entry.err()).map(|error| error.kind()),
        Some(ErrorKind::SnapshotTooOld)
    );
    assert!(store.snapshot()?.contains("g", "k")?);
    Ok(())
}

#[test]
fn a_snapshot_gets_too_old_also_when_the_clock_is_set_back() -> Result {
    let clock = Arc::new(ManualClock::default());
    let age = Duration::from_millis(20);
    let store = Options::new().clock(clock.clone()).snapshot_age(age).anywhere()?;
    let snapshot = store.snapshot()?;
    clock.set(Timestamp::from_millis(0));
    eventually("it is too old", || {
        Ok(snapshot.count("g").is_err_and(|error| error.kind() == ErrorKind::SnapshotTooOld))
    })
}

#[test]
fn a_watch_from_a_snapshot_gives_the_state_then_ready_then_every_change() -> Result {
    let store = anywhere()?;
    store.set("b", "k", "1")?;
    store.set("a", "l", "2")?;
    store.set("a", "k", "3")?;
    store.set("a", "k", "4")?;
    store.delete("b", "k")?;
    let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().snapshot())?;
    store.set("c", "k", "5")?;
    let mut items = watcher.items();
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(match items.recv_timeout(LIMIT).ok_or("nothing")?? {
            Item::Event(event) => format!("{} {}", crate::support::line(&event), event.is_snapshot()),
            Item::Ready(at) => format!("ready {}", number(at)),
            other => format!("{other:?}"),
        });
    }
    // The write after `watch` is in the state, or comes after it; nothing lies between, and nothing twice.
    let (within, after) = (
        ["4 set a/k=4 true", "2 set a/l=2 true", "6 set c/k=5 true", "ready 6"],
        ["4 set a/k=4 true", "2 set a/l=2 true", "ready 5", "6 set c/k=5 false"],
    );
    assert!(seen == within || seen == after, "{seen:?}");
    Ok(())
}

#[test]
fn folding_a_snapshot_watch_up_to_ready_gives_exactly_the_state_while_writers_write() -> Result {
    within_limit(|| {
        let store = Options::new().retention(Retention::FOREVER).anywhere()?;
        fill(&store, 900, |tx, n| tx.set(&format!("g{}", n % 9), &format!("{n:03}"), "0"))?;
        let filters = [
            Filter::everything(),
            Filter::group("g4"),
            Filter::group_prefix("g"),
            Filter::key_prefix("g3", "0"),
            Filter::key("g0", "000"),
            Filter::key_name("123"),
        ];
        let mut moved = 0;
        for round in 0..30 {
            let filter = filters[round % filters.len()].clone();
            let policy = if round % 5 == 4 { LagPolicy::Latest } else { LagPolicy::CatchUp };
            let options = WatchOptions::new().snapshot().buffer([1, 16, 300][round % 3]).policy(policy);
            let is_ready = AtomicBool::new(false);
            thread::scope(|scope| -> Result {
                let writers: Vec<_> = (0..3)
                    .map(|n| {
                        scope.spawn({
                            let (store, is_ready) = (&store, &is_ready);
                            move || {
                                scribble(store, round as u64 * 3 + n)?;
                                // However fast they were, something is written after it was ready.
                                eventually("it is ready", || Ok(is_ready.load(Ordering::SeqCst)))?;
                                Ok(store.set("g4", "000", "later").map(drop)?)
                            }
                        })
                    })
                    .collect();
                let mut watcher = store.watch_with(filter.clone(), options)?;
                let (mut state, mut items) = (State::new(), watcher.items());
                let ready = loop {
                    match items.recv_timeout(LIMIT).ok_or("it never gets ready")?? {
                        Item::Event(event) => {
                            assert!(event.is_snapshot());
                            fold(&mut state, &event)?;
                        }
                        Item::Ready(at) => break at,
                        other => return Err(format!("unexpected: {other:?}").into()),
                    }
                };
                let expected = state_at(&store, filter.clone(), ready)?;
                assert_eq!(state, expected, "round {round}, {filter:?}, at {ready}");
                is_ready.store(true, Ordering::SeqCst);
                // And what comes then goes on from there, to the end.
                writers
                    .into_iter()
                    .try_for_each(|writer| -> Result { writer.join().map_err(|_| "panicked")? })?;
                moved += u64::from(store.last_revision()? > ready);
                let mut last = ready;
                while let Some(item) = items.try_recv() {
                    let item = item?;
                    let event = item.event().ok_or("no event")?;
                    assert!(!event.is_snapshot() && event.revision() > last);
                    last = event.revision();
                    fold(&mut state, event)?;
                }
                assert_eq!(
                    state,
                    state_at(&store, filter, store.last_revision()?)?,
                    "round {round}, after {ready}"
                );
                Ok(())
            })?;
        }
        assert!(moved > 10, "nothing was written meanwhile");
        Ok(())
    })
}

/// Writes of every sort.
fn scribble(store: &Store, seed: u64) -> Result {
    for number in (0..60).map(|n| (n + seed * 60) * 7) {
        let (group, key) = (format!("g{}", number % 9), format!("{:03}", number % 900));
        match number % 23 {
            0 => drop(store.delete_group(&group)?),
            1..4 => drop(store.delete(&group, &key)?),
            4 => drop(store.transaction(|tx| {
                tx.delete(&group, &key)?;
                tx.set("g0", "000", number.to_string())?;
                tx.set("g9", &key, number.to_string())
            })?),
            _ => drop(store.set(&group, &key, number.to_string())?),
        }
    }
    Ok(())
}

#[test]
fn a_snapshot_watch_that_loses_the_log_begins_again_and_says_so() -> Result {
    needs!(Trimming);
    let store = Options::new().retention(Retention::FOREVER).anywhere()?;
    store.transaction(|tx| (0..600).try_for_each(|n| tx.set("g", &format!("{n:03}"), "0")))?;
    let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().snapshot())?;
    let mut items = watcher.items();
    let (mut state, mut lagged) = (State::new(), 0);
    for number in 0.. {
        match items.recv_timeout(LIMIT).ok_or("it never gets ready")?? {
            Item::Event(event) => fold(&mut state, &event)?,
            Item::Lagged(lost) => {
                assert!(lost.from <= lost.to);
                state.clear();
                lagged += 1;
            }
            Item::Ready(at) => {
                assert_eq!((state, lagged), (state_at_end(&store)?, 1));
                assert_eq!(at, store.last_revision()?);
                return Ok(());
            }
            other => return Err(format!("unexpected: {other:?}").into()),
        }
        if number == 300 {
            store.delete("g", "000")?;
            store.set("g", "001", "changed")?;
            store.set("h", "k", "new")?;
            store.compact(store.last_revision()?)?;
        }
    }
    Ok(())
}

#[test]
fn what_changes_in_the_part_that_was_given_is_passed_on_also_at_its_edge() -> Result {
    for with_the_group in [false, true] {
        let store = anywhere()?;
        fill(&store, 1_024, |tx, n| tx.set("g", &format!("{n:04}"), "0"))?;
        let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().snapshot())?;
        let (mut state, mut items, mut given) = (State::new(), watcher.items(), 0);
        let ready = loop {
            match items.recv_timeout(LIMIT).ok_or("it never gets ready")?? {
                Item::Event(event) => fold(&mut state, &event)?,
                Item::Ready(at) => break at,
                other => return Err(format!("unexpected: {other:?}").into()),
            }
            given += 1;
            // After each page of 256: the last key given, the next one, one before, and a group before all.
            if given == 256 {
                store.set("g", "0255", "changed")?;
                store.set("g", "0256", "changed")?;
            } else if given == 257 {
                store.set("f", "k", "new")?;
            } else if given == 513 {
                store.delete("g", "0511")?;
                store.delete("g", "0000")?;
                store.set("g", "05119", "new")?;
            } else if given == 768 && with_the_group {
                store.transaction(|tx| {
                    tx.delete_group("g")?;
                    tx.set("g", "0000", "again")?;
                    tx.set("h", "k", "new")
                })?;
            }
        };
        assert_eq!((state, ready), (state_at_end(&store)?, store.last_revision()?));
    }
    Ok(())
}

fn state_at_end(store: &Store) -> Result<State> {
    let mut state = State::new();
    for group in store.groups("") {
        let group = group?;
        for entry in store.entries(&group) {
            let entry = entry?;
            state.insert((group.clone(), entry.key), entry.value.to_string_lossy().into_owned());
        }
    }
    Ok(state)
}

#[test]
fn a_snapshot_of_nothing_is_ready_at_once() -> Result {
    let store = anywhere()?;
    for filter in [Filter::everything(), Filter::group("g"), Filter::key("g", "k"), Filter::key_name("k")] {
        let mut watcher = store.watch_with(filter, WatchOptions::new().snapshot())?;
        assert!(
            matches!(watcher.items().recv_timeout(LIMIT), Some(Ok(Item::Ready(at))) if at == Revision::ZERO)
        );
    }
    store.set("g", "k", "v")?;
    store.delete("g", "k")?;
    let mut watcher = store.watch_with(Filter::group("g"), WatchOptions::new().snapshot())?;
    assert!(matches!(watcher.items().recv_timeout(LIMIT), Some(Ok(Item::Ready(at))) if number(at) == 2));
    store.set("g", "k", "w")?;
    assert_eq!(lines([&next(&mut watcher)?]), ["3 set g/k=w"]);
    Ok(())
}

#[test]
fn a_snapshot_with_keys_only_has_no_values_and_large_ones_are_no_trouble() -> Result {
    needs!(LargeTransactions);
    let store = anywhere()?;
    for number in 0..6 {
        store.set("g", &number.to_string(), vec![b'x'; 3 << 20])?;
    }
    for keys_only in [true, false] {
        let options = WatchOptions::new().snapshot().buffer_bytes(10);
        let options = if keys_only { options.keys_only() } else { options };
        let mut watcher = store.watch_with(Filter::everything(), options)?;
        let mut items = watcher.items();
        for number in 0..6 {
            let item = items.recv_timeout(LIMIT).ok_or("nothing")??;
            let event = item.event().ok_or("no event")?;
            assert_eq!(event.key(), Some(number.to_string().as_str()));
            assert_eq!(event.value().map(|value| value.len()), if keys_only { None } else { Some(3 << 20) });
        }
        assert!(matches!(items.recv_timeout(LIMIT), Some(Ok(Item::Ready(_)))));
    }
    Ok(())
}

#[test]
fn a_snapshot_becomes_ready_however_fast_others_write_and_slow_its_reader_is() -> Result {
    within_limit(|| {
        let store = Options::new().retention(Retention::FOREVER).anywhere()?;
        (0..300).try_for_each(|n| store.set("g", &n.to_string(), "init").map(drop))?;
        let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().snapshot())?;
        let (mut state, mut ready) = (State::new(), None);
        while ready.is_none() {
            match watcher.items().recv().ok_or("ended")?? {
                Item::Event(event) => {
                    // For each item that is read, more than one is written.
                    (0..3).try_for_each(|n| {
                        let key = (event.revision().get() * 7 + n) % 300;
                        store.set("g", &key.to_string(), event.revision().to_string()).map(drop)
                    })?;
                    fold(&mut state, &event)?;
                }
                Item::Ready(revision) => ready = Some(revision),
                _ => return Err("another mark".into()),
            }
        }
        let ready = ready.ok_or("never ready")?;
        let mut expected = State::new();
        for event in store.history(Filter::everything(), Revision::ZERO) {
            let event = event?;
            if event.revision() <= ready {
                fold(&mut expected, &event)?;
            }
        }
        assert_eq!(state, expected, "what was folded is the state at {ready}");
        assert_eq!(number(next(&mut watcher)?.revision()), number(ready) + 1);
        Ok(())
    })
}

/// Folds a watch that begins again after each loss, up to the next mark of either kind; how it went.
fn fold_to_a_mark(watcher: &mut Watcher, state: &mut State) -> Result<Item> {
    loop {
        match watcher.items().recv_timeout(LIMIT).ok_or("nothing comes")?? {
            Item::Event(event) => fold(state, &event)?,
            Item::Lagged(lost) => {
                state.clear();
                return Ok(Item::Lagged(lost));
            }
            mark => return Ok(mark),
        }
    }
}

#[test]
fn after_a_loss_a_watch_may_go_on_with_a_snapshot() -> Result {
    needs!(Trimming);
    for snapshot_first in [false, true] {
        let store = Options::new().retention(Retention::FOREVER).anywhere()?;
        (0..600).try_for_each(|n| store.set("g", &format!("{n:03}"), "0").map(drop))?;
        let options = WatchOptions::new().snapshot_after_loss();
        let options = if snapshot_first { options.snapshot() } else { options };
        let mut watcher = store.watch_with(Filter::everything(), options)?;
        let mut state = State::new();
        if snapshot_first {
            assert!(matches!(fold_to_a_mark(&mut watcher, &mut state)?, Item::Ready(at) if at.get() == 600));
        }
        // Twice more than it can hold, and what it would read is taken from it.
        for round in 0..2 {
            (0..100).try_for_each(|n| store.delete("g", &format!("{:03}", round * 100 + n)).map(drop))?;
            store.compact(store.last_revision()?)?;
            assert!(matches!(fold_to_a_mark(&mut watcher, &mut state)?, Item::Lagged(_)));
            let ready = fold_to_a_mark(&mut watcher, &mut state)?;
            assert!(matches!(ready, Item::Ready(at) if at == store.last_revision()?), "{ready:?}");
            assert_eq!(state, state_at_end(&store)?);
            // And then it is live.
            store.set("h", "k", round.to_string())?;
            let event = next(&mut watcher)?;
            assert!(!event.is_snapshot() && event.group() == "h");
            fold(&mut state, &event)?;
        }
        assert_eq!(state, state_at_end(&store)?);
        assert!(watcher.try_recv().is_none());
    }
    Ok(())
}

#[test]
fn a_snapshot_after_a_loss_comes_in_place_of_what_was_buffered_already() -> Result {
    needs!(Trimming);
    let store = Options::new().retention(Retention::FOREVER).anywhere()?;
    let write = |events: u64| (0..events).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop));
    let options = WatchOptions::new().after(Revision::ZERO).buffer(1_000).snapshot_after_loss();
    let mut first = store.watch_with(Filter::everything(), options.clone())?;
    write(100)?;
    // Both read the same page of the log, the second one late: it lacks the next fifty, and is fed what comes then.
    take(&mut first, 100)?;
    write(50)?;
    let mut second = store.watch_with(Filter::everything(), options)?;
    take(&mut second, 100)?;
    write(10)?;
    store.compact(Revision::new(160))?;
    let mut state = State::new();
    let lost = fold_to_a_mark(&mut second, &mut state)?;
    assert!(matches!(lost, Item::Lagged(lost) if lost.from.get() == 101), "{lost:?}");
    let ready = fold_to_a_mark(&mut second, &mut state)?;
    assert!(matches!(ready, Item::Ready(at) if at.get() == 160), "{ready:?}");
    assert_eq!(state, state_at_end(&store)?);
    assert!(second.try_recv().is_none(), "something came twice");
    write(1)?;
    assert_eq!(lines([&next(&mut second)?]), ["161 set g/0=v"]);
    Ok(())
}

#[test]
fn after_a_loss_a_reader_of_events_alone_is_told_and_gets_the_state() -> Result {
    needs!(Trimming);
    let store = Options::new().retention(Retention::FOREVER).anywhere()?;
    (0..20).try_for_each(|n| store.set("g", &(n % 2).to_string(), n.to_string()).map(drop))?;
    store.compact(Revision::new(20))?;
    let options = WatchOptions::new().after(Revision::new(3)).snapshot_after_loss();
    let mut watcher = store.watch_with(Filter::everything(), options)?;
    let lost = watcher.recv().ok_or("nothing")?.err().and_then(|error| error.lagged()).ok_or("not told")?;
    assert_eq!((lost.from.get(), lost.to.get()), (4, 19));
    assert_eq!(lines([&next(&mut watcher)?, &next(&mut watcher)?]), ["19 set g/0=18", "20 set g/1=19"]);
    assert!(watcher.try_recv().is_none());
    store.close()?;
    assert!(watcher.recv().is_none());
    Ok(())
}
