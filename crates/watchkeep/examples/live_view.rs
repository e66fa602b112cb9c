//! What a user interface wants: the current state first, then changes, and of a busy key only the newest. After a loss
//! the view begins again.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;

use watchkeep::{Event, Filter, Item, Kind, LagPolicy, Result, Store, Value, WatchOptions, Watcher};

/// The sensors as they are, kept up to date.
struct View<'a> {
    store: &'a Store,
    watcher: Watcher,
    is_ready: bool,
    values: BTreeMap<String, Value>,
}

impl View<'_> {
    fn of(store: &Store) -> Result<View<'_>> {
        let options = WatchOptions::new().snapshot().policy(LagPolicy::Latest).buffer(16);
        let watcher = store.watch_with(Filter::group("sensors"), options)?;
        Ok(View { store, watcher, is_ready: false, values: BTreeMap::new() })
    }

    /// Takes in what has come; how many events and losses that was. A real one would wait, with `recv`.
    fn update(&mut self) -> Result<(u64, u64)> {
        let (mut events, mut losses) = (0, 0);
        while let Some(item) = self.watcher.items().try_recv() {
            match item? {
                Item::Event(event) => {
                    events += 1;
                    self.apply(&event);
                }
                Item::Ready(_) => self.is_ready = true,
                // What was lost may have changed anything, and only a new snapshot says what is there now.
                Item::Lagged(_) if self.is_ready => {
                    losses += 1;
                    *self = View::of(self.store)?;
                }
                // The snapshot itself begins again.
                Item::Lagged(_) => self.values.clear(),
                _ => {}
            }
        }
        Ok((events, losses))
    }

    fn apply(&mut self, event: &Event) {
        match (event.kind(), event.key(), event.value()) {
            (Kind::Set, Some(key), Some(value)) => {
                self.values.insert(key.to_owned(), value.clone());
            }
            (Kind::DeleteGroup, ..) => self.values.clear(),
            (_, Some(key), _) => {
                self.values.remove(key);
            }
            _ => {}
        }
    }

    /// Whether it shows what is there.
    fn is_right(&self) -> Result<bool> {
        let there = self.store.entries("sensors").map(|entry| entry.map(|entry| (entry.key, entry.value)));
        Ok(self.values == there.collect::<Result<BTreeMap<_, _>>>()?)
    }
}

fn main() -> Result<()> {
    let store = Store::open_in_memory()?;
    store.set("sensors", "kitchen", "19.5")?;
    store.set("sensors", "cellar", "12.0")?;

    // The state comes first; it is read when it is asked for.
    let mut view = View::of(&store)?;
    view.update()?;
    println!("first {:?}", view.values);
    assert!(view.is_ready && view.is_right()?);

    // A sensor that is faster than any screen.
    for step in 0..10_000 {
        store.set("sensors", "kitchen", format!("{:.1}", 19.5 + f64::from(step) / 1_000.0))?;
    }
    store.delete("sensors", "cellar")?;
    let (updates, _) = view.update()?;
    println!("now {:?}, after {updates} updates for 10,001 events", view.values);
    assert!(view.is_right()?);

    // More sensors than the buffer holds, and then the log forgets what they said.
    for number in 0..100 {
        store.set("sensors", &format!("attic-{number:02}"), "30.0")?;
    }
    store.delete("sensors", "kitchen")?;
    store.compact(store.last_revision()?)?;
    let (_, losses) = view.update()?;
    println!("and {} sensors, after {losses} loss", view.values.len());
    assert!(losses == 1 && view.is_right()?);
    Ok(())
}
