//! Watching: every filter and option, what a watcher sees and what not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::support::needs::needs;
use crate::support::numbers::{nth, number, numbers};
use crate::support::{
    Anywhere as _, LIMIT, Result, anywhere, eventually, line, lines, next, revisions, take, within_limit,
};
use watchkeep::{
    Cursor, Error, ErrorKind, Event, Filter, Item, Kind, LagPolicy, ManualClock, Options, Retention,
    Revision, Store, WatchOptions, Watcher,
};

fn kind<T>(result: std::result::Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn pending(watcher: &mut Watcher) -> Result<Vec<Event>> {
    std::iter::from_fn(|| watcher.try_recv()).map(|event| Ok(event?)).collect()
}

/// Does a little of everything; what a filter should let through is in the second column.
fn script(store: &Store) -> Result {
    let me = store.with_origin("me");
    store.set("g", "k", "1")?; // 1
    me.set("g", "kk", "2")?; // 2
    store.set("g", "other", "3")?; // 3
    store.set("gg", "k", "4")?; // 4
    store.set("G", "k", "5")?; // 5
    store.set("*", "*", "6")?; // 6
    store.touch("g", "k", LIMIT)?; // 7
    store.delete("g", "kk")?; // 8
    store.delete_group("g")?; // 9
    me.delete_group("gg")?; // 10
    store.set("g", "k", "11")?; // 11
    Ok(())
}

#[test]
fn each_filter_lets_through_exactly_its_own_live_late_and_in_history() -> Result {
    let gone = [Kind::Delete, Kind::DeleteGroup, Kind::Expire];
    let cases: Vec<(&str, Filter, &[u64])> = vec![
        ("everything", Filter::everything(), &[1, 2, 3, 4, 5, 6, 8, 9, 10, 11]),
        (
            "everything, touch too",
            Filter::everything().kinds(Kind::ALL),
            &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
        ),
        ("touch only", Filter::everything().kinds([Kind::Touch]), &[7]),
        ("no kind at all", Filter::everything().kinds([]), &[]),
        ("what goes", Filter::everything().kinds(gone), &[8, 9, 10]),
        ("group", Filter::group("g"), &[1, 2, 3, 8, 9, 11]),
        ("group, set", Filter::group("g").kinds([Kind::Set]), &[1, 2, 3, 11]),
        ("group *", Filter::group("*"), &[6]),
        ("group prefix", Filter::group_prefix("g"), &[1, 2, 3, 4, 8, 9, 10, 11]),
        ("group prefix gg", Filter::group_prefix("gg"), &[4, 10]),
        ("key", Filter::key("g", "k"), &[1, 9, 11]),
        ("key without group deletions", Filter::key("g", "k").without_group_deletions(), &[1, 11]),
        ("key that is not there", Filter::key("g", "none"), &[9]),
        ("key prefix", Filter::key_prefix("g", "k"), &[1, 2, 8, 9, 11]),
        ("key prefix, all", Filter::key_prefix("g", ""), &[1, 2, 3, 8, 9, 11]),
        ("key prefix without", Filter::key_prefix("g", "k").without_group_deletions(), &[1, 2, 8, 11]),
        ("key name", Filter::key_name("k"), &[1, 4, 5, 9, 10, 11]),
        ("key name without", Filter::key_name("k").without_group_deletions(), &[1, 4, 5, 11]),
        ("key name *", Filter::key_name("*").without_group_deletions(), &[6]),
        ("key named *", Filter::key("*", "*"), &[6]),
        ("not mine", Filter::everything().exclude_origin("me"), &[1, 3, 4, 5, 6, 8, 9, 11]),
        ("not of nobody", Filter::everything().exclude_origin("nobody"), &[1, 2, 3, 4, 5, 6, 8, 9, 10, 11]),
        ("a group of which nothing comes", Filter::group(""), &[]),
        // A watch of a group without group deletions is still told: that is for keys.
        ("group, without is no matter", Filter::group("g").without_group_deletions(), &[1, 2, 3, 8, 9, 11]),
        ("original *, *", Filter::from_pattern("*", "*"), &[1, 2, 3, 4, 5, 6, 8, 9, 10, 11]),
        ("original g, *", Filter::from_pattern("g", "*"), &[1, 2, 3, 8, 9, 11]),
        ("original *, k", Filter::from_pattern("*", "k"), &[1, 4, 5, 11]),
        ("original g, k", Filter::from_pattern("g", "k"), &[1, 11]),
    ];
    let store = anywhere()?;
    let mut live = Vec::new();
    for (_, filter, _) in &cases {
        let small = store.watch_with(filter.clone(), WatchOptions::new().buffer(1))?;
        live.push((store.watch_with(filter.clone(), WatchOptions::new().buffer(100))?, small));
    }
    script(&store)?;
    for ((name, filter, expected), (mut large, mut small)) in cases.into_iter().zip(live) {
        assert_eq!(revisions(&pending(&mut large)?), expected, "{name}");
        assert_eq!(revisions(&pending(&mut small)?), expected, "{name}, with a buffer of one");
        let mut late = store.watch_with(filter.clone(), WatchOptions::new().after(Revision::ZERO))?;
        assert_eq!(revisions(&pending(&mut late)?), expected, "{name}, from the log");
        let history = store.history(filter.clone(), Revision::ZERO);
        let history: Vec<_> = history.collect::<std::result::Result<_, _>>()?;
        assert_eq!(revisions(&history), expected, "{name}, in the history");
        let all = store.history(Filter::everything().kinds(Kind::ALL), Revision::ZERO);
        let matching: Vec<_> = all
            .filter(|event| event.as_ref().is_ok_and(|event| filter.matches(event)))
            .collect::<std::result::Result<_, _>>()?;
        assert_eq!(revisions(&matching), expected, "{name}, asked itself");
    }
    Ok(())
}

#[test]
fn the_original_s_call_has_sixteen_events_of_room_and_all_four_shapes() -> Result {
    let store = anywhere()?;
    let mut watchers =
        [store.watch("*", "*"), store.watch("g", "*"), store.watch("*", "k"), store.watch("g", "k")];
    script(&store)?;
    let seen: Vec<_> = watchers.iter_mut().map(pending).collect::<Result<_>>()?;
    assert_eq!(seen.iter().map(Vec::len).collect::<Vec<_>>(), [10, 6, 4, 2]);
    let [first, ..] = watchers;
    store.unwatch(first);
    assert_eq!(store.stats()?.watchers, 3);
    Ok(())
}

#[test]
fn an_event_says_what_happened_where_when_and_by_whom() -> Result {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).origin("app").anywhere()?;
    let mut watcher = store.watch_with(Filter::everything().kinds(Kind::ALL), WatchOptions::new())?;
    store.set("g", "k", "v")?;
    clock.advance(Duration::from_secs(1));
    store.with_origin("other").set_with_ttl("g", "k", "w", LIMIT)?;
    store.scoped("t")?.set("h", "k", "x")?;
    store.delete("g", "k")?;
    store.delete_group("t:h")?;
    let events = take(&mut watcher, 5)?;
    assert_eq!(
        events.iter().map(Event::origin).collect::<Vec<_>>(),
        [Some("app"), Some("other"), Some("app"), Some("app"), Some("app")]
    );
    let seconds: Vec<_> =
        events.iter().map(|event| event.timestamp().since(events[0].timestamp()).as_secs()).collect();
    assert_eq!(seconds, [0, 1, 1, 1, 1]);
    let previous: Vec<_> = events.iter().map(|event| event.previous_revision().map(number)).collect();
    assert_eq!(previous, [None, Some(1), None, Some(2), None]);
    assert!(events[1].deadline().is_some() && events[0].deadline().is_none() && events[3].value().is_none());
    assert_eq!((events[4].key(), events[4].value(), events[4].group()), (None, None, "t:h"));
    assert!(events.iter().all(|event| event.commit() == event.revision() && !event.is_snapshot()));
    Ok(())
}

