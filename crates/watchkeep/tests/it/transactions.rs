//! Transactions: all or nothing, with their own writes in sight, and nobody else's inside.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::support::futures::block_on;
use crate::support::needs::needs;
use crate::support::numbers::number;
use crate::support::{Anywhere as _, LIMIT, Result, anywhere, line, lines, revisions, take, within_limit};
use watchkeep::{
    DeleteOptions, Error, ErrorKind, Filter, ListOptions, Options, Revision, SetOptions, Store, Transaction,
    WatchOptions,
};

fn kind<T>(result: std::result::Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn keys(store: &Store, group: &str) -> Result<Vec<String>> {
    Ok(store
        .entries(group)
        .map(|entry| entry.map(|entry| entry.key))
        .collect::<std::result::Result<_, _>>()?)
}

#[test]
fn a_transaction_commits_all_of_it_with_consecutive_revisions_that_name_the_last() -> Result {
    let store = anywhere()?;
    store.set("b", "old", "v")?;
    let mut watcher = store.watch("*", "*");
    let done = store.transaction(|tx| {
        tx.set("a", "k", "1")?;
        tx.set("c", "k", "2")?;
        tx.set("a", "k", "3")?;
        assert!(tx.delete("b", "old")?);
        assert!(!tx.delete("b", "nothing")?);
        assert_eq!(tx.delete_group("c")?, 1);
        Ok("value")
    })?;
    assert_eq!((done.value, number(done.revision)), ("value", 6));
    let events = take(&mut watcher, 5)?;
    assert_eq!(
        lines(&events),
        ["2 set a/k=1", "3 set c/k=2", "4 set a/k=3", "5 delete b/old", "6 delete_group c"]
    );
    assert!(
        events
            .iter()
            .all(|event| event.commit() == done.revision && event.timestamp() == events[0].timestamp())
    );
    let entry = store.entry("a", "k")?.ok_or("gone")?;
    assert_eq!((number(entry.revision), number(entry.created)), (4, 2));
    Ok(())
}

#[test]
fn an_error_rolls_back_everything_and_is_returned_as_it_is() -> Result {
    let store = anywhere()?;
    store.set("g", "k", "before")?;
    let mut watcher = store.watch("*", "*");
    let refused = store.transaction(|tx| {
        tx.set("g", "k", "after")?;
        tx.set("h", "new", "v")?;
        tx.delete_group("g")?;
        Err::<(), _>(Error::abort("not enough money"))
    });
    let error = refused.err().ok_or("committed")?;
    assert_eq!(error.kind(), ErrorKind::Aborted);
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    assert_eq!(cause.as_deref(), Some("not enough money"));
    assert_eq!(store.get("g", "k")?.ok_or("gone")?, "before");
    assert!(!store.contains("h", "new")? && watcher.try_recv().is_none());
    assert_eq!(number(store.set("g", "next", "v")?), 2, "no revision was used");
    assert!(store.check()?.is_ok());
    Ok(())
}

#[test]
fn a_panic_rolls_back_goes_on_unwinding_and_leaves_the_store_well() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let mut watcher = store.watch("*", "*");
        for _ in 0..3 {
            let unwound = catch_unwind(AssertUnwindSafe(|| {
                store.transaction(|tx| {
                    tx.set("g", "k", "v")?;
                    std::panic::resume_unwind(Box::new("on purpose")) as watchkeep::Result<()>
                })
            }));
            let panic = unwound.err().ok_or("it did not unwind")?;
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
            assert!(!store.contains("g", "k")?);
            // This thread is not inside any more.
            store.transaction(|tx| tx.set("g", "other", "v"))?;
        }
        let other = store.clone();
        let elsewhere =
            thread::spawn(move || other.set("g", "thread", "v").map_err(|error| error.to_string()));
        elsewhere.join().map_err(|_| "panicked")??;
        assert_eq!(revisions(&take(&mut watcher, 4)?), [1, 2, 3, 4]);
        assert!(watcher.try_recv().is_none());
        Ok(())
    })
}

