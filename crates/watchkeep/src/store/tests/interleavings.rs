//! The whole protocol in many interleavings, drawn by shuttle: commit, turn, dispatch, overflow, joining again,
//! callbacks that write, unregister and close, the end of watches, closing. A store as users hold it, over an engine
//! without a file.
//!
//! Waits have no timeouts here: a wake-up that is lost is a deadlock, which shuttle reports. A schedule that fails is
//! printed; `shuttle::replay` runs it again.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use futures_core::Stream;
use shuttle::future::block_on;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::thread::{self, JoinHandle};
use shuttle::{Config, Runner};

use crate::driver::{Driver, Size};
use crate::engine::memory::{MemoryEngine, nth, ordinal};
use crate::store::core::Core;
use crate::types::tests::schedules::{Schedules, setting};
use crate::{Event, Filter, Options, Result, Revision, Store, WatchOptions, Watcher};

/// How many schedules of each model each scheduler draws, unless `WATCHKEEP_SCHEDULES` says otherwise. A bug that was
/// put in shows within some hundred; `scripts/evidence` draws more.
const SCHEDULES: usize = 500;

/// What the schedulers draw from, unless `WATCHKEEP_SEED` says otherwise.
const SEED: u64 = 14;

/// At how many places the second scheduler interrupts a thread that could go on.
const DEPTH: usize = 4;

type Seen = Arc<std::sync::Mutex<Vec<u64>>>;

/// Runs a model in so many schedules of each scheduler.
fn explore(name: &str, model: fn()) {
    let (seed, schedules) = (setting("WATCHKEEP_SEED", SEED), setting("WATCHKEEP_SCHEDULES", SCHEDULES));
    let random = format!("shuttle: {name}, at random");
    run(RandomScheduler::new_from_seed(seed, schedules), Schedules::of(random), model);
    let few = format!("shuttle: {name}, with {DEPTH} interruptions");
    run(PctScheduler::new_from_seed(seed, DEPTH, schedules), Schedules::of(few), model);
}

fn run(scheduler: impl Scheduler + 'static, schedules: Schedules, model: fn()) {
    Runner::new(scheduler, Config::default()).run(move || {
        schedules.count();
        model();
    });
}

fn open() -> (Arc<MemoryEngine>, Store) {
    // One store has two lanes.
    let driver = Driver::new(Size { at_once: 2, work: 1, vital: 1 }).unwrap();
    let signal = driver.enter().unwrap().unwrap();
    let engine = MemoryEngine::model(signal.clone());
    let core = Core::start(engine.clone(), Options::new(), signal).unwrap();
    (engine, Store::start(core).unwrap())
}

fn watch(store: &Store, room: usize) -> Watcher {
    store.watch_with(Filter::everything(), WatchOptions::new().after(Revision::ZERO).buffer(room)).unwrap()
}

fn number(event: Option<Result<Event>>) -> Option<u64> {
    event.map(|event| ordinal(event.unwrap().revision()))
}

/// A reader on a thread of its own, until the watch ends; what it saw.
fn reader(mut watcher: Watcher) -> JoinHandle<Vec<u64>> {
    thread::spawn(move || std::iter::from_fn(|| number(watcher.recv())).collect())
}

/// A reader that is a future.
fn future_reader(mut watcher: Watcher) -> JoinHandle<Vec<u64>> {
    thread::spawn(move || {
        block_on(async {
            let mut seen = Vec::new();
            while let Some(event) = number(poll_fn(|cx| Pin::new(&mut watcher).poll_next(cx)).await) {
                seen.push(event);
            }
            seen
        })
    })
}

/// A writer on a thread of its own. Once the store is closed it is refused.
fn writer(store: &Store, writes: usize) -> JoinHandle<()> {
    let store = store.clone();
    thread::spawn(move || (0..writes).for_each(|_| drop(store.set("g", "k", "v"))))
}

/// A callback that notes what it sees, and after so many events does something.
fn callback(store: &Store, when: u64, act: impl Fn(&Store) + Send + 'static) -> Seen {
    let (seen, weak) = (Seen::default(), store.downgrade());
    let note = seen.clone();
    store
        .on_change(move |event| {
            note.lock().unwrap().push(ordinal(event.revision()));
            if ordinal(event.revision()) == when
                && let Some(store) = weak.upgrade()
            {
                act(&store);
            }
        })
        .detach();
    seen
}

/// Each event once and in order.
fn assert_all(seen: &[u64], upto: Revision) {
    assert_eq!(seen, (1..=ordinal(upto)).collect::<Vec<_>>());
}

#[test]
fn everybody_sees_everything_once_and_in_order() {
    explore("write, overflow and join", || {
        let (engine, store) = open();
        let readers = [reader(watch(&store, 1)), reader(watch(&store, 2)), future_reader(watch(&store, 1))];
        let seen = callback(&store, 1, |store| store.set("g", "k", "by the callback").map(drop).unwrap());
        let writers = [writer(&store, 2), writer(&store, 1)];
        engine.commit_elsewhere();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        store.close().unwrap();
        assert_all(&seen.lock().unwrap(), engine.end());
        for reader in readers {
            assert_all(&reader.join().unwrap(), engine.end());
        }
    });
}

