//! A few threads that do blocking work for those who must not block.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use crate::types::sync::{Condvar, Mutex, lock, thread, thread_local};

type Task = Box<dyn FnOnce() + Send>;

struct State {
    tasks: VecDeque<Task>,
    threads: Vec<thread::JoinHandle<()>>,
    idle: usize,
    closed: bool,
}

struct Shared {
    state: Mutex<State>,
    called: Condvar,
}

/// Threads that are started when there is something to do, and joined when the store closes.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    most: usize,
}

thread_local! {
    /// Whose worker this thread is.
    static WORKS_FOR: Cell<usize> = const { Cell::new(0) };
}

impl Workers {
    /// At most so many threads.
    pub(crate) fn new(most: usize) -> Workers {
        let state = State { tasks: VecDeque::new(), threads: Vec::new(), idle: 0, closed: false };
        Workers { shared: Arc::new(Shared { state: Mutex::new(state), called: Condvar::new() }), most }
    }

    /// Whether the calling thread is one of these.
    pub(crate) fn is_worker(&self) -> bool {
        WORKS_FOR.with(Cell::get) == Arc::as_ptr(&self.shared).addr()
    }

    /// How many tasks wait for a thread.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.shared.state).tasks.len()
    }

    /// Has a task done. After the close it is done at once, on the calling thread: it fails, or drains.
    pub(crate) fn spawn(&self, task: impl FnOnce() + Send + 'static) {
        let mut state = lock(&self.shared.state);
        if state.closed {
            drop(state);
            return task();
        }
        state.tasks.push_back(Box::new(task));
        // One that is idle takes one task, which may keep it for long.
        if state.idle < state.tasks.len() && state.threads.len() < self.most {
            let shared = self.shared.clone();
            let builder = thread::Builder::new().name("watchkeep-worker".to_owned());
            match builder.spawn(move || shared.work()) {
                Ok(thread) => state.threads.push(thread),
                Err(error) if state.threads.is_empty() => {
                    // Nobody else would ever do it.
                    tracing::warn!(%error, "no worker thread could be started");
                    let tasks = std::mem::take(&mut state.tasks);
                    drop(state);
                    tasks.into_iter().for_each(|task| task());
                    return;
                }
                Err(_) => {}
            }
        }
        drop(state);
        self.shared.called.notify_one();
    }

    /// Does what is queued, then ends the threads.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.shared.state);
        state.closed = true;
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        self.shared.called.notify_all();
        let here = thread::current().id();
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != here) {
            // A task that panicked was reported by the panic itself.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn work(self: &Arc<Self>) {
        WORKS_FOR.with(|works_for| works_for.set(Arc::as_ptr(self).addr()));
        let mut state = lock(&self.state);
        loop {
            if let Some(task) = state.tasks.pop_front() {
                drop(state);
                // A panicking closure of a user must not cost the others their thread.
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(task)).is_err() {
                    tracing::error!("a task in the background panicked");
                }
                state = lock(&self.state);
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                state = self.called.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}
