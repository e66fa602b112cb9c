//! Watchers as asynchronous streams: woken, caught up, and given up without a loss.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use crate::support::futures::{block_on, next, poll_once};
use crate::support::needs::needs;
use crate::support::numbers::{number, numbers};
use crate::support::{Anywhere as _, LIMIT, Result, anywhere, line, lines, revisions, within_limit};
use futures_core::Stream;
use futures_executor::ThreadPool;
use watchkeep::{
    Clock, ErrorKind, Filter, Item, LagPolicy, Options, Retention, Revision, Timestamp, WatchOptions, Watcher,
};

#[test]
fn dropping_the_future_of_the_next_event_loses_none() -> Result {
    within_limit(|| {
        let store = Options::new().retention(Retention::FOREVER).anywhere()?;
        for (buffer, previous) in [(1, false), (16, false), (1, true), (16, true)] {
            let options = WatchOptions::new().buffer(buffer);
            let options = if previous { options.previous_values() } else { options };
            let mut watcher = store.watch_with(Filter::everything(), options)?;
            let start = number(watcher.start());
            let writer = {
                let store = store.clone();
                thread::spawn(move || (0..300).try_for_each(|n| store.set("g", "k", n.to_string()).map(drop)))
            };
            let mut seen = Vec::new();
            while seen.len() < 300 {
                // Given up after one poll, again and again, each time with a future of its own.
                let polled = poll_once(pin!(next(&mut watcher)));
                match polled {
                    Some(event) => {
                        let event = event.ok_or("it ended")??;
                        assert!(
                            !previous
                                || event.previous_revision().is_none()
                                || event.previous_value().is_some()
                        );
                        seen.push(event.revision());
                    }
                    None => thread::yield_now(),
                }
            }
            assert_eq!(numbers(&seen), (start + 1..=start + 300).collect::<Vec<_>>(), "buffer {buffer}");
            writer.join().map_err(|_| "panicked")??;
        }
        Ok(())
    })
}

/// Reads a watcher in every way by turns; what came.
fn by_turns(watcher: &mut Watcher, many: usize) -> Result<Vec<(u64, bool)>> {
    let mut seen = Vec::new();
    while seen.len() < many {
        let event = match seen.len() % 4 {
            0 => watcher.recv_timeout(LIMIT),
            // A poll that is given up may have sent for something: it must not be lost, nor come twice.
            1 => {
                let polled = poll_once(pin!(next(watcher)));
                polled.unwrap_or_else(|| watcher.recv_timeout(LIMIT))
            }
            2 => block_on(next(watcher)),
            _ => watcher.try_recv(),
        };
        let event = event.ok_or_else(|| format!("nothing after {seen:?}"))??;
        seen.push((number(event.revision()), event.previous_value().is_some()));
    }
    Ok(seen)
}

#[test]
fn a_lagging_watcher_may_be_read_blocking_and_as_a_stream_by_turns() -> Result {
    within_limit(|| {
        let store = Options::new().retention(Retention::FOREVER).anywhere()?;
        let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().buffer(2))?;
        (0..400).try_for_each(|n| store.set("g", &(n % 7).to_string(), n.to_string()).map(drop))?;
        assert_eq!(by_turns(&mut watcher, 400)?, (1..=400).map(|n| (n, false)).collect::<Vec<_>>());
        Ok(())
    })
}

#[test]
fn a_watcher_with_previous_values_may_be_read_blocking_and_as_a_stream_by_turns() -> Result {
    within_limit(|| {
        let store = Options::new().retention(Retention::FOREVER).anywhere()?;
        let options = WatchOptions::new().previous_values().buffer(500);
        let mut watcher = store.watch_with(Filter::everything(), options)?;
        (0..400).try_for_each(|n| store.set("g", &(n % 7).to_string(), n.to_string()).map(drop))?;
        assert_eq!(by_turns(&mut watcher, 400)?, (1..=400).map(|n| (n, n > 7)).collect::<Vec<_>>());
        Ok(())
    })
}

