//! Limits of a fan-out: no store at all, only the handing over of one event to each.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Contender, Peer, Session, Watch};
use crate::Result;
use crate::data::Name;
use crate::plan::{Cell, Workload};

/// An event as the models hand it over.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) group: String,
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) revision: u64,
}

impl Event {
    pub(crate) fn new(name: &Name, value: &str, revision: u64) -> Event {
        Event { group: name.group.clone(), key: name.key.clone(), value: value.to_owned(), revision }
    }

    /// Something to do with the whole event, so that nobody skips it.
    pub(crate) fn look(&self) -> u64 {
        std::hint::black_box((&self.group, &self.key, &self.value));
        self.revision
    }
}

/// The receiving end of a bounded channel.
pub(crate) struct Receiving(pub(crate) Receiver<Arc<Event>>);

impl Watch for Receiving {
    fn try_next(&mut self) -> Result<Option<u64>> {
        Ok(self.0.try_recv().ok().map(|event| event.look()))
    }

    fn next(&mut self) -> Result<Option<u64>> {
        Ok(self.0.recv().ok().map(|event| event.look()))
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bounded channel of 16 for each watcher.
#[derive(Debug)]
pub(crate) struct Channel;

/// A function for each watcher.
#[derive(Debug)]
pub(crate) struct Callback;

impl Contender for Channel {
    fn name(&self) -> &'static str {
        "channels"
    }

    fn about(&self) -> String {
        "no store: `try_send` of one `Arc` to a `std::sync::mpsc::sync_channel(16)` for each watcher"
            .to_owned()
    }

    fn takes(&self, cell: &Cell) -> bool {
        cell.workload == Workload::FanOut
    }

    fn open(&self, _: &Path, _: &Cell) -> Result<Box<dyn Peer>> {
        Ok(Box::new(Senders::default()))
    }
}

impl Contender for Callback {
    fn name(&self) -> &'static str {
        "functions"
    }

    fn about(&self) -> String {
        "no store: one call of a boxed `Fn(&Event)` for each watcher, which adds 1 to a counter".to_owned()
    }

    fn takes(&self, cell: &Cell) -> bool {
        cell.workload == Workload::FanOut
    }

    fn open(&self, _: &Path, _: &Cell) -> Result<Box<dyn Peer>> {
        Ok(Box::new(Functions::default()))
    }
}

#[derive(Default)]
struct Senders {
    senders: Mutex<Vec<SyncSender<Arc<Event>>>>,
    watched: Mutex<Option<Name>>,
}

/// Nobody watches any other key than this one.
fn is_watched(watched: &Mutex<Option<Name>>, name: &Name) -> bool {
    lock(watched).as_ref().is_some_and(|watched| watched.key == name.key && watched.group == name.group)
}

impl Peer for Senders {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Sending { peer: self, revision: 0 }))
    }

    fn watch(&self, name: &Name) -> Result<Box<dyn Watch>> {
        let (sender, receiver) = sync_channel(16);
        lock(&self.senders).push(sender);
        *lock(&self.watched) = Some(name.clone());
        Ok(Box::new(Receiving(receiver)))
    }
}

struct Sending<'p> {
    peer: &'p Senders,
    revision: u64,
}

impl Session for Sending<'_> {
    fn set(&mut self, name: &Name, value: &str) -> Result<()> {
        self.revision += 1;
        if is_watched(&self.peer.watched, name) {
            let event = Arc::new(Event::new(name, value, self.revision));
            for sender in lock(&self.peer.senders).iter() {
                sender.try_send(event.clone()).map_err(|_| "a channel is full")?;
            }
        }
        Ok(())
    }
}

type Function = Box<dyn Fn(&Event) + Send>;

#[derive(Default)]
struct Functions {
    functions: Mutex<Vec<Function>>,
    watched: Mutex<Option<Name>>,
}

impl Peer for Functions {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Calling { peer: self, revision: 0 }))
    }

    fn watch(&self, name: &Name) -> Result<Box<dyn Watch>> {
        let calls = Arc::new(AtomicU64::new(0));
        let counter = calls.clone();
        lock(&self.functions).push(Box::new(move |event| {
            event.look();
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        *lock(&self.watched) = Some(name.clone());
        Ok(Box::new(Counted { calls, seen: 0 }))
    }
}

struct Calling<'p> {
    peer: &'p Functions,
    revision: u64,
}

impl Session for Calling<'_> {
    fn set(&mut self, name: &Name, value: &str) -> Result<()> {
        self.revision += 1;
        if is_watched(&self.peer.watched, name) {
            let event = Event::new(name, value, self.revision);
            lock(&self.peer.functions).iter().for_each(|function| function(&event));
        }
        Ok(())
    }
}

/// A watch whose events were handed to a function already: it counts the calls.
pub(crate) struct Counted {
    pub(crate) calls: Arc<AtomicU64>,
    pub(crate) seen: u64,
}

impl Watch for Counted {
    fn try_next(&mut self) -> Result<Option<u64>> {
        let calls = self.calls.load(Ordering::Relaxed);
        if calls == self.seen {
            return Ok(None);
        }
        self.seen += 1;
        Ok(Some(self.seen))
    }
}
