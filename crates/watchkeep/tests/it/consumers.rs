//! Named consumers: what is not acknowledged comes again, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use crate::support::consumers::{LEASE, acked, at, from, from_the_beginning, kind, listed, with, write};
use crate::support::needs::needs;
use crate::support::numbers::{nth, number};
use crate::support::{Anywhere as _, LIMIT, Result, anywhere, eventually, next, revisions, take};
use watchkeep::{
    BackupOptions, Consumer, ConsumerOptions, ConsumerStart, Error, ErrorKind, Filter, Force, Item, Kind,
    ManualClock, Options, Revision, Store,
};

#[test]
fn what_is_not_acknowledged_comes_again_and_nothing_else() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.db");
    for (acknowledge, expected) in [(2, [1, 2, 3]), (3, [3, 4, 5]), (5, [4, 5, 6])] {
        let store = Store::open(&path)?;
        if acknowledge == 2 {
            write(&store, 10)?;
        }
        let mut consumer = store.consumer_with("c", from_the_beginning())?;
        assert_eq!(revisions(&take(&mut consumer, 3)?), expected);
        consumer.ack(at(acknowledge))?;
    }
    let store = Store::open(&path)?;
    let mut consumer = store.consumer("c")?;
    assert_eq!(revisions(&take(&mut consumer, 5)?), [6, 7, 8, 9, 10]);
    write(&store, 1)?;
    assert_eq!(next(&mut consumer)?.revision(), at(11), "it goes on with what comes");
    assert!(store.check()?.is_ok());
    Ok(())
}

#[test]
fn a_new_consumer_begins_where_it_is_told_to_and_an_old_one_where_it_was_left() -> Result {
    let store = with(5)?;
    let last = store.last_revision()?;
    let starts = [
        ("now", ConsumerStart::Now, vec![6]),
        ("beginning", ConsumerStart::Beginning, vec![1, 2, 3, 4, 5, 6]),
        ("after", ConsumerStart::After(nth(&store, 4)?), vec![5, 6]),
        ("cursor", ConsumerStart::AfterCursor(store.cursor(last)), vec![6]),
    ];
    let mut consumers = Vec::new();
    for (name, start, expected) in starts {
        consumers.push((store.consumer_with(name, from(start))?, expected));
    }
    write(&store, 1)?;
    for (mut consumer, expected) in consumers {
        assert_eq!(revisions(&take(&mut consumer, expected.len())?), expected);
        assert!(consumer.try_recv().is_none());
    }
    let mut again = store.consumer_with("now", from_the_beginning())?;
    assert_eq!(number(next(&mut again)?.revision()), 6, "it is not new");
    let foreign = anywhere()?.cursor(Revision::ZERO);
    let foreign = store.consumer_with("foreign", from(ConsumerStart::AfterCursor(foreign)));
    assert_eq!(kind(foreign), Some(ErrorKind::ForeignCursor));
    assert!(!store.consumers()?.iter().any(|row| row.name == "foreign"), "it was not made");
    Ok(())
}

#[test]
fn the_beginning_is_that_of_the_log() -> Result {
    needs!(Trimming);
    let store = with(5)?;
    store.compact(at(3))?;
    let mut consumer = store.consumer_with("c", from_the_beginning())?;
    assert_eq!(revisions(&take(&mut consumer, 3)?), [3, 4, 5]);
    Ok(())
}

#[test]
fn a_consumer_that_begins_before_the_log_is_told_what_it_lost() -> Result {
    needs!(Trimming);
    let store = with(5)?;
    store.compact(at(4))?;
    let mut consumer = store.consumer_with("c", from(ConsumerStart::After(at(1))))?;
    let lost = consumer.recv().ok_or("nothing")?.err().and_then(|error| error.lagged()).ok_or("not told")?;
    assert_eq!((lost.from, lost.to), (at(2), at(3)));
    assert_eq!(listed(&store, "c")?.lost, Some(lost));
    consumer.ack(lost.to)?;
    assert_eq!(listed(&store, "c")?.lost, None);
    assert_eq!(revisions(&take(&mut consumer, 2)?), [4, 5]);
    Ok(())
}

