//! Unions of filters: one watcher, to which an event comes once however many of the filters match it.

use std::collections::BTreeSet;

use crate::support::consumers::{from_the_beginning, kind, listed};
use crate::support::numbers::{number, numbers};
use crate::support::seen::Seen;
use crate::support::{Anywhere as _, LIMIT, Result, anywhere, eventually, lines, revisions, take};
use watchkeep::{
    Batch, Condition, ErrorKind, Event, Filter, Item, Kind, MAX_FILTER_PARTS, Options, Retention, Revision,
    Store, WatchOptions, Watcher,
};

/// Parts that overlap each other in every way.
fn overlapping() -> Filter {
    Filter::any([
        Filter::key("config", "theme"),
        Filter::key_prefix("config", "th"),
        Filter::key_prefix("config", "s"),
        Filter::group("session-7"),
        Filter::group_prefix("session"),
        Filter::key_name("theme"),
        Filter::group("config").kinds([Kind::Delete]),
    ])
}

/// Whether the union above lets a set of this key through.
fn is_wanted(group: &str, key: &str) -> bool {
    group.starts_with("session")
        || key == "theme"
        || (group == "config" && (key.starts_with("th") || key.starts_with('s')))
}

const GROUPS: [&str; 4] = ["config", "session-7", "session-8", "other"];
const KEYS: [&str; 5] = ["a", "size", "theme", "thumb", "z"];

fn write_all(store: &Store) -> Result {
    for (group, key) in places() {
        store.set(group, key, "v")?;
    }
    Ok(())
}

fn places() -> impl Iterator<Item = (&'static str, &'static str)> {
    GROUPS.into_iter().flat_map(|group| KEYS.into_iter().map(move |key| (group, key)))
}

fn wanted() -> BTreeSet<(String, String)> {
    let wanted = places().filter(|(group, key)| is_wanted(group, key));
    wanted.map(|(group, key)| (group.to_owned(), key.to_owned())).collect()
}

/// What there is now.
fn pending(watcher: &mut Watcher) -> Result<Vec<Event>> {
    std::iter::from_fn(|| watcher.try_recv()).map(|event| Ok(event?)).collect()
}

/// The items up to the mark that the state is whole.
fn until_ready(watcher: &mut Watcher) -> Result<(Vec<Event>, Revision)> {
    let mut events = Vec::new();
    loop {
        match watcher.items().recv_timeout(LIMIT).ok_or("no mark within the limit")?? {
            Item::Event(event) => events.push(event),
            Item::Ready(at) => return Ok((events, at)),
            other => return Err(format!("unexpected: {other:?}").into()),
        }
    }
}

#[test]
fn an_event_comes_once_and_in_order_however_many_filters_match_it() -> Result {
    let store = anywhere()?;
    let mut watcher = store.watch_with(overlapping(), WatchOptions::new())?;
    let called = Seen::new();
    let of_callback = called.clone();
    let _subscription = store.on_change_with(overlapping(), move |item| {
        if let Some(event) = item.event() {
            of_callback.push(event.revision());
        }
    });
    write_all(&store)?;
    store.delete("config", "z")?;
    store.delete("other", "z")?;
    store.delete_group("session-7")?;
    store.delete_group("other")?;
    let live = pending(&mut watcher)?;
    let sets = live.iter().filter(|event| event.kind() == Kind::Set);
    let sets: Vec<_> = sets.map(|event| (event.group(), event.key().unwrap_or_default())).collect();
    assert_eq!(sets, places().filter(|(group, key)| is_wanted(group, key)).collect::<Vec<_>>());
    assert_eq!(
        lines(live.iter().skip(sets.len())),
        ["21 delete config/z", "23 delete_group session-7", "24 delete_group other"],
        "the last one because the key `theme` is watched in all groups"
    );
    let live = revisions(&live);
    assert!(live.is_sorted_by(|a, b| a < b));
    assert_eq!(numbers(&called.all()), live);
    let history = store.history(overlapping(), Revision::ZERO).collect::<std::result::Result<Vec<_>, _>>()?;
    assert_eq!(revisions(&history), live);
    assert_eq!(revisions(&store.changes(overlapping(), None, 1_000)?.events), live);
    Ok(())
}

