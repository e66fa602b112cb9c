//! Quotas: checked inside the write transaction, exact whoever writes.

use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::numbers::number;
use crate::support::{Anywhere as _, Result, anywhere, fill, lines, take};
use watchkeep::{
    Clock, Error, ErrorKind, Kind, ManualClock, Options, Quota, QuotaLimit, SetOptions, Timestamp,
};

const SECOND: Duration = Duration::from_secs(1);

fn keys(max_keys: u64) -> Quota {
    Quota { max_keys, ..Quota::default() }
}

fn groups(max_groups: u64) -> Quota {
    Quota { max_groups, ..Quota::default() }
}

fn bytes(max_bytes: u64) -> Quota {
    Quota { max_bytes, ..Quota::default() }
}

/// What a refusal says: which limit, its amount, and what the namespace would have held.
fn refusal<T>(result: std::result::Result<T, Error>) -> Option<(QuotaLimit, u64, u64)> {
    let error = result.err().filter(|error| error.kind() == ErrorKind::QuotaExceeded)?;
    error.quota_exceeded().map(|exceeded| (exceeded.limit, exceeded.allowed, exceeded.wanted))
}

/// A clock that wakes nobody, so that what is due is still there.
#[derive(Debug, Default)]
struct Quiet(Mutex<i64>);

impl Quiet {
    fn set(&self, millis: i64) {
        if let Ok(mut now) = self.0.lock() {
            *now = millis;
        }
    }
}

impl Clock for Quiet {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.lock().map(|now| *now).unwrap_or_default())
    }
}

#[test]
fn two_threads_never_both_take_the_last_place() -> Result {
    let store = anywhere()?;
    for round in 0..300 {
        let name = format!("t{round}");
        let tenant = store.scoped(&name)?.with_quota(keys(3))?;
        tenant.set("g", "one", "v")?;
        tenant.set("h", "two", "v")?;
        let start = Arc::new(Barrier::new(2));
        let racers: Vec<_> = (0..2)
            .map(|racer| {
                let (tenant, start) = (tenant.clone(), start.clone());
                thread::spawn(move || {
                    start.wait();
                    match round % 3 {
                        0 => tenant.transaction(|tx| tx.set("g", &format!("{racer}"), "v")).map(drop),
                        _ => tenant.set("g", &format!("{racer}"), "v").map(drop),
                    }
                })
            })
            .collect();
        let mut refused = Vec::new();
        for racer in racers {
            refused.extend(racer.join().map_err(|_| "panicked")?.err());
        }
        assert_eq!(refused.len(), 1, "round {round}: {refused:?}");
        assert_eq!(refusal(Err::<(), _>(refused.remove(0))), Some((QuotaLimit::Keys, 3, 4)));
        assert_eq!(tenant.count_all("")?, 3);
    }
    assert!(store.check()?.is_ok());
    Ok(())
}

#[test]
fn many_threads_fill_a_namespace_exactly() -> Result {
    let store = anywhere()?;
    let tenant = store.scoped("t")?.with_quota(Quota { max_keys: 100, max_groups: 5, max_bytes: 900 })?;
    let taken = thread::scope(|scope| -> Result<u64> {
        let writers: Vec<_> = (0..8_u64)
            .map(|writer| {
                let tenant = &tenant;
                scope.spawn(move || -> Result<u64> {
                    let mut taken = 0;
                    for number in 0..40_u64 {
                        let key = format!("{writer}-{number:02}");
                        match tenant.set(&format!("g{}", (writer + number) % 5), &key, "v") {
                            Ok(_) => taken += 1,
                            Err(error) => assert_eq!(error.kind(), ErrorKind::QuotaExceeded),
                        }
                    }
                    Ok(taken)
                })
            })
            .collect();
        let mut taken = 0;
        for writer in writers {
            taken += writer.join().map_err(|_| "panicked")??;
        }
        Ok(taken)
    })?;
    assert_eq!((taken, tenant.count_all("")?, tenant.groups("").count()), (100, 100, 5));
    Ok(())
}

#[test]
fn an_overwrite_takes_no_new_place_also_in_a_full_namespace() -> Result {
    let store = anywhere()?;
    let tenant = store.scoped("t")?.with_quota(Quota { max_keys: 1, max_groups: 1, max_bytes: 6 })?;
    tenant.set("g", "k", "12345")?;
    for value in ["54321", "1", "", "12345"] {
        tenant.set("g", "k", value)?;
    }
    assert_eq!(refusal(tenant.set("g", "l", "")), Some((QuotaLimit::Keys, 1, 2)));
    assert_eq!(refusal(tenant.set("g", "k", "123456")), Some((QuotaLimit::Bytes, 6, 7)));
    assert_eq!(tenant.get("g", "k")?.ok_or("gone")?, "12345", "a refused write changes nothing");
    Ok(())
}

