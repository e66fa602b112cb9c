//! What a reader needs from the file: described as data, so that a blocking reader fetches it at once and an
//! asynchronous one has it fetched.

use std::borrow::Cow;
use std::sync::Arc;

use crate::engine::{Answer, Engine, LogPage, Query};
use crate::types::error::Result;
use crate::types::event::{Change, Item};
use crate::types::filter::Filter;
use crate::types::revision::Revision;

use super::inbox::Shape;
use super::log_cache::{LogCache, Segment};
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
    /// What it comes to without asking, where the page of the log that it needs is at hand.
    pub(super) fn at_hand(self, log: &LogCache, shape: &Shape) -> Result<Loaded, Request> {
        match self {
            Request::Log(after) => log.find(after).map(|segment| Loaded::Log(Ok(segment))).ok_or(self),
            Request::Snapshot(mut walk) => match walk.at_hand(log, shape) {
                Some(items) => Ok(Loaded::Snapshot(Ok(items), walk)),
                None => Err(Request::Snapshot(walk)),
            },
            Request::Previous(_) => Err(self),
        }
    }

    /// What to ask; `filter` is the watcher's.
    pub(super) fn query<'f>(&mut self, engine: &dyn Engine, filter: Cow<'f, Filter>) -> Query<'f> {
        match self {
            Request::Log(after) => Query::Log { after: *after },
            Request::Snapshot(walk) => walk.query(engine, filter),
            Request::Previous(revision) => Query::Change { revision: *revision },
        }
    }

    /// What it comes to with the answer.
    pub(super) fn answered(self, answer: Result<Answer>, log: &LogCache, shape: &Shape) -> Loaded {
        match self {
            Request::Log(after) => {
                Loaded::Log(answer.and_then(LogPage::try_from).map(|page| log.add(after, page)))
            }
            Request::Snapshot(mut walk) => Loaded::Snapshot(walk.answered(answer, log, shape), walk),
            // A previous value is a courtesy: where it cannot be read, there is none.
            Request::Previous(_) => {
                Loaded::Previous(answer.and_then(TryInto::try_into).unwrap_or_else(|error| {
                    tracing::debug!(%error, "a previous value could not be read");
                    None
                }))
            }
        }
    }

    /// Asks, and waits for it.
    pub(super) fn load(self, engine: &dyn Engine, log: &LogCache, shape: &Shape) -> Loaded {
        self.at_hand(log, shape).unwrap_or_else(|mut request| {
            let answer = engine.ask(&request.query(engine, Cow::Borrowed(&shape.filter)));
            request.answered(answer, log, shape)
        })
    }
}