#[test]
fn a_reader_that_falls_behind_sees_the_same_from_the_log() -> Result {
    let store = Options::new().retention(Retention::FOREVER).anywhere()?;
    let mut slow = store.watch_with(overlapping(), WatchOptions::new().buffer(1))?;
    (0..50).try_for_each(|_| write_all(&store))?;
    let history = store.history(overlapping(), Revision::ZERO).collect::<std::result::Result<Vec<_>, _>>()?;
    assert_eq!(history.len(), 50 * wanted().len());
    assert_eq!(revisions(&take(&mut slow, history.len())?), revisions(&history));
    assert!(slow.try_recv().is_none());
    Ok(())
}

#[test]
fn a_snapshot_of_a_union_holds_each_entry_once_and_is_ready_once() -> Result {
    let store = anywhere()?;
    write_all(&store)?;
    let mut watcher = store.watch_with(overlapping(), WatchOptions::new().snapshot())?;
    let (events, at) = until_ready(&mut watcher)?;
    let keys: Vec<_> = events
        .iter()
        .map(|event| (event.group().to_owned(), event.key().unwrap_or_default().to_owned()))
        .collect();
    assert_eq!(keys, wanted().into_iter().collect::<Vec<_>>(), "each once, by group and key");
    assert_eq!(at, store.last_revision()?);
    store.set("config", "theme", "w")?;
    let item = watcher.items().recv_timeout(LIMIT).ok_or("nothing came")??;
    assert!(item.event().is_some_and(|event| !event.is_snapshot()), "no second mark: {item:?}");
    Ok(())
}

/// The snapshot goes through pages: of one group by several ranges of keys, and over ranges of groups.
#[test]
fn a_large_snapshot_of_many_ranges_folds_to_the_state_while_others_write() -> Result {
    let store = anywhere()?;
    let name = |n: usize| format!("{n:04}");
    for n in 0..1_500 {
        store.set("wide", &name(n), "v")?;
        if n % 3 == 0 {
            store.set(&format!("many-{}", name(n)), "k", "v")?;
        }
    }
    let parts = (0..MAX_FILTER_PARTS / 2).flat_map(|n| {
        // Of the one group every second fifty, and ranges of the many that overlap.
        [
            Filter::key_prefix("wide", format!("{:03}", n * 2)),
            Filter::group_prefix(format!("many-{:02}", n / 3)),
        ]
    });
    let union = Filter::any(parts);
    let mut watcher = store.watch_with(union.clone(), WatchOptions::new().snapshot())?;
    let (mut state, mut steps) = (BTreeSet::new(), 0);
    loop {
        match watcher.items().recv_timeout(LIMIT).ok_or("no mark within the limit")?? {
            Item::Event(event) => {
                let place = (event.group().to_owned(), event.key().map(str::to_owned));
                match event.kind() {
                    Kind::Set => drop(state.insert(place)),
                    Kind::Delete => drop(state.remove(&place)),
                    Kind::DeleteGroup => state.retain(|(group, _)| group != event.group()),
                    kind => return Err(format!("unexpected: {kind}").into()),
                }
                steps += 1;
                match steps {
                    20 => drop(store.delete("wide", "0001")?),
                    21 => drop(store.delete("wide", "0600")?),
                    22 => drop(store.set("wide", "0601x", "new")?),
                    23 => drop(store.set("wide", "0011x", "no part of it")?),
                    24 => drop(store.delete_group("many-0003")?),
                    _ => {}
                }
            }
            Item::Ready(_) => break,
            other => return Err(format!("unexpected: {other:?}").into()),
        }
    }
    let mut expected = BTreeSet::new();
    for group in store.groups("") {
        let group = group?;
        for entry in store.entries(&group) {
            let key = entry?.key;
            let tens = key.get(..3).and_then(|tens| tens.parse::<usize>().ok());
            let is_wanted = match group.strip_prefix("many-") {
                None => tens.is_some_and(|tens| tens % 2 == 0 && tens < MAX_FILTER_PARTS),
                Some(number) => number.parse::<usize>()? / 100 <= (MAX_FILTER_PARTS / 2 - 1) / 3,
            };
            if is_wanted {
                expected.insert((group.clone(), Some(key)));
            }
        }
    }
    assert!(expected.len() > 500, "several pages");
    assert_eq!(state, expected);
    Ok(())
}

