//! Everything at once for some time: memory, descriptors and the write-ahead log stay as they are.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use watchkeep::{Durability, Filter, LagPolicy, Options, Retention, Store, WatchOptions};
use watchkeep_testkit::faults::Row;
use watchkeep_testkit::size::scaled;
use watchkeep_testkit::surface::Fault;

/// Far above what a checkpoint every 1,000 pages leaves, far below what a log without one would be.
const WAL: u64 = 256 << 20;
/// Tests beside this one use memory too; a leak of one event in a thousand would be more.
const GROWTH: u64 = 192 << 20;

fn resident() -> Result<u64, Fault> {
    let pages = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = pages.split(' ').nth(1).ok_or("no resident size")?.parse()?;
    Ok(pages * 4_096)
}

/// How many descriptors this process has of a folder's files.
fn descriptors(folder: &str) -> Result<usize, Fault> {
    let mut number = 0;
    for descriptor in fs::read_dir("/proc/self/fd")? {
        let target = fs::read_link(descriptor?.path()).unwrap_or_default();
        number += usize::from(target.to_string_lossy().contains(folder));
    }
    Ok(number)
}

/// Sets, expiring sets, transactions and deletions, a kilobyte each, with a pause now and then.
fn write(store: &Store, stop: &AtomicBool) -> Result<(), Fault> {
    let (_never, pause) = mpsc::channel::<()>();
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (group, key) = (format!("g{}", number % 7), (number % 500).to_string());
        match number % 8 {
            0 => drop(store.delete(&group, &key)?),
            1 => drop(store.set_with_ttl(&group, &key, vec![b'x'; 1_000], Duration::from_millis(300))?),
            2 => drop(store.transaction(|tx| (0..5).try_for_each(|n| tx.set("many", &n.to_string(), "v")))?),
            3 if number % 800 == 3 => drop(store.delete_group(&group)?),
            _ => drop(store.set(&group, &key, vec![b'x'; 1_000])?),
        }
        if number % 50 == 0 {
            let _ = pause.recv_timeout(Duration::from_millis(10));
        }
    }
    Ok(())
}

fn read(store: &Store, number: usize, stop: &AtomicBool) -> Result<(), Fault> {
    let policies = [LagPolicy::CatchUp, LagPolicy::Latest, LagPolicy::Drop];
    let policy = policies.get(number % policies.len()).copied().unwrap_or_default();
    let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().policy(policy))?;
    let mut last = watcher.start();
    while !stop.load(Ordering::Relaxed) {
        match watcher.recv_timeout(Duration::from_millis(100)) {
            Some(Ok(event)) => {
                assert!(policy == LagPolicy::Latest || event.revision() > last);
                last = event.revision();
            }
            Some(Err(error)) if error.lagged().is_some() => {}
            Some(Err(error)) => return Err(error.into()),
            None => {}
        }
    }
    Ok(())
}

#[test]
fn time_leaves_memory_descriptors_and_log_as_they_were() -> Result<(), Fault> {
    let folder = tempfile::tempdir()?;
    let name = folder.path().file_name().ok_or("no name")?.to_string_lossy().into_owned();
    let store = Options::new()
        .durability(Durability::Relaxed)
        .retention(Retention { min_events: 1_000, ..Retention::events(5_000) })
        .open(folder.path().join("store.db"))?;
    let stop = AtomicBool::new(false);
    let (_never, pause) = mpsc::channel::<()>();
    let stalled = store.watch("*", "*");
    std::thread::scope(|scope| -> Result<(), Fault> {
        let writers: Vec<_> = (0..2).map(|_| scope.spawn(|| write(&store, &stop))).collect();
        let readers: Vec<_> = (0..6)
            .map(|number| {
                let (store, stop) = (&store, &stop);
                scope.spawn(move || read(store, number, stop))
            })
            .collect();
        let watched = (|| -> Result<(), Fault> {
            let (began, mut warm) = (Instant::now(), None);
            let (mut most_open, mut largest_log) = (0, 0);
            let soak = Duration::from_secs(scaled(12));
            while began.elapsed() < soak {
                let _ = pause.recv_timeout(Duration::from_millis(500));
                most_open = most_open.max(descriptors(&name)?);
                largest_log = largest_log.max(store.stats()?.wal_bytes);
                if warm.is_none() && began.elapsed() >= soak / 6 {
                    warm = Some((resident()?, store.stats()?));
                }
            }
            let (before, then) = warm.ok_or("too short")?;
            let (after, now) = (resident()?, store.stats()?);
            let growth = after.saturating_sub(before);
            let counts = [
                ("most-descriptors", most_open as u64),
                ("most-log-bytes", largest_log),
                ("growth-bytes", growth),
            ];
            let counts = counts.map(|(what, count)| (what.to_owned(), count)).into();
            Row { rounds: soak.as_secs(), counts, ..Row::default() }.print("soak-seconds");
            assert!(after < before + GROWTH, "{before} bytes grew to {after}");
            assert!(largest_log < WAL, "the write-ahead log grew to {largest_log} bytes");
            assert!(most_open <= 64, "{most_open} descriptors");
            assert!(now.last_revision > then.last_revision && now.log_events < 12_000, "{now:?}");
            assert!(now.file_bytes < 4 * then.file_bytes, "{} grew to {}", then.file_bytes, now.file_bytes);
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        for thread in writers.into_iter().chain(readers) {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        watched
    })?;
    drop(stalled);
    assert_eq!(store.check()?.problems, Vec::<String>::new());
    Ok(())
}
