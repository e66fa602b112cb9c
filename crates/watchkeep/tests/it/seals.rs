//! A sealed store: nobody writes, everybody reads, and whoever has the file open is bound.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::support::consumers::{acked, at, from_the_beginning, kind, listed};
use crate::support::{Result, eventually, take};
use rusqlite::Connection;
use watchkeep::{
    Batch, ConsumerOptions, ConsumerStart, ErrorKind, Filter, Force, Kind, ManualClock, Options, Quota,
    Retention, Revision, Store,
};

const WHY: &str = "moved to etcd://10.0.0.1/it's";
const TTL: Duration = Duration::from_secs(60);

/// A store that holds one of each, and its clock.
fn filled(open: impl FnOnce(Options) -> watchkeep::Result<Store>) -> Result<(Arc<ManualClock>, Store)> {
    let clock = Arc::new(ManualClock::default());
    let store = open(Options::new().clock(clock.clone()))?;
    store.set("g", "k", "v")?;
    store.set_with_ttl("g", "due", "v", TTL)?;
    store.scoped("tenant")?.set("g", "k", "v")?;
    store.consumer_with("billing", from_the_beginning())?.close()?;
    Ok((clock, store))
}

/// All that is refused, by name.
fn refused(store: &Store) -> Result {
    let tenant = store.scoped("tenant")?;
    let new = ConsumerOptions::new().start(ConsumerStart::Beginning);
    let told: [(&str, Option<ErrorKind>); 15] = [
        ("set", kind(store.set("g", "k", "w"))),
        ("set in a new group", kind(store.set("new", "k", "w"))),
        ("set with a time to live", kind(store.set_with_ttl("g", "k", "w", TTL))),
        ("touch", kind(store.touch("g", "k", TTL))),
        ("persist", kind(store.persist("g", "due"))),
        ("delete", kind(store.delete("g", "k"))),
        ("delete_group", kind(store.delete_group("g"))),
        ("apply", kind(store.apply(Batch::new().set("g", "k", "w").set("g", "l", "w")))),
        ("apply with an id", kind(store.apply(Batch::new().id("client", 1).delete("g", "not there")))),
        ("transaction", kind(store.transaction(|tx| tx.set("g", "k", "w")))),
        ("set_quota", kind(tenant.set_quota(Quota { max_keys: 7, ..Quota::default() }))),
        ("delete of what is not there", kind(store.delete("g", "not there"))),
        ("a transaction that writes nothing", kind(store.transaction(|_| Ok(())))),
        ("a new consumer", kind(store.consumer_with("new", new))),
        ("remove_consumer", kind(store.remove_consumer("billing", Force::Yes))),
    ];
    for (what, kind) in told {
        assert_eq!(kind, Some(ErrorKind::Sealed), "{what}");
    }
    assert_eq!(
        kind(store.reset_consumer("billing", ConsumerStart::After(at(1)), Force::Yes)),
        Some(ErrorKind::Sealed)
    );
    Ok(())
}

/// What goes on.
fn unchanged(store: &Store, last: Revision) -> Result {
    assert_eq!(store.last_revision()?, last);
    assert_eq!(store.get("g", "k")?, Some("v".into()));
    assert_eq!((store.count_all("")?, store.scoped("tenant")?.quota()?), (3, None));
    assert_eq!(store.history(Filter::everything(), Revision::ZERO).count(), 3);
    assert_eq!(store.sealed()?.as_deref(), Some(WHY));
    let report = store.check()?;
    assert!(report.is_ok(), "{:?}", report.problems);
    assert_eq!(store.repair_counters()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_sealed_store_refuses_every_write_and_goes_on_reading() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    for in_memory in [true, false] {
        let (_, store) = filled(|options| match in_memory {
            true => options.open_in_memory(),
            false => options.open(&path),
        })?;
        assert_eq!(store.sealed()?, None);
        let last = store.seal(WHY)?;
        refused(&store)?;
        unchanged(&store, last)?;
        let said = store.set("g", "k", "w").unwrap_err().to_string();
        assert!(said.contains(WHY), "{said}");

        assert_eq!(store.seal("moved again")?, last);
        assert_eq!(store.sealed()?.as_deref(), Some("moved again"));
        assert!(store.unseal()? && !store.unseal()?);
        assert_eq!(store.set("g", "k", "w")?, at(last.get() + 1));
        assert!(store.check()?.is_ok());
    }
    Ok(())
}

#[test]
fn a_seal_binds_whoever_has_the_file_open_or_opens_it_later() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let (clock, one) = filled(|options| options.open(&path))?;
    // By another clock, what is there would be due.
    let open = || Options::new().clock(clock.clone()).open(&path);
    let other = open()?;
    other.set("other", "k", "v")?;
    other.delete("other", "k")?;
    let mut watcher = other.watch("*", "*");
    let last = one.seal(WHY)?;
    refused(&other)?;
    assert_eq!(other.sealed()?.as_deref(), Some(WHY));
    let late = open()?;
    refused(&late)?;
    assert_eq!(kind(Options::new().retention(Retention::events(7)).open(&path)), Some(ErrorKind::Sealed));
    assert_eq!(late.last_revision()?, last);
    assert!(late.unseal()?);
    one.set("g", "k", "1")?;
    other.set("g", "k", "2")?;
    let told: Vec<_> = take(&mut watcher, 2)?.iter().map(watchkeep::Event::kind).collect();
    assert_eq!(told, [Kind::Set, Kind::Set]);
    Ok(())
}