#[test]
fn a_snapshot_comes_again_until_its_end_is_acknowledged() -> Result {
    let store = with(3)?;
    let whole = |store: &Store, consumer: &mut Consumer| -> Result<(u64, u64)> {
        let mut entries = 0;
        loop {
            match consumer.items().recv_timeout(LIMIT).ok_or("no item")?? {
                Item::Event(event) => {
                    entries += 1;
                    consumer.ack(event.revision())?;
                    assert_eq!(acked(store, "c")?, None, "an entry alone is not acknowledged");
                }
                Item::Ready(ready) => return Ok((entries, number(ready))),
                item => return Err(format!("unexpected: {item:?}").into()),
            }
        }
    };
    let mut consumer = store.consumer_with("c", from(ConsumerStart::Snapshot))?;
    assert_eq!(whole(&store, &mut consumer)?, (3, 3));
    drop(consumer);
    write(&store, 1)?;
    store.delete("g", "2")?;
    let mut consumer = store.consumer("c")?;
    assert_eq!(whole(&store, &mut consumer)?, (2, 5));
    consumer.ack(nth(&store, 1)?)?;
    assert_eq!(acked(&store, "c")?, None, "one of its entries says nothing, even late");
    consumer.ack(nth(&store, 5)?)?;
    assert_eq!(acked(&store, "c")?, Some(5));
    drop(consumer);
    let mut consumer = store.consumer("c")?;
    assert!(consumer.try_recv().is_none());
    write(&store, 1)?;
    assert_eq!(number(next(&mut consumer)?.revision()), 6);
    Ok(())
}

#[test]
fn acknowledgements_are_cumulative_and_of_what_was_handed_out() -> Result {
    let store = with(5)?;
    let mut consumer = store.consumer_with("c", from_the_beginning())?;
    let refused = consumer.ack(nth(&store, 1)?).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    take(&mut consumer, 4)?;
    assert_eq!(kind(consumer.ack(nth(&store, 5)?)), Some(ErrorKind::InvalidArgument));
    for (revision, expected) in [(3, 3), (3, 3), (1, 3), (4, 4)] {
        consumer.ack(nth(&store, revision)?)?;
        assert_eq!(acked(&store, "c")?, Some(expected));
    }
    Ok(())
}

#[test]
fn an_acknowledgement_changes_no_entry_and_announces_nothing() -> Result {
    let store = with(3)?;
    let mut watcher = store.watch("*", "*");
    let before = store.stats()?;
    let mut consumer = store.consumer_with("c", from_the_beginning())?;
    take(&mut consumer, 3)?;
    consumer.ack(nth(&store, 3)?)?;
    consumer.close()?;
    let after = store.stats()?;
    assert_eq!((after.last_revision, after.log_events), (before.last_revision, before.log_events));
    assert!(watcher.try_recv().is_none());
    Ok(())
}

#[test]
fn an_acknowledgement_in_the_middle_of_a_transaction_is_allowed() -> Result {
    let store = anywhere()?;
    store.transaction(|tx| (0..4).try_for_each(|n| tx.set("g", &n.to_string(), "v")))?;
    let mut consumer = store.consumer_with("c", from_the_beginning())?;
    take(&mut consumer, 4)?;
    consumer.ack(nth(&store, 2)?)?;
    drop(consumer);
    assert_eq!(revisions(&take(&mut *store.consumer("c")?, 2)?), [3, 4]);
    Ok(())
}

#[test]
fn with_the_transaction_an_event_is_handled_exactly_once() -> Result {
    let store = with(10)?;
    let only = ConsumerOptions::new().filter(Filter::group("g")).start(ConsumerStart::Beginning);
    let mut consumer = store.consumer_with("c", only)?;
    let count = |store: &Store| -> Result<u64> {
        Ok(store.get("stats", "n")?.map_or(Ok(0), |value| value.to_string_lossy().parse())?)
    };
    for round in 0.. {
        let Some(event) = consumer.try_recv() else { break };
        let event = event?;
        let handled = store.transaction(|tx| {
            let n: u64 = tx.get("stats", "n")?.map_or(0, |n| n.to_string_lossy().parse().unwrap_or(0));
            tx.set("stats", "n", (n + 1).to_string())?;
            tx.ack(&consumer, event.revision())?;
            if round % 3 == 1 { Err(Error::abort("the handler failed")) } else { Ok(()) }
        });
        if handled.is_err() {
            // As after a crash: what was not committed comes again.
            consumer.close()?;
            consumer = store.consumer("c")?;
        }
        assert_eq!(acked(&store, "c")?.ok_or("no position")?.min(10), count(&store)?);
    }
    assert_eq!(count(&store)?, 10);
    Ok(())
}

