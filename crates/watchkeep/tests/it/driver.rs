//! One driver a process: stores share its threads, and nobody else's trouble.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::Connection;
use watchkeep::{
    ConsumerOptions, Durability, ErrorKind, Event, Filter, Kind, ManualClock, Options, Store, WatchOptions,
};

use crate::support::futures::{block_on, poll_once};
use crate::support::{LIMIT, Result, eventually, file_of, next, within_limit};

/// Far more stores than the driver starts workers for at once.
const MANY: usize = 70;

fn options() -> Options {
    Options::new().durability(Durability::Relaxed).ballast(false).busy_timeout(LIMIT * 2)
}

/// A store, and a second handle on the same file: what it writes is another's commit, for which no thread waits.
fn pair(folder: &Path, name: &str, options: Options) -> Result<(Store, Store)> {
    let path = folder.join(name);
    Ok((options.clone().open(&path)?, options.open(&path)?))
}

/// Has a store called back, in the background: whoever gets the sender keeps the callback until it is dropped.
fn keep(store: &Store, other: &Store) -> Result<Sender<()>> {
    let (release, released) = mpsc::channel::<()>();
    let (told, entered) = mpsc::channel();
    let released: Mutex<Receiver<()>> = Mutex::new(released);
    store
        .on_change(move |event| {
            if event.group() == "keep" {
                told.send(()).ok();
                // Its end is what is waited for.
                let _ = released.lock().map(|released| released.recv_timeout(LIMIT * 2));
            }
        })
        .detach();
    other.set("keep", "k", "v")?;
    entered.recv_timeout(LIMIT)?;
    Ok(release)
}

#[test]
fn stores_that_others_block_delay_no_other() -> Result {
    within_limit(|| {
        let folder = tempfile::tempdir()?;
        let clock = Arc::new(ManualClock::default());
        let (mut blocked, mut writing) = (Vec::new(), Vec::new());
        for number in 0..MANY {
            let store = options().clock(clock.clone()).open(folder.path().join(format!("{number}.db")))?;
            store.set_with_ttl("g", "k", "v", Duration::from_secs(1))?;
            let neighbour = Connection::open(file_of(&store))?;
            neighbour.execute_batch("BEGIN IMMEDIATE")?;
            let mut write = Box::pin(store.to_async().set("g", "asynchronous", "v"));
            assert!(poll_once(write.as_mut()).is_none());
            writing.push(write);
            blocked.push((store, neighbour));
        }
        // Whatever is due there waits as well.
        clock.advance(Duration::from_secs(1));
        let other = options().open(folder.path().join("other.db"))?;
        let mut watcher = other.watch("*", "*");
        other.set_with_ttl("g", "k", "v", Duration::from_millis(20))?;
        let events = [next(&mut watcher)?, next(&mut watcher)?];
        assert_eq!(events.map(|event| event.kind()), [Kind::Set, Kind::Expire]);
        block_on(other.to_async().set("g", "asynchronous", "v"))?;
        for (_, neighbour) in &blocked {
            neighbour.execute_batch("ROLLBACK")?;
        }
        for write in writing {
            block_on(write)?;
        }
        for (store, _) in &blocked {
            eventually("it expires", || Ok(store.counters().expired == 1))?;
        }
        Ok(())
    })
}

#[test]
fn callbacks_may_wait_for_what_other_stores_write() -> Result {
    within_limit(|| {
        let folder = tempfile::tempdir()?;
        // Each waits for the one after it.
        let mut stores = Vec::new();
        for number in 0..10 {
            stores.push(pair(folder.path(), &format!("{number}.db"), options())?);
        }
        let (told, done) = mpsc::channel();
        for number in 0..9 {
            let (waits_for, told) = (stores[number + 1].0.clone().to_async(), told.clone());
            let calls = move |event: &Event| {
                if event.group() == "go" {
                    told.send(block_on(waits_for.set("g", "k", "v")).is_ok()).ok();
                }
            };
            stores[number].0.on_change(calls).detach();
        }
        for (_, other) in &stores {
            other.set("go", "k", "v")?;
        }
        for _ in 0..9 {
            assert!(done.recv_timeout(LIMIT)?);
        }
        Ok(())
    })
}

