//! Expiry by the machine's clock.

use std::time::Duration;

use watchkeep::{Clock, Filter, Kind, Store, SystemClock, WatchOptions};
use watchkeep_testkit::faults::Row;

/// The promise is 50 ms for 99 of 100 on an idle machine. This machine may be anything but idle.
const GENEROUS: Duration = Duration::from_millis(500);
const KEYS: u64 = 400;

#[test]
fn expiry_on_time() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open_in_memory()?;
    let mut watcher =
        store.watch_with(Filter::everything().kinds([Kind::Expire]), WatchOptions::new().buffer(64))?;
    for number in 0..KEYS {
        let ttl = Duration::from_millis(300 + number * 7 % 1_500);
        store.set_with_ttl(&format!("g{}", number % 10), &number.to_string(), "v", ttl)?;
    }
    let mut delays: Vec<Duration> = Vec::new();
    for _ in 0..KEYS {
        let event = watcher.recv_timeout(Duration::from_secs(120)).ok_or("an expiry is missing")??;
        let (now, deadline) = (SystemClock.now(), event.deadline().ok_or("no deadline")?);
        assert!(now >= deadline && event.timestamp() >= deadline, "{event:?} came before its deadline");
        delays.push(now.since(deadline));
    }
    delays.sort();
    let at = |percent: usize| delays[(delays.len() * percent).div_ceil(100).saturating_sub(1)];
    let (p50, p99, most) = (at(50), at(99), at(100));
    let micros = [("p50-us", p50), ("p99-us", p99), ("most-us", most)];
    let counts =
        micros.map(|(what, took)| (what.to_owned(), u64::try_from(took.as_micros()).unwrap_or(u64::MAX)));
    Row { rounds: KEYS, counts: counts.into(), ..Row::default() }.print("expiry");
    assert!(p99 < GENEROUS, "p99 is {p99:?}");
    assert_eq!(store.count_all("")?, 0);
    Ok(())
}