#[test]
fn a_transaction_takes_acknowledgements_of_its_own_store_only() -> Result {
    let (store, other) = (with(1)?, with(1)?);
    let mut consumer = other.consumer_with("c", from_the_beginning())?;
    store.consumer("c")?;
    let event = next(&mut consumer)?;
    let refused = store.transaction(|tx| tx.ack(&consumer, event.revision()));
    assert_eq!(kind(refused), Some(ErrorKind::InvalidArgument));
    let nested = other.transaction(|_| consumer.ack(event.revision()));
    assert_eq!(kind(nested), Some(ErrorKind::Nested));
    let nested = other.transaction(|_| other.consumer("d").map(drop));
    assert_eq!(kind(nested), Some(ErrorKind::Nested));
    Ok(())
}

#[test]
fn the_filter_is_kept_and_another_holds_from_the_last_acknowledgement_on() -> Result {
    let store = anywhere()?;
    let kinds = [Kind::Set];
    let filter = Filter::key_prefix("g", "a").kinds(kinds).exclude_origin("me").without_group_deletions();
    drop(store.consumer_with("c", ConsumerOptions::new().filter(filter.clone()))?);
    assert_eq!(listed(&store, "c")?.filter, filter);
    for key in ["b1", "a1", "b2", "a2"] {
        store.set("g", key, "v")?;
    }
    let mut consumer = store.consumer("c")?;
    assert_eq!(revisions(&take(&mut consumer, 2)?), [2, 4]);
    consumer.ack(nth(&store, 2)?)?;
    drop(consumer);
    let mut wider = store.consumer_with("c", ConsumerOptions::new().filter(Filter::everything()))?;
    assert_eq!(revisions(&take(&mut wider, 2)?), [3, 4], "not the first, which was passed over");
    assert_eq!(listed(&store, "c")?.filter, Filter::everything());
    Ok(())
}

#[test]
fn the_position_moves_on_where_nothing_matches_but_never_past_what_is_not_acknowledged() -> Result {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).anywhere()?;
    let only = || ConsumerOptions::new().filter(Filter::group("rare"));
    let mut consumer = store.consumer_with("c", only())?;
    write(&store, 100)?;
    // The reader waits for an event, as readers do; the marks come to it there.
    let moved = |consumer: &mut Consumer, to: u64| {
        eventually("the position moves on", || {
            clock.advance(LEASE / 3);
            assert!(consumer.recv_timeout(Duration::from_millis(5)).is_none());
            Ok(acked(&store, "c")? == Some(to))
        })
    };
    moved(&mut consumer, 100)?;
    store.set("rare", "k", "v")?;
    write(&store, 100)?;
    let rare = next(&mut consumer)?.revision();
    assert_eq!(number(rare), 101);
    for _ in 0..20 {
        clock.advance(LEASE / 3);
        assert!(consumer.recv_timeout(Duration::from_millis(5)).is_none());
    }
    assert_eq!(acked(&store, "c")?, Some(100), "101 is not acknowledged");
    consumer.ack(rare)?;
    moved(&mut consumer, 201)?;
    drop(consumer);
    // An acknowledgement whose transaction is rolled back is none.
    let mut consumer = store.consumer_with("c", only())?;
    store.set("rare", "k", "w")?;
    let event = next(&mut consumer)?;
    let failed = store.transaction(|tx| {
        tx.ack(&consumer, event.revision())?;
        Err::<(), _>(Error::abort("no"))
    });
    assert_eq!(kind(failed), Some(ErrorKind::Aborted));
    for _ in 0..20 {
        clock.advance(LEASE / 3);
        assert!(consumer.recv_timeout(Duration::from_millis(5)).is_none());
    }
    assert_eq!(acked(&store, "c")?, Some(201));
    Ok(())
}

