//! What all handles of a store share, and the one way of a write: commit, deliver, call back, return.

use std::cell::Cell;
use std::sync::{Arc, PoisonError};
use std::thread::available_parallelism;

use crate::driver::{Lane, Signal};
use crate::engine::workers::Workers;
use crate::engine::{Close, Completion, Engine, Query, Receipt, Sealed, Settled, Transact, Wait};
use crate::rules::{Author, Write};
use crate::types::clock::Clock;
use crate::types::error::{Error, Reason, Result};
use crate::types::limits::{CALLING_THREADS, READING_THREADS};
use crate::types::options::Options;
use crate::types::revision::Revision;
use crate::types::sync::atomic::{AtomicBool, Ordering};
use crate::types::sync::thread::{ThreadId, current};
use crate::types::sync::{Condvar, Mutex, caught, lock};
use crate::watch::Hub;

use super::lease::Leases;
use super::rounds::Background;

/// The store itself: engine and hub. The driver holds it, but not the handles' [`Life`].
pub(super) struct Core {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) hub: Arc<Hub>,
    pub(super) options: Options,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) signal: Arc<Signal>,
    /// Read for callers that must not block.
    pub(super) readers: Arc<Workers>,
    /// Run what may wait long, for writers or in a user's closure. Nobody who reads waits behind it.
    pub(super) callers: Workers,
    /// The named consumers that this process holds.
    pub(super) leases: Arc<Leases>,
    /// The store is closed, or about to be.
    closed: AtomicBool,
    /// What is done in the background.
    pub(super) background: Background,
    /// Users' writes that the vital lane committed: the other lane completes them.
    left_over: Mutex<Vec<(Completion, Result<Receipt>)>>,
    /// The store should be closed in the background: it was asked for where nobody may wait for it.
    pub(super) close_wanted: AtomicBool,
    /// The threads that make a backup: its progress runs on them, while the close waits for its reading.
    pub(super) backing_up: Mutex<Vec<ThreadId>>,
    closing: Mutex<Closing>,
    closing_done: Condvar,
}

/// Whether the store is being closed, and by whom.
enum Closing {
    Not,
    By(ThreadId),
    Done,
}

impl Core {
    /// Has an engine worked for in the background.
    pub(super) fn start(engine: Arc<dyn Engine>, options: Options, signal: Arc<Signal>) -> Result<Arc<Core>> {
        let clock = options.clock.clone();
        let stepped = Arc::downgrade(&signal);
        clock.on_step(Box::new(move || {
            if let Some(signal) = stepped.upgrade() {
                signal.raise(Lane::Vital);
                signal.raise(Lane::Work);
            }
        }));
        let last = Query::Last.ask(&*engine)?;
        let readers = Arc::new(Workers::new(reading_threads()));
        let hub = Hub::new(engine.clone(), clock.clone(), signal.clone(), readers.clone(), last);
        let core = Arc::new(Core {
            engine,
            hub,
            options,
            clock,
            signal,
            readers,
            callers: Workers::new(CALLING_THREADS),
            leases: Arc::default(),
            closed: AtomicBool::new(false),
            background: Background::default(),
            left_over: Mutex::default(),
            close_wanted: AtomicBool::new(false),
            backing_up: Mutex::default(),
            closing: Mutex::new(Closing::Not),
            closing_done: Condvar::new(),
        });
        core.signal.begin(core.clone());
        Ok(core)
    }

    /// Commits a write; when this returns, watchers with room hold its events and callbacks have run.
    pub(super) fn write(&self, write: Write) -> Result<Receipt> {
        let mut settled = Settled::default();
        let receipt = self.engine.write(write, &mut settled);
        self.complete(receipt.as_ref().ok().and_then(|receipt| receipt.announced), settled);
        receipt
    }

    /// Commits a closure, as [`Core::write`] commits a write.
    pub(super) fn transact(
        &self,
        author: &Author,
        f: &mut dyn FnMut(&dyn Transact) -> Result<()>,
    ) -> Result<Sealed> {
        let mut settled = Settled::default();
        let sealed = self.engine.transact(author, f, &mut settled);
        self.complete(sealed.as_ref().ok().and_then(|sealed| sealed.announced), settled);
        sealed
    }

    /// Hands everything up to a revision to watchers and callbacks.
    pub(super) fn announce(&self, upto: Option<Revision>) {
        if let Some(upto) = upto {
            self.hub.deliver(upto);
            self.hub.run_callbacks(upto);
        }
    }