#[test]
fn a_panic_loses_no_write_that_was_queued_behind_it() -> Result {
    within_limit(|| {
        let store = Options::new().busy_timeout(LIMIT * 2).anywhere()?;
        for _ in 0..20 {
            let (inside, entered) = mpsc::channel();
            let queued = store.to_async();
            let before = store.count("g")?;
            thread::scope(|scope| -> Result {
                let panicking = scope.spawn(|| {
                    store.transaction(|tx| {
                        tx.set("never", "k", "v")?;
                        inside.send(()).ok();
                        // Some queue up without waiting, some with.
                        thread::scope(|scope| {
                            scope.spawn(|| {
                                for number in 0..3 {
                                    drop(queued.set("g", &format!("{before}-a{number}"), "v"));
                                }
                            });
                        });
                        std::panic::resume_unwind(Box::new("on purpose")) as watchkeep::Result<()>
                    })
                });
                entered.recv_timeout(LIMIT)?;
                let writers: Vec<_> = (0..4)
                    .map(|number| {
                        let store = &store;
                        scope.spawn(move || store.set("g", &format!("{before}-s{number}"), "v").is_ok())
                    })
                    .collect();
                assert!(panicking.join().is_err());
                for writer in writers {
                    assert!(writer.join().map_err(|_| "panicked")?);
                }
                Ok(())
            })?;
            crate::support::eventually("all seven", || Ok(store.count("g")? == before + 7))?;
            assert_eq!(store.count("never")?, 0);
        }
        Ok(())
    })
}

#[test]
fn any_other_write_from_inside_is_refused_as_nested_through_whatever_handle() -> Result {
    within_limit(|| {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("app.db");
        let store = Options::new().busy_timeout(Duration::from_secs(3_600)).open(&path)?;
        let link = folder.path().join("link.db");
        std::os::unix::fs::symlink(&path, &link)?;
        std::fs::create_dir(folder.path().join("sub"))?;
        let (clone, scoped) = (store.clone(), store.scoped("ns")?);
        let again = Store::open(&path)?;
        let linked = Store::open(&link)?;
        let around = Store::open(folder.path().join("sub/../app.db"))?;
        let other = anywhere()?;
        let upgraded = store.downgrade().upgrade().ok_or("gone")?;
        store.transaction(|tx| {
            tx.set("g", "k", "inside")?;
            let handles = [&store, &clone, &scoped, &again, &linked, &around, &upgraded];
            for (number, handle) in handles.into_iter().enumerate() {
                let calls = [
                    ("set", kind(handle.set("g", "k", "v"))),
                    ("set_with_ttl", kind(handle.set_with_ttl("g", "k", "v", LIMIT))),
                    ("delete", kind(handle.delete("g", "k"))),
                    ("delete_group", kind(handle.delete_group("g"))),
                    ("delete_prefix", kind(handle.delete_prefix("g"))),
                    ("touch", kind(handle.touch("g", "k", LIMIT))),
                    ("persist", kind(handle.persist("g", "k"))),
                    ("purge_expired", kind(handle.purge_expired())),
                    ("transaction", kind(handle.transaction(|tx| tx.set("g", "k", "v")))),
                    ("transaction that only reads", kind(handle.transaction(|tx| tx.get("g", "k")))),
                ];
                for (call, kind) in calls {
                    assert_eq!(kind, Some(ErrorKind::Nested), "handle {number}: {call}");
                }
            }
            for handle in [&store, &again] {
                assert_eq!(kind(handle.compact(Revision::new(9))), Some(ErrorKind::Nested));
            }
            // Another file is another matter.
            other.set("g", "k", "v")?;
            other.transaction(|tx| {
                tx.set("g", "l", "v")?;
                assert_eq!(kind(store.set("g", "k", "v")), Some(ErrorKind::Nested));
                Ok(())
            })?;
            Ok(())
        })?;
        assert_eq!(store.get("g", "k")?.ok_or("gone")?, "inside");
        again.set("g", "k", "after")?;
        assert_eq!((store.last_revision()?.get(), other.count("g")?), (2, 2));
        Ok(())
    })
}

