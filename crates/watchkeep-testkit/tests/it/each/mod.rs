//! One test for each promise, bearing its name, with a scenario made for it. What generated workloads show of all of
//! them together is in `promises.rs`; expiry by the machine's clock is evidence: `tests/evidence`.

mod beginnings;
mod delivery;
mod durability;
mod edges;
mod load;
mod order;
mod policies;
mod time;

use watchkeep::{Durability, Event, Options, Result, Store, Watcher};

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// A store in a file that survives a killed process, for scenarios that write much.
fn relaxed() -> std::result::Result<(tempfile::TempDir, Store), Fault> {
    let folder = tempfile::tempdir()?;
    let store = Options::new().durability(Durability::Relaxed).open(folder.path().join("store.db"))?;
    Ok((folder, store))
}

/// What a watcher has, without waiting.
fn ready(watcher: &mut Watcher) -> Result<Vec<Event>> {
    std::iter::from_fn(|| watcher.try_recv()).collect()
}

/// The revisions of events.
fn revisions<'e>(events: impl IntoIterator<Item = &'e Event>) -> Vec<u64> {
    events.into_iter().map(|event| event.revision().get()).collect()
}
