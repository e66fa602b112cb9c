//! What happens to a watcher that is slower than the writers, under each policy.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use crate::support::needs::needs;
use crate::support::numbers::number;
use crate::support::{
    Anywhere as _, LIMIT, Result, eventually, kinds, lines, next, revisions, take, within_limit,
};
use watchkeep::{
    Event, Filter, Item, Kind, LagPolicy, Options, Retention, Revision, Store, WatchOptions, Watcher,
};

fn store() -> Result<Store> {
    Ok(Options::new().retention(Retention::FOREVER).anywhere()?)
}

fn everything(store: &Store, options: WatchOptions) -> Result<Watcher> {
    Ok(store.watch_with(Filter::everything(), options)?)
}

/// What there is now.
fn pending(watcher: &mut Watcher) -> Result<Vec<Event>> {
    std::iter::from_fn(|| watcher.try_recv()).map(|event| Ok(event?)).collect()
}

#[test]
fn a_watcher_that_reads_nothing_for_2_000_writes_sees_all_in_order() -> Result {
    for buffer in [1, 16] {
        let store = store()?;
        let mut watcher = everything(&store, WatchOptions::new().buffer(buffer))?;
        for number in 0..2_000 {
            store.set("g", &(number % 100).to_string(), number.to_string())?;
        }
        let events = take(&mut watcher, 2_000)?;
        assert_eq!(revisions(&events), (1..=2_000).collect::<Vec<_>>());
        assert!(watcher.try_recv().is_none());
        assert_eq!(watcher.dropped(), 0);
    }
    Ok(())
}

