//! Retention: what the log keeps, whole transactions at a time.

use std::sync::Arc;
use std::time::Duration;

use crate::support::needs::needs;
use crate::support::{Anywhere as _, LIMIT, Result, eventually, next, revisions};
use watchkeep::{
    Clock, ErrorKind, Event, Filter, Item, ManualClock, Options, Retention, Revision, Store, WatchOptions,
};

const DAY: Duration = Duration::from_secs(24 * 3_600);

fn open(retention: Retention) -> Result<(Arc<ManualClock>, Store)> {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().retention(retention).clock(clock.clone()).anywhere()?;
    Ok((clock, store))
}

/// All that the log holds; read again when it is trimmed while it is read.
fn history(store: &Store) -> Result<Vec<Event>> {
    loop {
        let events = store.history(Filter::everything(), Revision::ZERO);
        match events.collect::<std::result::Result<_, _>>() {
            Err(error) if error.kind() == ErrorKind::Lagged => {}
            events => return Ok(events?),
        }
    }
}

/// That what the log still holds are whole transactions, without a gap, up to the end.
fn whole(store: &Store) -> Result<Vec<u64>> {
    let events = history(store)?;
    let seen = revisions(&events);
    assert!(seen.iter().zip(seen.iter().skip(1)).all(|(one, next)| one + 1 == *next), "a gap");
    if let (Some(first), Some(last)) = (events.first(), events.last()) {
        assert_eq!(last.commit(), last.revision());
        assert_eq!(last.revision(), store.last_revision()?, "the newest is never trimmed");
        assert_eq!(first.revision(), store.stats()?.first_revision);
    }
    Ok(seen)
}

#[test]
fn the_log_keeps_about_as_many_events_as_it_may_and_never_fewer() -> Result {
    needs!(Trimming);
    let (_, store) = open(Retention::events(1_000))?;
    for round in 0..5 {
        (0..900).try_for_each(|n| store.set("g", &(n % 10).to_string(), "v").map(drop))?;
        let most = 1_000 + 1_000 / 8;
        // At exactly that many it is trimmed again.
        eventually("it is trimmed", || Ok(round == 0 || store.stats()?.log_events < most))?;
        let seen = whole(&store)?;
        assert!(seen.len() as u64 >= 1_000.min(store.last_revision()?.get()), "{} events", seen.len());
    }
    assert_eq!(store.count("g")?, 10);
    assert!(store.check()?.is_ok());
    Ok(())
}

#[test]
fn events_go_when_they_are_old_but_the_newest_stay_whatever_their_age() -> Result {
    needs!(Trimming);
    let (clock, store) = open(Retention { max_age: DAY, min_events: 5, ..Retention::FOREVER })?;
    (0..100).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
    clock.advance(DAY / 2);
    (0..100).try_for_each(|n| store.set("h", &n.to_string(), "v").map(drop))?;
    clock.advance(DAY / 2 + Duration::from_millis(1));
    eventually("the first hundred go", || Ok(store.stats()?.log_events == 100))?;
    assert_eq!(whole(&store)?, (101..=200).collect::<Vec<_>>());
    clock.advance(DAY * 10);
    eventually("all but five go", || Ok(store.stats()?.log_events == 5))?;
    assert_eq!(whole(&store)?, (196..=200).collect::<Vec<_>>());
    assert_eq!(store.count_all("")?, 200);
    Ok(())
}

#[test]
fn an_event_of_the_future_does_not_hold_back_those_that_are_old() -> Result {
    needs!(Trimming);
    let (clock, store) = open(Retention { max_age: DAY, min_events: 5, ..Retention::FOREVER })?;
    let right = clock.now();
    clock.advance(DAY * 4_000);
    store.set("g", "k", "written while the clock was wrong")?;
    clock.set(right);
    (0..100).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
    clock.advance(DAY * 2);
    eventually("all but five go", || Ok(store.stats()?.log_events == 5))?;
    whole(&store)?;
    Ok(())
}

