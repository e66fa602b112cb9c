//! Pages of the change log: every event once, whatever the filter, and no loss in silence.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::futures::block_on;
use crate::support::needs::needs;
use crate::support::numbers::{nth, number};
use crate::support::{Result, anywhere, fill, revisions};
use watchkeep::{ChangePage, Cursor, ErrorKind, Event, Filter, Kind, Revision, Store};

fn kind<T>(result: std::result::Result<T, watchkeep::Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn page(store: &Store, after: Option<Cursor>, rows: usize) -> Result<ChangePage> {
    Ok(store.changes(Filter::everything(), after, rows)?)
}

/// Follows `next` until it is the end, and `more` is over.
fn all(store: &Store, filter: &Filter, rows: usize, more: &AtomicBool) -> Result<Vec<Event>> {
    let (mut events, mut after) = (Vec::new(), None);
    loop {
        let more = more.load(Ordering::Acquire);
        let page = store.changes(filter.clone(), after, rows)?;
        assert!(page.events.len() <= rows);
        assert!(page.events.iter().all(|event| event.revision() <= page.next.revision()));
        assert!(after.is_none_or(|after| after.revision() <= page.next.revision()), "it went back");
        assert!(page.floor.revision() <= page.next.revision() && page.next.revision() <= page.end.revision());
        events.extend(page.events);
        after = Some(page.next);
        if page.next == page.end && !more {
            return Ok(events);
        }
    }
}

#[test]
fn following_next_gives_every_event_once_while_others_write() -> Result {
    let store = anywhere()?;
    (0..300).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
    let writing = AtomicBool::new(true);
    let (everything, some) = std::thread::scope(|scope| -> Result<_> {
        let everything = scope.spawn(|| all(&store, &Filter::everything(), 7, &writing));
        let some = scope.spawn(|| all(&store, &Filter::group("g").kinds([Kind::Delete]), 1_000, &writing));
        let write = || -> Result {
            for n in 0..500 {
                store.transaction(|tx| {
                    tx.set("h", &n.to_string(), "v")?;
                    tx.set("h", "last", n.to_string())
                })?;
                store.delete("g", &n.to_string())?;
            }
            Ok(())
        };
        let written = write();
        writing.store(false, Ordering::Release);
        written?;
        let panicked = |_| "a reader panicked";
        Ok((everything.join().map_err(panicked)??, some.join().map_err(panicked)??))
    })?;
    assert_eq!(revisions(&everything), (1..=number(store.last_revision()?)).collect::<Vec<_>>());
    let history = store.history(Filter::everything(), Revision::ZERO);
    let history = history.collect::<std::result::Result<Vec<_>, _>>()?;
    for (ours, theirs) in everything.iter().zip(&history) {
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    }
    assert_eq!(some.len(), 300);
    assert_eq!(revisions(&all(&store, &Filter::everything(), 1, &writing)?), revisions(&history));
    Ok(())
}

#[test]
fn a_page_ends_after_so_many_rows_whether_or_not_they_match() -> Result {
    let store = anywhere()?;
    fill(&store, 2_500, |tx, n| tx.set("g", &n.to_string(), "v"))?;
    let rare = store.set("rare", "k", "v")?;
    let (mut after, mut nexts) = (None, Vec::new());
    while nexts.len() < 3 {
        // Asking for more does not make it look at more.
        let page = store.changes(Filter::group("rare"), after, 100_000)?;
        nexts.push((page.events.len(), number(page.next.revision())));
        after = Some(page.next);
    }
    assert_eq!(nexts, [(0, 1_000), (0, 2_000), (1, number(rare))]);
    // At the end it stays there.
    let last = page(&store, after, 10)?;
    assert_eq!((last.events.len(), last.next, last.next), (0, store.cursor(rare), last.end));
    let none = page(&store, None, 0)?;
    assert_eq!((none.events.len(), none.next), (0, store.cursor(Revision::ZERO)));
    Ok(())
}

#[test]
fn a_position_that_is_not_of_the_store_is_refused() -> Result {
    let store = anywhere()?;
    (0..20).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
    let next = page(&store, None, 5)?.next;
    assert_eq!(next, store.cursor(nth(&store, 5)?));
    let last = store.last_revision()?;
    let ahead = store.cursor(Revision::new(last.get() + 1));
    assert_eq!(kind(store.changes(Filter::everything(), Some(ahead), 5)), Some(ErrorKind::LostCursor));
    let foreign = anywhere()?.cursor(last);
    assert_eq!(kind(store.changes(Filter::everything(), Some(foreign), 5)), Some(ErrorKind::ForeignCursor));
    store.close()?;
    assert_eq!(kind(store.changes(Filter::everything(), Some(next), 5)), Some(ErrorKind::Closed));
    Ok(())
}

#[test]
fn a_position_whose_events_were_trimmed_is_refused() -> Result {
    needs!(Trimming);
    let store = anywhere()?;
    (0..20).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
    store.compact(Revision::new(11))?;
    for (lost, rows) in [(0, 5), (5, 5), (9, 5), (9, 0)] {
        let refused = page(&store, Some(store.cursor(Revision::new(lost))), rows);
        let error = refused.err().ok_or("it was not refused")?;
        let error = error.downcast::<watchkeep::Error>()?;
        let told = error.lagged().ok_or("not a loss")?;
        assert_eq!((told.from.get(), told.to.get()), (lost + 1, 10), "{error}");
    }
    let floor = store.cursor(Revision::new(10));
    let (first, from_floor) = (page(&store, None, 5)?, page(&store, Some(floor), 5)?);
    assert_eq!((first.floor, from_floor.floor), (floor, floor));
    assert_eq!(revisions(&first.events), [11, 12, 13, 14, 15]);
    assert_eq!(revisions(&from_floor.events), revisions(&first.events));
    Ok(())
}

#[test]
fn a_page_holds_about_a_megabyte_and_at_least_one_event() -> Result {
    needs!(LargeTransactions);
    let store = anywhere()?;
    (0..30).try_for_each(|n| store.set("g", &n.to_string(), vec![7; 100_000]).map(drop))?;
    store.set("large", "k", vec![7; 5 << 20])?;
    store.set("g", "last", "v")?;
    let (mut after, mut pages) = (None, Vec::new());
    loop {
        let page = page(&store, after, 1_000)?;
        pages.push(page.events.len());
        after = Some(page.next);
        if page.next == page.end {
            break;
        }
    }
    assert_eq!(pages, [11, 11, 9, 1]);
    // Only what is handed out counts.
    assert_eq!(store.changes(Filter::key("g", "last"), None, 1_000)?.events.len(), 1);
    Ok(())
}

#[test]
fn a_namespace_gets_its_own_under_its_own_names() -> Result {
    let store = anywhere()?;
    let scoped = store.scoped("a")?;
    for n in 0..6 {
        store.set("b:g", "k", n.to_string())?;
        scoped.set("g", "k", n.to_string())?;
    }
    let page = scoped.changes(Filter::group("g"), None, 4)?;
    assert_eq!(revisions(&page.events), [2, 4]);
    assert_eq!(page.events[0].group(), "g");
    let ends = (store.cursor(nth(&store, 4)?), store.cursor(nth(&store, 12)?));
    assert_eq!((page.next, page.end), ends);
    let rest = block_on(scoped.to_async().changes(Filter::everything(), Some(page.next), 1_000))?;
    assert_eq!(revisions(&rest.events), [6, 8, 10, 12]);
    Ok(())
}
