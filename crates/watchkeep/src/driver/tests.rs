//! The driver by itself.
#![expect(clippy::expect_used, reason = "a test fails by it")]

use std::sync::mpsc;
use std::thread;

use super::crew::{Driver, Size};
use super::*;
use crate::types::sync::{Mutex, lock};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::types::limits::IDLE_WORKER;

/// Far longer than anything takes that goes right.
const LIMIT: Duration = Duration::from_secs(60);
const SMALL: Size = Size { at_once: 1, work: 3, vital: 1 };

/// What a lane does in a round.
struct Does<F>(F);

impl<F: Fn(Lane, Woken) -> Option<Duration> + Send + Sync> Rounds for Does<F> {
    fn round(&self, lane: Lane, woken: Woken) -> Option<Duration> {
        (self.0)(lane, woken)
    }
}

fn driver(size: Size) -> Arc<Driver> {
    Driver::new(size).expect("descriptors")
}

fn enter(driver: &Arc<Driver>) -> Arc<Signal> {
    driver.enter().expect("threads").expect("it has not ended")
}

fn begin(
    driver: &Arc<Driver>,
    rounds: impl Fn(Lane, Woken) -> Option<Duration> + Send + Sync + 'static,
) -> Arc<Signal> {
    let signal = enter(driver);
    signal.begin(Arc::new(Does(rounds)));
    signal
}

/// A store whose lane of work says what it was woken by.
fn listener(driver: &Arc<Driver>, pause: Option<Duration>) -> (Arc<Signal>, mpsc::Receiver<Woken>) {
    let (told, woken) = mpsc::channel();
    let signal = begin(driver, move |lane, woken| {
        if lane == Lane::Work {
            told.send(woken).ok();
        }
        pause
    });
    assert!(woken.recv_timeout(LIMIT).expect("the first round").is(Woken::RAISED));
    (signal, woken)
}

#[test]
fn a_lane_is_served_when_it_begins_when_it_is_raised_and_when_its_time_is_over() {
    let driver = driver(SMALL);
    let (quiet, raised) = listener(&driver, None);
    let (_timed, over) = listener(&driver, Some(Duration::from_millis(1)));
    assert!(over.recv_timeout(LIMIT).expect("its time is over").is(Woken::TIMER));
    quiet.raise(Lane::Work);
    assert!(raised.recv_timeout(LIMIT).expect("raised").is(Woken::RAISED));
}

#[test]
fn no_raise_is_lost_and_no_lane_is_served_twice_at_once() {
    let (driver, seen) = (driver(Size { at_once: 4, ..SMALL }), Arc::new(Mutex::new((0_u64, false))));
    let (number, at_end) = (Arc::new(Mutex::new(0_u64)), mpsc::channel());
    let (shared, counted, told) = (seen.clone(), number.clone(), at_end.0);
    let signal = begin(&driver, move |lane, _| {
        if lane == Lane::Work {
            assert!(!std::mem::replace(&mut lock(&shared).1, true), "it is served twice");
            thread::yield_now();
            let now = *lock(&counted);
            let mut seen = lock(&shared);
            *seen = (now, false);
            drop(seen);
            if now == 40_000 {
                told.send(()).ok();
            }
        }
        None
    });
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    *lock(&number) += 1;
                    signal.raise(Lane::Work);
                }
            });
        }
    });
    at_end.1.recv_timeout(LIMIT).expect("the last raise was seen");
}

#[test]
fn those_that_never_rest_take_turns() {
    let (driver, served) = (driver(Size { at_once: 1, work: 1, vital: 0 }), Arc::new(Mutex::new(Vec::new())));
    let (told, done) = mpsc::channel();
    let signals: Vec<_> = (0..3)
        .map(|store| {
            let (served, told) = (served.clone(), told.clone());
            begin(&driver, move |lane, _| {
                let mut served = lock(&served);
                if lane == Lane::Vital || served.len() >= 300 {
                    return None;
                }
                served.push(store);
                if served.len() == 300 {
                    told.send(()).ok();
                }
                Some(Duration::ZERO)
            })
        })
        .collect();
    done.recv_timeout(LIMIT).expect("300 rounds");
    let served = lock(&served);
    // Once all three have come.
    let begun =
        (0..3).filter_map(|store| served.iter().position(|other| *other == store)).max().expect("all");
    for three in served[begun + 1..].windows(3) {
        assert!(three[0] != three[1] && three[1] != three[2] && three[0] != three[2], "{three:?}");
    }
    drop(signals);
}

#[test]
fn who_waits_for_what_another_store_does_gets_a_worker_for_it() {
    let driver = driver(SMALL);
    let (go_on, waits) = mpsc::channel();
    let (told, done) = mpsc::channel();
    let waits = Mutex::new(waits);
    // The only worker waits here ...
    let _one = begin(&driver, move |lane, _| {
        if lane == Lane::Work {
            lock(&waits).recv_timeout(LIMIT).expect("the other is served");
            told.send(()).ok();
        }
        None
    });
    // ... for this.
    let _other = begin(&driver, move |lane, _| {
        if lane == Lane::Work {
            go_on.send(()).ok();
        }
        None
    });
    done.recv_timeout(LIMIT).expect("both are served");
}

