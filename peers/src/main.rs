//! `watchkeep-bench` with the stores that a user would take instead: each a file here, behind the same traits.

mod fjall;
mod lmdb;
mod native_db;
mod redb;
mod sled;

use std::process::ExitCode;

use watchkeep_bench::{Cell, Contender, Name, Workload, version_in};

static PEERS: &[&dyn Contender] =
    &[&redb::Redb, &fjall::Fjall, &sled::Sled, &lmdb::Lmdb, &native_db::NativeDb];

fn main() -> ExitCode {
    watchkeep_bench::main(PEERS)
}

/// What each may keep in memory.
const CACHE: usize = 256 << 20;
/// How many entries are written in one transaction when many are.
const BATCH: usize = 2_000;

/// A peer's version, as it is built in.
fn version_of(package: &str) -> &'static str {
    version_in(include_str!("../Cargo.lock"), package)
}

/// What every store with keys in order does.
fn stores(cell: &Cell) -> bool {
    use Workload::*;
    matches!(
        cell.workload,
        Set | Get
            | GetZipf
            | GetBusy
            | GetCold
            | Batch
            | Scan
            | ImportSorted
            | ImportRandom
            | DeleteGroup
            | Open
            | Growth
    )
}

/// What a store does that tells of changes. Both that do look at each watcher at each set: with a million, a cell would
/// take minutes.
fn watches(cell: &Cell) -> bool {
    matches!(cell.workload, Workload::Latency | Workload::FanOut | Workload::Selectivity)
        && cell.size <= 100_000
}

/// One ordered space of keys: the group, then the key.
fn flat(name: &Name) -> String {
    format!("{}/{}", name.group, name.key)
}

/// From where to where the flat keys of a group go.
fn bounds(group: &str) -> (String, String) {
    (format!("{group}/"), format!("{group}0"))
}

/// The batches of a load: for each entry its flat key and its value.
fn batches<'n>(
    names: &'n [Name],
    count: usize,
) -> impl Iterator<Item = watchkeep_bench::Result<Vec<(String, String)>>> + 'n {
    (0..count).step_by(BATCH).map(move |from| {
        let mut batch = Vec::with_capacity(BATCH);
        for serial in from..count.min(from + BATCH) {
            let number = serial % names.len().max(1);
            let mut text = String::new();
            watchkeep_bench::value(&mut text, number, serial as u64)?;
            batch.push((flat(names.get(number).ok_or("no such name")?), text));
        }
        Ok(batch)
    })
}