#[test]
fn a_watch_from_a_snapshot_may_be_read_blocking_and_as_a_stream_by_turns() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        (0..1_500).try_for_each(|n| store.set("g", &format!("{n:04}"), "v").map(drop))?;
        let options = WatchOptions::new().snapshot().buffer(3);
        let mut watcher = store.watch_with(Filter::everything(), options)?;
        assert_eq!(by_turns(&mut watcher, 1_500)?, (1..=1_500).map(|n| (n, false)).collect::<Vec<_>>());
        assert!(watcher.try_recv().is_none());
        Ok(())
    })
}

/// A clock that makes the store's workers panic, once it is told to.
#[derive(Debug, Default)]
struct Trap(AtomicBool);

impl Clock for Trap {
    fn now(&self) -> Timestamp {
        let caught = thread::current().name() == Some("watchkeep-worker");
        if caught && self.0.load(Ordering::SeqCst) {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        Timestamp::from_millis(1_000_000)
    }
}

#[test]
fn a_worker_that_panics_over_a_stream_ends_it_with_an_error() -> Result {
    within_limit(|| {
        let trap = Arc::new(Trap::default());
        let folder = tempfile::tempdir()?;
        // Their reads ask the clock, which is where the trap is.
        let options = || Options::new().clock(trap.clone());
        let (file, memory) = (options().open(folder.path().join("app.db"))?, options().open_in_memory()?);
        for store in [&file, &memory] {
            store.set("g", "k", "v")?;
        }
        let (snapshot, log) = (WatchOptions::new().snapshot(), WatchOptions::new().after(Revision::ZERO));
        let ways = [&file, &memory].into_iter().flat_map(|store| [(store, &snapshot), (store, &log)]);
        for (store, options) in ways {
            trap.0.store(true, Ordering::SeqCst);
            let mut watcher = store.watch_with(Filter::everything(), options.clone())?;
            let told = block_on(next(&mut watcher)).ok_or("it ended in silence")?;
            assert_eq!(told.map_err(|error| error.kind()).map(drop), Err(ErrorKind::Io));
            assert!(block_on(next(&mut watcher)).is_none() && watcher.is_ended());
            trap.0.store(false, Ordering::SeqCst);
        }
        Ok(())
    })
}

#[test]
fn a_stream_catches_up_from_the_log_and_goes_on_live() -> Result {
    within_limit(|| {
        let store = Options::new().retention(Retention::FOREVER).anywhere()?;
        (0..700).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
        let mut watcher =
            store.watch_with(Filter::everything(), WatchOptions::new().after(Revision::ZERO))?;
        let asynchronous = store.to_async();
        let seen = block_on(async {
            let mut seen = Vec::new();
            for _ in 0..700 {
                seen.push(next(&mut watcher).await.ok_or("ended")??);
            }
            for number in 0..100 {
                asynchronous.set("h", &number.to_string(), "v").await?;
                seen.push(next(&mut watcher).await.ok_or("ended")??);
            }
            Result::<Vec<_>>::Ok(seen)
        })?;
        assert_eq!(revisions(&seen), (1..=800).collect::<Vec<_>>());
        Ok(())
    })
}

#[test]
fn a_stream_of_items_has_the_snapshot_its_marks_and_what_is_lost() -> Result {
    needs!(Trimming);
    within_limit(|| {
        let store = Options::new().retention(Retention::FOREVER).anywhere()?;
        (0..300).try_for_each(|n| store.set("g", &format!("{n:03}"), "v").map(drop))?;
        let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().snapshot().buffer(4))?;
        block_on(async {
            let mut items = watcher.items();
            for _ in 0..300 {
                let item = next(&mut items).await.ok_or("ended")??;
                assert!(item.event().is_some_and(|event| event.is_snapshot()));
            }
            assert!(matches!(next(&mut items).await, Some(Ok(Item::Ready(at))) if at.get() == 300));
            (0..50).try_for_each(|n| store.set("h", &n.to_string(), "v").map(drop))?;
            store.compact(Revision::new(340))?;
            let (mut after, mut lost) = (300, 0);
            while after < 350 {
                match next(&mut items).await.ok_or("ended")?? {
                    Item::Event(event) => {
                        assert_eq!(event.revision().get(), after + 1);
                        after += 1;
                    }
                    Item::Lagged(lagged) => {
                        assert_eq!(lagged.from.get(), after + 1);
                        after = lagged.to.get();
                        lost += 1;
                    }
                    other => return Err(format!("unexpected: {other:?}").into()),
                }
            }
            assert_eq!(lost, 1);
            Ok(())
        })
    })
}