#[test]
fn a_held_consumer_stays_held_and_acknowledges_nothing() -> Result {
    let folder = tempfile::tempdir()?;
    for store in [Store::open_in_memory()?, Store::open(folder.path().join("app.db"))?] {
        store.set("g", "k", "v")?;
        let mut billing = store.consumer_with("billing", from_the_beginning())?;
        let event = billing.recv().ok_or("it ended")??;
        store.seal(WHY)?;
        assert_eq!(kind(billing.ack(event.revision())), Some(ErrorKind::Sealed));
        assert!(listed(&store, "billing")?.holder.is_some());
        billing.close()?;
        assert!(listed(&store, "billing")?.holder.is_none());
        assert_eq!(kind(store.consumer("billing")), Some(ErrorKind::Sealed));
        assert_eq!(acked(&store, "billing")?, Some(0));
        store.unseal()?;
        let mut again = store.consumer("billing")?;
        let event = again.recv().ok_or("it ended")??;
        again.ack(event.revision())?;
        assert_eq!(acked(&store, "billing")?, Some(1));
    }
    Ok(())
}

#[test]
fn what_is_due_rests_in_a_sealed_store_and_is_announced_after_it() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let (clock, store) = filled(|options| options.open(&path))?;
    let last = store.seal(WHY)?;
    clock.advance(TTL);
    assert_eq!(store.get("g", "due")?, None);
    assert_eq!(kind(store.set("g", "k", "w")), Some(ErrorKind::Sealed));
    assert_eq!(store.last_revision()?, last);
    store.close()?;
    let store = Options::new().clock(clock).open(&path)?;
    assert_eq!(store.last_revision()?, last);
    store.unseal()?;
    eventually("what was due is announced", || Ok(store.last_revision()? == at(last.get() + 1)))?;
    assert!(store.check()?.is_ok());
    Ok(())
}

#[test]
fn a_seal_is_changed_only_where_it_is_the_one_that_is_expected() -> Result {
    let folder = tempfile::tempdir()?;
    for store in [Store::open_in_memory()?, Store::open(folder.path().join("app.db"))?] {
        let last = store.set("g", "k", "v")?;
        let refused = |from: Option<&str>, to: Option<&str>, last, is_sealed: Option<&str>| -> Result {
            assert_eq!(kind(store.change_seal(from, to, last)), Some(ErrorKind::Conflict), "{from:?} {to:?}");
            assert_eq!(store.sealed()?.as_deref(), is_sealed);
            Ok(())
        };
        refused(Some("ours"), Some("moved"), None, None)?;
        refused(Some("ours"), None, None, None)?;
        refused(None, Some("ours"), Some(at(7)), None)?;
        assert_eq!(store.change_seal(None, Some("ours"), None)?, last);
        refused(None, Some("theirs"), None, Some("ours"))?;
        refused(Some("theirs"), None, None, Some("ours"))?;

        // Somebody lifts it, writes, and seals again with the same text.
        store.unseal()?;
        let later = store.set("g", "k", "w")?;
        refused(Some("ours"), Some("moved"), Some(last), None)?;
        store.seal("ours")?;
        refused(Some("ours"), Some("moved"), Some(last), Some("ours"))?;
        assert_eq!(store.change_seal(Some("ours"), Some("moved"), Some(later))?, later);
        assert_eq!(store.change_seal(Some("moved"), None, None)?, later);
        assert_eq!(store.sealed()?, None);
        store.set("g", "k", "x")?;
    }
    Ok(())
}

#[test]
fn what_is_due_when_a_store_is_sealed_is_announced_before_it() -> Result {
    for named in [false, true] {
        let (clock, store) = filled(Options::open_in_memory)?;
        let mut watcher = store.watch("g", "*");
        // Nobody in the background has looked by the time that the seal is put, or somebody has: it is told either way.
        clock.advance(TTL);
        let last = match named {
            true => store.change_seal(None, Some(WHY), None)?,
            false => store.seal(WHY)?,
        };
        assert_eq!(last, at(4));
        let told = take(&mut watcher, 1)?;
        assert_eq!(
            told.iter().map(|event| (event.kind(), event.key())).collect::<Vec<_>>(),
            [(Kind::Expire, Some("due"))]
        );
    }
    Ok(())
}

