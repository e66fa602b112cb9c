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
use crate::types::error::{ErrorKind, Result};
use crate::types::filter::Filter;
use crate::types::sync::{Mutex, lock};

use super::buffer::Buffer;
use super::cluster::Cluster;
use super::stored::{NamedRow, Row};

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

/// The leases that this process has for its consumers.
#[derive(Default)]
pub(super) struct Holders {
    leases: Mutex<HashMap<String, Lease>>,
    /// What nobody needs any more.
    over: Mutex<Vec<i64>>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    id: i64,
    seconds: i64,
    renewed: Instant,
}

impl Lease {
    /// Whether it was renewed a short while ago.
    fn is_fresh(&self) -> bool {
        self.renewed.elapsed() < self.time() / RENEWED
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.unsigned_abs())
    }
}

impl Holders {
    fn get(&self, name: &str) -> Option<Lease> {
        lock(&self.leases).get(name).copied()
    }

    /// Nobody holds a consumer any more, as far as this process goes.
    pub(super) fn release(&self, name: &str) {
        if let Some(lease) = lock(&self.leases).remove(name) {
            lock(&self.over).push(lease.id);
        }
    }

    /// One of the leases is gone, and it is not known which.
    pub(super) fn doubt(&self) {
        lock(&self.leases).clear();
    }
}

/// A consumer's row, with the holder's sign of life.
pub(super) fn signed(row: ConsumerRow, holder: Option<&HolderRow>) -> ConsumerRow {
    let lives = row.holder.is_some() && holder.is_some_and(|holder| holder.fence == row.fence);
    ConsumerRow { lives: Some(lives), ..row }
}

/// The row of a consumer.
pub(super) fn consumer(buffer: &mut Buffer, name: &str) -> Result<Option<ConsumerRow>> {
    let keys = buffer.cluster.keys.clone();
    buffer.fetch([keys.consumer(name), keys.holder(name)])?;
    let Some(NamedRow { row, .. }) = buffer.row(&keys.consumer(name))? else { return Ok(None) };
    Ok(Some(signed(row, holder(buffer, name)?.as_ref())))
}

/// Puts the row of a consumer, and leaves its filter as it is.
pub(super) fn put_consumer(buffer: &mut Buffer, name: &str, row: &ConsumerRow) -> Result<()> {
    let key = buffer.cluster.keys.consumer(name);
    let before = buffer.row::<NamedRow>(&key)?;
    sign(buffer, name, row)?;
    // A sign of life alone renews the holder's lease.
    let stays = |NamedRow { row: before, .. }: &NamedRow| {
        ConsumerRow { lease_until: row.lease_until, lives: row.lives, ..before.clone() } == *row
    };
    if !before.as_ref().is_some_and(stays) {
        let filter = before.map_or_else(Filter::everything, |named| named.filter);
        buffer.put(key, NamedRow { row: row.clone(), filter });
    }
    Ok(())
}

/// What says that the holder of a consumer lives. A row that cannot be read says nothing, and keeps nobody from anything.
fn holder(buffer: &mut Buffer, name: &str) -> Result<Option<HolderRow>> {
    let key = buffer.cluster.keys.holder(name);
    match buffer.row(&key) {
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(None),
        row => row,
    }
}

/// A consumer's row is put: gives a sign of life for its holder, or takes it back where there is none any more.
fn sign(buffer: &mut Buffer, name: &str, row: &ConsumerRow) -> Result<()> {
    let (cluster, key) = (buffer.cluster.clone(), buffer.cluster.keys.holder(name));
    let there = holder(buffer, name)?;
    if row.holder.is_none() {
        cluster.holders.release(name);
        buffer.remove(key);
        return Ok(());
    }
    let there = there.filter(|there| there.fence == row.fence);
    if !there.is_some_and(|there| cluster.keep_holder(name, there.lease)) {
        let lease = cluster.grant_holder(name, row.lease)?;
        buffer.put(key, HolderRow { fence: row.fence, lease });
    }
    Ok(())
}

impl Cluster {
    /// A lease for so many milliseconds, or what the servers take for the shortest.
    fn grant_holder(&self, name: &str, millis: i64) -> Result<i64> {
        let seconds = millis.saturating_add(999).div_euclid(1_000).clamp(1, LONGEST);
        // One that was granted for a try that came to nothing.
        if let Some(lease) = self.holders.get(name).filter(|it| it.seconds == seconds && it.is_fresh()) {
            return Ok(lease.id);
        }
        self.holders.release(name);
        let id = self.grant(seconds)?;
        let mut leases = lock(&self.holders.leases);
        // Those of holders that were overtaken: they are over.
        leases.retain(|_, lease| lease.renewed.elapsed() < lease.time());
        leases.insert(name.to_owned(), Lease { id, seconds, renewed: Instant::now() });
        Ok(id)
    }

    /// Renews a lease now and then; whether it may still be there. Whoever relies on it compares its row.
    fn keep_holder(&self, name: &str, id: i64) -> bool {
        // Otherwise it is of a process that is gone, or was over by now.
        let Some(lease) = self.holders.get(name).filter(|lease| lease.id == id) else { return false };
        if lease.is_fresh() {
            return true;
        }
        let renewed = Instant::now();
        match self.keep_lease(id) {
            Ok(left) if left > 0 => {
                lock(&self.holders.leases).insert(name.to_owned(), Lease { renewed, ..lease });
                true
            }
            Ok(_) => {
                lock(&self.holders.leases).remove(name);
                false
            }
            Err(status) => {
                tracing::debug!(%status, "the lease of a consumer's holder could not be renewed");
                true
            }
        }
    }

    /// Ends the leases that nobody needs any more: they would end by themselves, some of them in years.
    pub(super) fn end_leases(&self) {
        let over = std::mem::take(&mut *lock(&self.holders.over));
        if !over.is_empty() {
            self.revoke(over);
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
