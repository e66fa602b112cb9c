//! Scopes: a namespace sees, counts, lists, watches and deletes its own, and nothing else.

use crate::support::numbers::number;
use crate::support::{Result, anywhere, fill, lines, next, take};
use watchkeep::{Error, ErrorKind, Filter, Item, Kind, ListOptions, Revision, Store, WatchOptions};

fn kind<T>(result: std::result::Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// Groups round about the namespace `a`, none of which is in it.
const NEIGHBOURS: [&str; 12] =
    ["a", "ab:g", "A:g", "a;g", "a9:g", "", ":", "b:a:g", " a:g", "a :g", "ä:g", "a\0:g"];

fn neighbours(store: &Store) -> Result {
    for group in NEIGHBOURS {
        store.set(group, "k", "outside")?;
    }
    Ok(())
}

#[test]
fn a_scope_reads_lists_and_counts_only_its_own() -> Result {
    let store = anywhere()?;
    neighbours(&store)?;
    let scoped = store.scoped("a")?;
    assert!(scoped.groups("").next().is_none());
    assert_eq!((scoped.count_all("")?, scoped.stats()?.entries, scoped.stats()?.groups), (0, 0, 0));
    for group in NEIGHBOURS {
        assert_eq!((scoped.get(group, "k")?, scoped.count(group)?), (None, 0), "{group:?}");
        assert_eq!((scoped.delete(group, "k")?, scoped.delete_group(group)?), (false, 0), "{group:?}");
    }
    for group in ["g", "", ":", "a:g", "*"] {
        scoped.set(group, "k", "inside")?;
        assert_eq!(store.get(&format!("a:{group}"), "k")?.ok_or("gone")?, "inside");
    }
    assert_eq!(scoped.groups("").collect::<std::result::Result<Vec<_>, _>>()?, ["", "*", ":", "a:g", "g"]);
    assert_eq!(scoped.groups("a").collect::<std::result::Result<Vec<_>, _>>()?, ["a:g"]);
    let snapshot = scoped.snapshot()?;
    assert_eq!((scoped.count_all("")?, snapshot.count_all("")?, snapshot.groups("").count()), (5, 5, 5));
    assert_eq!(scoped.page("g", ListOptions::new())?.entries.len(), 1);
    assert_eq!(scoped.render("{{ k }}", "g")?, "inside");
    assert_eq!(scoped.delete_prefix("")?, 5);
    assert_eq!(store.count_all("")?, NEIGHBOURS.len() as u64);
    Ok(())
}

#[test]
fn more_groups_than_a_page_are_listed_within_the_scope_only() -> Result {
    let store = anywhere()?;
    let scoped = store.scoped("m")?;
    let names: Vec<_> = (0..700).map(|n| format!("{n:03}")).collect();
    fill(&store, 3 * 700, |tx, n| {
        let (namespace, name) = (["l", "m", "n"][n % 3], &names[n / 3]);
        tx.set(&format!("{namespace}:{name}"), "k", "v")
    })?;
    assert_eq!(scoped.groups("").collect::<std::result::Result<Vec<_>, _>>()?, names);
    assert_eq!((scoped.groups("3").count(), scoped.count_all("69")?), (100, 10));
    Ok(())
}

#[test]
fn a_scoped_watcher_never_sees_out_whatever_its_filter() -> Result {
    let store = anywhere()?;
    let scoped = store.scoped("a")?;
    let filters = || {
        [
            Filter::everything(),
            Filter::group_prefix(""),
            Filter::group_prefix("g"),
            Filter::group("g"),
            Filter::key("g", "k"),
            Filter::key_prefix("g", ""),
            Filter::key_name("k"),
            Filter::from_pattern("*", "*"),
            Filter::from_pattern("*", "k"),
            Filter::from_pattern("g", "*"),
            Filter::from_pattern("g", "k"),
        ]
    };
    // Live, from the log, and from a snapshot.
    let late = |number: usize| {
        [
            WatchOptions::new(),
            WatchOptions::new().after(Revision::ZERO).buffer(1),
            WatchOptions::new().snapshot().buffer(2),
        ][number]
            .clone()
    };
    let mut watchers = Vec::new();
    for number in 0..3 {
        for filter in filters() {
            watchers.push(scoped.watch_with(filter.kinds(Kind::ALL), late(number))?);
        }
    }
    for _ in 0..3 {
        neighbours(&store)?;
        for group in NEIGHBOURS {
            store.touch(group, "k", crate::support::LIMIT)?;
            store.delete_group(group)?;
        }
    }
    neighbours(&store)?;
    for filter in filters() {
        watchers.push(scoped.watch_with(filter, late(2))?);
    }
    for (number, watcher) in watchers.iter_mut().enumerate() {
        assert!(watcher.try_recv().is_none(), "watcher {number}");
    }
    scoped.set("g", "k", "inside")?;
    for (number, watcher) in watchers.iter_mut().enumerate() {
        let event = next(watcher)?;
        assert_eq!((event.group(), event.key()), ("g", Some("k")), "watcher {number}");
    }
    Ok(())
}

#[test]
fn events_history_and_snapshots_have_local_names() -> Result {
    let store = anywhere()?;
    let scoped = store.scoped("a")?;
    let mut watcher = scoped.watch("*", "*");
    store.set("a:g", "k", "v")?;
    scoped.set("b:h", "k", "v")?;
    neighbours(&store)?;
    scoped.delete_group("g")?;
    let expected = ["1 set g/k=v", "2 set b:h/k=v", "15 delete_group g"];
    assert_eq!(lines(&take(&mut watcher, 3)?), expected);
    let history: Vec<_> =
        scoped.history(Filter::everything(), Revision::ZERO).collect::<std::result::Result<_, _>>()?;
    assert_eq!(lines(&history), expected);
    let mut late = scoped.watch_with(Filter::everything(), WatchOptions::new().snapshot())?;
    let mut items = late.items();
    let first = items.recv().ok_or("nothing")??;
    assert_eq!(first.event().map(|event| (event.group(), event.is_snapshot())), Some(("b:h", true)));
    assert!(matches!(items.recv(), Some(Ok(Item::Ready(at))) if number(at) == 15));
    Ok(())
}

#[test]
fn only_letters_digits_and_hyphens_make_a_namespace_and_only_one() -> Result {
    let store = anywhere()?;
    for good in ["a", "Z", "0", "-", "tenant-42", &"n".repeat(128)] {
        assert_eq!(store.scoped(good)?.namespace(), Some(good));
    }
    for bad in
        ["", " ", "a b", "a:b", ":", "a_b", "a.b", "ä", "а", "*", "%", "a\0", "\n", "a/b", &"n".repeat(129)]
    {
        assert_eq!(kind(store.scoped(bad)), Some(ErrorKind::InvalidName), "{bad:?}");
    }
    let scoped = store.scoped("a")?;
    for again in ["a", "b"] {
        assert_eq!(kind(scoped.scoped(again)), Some(ErrorKind::InvalidArgument));
    }
    assert_eq!(kind(scoped.compact(Revision::new(1))), Some(ErrorKind::InvalidArgument));
    assert_eq!((store.namespace(), scoped.clone().with_origin("me").namespace()), (None, Some("a")));
    assert_eq!(scoped.downgrade().upgrade().ok_or("gone")?.namespace(), Some("a"));
    Ok(())
}

#[test]
fn revisions_and_cursors_are_those_of_the_whole_store() -> Result {
    let store = anywhere()?;
    let (one, two) = (store.scoped("one")?, store.scoped("two")?);
    let first = one.set("g", "k", "v")?;
    let second = two.set("g", "k", "v")?;
    assert_eq!((number(first), number(second), one.last_revision()?), (1, 2, second));
    let cursor = two.cursor(first);
    let mut watcher = two.watch_with(Filter::everything(), WatchOptions::new().after_cursor(cursor))?;
    assert_eq!(next(&mut watcher)?.revision(), second);
    Ok(())
}
