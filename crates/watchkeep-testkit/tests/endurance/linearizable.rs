//! Concurrent callers on two stores of one file, which are like two processes, are told what one order explains.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use watchkeep::{DeleteOptions, Durability, ErrorKind, Options, Retention, Revision, SetOptions, Store};
use watchkeep_testkit::surface::Fault;
use watchkeep_testkit::witness::{Call, Told, faults};

const CLIENTS: usize = 8;
const CALLS: usize = 25_000;
const KEYS: u32 = 50;

fn open(path: &Path) -> Result<Store, Fault> {
    Ok(Options::new().durability(Durability::Relaxed).retention(Retention::events(10_000)).open(path)?)
}

/// One client: reads, sets, sets on condition, deletes, of keys that the others work on too.
fn client(store: &Store, seed: u64) -> Result<Vec<Call>, Fault> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut seen: BTreeMap<u32, Revision> = BTreeMap::new();
    let mut calls = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let number = random.u32(..KEYS);
        let (key, known) = (number.to_string(), seen.get(&number).copied());
        let called = Instant::now();
        let told = match (random.u8(..10), known) {
            (0..5, _) => Told::Stood(store.entry("g", &key)?.map(|entry| entry.revision)),
            (5..8, Some(expected)) => {
                match store.set_with("g", &key, "v", SetOptions::new().if_revision(expected)) {
                    Ok(revision) => Told::Set(revision, Some(expected)),
                    Err(error) if error.kind() == ErrorKind::Conflict => {
                        Told::Stood(error.current_revision())
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            (8, _) => {
                let done = store.transaction(|tx| tx.delete_with("g", &key, DeleteOptions::new()))?;
                if done.value { Told::Deleted(done.revision) } else { Told::Stood(None) }
            }
            _ => Told::Set(store.set("g", &key, "v")?, None),
        };
        calls.push(Call { key: number, called, returned: Instant::now(), told });
        match told {
            Told::Set(revision, _) | Told::Stood(Some(revision)) => seen.insert(number, revision),
            Told::Stood(None) | Told::Deleted(_) => seen.remove(&number),
        };
    }
    Ok(calls)
}

#[test]
fn what_concurrent_callers_are_told_is_linearizable() -> Result<(), Fault> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.db");
    let stores = [open(&path)?, open(&path)?];
    let all = Mutex::new(Vec::new());
    let failed = std::thread::scope(|scope| {
        let clients: Vec<_> = (1..)
            .take(CLIENTS)
            .zip(stores.iter().cycle())
            .map(|(seed, store)| {
                let all = &all;
                scope.spawn(move || {
                    client(store, seed).map(|calls| all.lock().map(|mut all| all.extend(calls)).is_ok())
                })
            })
            .collect();
        clients.into_iter().filter_map(|client| client.join().ok()?.err()).next()
    });
    if let Some(fault) = failed {
        return Err(fault);
    }
    let calls = all.into_inner()?;
    assert_eq!(calls.len(), CLIENTS * CALLS);
    let writes = calls.iter().filter(|call| !matches!(call.told, Told::Stood(_))).count();
    assert!(writes > calls.len() / 4, "only {writes} writes");
    assert_eq!(faults(&calls), Vec::<String>::new());
    Ok(())
}
