//! Single operations of SQLite fail, once and from then on: the error says which kind it is, nothing is half there, and
//! everything that was acknowledged stays. Here it is one operation in ten; all of them: `--bin faults -- io`.

use watchkeep::{Batch, ErrorKind, Filter, Store};
use watchkeep_faultdisk::{Disk, Fault as DiskFault, What};
use watchkeep_testkit::faults::{FILE, Workload, io, scratch};
use watchkeep_testkit::surface::Fault;

/// One operation in so many fails.
const EVERY: usize = 10;

fn operations_fail(workload: Workload) -> Result<(), Fault> {
    for (what, name) in io::KINDS {
        for sticky in [false, true] {
            let row = io::sweep(workload, what, sticky, 1, EVERY)?;
            // Only a checkpoint truncates.
            let expected = if what == What::Truncate { 0 } else { 1 };
            assert!(row.rounds >= expected, "{name}: only {row}");
            assert_eq!(row.broken, 0, "{name}: {:?}", row.problem());
        }
    }
    Ok(())
}

#[test]
fn operations_of_puts_may_fail() -> Result<(), Fault> {
    operations_fail(Workload::Puts)
}

#[test]
fn operations_of_transactions_may_fail() -> Result<(), Fault> {
    operations_fail(Workload::Transactions)
}

#[test]
fn operations_of_expiry_may_fail() -> Result<(), Fault> {
    operations_fail(Workload::Expiry)
}

#[test]
fn operations_of_upkeep_may_fail() -> Result<(), Fault> {
    operations_fail(Workload::Upkeep)
}

#[test]
fn operations_of_tenants_may_fail() -> Result<(), Fault> {
    operations_fail(Workload::Tenants)
}

#[test]
fn operations_of_a_crowd_may_fail() -> Result<(), Fault> {
    operations_fail(Workload::Crowd)
}

#[test]
fn operations_of_consumers_may_fail() -> Result<(), Fault> {
    operations_fail(Workload::Consumers)
}

#[test]
fn a_read_that_fails_is_told_by_the_disks_own_error() -> Result<(), Fault> {
    let folder = scratch()?;
    let path = folder.path().join(FILE);
    Store::open(&path)?.set("g", "k", "v")?;
    let disk = Disk::watch(folder.path())?;
    let store = Store::open(&path)?;
    let mut told = 0;
    for nth in 1..=4 {
        disk.fail(DiskFault { what: What::Read, nth, sticky: true });
        // Another connection, whose cache is empty.
        let read = store.snapshot().and_then(|snapshot| snapshot.get("g", "k"));
        let stats = store.stats();
        for error in [read.err(), stats.err()].into_iter().flatten() {
            assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
            told += 1;
        }
        disk.heal();
    }
    assert!(told > 0, "nothing was read");
    Ok(())
}

#[test]
fn on_a_full_disk_writes_are_refused_reads_go_on_and_with_room_again_so_do_writes() -> Result<(), Fault> {
    let folder = scratch()?;
    let disk = Disk::watch(folder.path())?;
    let store = watchkeep::Options::new().ballast(false).open(folder.path().join(FILE))?;
    let first = store.set("g", "k", "before")?;
    let mut watcher = store.watch("*", "*");
    disk.fail(DiskFault { what: What::Full, nth: 1, sticky: true });
    for _ in 0..3 {
        assert_eq!(store.set("g", "k", "refused").map_err(|error| error.kind()), Err(ErrorKind::Full));
        let refused = store.transaction(|tx| tx.set("g", "l", "refused").and_then(|()| tx.delete_group("h")));
        assert_eq!(refused.map(drop).map_err(|error| error.kind()), Err(ErrorKind::Full));
        assert_eq!(store.get("g", "k")?.as_deref(), Some(b"before".as_slice()));
        assert_eq!((store.last_revision()?, store.count("g")?), (first, 1));
    }
    assert!(watcher.try_recv().is_none(), "an event of a write that was refused");
    disk.heal();
    let second = store.set("g", "k", "after")?;
    assert_eq!(second.get(), first.get() + 1);
    assert_eq!(watcher.try_recv().transpose()?.map(|event| event.revision()), Some(second));
    assert_eq!(store.check()?.problems, Vec::<String>::new());
    Ok(())
}

/// A client that does not know what became of its batch sends it again, to the store as it was opened again.
#[test]
fn a_batch_whose_outcome_is_unknown_is_repeated_under_its_id_and_done_once() -> Result<(), Fault> {
    let batch = || Batch::new().id("client", 1).set("g", "k", "1").set("g", "l", "1");
    let mut unknown = 0;
    for what in [What::Write, What::Sync, What::Any] {
        for nth in 1..=12 {
            let folder = scratch()?;
            let disk = Disk::watch(folder.path())?;
            let open = || Store::open(folder.path().join(FILE));
            let store = open()?;
            let base = store.set("g", "before", "1")?;
            disk.fail(DiskFault { what, nth, sticky: false });
            let first = store.apply(batch());
            disk.heal();
            // What it says to a close after that is its own affair: it can be opened.
            drop(store.close());
            let store = open()?;
            let again = store.apply(batch())?;
            unknown +=
                usize::from(first.as_ref().is_err_and(|error| error.kind() == ErrorKind::UnknownOutcome));
            assert!(first.is_err() || again.repeated, "{what:?} {nth}");
            let events = store.history(Filter::everything(), base).collect::<Result<Vec<_>, _>>()?;
            assert_eq!(events.len(), 2, "{what:?} {nth}: {first:?} {again:?}");
            assert!(store.apply(batch())?.repeated);
        }
    }
    assert!(unknown > 0, "no outcome was unknown");
    Ok(())
}