#[test]
fn bytes_shrink_and_grow_with_overwrites_deletes_and_keys() -> Result {
    let store = anywhere()?;
    let tenant = store.scoped("t")?.with_quota(bytes(20))?;
    tenant.set("g", "ab", "123")?;
    tenant.set("h", "ä", "1")?;
    assert_eq!(store.stats()?.bytes, 5 + 3);
    tenant.set("g", "ab", "12345678")?;
    assert_eq!(refusal(tenant.set("g", "x", "1234567")), Some((QuotaLimit::Bytes, 20, 21)));
    tenant.set("g", "x", "123456")?;
    tenant.set("g", "ab", "")?;
    tenant.set("g", "y", "1234567")?;
    assert_eq!(refusal(tenant.set("g", "ab", "1")), Some((QuotaLimit::Bytes, 20, 21)));
    tenant.delete("g", "y")?;
    tenant.set("g", "ab", "12345678")?;
    tenant.delete_group("g")?;
    tenant.set("g", "ab", vec![0xff; 15])?;
    assert_eq!(store.stats()?.bytes, 20);
    assert!(store.check()?.is_ok());
    Ok(())
}

#[test]
fn groups_are_limited_and_come_free_with_their_last_key() -> Result {
    let store = anywhere()?;
    let tenant = store.scoped("t")?.with_quota(groups(2))?;
    tenant.set("a", "k", "v")?;
    tenant.set("b", "k", "v")?;
    tenant.set("b", "l", "v")?;
    assert_eq!(refusal(tenant.set("c", "k", "v")), Some((QuotaLimit::Groups, 2, 3)));
    tenant.delete("b", "k")?;
    assert_eq!(refusal(tenant.set("c", "k", "v")), Some((QuotaLimit::Groups, 2, 3)));
    tenant.delete("b", "l")?;
    tenant.set("c", "k", "v")?;
    tenant.delete_prefix("")?;
    tenant.set("d", "k", "v")?;
    tenant.set("e", "k", "v")?;
    assert_eq!(tenant.groups("").collect::<std::result::Result<Vec<_>, _>>()?, ["d", "e"]);
    Ok(())
}

#[test]
fn due_keys_make_room_before_a_write_is_refused_also_when_they_are_many() -> Result {
    for due in [1_u64, 256, 257, 700] {
        let clock = Arc::new(Quiet::default());
        let store = Options::new().clock(clock.clone()).anywhere()?;
        let tenant = store.scoped("t")?.with_quota(keys(due + 1))?;
        tenant.set("g", "stays", "v")?;
        for key in 0..due {
            tenant.set_with_ttl(&format!("g{}", key % 3), &key.to_string(), "v", SECOND)?;
        }
        assert_eq!(refusal(tenant.set("g", "new", "v")), Some((QuotaLimit::Keys, due + 1, due + 2)));
        // Before anything is due: the store's thread may be the first to remove it.
        let mut watcher = tenant.watch("*", "*");
        clock.set(1_000);
        fill(&tenant, usize::try_from(due)?, |tx, n| tx.set("h", &n.to_string(), "v"))?;
        assert_eq!(
            refusal(tenant.set("g", "new", "v")),
            Some((QuotaLimit::Keys, due + 1, due + 2)),
            "{due} due"
        );
        let events = take(&mut watcher, usize::try_from(due * 2)?)?;
        let expired = events.iter().filter(|event| event.kind() == Kind::Expire).count();
        assert_eq!(expired as u64, due, "each due key is announced");
        assert!(store.check()?.is_ok());
    }
    Ok(())
}

#[test]
fn the_very_entry_that_is_written_may_be_the_due_one_that_makes_room() -> Result {
    for quota in [keys(1), groups(1), bytes(4)] {
        let clock = Arc::new(Quiet::default());
        let store = Options::new().clock(clock.clone()).anywhere()?;
        let tenant = store.scoped("t")?.with_quota(quota)?;
        let mut watcher = tenant.watch("*", "*");
        tenant.set_with_ttl("g", "k", "old", SECOND)?;
        clock.set(1_000);
        tenant.set_with("g", "k", "new", SetOptions::new().if_absent())?;
        assert_eq!(lines(&take(&mut watcher, 3)?), ["1 set g/k=old", "2 expire g/k=old", "3 set g/k=new"]);
        assert_eq!((tenant.count("g")?, store.stats()?.bytes), (1, 4));
        assert!(store.check()?.is_ok());
    }
    Ok(())
}

#[test]
fn expiry_releases_places_bytes_and_groups() -> Result {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).anywhere()?;
    let tenant = store.scoped("t")?.with_quota(Quota { max_keys: 2, max_groups: 2, max_bytes: 4 })?;
    for _ in 0..20 {
        tenant.set_with_ttl("a", "k", "v", SECOND)?;
        tenant.set_with_ttl("b", "k", "v", SECOND)?;
        assert!(refusal(tenant.set("c", "k", "v")).is_some());
        clock.advance(SECOND);
    }
    assert_eq!(store.count_all("")?, 0);
    Ok(())
}