#[test]
fn vital_lanes_are_served_while_all_that_may_be_kept_are() {
    let driver = driver(SMALL);
    let (release, waits) = mpsc::channel::<()>();
    let waits = Arc::new(Mutex::new(waits));
    let (told, kept) = mpsc::channel();
    let mut keepers = Vec::new();
    for _ in 0..SMALL.work + 2 {
        let (waits, told) = (waits.clone(), told.clone());
        keepers.push(begin(&driver, move |lane, _| {
            if lane == Lane::Work {
                told.send(()).ok();
                // Its end is what they wait for.
                lock(&waits).recv_timeout(LIMIT).ok();
            }
            None
        }));
    }
    for _ in 0..SMALL.work {
        kept.recv_timeout(LIMIT).expect("a worker is kept");
    }
    let (told, vital) = mpsc::channel();
    let late = begin(&driver, move |lane, _| {
        if lane == Lane::Vital {
            told.send(()).ok();
        }
        None
    });
    vital.recv_timeout(LIMIT).expect("it is served");
    // A worker that has gone to sleep is woken, whatever waits in the other lane.
    let start = Instant::now();
    for _ in 0..3 {
        late.raise(Lane::Vital);
        vital.recv_timeout(LIMIT).expect("and again");
    }
    assert!(start.elapsed() < IDLE_WORKER, "nobody was woken, one woke by itself: {:?}", start.elapsed());
    drop(release);
}

#[test]
fn the_last_store_to_go_does_not_wait_for_what_another_that_went_is_kept_by() {
    let driver = driver(SMALL);
    let (release, waits) = mpsc::channel::<()>();
    let (told, kept) = mpsc::channel();
    let waits = Mutex::new(waits);
    let one = enter(&driver);
    let ends = Arc::downgrade(&one);
    one.begin(Arc::new(Does(move |lane, _| {
        if lane == Lane::Work {
            // It goes, and something of it is still under way.
            ends.upgrade().expect("a store").end(Some(Lane::Work));
            told.send(()).ok();
            lock(&waits).recv_timeout(LIMIT).ok();
        }
        None
    })));
    let other = enter(&driver);
    kept.recv_timeout(LIMIT).expect("it is kept");
    other.end(None);
    drop(release);
}

#[test]
fn a_panic_ends_one_lane_and_nothing_else() {
    let driver = driver(SMALL);
    let (told, served) = mpsc::channel();
    let signal = begin(&driver, move |lane, _| {
        if lane == Lane::Work {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        told.send(()).ok();
        None
    });
    served.recv_timeout(LIMIT).expect("the vital lane");
    let (other, woken) = listener(&driver, None);
    signal.raise(Lane::Work);
    signal.raise(Lane::Vital);
    served.recv_timeout(LIMIT).expect("the vital lane again");
    other.raise(Lane::Work);
    woken.recv_timeout(LIMIT).expect("the other store");
    signal.end(None);
}

#[test]
fn an_end_waits_for_the_round_under_way_and_nothing_is_done_after_it() {
    let driver = driver(SMALL);
    let _stays = enter(&driver);
    let (told, begun) = mpsc::channel();
    let (go_on, waits) = mpsc::channel::<()>();
    let (waits, is_done) = (Mutex::new(waits), Arc::new(Mutex::new(false)));
    let does = is_done.clone();
    let signal = begin(&driver, move |lane, _| {
        if lane == Lane::Work {
            assert!(!*lock(&does), "it has ended");
            told.send(()).ok();
            lock(&waits).recv_timeout(LIMIT).ok();
            *lock(&does) = true;
        }
        Some(Duration::ZERO)
    });
    begun.recv_timeout(LIMIT).expect("a round");
    thread::scope(|scope| {
        let ending = scope.spawn(|| {
            signal.end(None);
            *lock(&is_done)
        });
        go_on.send(()).expect("it waits");
        assert!(ending.join().expect("no panic"), "the end waited");
    });
    signal.raise(Lane::Work);
}

#[test]
fn with_the_last_store_a_driver_ends_and_its_threads_with_it() {
    let driver = driver(SMALL);
    let (first, second) = (listener(&driver, None), listener(&driver, Some(LIMIT)));
    first.0.end(None);
    second.0.raise(Lane::Work);
    second.1.recv_timeout(LIMIT).expect("it goes on");
    second.0.end(None);
    // The threads are joined: nobody else holds the driver but what is here.
    assert!(driver.enter().expect("no fault").is_none());
    drop((first, second));
    assert_eq!(Arc::strong_count(&driver), 1);
}

#[test]
fn a_process_gets_a_fresh_driver_when_the_one_before_has_ended() {
    let many: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(|| {
                for _ in 0..100 {
                    let signal = of_this_process().expect("a driver");
                    let (told, served) = mpsc::channel();
                    signal.begin(Arc::new(Does(move |lane, _| {
                        if lane == Lane::Work {
                            told.send(()).ok();
                        }
                        None
                    })));
                    served.recv_timeout(LIMIT).expect("it is served");
                    signal.end(None);
                }
            })
        })
        .collect();
    many.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

