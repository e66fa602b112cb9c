//! What a user interface wants: the current state first, then changes, and of a busy key only the newest.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;

use watchkeep::{Event, Filter, Item, Kind, LagPolicy, Store, Value, WatchOptions};

fn apply(view: &mut BTreeMap<String, Value>, event: &Event) {
    match (event.kind(), event.key(), event.value()) {
        (Kind::Set, Some(key), Some(value)) => {
            view.insert(key.to_owned(), value.clone());
        }
        (Kind::DeleteGroup, ..) => view.clear(),
        (_, Some(key), _) => {
            view.remove(key);
        }
        _ => {}
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open_in_memory()?;
    store.set("sensors", "kitchen", "19.5")?;
    store.set("sensors", "cellar", "12.0")?;

    let options = WatchOptions::new().snapshot().policy(LagPolicy::Latest);
    let mut watcher = store.watch_with(Filter::group("sensors"), options)?;

    // The state comes first; it is read when it is asked for.
    let (mut view, mut updates) = (BTreeMap::new(), 0);
    for item in watcher.items() {
        match item? {
            Item::Event(event) => apply(&mut view, &event),
            Item::Ready(revision) => {
                println!("the state at revision {revision}: {view:?}");
                break;
            }
            _ => {}
        }
    }

    // A sensor that is faster than any screen.
    for step in 0..10_000 {
        store.set("sensors", "kitchen", format!("{:.1}", 19.5 + f64::from(step) / 1_000.0))?;
    }
    store.delete("sensors", "cellar")?;
    let last = store.last_revision()?;

    for item in watcher.items() {
        match item? {
            Item::Event(event) => {
                updates += 1;
                apply(&mut view, &event);
                if event.revision() == last {
                    break;
                }
            }
            // What was lost may have changed anything: a view begins again.
            Item::Lagged(_) => view.clear(),
            _ => {}
        }
    }
    println!("now {view:?}, after {updates} updates for 10,001 events");
    assert_eq!(view.len(), 1);
    Ok(())
}
