//! Who holds a consumer lives as long as its lease in the cluster: the cluster ends it by a clock of its own, so machines
//! whose clocks differ agree. The lease bears a row beside the consumer's, which only a taking writes: a sign of life
//! renews the lease, and writes nothing.
//!
//! That a holder lives only keeps others from taking its name. What it acknowledges counts by the fence in the consumer's
//! row, whatever a lease says: of two that believe to hold the name, one is refused.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;

use crate::rules::ConsumerRow;
use crate::types::error::Result;
use crate::types::sync::{Mutex, lock};

use super::buffer::Buffer;
use super::cluster::Cluster;
use super::stored::Row;

/// The longest lease in seconds: some thirty years, of the 285 that a server grants.
const LONGEST: i64 = 1_000_000_000;
/// A lease is renewed by the first sign of life after this part of it.
const RENEWED: u32 = 4;

/// The row that says that the holder with this fence lives.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HolderRow {
    #[prost(uint64, tag = "1")]
    pub(super) fence: u64,
    /// Which lease bears the row.
    #[prost(int64, tag = "2")]
    pub(super) lease: i64,
}

impl Row for HolderRow {
    const WHAT: &'static str = "holder of a consumer";

    fn encode(&self, _: u64) -> Bytes {
        self.encode_to_vec().into()
    }

    fn decode(bytes: &[u8], _: i64) -> Option<HolderRow> {
        Message::decode(bytes).ok()
    }

    fn lease(&self) -> i64 {
        self.lease
    }
}

/// The leases of this process's consumers: when each was renewed, and how long it is.
#[derive(Default)]
pub(super) struct Holders {
    renewed: Mutex<HashMap<i64, (Instant, Duration)>>,
}

/// A consumer's row, with the holder's sign of life.
pub(super) fn signed(row: ConsumerRow, holder: Option<&HolderRow>) -> ConsumerRow {
    let lives = row.holder.is_some() && holder.is_some_and(|holder| holder.fence == row.fence);
    ConsumerRow { lives: Some(lives), ..row }
}

/// A consumer's row is put: gives a sign of life for its holder, or takes it back where there is none any more.
pub(super) fn sign(buffer: &mut Buffer, name: &str, row: &ConsumerRow) -> Result<()> {
    let (cluster, key) = (buffer.cluster.clone(), buffer.cluster.keys.holder(name));
    let there = buffer.row::<HolderRow>(&key)?;
    if row.holder.is_none() {
        if let Some(HolderRow { lease, .. }) = there {
            lock(&cluster.holders.renewed).remove(&lease);
            buffer.remove(key);
        }
        return Ok(());
    }
    let is_kept =
        there.filter(|there| there.fence == row.fence).is_some_and(|it| cluster.keep_holder(it.lease));
    if !is_kept {
        let lease = cluster.grant_holder(row.lease)?;
        buffer.put(key, HolderRow { fence: row.fence, lease });
    }
    Ok(())
}

impl Cluster {
    /// A lease for so many milliseconds, or what the servers take for the shortest.
    fn grant_holder(&self, millis: i64) -> Result<i64> {
        let seconds = millis.saturating_add(999).div_euclid(1_000).clamp(1, LONGEST);
        let lease = self.grant(seconds)?;
        let mut renewed = lock(&self.holders.renewed);
        // Those of holders that were overtaken: they are over.
        renewed.retain(|_, (at, time)| at.elapsed() < *time);
        renewed.insert(lease, (Instant::now(), Duration::from_secs(seconds.unsigned_abs())));
        Ok(lease)
    }

    /// Renews a lease now and then; whether it may still be there. Whoever relies on it compares its row.
    fn keep_holder(&self, lease: i64) -> bool {
        let known = lock(&self.holders.renewed).get(&lease).copied();
        // It is of a process that is gone, or was over by now.
        let Some((at, time)) = known else { return false };
        if at.elapsed() < time / RENEWED {
            return true;
        }
        let asked = Instant::now();
        match self.keep_lease(lease) {
            Ok(left) if left > 0 => {
                lock(&self.holders.renewed).insert(lease, (asked, time));
                true
            }
            Ok(_) => {
                lock(&self.holders.renewed).remove(&lease);
                false
            }
            Err(status) => {
                tracing::debug!(%status, "the lease of a consumer's holder could not be renewed");
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::types::clock::Timestamp;

    use super::*;

    #[test]
    fn a_holder_lives_by_its_own_row_and_no_clock() {
        let row = ConsumerRow {
            acked: None,
            acked_at: None,
            created: Timestamp::default(),
            fence: 7,
            holder: Some("it".to_owned()),
            lease_until: Some(Timestamp::from_millis(10)),
            lives: None,
            lease: 10,
        };
        let lives = |row: &ConsumerRow, fence| {
            let row = signed(row.clone(), Some(&HolderRow { fence, lease: 1 }));
            [0, 1_000_000].map(|now| row.is_alive(Timestamp::from_millis(now)))
        };
        assert_eq!(lives(&row, 7), [true, true]);
        assert_eq!(lives(&row, 6), [false, false], "it is of the one before");
        assert!(!signed(row.clone(), None).is_alive(Timestamp::from_millis(1)));
        assert_eq!(lives(&ConsumerRow { holder: None, ..row }, 7), [false, false]);
    }
}