#[test]
fn an_asynchronous_write_from_inside_is_refused_as_nested_too() -> Result {
    within_limit(|| {
        let store = Options::new().busy_timeout(LIMIT * 2).anywhere()?;
        let asynchronous = store.to_async();
        // The store's own thread has something to do that must wait for this transaction.
        store.set_with_ttl("g", "timed", "v", Duration::from_millis(1))?;
        for _ in 0..5 {
            let done = store.transaction(|tx| {
                tx.set_with_ttl("g", "k", "inside", Duration::from_millis(1))?;
                // Whoever waits for it here would wait for himself.
                let kinds = [
                    kind(block_on(asynchronous.set("g", "k", "outside"))),
                    kind(block_on(asynchronous.delete("g", "k"))),
                    kind(block_on(asynchronous.delete_group("g"))),
                    kind(block_on(asynchronous.transaction(|tx| tx.set("g", "k", "outside")))),
                ];
                assert_eq!(block_on(asynchronous.get("g", "never"))?, None);
                Ok(kinds)
            })?;
            assert_eq!(done.value, [Some(ErrorKind::Nested); 4]);
        }
        Ok(())
    })
}

#[test]
fn reads_inside_see_what_was_written_reads_outside_do_not() -> Result {
    let store = anywhere()?;
    store.set("g", "a", "old")?;
    store.set("g", "b", "old")?;
    let snapshot = store.snapshot()?;
    store.transaction(|tx| {
        tx.set("g", "a", "new")?;
        tx.delete("g", "b")?;
        tx.set_with_ttl("h", "c", "new", LIMIT)?;
        assert_eq!(tx.get("g", "a")?.as_deref(), Some(&b"new"[..]));
        assert_eq!((tx.contains("g", "b")?, tx.count("g")?, tx.count_all("")?), (false, 1, 2));
        assert!(tx.remaining_ttl("h", "c")?.is_some() && tx.entry("h", "c")?.is_some());
        assert_eq!(tx.groups("").collect::<watchkeep::Result<Vec<_>>>()?, ["g", "h"]);
        assert_eq!(tx.page("g", ListOptions::new())?.entries.len(), 1);
        assert_eq!(tx.entries("g").count(), 1);
        // The handle reads what is committed.
        assert_eq!(store.get("g", "a")?.as_deref(), Some(&b"old"[..]));
        assert_eq!((store.count("g")?, store.count_all("")?), (2, 2));
        assert_eq!(store.entries("g").count(), 2);
        assert_eq!(snapshot.get("g", "a")?.as_deref(), Some(&b"old"[..]));
        Ok(())
    })?;
    assert_eq!((store.count("g")?, store.count("h")?, snapshot.count("g")?), (1, 1, 2));
    Ok(())
}

#[test]
fn a_group_is_counted_at_each_moment_of_a_transaction_and_as_before_when_that_fails() -> Result {
    let store = anywhere()?;
    store.set("g", "0", "v")?;
    store.set("h", "0", "v")?;
    let counts = |tx: &Transaction<'_>| {
        ["g", "h", ""].map(|group| if group.is_empty() { tx.count_all("") } else { tx.count(group) }.ok())
    };
    let writes = |tx: &Transaction<'_>| -> watchkeep::Result<()> {
        (1..4).try_for_each(|key| tx.set("g", &key.to_string(), "value"))?;
        assert_eq!(counts(tx), [Some(4), Some(1), Some(5)]);
        tx.set("h", "1", "v")?;
        tx.set("g", "4", "v")?;
        tx.set("g", "4", "another")?;
        assert_eq!(counts(tx), [Some(5), Some(2), Some(7)]);
        tx.set_with("g", "4", "v", SetOptions::new().if_absent()).expect_err("it is there");
        (0..5).try_for_each(|key| tx.delete("g", &key.to_string()).map(drop))?;
        assert_eq!((counts(tx), tx.groups("").count()), ([Some(0), Some(2), Some(2)], 1));
        tx.set("g", "5", "v")?;
        tx.set("g", "6", "v")?;
        assert_eq!(tx.delete_group("g")?, 2);
        (0..3).try_for_each(|key| tx.set("g", &key.to_string(), "v"))?;
        assert_eq!(counts(tx), [Some(3), Some(2), Some(5)]);
        Ok(())
    };
    let failed: watchkeep::Result<_> = store.transaction(|tx| {
        writes(tx)?;
        Err::<(), _>(Error::abort("after all"))
    });
    assert_eq!(kind(failed), Some(ErrorKind::Aborted));
    assert_eq!((store.count("g")?, store.count("h")?), (1, 1));
    store.set("g", "7", "v")?;
    assert_eq!(store.delete_group("g")?, 2);
    store.set("g", "0", "v")?;
    store.transaction(writes)?;
    assert_eq!((store.count("g")?, store.count("h")?), (3, 2));
    let report = store.check()?;
    assert!(report.is_ok(), "{report:?}");
    Ok(())
}