#[test]
fn a_buffer_of_bytes_holds_one_event_however_large_and_loses_none() -> Result {
    let store = store()?;
    let mut watcher = everything(&store, WatchOptions::new().buffer(1_000).buffer_bytes(0))?;
    for number in 0..50 {
        store.set("g", &number.to_string(), vec![b'x'; 5_000])?;
    }
    assert_eq!(revisions(&take(&mut watcher, 50)?), (1..=50).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn two_hundred_watchers_that_lag_together_each_see_everything() -> Result {
    let store = store()?;
    let watchers: Vec<_> = (0..200)
        .map(|n| everything(&store, WatchOptions::new().buffer(1 + n % 20)))
        .collect::<Result<_>>()?;
    for number in 0..2_000 {
        store.set("g", &(number % 50).to_string(), "v")?;
    }
    let readers: Vec<_> = watchers
        .into_iter()
        .map(|mut watcher| {
            thread::Builder::new().stack_size(256 << 10).spawn(move || take(&mut watcher, 2_000))
        })
        .collect::<std::io::Result<_>>()?;
    for reader in readers {
        let seen = reader.join().map_err(|_| "panicked")??;
        assert_eq!(revisions(&seen), (1..=2_000).collect::<Vec<_>>());
    }
    Ok(())
}

#[test]
fn a_laggard_keeps_up_and_joins_the_live_feed_while_writers_go_on() -> Result {
    let store = store()?;
    let mut watcher = everything(&store, WatchOptions::new())?;
    for number in 0..3_000 {
        store.set("g", &(number % 50).to_string(), "v")?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            let (store, stop) = (store.clone(), stop.clone());
            thread::spawn(move || -> Result<u64> {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    store.set("h", &format!("{writer}-{}", number % 50), "v")?;
                    number += 1;
                }
                Ok(number)
            })
        })
        .collect();
    // From far behind, and with a small buffer, to within a hundred of the newest: twenty times.
    let (mut expected, mut near) = (1, 0);
    while near < 20 {
        let event = next(&mut watcher)?;
        assert_eq!(number(event.revision()), expected);
        expected += 1;
        if expected % 500 == 0 {
            near += u64::from(number(store.last_revision()?) < expected + 300);
            assert!(expected < 400_000, "it does not keep up");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().map_err(|_| "panicked")??;
    }
    let last = number(store.last_revision()?);
    let rest = revisions(&take(&mut watcher, usize::try_from(last + 1 - expected)?)?);
    assert_eq!(rest, (expected..=last).collect::<Vec<_>>());
    // It is fed again: what is written now is there when the write returns, without a look at the log.
    store.set("g", "k", "v")?;
    assert_eq!(pending(&mut watcher)?.len(), 1);
    Ok(())
}

#[test]
fn watchers_of_every_buffer_see_all_of_a_transaction_of_5_000_events() -> Result {
    needs!(LargeTransactions);
    let store = store()?;
    let mut watchers: Vec<_> = [1, 16, 10_000]
        .into_iter()
        .map(|buffer| everything(&store, WatchOptions::new().buffer(buffer).buffer_bytes(usize::MAX)))
        .collect::<Result<_>>()?;
    let done = store.transaction(|tx| (0..5_000).try_for_each(|n| tx.set("g", &n.to_string(), "v")))?;
    let after = store.set("g", "after", "v")?;
    for watcher in &mut watchers {
        let events = take(watcher, 5_001)?;
        assert_eq!(revisions(&events), (1..=5_001).collect::<Vec<_>>());
        assert!(events[..5_000].iter().all(|event| event.commit() == done.revision));
        assert_eq!(events[5_000].commit(), after);
    }
    Ok(())
}

#[test]
fn drop_counts_exactly_what_it_drops_and_keeps_the_oldest() -> Result {
    let store = store()?;
    let mut watcher = everything(&store, WatchOptions::new().policy(LagPolicy::Drop).buffer(4))?;
    for number in 0..10 {
        store.set("g", &number.to_string(), "v")?;
    }
    assert_eq!(watcher.dropped(), 6);
    assert_eq!(revisions(&pending(&mut watcher)?), [1, 2, 3, 4]);
    store.set("g", "k", "v")?;
    assert_eq!((revisions(&pending(&mut watcher)?), watcher.dropped()), (vec![11], 6));
    Ok(())
}

#[test]
fn drop_counts_only_what_its_filter_lets_through() -> Result {
    let store = store()?;
    let options = WatchOptions::new().policy(LagPolicy::Drop).buffer(2);
    let mut watcher = store.watch_with(Filter::key("g", "k"), options)?;
    for number in 0..20 {
        store.set("g", if number % 2 == 0 { "k" } else { "other" }, "v")?;
    }
    assert_eq!((pending(&mut watcher)?.len(), watcher.dropped()), (2, 8));
    Ok(())
}

#[test]
fn drop_accounts_for_every_event_of_a_transaction_too_large_for_memory() -> Result {
    needs!(LargeTransactions);
    let store = store()?;
    let mut watcher = everything(&store, WatchOptions::new().policy(LagPolicy::Drop).buffer(4))?;
    store.transaction(|tx| (0..5_000).try_for_each(|n| tx.set("g", &n.to_string(), "v")))?;
    let seen = revisions(&pending(&mut watcher)?);
    assert!(seen.is_sorted() && seen.starts_with(&[1, 2, 3, 4]));
    assert_eq!(seen.len() as u64 + watcher.dropped(), 5_000, "each is seen or counted");
    Ok(())
}

#[test]
fn what_drop_hands_out_and_what_it_counts_is_everything() -> Result {
    let store = store()?;
    let watchers: Vec<_> = (1..=8)
        .map(|buffer| everything(&store, WatchOptions::new().policy(LagPolicy::Drop).buffer(buffer)))
        .collect::<Result<_>>()?;
    let readers: Vec<_> = watchers
        .into_iter()
        .map(|mut watcher| {
            thread::spawn(move || -> Result<u64> {
                let (mut seen, mut last) = (0, Revision::ZERO);
                while let Some(event) = watcher.recv() {
                    let event = event?;
                    assert!(event.revision() > last);
                    last = event.revision();
                    seen += 1;
                }
                Ok(seen + watcher.dropped())
            })
        })
        .collect();
    thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || -> Result {
                    for number in 0..500 {
                        store.set(&format!("g{writer}"), &number.to_string(), "v")?;
                    }
                    Ok(())
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| "panicked")?)
    })?;
    store.close()?;
    for reader in readers {
        assert_eq!(reader.join().map_err(|_| "panicked")??, 2_000);
    }
    Ok(())
}

