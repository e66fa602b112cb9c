//! How far those behind are, as far as this process has seen the log: a cluster counts neither events nor bytes.

use std::sync::Arc;

use crate::rules::{Lag, LogRow};
use crate::types::error::Result;
use crate::types::revision::Revision;

use super::cluster::Cluster;

/// The log of a cluster.
pub(super) struct Past(pub(super) Arc<Cluster>);

impl Past {
    fn bytes_upto(&self, revision: Revision) -> i64 {
        i64::try_from(self.0.tail.bytes_upto(revision)).unwrap_or(i64::MAX)
    }

    /// The first revision that is kept, up to the last, and how many events and bytes that is, as far as it is at hand.
    pub(super) fn extent(&self, last: Revision) -> Result<(Revision, u64, u64)> {
        // Others may have compacted it, and nobody here has read there since.
        self.0.look_for_floor()?;
        let trimmed = self.trimmed()?;
        let first = self.first_after(trimmed)?.map_or(last, |(row, _)| row.revision);
        Ok((first, self.events_after(trimmed)?, self.0.tail.payload()))
    }
}

impl Lag for Past {
    fn trimmed(&self) -> Result<Revision> {
        Ok(self.0.tail.trimmed())
    }

    fn end(&self) -> Result<(Revision, i64)> {
        let end = self.0.tail.end();
        Ok((end, self.bytes_upto(end)))
    }

    fn first_after(&self, revision: Revision) -> Result<Option<(LogRow, i64)>> {
        if revision >= self.0.tail.end() {
            return Ok(None);
        }
        let before = self.bytes_upto(revision);
        let page = self.0.log(revision)?;
        Ok(page.changes.first().map(|change| {
            let total = before.saturating_add(i64::try_from(change.payload()).unwrap_or(i64::MAX));
            (LogRow { revision: change.revision, total, timestamp: change.timestamp }, before)
        }))
    }

    fn events_after(&self, revision: Revision) -> Result<u64> {
        Ok(self.0.tail.distance(revision, self.0.tail.end()))
    }
}