#[test]
fn what_does_not_write_may_be_done_inside_with_the_handle() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        store.set("g", "k", "v")?;
        let mut kept = Vec::new();
        store.transaction(|tx| {
            tx.set("g", "l", "v")?;
            let mut watcher = store.watch("*", "*");
            assert!(watcher.try_recv().is_none());
            assert_eq!(store.history(Filter::everything(), Revision::ZERO).count(), 1);
            assert!(store.check()?.is_ok() && store.snapshot()?.contains("g", "k")?);
            assert_eq!(store.stats()?.entries, 1);
            store.on_change(|_| {}).detach();
            kept.push(watcher);
            Ok(())
        })?;
        let mut watcher = kept.pop().ok_or("none")?;
        assert_eq!(line(&crate::support::next(&mut watcher)?), "2 set g/l=v");
        Ok(())
    })
}

#[test]
fn an_empty_transaction_announces_nothing_and_has_the_store_s_revision() -> Result {
    let store = anywhere()?;
    let mut watcher = store.watch("*", "*");
    assert_eq!(store.transaction(|_| Ok(7))?.revision, Revision::ZERO);
    let last = store.set("g", "k", "v")?;
    assert_eq!(store.transaction(|tx| tx.get("g", "k"))?.revision, last);
    assert_eq!(store.transaction(|tx| tx.delete("g", "nothing"))?.revision, last);
    assert_eq!(store.transaction(|tx| tx.persist("g", "k"))?.revision, last);
    assert_eq!(revisions(&take(&mut watcher, 1)?), [1]);
    assert!(watcher.try_recv().is_none());
    Ok(())
}

#[test]
fn a_transaction_of_which_every_condition_fails_may_still_commit_as_nothing() -> Result {
    let store = anywhere()?;
    let revision = store.set("g", "k", "v")?;
    let done = store.transaction(|tx| {
        let absent = tx.set_with("g", "k", "w", SetOptions::new().if_absent());
        let wrong = tx.delete_with("g", "k", DeleteOptions::new().if_revision(Revision::new(99)));
        let gone = tx.set_with("g", "none", "w", SetOptions::new().if_revision(revision));
        Ok([absent.err(), wrong.err(), gone.err()]
            .map(|error| error.and_then(|error| error.current_revision())))
    })?;
    assert_eq!(done.value, [Some(revision), Some(revision), None]);
    assert_eq!((done.revision, store.get("g", "k")?.ok_or("gone")?.as_str()), (revision, Some("v")));
    Ok(())
}

#[test]
fn an_operation_that_was_refused_leaves_the_rest_of_the_transaction_as_it_is() -> Result {
    let store = anywhere()?;
    store.transaction(|tx| {
        tx.set("g", "before", "v")?;
        assert_eq!(kind(tx.set("g", &"x".repeat(1025), "v")), Some(ErrorKind::TooLarge));
        assert_eq!(kind(tx.set_with_ttl("g", "k", "v", Duration::ZERO)), Some(ErrorKind::InvalidArgument));
        tx.set("g", "after", "v")
    })?;
    assert_eq!(keys(&store, "g")?, ["after", "before"]);
    assert!(store.check()?.is_ok());
    Ok(())
}

