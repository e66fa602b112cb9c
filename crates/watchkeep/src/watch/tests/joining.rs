//! The joining of the live feed, in every interleaving that differs, as loom finds them: readers that fall behind and
//! join again while others commit, dispatch, overflow their buffers, stop them and close the store.
//!
//! Waits have no timeouts here: a wake-up that is lost is a deadlock, which loom reports.

use std::sync::Arc;

use loom::thread;

use crate::driver::Signal;
use crate::engine::memory::{MemoryEngine, ordinal};
use crate::engine::workers::Workers;
use crate::engine::{Close, Engine, Settled};
use crate::types::clock::ManualClock;
use crate::types::filter::Filter;
use crate::types::revision::Revision;
use crate::types::tests::schedules::{Schedules, setting};
use crate::types::watching::{LagPolicy, WatchOptions};
use crate::watch::Hub;
use crate::watch::watcher::Watcher;

/// How often a thread is interrupted at most where it could go on, unless `WATCHKEEP_PREEMPTIONS` says otherwise.
const PREEMPTIONS: usize = 2;

/// A hub over an engine.
struct Scene {
    engine: Arc<MemoryEngine>,
    hub: Arc<Hub>,
}

impl Scene {
    fn new() -> Scene {
        let signal = Signal::unheard();
        let engine = MemoryEngine::model(signal.clone());
        let hub = Hub::new(
            engine.clone(),
            Arc::new(ManualClock::default()),
            signal,
            Arc::new(Workers::new(2)),
            Revision::ZERO,
        );
        Scene { engine, hub }
    }

    /// A watcher of everything from the beginning, which has room for so many events.
    fn watch(&self, room: usize) -> Watcher {
        self.watch_with(&WatchOptions::new().after(Revision::ZERO).buffer(room))
    }

    fn watch_with(&self, options: &WatchOptions) -> Watcher {
        Watcher::new(&self.hub, Filter::everything(), "", options).unwrap()
    }

    fn write(&self) {
        let last = self.engine.commit_here();
        self.hub.deliver(last);
    }

    /// A writer on a thread of its own.
    fn writer(&self, commits: usize) -> thread::JoinHandle<()> {
        let scene = Scene { engine: self.engine.clone(), hub: self.hub.clone() };
        thread::spawn(move || (0..commits).for_each(|_| scene.write()))
    }
}

/// Takes so many events, which must be the first ones, each once and in order.
fn take(watcher: &mut Watcher, events: u64) {
    for expected in 1..=events {
        let event = watcher.recv().map(|event| ordinal(event.unwrap().revision()));
        assert_eq!(event, Some(expected));
    }
}

/// Runs a model in every interleaving.
fn explore(name: &'static str, model: impl Fn() + Sync + Send + 'static) {
    let schedules = Schedules::of(format!("loom: {name}"));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(setting("WATCHKEEP_PREEMPTIONS", PREEMPTIONS));
    builder.max_branches = 20_000;
    builder.check(move || {
        schedules.count();
        model();
    });
}

#[test]
fn a_reader_joins_while_others_commit() {
    explore("joins while others commit", || {
        let scene = Scene::new();
        scene.write();
        let mut watcher = scene.watch(8);
        let writer = scene.writer(2);
        take(&mut watcher, 3);
        writer.join().unwrap();
        assert!(watcher.try_recv().is_none());
    });
}

#[test]
fn a_reader_joins_while_its_buffer_overflows() {
    explore("joins while its buffer overflows", || {
        let scene = Scene::new();
        scene.write();
        let mut watcher = scene.watch(1);
        let writer = scene.writer(3);
        take(&mut watcher, 4);
        writer.join().unwrap();
        assert!(watcher.try_recv().is_none());
    });
}

#[test]
fn a_reader_joins_while_two_dispatch() {
    explore("joins while two dispatch", || {
        let scene = Scene::new();
        let mut watcher = scene.watch(1);
        scene.engine.commit_elsewhere();
        let (hub, last) = (scene.hub.clone(), scene.engine.end());
        let other = thread::spawn(move || hub.deliver(last));
        let writer = scene.writer(1);
        take(&mut watcher, 2);
        writer.join().unwrap();
        other.join().unwrap();
        assert!(watcher.try_recv().is_none());
    });
}

