//! How far those behind are, as far as a cluster tells: it keeps no running total of bytes.

use std::sync::Arc;

use crate::rules::{Lag, LogRow};
use crate::types::error::Result;
use crate::types::revision::Revision;

use super::cluster::Cluster;

/// The log of a cluster.
pub(super) struct Past(pub(super) Arc<Cluster>);

impl Past {
    /// The first revision that is kept, up to the last, and how many events and bytes that is, as far as it is at hand.
    pub(super) fn extent(&self, last: Revision) -> Result<(Revision, u64, u64)> {
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
        Ok((self.0.tail.end(), 0))
    }

    fn first_after(&self, revision: Revision) -> Result<Option<(LogRow, i64)>> {
        if revision >= self.0.tail.end() {
            return Ok(None);
        }
        let page = self.0.log(revision)?;
        Ok(page
            .changes
            .first()
            .map(|change| (LogRow { revision: change.revision, total: 0, timestamp: change.timestamp }, 0)))
    }

    fn events_after(&self, revision: Revision) -> Result<u64> {
        Ok(self.0.tail.distance(revision, self.0.tail.end()))
    }
}