#[test]
fn one_key_written_often_in_one_transaction_counts_once() -> Result {
    let store = anywhere()?;
    let tenant = store.scoped("t")?;
    tenant.transaction(|tx| {
        for round in 0..10 {
            tx.set("g", "k", "x".repeat(round))?;
            tx.delete("g", "k")?;
            tx.set("g", "k", "x".repeat(round))?;
            tx.delete_group("g")?;
            tx.set("g", "k", "x".repeat(round))?;
            tx.set("g", "l", "v")?;
        }
        tx.delete("g", "l").map(drop)
    })?;
    assert_eq!((tenant.count("g")?, tenant.stats()?.bytes), (1, 10));
    let report = store.check()?;
    assert!(report.is_ok(), "{report:?}");
    Ok(())
}

#[test]
fn two_transactions_never_interleave() -> Result {
    let store = anywhere()?;
    thread::scope(|scope| -> Result {
        let counters: Vec<_> = (0..6)
            .map(|_| {
                let store = &store;
                scope.spawn(move || -> Result {
                    for _ in 0..50 {
                        store.transaction(|tx| {
                            let read = |key: &str| -> watchkeep::Result<u64> {
                                Ok(tx
                                    .get("g", key)?
                                    .and_then(|value| value.as_str()?.parse().ok())
                                    .unwrap_or(0))
                            };
                            let (one, two) = (read("one")?, read("two")?);
                            assert_eq!(one, two);
                            tx.set("g", "one", (one + 1).to_string())?;
                            thread::yield_now();
                            tx.set("g", "two", (two + 1).to_string())
                        })?;
                    }
                    Ok(())
                })
            })
            .collect();
        counters.into_iter().try_for_each(|counter| counter.join().map_err(|_| "panicked")?)
    })?;
    assert_eq!(store.get("g", "two")?.ok_or("gone")?, "300");
    Ok(())
}

#[test]
fn a_scoped_transaction_stays_in_its_namespace_and_bears_its_origin() -> Result {
    let store = anywhere()?;
    store.set("g", "k", "outside")?;
    let mut watcher = store.watch("*", "*");
    let tenant = store.scoped("t")?.with_origin("me");
    tenant.transaction(|tx| {
        assert!(!tx.contains("g", "k")? && tx.groups("").next().is_none());
        tx.set("g", "k", "inside")?;
        assert_eq!(tx.delete_prefix("")?, 1);
        tx.set("g", "l", "inside")
    })?;
    let events = take(&mut watcher, 3)?;
    assert_eq!(lines(&events), ["2 set t:g/k=inside", "3 delete_group t:g", "4 set t:g/l=inside"]);
    assert!(events.iter().all(|event| event.origin() == Some("me")));
    assert_eq!(store.get("g", "k")?.ok_or("gone")?, "outside");
    Ok(())
}

#[test]
fn a_large_transaction_is_whole_for_every_reader() -> Result {
    needs!(LargeTransactions);
    let store = anywhere()?;
    let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().buffer(100_000))?;
    let done = store.transaction(|tx| {
        (0..4_097).try_for_each(|n| tx.set(&format!("g{}", n % 7), &n.to_string(), vec![b'x'; 600]))
    })?;
    let events = take(&mut watcher, 4_097)?;
    assert_eq!(revisions(&events), (1..=4_097).collect::<Vec<_>>());
    assert!(events.iter().all(|event| event.commit() == done.revision));
    assert_eq!(store.count_all("")?, 4_097);
    Ok(())
}

#[test]
fn another_handle_that_is_opened_and_dropped_inside_closes_behind_itself() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let keep = Store::open(&path)?;
    keep.set("g", "k", "v")?;
    let descriptors = || -> Result<usize> {
        Ok(std::fs::read_dir("/proc/self/fd")?
            .filter_map(std::result::Result::ok)
            .filter_map(|fd| std::fs::read_link(fd.path()).ok())
            .filter(|file| file.starts_with(folder.path()))
            .count())
    };
    let before = descriptors()?;
    for _ in 0..20 {
        keep.transaction(|tx| {
            let value = Store::open(&path)?.get("g", "k")?;
            tx.set("g", "copy", value.unwrap_or_default())
        })?;
    }
    // Some connections more may be in the pool, but not the four descriptors of each store that was opened.
    let after = descriptors()?;
    assert!(after <= before + 20, "{before} descriptors of the file, then {after}");
    Ok(())
}