#[test]
fn a_waiting_stream_is_woken_by_an_event_a_stop_a_close_and_an_expiry() -> Result {
    within_limit(|| {
        let clock = Arc::new(watchkeep::ManualClock::default());
        let pool = ThreadPool::builder().pool_size(2).create()?;
        for (wake, expected) in
            [("event", "1 set g/k=v"), ("stop", "end"), ("close", "end"), ("expiry", "2 expire t/k=v")]
        {
            let store = Options::new().clock(clock.clone()).anywhere()?;
            if wake == "expiry" {
                store.set_with_ttl("t", "k", "v", Duration::from_secs(1))?;
            }
            let mut watcher = store.watch("*", "*");
            let stopper = watcher.stopper();
            let ((polled, waits), (done, result)) = (mpsc::channel(), mpsc::channel());
            pool.spawn_ok(async move {
                let mut said = false;
                let event = std::future::poll_fn(|cx| {
                    let poll = Pin::new(&mut watcher).poll_next(cx);
                    if !std::mem::replace(&mut said, true) {
                        polled.send(poll.is_pending()).ok();
                    }
                    poll
                });
                done.send(event.await).ok();
            });
            assert!(waits.recv_timeout(LIMIT)?, "{wake}");
            match wake {
                "event" => drop(store.set("g", "k", "v")?),
                "stop" => stopper.stop(),
                "close" => store.close()?,
                _ => clock.advance(Duration::from_secs(1)),
            }
            let seen = result.recv_timeout(LIMIT)?.transpose()?.map(|event| line(&event));
            assert_eq!(seen.as_deref().unwrap_or("end"), expected, "{wake}");
        }
        Ok(())
    })
}

#[test]
fn a_task_that_moves_to_another_waker_is_woken_there() -> Result {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let store = anywhere()?;
    let mut watcher = store.watch("*", "*");
    let (old, new) = (Arc::new(Count(AtomicUsize::new(0))), Arc::new(Count(AtomicUsize::new(0))));
    for count in [&old, &new] {
        let waker = Waker::from(count.clone());
        assert!(Pin::new(&mut watcher).poll_next(&mut Context::from_waker(&waker)).is_pending());
    }
    store.set("g", "k", "v")?;
    assert_eq!((old.0.load(Ordering::SeqCst), new.0.load(Ordering::SeqCst)), (0, 1));
    Ok(())
}

#[test]
fn other_policies_work_as_streams_too() -> Result {
    within_limit(|| {
        let store = anywhere()?;
        let options = |policy| WatchOptions::new().buffer(2).policy(policy);
        let mut latest = store.watch_with(Filter::everything(), options(LagPolicy::Latest))?;
        let mut dropping = store.watch_with(Filter::everything(), options(LagPolicy::Drop))?;
        (0..50).try_for_each(|n| store.set("g", &(n % 2).to_string(), n.to_string()).map(drop))?;
        let pair = [block_on(next(&mut latest)), block_on(next(&mut latest))];
        let pair: Vec<_> = pair.into_iter().flatten().collect::<std::result::Result<_, _>>()?;
        assert_eq!(lines(&pair), ["49 set g/0=48", "50 set g/1=49"]);
        assert!(poll_once(pin!(next(&mut latest))).is_none());
        assert!(block_on(next(&mut dropping)).is_some() && block_on(next(&mut dropping)).is_some());
        assert!(poll_once(pin!(next(&mut dropping))).is_none());
        assert_eq!(dropping.dropped(), 48);
        Ok(())
    })
}
