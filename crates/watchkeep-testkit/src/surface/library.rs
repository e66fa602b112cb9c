//! The library itself.

use std::sync::Arc;

use watchkeep::{Clock, ErrorKind, Item, Revision, Store, Subscription, Timestamp, Watcher};

use super::asynchronous::Polled;
use super::{Callback, Fault, Next, Past, Placed, Registered, Stream, Surface, Wait};
use crate::ops::{Outcome, Step, perform};
use crate::record::{Note, Seen, Want, WatchSpec};

/// An opened store, with the clock that it was opened with.
#[derive(Debug)]
pub(super) struct Library {
    store: Store,
    clock: Arc<dyn Clock>,
    /// Whether it is used as by callers that must not block.
    asynchronous: bool,
}

impl Library {
    pub(super) fn new(store: Store, clock: Arc<dyn Clock>, asynchronous: bool) -> Library {
        Library { store, clock, asynchronous }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    fn handle(&self, want: &Want) -> watchkeep::Result<Store> {
        match &want.namespace {
            Some(namespace) => self.store.scoped(namespace),
            None => Ok(self.store.clone()),
        }
    }
}

impl Surface for Library {
    fn perform(&self, step: &Step, label: &str) -> Outcome {
        perform(&self.store, step, label, self.asynchronous)
    }

    fn history(&self, want: &Want, after: Revision) -> Result<Past, Fault> {
        let (mut lost, mut events) = (None, Vec::new());
        for event in self.handle(want)?.history(want.filter(), after) {
            match event {
                Ok(event) => events.push(Seen::from(&event)),
                Err(error) => match error.lagged() {
                    Some(lagged) => lost = Some((lagged.from, lagged.to)),
                    None => return Err(error.into()),
                },
            }
        }
        Ok((lost, events))
    }

    fn last(&self) -> Result<Revision, Fault> {
        Ok(self.store.last_revision()?)
    }

    fn oldest(&self) -> Result<Revision, Fault> {
        Ok(self.store.stats()?.first_revision)
    }

    fn compact(&self, before: Revision) -> Result<u64, Fault> {
        Ok(self.store.compact(before)?)
    }

    fn picture(&self) -> Result<(Revision, Vec<Placed>), Fault> {
        let snapshot = self.store.snapshot()?;
        let mut entries = Vec::new();
        for group in snapshot.groups("") {
            let group = group?;
            for entry in snapshot.entries(&group) {
                let entry = entry?;
                entries.push((group.clone(), entry.key, entry.revision));
            }
        }
        Ok((snapshot.revision(), entries))
    }

    fn watch(&self, spec: &WatchSpec) -> Result<Box<dyn Stream>, Fault> {
        let watcher = self.handle(&spec.want)?.watch_with(spec.want.filter(), spec.options())?;
        Ok(if self.asynchronous { Box::new(Polled(watcher)) } else { Box::new(watcher) })
    }

    fn on_change(&self, want: &Want, mut callback: Callback) -> Option<Box<dyn Registered>> {
        let tell = move |item: &Item| callback(item.into());
        Some(Box::new(self.handle(want).ok()?.on_change_with(want.filter(), tell)))
    }

    fn check(&self) -> Result<Vec<String>, Fault> {
        Ok(self.store.check()?.problems)
    }

    fn close(&self) -> Result<(), Fault> {
        Ok(self.store.close()?)
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl Registered for Subscription {
    fn unregister(&self) {
        Subscription::unregister(self);
    }
}

impl Stream for Watcher {
    fn next(&mut self, wait: Wait) -> Next {
        let mut items = self.items();
        let item = match wait {
            Wait::No => items.try_recv(),
            Wait::Most(time) => items.recv_timeout(time),
            Wait::Forever => items.recv(),
        };
        match item {
            Some(item) => Next::Note(note(item)),
            None if self.is_ended() => Next::Ended,
            None => Next::Empty,
        }
    }

    fn start(&self) -> Revision {
        Watcher::start(self)
    }

    fn dropped(&self) -> u64 {
        Watcher::dropped(self)
    }
}

/// What a stream handed out, as a note.
pub(super) fn note(item: watchkeep::Result<Item>) -> Note {
    match item {
        Ok(item) => Note::from(&item),
        Err(error) if error.kind() == ErrorKind::Closed => Note::Closed,
        Err(error) => Note::Failed(format!("{error:?}")),
    }
}
