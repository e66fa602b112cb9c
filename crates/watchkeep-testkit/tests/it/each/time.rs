//! Expiry on time, by a clock that is moved.

use std::sync::Arc;
use std::time::Duration;

use watchkeep::{Clock, Filter, Kind, ManualClock, Options, WatchOptions};

use super::{Fault, ready};

#[test]
fn expiry_on_time_by_a_moved_clock() -> Result<(), Fault> {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).open_in_memory()?;
    let mut watcher =
        store.watch_with(Filter::everything().kinds([Kind::Expire]), WatchOptions::new().buffer(64))?;
    for number in 1..=50_u64 {
        store.set_with_ttl(
            "g",
            &format!("k{number:02}"),
            number.to_string(),
            Duration::from_millis(number * 10),
        )?;
    }
    for number in 1..=50_u64 {
        let key = format!("k{number:02}");
        clock.advance(Duration::from_millis(9));
        assert!(store.contains("g", &key)?, "{key} went too early");
        clock.advance(Duration::from_millis(1));
        // Invisible at once, to every read, whatever the timer has done.
        assert!(!store.contains("g", &key)?, "{key} is still there");
        assert_eq!(store.count("g")?, 50 - number);
        assert_eq!(store.entries("g").count(), usize::try_from(50 - number)?);
        let event = watcher.recv_timeout(Duration::from_secs(60)).ok_or("no expiry came")??;
        assert_eq!(
            (event.key(), event.value().map(|value| value.to_string_lossy().into_owned())),
            (Some(&*key), Some(number.to_string()))
        );
        assert!(event.timestamp() >= event.deadline().ok_or("no deadline")?);
        assert!(event.timestamp() <= clock.now());
    }
    assert!(ready(&mut watcher)?.is_empty());
    assert_eq!(store.groups("").count(), 0);
    Ok(())
}

#[test]
fn what_expired_while_the_store_was_closed_is_announced() -> Result<(), Fault> {
    let folder = tempfile::tempdir()?;
    let clock = Arc::new(ManualClock::default());
    let open = || Options::new().clock(clock.clone()).open(folder.path().join("store.db"));
    let store = open()?;
    let set = store.set_with_ttl("g", "k", "v", Duration::from_secs(60))?;
    store.close()?;
    clock.advance(Duration::from_secs(61));
    let store = open()?;
    assert!(store.get("g", "k")?.is_none());
    let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().after(set))?;
    let event = watcher.recv_timeout(Duration::from_secs(60)).ok_or("no expiry came")??;
    assert_eq!((event.kind(), event.key()), (Kind::Expire, Some("k")));
    Ok(())
}