#[test]
fn progress_marks_come_when_asked_for_and_may_be_acknowledged() -> Result {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).anywhere()?;
    let options = ConsumerOptions::new().filter(Filter::group("rare")).progress(Duration::from_secs(1));
    let mut consumer = store.consumer_with("c", options)?;
    write(&store, 10)?;
    let mut marks = 0;
    while marks < 3 {
        clock.advance(Duration::from_secs(1));
        match consumer.items().recv_timeout(Duration::from_millis(50)) {
            Some(item) => {
                let Item::Progress(seen) = item? else { return Err("not a mark".into()) };
                consumer.ack(seen)?;
                marks += 1;
            }
            None => continue,
        }
    }
    assert_eq!(acked(&store, "c")?, Some(10));
    Ok(())
}

#[test]
fn a_scoped_consumer_belongs_to_its_namespace_and_does_not_see_out() -> Result {
    let store = anywhere()?;
    let (one, two) = (store.scoped("one")?, store.scoped("two")?);
    let mut mine = one.consumer("c")?;
    let _yours = two.consumer("c")?;
    let _whole = store.consumer("c")?;
    for store in [&one, &two] {
        store.set("g", "k", "v")?;
    }
    let event = next(&mut mine)?;
    assert_eq!((event.group(), number(event.revision())), ("g", 1));
    assert!(mine.try_recv().is_none());
    one.transaction(|tx| tx.ack(&mine, event.revision()))?;
    let names = |store: &Store| -> Result<Vec<String>> {
        Ok(store.consumers()?.into_iter().map(|row| row.name).collect())
    };
    assert_eq!((names(&one)?, names(&two)?), (vec!["c".to_owned()], vec!["c".to_owned()]));
    assert_eq!(names(&store)?, ["c", "one:c", "two:c"]);
    assert_eq!((acked(&one, "c")?, acked(&two, "c")?), (Some(1), Some(0)));
    assert_eq!(listed(&one, "c")?.filter, Filter::everything());
    // A name with a namespace in it could carry a filter that sees out of it.
    assert_eq!(kind(store.consumer("one:c")), Some(ErrorKind::InvalidName));
    assert_eq!(kind(one.remove_consumer("two:c", Force::Yes)), Some(ErrorKind::NotFound));
    store.remove_consumer("one:c", Force::Yes)?;
    assert_eq!(kind(mine.ack(event.revision())), Some(ErrorKind::Fenced));
    Ok(())
}

#[test]
fn what_stats_say_of_a_consumer() -> Result {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).anywhere()?;
    let created = clock_now(&clock);
    let mut consumer = store.with_origin("me").consumer("c")?;
    write(&store, 2)?;
    take(&mut consumer, 2)?;
    clock.advance(Duration::from_secs(1));
    let first = nth(&store, 1)?;
    consumer.ack(first)?;
    write(&store, 1)?;
    let row = store.stats()?.consumers.remove(0);
    assert_eq!((row.name.as_str(), row.acked, row.lag_events), ("c", Some(first), 2));
    assert_eq!((row.created, row.oldest_unacked), (created, Some(created)));
    assert_eq!(row.acked_at, Some(clock_now(&clock)));
    let holder = row.holder.ok_or("nobody")?;
    assert_eq!(holder.label, format!("process {}, me", std::process::id()));
    assert_eq!(holder.until.since(clock_now(&clock)), LEASE);
    assert!(holder.is_alive);
    Ok(())
}

fn clock_now(clock: &ManualClock) -> watchkeep::Timestamp {
    use watchkeep::Clock;
    clock.now()
}

#[test]
fn names_are_checked_and_a_closed_store_has_no_consumers() -> Result {
    let store = anywhere()?;
    for bad in ["", "a b", "a:b", "*", "ä"] {
        assert_eq!(kind(store.consumer(bad)), Some(ErrorKind::InvalidName), "{bad:?}");
    }
    store.close()?;
    assert_eq!(kind(store.consumer("c")), Some(ErrorKind::Closed));
    assert_eq!(kind(store.consumers()), Some(ErrorKind::Closed));
    Ok(())
}

