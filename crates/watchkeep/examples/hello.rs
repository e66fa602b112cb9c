//! A store, a watcher and a callback: the whole way of a change.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use watchkeep::{Filter, Revision, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open_in_memory()?;

    // A callback runs before the write returns; a watcher is read whenever one likes.
    let subscription =
        store.on_change(|event| println!("callback: {} {} {:?}", event.kind(), event.group(), event.key()));
    let mut watcher = store.watch("config", "*");

    store.set("config", "theme", "dark")?;
    store.set("config", "size", "12")?;
    store.delete("config", "size")?;
    store.delete_group("config")?;
    subscription.unregister();

    while let Some(event) = watcher.try_recv() {
        let event = event?;
        println!("watcher:  {} {:?} at revision {}", event.kind(), event.key(), event.revision());
    }

    // The change log holds what happened.
    for event in store.history(Filter::everything(), Revision::ZERO) {
        let event = event?;
        println!("log:      {} {} {:?}", event.revision(), event.kind(), event.key());
    }
    Ok(())
}
