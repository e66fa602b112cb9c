//! Uses everything of a store once, so that a trace shows which files the process opens. The path is the argument; without
//! one, the file is a temporary one.

use std::error::Error;
use std::time::Duration;

use watchkeep::{Event, Filter, Kind, ListOptions, Options, Retention, Revision, Store, WatchOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = std::env::args().nth(1).map_or_else(|| folder.path().join("app.db"), Into::into);
    for round in 0..2 {
        let store = Options::new().retention(Retention::events(100)).open(&path)?;
        let mut watcher = store.watch("*", "*");
        store.on_change(|_| {}).detach();
        for number in 0..300 {
            store.set("g", &number.to_string(), vec![b'x'; 20_000])?;
        }
        store.set_with_ttl("t", "k", "v", Duration::from_millis(1))?;
        // Until it expires; what was trimmed on the way is of no interest.
        let expired = |event: watchkeep::Result<Event>| event.is_ok_and(|event| event.kind() == Kind::Expire);
        watcher.find_map(|event| expired(event).then_some(())).ok_or("the watch ended")?;
        let mut late = store.watch_with(Filter::everything(), WatchOptions::new().snapshot())?;
        late.recv().ok_or("the watch ended")??;
        store.transaction(|tx| tx.delete("g", "0"))?;
        let snapshot = store.snapshot()?;
        snapshot.entries("g").try_for_each(|entry| entry.map(drop))?;
        store.page("g", ListOptions::new())?;
        store.history(Filter::everything(), Revision::ZERO).for_each(drop);
        store.compact(store.last_revision()?)?;
        store.stats()?;
        store.check()?;
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| store.entries("g").try_for_each(|entry| entry.map(drop)));
            }
        });
        store.delete_group("g")?;
        let again = Store::open(&path)?;
        again.set("h", &round.to_string(), "v")?;
        drop(again);
        store.close()?;
        // A reader that still drains opens the file once more.
        late.for_each(drop);
    }
    Ok(())
}