/// However far apart the revisions are: what is near is so by the number of events.
#[test]
fn a_reader_that_read_on_is_fed_again_and_one_that_is_fed_is_told_of_others_commits() {
    explore("is fed again", || {
        let scene = Scene::new();
        let mut watcher = scene.watch(1);
        (0..3).for_each(|_| scene.write());
        take(&mut watcher, 3);
        assert!(watcher.try_recv().is_none());
        let before = scene.hub.counters();
        assert!(before.rejoined > 0);
        // From the log, and yet handed on.
        scene.hub.deliver(scene.engine.commit_elsewhere());
        assert_eq!(scene.hub.counters().fell_behind, before.fell_behind);
        assert_eq!(watcher.try_recv().map(|event| ordinal(event.unwrap().revision())), Some(4));
    });
}

#[test]
fn a_reader_ends_with_the_store_having_seen_all() {
    explore("ends with the store", || {
        let scene = Scene::new();
        scene.write();
        let mut watcher = scene.watch(1);
        let (engine, hub) = (scene.engine.clone(), scene.hub.clone());
        let closer = thread::spawn(move || {
            engine.close(Close::Writes, &mut Settled::default());
            hub.deliver(engine.end());
            hub.close();
        });
        let last = ordinal(scene.engine.commit_elsewhere());
        take(&mut watcher, 1);
        // The last one was dispatched before the close, or is nobody's any more.
        if let Some(event) = watcher.recv() {
            assert_eq!(ordinal(event.unwrap().revision()), last);
            assert!(watcher.recv().is_none());
        }
        closer.join().unwrap();
    });
}

#[test]
fn a_reader_is_stopped_while_others_commit() {
    explore("is stopped while others commit", || {
        let scene = Scene::new();
        scene.write();
        let mut watcher = scene.watch(1);
        let (stopper, writer) = (watcher.stopper(), scene.writer(2));
        let stopping = thread::spawn(move || stopper.stop());
        let seen: Vec<_> = (&mut watcher).map(|event| ordinal(event.unwrap().revision())).collect();
        assert_eq!(seen, (1..=seen.len() as u64).collect::<Vec<_>>());
        writer.join().unwrap();
        stopping.join().unwrap();
    });
}

#[test]
fn a_watcher_goes_while_others_commit() {
    explore("goes while others commit", || {
        let scene = Scene::new();
        let (going, mut staying) = (scene.watch(1), scene.watch(1));
        let writer = scene.writer(2);
        drop(going);
        take(&mut staying, 2);
        writer.join().unwrap();
        assert_eq!(scene.hub.watchers(), 1);
    });
}

#[test]
fn two_readers_join_side_by_side() {
    explore("two join side by side", || {
        let scene = Scene::new();
        scene.write();
        let (mut small, mut large) = (scene.watch(1), scene.watch(2));
        let writer = scene.writer(1);
        let other = thread::spawn(move || take(&mut small, 2));
        take(&mut large, 2);
        other.join().unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn a_watcher_comes_while_others_commit() {
    explore("comes while others commit", || {
        let scene = Scene::new();
        let writer = scene.writer(2);
        let mut watcher = scene.watch_with(&WatchOptions::new().buffer(1));
        let start = ordinal(watcher.start());
        for expected in start + 1..=2 {
            assert_eq!(watcher.recv().map(|event| ordinal(event.unwrap().revision())), Some(expected));
        }
        writer.join().unwrap();
        assert!(watcher.try_recv().is_none());
    });
}

#[test]
fn what_a_reader_misses_by_its_own_wish_is_counted() {
    explore("misses by its own wish", || {
        let scene = Scene::new();
        let mut watcher = scene.watch_with(&WatchOptions::new().buffer(1).policy(LagPolicy::Drop));
        let writer = scene.writer(3);
        let mut seen = Vec::new();
        seen.extend(watcher.try_recv());
        writer.join().unwrap();
        seen.extend(std::iter::from_fn(|| watcher.try_recv()));
        let seen: Vec<_> = seen.into_iter().map(|event| ordinal(event.unwrap().revision())).collect();
        assert!(!seen.is_empty() && seen.is_sorted_by(|one, next| one < next), "{seen:?}");
        assert_eq!(seen.len() as u64 + watcher.dropped(), 3, "{seen:?}");
    });
}

#[test]
fn a_reader_of_the_newest_comes_to_the_newest() {
    explore("comes to the newest", || {
        let scene = Scene::new();
        let mut watcher = scene.watch_with(&WatchOptions::new().buffer(1).policy(LagPolicy::Latest));
        let writer = scene.writer(3);
        let mut last = 0;
        while last < 3 {
            let event = watcher.recv().unwrap().unwrap();
            assert!(ordinal(event.revision()) > last);
            last = ordinal(event.revision());
        }
        writer.join().unwrap();
        assert!(watcher.try_recv().is_none());
    });
}