#[test]
fn latest_keeps_only_the_newest_pending_event_of_each_key() -> Result {
    let store = store()?;
    let mut watcher = everything(&store, WatchOptions::new().policy(LagPolicy::Latest))?;
    for number in 1..=100 {
        store.set("g", if number % 2 == 0 { "even" } else { "odd" }, number.to_string())?;
    }
    store.delete("g", "odd")?;
    assert_eq!(lines(&pending(&mut watcher)?), ["100 set g/even=100", "101 delete g/odd"]);
    Ok(())
}

#[test]
fn latest_replaces_what_is_pending_for_the_keys_of_a_deleted_group() -> Result {
    let store = store()?;
    let mut watcher = everything(&store, WatchOptions::new().policy(LagPolicy::Latest))?;
    for (group, key) in [("g", "a"), ("h", "a"), ("g", "b"), ("gg", "a")] {
        store.set(group, key, "v")?;
    }
    store.delete_group("g")?;
    store.set("g", "c", "v")?;
    let seen = lines(&pending(&mut watcher)?);
    assert_eq!(seen, ["2 set h/a=v", "4 set gg/a=v", "5 delete_group g", "6 set g/c=v"]);
    Ok(())
}

#[test]
fn latest_never_holds_more_keys_than_its_buffer_and_ends_at_the_last_state() -> Result {
    for buffer in [1, 3, 16] {
        let store = store()?;
        let mut watcher = everything(&store, WatchOptions::new().policy(LagPolicy::Latest).buffer(buffer))?;
        for number in 0..3_000 {
            let key = (number * 7 % 40).to_string();
            match number % 97 {
                0 => drop(store.delete_group("g")?),
                13 => drop(store.delete("g", &key)?),
                _ => drop(store.set("g", &key, number.to_string())?),
            }
        }
        let (mut state, mut last) = (BTreeMap::new(), Revision::ZERO);
        for event in pending(&mut watcher)? {
            assert!(event.revision() > last, "out of order");
            last = event.revision();
            match (event.kind(), event.key(), event.value()) {
                (Kind::Set, Some(key), Some(value)) => drop(state.insert(key.to_owned(), value.clone())),
                (Kind::Delete, Some(key), _) => drop(state.remove(key)),
                (Kind::DeleteGroup, ..) => state.clear(),
                other => return Err(format!("unexpected: {other:?}").into()),
            }
        }
        let expected: BTreeMap<_, _> = store
            .entries("g")
            .map(|entry| entry.map(|entry| (entry.key, entry.value)))
            .collect::<std::result::Result<_, _>>()?;
        assert_eq!(state, expected, "buffer {buffer}");
        assert_eq!(last, store.last_revision()?, "the newest event of all is never coalesced away");
    }
    Ok(())
}

#[test]
fn latest_goes_back_to_the_feed_after_an_overflow() -> Result {
    let store = store()?;
    let mut watcher = everything(&store, WatchOptions::new().policy(LagPolicy::Latest).buffer(2))?;
    for number in 0..10 {
        store.set("g", &number.to_string(), "v")?;
    }
    assert_eq!(pending(&mut watcher)?.len(), 10, "ten keys: nothing to leave out");
    for number in 0..10 {
        store.set("g", "k", number.to_string())?;
    }
    assert_eq!(lines(&pending(&mut watcher)?), ["20 set g/k=9"]);
    Ok(())
}