#[test]
fn leases_live_on_and_entries_expire_while_a_callback_is_slow() -> Result {
    within_limit(|| {
        let folder = tempfile::tempdir()?;
        let clock = Arc::new(ManualClock::default());
        let (store, other) = pair(folder.path(), "app.db", options().clock(clock.clone()))?;
        let lease = Duration::from_secs(30);
        let consumer = store.consumer_with("billing", ConsumerOptions::new().lease(lease))?;
        for number in 1..=6 {
            store.set_with_ttl("timed", &number.to_string(), "v", lease / 3 * number)?;
        }
        let mut watcher = store.watch("timed", "*");
        let kept = keep(&store, &other)?;
        // What another handle removes is heard of behind the callback.
        other.close()?;
        let until = || -> Result<_> {
            let consumers = store.consumers()?;
            Ok(consumers.first().and_then(|consumer| consumer.holder.clone()).ok_or("nobody holds it")?.until)
        };
        for number in 1..=6 {
            let before = until()?;
            clock.advance(lease / 3);
            eventually("a sign of life", || Ok(until()? > before))?;
            let event = next(&mut watcher)?;
            assert_eq!((event.kind(), event.key()), (Kind::Expire, Some(&*number.to_string())));
        }
        drop(kept);
        consumer.close()?;
        Ok(())
    })
}

#[test]
fn a_callback_may_close_and_drop_another_store_whatever_that_does() -> Result {
    within_limit(|| {
        let folder = tempfile::tempdir()?;
        let (one, one_other) = pair(folder.path(), "one.db", options())?;
        let (two, two_other) = pair(folder.path(), "two.db", options())?;
        let kept = keep(&two, &two_other)?;
        let (told, closed) = mpsc::channel();
        let weak = two.downgrade();
        let held = Mutex::new(Some(two));
        one.on_change(move |_| {
            let two = held.lock().ok().and_then(|mut held| held.take());
            told.send(two.is_some_and(|two| two.close().is_ok())).ok();
        })
        .detach();
        one_other.set("g", "k", "v")?;
        // Its callback is still under way.
        assert!(closed.recv_timeout(LIMIT)?);
        drop(kept);
        eventually("it closes", || Ok(weak.upgrade().is_none_or(|store| store.is_closed())))
    })
}

#[test]
fn a_watcher_that_comes_to_a_quiet_store_hears_of_others_at_once() -> Result {
    let folder = tempfile::tempdir()?;
    let (store, other) = pair(folder.path(), "app.db", options())?;
    for number in 0..20 {
        let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new())?;
        other.set("g", "k", number.to_string())?;
        assert_eq!(next(&mut watcher)?.kind(), Kind::Set);
    }
    Ok(())
}

/// Runs the rest of a test in a process of its own, where there are no threads but its own.
#[cfg(target_os = "linux")]
fn is_alone(test: &str) -> Result<bool> {
    if std::env::var_os("WATCHKEEP_TEST_ALONE").is_some() {
        return Ok(true);
    }
    let output = std::process::Command::new(std::env::current_exe()?)
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env("WATCHKEEP_TEST_ALONE", "1")
        .output()?;
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    Ok(false)
}

/// The threads of this process by name.
#[cfg(target_os = "linux")]
fn threads(name: &str) -> Result<usize> {
    let mut number = 0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        // One that has just ended has no name any more.
        let found = std::fs::read_to_string(thread?.path().join("comm")).unwrap_or_default();
        number += usize::from(found.trim_end() == name);
    }
    Ok(number)
}

/// The descriptors of this process that are of a kind.
#[cfg(target_os = "linux")]
fn descriptors(kind: &str) -> Result<usize> {
    let mut number = 0;
    for descriptor in std::fs::read_dir("/proc/self/fd")? {
        let target = std::fs::read_link(descriptor?.path()).unwrap_or_default();
        number += usize::from(target.to_string_lossy().contains(kind));
    }
    Ok(number)
}

