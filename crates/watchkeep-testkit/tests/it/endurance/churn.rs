//! Thousands of watchers that come and go, some of which never read, beside writers that do not notice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use watchkeep::{Durability, Filter, Options, Retention, WatchOptions};
use watchkeep_testkit::faults::Row;
use watchkeep_testkit::size::scaled;
use watchkeep_testkit::surface::Fault;

/// So many at once.
const OPEN: usize = 1_000;
/// As many writes beside them, at least.
const WRITES: u64 = 1_000;

#[test]
fn watchers_that_come_and_go_leave_nothing_behind() -> Result<(), Fault> {
    let folder = tempfile::tempdir()?;
    let store = Options::new()
        .durability(Durability::Relaxed)
        .retention(Retention::events(10_000))
        .open(folder.path().join("store.db"))?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<(), Fault> {
        let writer = scope.spawn(|| -> Result<Duration, Fault> {
            let (mut written, mut slowest) = (0, Duration::ZERO);
            while written < WRITES || !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                store.set("g", &(written % 100).to_string(), "v")?;
                slowest = slowest.max(began.elapsed());
                written += 1;
            }
            Ok(slowest)
        });
        let churned = (|| -> Result<(), Fault> {
            let mut open = std::collections::VecDeque::new();
            for number in 0..scaled(2_000) {
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
        let slowest = writer.join().map_err(|_| "the writer panicked")??;
        churned?;
        assert!(slowest < Duration::from_secs(30), "a write took {slowest:?}");
        assert_eq!(store.stats()?.watchers, 0);
        Row { rounds: scaled(2_000), counts: [("at-once".to_owned(), OPEN as u64)].into(), ..Row::default() }
            .print("churn");
        Ok(())
    })
}
