//! Quotas are stored with the namespace: they bind whoever writes, and outlive handles, processes and entries.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use watchkeep::{BackupOptions, Batch, Error, ErrorKind, ManualClock, Options, Quota, SetOptions, Store};

use crate::support::futures::block_on;
use crate::support::numbers::number;
use crate::support::{Anywhere as _, Result, anywhere, file_of};

const TWO_KEYS: Quota = Quota { max_keys: 2, max_groups: 0, max_bytes: 0 };

fn kind<T>(result: std::result::Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn full<T>(result: std::result::Result<T, Error>) -> bool {
    kind(result) == Some(ErrorKind::QuotaExceeded)
}

/// A namespace `t` that holds two keys and may hold no more, in a file.
fn two_of_two() -> Result<(tempfile::TempDir, Store)> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("store.db"))?;
    let tenant = store.scoped("t")?.with_quota(TWO_KEYS)?;
    tenant.set("g", "1", "v")?;
    tenant.set("h", "2", "v")?;
    Ok((folder, store))
}

fn is_sound(store: &Store) -> Result {
    assert_eq!(store.check()?.problems, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_quota_that_is_set_binds_every_handle_at_once() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.db");
    let (one, two) = (Store::open(&path)?, Store::open(&path)?);
    let (first, second) = (one.scoped("t")?, two.scoped("t")?);
    second.set("g", "1", "v")?;
    first.set_quota(TWO_KEYS)?;
    second.set("g", "2", "v")?;
    for write in [&first, &second] {
        assert!(full(write.set("g", "3", "v")));
        assert!(full(write.transaction(|tx| tx.set("g", "3", "v"))));
        assert!(full(block_on(write.to_async().set("g", "3", "v"))));
    }
    assert!(full(two.set("t:g", "3", "v")));
    assert_eq!((second.quota()?, second.stats()?.quota), (Some(TWO_KEYS), Some(TWO_KEYS)));
    assert_eq!((two.quota()?, two.stats()?.quota, two.scoped("u")?.quota()?), (None, None, None));
    second.set_quota(Quota { max_keys: 3, ..TWO_KEYS })?;
    first.set("g", "3", "v")?;
    is_sound(&one)
}

#[test]
fn a_quota_survives_the_end_of_its_store_and_of_its_entries() -> Result {
    let (folder, store) = two_of_two()?;
    let path = file_of(&store).to_owned();
    store.close()?;
    let store = Store::open(&path)?;
    let tenant = store.scoped("t")?;
    assert!(full(tenant.set("g", "3", "v")));
    for empty in [
        |store: &Store| store.delete_prefix(""),
        |store: &Store| Ok(u64::from(store.delete("g", "1")?) + u64::from(store.delete("g", "2")?)),
    ] {
        assert_eq!(empty(&tenant)?, 2);
        assert_eq!((tenant.stats()?.groups, tenant.quota()?), (0, Some(TWO_KEYS)));
        is_sound(&store)?;
        tenant.set("g", "1", "v")?;
        tenant.set("g", "2", "v")?;
        assert!(full(tenant.set("g", "3", "v")));
    }
    drop(folder);
    Ok(())
}

#[test]
fn a_quota_goes_along_into_a_backup_and_out_of_it() -> Result {
    let (folder, store) = two_of_two()?;
    let (backup, restored) = (folder.path().join("backup.db"), folder.path().join("restored.db"));
    store.backup(&backup)?;
    store.scoped("t")?.set_quota(Quota::default())?;
    Store::restore(&backup, &restored, BackupOptions::new())?;
    for path in [&backup, &restored] {
        let copy = Store::open(path)?;
        assert_eq!(copy.scoped("t")?.quota()?, Some(TWO_KEYS));
        assert!(full(copy.set("t:g", "3", "v")));
        is_sound(&copy)?;
    }
    Ok(())
}

#[test]
fn counters_are_rebuilt_beside_a_quota() -> Result {
    let (_folder, store) = two_of_two()?;
    store.scoped("empty")?.set_quota(TWO_KEYS)?;
    let file = Connection::open(file_of(&store))?;
    file.execute_batch("UPDATE wk_namespaces SET keys = keys + 7, groups = groups + 1")?;
    assert!(!store.check()?.is_ok());
    assert_eq!(store.repair_counters()?.len(), 2);
    is_sound(&store)?;
    for namespace in ["t", "empty"] {
        assert_eq!(store.scoped(namespace)?.quota()?, Some(TWO_KEYS), "{namespace}");
    }
    file.execute_batch("DELETE FROM wk_namespaces WHERE name = 't'")?;
    store.repair_counters()?;
    is_sound(&store)?;
    store.set("t:g", "3", "v")?;
    Ok(())
}

#[test]
fn a_quota_that_is_taken_away_leaves_nothing() -> Result {
    let (_folder, store) = two_of_two()?;
    let tenant = store.scoped("t")?;
    tenant.set_quota(Quota::default())?;
    assert_eq!(tenant.quota()?, None);
    tenant.set("g", "3", "v")?;
    tenant.set_quota(TWO_KEYS)?;
    tenant.delete_prefix("")?;
    let rows = || -> Result<i64> {
        let file = Connection::open(file_of(&store))?;
        Ok(file.query_row("SELECT count(*) FROM wk_namespaces", [], |row| row.get(0))?)
    };
    assert_eq!(rows()?, 1);
    tenant.set_quota(Quota::default())?;
    assert_eq!(rows()?, 0);
    tenant.set_quota(Quota::default())?;
    assert_eq!(rows()?, 0);
    is_sound(&store)
}

#[test]
fn a_quota_below_what_is_there_deletes_nothing_and_refuses_growth() -> Result {
    let store = anywhere()?;
    let tenant = store.scoped("t")?;
    for key in ["1", "2", "3"] {
        tenant.set("g", key, "value")?;
    }
    tenant.set_quota(Quota { max_keys: 1, max_groups: 1, max_bytes: 10 })?;
    assert_eq!(tenant.count_all("")?, 3);
    assert!(full(tenant.set("g", "4", "")));
    assert!(full(tenant.set("h", "1", "")));
    assert!(full(tenant.set("g", "1", "longer")));
    tenant.set("g", "1", "other")?;
    tenant.set("g", "1", "less")?;
    assert!(full(tenant.set("g", "1", "value")), "it gave the byte back");
    tenant.delete("g", "1")?;
    assert!(full(tenant.set("g", "1", "")));
    tenant.delete("g", "2")?;
    tenant.delete("g", "3")?;
    tenant.set("g", "4", "v")?;
    is_sound(&store)
}

#[test]
fn what_is_due_makes_room_for_a_handle_on_the_whole_store() -> Result {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).anywhere()?;
    store.scoped("t")?.set_quota(Quota { max_groups: 1, ..TWO_KEYS })?;
    let second = Duration::from_secs(1);
    for round in ["a", "b", "c"] {
        for key in ["1", "2"] {
            store.set_with_ttl(&format!("t:{round}"), key, "v", second)?;
        }
        assert!(full(store.set("t:new", "k", "v")));
        clock.advance(second);
    }
    is_sound(&store)
}