#[cfg(target_os = "linux")]
#[test]
fn two_hundred_stores_use_the_threads_and_descriptors_of_one() -> Result {
    if !is_alone("driver::two_hundred_stores_use_the_threads_and_descriptors_of_one")? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut stores = Vec::new();
    for number in 0..200 {
        let (store, other) = pair(folder.path(), &format!("{}.db", number % 100), options())?;
        let watcher = store.watch("*", "*");
        stores.push((store, other, watcher));
        if number % 20 == 19 {
            assert_eq!([descriptors("inotify")?, descriptors("eventfd")?], [1, 1], "{number} stores");
        }
    }
    for (_, other, watcher) in &mut stores {
        other.set("g", "k", "v")?;
        assert_eq!(next(watcher)?.kind(), Kind::Set);
    }
    // More are there only while more have something to do at once.
    eventually("one waits, and no more serve than cores", || Ok((2..=5).contains(&threads("watchkeep")?)))?;
    drop(stores);
    let all = || Ok([threads("watchkeep")?, descriptors("inotify")?]);
    eventually("with the last all are gone", || all().map(|all: [usize; 2]| all == [0; 2]))
}

#[cfg(target_os = "linux")]
#[test]
fn a_forked_child_has_a_driver_of_its_own() -> Result {
    if !is_alone("driver::a_forked_child_has_a_driver_of_its_own")? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (store, other) = pair(folder.path(), "app.db", options())?;
    let mut watcher = store.watch("*", "*");
    // What is at work in SQLite while it forks is of no use in the child.
    let mut calm = 0;
    eventually("all are at rest", || {
        let mut rest = true;
        for thread in std::fs::read_dir("/proc/self/task")? {
            let stat = std::fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
            rest &= stat.contains("(watchkeep") <= stat.contains(") S");
        }
        calm = if rest { calm + 1 } else { 0 };
        Ok(calm == 5)
    })?;
    let told = folder.path().join("told");
    match fork::fork()? {
        fork::Fork::Child => {
            let done =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| child(folder.path(), &store)));
            let text = match done {
                Ok(Ok(())) => "well".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it panicked".to_owned(),
            };
            let _ = std::fs::write(&told, text);
            // Nothing of the parent's is to be dropped here.
            std::process::exit(0);
        }
        fork::Fork::Parent(child) => {
            // Whatever the child does, the parent's watcher hears of everything.
            for number in 0..50 {
                other.set("g", "k", number.to_string())?;
                assert_eq!(
                    next(&mut watcher)?.value().and_then(|value| value.as_str()),
                    Some(&*number.to_string())
                );
            }
            fork::waitpid(child)?;
            assert_eq!(std::fs::read_to_string(told)?, "well");
            Ok(())
        }
    }
}

/// In a child: what is inherited is refused, and what it opens works.
#[cfg(target_os = "linux")]
fn child(folder: &Path, inherited: &Store) -> Result {
    inherited.close()?;
    let again = options().open(folder.join("app.db")).err().ok_or("a file of the parent's was opened")?;
    assert_eq!(again.kind(), ErrorKind::InvalidArgument, "{again}");
    let (store, other) = pair(folder, "child.db", options())?;
    let mut watcher = store.watch("*", "*");
    for number in 0..20 {
        other.set("g", "k", number.to_string())?;
        assert_eq!(next(&mut watcher)?.kind(), Kind::Set);
    }
    store.set_with_ttl("g", "timed", "v", Duration::from_millis(5))?;
    assert_eq!([next(&mut watcher)?.kind(), next(&mut watcher)?.kind()], [Kind::Set, Kind::Expire]);
    block_on(store.to_async().set("g", "asynchronous", "v"))?;
    let threads = threads("watchkeep")?;
    assert!((2..=5).contains(&threads), "{threads} are its own");
    store.close()?;
    other.close()?;
    Ok(())
}
