//! Pages of the change log, decoded once for all who lag together.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::engine::{Engine, LogPage, Query};
use crate::types::error::Result;
use crate::types::limits::LOG_CACHE_BYTES;
use crate::types::revision::Revision;
use crate::types::sync::{Mutex, lock};

/// How many pages are kept at the most, however small.
const PAGES: usize = 256;

/// A page, and which revisions it tells about: all after `after`, up to `next`.
#[derive(Debug)]
pub(crate) struct Segment {
    after: Revision,
    pub(super) next: Revision,
    pub(super) page: LogPage,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Segments {
    by_start: BTreeMap<Revision, Arc<Segment>>,
    /// In the order of their arrival, the oldest first.
    order: VecDeque<Revision>,
    bytes: usize,
}

/// A bounded number of pages.
#[derive(Debug, Default)]
pub(crate) struct LogCache {
    segments: Mutex<Segments>,
}

impl LogCache {
    pub(super) fn clear(&self) {
        let gone = std::mem::take(&mut *lock(&self.segments));
        drop(gone);
    }

    /// A page that tells what comes after a revision; it may begin earlier.
    pub(super) fn read(&self, engine: &dyn Engine, after: Revision) -> Result<Arc<Segment>> {
        match self.find(after) {
            Some(segment) => Ok(segment),
            None => Ok(self.add(after, Query::Log { after }.ask(engine)?)),
        }
    }

    /// Such a page, if it is here.
    pub(crate) fn find(&self, after: Revision) -> Option<Arc<Segment>> {
        lock(&self.segments).find(after)
    }

    /// Keeps what was read after a revision.
    pub(crate) fn add(&self, after: Revision, page: LogPage) -> Arc<Segment> {
        let bytes = page.changes.iter().map(|change| change.weight()).sum();
        let segment = Arc::new(Segment { after, next: page.next(after), page, bytes });
        let gone = lock(&self.segments).insert(segment.clone());
        drop(gone);
        segment
    }
}

impl Segments {
    fn find(&self, after: Revision) -> Option<Arc<Segment>> {
        let (_, segment) = self.by_start.range(..=after).next_back()?;
        // A page that began with a gap tells about it only to who comes from before the gap.
        let tells = segment.next > after && (after == segment.after || after >= segment.page.trimmed);
        tells.then(|| segment.clone())
    }

    /// Adds a page; what has to go for it is given back, to be dropped outside the lock.
    fn insert(&mut self, segment: Arc<Segment>) -> Vec<Arc<Segment>> {
        let mut gone = Vec::new();
        if segment.page.changes.is_empty() || segment.bytes > LOG_CACHE_BYTES {
            return gone;
        }
        self.bytes += segment.bytes;
        self.order.push_back(segment.after);
        if let Some(replaced) = self.by_start.insert(segment.after, segment) {
            self.bytes -= replaced.bytes;
            gone.push(replaced);
        }
        while self.bytes > LOG_CACHE_BYTES || self.order.len() > PAGES {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(segment) = self.by_start.remove(&oldest) {
                self.bytes -= segment.bytes;
                gone.push(segment);
            }
        }
        gone
    }
}