#[test]
fn a_batch_obeys_the_quotas_of_all_that_it_touches() -> Result {
    let store = anywhere()?;
    store.scoped("t")?.set_quota(TWO_KEYS)?;
    store.scoped("u")?.set_quota(Quota { max_bytes: 4, ..Quota::default() })?;
    let batch = || Batch::new().set("free", "k", "v").set("t:g", "1", "v").set("u:g", "k", "vvv");
    for refused in [
        batch().set("t:g", "2", "v").set("t:g", "3", "v"),
        batch().set("u:g", "l", ""),
        batch().delete("u:g", "k").set("u:g", "longer", ""),
    ] {
        assert!(full(store.apply(refused)));
        assert_eq!(number(store.last_revision()?), 0);
    }
    store.apply(batch().set("t:g", "2", "v").delete("t:g", "1").set("t:h", "3", "v"))?;
    assert_eq!(store.count_all("")?, 4);
    is_sound(&store)
}

#[test]
fn setting_a_quota_announces_nothing_and_again_writes_nothing() -> Result {
    let (_folder, store) = two_of_two()?;
    let mut watcher = store.watch("*", "*");
    let tenant = store.scoped("t")?;
    let before = (store.last_revision()?, store.stats()?.wal_bytes);
    tenant.set_quota(TWO_KEYS)?;
    block_on(tenant.to_async().set_quota(TWO_KEYS))?;
    assert_eq!((store.last_revision()?, store.stats()?.wal_bytes), before);
    block_on(tenant.to_async().set_quota(Quota { max_keys: 3, ..TWO_KEYS }))?;
    assert_eq!(block_on(tenant.to_async().quota())?, Some(Quota { max_keys: 3, ..TWO_KEYS }));
    assert_eq!(store.last_revision()?, before.0);
    store.set("last", "k", "v")?;
    assert_eq!(watcher.recv().ok_or("ended")??.group(), "last");
    Ok(())
}

#[test]
fn a_quota_that_cannot_be_is_refused() -> Result {
    let store = anywhere()?;
    let tenant = store.scoped("t")?;
    for quota in [
        Quota { max_keys: 1 << 63, ..Quota::default() },
        Quota { max_groups: u64::MAX, ..Quota::default() },
        Quota { max_bytes: 1 << 63, ..Quota::default() },
    ] {
        assert_eq!(kind(tenant.set_quota(quota)), Some(ErrorKind::InvalidArgument));
        assert_eq!(kind(block_on(tenant.to_async().set_quota(quota))), Some(ErrorKind::InvalidArgument));
    }
    let most = Quota { max_keys: (1 << 63) - 1, max_groups: 1, max_bytes: (1 << 63) - 1 };
    tenant.set_quota(most)?;
    assert_eq!(tenant.quota()?, Some(most));
    tenant.set_with("g", "k", "v", SetOptions::new().if_absent())?;
    assert_eq!(kind(store.set_quota(TWO_KEYS)), Some(ErrorKind::InvalidArgument));
    let nested = store.transaction(|_| tenant.set_quota(TWO_KEYS));
    assert_eq!(kind(nested), Some(ErrorKind::Nested));
    store.close()?;
    assert_eq!(kind(tenant.set_quota(TWO_KEYS)), Some(ErrorKind::Closed));
    assert_eq!(kind(tenant.quota()), Some(ErrorKind::Closed));
    Ok(())
}

#[test]
fn a_quota_that_was_damaged_is_told_of_and_healed_by_setting_it() -> Result {
    let (_folder, store) = two_of_two()?;
    let tenant = store.scoped("t")?;
    Connection::open(file_of(&store))?.execute_batch("UPDATE wk_namespaces SET max_keys = -1")?;
    assert!(!store.check()?.is_ok());
    assert_eq!(kind(tenant.quota()), Some(ErrorKind::Corrupt));
    assert_eq!(kind(tenant.set("g", "1", "w")), Some(ErrorKind::Corrupt));
    store.set("t", "no namespace", "v")?;
    assert!(tenant.delete("g", "1")?);
    tenant.set_quota(TWO_KEYS)?;
    tenant.set("g", "1", "w")?;
    assert!(full(tenant.set("g", "3", "v")));
    is_sound(&store)
}