#[test]
fn who_has_an_event_reads_that_revision_or_a_later_one() -> Result {
    let store = anywhere()?;
    let mut watcher = store.watch("*", "*");
    let writer = {
        let store = store.clone();
        thread::spawn(move || (0..500).try_for_each(|n| store.set("g", "k", n.to_string()).map(drop)))
    };
    for number in 0..500_u64 {
        let event = next(&mut watcher)?;
        let entry = store.entry("g", "k")?.ok_or("gone")?;
        assert!(entry.revision >= event.revision(), "event {number}");
        assert!(store.last_revision()? >= event.revision());
        assert!(store.snapshot()?.revision() >= event.commit());
    }
    Ok(writer.join().map_err(|_| "panicked")??)
}

#[test]
fn a_watcher_is_armed_when_watch_returns_and_begins_there() -> Result {
    let store = anywhere()?;
    store.set("g", "before", "v")?;
    thread::scope(|scope| -> Result {
        let busy =
            scope.spawn(|| (0..300).try_for_each(|n| store.set("noise", &n.to_string(), "v").map(drop)));
        for number in 0..100 {
            let before = store.last_revision()?;
            let mut watcher = store.watch("g", "*");
            assert!(watcher.start() >= before);
            let revision = store.set("g", &number.to_string(), "v")?;
            let event = watcher.try_recv().ok_or("not there when the write returned")??;
            assert_eq!(event.revision(), revision);
        }
        Ok(busy.join().map_err(|_| "panicked")??)
    })
}