#[test]
fn a_batch_that_was_applied_before_the_seal_has_its_answer() -> Result {
    let folder = tempfile::tempdir()?;
    for store in [Store::open_in_memory()?, Store::open(folder.path().join("app.db"))?] {
        let batch = || Batch::new().id("client", 7).set("g", "k", "v");
        let applied = store.apply(batch())?;
        let last = store.set("other", "k", "v")?;
        store.seal(WHY)?;
        let again = store.apply(batch())?;
        assert!(again.repeated);
        assert_eq!((again.revision, &again.outcomes), (applied.revision, &applied.outcomes));
        assert_eq!(
            kind(store.apply(Batch::new().id("client", 8).set("g", "k", "v"))),
            Some(ErrorKind::Sealed)
        );
        assert_eq!(
            kind(store.apply(Batch::new().id("client", 7).delete("g", "k"))),
            Some(ErrorKind::InvalidArgument)
        );
        assert_eq!(store.last_revision()?, last);
    }
    Ok(())
}

#[test]
fn a_sealed_store_is_compacted_and_its_backup_is_sealed() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    for (number, store) in [Store::open_in_memory()?, Store::open(&path)?].into_iter().enumerate() {
        for value in ["1", "2", "3"] {
            store.set("g", "k", value)?;
        }
        store.seal(WHY)?;
        assert_eq!(store.compact(at(3))?, 2);
        let (saved, restored) =
            (folder.path().join(format!("{number}.db")), folder.path().join(format!("{number}-again.db")));
        store.backup(&saved)?;
        Store::restore(&saved, &restored, watchkeep::BackupOptions::new())?;
        let copy = Store::open(&restored)?;
        assert_eq!(copy.sealed()?.as_deref(), Some(WHY));
        assert_eq!(kind(copy.set("g", "k", "4")), Some(ErrorKind::Sealed));
        assert!(copy.unseal()? && copy.check()?.is_ok());
        copy.set("g", "k", "4")?;
    }
    Ok(())
}

#[test]
fn a_text_that_says_nothing_and_a_part_of_a_store_are_refused() -> Result {
    let store = Store::open_in_memory()?;
    for text in ["", "  ", "a\nb", "a\0b"] {
        assert_eq!(kind(store.seal(text)), Some(ErrorKind::InvalidArgument), "{text:?}");
    }
    assert_eq!(kind(store.seal("x".repeat(watchkeep::MAX_SEAL + 1))), Some(ErrorKind::TooLarge));
    store.seal("x".repeat(watchkeep::MAX_SEAL))?;
    let tenant = store.scoped("tenant")?;
    assert_eq!(kind(tenant.seal("why")), Some(ErrorKind::InvalidArgument));
    assert_eq!(kind(tenant.unseal()), Some(ErrorKind::InvalidArgument));
    assert_eq!(kind(tenant.change_seal(None, Some("why"), None)), Some(ErrorKind::InvalidArgument));
    assert_eq!(kind(store.change_seal(None, Some("a\nb"), None)), Some(ErrorKind::InvalidArgument));
    assert!(tenant.sealed()?.is_some());
    Ok(())
}

/// Opens a file as in another boot of the machine.
fn open_in(boot: &str, path: &Path) -> Result<Store> {
    Ok(Options::new().boot_id(boot).open(path)?)
}

fn epochs(path: &Path) -> Result<i64> {
    Ok(Connection::open(path)?.query_row("SELECT count(*) FROM wk_epochs", [], |row| row.get(0))?)
}

#[test]
fn a_write_that_a_seal_refuses_begins_no_epoch_and_the_first_after_it_does() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let store = open_in("first", &path)?;
    let before = store.cursor(store.set("g", "k", "v")?);
    store.seal(WHY)?;
    store.close()?;
    let store = open_in("second", &path)?;
    assert_eq!(kind(store.set("g", "k", "w")), Some(ErrorKind::Sealed));
    assert_eq!(kind(store.transaction(|tx| tx.set("g", "k", "w"))), Some(ErrorKind::Sealed));
    assert_eq!(epochs(&path)?, 1);
    store.unseal()?;
    let after = store.cursor(store.set("g", "k", "w")?);
    assert_eq!(epochs(&path)?, 2);
    assert_ne!(before.epoch(), after.epoch());
    assert_eq!((store.revision_of(before)?, store.revision_of(after)?), (at(1), at(2)));
    assert!(store.check()?.is_ok());
    Ok(())
}

#[test]
fn a_write_that_waits_while_another_process_lifts_the_seal_begins_its_epoch_first() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let store = open_in("first", &path)?;
    store.set("g", "k", "v")?;
    store.seal(WHY)?;
    store.close()?;
    let store = open_in("second", &path)?;
    let other = Connection::open(&path)?;
    other.execute_batch("BEGIN IMMEDIATE; DELETE FROM wk_meta WHERE name = 'sealed'")?;
    let cursor = std::thread::scope(|scope| -> Result<_> {
        let written = scope.spawn(|| store.set("g", "k", "w"));
        // Long enough for it to see the seal and to wait for the lock; it holds also where it does neither.
        assert!(store.watch("nobody", "*").recv_timeout(Duration::from_millis(100)).is_none());
        other.execute_batch("COMMIT")?;
        Ok(store.cursor(written.join().map_err(|_| "it panicked")??))
    })?;
    assert_eq!(epochs(&path)?, 2);
    assert_eq!(store.revision_of(cursor)?, at(2));
    assert!(store.check()?.is_ok());
    Ok(())
}
