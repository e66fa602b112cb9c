//! Who holds a named consumer: one at a time, and whoever was overtaken is told.

use std::time::Duration;

use crate::support::consumers::{LEASE, Two, acked, at, from_the_beginning, kind, listed, two, with, write};
use crate::support::numbers::nth;
use crate::support::{LIMIT, Result, eventually, file_of, next, revisions, take, within_limit};
use watchkeep::{Consumer, ConsumerOptions, ConsumerStart, ErrorKind, Force};

/// That a consumer was told, in place of an event, that it is not the holder any more; and has ended.
fn is_fenced(consumer: &mut Consumer) -> Result {
    let told = consumer.recv_timeout(LIMIT).ok_or("it was not told")?;
    assert_eq!(kind(told), Some(ErrorKind::Fenced));
    assert!(consumer.recv().is_none() && consumer.is_ended());
    Ok(())
}

#[test]
fn one_has_the_name_and_the_other_is_told_or_waits() -> Result {
    let Two { one, other, _folder, .. } = two()?;
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
    assert!(listed(&store, "c")?.holder.is_none() || store.consumer("c").is_ok());
    Ok(())
}

#[test]
fn closing_the_store_gives_its_consumers_back() -> Result {
    let Two { one, other, _folder, .. } = two()?;
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
        let until = listed(&other, "c")?.holder.ok_or("nobody holds it")?.until;
        clock.advance(LEASE / 2);
        eventually("it is renewed", || {
            Ok(listed(&other, "c")?.holder.as_ref().is_some_and(|holder| holder.until > until))
        })?;
        assert_eq!(kind(other.consumer("c")), Some(ErrorKind::Held));
    }
    // As a process that is killed: nothing is given back.
    let until = listed(&other, "c")?.holder.ok_or("nobody holds it")?.until;
    let path = file_of(&other).to_owned();
    let id = consumer.fence();
    drop(consumer);
    one.close()?;
    let raw = rusqlite::Connection::open(path)?;
    raw.execute("UPDATE wk_consumers SET holder = 'gone', lease_until = ?1", [until.as_millis()])?;
    drop(raw);
    assert_eq!(kind(other.consumer("c")), Some(ErrorKind::Held));
    clock.set(until);
    assert!(!listed(&other, "c")?.holder.ok_or("forgotten")?.is_alive);
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
        let row = listed(&two.one, "c")?;
        Ok(row.fence == new.fence() && row.holder.is_some_and(|it| it.label == "the new one" && it.is_alive))
    })
}

#[test]
fn what_an_overtaken_holder_writes_with_its_acknowledgement_is_not_committed() -> Result {
    let (two, old, _new) = overtaken()?;
    // The second time it is known without asking the file.
    for _ in 0..2 {
        let refused = two.one.transaction(|tx| {
            tx.set("out", "k", "twice")?;
            // Overlooked, as a careless handler does.
            let _ = tx.ack(&old, at(2));
            Ok(())
        });
        assert_eq!(kind(refused), Some(ErrorKind::Fenced));
        assert!(!two.one.contains("out", "k")?);
    }
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
fn what_an_overtaken_holder_makes_of_a_snapshot_is_not_committed() -> Result {
    let Two { one, other, _folder, .. } = two()?;
    write(&one, 3)?;
    let mut old = one.consumer_with("c", ConsumerOptions::new().start(ConsumerStart::Snapshot))?;
    let entry = next(&mut old)?;
    one.transaction(|tx| tx.ack(&old, entry.revision()))?;
    assert_eq!(acked(&one, "c")?, None, "an entry alone is not acknowledged");
    one.reset_consumer("c", ConsumerStart::Snapshot, Force::Yes)?;
    let _new = other.consumer("c")?;
    let refused = one.transaction(|tx| {
        tx.set("out", "k", "stale")?;
        tx.ack(&old, entry.revision())
    });
    assert_eq!(kind(refused), Some(ErrorKind::Fenced));
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
    assert_eq!(kind(old.ack(nth(&store, 3)?)), Some(ErrorKind::Fenced));
    assert_eq!(acked(&store, "c")?, Some(0));
    Ok(())
}

#[test]
fn reset_and_remove_respect_a_holder_unless_forced() -> Result {
    let store = with(5)?;
    let mut consumer = store.consumer_with("c", from_the_beginning())?;
    take(&mut consumer, 5)?;
    let last = nth(&store, 5)?;
    consumer.ack(last)?;
    assert_eq!(kind(store.reset_consumer("c", ConsumerStart::Now, Force::No)), Some(ErrorKind::Held));
    assert_eq!(kind(store.remove_consumer("c", Force::No)), Some(ErrorKind::Held));
    store.reset_consumer("c", ConsumerStart::After(nth(&store, 2)?), Force::Yes)?;
    assert_eq!(kind(consumer.ack(last)), Some(ErrorKind::Fenced), "it would undo the reset");
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
fn nothing_is_written_while_nothing_is_held() -> Result {
    let Two { clock, one, other, _folder } = two()?;
    drop(one.consumer("c")?);
    eventually("it is given back", || Ok(listed(&other, "c")?.holder.is_none()))?;
    let raw = rusqlite::Connection::open(file_of(&one))?;
    let version = || raw.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0));
    let before = version()?;
    for _ in 0..20 {
        clock.advance(LEASE);
        assert!(one.watch("*", "*").recv_timeout(Duration::from_millis(5)).is_none());
    }
    assert_eq!(version()?, before);
    Ok(())
}

#[test]
fn of_many_that_want_the_name_one_gets_it() -> Result {
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