#[test]
fn a_watch_may_start_after_any_revision_of_the_past() -> Result {
    let store = anywhere()?;
    for number in 1..=50 {
        store.set("g", &number.to_string(), "v")?;
    }
    for after in [0, 1, 25, 49, 50] {
        for buffer in [1, 16] {
            let start = nth(&store, after)?;
            let options = WatchOptions::new().after(start).buffer(buffer);
            let mut watcher = store.watch_with(Filter::everything(), options)?;
            assert_eq!(watcher.start(), start);
            assert_eq!(revisions(&pending(&mut watcher)?), (after + 1..=50).collect::<Vec<_>>());
        }
    }
    Ok(())
}

#[test]
fn a_watch_may_start_after_a_revision_that_is_to_come() -> Result {
    needs!(DenseRevisions);
    let store = anywhere()?;
    for number in 1..=50 {
        store.set("g", &number.to_string(), "v")?;
    }
    let mut ahead = store.watch_with(Filter::everything(), WatchOptions::new().after(Revision::new(53)))?;
    for number in 51..=55 {
        assert!(number > 54 || ahead.try_recv().is_none());
        store.set("g", &number.to_string(), "v")?;
    }
    assert_eq!(revisions(&pending(&mut ahead)?), [54, 55]);
    Ok(())
}

#[test]
fn a_watch_after_a_revision_that_never_comes_sees_nothing() -> Result {
    let store = anywhere()?;
    let mut far =
        store.watch_with(Filter::everything(), WatchOptions::new().after(Revision::new(u64::MAX)))?;
    for number in 0..5 {
        store.set("g", &number.to_string(), "v")?;
    }
    assert!(far.try_recv().is_none());
    Ok(())
}

