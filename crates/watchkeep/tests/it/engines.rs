//! What only some engines have; `docs/conformance.md` names these tests.

use crate::support::{Anywhere as _, Result, anywhere};
use watchkeep::{Durability, Options, Retention, Revision, Store, Waking};

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
fn a_log_is_trimmed_wherever_the_store_does_its_own_chores() -> Result {
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
