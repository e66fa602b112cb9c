//! Two stores on one file are to each other what two processes are.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Result, eventually, next};
use watchkeep::{Options, Revision, Store, Waking};

fn wake_file(store: &Path) -> PathBuf {
    store.with_extension("db-wake")
}

fn two() -> Result<(tempfile::TempDir, PathBuf, Store, Store)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.db");
    Ok((folder, path.clone(), Store::open(&path)?, Store::open(&path)?))
}

#[test]
fn watchers_of_both_see_one_order() -> Result {
    let (_folder, _, one, other) = two()?;
    let mut watchers = [one.watch("*", "*"), other.watch("*", "*")];
    for number in 1..=300_u64 {
        let store = if number % 3 == 0 { &other } else { &one };
        assert_eq!(store.set("g", &(number % 7).to_string(), number.to_string())?, Revision::new(number));
        if number % 50 == 0 {
            for watcher in &mut watchers {
                for expected in number - 49..=number {
                    let event = next(watcher)?;
                    assert_eq!(event.revision(), Revision::new(expected));
                    assert_eq!(event.value().and_then(|value| value.as_str()), Some(&*expected.to_string()));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_write_announces_first_what_the_other_committed() -> Result {
    let (_folder, _, one, other) = two()?;
    let mut watcher = one.watch("*", "*");
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let in_callback = seen.clone();
    let subscription = one.on_change(move |event| {
        in_callback.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(event.revision());
    });
    other.set("g", "k", "theirs")?;
    let mine = one.set("g", "k", "mine")?;
    // At once, when the write has returned: both are there, in their order.
    assert_eq!(watcher.try_recv().ok_or("theirs")??.revision(), Revision::new(1));
    assert_eq!(watcher.try_recv().ok_or("mine")??.revision(), mine);
    assert_eq!(*seen.lock().map_err(|_| "poisoned")?, [Revision::new(1), mine]);
    subscription.unregister();
    Ok(())
}

#[cfg(target_os = "linux")]
#[test]
fn the_wake_file_comes_back_and_without_it_the_file_is_polled() -> Result {
    let (_folder, path, one, other) = two()?;
    assert_eq!((one.stats()?.waking, other.stats()?.waking), (Waking::Signal, Waking::Signal));
    fs::remove_file(wake_file(&path))?;
    eventually("it is made again", || Ok(wake_file(&path).exists()))?;
    let mut watcher = one.watch("*", "*");
    other.set("g", "k", "v")?;
    assert_eq!(next(&mut watcher)?.revision(), Revision::new(1));

    // Something that is no file is in its place; whoever makes the file again may be faster, once.
    eventually("a folder takes its place", || {
        Ok(fs::remove_file(wake_file(&path)).is_ok() && fs::create_dir(wake_file(&path)).is_ok())
    })?;
    eventually("both notice", || {
        Ok(one.stats()?.waking == Waking::Poll && other.stats()?.waking == Waking::Poll)
    })?;
    other.set("g", "k", "v")?;
    assert_eq!(next(&mut watcher)?.revision(), Revision::new(2));
    Ok(())
}

#[test]
fn a_private_store_has_nobody_to_hear() -> Result {
    assert_eq!(Options::new().open_in_memory()?.stats()?.waking, Waking::Alone);
    Ok(())
}

#[cfg(unix)]
#[test]
fn the_wake_file_is_the_owners_alone_and_never_a_link() -> Result {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir()?;
    let (path, victim) = (folder.path().join("store.db"), folder.path().join("victim"));
    fs::write(&victim, "precious")?;
    symlink(&victim, wake_file(&path))?;
    let store = Store::open(&path)?;
    store.set("g", "k", "v")?;
    assert_eq!((store.stats()?.waking, fs::read(&victim)?), (Waking::Poll, b"precious".to_vec()));
    fs::remove_file(wake_file(&path))?;
    eventually("a file of ours is made", || Ok(store.stats()?.waking == Waking::Signal))?;
    assert_eq!(fs::metadata(wake_file(&path))?.permissions().mode() & 0o777, 0o600);
    Ok(())
}
