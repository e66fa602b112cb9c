//! What a reader needs from the file: described as data, so that a blocking reader fetches it at once and an
//! asynchronous one has it fetched.

use std::sync::Arc;

use crate::types::error::Result;
use crate::types::event::{Change, Item};
use crate::types::revision::Revision;

use super::hub::Hub;
use super::inbox::Shape;
use super::log_cache::Segment;
use super::snapshot::Walk;

/// What to fetch.
pub(super) enum Request {
    /// A page of the log that tells what comes after this revision.
    Log(Revision),
    /// The next part of a snapshot. The walk comes back with it.
    Snapshot(Box<Walk>),
    /// One row of the log.
    Previous(Revision),
}

/// What was fetched.
pub(super) enum Loaded {
    Log(Result<Arc<Segment>>),
    Snapshot(Result<Vec<Item>>, Box<Walk>),
    Previous(Option<Arc<Change>>),
    /// Nothing: the worker panicked over it.
    #[cfg(feature = "async")]
    Died,
}

impl Request {
    pub(super) fn load(self, hub: &Hub, shape: &Shape) -> Loaded {
        match self {
            Request::Log(after) => Loaded::Log(hub.log.read(&*hub.engine, after)),
            Request::Snapshot(mut walk) => Loaded::Snapshot(walk.step(&*hub.engine, &hub.log, shape), walk),
            Request::Previous(revision) => Loaded::Previous(previous(hub, revision)),
        }
    }
}

/// A previous value is a courtesy: where it cannot be read, there is none.
fn previous(hub: &Hub, revision: Revision) -> Option<Arc<Change>> {
    let mut change = None;
    let read = hub.engine.linger(&mut |read| {
        change = read.change(revision)?;
        Ok(())
    });
    if let Err(error) = read {
        tracing::debug!(%error, "a previous value could not be read");
    }
    change
}