    /// Hands on what a leader committed, and then tells those that it took along and that have no thread.
    pub(super) fn complete(&self, own: Option<Revision>, settled: Settled) {
        let announced = settled.announced().max(own);
        settled.own.into_iter().for_each(|(done, result)| done(result));
        self.announce(announced);
        settled.users.into_iter().for_each(|(done, result)| done(result));
    }

    /// The same in the vital lane: watchers are handed what was committed, and users' code is left to the other lane.
    pub(super) fn leave_over(&self, mut settled: Settled) {
        let announced = settled.announced();
        settled.own.drain(..).for_each(|(done, result)| done(result));
        if let Some(announced) = announced {
            self.hub.deliver(announced);
        }
        let is_left = !settled.users.is_empty();
        lock(&self.left_over).append(&mut settled.users);
        if is_left || announced.is_some() && self.hub.calls_back() {
            self.signal.raise(Lane::Work);
        }
    }

    pub(super) fn take_left_over(&self) -> Vec<(Completion, Result<Receipt>)> {
        std::mem::take(&mut lock(&self.left_over))
    }

    fn is_worker(&self) -> bool {
        self.readers.is_worker() || self.callers.is_worker()
    }

    /// Refuses all writes from now on, fails those that wait, and ends all watches.
    pub(super) fn poison(&self, error: &Error) {
        let mut settled = Settled::default();
        self.engine.close(Close::Poisoned(error), &mut settled);
        self.hub.poison(error);
        self.complete(None, settled);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Closes the store: waits for what is under way, ends all watches, joins all threads of its own. Where nobody may
    /// wait, in a callback, in the progress of a backup or on a thread of the driver's, it is only asked for, and done
    /// in the background.
    pub(super) fn close(&self) -> Result<()> {
        let may_wait = self.engine.may_wait(Wait::Turn);
        if may_wait.as_ref().is_err_and(|error| matches!(error.reason(), Reason::Forked)) {
            // Its threads and its locks are the other process's; there is nothing to wait for here.
            return Ok(());
        }
        let here = current().id();
        if self.signal.on_own_thread() || self.hub.in_callback() || lock(&self.backing_up).contains(&here) {
            self.close_wanted.store(true, Ordering::Release);
            self.signal.raise(Lane::Work);
            return Ok(());
        }
        may_wait?;
        let mut closing = lock(&self.closing);
        loop {
            match *closing {
                // A waker that the closing itself wakes may come back here; and it waits for the workers.
                Closing::By(thread) if thread == here || self.is_worker() => return Ok(()),
                Closing::By(_) => {
                    closing = self.closing_done.wait(closing).unwrap_or_else(PoisonError::into_inner)
                }
                Closing::Done => return Ok(()),
                Closing::Not => break,
            }
        }
        *closing = Closing::By(here);
        drop(closing);
        self.close_now(None)
    }

    /// In the background, when it was asked for: unless another thread is at it, which waits for this one.
    pub(super) fn close_here(&self) {
        let mut closing = lock(&self.closing);
        if matches!(*closing, Closing::Not) {
            *closing = Closing::By(current().id());
            drop(closing);
            if let Err(error) = self.close_now(Some(Lane::Work)) {
                tracing::error!(%error, "the store was closed, and a user's code panicked meanwhile");
            }
        }
    }

    /// `own`: the lane that does it, if one does. A clock or a waker of the user's that panics on the way leaves nothing
    /// open, and nobody waiting: each step is taken whatever became of the one before.
    fn close_now(&self, own: Option<Lane>) -> Result<()> {
        let panicked = Cell::new(false);
        let seal = || {
            let mut settled = Settled::default();
            self.engine.close(Close::Writes, &mut settled);
            self.complete(None, settled);
        };
        let end_writes = || {
            self.closed.store(true, Ordering::Release);
            if caught(seal).is_none() {
                // What waits is failed, and with nothing left to write nobody asks the clock.
                self.poison(&Reason::ThreadDied.into());
                seal();
                panicked.set(true);
            }
        };
        let announce_all = || match self.hub.newest() {
            Ok(last) => self.announce(Some(last)),
            Err(error) => {
                tracing::warn!(%error, "the last revision could not be read while closing");
            }
        };
        let end_rounds = || {
            self.signal.end(own);
            self.complete(None, Settled { own: Vec::new(), users: self.take_left_over() });
        };
        let end_workers = || {
            self.callers.close();
            self.readers.close();
        };
        let end_watches = || {
            self.hub.close();
            self.hub.forget_callbacks();
        };
        let end_reads = || self.engine.close(Close::Reads, &mut Settled::default());
        let steps: [&dyn Fn(); 7] = [
            &|| self.leases.close(self),
            &end_writes,
            &announce_all,
            &end_rounds,
            &end_workers,
            &end_watches,
            &end_reads,
        ];
        for step in steps {
            panicked.set(caught(step).is_none() || panicked.get());
        }
        *lock(&self.closing) = Closing::Done;
        self.closing_done.notify_all();
        if !panicked.get() { Ok(()) } else { Err(Reason::ThreadDied.into()) }
    }
}

/// One for each core, within reason.
fn reading_threads() -> usize {
    let (least, most) = READING_THREADS;
    available_parallelism().map_or(least, |cores| cores.get().clamp(least, most))
}

/// What the handles hold: when the last one goes, the store closes.
pub(super) struct Life {
    pub(super) core: Arc<Core>,
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Err(error) = self.core.close() {
            tracing::warn!(%error, "the store could not be closed");
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::types::batch::Operation;
    use crate::types::clock::Timestamp;
    use crate::types::error::{ErrorKind, Reason};
    use crate::types::writing::SetOptions;
    use crate::{Options, Store};

    /// Panics when it is asked on the thread that it is set for.
    #[derive(Debug, Default)]
    struct Trap(Mutex<Option<ThreadId>>);

    impl Clock for Trap {
        fn now(&self) -> Timestamp {
            // Let go of first: the others go on asking.
            let set_for = *lock(&self.0);
            assert_ne!(set_for, Some(current().id()), "on purpose");
            Timestamp::from_millis(1)
        }
    }

    #[test]
    fn a_clock_that_panics_while_closing_leaves_nothing_open_and_nobody_waiting() -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, clock) = (folder.path().join("store.db"), Arc::new(Trap::default()));
        let store = Options::new().clock(clock.clone()).open(&path)?;
        let (other, mut watcher) = (store.clone(), store.watch("*", "*"));
        store.set_with_ttl("g", "k", "v", std::time::Duration::from_secs(60))?;
        assert!(watcher.recv().is_some_and(|told| told.is_ok()));
        *clock.0.lock().expect("a lock") = Some(current().id());
        assert!(store.close().is_err_and(|error| error.kind() == ErrorKind::Poisoned));
        other.close()?;
        assert!(watcher.recv().is_none());
        assert_eq!(Store::open(&path)?.get("g", "k")?, None);
        Ok(())
    }

