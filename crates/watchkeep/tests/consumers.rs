//! Named consumers: what is not acknowledged comes again, one holder at a time, and what retention keeps for them.

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{LIMIT, Result, eventually, next, revisions, take, within_limit};
use watchkeep::{
    Consumer, ConsumerOptions, ConsumerStart, Cursor, Error, ErrorKind, Filter, Force, Item, Kind,
    ManualClock, Options, Retention, Revision, Store,
};

const LEASE: Duration = Duration::from_secs(10);

fn from(start: ConsumerStart) -> ConsumerOptions {
    ConsumerOptions::new().start(start)
}

fn from_the_beginning() -> ConsumerOptions {
    from(ConsumerStart::Beginning)
}

fn at(revision: u64) -> Revision {
    Revision::new(revision)
}

fn with(written: u64) -> Result<Store> {
    let store = Store::open_in_memory()?;
    write(&store, written)?;
    Ok(store)
}

fn write(store: &Store, number: u64) -> Result {
    (0..number).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
    Ok(())
}

fn kind<T>(result: std::result::Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn acked(store: &Store, name: &str) -> Result<Option<u64>> {
    let rows = store.consumers()?;
    let row = rows.into_iter().find(|row| row.name == name).ok_or("it is not listed")?;
    Ok(row.acked.map(Revision::get))
}

/// Two handles on one file, as two processes have them, with one clock.
struct Two {
    clock: Arc<ManualClock>,
    one: Store,
    other: Store,
    _folder: tempfile::TempDir,
}

fn two() -> Result<Two> {
    let folder = tempfile::tempdir()?;
    let clock = Arc::new(ManualClock::default());
    let open = || Options::new().clock(clock.clone()).open(folder.path().join("a.db"));
    Ok(Two { one: open()?, other: open()?, clock, _folder: folder })
}

/// That a consumer was told, in place of an event, that it is not the holder any more; and has ended.
fn is_fenced(consumer: &mut Consumer) -> Result {
    let told = consumer.recv_timeout(LIMIT).ok_or("it was not told")?;
    assert_eq!(kind(told), Some(ErrorKind::Fenced));
    assert!(consumer.recv().is_none() && consumer.is_ended());
    Ok(())
}

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
    store.compact(at(3))?;
    let starts = [
        ("now", ConsumerStart::Now, vec![6]),
        ("beginning", ConsumerStart::Beginning, vec![3, 4, 5, 6]),
        ("after", ConsumerStart::After(at(4)), vec![5, 6]),
        ("cursor", ConsumerStart::AfterCursor(store.cursor(at(5))), vec![6]),
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
    assert_eq!(next(&mut again)?.revision(), at(6), "it is not new");
    let foreign = Cursor::new(Store::open_in_memory()?.id(), at(1));
    let foreign = store.consumer_with("foreign", from(ConsumerStart::AfterCursor(foreign)));
    assert_eq!(kind(foreign), Some(ErrorKind::ForeignCursor));
    assert!(!store.consumers()?.iter().any(|row| row.name == "foreign"), "it was not made");
    Ok(())
}

#[test]
fn a_consumer_that_begins_before_the_log_is_told_what_it_lost() -> Result {
    let store = with(5)?;
    store.compact(at(4))?;
    let mut consumer = store.consumer_with("c", from(ConsumerStart::After(at(1))))?;
    let lost = consumer.recv().ok_or("nothing")?.err().and_then(|error| error.lagged()).ok_or("not told")?;
    assert_eq!((lost.from, lost.to), (at(2), at(3)));
    assert_eq!(store.consumers()?[0].lost, Some(lost));
    consumer.ack(lost.to)?;
    assert_eq!(store.consumers()?[0].lost, None);
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
                Item::Ready(ready) => return Ok((entries, ready.get())),
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
    consumer.ack(at(1))?;
    assert_eq!(acked(&store, "c")?, None, "one of its entries says nothing, even late");
    consumer.ack(at(5))?;
    assert_eq!(acked(&store, "c")?, Some(5));
    drop(consumer);
    let mut consumer = store.consumer("c")?;
    assert!(consumer.try_recv().is_none());
    write(&store, 1)?;
    assert_eq!(next(&mut consumer)?.revision(), at(6));
    Ok(())
}

#[test]
fn acknowledgements_are_cumulative_and_of_what_was_handed_out() -> Result {
    let store = with(5)?;
    let mut consumer = store.consumer_with("c", from_the_beginning())?;
    let refused = consumer.ack(at(1)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    take(&mut consumer, 4)?;
    assert_eq!(kind(consumer.ack(at(5))), Some(ErrorKind::InvalidArgument));
    for (revision, expected) in [(3, 3), (3, 3), (1, 3), (4, 4)] {
        consumer.ack(at(revision))?;
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
    consumer.ack(at(3))?;
    consumer.close()?;
    let after = store.stats()?;
    assert_eq!((after.last_revision, after.log_events), (before.last_revision, before.log_events));
    assert!(watcher.try_recv().is_none());
    Ok(())
}

#[test]
fn an_acknowledgement_in_the_middle_of_a_transaction_is_allowed() -> Result {
    let store = Store::open_in_memory()?;
    store.transaction(|tx| (0..4).try_for_each(|n| tx.set("g", &n.to_string(), "v")))?;
    let mut consumer = store.consumer_with("c", from_the_beginning())?;
    take(&mut consumer, 4)?;
    consumer.ack(at(2))?;
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
fn one_has_the_name_and_the_other_is_told_or_waits() -> Result {
    let Two { one, other, .. } = two()?;
    let first = one.consumer_with("c", ConsumerOptions::new().holder("the first"))?;
    for store in [&one, &other] {
        let refused = store.consumer("c").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Held);
        assert!(refused.to_string().contains("the first"), "{refused}");
    }
    let brief = ConsumerOptions::new().wait(Duration::from_millis(1));
    assert_eq!(kind(other.consumer_with("c", brief)), Some(ErrorKind::Held));
    let (waits, released) = std::sync::mpsc::channel();
    within_limit(move || {
        let waiter = std::thread::spawn(move || {
            waits.send(()).ok();
            other.consumer_with("c", ConsumerOptions::new().wait(Duration::MAX)).map(|taken| taken.fence())
        });
        released.recv()?;
        let fence = first.fence();
        drop(first);
        let second = waiter.join().map_err(|_| "the waiter panicked")??;
        assert!(second > fence, "{second} after {fence}");
        Ok(())
    })
}

#[test]
fn a_name_that_was_given_back_is_free_at_once() -> Result {
    let store = with(1)?;
    for round in 0..50 {
        let consumer = store.consumer("c")?;
        if round % 2 == 0 { drop(consumer) } else { consumer.close()? }
    }
    assert!(store.consumers()?[0].holder.is_none() || store.consumer("c").is_ok());
    Ok(())
}

#[test]
fn closing_the_store_gives_its_consumers_back() -> Result {
    let Two { one, other, .. } = two()?;
    write(&one, 3)?;
    let mut consumer = one.consumer_with("c", from_the_beginning())?;
    take(&mut consumer, 1)?;
    let acker = consumer.acker().clone();
    one.close()?;
    assert_eq!(kind(acker.ack(at(1))), Some(ErrorKind::Closed));
    assert_eq!(revisions(&take(&mut *other.consumer("c")?, 1)?), [1]);
    Ok(())
}

#[test]
fn a_lease_is_renewed_while_the_holder_lives_and_runs_out_when_it_does_not() -> Result {
    let Two { clock, one, other, _folder } = two()?;
    let consumer = one.consumer("c")?;
    for _ in 0..5 {
        let until = other.consumers()?[0].holder.clone().ok_or("nobody holds it")?.until;
        clock.advance(LEASE / 2);
        eventually("it is renewed", || {
            Ok(other.consumers()?[0].holder.as_ref().is_some_and(|holder| holder.until > until))
        })?;
        assert_eq!(kind(other.consumer("c")), Some(ErrorKind::Held));
    }
    // As a process that is killed: nothing is given back.
    let until = other.consumers()?[0].holder.clone().ok_or("nobody holds it")?.until;
    let path = other.path().to_owned();
    let id = consumer.fence();
    drop(consumer);
    one.close()?;
    let raw = rusqlite::Connection::open(path)?;
    raw.execute("UPDATE wk_consumers SET holder = 'gone', lease_until = ?1", [until.as_millis()])?;
    drop(raw);
    assert_eq!(kind(other.consumer("c")), Some(ErrorKind::Held));
    clock.set(until);
    assert!(!other.consumers()?[0].holder.clone().ok_or("forgotten")?.is_alive);
    assert!(other.consumer("c")?.fence() > id);
    Ok(())
}

/// A holder that stood still while another took over; its process is as alive as before.
fn overtaken() -> Result<(Two, Consumer, Consumer)> {
    let two = two()?;
    write(&two.one, 5)?;
    let mut old = two.one.consumer_with("c", from_the_beginning().holder("the old one"))?;
    take(&mut old, 5)?;
    // Its lease is over before its thread could do anything about it.
    two.one.reset_consumer("c", ConsumerStart::Beginning, Force::Yes)?;
    let new = two.other.consumer_with("c", ConsumerOptions::new().holder("the new one"))?;
    Ok((two, old, new))
}

#[test]
fn a_holder_that_was_overtaken_is_told_when_it_acknowledges() -> Result {
    let (two, mut old, mut new) = overtaken()?;
    let refused = old.ack(at(2)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Fenced);
    assert!(refused.to_string().contains("the new one"), "{refused}");
    assert_eq!(acked(&two.one, "c")?, Some(0));
    is_fenced(&mut old)?;
    assert_eq!(revisions(&take(&mut new, 2)?), [1, 2]);
    new.ack(at(2))?;
    drop(old);
    assert_eq!(
        kind(two.one.consumer("c")),
        Some(ErrorKind::Held),
        "the old one gave back what was not its own"
    );
    Ok(())
}

#[test]
fn a_holder_that_was_overtaken_is_told_while_it_waits() -> Result {
    let (two, mut old, new) = overtaken()?;
    two.clock.advance(LEASE / 2);
    is_fenced(&mut old)?;
    assert_eq!(kind(old.ack(at(1))), Some(ErrorKind::Fenced));
    eventually("the new one is renewed", || {
        let row = two.one.consumers()?.remove(0);
        Ok(row.fence == new.fence() && row.holder.is_some_and(|it| it.label == "the new one" && it.is_alive))
    })
}

#[test]
fn what_an_overtaken_holder_writes_with_its_acknowledgement_is_not_committed() -> Result {
    let (two, old, _new) = overtaken()?;
    let refused = two.one.transaction(|tx| {
        tx.set("out", "k", "twice")?;
        // Overlooked, as a careless handler does.
        let _ = tx.ack(&old, at(2));
        Ok(())
    });
    assert_eq!(kind(refused), Some(ErrorKind::Fenced));
    assert!(!two.one.contains("out", "k")?);
    // With others' writes in one commit, too.
    std::thread::scope(|scope| {
        let others = scope.spawn(|| write(&two.one, 50));
        for _ in 0..50 {
            assert_eq!(kind(old.ack(at(2))), Some(ErrorKind::Fenced));
        }
        others.join().map_err(|_| "the writer panicked")?
    })?;
    assert_eq!(acked(&two.one, "c")?, Some(0));
    Ok(())
}

#[test]
fn a_removed_name_that_comes_again_does_not_know_its_old_holders() -> Result {
    let store = with(3)?;
    let mut old = store.consumer_with("c", from_the_beginning())?;
    take(&mut old, 3)?;
    store.remove_consumer("c", Force::Yes)?;
    let new = store.consumer_with("c", from_the_beginning())?;
    assert!(new.fence() > old.fence());
    assert_eq!(kind(old.ack(at(3))), Some(ErrorKind::Fenced));
    assert_eq!(acked(&store, "c")?, Some(0));
    Ok(())
}

#[test]
fn reset_and_remove_respect_a_holder_unless_forced() -> Result {
    let store = with(5)?;
    let mut consumer = store.consumer_with("c", from_the_beginning())?;
    take(&mut consumer, 5)?;
    consumer.ack(at(5))?;
    assert_eq!(kind(store.reset_consumer("c", ConsumerStart::Now, Force::No)), Some(ErrorKind::Held));
    assert_eq!(kind(store.remove_consumer("c", Force::No)), Some(ErrorKind::Held));
    store.reset_consumer("c", ConsumerStart::After(at(2)), Force::Yes)?;
    assert_eq!(kind(consumer.ack(at(5))), Some(ErrorKind::Fenced), "it would undo the reset");
    drop(consumer);
    assert_eq!(revisions(&take(&mut *store.consumer("c")?, 3)?), [3, 4, 5]);
    store.reset_consumer("c", ConsumerStart::Snapshot, Force::No)?;
    assert_eq!(acked(&store, "c")?, None);
    store.reset_consumer("c", ConsumerStart::Now, Force::No)?;
    assert_eq!(acked(&store, "c")?, Some(5));
    store.remove_consumer("c", Force::No)?;
    assert!(store.consumers()?.is_empty());
    assert_eq!(kind(store.remove_consumer("c", Force::Yes)), Some(ErrorKind::NotFound));
    assert_eq!(kind(store.reset_consumer("c", ConsumerStart::Now, Force::Yes)), Some(ErrorKind::NotFound));
    Ok(())
}

#[test]
fn the_filter_is_kept_and_another_holds_from_the_last_acknowledgement_on() -> Result {
    let store = Store::open_in_memory()?;
    let kinds = [Kind::Set];
    let filter = Filter::key_prefix("g", "a").kinds(kinds).exclude_origin("me").without_group_deletions();
    drop(store.consumer_with("c", ConsumerOptions::new().filter(filter.clone()))?);
    assert_eq!(store.consumers()?[0].filter, filter);
    for key in ["b1", "a1", "b2", "a2"] {
        store.set("g", key, "v")?;
    }
    let mut consumer = store.consumer("c")?;
    assert_eq!(revisions(&take(&mut consumer, 2)?), [2, 4]);
    consumer.ack(at(2))?;
    drop(consumer);
    let mut wider = store.consumer_with("c", ConsumerOptions::new().filter(Filter::everything()))?;
    assert_eq!(revisions(&take(&mut wider, 2)?), [3, 4], "not the first, which was passed over");
    assert_eq!(store.consumers()?[0].filter, Filter::everything());
    Ok(())
}

#[test]
fn the_position_moves_on_where_nothing_matches_but_never_past_what_is_not_acknowledged() -> Result {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).open_in_memory()?;
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
    assert_eq!(next(&mut consumer)?.revision(), at(101));
    for _ in 0..20 {
        clock.advance(LEASE / 3);
        assert!(consumer.recv_timeout(Duration::from_millis(5)).is_none());
    }
    assert_eq!(acked(&store, "c")?, Some(100), "101 is not acknowledged");
    consumer.ack(at(101))?;
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
    let store = Options::new().clock(clock.clone()).open_in_memory()?;
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
fn nothing_is_written_while_nothing_is_held() -> Result {
    let Two { clock, one, other, _folder } = two()?;
    drop(one.consumer("c")?);
    eventually("it is given back", || Ok(other.consumers()?[0].holder.is_none()))?;
    let raw = rusqlite::Connection::open(one.path())?;
    let version = || raw.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0));
    let before = version()?;
    for _ in 0..20 {
        clock.advance(LEASE);
        assert!(one.watch("*", "*").recv_timeout(Duration::from_millis(5)).is_none());
    }
    assert_eq!(version()?, before);
    Ok(())
}

fn small(ceiling: Retention) -> Result<(Arc<ManualClock>, Store)> {
    let clock = Arc::new(ManualClock::default());
    let retention = Retention { max_events: 10, min_events: 5, ..ceiling };
    let store = Options::new().retention(retention).clock(clock.clone()).open_in_memory()?;
    Ok((clock, store))
}

fn first(store: &Store) -> Result<u64> {
    Ok(store.stats()?.first_revision.get())
}

#[test]
fn retention_keeps_what_a_consumer_still_needs() -> Result {
    let (_, store) = small(Retention::FOREVER)?;
    let mut consumer = store.consumer("c")?;
    let events = write(&store, 2_000).and_then(|()| take(&mut consumer, 2_000))?;
    // Time for the trimmer, which without the consumer takes what it may.
    let control = small(Retention::FOREVER)?.1;
    write(&control, 2_000)?;
    eventually("the log without a consumer is trimmed", || Ok(first(&control)? > 1_900))?;
    store.purge_expired()?;
    assert_eq!(first(&store)?, 1);
    consumer.ack(at(1_000))?;
    eventually("what is acknowledged goes", || Ok(first(&store)? == 1_001))?;
    drop(consumer);
    let mut again = store.consumer("c")?;
    assert_eq!(revisions(&take(&mut again, 1_000)?), revisions(&events[1_000..]));
    again.ack(at(2_000))?;
    eventually("the rest goes as ever", || Ok(first(&store)? > 1_900))?;
    assert!(store.check()?.is_ok());
    Ok(())
}

/// Writes until the log has passed what a consumer holds back, and reads what became of it.
fn passes_the_ceiling(clock: &Arc<ManualClock>, store: &Store, more: impl FnOnce() -> Result) -> Result {
    let mut behind = store.consumer("behind")?;
    write(store, 10)?;
    take(&mut behind, 2)?;
    behind.ack(at(2))?;
    drop(behind);
    write(store, 10)?;
    more()?;
    eventually("the log passes the ceiling", || Ok(store.consumers()?[0].lost.is_some()))?;
    // Through another handle: this one may still remember what is gone.
    let store = &Options::new().create(false).clock(clock.clone()).open(store.path())?;
    let mut behind = store.consumer("behind")?;
    let lost = behind.recv().ok_or("nothing")?.err().and_then(|error| error.lagged()).ok_or("not told")?;
    assert_eq!((lost.from, at(lost.to.get() + 1)), (at(3), store.stats()?.first_revision));
    let event = next(&mut behind)?;
    assert_eq!(event.revision(), at(lost.to.get() + 1));
    behind.ack(event.revision())?;
    assert_eq!(store.consumers()?[0].lost, None);
    Ok(())
}

#[test]
fn past_the_ceiling_by_age_events_go_and_the_consumer_is_told() -> Result {
    let age = Duration::from_secs(3_600);
    let (clock, store) = small(Retention { consumer_age: age, ..Retention::FOREVER })?;
    passes_the_ceiling(&clock, &store, || {
        clock.advance(age - Duration::from_millis(1));
        write(&store, 300)?;
        store.purge_expired()?;
        assert_eq!(first(&store)?, 3, "it is not past the ceiling yet");
        clock.advance(Duration::from_millis(2));
        Ok(())
    })
}

#[test]
fn past_the_ceiling_by_bytes_events_go_and_the_consumer_is_told() -> Result {
    let (clock, store) = small(Retention { consumer_bytes: 10_000, ..Retention::FOREVER })?;
    passes_the_ceiling(&clock, &store, || {
        (0..300).try_for_each(|n| store.set("g", &n.to_string(), vec![b'v'; 100]).map(drop))?;
        Ok(())
    })?;
    let stats = store.stats()?;
    assert!((5_000..20_000).contains(&stats.log_bytes), "{} bytes are kept", stats.log_bytes);
    Ok(())
}

#[test]
fn the_ceiling_of_an_open_store_stands_in_the_file() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.db");
    let chosen =
        Retention { consumer_bytes: 7, consumer_age: Duration::from_secs(9), ..Retention::default() };
    Options::new().retention(chosen).open(&path)?.close()?;
    assert_eq!(Store::open(&path)?.stats()?.retention, chosen);
    Ok(())
}

