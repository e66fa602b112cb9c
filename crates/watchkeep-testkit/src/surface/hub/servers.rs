//! The servers of a store, one for each handle on it: where clients find them, and how they end under them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use watchkeep::Store;
use watchkeep_server::{Bound, Closer, Listen, Server};

use super::weather::Course;
use crate::surface::Fault;

/// The servers that clients may go to, each under the number of its handle.
#[derive(Debug, Default)]
pub(super) struct Servers {
    open: Mutex<BTreeMap<u64, SocketAddr>>,
    /// Held while one of them ends: there is always another.
    renewing: Mutex<()>,
    /// How many ended under their clients.
    ends: AtomicU64,
}

impl Servers {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, SocketAddr>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, number: u64, address: SocketAddr) {
        self.open().insert(number, address);
    }

    /// From now on nobody is sent there.
    pub(super) fn leave(&self, number: u64) {
        self.open().remove(&number);
    }

    /// The server that a client of a handle goes to: any, for one with faults.
    pub(super) fn pick(&self, number: u64, course: Option<&mut Course>) -> Option<(u64, SocketAddr)> {
        let open = self.open();
        let found = match course {
            Some(course) => {
                let at = course.below(open.len());
                open.iter().nth(at)
            }
            None => open.get_key_value(&number),
        };
        found.map(|(number, address)| (*number, *address))
    }

    /// Whether clients are still sent to a server.
    pub(super) fn has(&self, address: SocketAddr) -> bool {
        self.open().values().any(|open| *open == address)
    }

    pub(super) fn ends(&self) -> u64 {
        self.ends.load(Ordering::Relaxed)
    }

    /// Ends the server of a handle under its clients, and starts another one there; unless another ends just now.
    pub(super) fn renew(
        &self,
        number: u64,
        running: &mut Running,
        store: &Store,
        killed: bool,
    ) -> Result<(), Fault> {
        let Ok(_alone) = self.renewing.try_lock() else { return Ok(()) };
        if self.open().len() < 2 {
            return Ok(());
        }
        self.leave(number);
        running.end(killed);
        *running = Running::start(store)?;
        self.enter(number, running.address);
        self.ends.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A server on a thread of its own.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) address: SocketAddr,
    closer: Closer,
    kill: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Running {
    pub(super) fn start(store: &Store) -> Result<Running, Fault> {
        let (store, (tell, told), (kill, killed)) = (store.clone(), mpsc::channel(), oneshot::channel());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let ran = runtime.block_on(async {
                let server = Server::bind(&store, &Listen::Tcp(([127, 0, 0, 1], 0).into())).await?;
                drop(store);
                drop(tell.send((server.bound().clone(), server.closer())));
                tokio::select! {
                    () = server.run() => {}
                    // Whoever is still connected is cut off, without a word.
                    Ok(()) = killed => {}
                }
                Ok(())
            });
            runtime.shutdown_background();
            ran
        });
        match told.recv()? {
            (Bound::Tcp(address), closer) => {
                Ok(Running { address, closer, kill: Some(kill), thread: Some(thread) })
            }
            (Bound::Unix(path), _) => Err(format!("it listens on {}", path.display()).into()),
        }
    }

    /// Ends it: by a kill, or with a farewell to its clients.
    fn end(&mut self, killed: bool) {
        match self.kill.take() {
            // It may have ended by itself.
            Some(kill) if killed => drop(kill.send(())),
            _ => self.closer.close(),
        }
        if let Some(thread) = self.thread.take() {
            // What it failed with shows in the streams.
            drop(thread.join());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(false);
    }
}
