//! What only some engines have; `docs/conformance.md` names these tests.

use std::thread;
use std::time::Duration;

use crate::support::needs::{Need, needs};
use crate::support::{Anywhere as _, Result, another, anywhere};
use watchkeep::{Durability, ErrorKind, Filter, Options, Retention, Revision, Store, Waking};

fn kind<T>(result: watchkeep::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn a_store_in_memory_has_nothing_of_a_file_whatever_its_options_ask_for() -> Result {
    let of_a_file = || Options::new().create(false).adopt(true).network(true).ballast(true).boot_id("boot");
    for asked in [Durability::Full, Durability::Relaxed] {
        let store = of_a_file().durability(asked).open_in_memory()?;
        store.set("g", "k", "v")?;
        assert_eq!((store.path(), store.durability()), (None, Durability::Relaxed));
        let stats = store.stats()?;
        assert_eq!((stats.path, stats.durability), (None, Durability::Relaxed));
        assert_eq!((stats.file_bytes, stats.wal_bytes, stats.waking), (0, 0, Waking::Alone));
    }
    Ok(())
}

#[test]
fn a_store_that_is_no_file_has_nothing_of_one() -> Result {
    let store = anywhere()?;
    store.set("g", "k", "v")?;
    if store.path().is_none() {
        let stats = store.stats()?;
        assert_eq!(
            (store.durability(), stats.path, stats.durability),
            (Durability::Relaxed, None, Durability::Relaxed)
        );
        assert_eq!((stats.file_bytes, stats.wal_bytes, stats.waking), (0, 0, Waking::Alone));
    }
    Ok(())
}

#[test]
fn a_store_that_is_sound_is_checked_and_needs_no_repair() -> Result {
    let store = anywhere()?;
    for number in 0..10 {
        store.set("g", &number.to_string(), "v")?;
    }
    store.delete("g", "3")?;
    let report = store.check()?;
    assert!(report.is_ok(), "{:?}", report.problems);
    assert_eq!((report.entries, report.groups), (9, 1));
    assert_eq!(store.repair_counters()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_log_is_trimmed_wherever_the_store_does_its_own_chores() -> Result {
    needs!(Trimming);
    let store = Options::new().retention(Retention::FOREVER).anywhere()?;
    for number in 0..10 {
        store.set("g", &number.to_string(), "v")?;
    }
    assert_eq!(store.compact(Revision::new(6))?, 5);
    assert_eq!(store.stats()?.first_revision, Revision::new(6));
    Ok(())
}

#[test]
fn a_store_is_checked_repaired_and_backed_up_wherever_its_rows_are_at_hand() -> Result {
    needs!(RowsAtHand);
    let store = anywhere()?;
    for number in 0..10 {
        store.set("g", &number.to_string(), "v")?;
    }
    store.delete("g", "3")?;
    let report = store.check()?;
    assert!(report.is_ok(), "{:?}", report.problems);
    assert_eq!((report.entries, report.groups, report.events), (9, 1, 11));
    assert_eq!(store.repair_counters()?, Vec::<String>::new());

    assert_eq!((store.seal("moved")?, store.quotas()?), (Revision::new(11), Vec::new()));
    assert!(store.set("g", "new", "v").is_err() && store.unseal()?);

    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("copy.db");
    assert_eq!(store.backup(&copy)?.revision, Revision::new(11));
    let copy = Store::open(copy)?;
    assert_eq!((copy.count("g")?, copy.last_revision()?), (9, Revision::new(11)));
    assert!(copy.id() != store.id() && copy.path().is_some() && copy.check()?.is_ok());
    Ok(())
}

// What an engine does that lacks what a test may need: a test for each `Need`, which goes wrong as well where an engine
// has more than `Need::is_met` says.

#[test]
fn revisions_are_dense_or_ordered_with_gaps() -> Result {
    let store = anywhere()?;
    let set = |number: u64| store.set("g", &number.to_string(), "v").map(Revision::get);
    let revisions = (0..10).map(set).collect::<watchkeep::Result<Vec<_>>>()?;
    let done = store.transaction(|tx| {
        tx.set("g", "k", "v")?;
        Ok(tx.entry("g", "k")?.map(|entry| entry.revision))
    })?;
    let inside = done.value.ok_or("its own write is not there")?;
    if Need::DenseRevisions.is_met() {
        assert_eq!(revisions, (1..=10).collect::<Vec<_>>());
        assert_eq!((inside, done.revision.get()), (done.revision, 11));
    } else {
        assert!(revisions.windows(2).all(|pair| pair[0] + 1 < pair[1]), "{revisions:?}");
        assert!(revisions.last().is_some_and(|last| *last < done.revision.get()));
        assert!(inside.get() >= 1 << 52, "a revision of the transaction at hand is provisional: {inside}");
    }
    Ok(())
}

#[test]
fn a_log_is_trimmed_or_that_is_refused_and_it_stays_whole() -> Result {
    let store = Options::new().retention(Retention::FOREVER).anywhere()?;
    for number in 0..10 {
        store.set("g", &number.to_string(), "v")?;
    }
    let trimmed = store.compact(store.last_revision()?);
    let events = store.history(Filter::everything(), Revision::ZERO).count();
    if Need::Trimming.is_met() {
        assert_eq!((trimmed?, events), (9, 1));
    } else {
        assert_eq!((kind(trimmed), events), (Some(ErrorKind::InvalidArgument), 10));
    }
    Ok(())
}

#[test]
fn a_large_transaction_is_taken_or_refused_whole() -> Result {
    let store = anywhere()?;
    let many = store.transaction(|tx| (0..500).try_for_each(|n| tx.set("g", &n.to_string(), "v")));
    let large = store.set("large", "k", vec![b'x'; 2 << 20]);
    if Need::LargeTransactions.is_met() {
        assert_eq!((many?.revision.get(), large?.get(), store.count("g")?), (500, 501, 500));
    } else {
        assert_eq!([kind(many), kind(large)], [Some(ErrorKind::TooLarge); 2]);
        assert_eq!((store.last_revision()?, store.count_all("")?), (Revision::ZERO, 0));
        // What every engine takes.
        store.transaction(|tx| (0..100).try_for_each(|n| tx.set("g", &n.to_string(), "v")))?;
        store.set("large", "k", vec![b'x'; 1 << 20])?;
        assert_eq!(store.count_all("")?, 101);
    }
    Ok(())
}

#[test]
fn a_closure_runs_alone_or_again_when_what_it_read_was_changed() -> Result {
    let is_alone = Need::LoneClosures.is_met();
    // The other one waits for as long as this.
    let brief = Options::new().busy_timeout(Duration::from_millis(10));
    let store = if is_alone { brief.anywhere()? } else { anywhere()? };
    store.set("g", "read", "1")?;
    let (other, mut runs, mut meanwhile) = (another(&store)?, 0, None);
    store.transaction(|tx| {
        let read = tx.get("g", "read")?.unwrap_or_default();
        runs += 1;
        if runs == 1 {
            let write = || other.set("g", "read", "2").map(drop);
            meanwhile = thread::scope(|scope| scope.spawn(write).join()).ok();
        }
        tx.set("g", "copy", read)
    })?;
    let meanwhile = meanwhile.ok_or("the other writer panicked")?;
    let copy = store.get("g", "copy")?.ok_or("it was not committed")?;
    if is_alone {
        assert_eq!((kind(meanwhile), runs), (Some(ErrorKind::Busy), 1));
        assert_eq!(copy, "1");
    } else {
        meanwhile?;
        assert_eq!((copy.as_str(), runs), (Some("2"), 2));
    }
    Ok(())
}

#[test]
fn the_lag_of_a_consumer_is_told_in_events_and_in_bytes() -> Result {
    let store = anywhere()?;
    store.consumer("c")?.close()?;
    for number in 0..2 {
        store.set("g", &number.to_string(), "v")?;
    }
    let row = store.consumers()?.pop().ok_or("it is not listed")?;
    assert_eq!((row.lag_events, row.lag_bytes), (2, 2 * "g0v".len() as u64));
    Ok(())
}

#[test]
fn what_takes_all_rows_at_hand_is_done_or_refused() -> Result {
    let store = anywhere()?;
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("copy.db");
    let refused =
        [kind(store.seal("moved")), kind(store.unseal()), kind(store.quotas()), kind(store.backup(&copy))];
    if Need::RowsAtHand.is_met() {
        assert_eq!((refused, copy.exists()), ([None; 4], true));
    } else {
        assert_eq!((refused, copy.exists()), ([Some(ErrorKind::InvalidArgument); 4], false));
    }
    store.set("g", "k", "v")?;
    Ok(())
}