#[test]
fn a_consumer_of_a_union_goes_on_with_it_when_the_file_opens_again() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.db");
    let filter = overlapping().exclude_origin("echo");
    let store = Store::open(&path)?;
    let mut consumer = store.consumer_with("c", from_the_beginning().filter(filter.clone()))?;
    write_all(&store)?;
    let first = take(&mut consumer, wanted().len())?;
    consumer.ack(first.get(1).ok_or("too few")?.revision())?;
    drop((consumer, store));
    let store = Store::open(&path)?;
    assert_eq!(listed(&store, "c")?.filter, filter);
    store.with_origin("echo").set("config", "theme", "not this")?;
    store.set("config", "theme", "this")?;
    let mut consumer = store.consumer("c")?;
    let mut rest = revisions(first.iter().skip(2));
    rest.push(number(store.last_revision()?));
    assert_eq!(revisions(&take(&mut consumer, rest.len())?), rest);
    assert!(consumer.try_recv().is_none() && store.check()?.is_ok());
    Ok(())
}

#[test]
fn a_scoped_handle_sees_nothing_outside() -> Result {
    let store = anywhere()?;
    let tenant = store.scoped("a")?;
    let union = || Filter::any([Filter::group("g"), Filter::key_name("k"), Filter::group_prefix("b:")]);
    let mut watcher = tenant.watch_with(union(), WatchOptions::new().snapshot())?;
    let _held = tenant.consumer_with("c", from_the_beginning().filter(union()))?;
    for group in ["g", "b:g", "ab:g", "a:g", "a:x", "a:b:y", "a:z"] {
        store.set(group, if group == "a:z" { "other" } else { "k" }, "v")?;
    }
    let (mut events, _) = until_ready(&mut watcher)?;
    store.delete_group("g")?;
    tenant.delete_group("g")?;
    events.extend(pending(&mut watcher)?);
    assert_eq!(lines(&events), ["6 set b:y/k=v", "4 set g/k=v", "5 set x/k=v", "9 delete_group g"]);
    assert_eq!(listed(&tenant, "c")?.filter, union());
    Ok(())
}

#[test]
fn a_condition_looks_at_what_any_of_the_filters_lets_through() -> Result {
    let store = anywhere()?;
    let read = store.cursor(store.set("config", "theme", "dark")?);
    let unchanged = |filter| store.apply(Batch::new().require(Condition::unchanged(filter, read)));
    store.set("config", "a", "v")?;
    unchanged(overlapping())?;
    store.set("session-9", "a", "v")?;
    assert_eq!(kind(unchanged(overlapping())), Some(ErrorKind::Conflict));
    Ok(())
}

#[test]
fn nothing_is_what_an_empty_union_sees() -> Result {
    let store = anywhere()?;
    write_all(&store)?;
    let mut watcher = store.watch_with(Filter::any([]), WatchOptions::new().snapshot())?;
    let mut consumer = store.consumer_with("c", from_the_beginning().filter(Filter::any([])))?;
    assert_eq!(until_ready(&mut watcher)?.0.len(), 0);
    write_all(&store)?;
    assert!(watcher.try_recv().is_none() && consumer.try_recv().is_none());
    assert_eq!(store.history(Filter::any([]), Revision::ZERO).count(), 0);
    // Marks move its consumer on all the same: it holds nothing back.
    drop(consumer);
    eventually("the consumer is given back", || Ok(listed(&store, "c")?.holder.is_none()))
}

#[test]
fn a_union_of_too_many_is_refused_by_name() -> Result {
    let store = anywhere()?;
    let union = |parts: usize| Filter::any((0..parts).map(|n| Filter::group(n.to_string())));
    let (most, over) = (union(MAX_FILTER_PARTS), union(MAX_FILTER_PARTS + 1));
    store.watch_with(most.clone(), WatchOptions::new())?;
    store.consumer_with("c", from_the_beginning().filter(most))?;
    let refused = Some(ErrorKind::TooLarge);
    assert_eq!(kind(store.watch_with(over.clone(), WatchOptions::new())), refused);
    assert_eq!(kind(store.consumer_with("d", from_the_beginning().filter(over.clone()))), refused);
    assert_eq!(kind(store.changes(over.clone(), None, 10)), refused);
    let mut history = store.history(over.clone(), Revision::ZERO);
    assert_eq!(history.next().map(kind), Some(refused));
    assert!(history.next().is_none());
    let condition = Condition::unchanged(over, store.cursor(Revision::ZERO));
    assert_eq!(kind(store.apply(Batch::new().require(condition))), refused);
    assert_eq!(store.consumers()?.len(), 1);
    Ok(())
}