#[test]
fn a_watch_ahead_of_the_store_overflows_like_any_other() -> Result {
    needs!(DenseRevisions);
    let store = anywhere()?;
    let mut read =
        store.watch_with(Filter::everything(), WatchOptions::new().after(Revision::new(10)).buffer(2))?;
    let mut unread =
        store.watch_with(Filter::everything(), WatchOptions::new().after(Revision::new(10)).buffer(2))?;
    assert!(read.try_recv().is_none());
    for number in 1..=30 {
        store.set("g", &number.to_string(), "v")?;
    }
    assert_eq!(revisions(&pending(&mut read)?), (11..=30).collect::<Vec<_>>());
    assert_eq!(revisions(&pending(&mut unread)?), (11..=30).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn a_cursor_goes_on_after_reopening_and_is_refused_by_another_store() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let store = Store::open(&path)?;
    let mut watcher = store.watch("*", "*");
    (1..=5).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
    let seen = take(&mut watcher, 2)?;
    let text = store.cursor(seen[1].revision()).to_string();
    store.close()?;
    let store = Store::open(&path)?;
    store.set("g", "6", "v")?;
    let cursor: Cursor = text.parse()?;
    assert_eq!((cursor.store(), cursor.revision().get()), (store.id(), 2));
    let mut again = store.watch_with(Filter::everything(), WatchOptions::new().after_cursor(cursor))?;
    assert_eq!(revisions(&pending(&mut again)?), [3, 4, 5, 6]);
    let other = anywhere()?;
    let refused = other.watch_with(Filter::everything(), WatchOptions::new().after_cursor(cursor));
    assert_eq!(kind(refused), Some(ErrorKind::ForeignCursor));
    assert_eq!(other.stats()?.watchers, 0);
    Ok(())
}

#[test]
fn keys_only_leaves_out_the_values_and_nothing_else() -> Result {
    let store = anywhere()?;
    let options = WatchOptions::new().keys_only().buffer_bytes(4_000);
    let mut watcher = store.watch_with(Filter::everything(), options)?;
    for number in 0..10 {
        store.set("g", &number.to_string(), vec![b'x'; 100_000])?;
    }
    store.delete("g", "0")?;
    let events = pending(&mut watcher)?;
    assert_eq!(revisions(&events), (1..=11).collect::<Vec<_>>());
    assert!(events.iter().all(|event| event.value().is_none() && event.key().is_some()));
    Ok(())
}

#[test]
fn previous_values_come_with_the_event() -> Result {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().retention(Retention::FOREVER).clock(clock.clone()).anywhere()?;
    let mut watcher = store
        .watch_with(Filter::everything().kinds(Kind::ALL), WatchOptions::new().previous_values().buffer(1))?;
    store.set("g", "k", "1")?;
    store.set("g", "k", "2")?;
    store.touch("g", "k", LIMIT)?;
    store.delete("g", "k")?;
    store.set_with_ttl("g", "k", "3", Duration::from_secs(1))?;
    clock.advance(Duration::from_secs(1));
    let events = take(&mut watcher, 6)?;
    let previous: Vec<_> = events
        .iter()
        .map(|event| event.previous_value().and_then(|value| value.as_str().map(str::to_owned)))
        .collect();
    assert_eq!(previous, [None, Some("1".into()), None, Some("2".into()), None, Some("3".into())]);
    Ok(())
}

#[test]
fn a_previous_value_that_the_log_has_no_more_is_left_out() -> Result {
    needs!(Trimming);
    let store = Options::new().retention(Retention::FOREVER).anywhere()?;
    let mut watcher =
        store.watch_with(Filter::everything(), WatchOptions::new().previous_values().buffer(1))?;
    let old = store.set("g", "k", "old")?;
    (0..20).try_for_each(|n| store.set("h", &n.to_string(), "v").map(drop))?;
    take(&mut watcher, 21)?;
    store.compact(Revision::new(14))?;
    store.set("g", "k", "new")?;
    let event = next(&mut watcher)?;
    assert_eq!(
        (line(&event).as_str(), event.previous_value(), event.previous_revision()),
        ("22 set g/k=new", None, Some(old))
    );
    Ok(())
}

/// The next item, which must come.
fn item(watcher: &mut Watcher) -> Result<Item> {
    Ok(watcher.items().recv_timeout(LIMIT).ok_or("no item within the limit")??)
}

#[test]
fn an_idle_watcher_and_a_filtered_one_are_told_how_far_they_are() -> Result {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).anywhere()?;
    let minute = Duration::from_secs(60);
    let mut idle = store.watch_with(Filter::everything(), WatchOptions::new().progress(minute))?;
    let mut filtered = store.watch_with(Filter::group("g"), WatchOptions::new().progress(minute))?;
    let mut unasked = store.watch("g", "*");
    clock.advance(minute - Duration::from_millis(1));
    assert!(idle.items().try_recv().is_none());
    clock.advance(Duration::from_millis(1));
    assert!(matches!(item(&mut idle)?, Item::Progress(at) if at == Revision::ZERO));
    assert!(matches!(item(&mut filtered)?, Item::Progress(at) if at == Revision::ZERO));
    for number in 0..100 {
        store.set("h", &number.to_string(), "v")?;
    }
    assert!(filtered.items().try_recv().is_none());
    clock.advance(minute);
    let at = match item(&mut filtered)? {
        Item::Progress(at) => at,
        other => return Err(format!("unexpected: {other:?}").into()),
    };
    assert_eq!(number(at), 100);
    // It is a place to go on from.
    store.set("g", "k", "v")?;
    let mut again = store.watch_with(Filter::group("g"), WatchOptions::new().after(at))?;
    assert_eq!(lines([&next(&mut again)?]), ["101 set g/k=v"]);
    assert_eq!(lines([&next(&mut filtered)?]), ["101 set g/k=v"]);
    // Who is not idle is not told, and who did not ask neither.
    clock.advance(minute - Duration::from_millis(1));
    assert!(filtered.items().try_recv().is_none());
    assert!(
        matches!(unasked.items().try_recv(), Some(Ok(Item::Event(_))))
            && unasked.items().try_recv().is_none()
    );
    Ok(())
}

