//! Members that are full: values are refused before the members refuse everything. Run on a cluster whose members take
//! little: `scripts/cluster --quota 24000000 cargo test --all-features --test cluster room`.

use std::time::{Duration, Instant};

use watchkeep::{Compaction, ErrorKind, Store};
use watchkeep_testkit::surface::{Fault, patient};

use crate::machines::{etcdctl, place, prefix};

const LIMIT: Duration = Duration::from_secs(60);
/// How large a value is.
const VALUE: usize = 60_000;
/// How many of them are deleted one by one.
const DELETED: u32 = 20;
/// How many keys a store has in its cluster at the most once it is empty, each with a line after it.
const MOST: usize = 40;
/// More than this is a quota that no test fills.
const SMALL: u64 = 64 << 20;

/// Sets values until they are refused; how many were taken.
fn fill(store: &Store) -> Result<u32, Fault> {
    for number in 0.. {
        match store.set("full", &format!("{number:06}"), vec![b'x'; VALUE]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Full => {
                assert!(error.to_string().contains("WATCHKEEP_ETCD_QUOTA"), "{error}");
                return Ok(number);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(0)
}

#[test]
fn a_cluster_without_room_takes_deletes_and_then_values_again() -> Result<(), Fault> {
    let quota: u64 = std::env::var("WATCHKEEP_ETCD_QUOTA")?.parse()?;
    assert!(quota <= SMALL, "run this with members that take little");
    let place = place()?;
    let store = patient().compaction(Compaction::Own).connect(&place)?;
    store.set("kept", "one", "x")?;
    store.set("kept", "two", "x")?;
    let taken = fill(&store)?;
    assert!(u64::from(taken) * VALUE as u64 > quota / 2, "only {taken} were taken");
    // Others find the same, and deleting works for all.
    let other = patient().connect(&place)?;
    assert!(store.set("full", "small", "x").is_err_and(|error| error.kind() == ErrorKind::Full));
    for number in 0..DELETED {
        let by = if number % 2 == 0 { &store } else { &other };
        assert!(by.delete("full", &format!("{number:06}"))?);
    }
    // Each takes about a kilobyte of what is left: all of them, one by one, take more than such small members have.
    assert_eq!(other.delete_group("full")?, u64::from(taken - DELETED));
    assert_eq!(store.count("full")?, 0);
    // A deleted group is swept page by page after its commit. The last commit before a compaction stays, and what comes
    // after it.
    let until = Instant::now() + LIMIT;
    while etcdctl(&["get", "--prefix", "--keys-only", &prefix(&place)?])?.lines().count() > MOST {
        assert!(Instant::now() < until, "it is not swept");
    }
    assert!(other.delete("kept", "one")? && other.delete("kept", "two")?);
    // What was deleted is there until it is compacted.
    assert!(store.set("full", "small", "x").is_err_and(|error| error.kind() == ErrorKind::Full));
    store.compact(store.last_revision()?)?;
    assert_eq!(etcdctl(&["alarm", "list"])?, "", "no member was ever without any room");
    let until = Instant::now() + LIMIT;
    for store in [&store, &other] {
        while let Err(error) = store.set("full", "small", "x") {
            assert_eq!(error.kind(), ErrorKind::Full);
            assert!(Instant::now() < until, "it does not end by itself: {error}");
            // A moment for the chores.
            drop(store.watch("nobody", "*").recv_timeout(Duration::from_millis(200)));
        }
    }
    Ok(())
}