#[cfg(all(target_os = "linux", not(watchkeep_portable)))]
#[test]
fn two_stores_on_one_file_hear_together_and_one_that_goes_silences_nobody() -> std::io::Result<()> {
    let (driver, folder) = (driver(SMALL), tempfile::tempdir()?);
    let path = folder.path().join("wake");
    std::fs::write(&path, "0")?;
    let ((one, heard_by_one), (other, heard_by_other)) = (listener(&driver, None), listener(&driver, None));
    let hears = |heard: &mpsc::Receiver<Woken>| heard.recv_timeout(LIMIT).expect("it hears").is(Woken::HEARD);
    assert!(one.listen(&path, false) && other.listen(&path, false));
    std::fs::write(&path, "1")?;
    assert!(hears(&heard_by_one) && hears(&heard_by_other));
    // What was heard is over: nobody is woken by what he did not ask for.
    assert!(other.listen(&path, false));
    std::fs::write(&path, "2")?;
    assert!(hears(&heard_by_other));
    assert!(heard_by_one.try_recv().is_err());
    assert!(one.listen(&path, false) && other.listen(&path, false));
    one.end(None);
    std::fs::write(&path, "3")?;
    assert!(hears(&heard_by_other));
    Ok(())
}

#[cfg(all(target_os = "linux", not(watchkeep_portable)))]
#[test]
fn whoever_listens_in_time_misses_nothing() -> std::io::Result<()> {
    let (driver, folder) = (driver(Size { at_once: 2, ..SMALL }), tempfile::tempdir()?);
    let path = folder.path().join("wake");
    std::fs::write(&path, 0_u64.to_le_bytes())?;
    let stores = [(); 3].map(|()| {
        let signal = enter(&driver);
        let (told, read) = mpsc::channel();
        let (own, file) = (Arc::downgrade(&signal), path.clone());
        signal.begin(Arc::new(Does(move |lane, _| {
            if lane == Lane::Work {
                // First listened, then looked.
                assert!(own.upgrade().is_none_or(|own| own.listen(&file, false)));
                let bytes: Option<[u8; 8]> =
                    std::fs::read(&file).ok().and_then(|bytes| bytes.try_into().ok());
                told.send(bytes.map(u64::from_le_bytes).unwrap_or_default()).ok();
            }
            None
        })));
        (signal, read)
    });
    let file = std::fs::File::options().write(true).open(&path)?;
    for number in 1..=2_000_u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, &number.to_le_bytes(), 0)?;
        if number % 100 == 0 {
            for (_, read) in &stores {
                while read.recv_timeout(LIMIT).expect("it hears") < number {}
            }
        }
    }
    Ok(())
}

#[test]
fn a_round_may_be_the_last_to_hold_its_store() {
    struct Closes(Mutex<Option<Arc<Signal>>>, mpsc::Sender<()>);
    impl Rounds for Closes {
        fn round(&self, lane: Lane, _: Woken) -> Option<Duration> {
            if lane == Lane::Work
                && let Some(signal) = &*lock(&self.0)
            {
                signal.end(Some(Lane::Work));
            }
            None
        }
    }
    impl Drop for Closes {
        fn drop(&mut self) {
            drop(lock(&self.0).take());
            self.1.send(()).ok();
        }
    }
    let driver = driver(SMALL);
    let _stays = enter(&driver);
    let (told, gone) = mpsc::channel();
    let signal = enter(&driver);
    signal.begin(Arc::new(Closes(Mutex::new(Some(signal.clone())), told)));
    drop(signal);
    gone.recv_timeout(LIMIT).expect("it does not wait for itself");
}

/// At the fork another thread may hold any lock of the parent's: here this one does.
#[cfg(unix)]
#[test]
fn a_forked_child_touches_no_lock_of_its_parents() -> std::io::Result<()> {
    let signal = of_this_process()?;
    let forked = process::while_held(|| {
        let forked = fork::fork()?;
        if let fork::Fork::Child = forked {
            signal.raise(Lane::Work);
            signal.end(None);
            let own = of_this_process()?;
            let (told, served) = mpsc::channel();
            own.begin(Arc::new(Does(move |_, _| {
                told.send(()).ok();
                None
            })));
            std::process::exit(i32::from(served.recv_timeout(LIMIT).is_err()));
        }
        Ok::<_, std::io::Error>(forked)
    })
    .expect("a place")?;
    if let fork::Fork::Parent(child) = forked {
        let (told, ended) = mpsc::channel();
        thread::spawn(move || told.send(fork::waitpid(child)));
        assert_eq!(ended.recv_timeout(LIMIT * 2).expect("the child ends")?, 0);
    }
    Ok(())
}