#[test]
fn an_old_transaction_of_any_size_goes_by_age() -> Result {
    needs!(Trimming);
    let mut stores = Vec::new();
    for size in [10, 3_000, 4_000, 5_000, 9_000] {
        let (clock, store) = open(Retention { max_age: DAY, min_events: 0, ..Retention::FOREVER })?;
        store.transaction(|tx| (0..size).try_for_each(|n| tx.set("g", &n.to_string(), "v")))?;
        store.set("g", "k", "v")?;
        store.set("g", "k", "v")?;
        clock.advance(DAY * 2);
        stores.push((size, store));
    }
    for (size, store) in stores {
        // And the one after them, maybe a step later: all but the newest is old.
        eventually(&format!("the {size} events go"), || Ok(store.stats()?.log_events == 1))?;
        whole(&store)?;
    }
    Ok(())
}

/// What names and values in the log weigh.
fn weight(store: &Store) -> Result<u64> {
    let weigh = |event: &Event| {
        event.group().len() + event.key().map_or(0, str::len) + event.value().map_or(0, |value| value.len())
    };
    Ok(history(store)?.iter().map(weigh).sum::<usize>() as u64)
}

#[test]
fn stats_tell_the_weight_of_the_log_exactly() -> Result {
    needs!(Trimming);
    let (_, store) = open(Retention::FOREVER)?;
    for number in 0..10 {
        store.set("g", &number.to_string(), vec![b'x'; 1_000])?;
        assert_eq!(store.stats()?.log_bytes, weight(&store)?);
    }
    store.compact(Revision::new(5))?;
    assert_eq!(store.stats()?.log_bytes, weight(&store)?);
    store.delete_group("g")?;
    assert_eq!(store.stats()?.log_bytes, weight(&store)?);
    Ok(())
}

#[test]
fn events_go_when_they_weigh_too_much_and_not_before() -> Result {
    needs!(Trimming);
    let (_, store) = open(Retention { max_bytes: 1_000_000, min_events: 0, ..Retention::FOREVER })?;
    for number in 0..40 {
        store.set("g", &(number % 3).to_string(), vec![b'x'; 100_000])?;
    }
    // A gentle push now and then, since the trimmer looks when there is much to look at.
    eventually("it is light enough", || {
        store.set("g", "small", "v")?;
        Ok(weight(&store)? <= 1_000_000)
    })?;
    let kept = weight(&store)?;
    assert!(kept > 800_000, "{kept} bytes");
    whole(&store)?;
    Ok(())
}

#[test]
fn weight_is_trimmed_also_right_behind_what_is_trimmed_already() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.db");
    let store = Options::new().retention(Retention::FOREVER).open(&path)?;
    (0..40).try_for_each(|n: u32| store.set("g", &n.to_string(), vec![b'x'; 100_000]).map(drop))?;
    // Ten events stay: a little more than they may weigh.
    store.compact(Revision::new(31))?;
    store.close()?;
    let retention = Retention { max_bytes: 1_000_000, min_events: 0, ..Retention::FOREVER };
    let store = Options::new().retention(retention).open(&path)?;
    eventually("one more goes", || Ok(store.stats()?.first_revision == Revision::new(32)))?;
    Ok(())
}