    #[test]
    fn a_write_that_waits_is_failed_by_a_close_whose_clock_panics() -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, clock) = (folder.path().join("store.db"), Arc::new(Trap::default()));
        let store = Options::new().clock(clock.clone()).ballast(false).open(&path)?;
        store.set("g", "k", "v")?;
        let neighbour = rusqlite::Connection::open(&path)?;
        neighbour.execute_batch("BEGIN IMMEDIATE")?;
        let (done, told) = std::sync::mpsc::channel();
        let set = Operation::set("g", "k", "w".into(), SetOptions::new());
        let write = Write { author: Author::default(), work: set.into() };
        store
            .core()
            .engine
            .submit(write, Box::new(move |result| done.send(result.map(drop)).expect("a receiver")));
        *clock.0.lock().expect("a lock") = Some(current().id());
        let closed = std::thread::scope(|scope| {
            let is_closed = || store.is_closed();
            scope.spawn(move || {
                while !is_closed() {
                    std::thread::yield_now();
                }
                drop(neighbour);
            });
            store.close()
        });
        // The background may have been faster. Else it is refused, or dropped untold, which its caller hears of as well.
        let is_written = matches!(told.recv(), Ok(Ok(())));
        assert!(is_written || closed.is_err());
        let wal = path.with_extension("db-wal");
        assert!(!wal.exists(), "connections are open");
        Ok(())
    }

    #[test]
    fn callbacks_run_on_after_a_fault_that_ended_the_watches() -> Result<()> {
        let (store, seen) = (Store::open_in_memory()?, Arc::new(Mutex::new(Vec::new())));
        let called = seen.clone();
        let subscription =
            store.on_change(move |event| called.lock().expect("a lock").push(event.revision().get()));
        let mut watcher = store.watch("*", "*");
        store.set("g", "k", "1")?;
        store.core().hub.fail(&Reason::Corrupt { what: "a page".to_owned() }.into());
        store.set("g", "k", "2")?;
        assert!(matches!(watcher.recv(), Some(Ok(event)) if event.revision().get() == 1));
        assert!(watcher.recv().is_some_and(|told| told.is_err()) && watcher.recv().is_none());
        assert_eq!(*seen.lock().expect("a lock"), [1, 2]);
        subscription.unregister();
        Ok(())
    }
}