#[cfg(feature = "async")]
#[test]
fn a_consumer_is_a_stream_and_acknowledges_without_blocking() -> Result {
    use futures_executor::block_on;
    use std::future::poll_fn;
    use std::pin::Pin;

    use futures_core::Stream;

    let store = with(3)?.to_async();
    block_on(async {
        let mut consumer = store.blocking(|store| store.consumer_with("c", from_the_beginning())).await?;
        let acker = consumer.acker().clone();
        for expected in 1..=3 {
            let event = poll_fn(|cx| Pin::new(&mut consumer).poll_next(cx)).await.ok_or("it ended")??;
            assert_eq!(number(event.revision()), expected);
            store.ack(&acker, event.revision()).await?;
        }
        let (last, ahead) = (nth(store.store(), 3)?, Revision::new(watchkeep::MAX_REVISION));
        assert_eq!(kind(store.ack(&acker, ahead).await), Some(ErrorKind::InvalidArgument));
        assert_eq!(acked(store.store(), "c")?, Some(3));
        store.store().remove_consumer("c", Force::Yes)?;
        assert_eq!(kind(store.ack(&acker, last).await), Some(ErrorKind::Fenced));
        let told = poll_fn(|cx| Pin::new(&mut consumer).poll_next(cx)).await.ok_or("it ended")?;
        assert_eq!(kind(told), Some(ErrorKind::Fenced));
        assert!(poll_fn(|cx| Pin::new(&mut consumer).poll_next(cx)).await.is_none());
        Ok(())
    })
}

#[test]
fn no_consumer_is_set_after_the_last_revision() -> Result {
    let store = with(2)?;
    store.consumer("old")?.close()?;
    let last = store.last_revision()?;
    let next = at(last.get() + 1);
    let cursor = ConsumerStart::AfterCursor(store.cursor(next));
    let words = format!("after the last one, {last};");
    for (ahead, is_cursor) in [
        (ConsumerStart::After(next), false),
        (ConsumerStart::After(Revision::new(u64::MAX)), false),
        (cursor, true),
    ] {
        let made = store.consumer_with("new", from(ahead)).err().ok_or("it was made")?;
        let reset = store.reset_consumer("old", ahead, Force::No).err().ok_or("it was reset")?;
        for refused in [made, reset] {
            let (kind, word) = match is_cursor {
                true => (ErrorKind::LostCursor, "is not in this file"),
                false => (ErrorKind::InvalidArgument, words.as_str()),
            };
            assert_eq!(refused.kind(), kind);
            assert!(refused.to_string().contains(word), "{refused}");
        }
    }
    assert_eq!(store.consumers()?.len(), 1);
    assert_eq!(acked(&store, "old")?, Some(2));
    for last in [ConsumerStart::After(last), ConsumerStart::AfterCursor(store.cursor(last))] {
        store.reset_consumer("old", last, Force::No)?;
    }
    Ok(())
}

/// Earlier releases let one be set there.
#[test]
fn a_consumer_that_stands_after_the_last_revision_is_no_damage_and_goes_on_from_there() -> Result {
    let folder = tempfile::tempdir()?;
    let [path, saved, restored] = ["a.db", "saved.db", "restored.db"].map(|name| folder.path().join(name));
    let store = Store::open(&path)?;
    write(&store, 2)?;
    store.consumer("c")?.close()?;
    rusqlite::Connection::open(&path)?.execute("UPDATE wk_consumers SET acked = 999999", [])?;
    assert!(store.check()?.is_ok(), "{:?}", store.check()?.problems);
    store.backup(&saved)?;
    Store::restore(&saved, &restored, BackupOptions::new())?;
    for store in [store, Store::open(&restored)?] {
        assert_eq!(listed(&store, "c")?.acked, Some(at(999_999)));
        let mut consumer = store.consumer("c")?;
        assert_eq!(listed(&store, "c")?.acked, Some(at(2)));
        write(&store, 1)?;
        assert_eq!(next(&mut consumer)?.revision(), at(3));
    }
    Ok(())
}