#[test]
fn a_transaction_is_checked_as_it_goes_and_refused_whole() -> Result {
    let store = anywhere()?;
    let tenant = store.scoped("t")?.with_quota(keys(3))?;
    tenant.set("g", "1", "v")?;
    let refused = tenant.transaction(|tx| {
        tx.set("g", "2", "v")?;
        tx.set("g", "3", "v")?;
        tx.set("g", "4", "v")
    });
    assert_eq!(refusal(refused), Some((QuotaLimit::Keys, 3, 4)));
    assert_eq!((tenant.count("g")?, number(store.last_revision()?)), (1, 1));
    // What it deletes first makes room; what it looks away from does not count.
    tenant.transaction(|tx| {
        tx.delete("g", "1")?;
        for key in ["2", "3", "4"] {
            tx.set("g", key, "v")?;
        }
        assert_eq!(refusal(tx.set("g", "5", "v")), Some((QuotaLimit::Keys, 3, 4)));
        tx.set("g", "4", "w")
    })?;
    assert_eq!((tenant.count("g")?, number(store.last_revision()?)), (3, 6));
    Ok(())
}

#[test]
fn whoever_writes_into_the_namespace_obeys() -> Result {
    let store = anywhere()?;
    let tenant = store.scoped("t")?.with_quota(keys(2))?;
    store.set("t:g", "whole store", "v")?;
    store.scoped("t")?.set("g", "another handle", "v")?;
    for outside in [store.clone(), store.with_origin("o")] {
        assert_eq!(refusal(outside.set("t:g", "k", "v")), Some((QuotaLimit::Keys, 2, 3)));
    }
    assert_eq!(refusal(tenant.set("g", "k", "v")), Some((QuotaLimit::Keys, 2, 3)));
    assert_eq!(refusal(store.transaction(|tx| tx.set("t:h", "k", "v"))), Some((QuotaLimit::Keys, 2, 3)));
    store.set("t", "no namespace", "v")?;
    store.set("u:g", "another", "v")?;
    Ok(())
}

#[test]
fn namespaces_with_confusable_names_do_not_count_for_each_other() -> Result {
    let store = anywhere()?;
    let names = ["a", "A", "ab", "a-b", "a1", "-a", "aa"];
    for name in names {
        let tenant = store.scoped(name)?.with_quota(Quota { max_keys: 2, max_groups: 1, max_bytes: 4 })?;
        tenant.set("g", "1", "v")?;
        tenant.set("g", "2", "v")?;
    }
    for group in ["a", "a;g", "ab", "", "a\0:g", "ä:g", "%:g", "_:g", ":g", "a :g"] {
        store.set(group, "k", "v")?;
    }
    assert_eq!(refusal(store.set("a::g", "k", "v")), Some((QuotaLimit::Keys, 2, 3)));
    for name in names {
        let tenant = store.scoped(name)?;
        assert_eq!((tenant.count_all("")?, tenant.stats()?.entries), (2, 2), "{name}");
    }
    let report = store.check()?;
    assert!(report.is_ok(), "{report:?}");
    Ok(())
}

#[test]
fn counters_are_right_for_namespaces_of_any_characters() -> Result {
    let store = anywhere()?;
    for group in ["a\0b:g", "\0:g", "ä\u{10ffff}:g", ":", "::", "a:\0", "\u{feff}:g", "a\n:g"] {
        store.set(group, "k\0l", "v\0w")?;
        store.set(group, "", "")?;
        store.set(group, "\0", vec![0, 0xff])?;
    }
    let report = store.check()?;
    assert!(report.is_ok(), "{report:?}");
    Ok(())
}

#[test]
fn zero_is_unlimited_and_the_quota_of_a_whole_store_is_refused() -> Result {
    let store = anywhere()?;
    let tenant = store.scoped("t")?.with_quota(Quota::default())?;
    assert_eq!((tenant.quota()?, store.quota()?), (None, None));
    (0..500).try_for_each(|n| tenant.set(&n.to_string(), "k", vec![0; 100]).map(drop))?;
    assert_eq!(store.with_quota(keys(1)).err().map(|error| error.kind()), Some(ErrorKind::InvalidArgument));
    Ok(())
}

#[test]
fn the_error_names_namespace_limit_and_amount() -> Result {
    let store = anywhere()?;
    let tenant = store.scoped("tenant-42")?.with_quota(bytes(5))?;
    let error = tenant.set("g", "key", "value").err().ok_or("it was taken")?;
    let exceeded = error.quota_exceeded().ok_or("it does not say")?;
    assert_eq!(exceeded.namespace, "tenant-42");
    let text = error.to_string();
    assert!(["tenant-42", "bytes", "5", "8"].iter().all(|part| text.contains(part)), "{text}");
    Ok(())
}

#[test]
fn a_deleted_group_that_comes_again_is_counted_from_nothing() -> Result {
    let store = anywhere()?;
    let tenant = store.scoped("t")?.with_quota(Quota { max_keys: 600, max_groups: 1, max_bytes: 6_000 })?;
    for _ in 0..5 {
        fill(&tenant, 600, |tx, n| tx.set("g", &format!("{n:03}"), "1234567"))?;
        assert!(refusal(tenant.set("g", "one more", "")).is_some());
        assert_eq!(tenant.delete_group("g")?, 600);
    }
    let report = store.check()?;
    assert!(report.is_ok(), "{report:?}");
    Ok(())
}
