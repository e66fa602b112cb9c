//! Thousands of watchers that come and go, some of which never read, beside writers that do not notice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use watchkeep::{Durability, Filter, Options, Retention, WatchOptions};
use watchkeep_testkit::surface::Fault;

const OPEN: usize = 2_000;
const OPENED: usize = 20_000;

#[test]
fn watchers_that_come_and_go_leave_nothing_behind() -> Result<(), Fault> {
    let folder = tempfile::tempdir()?;
    let store = Options::new()
        .durability(Durability::Relaxed)
        .retention(Retention::events(10_000))
        .open(folder.path().join("store.db"))?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<(), Fault> {
        let writer = scope.spawn(|| -> Result<(u64, Duration), Fault> {
            let (mut written, mut slowest) = (0, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                store.set("g", &(written % 100).to_string(), "v")?;
                slowest = slowest.max(began.elapsed());
                written += 1;
            }
            Ok((written, slowest))
        });
        let churned = (|| -> Result<(), Fault> {
            let mut open = std::collections::VecDeque::new();
            for number in 0..OPENED {
                // Most want one key; every tenth wants all, and of those a part never reads.
                let filter = match number % 10 {
                    0 => Filter::everything(),
                    _ => Filter::key("g", (number % 100).to_string()),
                };
                let mut watcher = store.watch_with(filter, WatchOptions::new())?;
                if number % 100 != 0 {
                    // What there is, in order.
                    let mut last = watcher.start();
                    while let Some(event) = watcher.try_recv() {
                        let revision = event?.revision();
                        assert!(revision > last);
                        last = revision;
                    }
                }
                open.push_back(watcher);
                if open.len() > OPEN {
                    drop(open.pop_front());
                }
            }
            assert_eq!(store.stats()?.watchers, OPEN as u64);
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        let (written, slowest) = writer.join().map_err(|_| "the writer panicked")??;
        churned?;
        assert!(written > 1_000, "only {written} writes");
        assert!(slowest < Duration::from_secs(5), "a write took {slowest:?}");
        assert_eq!(store.stats()?.watchers, 0);
        Ok(())
    })
}
