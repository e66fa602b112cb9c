//! Several processes on one store, as from several machines: here, several stores of one process that share nothing but
//! the cluster.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::Duration;

use watchkeep::{ErrorKind, Event, Filter, Options, Quota, SetOptions, WatchOptions};
use watchkeep_testkit::surface::{CLUSTER, Fault, patient};

const LIMIT: Duration = Duration::from_secs(60);

/// Who has everybody's history, to compact it.
pub(crate) static HISTORY: Mutex<()> = Mutex::new(());

/// A place in the cluster where nothing is yet.
pub(crate) fn place() -> Result<String, Fault> {
    static PLACES: AtomicU64 = AtomicU64::new(0);
    let members = std::env::var(CLUSTER).map_err(|_| "no cluster: run this by scripts/cluster")?;
    let number = PLACES.fetch_add(1, Ordering::Relaxed);
    Ok(format!("etcd://{members}/machines/{}-{number}", std::process::id()))
}

/// What an operator does with all the members; what it prints.
pub(crate) fn etcdctl(what: &[&str]) -> Result<String, Fault> {
    let (members, version) = (std::env::var(CLUSTER)?, ("ETCDCTL_API", "3"));
    let done = Command::new("etcdctl").args(["--endpoints", &members]).args(what).envs([version]).output()?;
    match done.status.success() {
        true => Ok(String::from_utf8(done.stdout)?),
        false => Err(format!("etcdctl {what:?}: {}", String::from_utf8_lossy(&done.stderr)).into()),
    }
}

/// What all keys of a place begin with.
pub(crate) fn prefix(place: &str) -> Result<String, Fault> {
    let (_, prefix) =
        place.rsplit_once("//").and_then(|(_, rest)| rest.split_once('/')).ok_or("no prefix")?;
    Ok(format!("{prefix}/"))
}

/// Removes all that is at a place.
fn remove(place: &str) -> Result<(), Fault> {
    etcdctl(&["del", "--prefix", &prefix(place)?]).map(drop)
}

pub(crate) fn next(watcher: &mut watchkeep::Watcher) -> Result<Event, Fault> {
    Ok(watcher.recv_timeout(LIMIT).ok_or("no event within the limit")??)
}

#[test]
fn a_store_that_is_made_where_another_one_was_hears_of_its_first_commit() -> Result<(), Fault> {
    let place = place()?;
    patient().connect(&place)?.set("g", "k", "of the one before")?;
    remove(&place)?;
    // Both know it as it was made, and the watch goes on from there.
    let (here, there) = (patient().connect(&place)?, patient().connect(&place)?);
    let mut watcher = there.watch("g", "*");
    let revision = here.set("g", "k", "new")?;
    let event = next(&mut watcher)?;
    assert_eq!((event.revision(), event.value()), (revision, Some(&"new".into())));
    Ok(())
}

#[test]
fn what_one_machine_commits_another_sees_in_the_same_order() -> Result<(), Fault> {
    let place = place()?;
    let (here, there) = (patient().connect(&place)?, patient().connect(&place)?);
    assert_eq!(here.id(), there.id());
    let (mut watcher, start) = (there.watch("g", "*"), Barrier::new(2));
    std::thread::scope(|scope| -> Result<(), Fault> {
        let both = [("here", &here), ("there", &there)].map(|(name, store)| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                (0..50).map(|number| store.set("g", &format!("{name}-{number}"), "x")).collect::<Vec<_>>()
            })
        });
        let mut given = Vec::new();
        for writer in both {
            for revision in writer.join().map_err(|_| "a writer panicked")? {
                given.push(revision?);
            }
        }
        given.sort_unstable();
        let told = (0..given.len()).map(|_| next(&mut watcher).map(|event| event.revision()));
        assert_eq!(told.collect::<Result<Vec<_>, _>>()?, given);
        Ok(())
    })?;
    // From the beginning as well, and through a store that was not there.
    let late = patient().connect(&place)?;
    let all = late
        .history(Filter::everything(), watchkeep::Revision::ZERO)
        .collect::<watchkeep::Result<Vec<_>>>()?;
    assert_eq!(all.len(), 100);
    assert!(all.is_sorted_by_key(|event| event.revision()));
    Ok(())
}