#[test]
fn however_small_the_retention_no_transaction_is_cut_in_two() -> Result {
    needs!(Trimming);
    let mut stores = Vec::new();
    for retention in [
        Retention::events(1),
        Retention::events(10),
        Retention { max_bytes: 1, min_events: 0, ..Retention::FOREVER },
        Retention { max_age: Duration::from_millis(1), min_events: 0, ..Retention::FOREVER },
        Retention { max_events: 3, min_events: 7, ..Retention::FOREVER },
    ] {
        let (clock, store) = open(retention)?;
        for round in 0..60_u64 {
            let size = 1 + round * 7 % 11;
            let done =
                store.transaction(|tx| (0..size).try_for_each(|n| tx.set("g", &n.to_string(), "v")))?;
            clock.advance(Duration::from_millis(1));
            let events = history(&store)?;
            let first = events.first().ok_or("the newest was trimmed")?;
            // Its transaction began with it: the one before ended just before.
            let mates = events.iter().filter(|event| event.commit() == first.commit()).count() as u64;
            let whole = first.commit().get() + 1 - mates;
            assert_eq!(first.revision().get(), whole);
            let begins = (1..=round).scan(1, |at, before| {
                *at += 1 + (before - 1) * 7 % 11;
                Some(*at)
            });
            let begins: Vec<_> = [1].into_iter().chain(begins).collect();
            assert!(
                begins.contains(&first.revision().get()),
                "{retention:?}: begins with {}",
                first.revision()
            );
            assert_eq!(events.last().map(Event::revision), Some(done.revision));
        }
        stores.push(store);
    }
    // Upkeep looks once a second: all of them have it at the same time.
    for store in stores {
        eventually("only about what may stay stays", || Ok(store.stats()?.log_events <= 32))?;
        assert!(store.check()?.is_ok());
    }
    Ok(())
}

#[test]
fn compact_trims_whole_transactions_and_always_leaves_the_newest() -> Result {
    needs!(Trimming);
    let (_, store) = open(Retention::FOREVER)?;
    assert_eq!(store.compact(Revision::new(100))?, 0);
    store.transaction(|tx| (0..10).try_for_each(|n| tx.set("g", &n.to_string(), "v")))?;
    assert_eq!(store.compact(Revision::new(u64::MAX))?, 0, "the only one is the newest");
    store.transaction(|tx| (0..10).try_for_each(|n| tx.set("g", &n.to_string(), "v")))?;
    for before in [0, 1, 5, 10] {
        assert_eq!(store.compact(Revision::new(before))?, 0, "before {before}");
    }
    assert_eq!((store.compact(Revision::new(11))?, store.compact(Revision::new(11))?), (10, 0));
    assert_eq!(whole(&store)?, (11..=20).collect::<Vec<_>>());
    assert_eq!(store.compact(Revision::new(20))?, 0);
    store.transaction(|tx| (0..5_000).try_for_each(|n| tx.set("h", &n.to_string(), "v")))?;
    store.set("g", "k", "v")?;
    assert_eq!(store.compact(Revision::new(u64::MAX))?, 5_010);
    assert_eq!(whole(&store)?, [5_021]);
    assert_eq!((store.count("h")?, store.set("g", "k", "v")?.get()), (5_000, 5_022));
    assert!(store.check()?.is_ok());
    Ok(())
}

#[test]
fn history_after_a_trimmed_revision_says_what_is_lost_and_goes_on() -> Result {
    needs!(Trimming);
    let (_, store) = open(Retention::FOREVER)?;
    (0..600).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
    store.compact(Revision::new(301))?;
    let mut asked = store.history(Filter::everything(), Revision::new(100));
    let error = asked.next().ok_or("nothing")?.err().ok_or("no error")?;
    let lost = error.lagged().ok_or("another error")?;
    assert_eq!((error.kind(), lost.from.get(), lost.to.get()), (ErrorKind::Lagged, 101, 300));
    let rest: Vec<_> = asked.collect::<std::result::Result<_, _>>()?;
    assert_eq!(revisions(&rest), (301..=600).collect::<Vec<_>>());
    assert_eq!(
        revisions(&history(&store)?),
        (301..=600).collect::<Vec<_>>(),
        "all of it means what there is"
    );
    for after in [300, 599, 600, 900] {
        let events: Vec<_> = store
            .history(Filter::everything(), Revision::new(after))
            .collect::<std::result::Result<_, _>>()?;
        assert_eq!(revisions(&events), (after + 1..=600).collect::<Vec<_>>(), "after {after}");
    }
    Ok(())
}