#[test]
fn compacting_by_hand_takes_nothing_from_a_consumer_unless_forced() -> Result {
    let store = with(10)?;
    let mut consumer = store.consumer_with("c", from_the_beginning())?;
    take(&mut consumer, 4)?;
    consumer.ack(at(4))?;
    let refused = store.compact(at(9)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Held);
    assert!(refused.to_string().contains("\"c\"") && refused.to_string().contains("after 4"), "{refused}");
    assert_eq!(first(&store)?, 1);
    assert_eq!(store.compact(at(5))?, 4);
    assert_eq!(store.compact_with(at(9), Force::Yes)?, 4);
    assert_eq!(store.consumers()?[0].lost.map(|lost| (lost.from, lost.to)), Some((at(5), at(8))));
    Ok(())
}

#[test]
fn a_scoped_consumer_belongs_to_its_namespace_and_does_not_see_out() -> Result {
    let store = Store::open_in_memory()?;
    let (one, two) = (store.scoped("one")?, store.scoped("two")?);
    let mut mine = one.consumer("c")?;
    let _yours = two.consumer("c")?;
    let _whole = store.consumer("c")?;
    for store in [&one, &two] {
        store.set("g", "k", "v")?;
    }
    let event = next(&mut mine)?;
    assert_eq!((event.group(), event.revision()), ("g", at(1)));
    assert!(mine.try_recv().is_none());
    one.transaction(|tx| tx.ack(&mine, event.revision()))?;
    let names = |store: &Store| -> Result<Vec<String>> {
        Ok(store.consumers()?.into_iter().map(|row| row.name).collect())
    };
    assert_eq!((names(&one)?, names(&two)?), (vec!["c".to_owned()], vec!["c".to_owned()]));
    assert_eq!(names(&store)?, ["c", "one:c", "two:c"]);
    assert_eq!((acked(&one, "c")?, acked(&two, "c")?), (Some(1), Some(0)));
    assert_eq!(one.consumers()?[0].filter, Filter::everything());
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
    let store = Options::new().clock(clock.clone()).open_in_memory()?;
    let created = clock_now(&clock);
    let mut consumer = store.with_origin("me").consumer("c")?;
    write(&store, 2)?;
    take(&mut consumer, 2)?;
    clock.advance(Duration::from_secs(1));
    consumer.ack(at(1))?;
    write(&store, 1)?;
    let row = store.stats()?.consumers.remove(0);
    assert_eq!((row.name.as_str(), row.acked, row.lag_revisions), ("c", Some(at(1)), 2));
    assert_eq!((row.created, row.oldest_unacked), (created, Some(created)));
    assert_eq!(row.acked_at, Some(clock_now(&clock)));
    assert_eq!(row.lag_bytes, 2 * "g0v".len() as u64);
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
    let store = Store::open_in_memory()?;
    for bad in ["", "a b", "a:b", "*", "ä"] {
        assert_eq!(kind(store.consumer(bad)), Some(ErrorKind::InvalidName), "{bad:?}");
    }
    store.close()?;
    assert_eq!(kind(store.consumer("c")), Some(ErrorKind::Closed));
    assert_eq!(kind(store.consumers()), Some(ErrorKind::Closed));
    Ok(())
}

#[test]
fn the_least_of_many_consumers_decides_and_many_holders_compete_for_one_name() -> Result {
    let store = with(100)?;
    let winners: usize = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8).map(|_| scope.spawn(|| store.consumer("c"))).collect();
        // All are kept until all have tried.
        let taken: Vec<_> = tries.into_iter().filter_map(|it| it.join().ok()).collect();
        taken.iter().filter(|it| it.is_ok()).count()
    });
    assert_eq!(winners, 1);
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
            assert_eq!(event.revision(), at(expected));
            store.ack(&acker, event.revision()).await?;
        }
        assert_eq!(kind(store.ack(&acker, at(4)).await), Some(ErrorKind::InvalidArgument));
        assert_eq!(acked(store.store(), "c")?, Some(3));
        store.store().remove_consumer("c", Force::Yes)?;
        assert_eq!(kind(store.ack(&acker, at(3)).await), Some(ErrorKind::Fenced));
        let told = poll_fn(|cx| Pin::new(&mut consumer).poll_next(cx)).await.ok_or("it ended")?;
        assert_eq!(kind(told), Some(ErrorKind::Fenced));
        assert!(poll_fn(|cx| Pin::new(&mut consumer).poll_next(cx)).await.is_none());
        Ok(())
    })
}