#[test]
fn of_machines_that_compare_and_set_one_wins_each_round() -> Result<(), Fault> {
    let place = place()?;
    let stores = (0..3).map(|_| patient().connect(&place)).collect::<watchkeep::Result<Vec<_>>>()?;
    for round in 0..10 {
        let key = format!("k{round}");
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = stores
                .iter()
                .map(|store| scope.spawn(|| store.set_with("g", &key, "mine", SetOptions::new().if_absent())))
                .collect();
            all.into_iter().filter_map(|one| one.join().ok()).collect()
        });
        let won: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        assert_eq!((outcomes.len(), won.len()), (3, 1), "{outcomes:?}");
        for lost in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert_eq!(lost.kind(), ErrorKind::Conflict);
            assert_eq!(lost.current_revision().as_ref(), won.first().copied());
        }
    }
    Ok(())
}

#[test]
fn counters_of_a_quota_hold_across_machines() -> Result<(), Fault> {
    let place = place()?;
    let (here, there) = (patient().connect(&place)?, patient().connect(&place)?);
    let quota = Quota { max_keys: 30, ..Quota::default() };
    let tenant = here.scoped("t")?;
    tenant.set("before", "k", "x")?;
    let tenant = tenant.with_quota(quota)?;
    let (mine, theirs) = (tenant, there.scoped("t")?);
    let refused = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for (name, store) in [("a", &mine), ("b", &theirs)] {
            let refused = &refused;
            scope.spawn(move || {
                for number in 0..20 {
                    match store.set("g", &format!("{name}{number}"), "x") {
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::QuotaExceeded => {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(mine.count("g")? + mine.count("before")?, 30);
    assert_eq!(refused.load(Ordering::Relaxed), 11);
    mine.delete_group("g")?;
    theirs.set("g", "again", "x")?;
    Ok(())
}

#[test]
fn a_store_that_is_removed_and_made_anew_ends_every_watch_and_is_never_taken_for_the_old_one()
-> Result<(), Fault> {
    let place = place()?;
    let store = patient().connect(&place)?;
    let cursor = store.cursor(store.set("g", "k", "old")?);
    let mut watcher = store.watch("g", "*");
    remove(&place)?;
    let other = patient().connect(&place)?;
    other.set("g", "k", "new")?;
    let ended = watcher.recv_timeout(LIMIT).ok_or("the watch does not end")?;
    assert_eq!(ended.expect_err("an event of another store").kind(), ErrorKind::Replaced);
    assert_eq!(
        store.set("g", "k", "lost").expect_err("a write into another store").kind(),
        ErrorKind::Replaced
    );
    let reads = [store.get("g", "k").err(), store.last_revision().err(), store.stats().err()];
    for read in reads {
        assert_eq!(read.ok_or("a read of another store")?.kind(), ErrorKind::Replaced);
    }
    let refused = other.watch_with(Filter::everything(), WatchOptions::new().after_cursor(cursor));
    assert_eq!(refused.err().map(|error| error.kind()), Some(ErrorKind::ForeignCursor));
    Ok(())
}

#[test]
fn compaction_by_others_takes_nothing_from_an_idle_store() -> Result<(), Fault> {
    let _alone = HISTORY.lock().unwrap_or_else(PoisonError::into_inner);
    let place = place()?;
    let store = patient().connect(&place)?;
    let first = store.cursor(store.set("g", "k", "1")?);
    store.set("g", "k", "2")?;
    // Its value stands in its entry, which can be read no more as of then.
    let last = store.cursor(store.set("g", "k", vec![b'3'; 10_000])?);
    let busy = patient().connect(&self::place()?)?;
    let mut at = 0;
    for number in 0..20 {
        at = busy.set("g", "k", number.to_string())?.get() / 4_096;
    }
    etcdctl(&["compact", &at.to_string()])?;
    // Whoever has the last event has lost nothing; whoever has not is told so, and goes on.
    let late = patient().connect(&place)?;
    let after = |cursor| late.watch_with(Filter::everything(), WatchOptions::new().after_cursor(cursor));
    let (mut at_end, mut behind) = (after(last)?, after(first)?);
    store.set("g", "k", "4")?;
    let value = |watcher: &mut watchkeep::Watcher| -> Result<String, Fault> {
        Ok(next(watcher)?.value().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default())
    };
    assert_eq!(value(&mut at_end)?, "4");
    let lost = behind.recv_timeout(LIMIT).ok_or("nothing comes")?.expect_err("an event after a hole");
    assert_eq!(lost.kind(), ErrorKind::Lagged);
    assert_eq!(value(&mut behind)?, "4");
    assert_eq!(late.get("g", "k")?.as_deref(), Some(&b"4"[..]));
    Ok(())
}

#[test]
fn what_is_due_goes_once_whoever_notices() -> Result<(), Fault> {
    let place = place()?;
    let stores = (0..3).map(|_| patient().connect(&place)).collect::<watchkeep::Result<Vec<_>>>()?;
    let store = stores.first().ok_or("no store")?;
    let mut watcher = store.watch("g", "*");
    for number in 0..5 {
        store.set_with_ttl("g", &format!("k{number}"), "x", Duration::from_millis(300))?;
    }
    let kinds =
        (0..10).map(|_| next(&mut watcher).map(|event| event.kind())).collect::<Result<Vec<_>, _>>()?;
    assert_eq!(kinds.iter().filter(|kind| **kind == watchkeep::Kind::Expire).count(), 5, "{kinds:?}");
    assert_eq!(store.count("g")?, 0);
    assert!(store.watch("g", "*").try_recv().is_none());
    Ok(())
}

#[test]
fn values_of_every_size_come_whole_and_what_is_too_large_is_refused() -> Result<(), Fault> {
    let place = place()?;
    let (here, there) = (patient().connect(&place)?, patient().connect(&place)?);
    let mut watcher = there.watch("g", "*");
    for size in [0, 1, 4_096, 4_097, 500_000] {
        let value = vec![b'x'; size];
        here.set("g", "k", value.clone())?;
        assert_eq!(there.get("g", "k")?.as_deref(), Some(&value[..]));
        assert_eq!(next(&mut watcher)?.value().map(|value| value.len()), Some(size));
    }
    let refused = here.set("g", "k", vec![b'x'; 2_000_000]).expect_err("it is larger than a request may be");
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    let many = here.transaction(|tx| (0..200).try_for_each(|number| tx.set("g", &number.to_string(), "x")));
    assert_eq!(many.expect_err("it has more operations than a request may").kind(), ErrorKind::TooLarge);
    assert_eq!(there.count("g")?, 1, "nothing of it is there");
    let again_and_again = here.transaction(|tx| (0..5_000).try_for_each(|_| tx.set("g", "k2", "x")));
    assert_eq!(again_and_again.expect_err("a commit has 4,096 events").kind(), ErrorKind::TooLarge);
    // What nobody's thread waits for is refused as well, and holds up nobody behind it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (large, small) = runtime.block_on(async {
        let store = here.to_async();
        let large = store.set("g", "large", vec![b'x'; 2_000_000]);
        let small = store.set("g", "small", "x");
        (large.await, small.await)
    });
    assert_eq!(large.expect_err("it is larger than a request may be").kind(), ErrorKind::TooLarge);
    small?;
    assert_eq!(next(&mut watcher)?.key(), Some("small"));
    // Several values of one commit, of which the cluster keeps the last.
    here.transaction(|tx| {
        tx.set("g", "twice", vec![b'a'; 10_000])?;
        tx.set("g", "twice", vec![b'b'; 10_000])
    })?;
    for expected in [b'a', b'b'] {
        let value = next(&mut watcher)?.value().ok_or("no value")?.clone();
        assert!(value.len() == 10_000 && value.iter().all(|byte| *byte == expected));
    }
    Ok(())
}

#[test]
fn an_address_without_a_store_is_not_made_where_nothing_may_be() -> Result<(), Fault> {
    let missing = Options::new().create(false).connect(&place()?);
    assert_eq!(missing.err().map(|error| error.kind()), Some(ErrorKind::NotFound));
    let nobody = Options::new().busy_timeout(Duration::from_millis(300)).connect("etcd://127.0.0.1:1/app");
    assert_eq!(nobody.err().map(|error| error.kind()), Some(ErrorKind::Unavailable));
    Ok(())
}

#[test]
fn a_store_that_is_opened_while_others_write_works_at_once() -> Result<(), Fault> {
    let place = place()?;
    let (busy, done) = (patient().connect(&place)?, std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| -> Result<(), Fault> {
        let writer = scope.spawn(|| {
            (0..)
                .take_while(|_| !done.load(Ordering::Relaxed))
                .try_for_each(|number: u64| busy.set("busy", "k", number.to_string()).map(drop))
        });
        let opened = (0..10).try_for_each(|number: u64| -> Result<(), Fault> {
            let store = patient().connect(&place)?;
            let mut watcher = store.watch("g", "*");
            store.set("g", &number.to_string(), "x")?;
            assert_eq!(next(&mut watcher)?.key(), Some(number.to_string().as_str()));
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| "the writer panicked")??;
        opened
    })
}

#[test]
fn nothing_that_another_machine_changed_counts_as_unchanged() -> Result<(), Fault> {
    let place = place()?;
    let (here, there) = (patient().connect(&place)?, patient().connect(&place)?);
    for round in 0..20 {
        let since = here.cursor(here.last_revision()?);
        there.set("g", "k", round.to_string())?;
        let unchanged = watchkeep::Condition::unchanged(Filter::group("g"), since);
        let refused = here.apply(watchkeep::Batch::new().require(unchanged).set("h", "k", "x"));
        assert_eq!(refused.expect_err("something changed").kind(), ErrorKind::Conflict, "round {round}");
    }
    Ok(())
}

/// What a process remembers of rows is tried first, and costs another try where somebody else has changed them.
#[test]
fn a_write_on_what_others_changed_meanwhile_is_no_conflict() -> Result<(), Fault> {
    let place = place()?;
    let impatient = Options::new().busy_timeout(Duration::ZERO);
    let (here, there) = (impatient.connect(&place)?, patient().connect(&place)?);
    let mut heard = here.watch("*", "*");
    for round in 0..3 {
        let group = format!("g{round}");
        // That nothing is there is remembered as well.
        assert_eq!(here.get(&group, "a")?, None);
        there.set(&group, "a", "theirs")?;
        next(&mut heard)?;
        here.set(&group, "b", "ours")?;
        next(&mut heard)?;
        there.delete_group(&group)?;
        here.set(&group, "b", "ours again")?;
        assert_eq!(here.count(&group)?, 1);
        next(&mut heard)?;
        next(&mut heard)?;
    }
    let quota = Quota { max_keys: 100, ..Quota::default() };
    let (ours, theirs) = (here.scoped("t")?.with_quota(quota)?, there.scoped("t")?);
    for round in 0..10 {
        ours.set("g", &format!("a{round}"), "x")?;
        theirs.set("g", &format!("b{round}"), "x")?;
    }
    assert_eq!(ours.count("g")?, 20);
    Ok(())
}