#[test]
fn lagged_says_exactly_what_is_lost_wherever_the_log_is_cut() -> Result {
    needs!(Trimming);
    for cut in 1..=24 {
        let store = store()?;
        let mut watcher = everything(&store, WatchOptions::new().buffer(2))?;
        // Transactions of one, two, three ... events.
        let mut ends = Vec::new();
        for size in 1..=6 {
            let done = store
                .transaction(|tx| (0..size).try_for_each(|n| tx.set("g", &format!("{size}-{n}"), "v")))?;
            ends.push(done.revision.get());
        }
        let last = store.last_revision()?.get();
        let gone = store.compact(Revision::new(cut))?;
        let floor = ends.iter().copied().filter(|end| *end < cut && *end < ends[4] + 1).max().unwrap_or(0);
        assert_eq!(gone, floor, "whole transactions before {cut}, and never the newest");

        let mut covered = Vec::new();
        let mut items = watcher.items();
        while let Some(item) = items.try_recv() {
            match item? {
                Item::Event(event) => {
                    let begins = ends.contains(&(event.revision().get() - 1)) || event.revision().get() == 1;
                    let after_gap = covered.last().is_some_and(|(_, lost)| *lost);
                    assert!(!after_gap || begins, "cut {cut}: a partial transaction after the gap");
                    covered.push((event.revision().get(), false));
                }
                Item::Lagged(lagged) => {
                    assert_eq!(lagged.to.get(), floor, "cut {cut}");
                    covered.extend((lagged.from.get()..=lagged.to.get()).map(|revision| (revision, true)));
                }
                other => return Err(format!("unexpected: {other:?}").into()),
            }
        }
        let all: Vec<_> = covered.iter().map(|(revision, _)| *revision).collect();
        assert_eq!(all, (1..=last).collect::<Vec<_>>(), "cut {cut}: each revision seen or lost, once");
        let lost = covered.iter().filter(|(_, lost)| *lost).count() as u64;
        assert!(lost <= floor.saturating_sub(2), "cut {cut}: the two in the buffer are not lost");
    }
    Ok(())
}

#[test]
fn a_watcher_that_was_cut_off_goes_on_live_after_it_was_told() -> Result {
    needs!(Trimming);
    let store = store()?;
    let mut watcher = everything(&store, WatchOptions::new().buffer(1))?;
    for number in 0..500 {
        store.set("g", &number.to_string(), "v")?;
    }
    store.compact(Revision::new(400))?;
    // Some of what was trimmed may still be in memory.
    let mut after = 0;
    let lagged = loop {
        match watcher.recv_timeout(LIMIT).ok_or("nothing")? {
            Ok(event) => assert_eq!(event.revision().get(), after + 1),
            Err(error) => break error.lagged().ok_or("another error")?,
        }
        after += 1;
    };
    assert_eq!((lagged.from.get(), lagged.to.get()), (after + 1, 399));
    assert_eq!(revisions(&take(&mut watcher, 101)?), (400..=500).collect::<Vec<_>>());
    store.set("g", "k", "v")?;
    assert_eq!(revisions(&pending(&mut watcher)?), [501]);
    Ok(())
}

#[test]
fn the_log_is_cut_while_many_watchers_catch_up_and_each_accounts_for_every_revision() -> Result {
    needs!(Trimming);
    within_limit(|| {
        let store = store()?;
        let watchers: Vec<_> =
            (0..12).map(|n| everything(&store, WatchOptions::new().buffer(1 + n))).collect::<Result<_>>()?;
        let (progress, seen) = mpsc::channel();
        let readers: Vec<_> = watchers
            .into_iter()
            .map(|mut watcher| {
                let progress = progress.clone();
                thread::spawn(move || -> Result<u64> {
                    let (mut after, mut partial) = (0, None);
                    for item in watcher.items() {
                        match item? {
                            Item::Event(event) => {
                                assert_eq!(event.revision().get(), after + 1, "a gap that nobody told of");
                                // Within a transaction all name the same end.
                                assert!(partial.is_none_or(|end| end == event.commit()));
                                partial = Some(event.commit()).filter(|end| *end > event.revision());
                                after += 1;
                            }
                            Item::Lagged(lagged) => {
                                assert_eq!(
                                    lagged.from.get(),
                                    after + 1,
                                    "a gap that is too large or too small"
                                );
                                after = lagged.to.get();
                                partial = None;
                            }
                            other => return Err(format!("unexpected: {other:?}").into()),
                        }
                        if after % 50 == 0 {
                            progress.send(after).ok();
                        }
                    }
                    Ok(after)
                })
            })
            .collect();
        for number in 0..600 {
            store.transaction(|tx| (0..5).try_for_each(|n| tx.set("g", &format!("{number}-{n}"), "v")))?;
            if number % 60 == 59 {
                seen.recv_timeout(LIMIT)?;
                store.compact(Revision::new(number * 5))?;
            }
        }
        store.close()?;
        for reader in readers {
            assert_eq!(reader.join().map_err(|_| "panicked")??, 3_000);
        }
        Ok(())
    })
}

