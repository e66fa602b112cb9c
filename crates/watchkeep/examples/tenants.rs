//! Tenants that share a file: each sees, counts and watches only its own, within its limits.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use watchkeep::{ErrorKind, Quota, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open_in_memory()?;
    let quota = Quota { max_keys: 2, ..Quota::default() };
    let red = store.scoped("red")?.with_quota(quota)?;
    let blue = store.scoped("blue")?.with_quota(quota)?;

    let mut watcher = blue.watch("*", "*");
    red.set("config", "theme", "dark")?;
    blue.set("config", "theme", "light")?;

    // Blue sees its own change, under its own names.
    let event = watcher.recv().ok_or("the watch ended")??;
    println!("blue saw {} {:?} = {:?}", event.group(), event.key(), event.value());
    assert!(watcher.try_recv().is_none());

    // The third key is one too many; overwriting is not.
    red.set("config", "size", "12")?;
    red.set("config", "size", "13")?;
    match red.set("config", "font", "mono") {
        Err(error) if error.kind() == ErrorKind::QuotaExceeded => println!("red was refused: {error}"),
        other => return Err(format!("the quota did not hold: {other:?}").into()),
    }
    println!(
        "red holds {} keys, blue {}, the store {}",
        red.count_all("")?,
        blue.count_all("")?,
        store.count_all("")?
    );
    Ok(())
}