#[test]
fn a_watch_after_a_trimmed_revision_says_what_is_lost_from_the_very_beginning_too() -> Result {
    needs!(Trimming);
    let (_, store) = open(Retention::FOREVER)?;
    (0..60).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
    store.compact(Revision::new(31))?;
    for after in [0, 10, 29] {
        let mut watcher =
            store.watch_with(Filter::everything(), WatchOptions::new().after(Revision::new(after)))?;
        let error = watcher.recv_timeout(LIMIT).ok_or("nothing")?.err().ok_or("no error")?;
        let lost = error.lagged().ok_or("another error")?;
        assert_eq!((lost.from.get(), lost.to.get()), (after + 1, 30));
        assert_eq!(next(&mut watcher)?.revision().get(), 31);
    }
    let mut exact = store.watch_with(Filter::everything(), WatchOptions::new().after(Revision::new(30)))?;
    assert_eq!(next(&mut exact)?.revision().get(), 31);
    Ok(())
}

#[test]
fn what_was_trimmed_stays_trimmed_after_reopening_and_revisions_go_on() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let store = Options::new().retention(Retention::FOREVER).open(&path)?;
    (0..20).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
    store.compact(Revision::new(u64::MAX))?;
    store.delete_group("g")?;
    store.compact(Revision::new(u64::MAX))?;
    store.close()?;
    let store = Options::new().retention(Retention::FOREVER).open(&path)?;
    assert_eq!((whole(&store)?, store.count_all("")?), (vec![21], 0));
    assert_eq!(store.set("g", "k", "v")?.get(), 22);
    assert!(store.check()?.is_ok());
    Ok(())
}

#[test]
fn the_default_keeps_at_least_the_newest_10_000() -> Result {
    needs!(Trimming);
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).anywhere()?;
    for part in 0..13 {
        store.transaction(|tx| (0..1_000).try_for_each(|n| tx.set("g", &n.to_string(), part.to_string())))?;
    }
    clock.advance(DAY * 8);
    eventually("the older ones go", || Ok(store.stats()?.log_events == 10_000))?;
    assert_eq!(whole(&store)?.first(), Some(&3_001));
    Ok(())
}

#[test]
fn deleted_groups_are_swept_and_the_file_gives_space_back() -> Result {
    let folder = tempfile::tempdir()?;
    let options = Options::new().durability(watchkeep::Durability::Relaxed).retention(Retention::events(10));
    let store = options.open(folder.path().join("app.db"))?;
    for part in 0..24 {
        store.transaction(|tx| {
            (0..500).try_for_each(|n| tx.set("g", &format!("{part}-{n}"), vec![b'x'; 4_000]))
        })?;
    }
    eventually("the file holds it", || Ok(store.stats()?.file_bytes > 40_000_000))?;
    store.delete_group("g")?;
    (0..40).try_for_each(|n| store.set("h", &n.to_string(), "v").map(drop))?;
    // The file shrinks as the write-ahead log is moved into it, which these make long soon.
    eventually("the file is small again", || {
        store.set("h", "k", vec![b'x'; 100_000])?;
        Ok(store.stats()?.file_bytes < 8_000_000)
    })?;
    let report = store.check()?;
    assert!(report.is_ok(), "{report:?}");
    Ok(())
}

#[test]
fn what_was_compacted_is_gone_for_who_comes_later_whoever_read_it_before() -> Result {
    needs!(Trimming);
    let (_, store) = open(Retention::FOREVER)?;
    (0..200).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
    let after =
        |revision| store.watch_with(Filter::everything(), WatchOptions::new().after(Revision::new(revision)));
    let mut before = after(0)?;
    crate::support::take(&mut before, 200)?;
    store.compact(Revision::new(150))?;
    let lost = after(0)?.recv().ok_or("nothing")?.err().and_then(|error| error.lagged()).ok_or("not told")?;
    assert_eq!((lost.from.get(), lost.to.get()), (1, 149));
    Ok(())
}