#[test]
fn a_progress_mark_is_never_ahead_of_an_event_that_comes_after_it() -> Result {
    within_limit(|| {
        let clock = Arc::new(ManualClock::default());
        let store = Options::new().clock(clock.clone()).anywhere()?;
        let mut watcher = store.watch_with(
            Filter::key_name("x"),
            WatchOptions::new().progress(Duration::from_millis(1)).buffer(2),
        )?;
        let marked = Arc::new(AtomicBool::new(false));
        let writer = {
            let (store, clock, marked) = (store.clone(), clock.clone(), marked.clone());
            thread::spawn(move || -> Result {
                for number in 0..1_500 {
                    store.set("g", if number % 3 == 0 { "x" } else { "y" }, number.to_string())?;
                    clock.advance(Duration::from_millis(1));
                }
                // The reader may have been behind all the time, and then gets no mark.
                eventually("a mark", || {
                    clock.advance(Duration::from_millis(1));
                    Ok(marked.load(Ordering::SeqCst))
                })?;
                Ok(store.close()?)
            })
        };
        let (mut last, mut events, mut marks) = (Revision::ZERO, 0, 0);
        for item in watcher.items() {
            match item? {
                Item::Event(event) => {
                    assert!(event.revision() > last, "{} after a mark or event at {last}", event.revision());
                    last = event.revision();
                    events += 1;
                }
                Item::Progress(at) => {
                    assert!(at >= last);
                    last = at;
                    marks += 1;
                    marked.store(true, Ordering::SeqCst);
                }
                other => return Err(format!("unexpected: {other:?}").into()),
            }
        }
        writer.join().map_err(|_| "panicked")??;
        assert_eq!(events, 500);
        assert!(marks > 0, "there was no mark at all");
        Ok(())
    })
}

#[test]
fn a_stopper_wakes_a_blocked_reader_and_may_be_used_often() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        for _ in 0..50 {
            let mut watcher = store.watch("*", "*");
            let stopper = watcher.stopper();
            let (reading, began) = mpsc::channel();
            let reader = thread::spawn(move || {
                reading.send(()).ok();
                (watcher.recv().is_none(), watcher.is_ended(), watcher.recv().is_none(), watcher)
            });
            began.recv_timeout(LIMIT)?;
            let again = stopper.clone();
            again.stop();
            stopper.stop();
            let (none, ended, still, watcher) = reader.join().map_err(|_| "panicked")?;
            assert!(none && ended && still);
            drop(watcher);
            again.stop();
        }
        assert_eq!(store.stats()?.watchers, 0);
        Ok(())
    })
}

#[test]
fn a_stopped_watcher_hands_out_what_it_has_in_order_and_nothing_that_comes_later() -> Result {
    for (buffer, policy) in
        [(16, LagPolicy::CatchUp), (3, LagPolicy::CatchUp), (3, LagPolicy::Drop), (3, LagPolicy::Latest)]
    {
        let store = anywhere()?;
        let mut watcher =
            store.watch_with(Filter::everything(), WatchOptions::new().buffer(buffer).policy(policy))?;
        (0..8).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
        let first = next(&mut watcher)?;
        watcher.stopper().stop();
        store.set("g", "after", "v")?;
        let rest = revisions(&watcher.by_ref().collect::<std::result::Result<Vec<_>, _>>()?);
        assert_eq!(number(first.revision()), 1);
        assert_eq!(rest, (2..=buffer.min(8) as u64).collect::<Vec<_>>(), "{policy:?}");
        assert!(watcher.is_ended() && watcher.try_recv().is_none());
    }
    Ok(())
}