#[test]
fn a_write_returns_after_all_that_callbacks_wrote_because_of_it() {
    fn answers_to(root: u64) -> usize {
        if root == 1 { 2 } else { 1 }
    }
    explore("callbacks that write back", || {
        let (engine, store) = open();
        // For each answer, the event that it goes back to; and for each call, the same.
        let (mut answers, called) = (BTreeMap::new(), Seen::default());
        let (note, weak) = (called.clone(), store.downgrade());
        let writes_back = move |event: &Event| {
            let own = ordinal(event.revision());
            let root = answers.get(&own).copied().unwrap_or(own);
            note.lock().unwrap().push(root);
            // Every write is answered, and the answer to the first is answered as well.
            let answered = answers.values().filter(|answered| **answered == root).count();
            if answered < answers_to(root)
                && let Some(store) = weak.upgrade()
            {
                answers.insert(ordinal(store.set("g", "k", "v").unwrap()), root);
            }
        };
        store.on_change(writes_back).detach();
        let writers = [(); 2].map(|()| {
            let (store, called) = (store.clone(), called.clone());
            thread::spawn(move || {
                let own = ordinal(store.set("g", "k", "v").unwrap());
                let called = called.lock().unwrap();
                let because = called.iter().filter(|root| **root == own).count();
                assert_eq!(because, 1 + answers_to(own), "calls because of {own}, among {called:?}");
            })
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        store.close().unwrap();
        assert_eq!(engine.end(), nth(5));
    });
}

#[test]
fn transactions_and_futures_take_their_turns() {
    explore("transactions and futures", || {
        let (engine, store) = open();
        let reader = reader(watch(&store, 1));
        let (closure, future) = (store.clone(), store.to_async());
        let closure = thread::spawn(move || {
            let done = closure.transaction(|tx| tx.set("g", "k", "1").and_then(|()| tx.set("g", "k", "2")));
            done.unwrap();
        });
        let future = thread::spawn(move || block_on(future.set("g", "k", "v")).map(drop).unwrap());
        let writer = writer(&store, 1);
        [closure, future, writer].into_iter().for_each(|thread| thread.join().unwrap());
        store.close().unwrap();
        assert_eq!(engine.end(), nth(4));
        assert_all(&reader.join().unwrap(), engine.end());
    });
}

#[test]
fn a_future_is_answered_whenever_the_store_closes() {
    explore("a future beside the close", || {
        let (engine, store) = open();
        let future = store.to_async().set("g", "k", "v");
        // It may lead, and take the future's write along, while the store closes.
        let writer = writer(&store, 1);
        let closing = thread::spawn(move || store.close().unwrap());
        let told = block_on(future).unwrap();
        [writer, closing].into_iter().for_each(|thread| thread.join().unwrap());
        assert!(told >= nth(1) && told <= engine.end());
    });
}

#[test]
fn a_callback_closes_the_store() {
    explore("a callback closes", || {
        let (engine, store) = open();
        let readers = [reader(watch(&store, 1)), reader(watch(&store, 2))];
        let writes = callback(&store, 1, |store| drop(store.set("g", "k", "by the callback")));
        let closes = callback(&store, 2, |store| store.close().unwrap());
        let writers = [writer(&store, 2), writer(&store, 2)];
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        for reader in readers {
            assert_all(&reader.join().unwrap(), engine.end());
        }
        assert_all(&writes.lock().unwrap(), engine.end());
        assert_all(&closes.lock().unwrap(), engine.end());
    });
}

#[test]
fn watchers_and_callbacks_come_and_go() {
    explore("come and go", || {
        let (engine, store) = open();
        let staying = reader(watch(&store, 1));
        let mut going = watch(&store, 1);
        let unwatching = thread::spawn(move || assert_eq!(number(going.recv()), Some(1)));
        let stopped = watch(&store, 1);
        let stopper = stopped.stopper();
        let stopped = reader(stopped);
        let stopping = thread::spawn(move || stopper.stop());
        let seen = Seen::default();
        let note = seen.clone();
        let subscription = store.on_change(move |event| note.lock().unwrap().push(ordinal(event.revision())));
        let writers = [writer(&store, 2), writer(&store, 1)];
        let unregistering = thread::spawn(move || subscription.unregister());
        for thread in writers.into_iter().chain([unwatching, stopping, unregistering]) {
            thread.join().unwrap();
        }
        store.close().unwrap();
        assert_all(&staying.join().unwrap(), engine.end());
        for some in [stopped.join().unwrap(), seen.lock().unwrap().clone()] {
            assert_eq!(some, (1..=some.len() as u64).collect::<Vec<_>>());
        }
    });
}

#[test]
fn many_close_while_others_write() {
    explore("many close", || {
        let (engine, store) = open();
        let readers = [reader(watch(&store, 1)), future_reader(watch(&store, 1))];
        let seen = callback(&store, 1, |store| drop(store.set("g", "k", "by the callback")));
        let writer = writer(&store, 2);
        let others = [store.clone(), store.clone()];
        let closing = others.map(|store| thread::spawn(move || store.close().unwrap()));
        closing.into_iter().chain([writer]).for_each(|thread| thread.join().unwrap());
        for reader in readers {
            assert_all(&reader.join().unwrap(), engine.end());
        }
        assert_all(&seen.lock().unwrap(), engine.end());
    });
}
