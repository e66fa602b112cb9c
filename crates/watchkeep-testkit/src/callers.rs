//! Concurrent callers on several stores of one place, which are like several processes, and what they were told.

use std::collections::BTreeMap;
use std::time::Instant;

use watchkeep::{DeleteOptions, ErrorKind, Revision, SetOptions, Store};

use crate::surface::Fault;
use crate::witness::{Call, Told};

/// How many call at once, how often each, and of how many keys.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// How many callers.
    pub callers: usize,
    /// How many calls each makes.
    pub calls: usize,
    /// Of how many keys.
    pub keys: u32,
}

/// A history of all that the callers were told of the keys of a group, which nobody else writes to.
///
/// # Errors
///
/// What a call failed with, but for a condition that does not hold.
pub fn history(stores: &[Store], group: &str, size: Size, seed: u64) -> Result<Vec<Call>, Fault> {
    let history = std::thread::scope(|scope| {
        let callers: Vec<_> = (seed..)
            .take(size.callers)
            .zip(stores.iter().cycle())
            .map(|(seed, store)| scope.spawn(move || caller(store, group, size, seed)))
            .collect();
        let told = callers.into_iter().map(|caller| caller.join().map_err(|_| "a caller panicked")?);
        told.collect::<Result<Vec<_>, Fault>>()
    })?;
    Ok(history.concat())
}

/// One caller: reads, sets, sets on condition, deletes, of keys that the others work on too.
fn caller(store: &Store, group: &str, size: Size, seed: u64) -> Result<Vec<Call>, Fault> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut seen: BTreeMap<u32, Revision> = BTreeMap::new();
    let mut calls = Vec::with_capacity(size.calls);
    for _ in 0..size.calls {
        let number = random.u32(..size.keys);
        let (key, known) = (number.to_string(), seen.get(&number).copied());
        let called = Instant::now();
        let told = match random.u8(..10) {
            0..5 => Told::Stood(store.entry(group, &key)?.map(|entry| entry.revision)),
            5..8 => {
                let options = SetOptions::new();
                let options = match known {
                    Some(revision) => options.if_revision(revision),
                    None => options.if_absent(),
                };
                match store.set_with(group, &key, "v", options) {
                    Ok(revision) => Told::SetOver(revision, known),
                    Err(error) if error.kind() == ErrorKind::Conflict => {
                        Told::Stood(error.current_revision())
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            8 => {
                let done = store.transaction(|tx| tx.delete_with(group, &key, DeleteOptions::new()))?;
                if done.value { Told::Deleted(done.revision) } else { Told::Stood(None) }
            }
            _ => Told::Set(store.set(group, &key, "v")?),
        };
        let call = Call { key: number, called, returned: Instant::now(), told };
        calls.push(call);
        match told {
            Told::Set(revision) | Told::SetOver(revision, _) | Told::Stood(Some(revision)) => {
                seen.insert(number, revision)
            }
            Told::Stood(None) | Told::Deleted(_) => seen.remove(&number),
        };
    }
    Ok(calls)
}