#[test]
fn receiving_with_a_time_limit_ends_in_time_and_loses_nothing() -> Result {
    let store = anywhere()?;
    let mut watcher = store.watch("*", "*");
    assert!(
        watcher.recv_timeout(Duration::ZERO).is_none()
            && watcher.recv_timeout(Duration::from_millis(1)).is_none()
    );
    assert!(!watcher.is_ended());
    store.set("g", "k", "v")?;
    assert!(watcher.recv_timeout(Duration::ZERO).is_some());
    let writer = {
        let store = store.clone();
        thread::spawn(move || (0..200).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop)))
    };
    let mut seen = Vec::new();
    while seen.len() < 200 {
        if let Some(event) = watcher.recv_timeout(Duration::from_micros(50)) {
            seen.push(event?.revision());
        }
    }
    assert_eq!(numbers(&seen), (2..=201).collect::<Vec<_>>());
    writer.join().map_err(|_| "panicked")??;
    Ok(())
}

#[test]
fn a_watcher_may_move_between_threads_and_outlive_the_handle_it_came_from() -> Result {
    let store = anywhere()?;
    let mut watcher = store.scoped("t")?.with_origin("x").watch("*", "*");
    store.set("t:g", "k", "v")?;
    let mut watcher = thread::spawn(move || {
        let first = watcher.recv();
        (watcher, first)
    })
    .join()
    .map_err(|_| "panicked")?
    .0;
    store.set("t:g", "l", "v")?;
    assert_eq!(line(&next(&mut watcher)?), "2 set g/l=v");
    Ok(())
}

#[test]
fn thousands_of_watchers_cost_a_write_only_where_they_match() -> Result {
    let store = anywhere()?;
    let mut watchers: Vec<_> = (0..3_000).map(|n| store.watch("g", &n.to_string())).collect();
    for number in (0..3_000).step_by(100) {
        store.set("g", &number.to_string(), "v")?;
    }
    for (number, watcher) in watchers.iter_mut().enumerate() {
        assert_eq!(pending(watcher)?.len(), usize::from(number % 100 == 0));
    }
    assert_eq!(store.stats()?.watchers, 3_000);
    // They go in another order than they came.
    while !watchers.is_empty() {
        drop(watchers.swap_remove(watchers.len() / 2));
    }
    assert_eq!(store.stats()?.watchers, 0);
    store.set("g", "0", "v")?;
    Ok(())
}

#[test]
fn a_watcher_through_another_handle_on_the_file_is_told_of_more_than_a_thousand_at_once() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let open = || Options::new().durability(watchkeep::Durability::Relaxed).open(&path);
    let (one, two) = (open()?, open()?);
    let mut catch_up = one.watch("*", "*");
    let mut latest = one.watch_with(Filter::everything(), WatchOptions::new().policy(LagPolicy::Latest))?;
    let mut dropping = one.watch_with(Filter::everything(), WatchOptions::new().policy(LagPolicy::Drop))?;
    two.transaction(|tx| (0..3_000).try_for_each(|n| tx.set("g", &(n % 10).to_string(), n.to_string())))?;
    assert_eq!(revisions(&take(&mut catch_up, 3_000)?), (1..=3_000).collect::<Vec<_>>());
    let mut state = std::collections::BTreeMap::new();
    while state.get("9") != Some(&"2999".to_owned()) {
        let event = next(&mut latest)?;
        state.insert(
            event.key().unwrap_or_default().to_owned(),
            event.value().ok_or("none")?.to_string_lossy().into_owned(),
        );
    }
    assert_eq!(
        state.into_values().collect::<Vec<_>>(),
        (2_990..3_000).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    let mut seen = 0;
    eventually("each is seen or counted", || {
        seen += pending(&mut dropping)?.len() as u64;
        Ok(seen + dropping.dropped() == 3_000)
    })
}