#[test]
fn the_trimmer_leaves_what_a_snapshot_needs_until_its_reader_has_caught_up() -> Result {
    needs!(Trimming);
    let (_, store) = open(Retention::events(10))?;
    let write = |group: &str, events: u64| {
        store.transaction(|tx| (0..events).try_for_each(|n| tx.set(group, &format!("{n:04}"), "v"))).map(drop)
    };
    let first = || Ok::<_, Box<dyn std::error::Error + Send + Sync>>(store.stats()?.first_revision.get());
    write("g", 1_000)?;
    let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().snapshot())?;
    let (mut items, mut given, mut ready) = (watcher.items(), 0, None);
    while ready.is_none() {
        match items.recv_timeout(LIMIT).ok_or("it never gets ready")?? {
            Item::Event(_) => given += 1,
            Item::Ready(at) => ready = Some(at.get()),
            other => return Err(format!("unexpected: {other:?}").into()),
        }
        if given == 1 || given == 257 {
            write("h", 1_000)?;
            eventually("what it does not need goes", || Ok(first()? > 1))?;
            assert_eq!(first()?, 1_001, "after {given}");
        }
    }
    // The same for what comes after it.
    write("i", 1_000)?;
    let mut last = ready.ok_or("not ready")?;
    while last < store.last_revision()?.get() {
        let event = next(&mut watcher)?;
        assert_eq!(event.revision().get(), last + 1);
        last += 1;
    }
    assert!(watcher.try_recv().is_none());
    eventually("the rest goes as ever", || {
        store.set("h", "k", "v")?;
        Ok(first()? > last)
    })
}

#[test]
fn a_store_in_memory_takes_no_more_than_it_may_and_goes_on_once_something_is_deleted() -> Result {
    let most = 200_000;
    let store = Options::new().memory_limit(most).open_in_memory()?;
    let mut watcher = store.watch("*", "*");
    // Written over and over, its log is what grows, and gives way.
    for number in 0..5_000 {
        store.set("g", "k", number.to_string())?;
    }
    let stats = store.stats()?;
    assert!(stats.log_events * 256 + stats.log_bytes <= most / 2, "{} events are kept", stats.log_events);
    let lost = watcher.by_ref().find_map(|event| event.err()).and_then(|error| error.lagged());
    assert!(lost.is_some_and(|lost| lost.to.get() + 1 == stats.first_revision.get()), "{lost:?}");
    // Not in one transaction either.
    let much =
        store.transaction(|tx| (0..5_000).try_for_each(|number| tx.set("h", &number.to_string(), "v")));
    assert_eq!(much.err().map(|error| error.kind()), Some(ErrorKind::Full));
    assert_eq!((store.count("h")?, store.last_revision()?), (0, stats.last_revision));
    let mut keys = 0_u64;
    while store.set("h", &keys.to_string(), "v").is_ok() {
        keys += 1;
    }
    assert!((most / 256 / 3..most / 256).contains(&keys), "{keys}");
    assert_eq!(store.set("h", "more", "v").err().map(|error| error.kind()), Some(ErrorKind::Full));
    assert!(store.delete("h", "0")? && store.delete_group("h")? == keys - 1);
    store.set("h", "more", "v")?;
    assert!(store.check()?.is_ok());
    Ok(())
}

#[test]
fn where_revisions_lie_apart_events_are_what_is_trimmed_and_counted() -> Result {
    let clock = Arc::new(ManualClock::default());
    let retention = Retention { min_events: 0, max_age: Duration::from_secs(60), ..Retention::FOREVER };
    let options = Options::new().sparse_revisions(true).clock(clock.clone()).retention(retention);
    let store = options.open_in_memory()?;
    let mut ends = Vec::new();
    for _ in 0..50 {
        let done = store.transaction(|tx| (0..60).try_for_each(|n| tx.set("g", &n.to_string(), "v")))?;
        ends.push(done.revision);
    }
    assert_eq!(store.compact(Revision::new(ends[9].get() + 1))?, 600);
    let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().after(ends[4]))?;
    let lagged = watcher.try_recv().and_then(std::result::Result::err).ok_or("nothing was lost")?;
    assert_eq!(lagged.kind(), ErrorKind::Lagged);
    assert_eq!((store.counters().lost, store.stats()?.log_events), (300, 2_400));
    clock.advance(Duration::from_secs(120));
    eventually("the last transaction stays", || Ok(store.stats()?.log_events == 60))
}
