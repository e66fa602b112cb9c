//! Large values lie apart from their entries, and go with them.

use crate::support::{LIMIT, Result, eventually, file_of};
use rusqlite::Connection;
use std::sync::Arc;
use tempfile::TempDir;
use watchkeep::{Durability, ListOptions, ManualClock, Options, Store};

/// Lies in the row of a key of one byte, and one byte more does not.
const SMALL: usize = 499;

fn store(clock: &Arc<ManualClock>) -> Result<(TempDir, Store)> {
    let folder = tempfile::tempdir()?;
    let options = Options::new().durability(Durability::Relaxed).clock(clock.clone());
    let store = options.open(folder.path().join("app.db"))?;
    Ok((folder, store))
}

/// The sizes of the values that lie apart.
fn apart(store: &Store) -> Result<Vec<i64>> {
    let conn = Connection::open(file_of(store))?;
    let mut statement = conn.prepare("SELECT octet_length(value) FROM wk_values ORDER BY created")?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

fn is_sound(store: &Store) -> Result {
    assert_eq!(store.check()?.problems, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_value_is_read_back_whatever_its_size_and_whatever_it_replaces() -> Result {
    let (_folder, store) = store(&Arc::default())?;
    let sizes = [0, 1, SMALL - 1, SMALL, SMALL + 1, 5_000, 100_000];
    for before in sizes {
        for after in sizes {
            for byte in [b'a', 0xff] {
                let (old, new) = (vec![byte; before], vec![byte; after]);
                store.set("g", "k", &old[..])?;
                store.set("g", "k", &new[..])?;
                assert_eq!(store.get("g", "k")?.as_deref(), Some(&new[..]), "{before} to {after}");
                let entry = store.entry("g", "k")?.ok_or("no entry")?;
                assert_eq!(&*entry.value, &new[..]);
                let listed = store.page("g", ListOptions::new())?.entries;
                assert_eq!((listed.len(), &*listed[0].value), (1, &new[..]));
                assert_eq!(store.keys_page("g", ListOptions::new())?.keys[0].bytes, after as u64);
                let expected = if after > SMALL { vec![i64::try_from(after)?] } else { Vec::new() };
                assert_eq!(apart(&store)?, expected, "{before} to {after}");
            }
        }
    }
    is_sound(&store)
}

#[test]
fn what_goes_takes_its_value_along() -> Result {
    let clock = Arc::new(ManualClock::default());
    let (_folder, store) = store(&clock)?;
    let large = vec![b'x'; 500];
    store.set("g", "deleted", &large[..])?;
    store.set_with_ttl("g", "expired", &large[..], LIMIT)?;
    store.set("g", "kept", &large[..])?;
    store.touch("g", "kept", LIMIT * 2)?;
    for number in 0..2_000 {
        store.set("buried", &number.to_string(), if number % 3 == 0 { &large[..] } else { &b"v"[..] })?;
    }
    assert_eq!(apart(&store)?.len(), 3 + 667);
    store.delete("g", "deleted")?;
    assert_eq!(apart(&store)?.len(), 2 + 667);
    clock.advance(LIMIT);
    eventually("it expires", || Ok(apart(&store)?.len() == 1 + 667))?;
    store.delete_group("buried")?;
    eventually("it is swept", || Ok(apart(&store)? == [500]))?;
    assert_eq!(store.get("g", "kept")?.as_deref(), Some(&large[..]));
    is_sound(&store)
}

#[test]
fn a_transaction_that_fails_leaves_the_values_as_they_were() -> Result {
    let (_folder, store) = store(&Arc::default())?;
    let (old, new) = (vec![b'o'; 2_000], vec![b'n'; 3_000]);
    store.set("g", "k", &old[..])?;
    let failed = store.transaction(|tx| {
        tx.set("g", "k", &new[..])?;
        assert_eq!(tx.get("g", "k")?.as_deref(), Some(&new[..]));
        tx.set("g", "other", &new[..])?;
        Err::<(), _>(watchkeep::Error::abort("on purpose"))
    });
    assert!(failed.is_err());
    assert_eq!((store.get("g", "k")?.as_deref(), apart(&store)?), (Some(&old[..]), vec![2_000]));
    is_sound(&store)
}

#[test]
fn a_value_that_is_lost_or_too_many_is_found() -> Result {
    for damage in [
        "DELETE FROM wk_values",
        "INSERT INTO wk_values VALUES (99, 'x')",
        "UPDATE wk_values SET value = value || 'x'",
        "UPDATE wk_entries SET apart = apart + 1",
        "UPDATE wk_entries SET apart = NULL",
        "UPDATE wk_values SET created = 7",
    ] {
        let (_folder, store) = store(&Arc::default())?;
        store.set("g", "k", vec![b'x'; 2_000])?;
        Connection::open(file_of(&store))?.execute_batch(damage)?;
        assert!(!store.check()?.is_ok(), "{damage}");
    }
    Ok(())
}