#[test]
fn a_watcher_may_go_while_writers_write() -> Result {
    within_limit(|| {
        let store = store()?;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| -> Result {
            let writers: Vec<_> = (0..4)
                .map(|writer| {
                    let (store, stop) = (&store, &stop);
                    scope.spawn(move || -> Result {
                        let mut number = 0;
                        while !stop.load(Ordering::Relaxed) {
                            store.set(&format!("g{writer}"), &(number % 9).to_string(), "v")?;
                            number += 1;
                        }
                        Ok(())
                    })
                })
                .collect();
            for round in 0..300 {
                let policy = [LagPolicy::CatchUp, LagPolicy::Drop, LagPolicy::Latest][round % 3];
                let filter =
                    [Filter::everything(), Filter::key_name("3"), Filter::group("g2")][round / 3 % 3].clone();
                let options = WatchOptions::new().policy(policy).buffer(1 + round % 5);
                let mut watcher = store.watch_with(filter, options)?;
                (0..round % 4).try_for_each(|_| next(&mut watcher).map(drop))?;
            }
            stop.store(true, Ordering::Relaxed);
            writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| "panicked")?)
        })?;
        assert_eq!(store.stats()?.watchers, 0);
        Ok(())
    })
}

#[test]
fn a_laggard_holds_its_buffer_and_not_more() -> Result {
    let store = store()?;
    let mut watcher =
        everything(&store, WatchOptions::new().policy(LagPolicy::Drop).buffer(100).buffer_bytes(10_000))?;
    for number in 0..100 {
        store.set("g", &number.to_string(), vec![b'x'; 2_000])?;
    }
    let held = pending(&mut watcher)?.len();
    assert!((1..=5).contains(&held), "{held} events of 2,000 bytes in a buffer of 10,000");
    assert_eq!(held as u64 + watcher.dropped(), 100);
    Ok(())
}

#[test]
fn touch_events_among_others_keep_their_place_for_a_laggard() -> Result {
    let store = store()?;
    let filter = Filter::everything().kinds(Kind::ALL);
    let mut watcher = store.watch_with(filter, WatchOptions::new().buffer(1))?;
    for _ in 0..3 {
        store.set_with_ttl("g", "k", "v", LIMIT)?;
        store.touch("g", "k", LIMIT * 2)?;
        store.persist("g", "k")?;
    }
    let (set, touch) = ((Kind::Set, "k".to_owned()), (Kind::Touch, "k".to_owned()));
    let expected: Vec<_> = (0..3).flat_map(|_| [set.clone(), touch.clone(), touch.clone()]).collect();
    eventually("the last one", || Ok(number(store.last_revision()?) == 9))?;
    assert_eq!(kinds(&take(&mut watcher, 9)?), expected);
    Ok(())
}

#[test]
fn latest_coalesces_also_when_there_are_more_keys_than_the_buffer_holds() -> Result {
    for (buffer, keys) in [(16, 17), (16, 100), (2, 7)] {
        let store = store()?;
        let options = WatchOptions::new().policy(LagPolicy::Latest).buffer(buffer);
        let watcher = everything(&store, options)?;
        for n in 0..3_000 {
            store.set("g", &(n % keys).to_string(), n.to_string())?;
        }
        store.close()?;
        let events = watcher.collect::<std::result::Result<Vec<_>, _>>()?;
        // A page of the log holds 256 events: of each key one is left, and pages may be cut by the buffer.
        let most = 3_000 * keys / 100 + buffer;
        assert!(events.len() <= most, "{} events for {keys} keys in a buffer of {buffer}", events.len());
        let last: BTreeMap<_, _> = events
            .iter()
            .map(|event| (event.key().unwrap_or_default().to_owned(), event.revision()))
            .collect();
        assert_eq!(last.len(), keys);
        assert!(
            last.values().all(|revision| number(*revision) > 3_000 - keys as u64),
            "the newest of each key came"
        );
    }
    Ok(())
}
