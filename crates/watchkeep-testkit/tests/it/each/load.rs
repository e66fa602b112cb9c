//! Never blocks.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use watchkeep::{Filter, LagPolicy, WatchOptions};

use super::{Fault, ready, relaxed};

/// A value that is counted while it is in memory anywhere.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl Counted {
    fn new(alive: &Arc<AtomicUsize>) -> Counted {
        alive.fetch_add(1, Ordering::SeqCst);
        Counted(vec![b'x'; 1_024], alive.clone())
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn never_blocks() -> Result<(), Fault> {
    const WATCHERS: usize = 1_000;
    const WRITES: usize = 2_000;
    let (_folder, store) = relaxed()?;
    let policies = [LagPolicy::CatchUp, LagPolicy::Drop, LagPolicy::Latest];
    let mut watchers = (0..WATCHERS)
        .map(|number| {
            let options = WatchOptions::new().policy(policies[number % 3]);
            store.watch_with(Filter::everything(), options)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let alive = Arc::new(AtomicUsize::new(0));
    let (mut slowest, began) = (Duration::ZERO, Instant::now());
    for number in 0..WRITES {
        let value = Bytes::from_owner(Counted::new(&alive));
        let called = Instant::now();
        store.set("g", &format!("k{number}"), value)?;
        slowest = slowest.max(called.elapsed());
    }
    let (took, held) = (began.elapsed(), alive.load(Ordering::SeqCst));
    writeln!(
        std::io::stdout(),
        "{WRITES} writes beside {WATCHERS} stalled watchers: {took:?}, the slowest {slowest:?}; {held} values in memory"
    )?;
    // All watchers of a policy hold the same values, at most a buffer's worth. Nothing else holds any.
    assert!(held <= 3 * 16, "{held} values are held in memory");
    assert!(slowest < Duration::from_secs(30), "a write took {slowest:?}");

    // What was not held is not lost to who asked for everything, and counted for who asked for no more.
    for (number, watcher) in watchers.iter_mut().enumerate().step_by(101) {
        let events = ready(watcher)?.len();
        match policies[number % 3] {
            LagPolicy::Drop => assert_eq!((events, watcher.dropped()), (16, u64::try_from(WRITES - 16)?)),
            _ => assert_eq!(events, WRITES),
        }
    }
    drop(watchers);
    assert_eq!(alive.load(Ordering::SeqCst), 0, "values stay in memory that nobody can read");
    Ok(())
}
