//! A reader that is gone while others write, and misses nothing: it starts again from the cursor that it kept.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use watchkeep::{Cursor, Filter, Store, WatchOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");

    // The first life: one event is seen, and its cursor kept, wherever one likes.
    let store = Store::open(&path)?;
    let mut watcher = store.watch("orders", "*");
    store.set("orders", "1", "apples")?;
    let seen = watcher.recv().ok_or("the watch ended")??;
    let kept = store.cursor(seen.revision()).to_string();
    println!("seen order {:?}, kept cursor {kept}", seen.key());
    drop(watcher);

    // Nobody watches, and the store is even closed in between.
    for number in 2..=1_000 {
        store.set("orders", &number.to_string(), "pears")?;
    }
    drop(store);

    // The second life: exactly what was missed, in order, then what happens now.
    let store = Store::open(&path)?;
    let from = WatchOptions::new().after_cursor(kept.parse::<Cursor>()?);
    let mut watcher = store.watch_with(Filter::group("orders"), from)?;
    store.set("orders", "1001", "plums")?;
    for number in 2..=1_001 {
        let event = watcher.recv().ok_or("the watch ended")??;
        assert_eq!(event.key(), Some(number.to_string().as_str()));
    }
    println!("received orders 2 to 1001: none missing, none twice, in order");
    Ok(())
}
