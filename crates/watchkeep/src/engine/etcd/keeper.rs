//! The keeper: the one process, of those that have the store open, that compacts, and removes first what is due.
//!
//! Nothing rests on there being only one. Two that compact at once do no harm, and of two that remove the same entry one
//! loses; but that one has cost the servers a write for nothing.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tonic::Code;

use crate::types::clock::Timestamp;
use crate::types::error::Result;
use crate::types::revision::random;
use crate::types::sync::{Mutex, lock};

use super::cluster::{Cluster, rows_of};
use super::status::refused;
use super::wire::{Compare, KeyValue, PutRequest, RangeRequest, Request, TxnRequest};

/// For how long the others leave what is due to the keeper. Each adds up to as much again, so that they do not come
/// together when it does nothing.
const HEAD_START: Duration = Duration::from_millis(250);
/// How many leases are tried that may be gone: the one at hand, and a new one.
const LEASES: usize = 2;

/// What this process knows of the keeper.
pub(super) struct Keeper {
    /// Drawn at random: who this process is.
    name: u128,
    /// The lease under which this process is the keeper, as far as it knows; zero while it is not.
    lease: AtomicI64,
    left: Mutex<Option<Left>>,
}

/// What is left to the keeper: all that was due when this process noticed.
#[derive(Debug, Clone, Copy)]
struct Left {
    upto: Timestamp,
    since: Instant,
}

impl Keeper {
    pub(super) fn new() -> Result<Keeper> {
        let name = u128::from_be_bytes(random()?);
        Ok(Keeper { name, lease: AtomicI64::new(0), left: Mutex::default() })
    }

    /// For how long this process leaves it, in all.
    fn patience(&self) -> Duration {
        let most = HEAD_START.as_millis();
        HEAD_START + Duration::from_millis(u64::try_from(self.name % most).unwrap_or(0))
    }

    /// How long to leave what is due to the keeper from now on. The time that passes is counted, and not what the clock of
    /// the store says: that one may stand still, or be ahead of the keeper's.
    fn leave(&self, due: Timestamp, now: Timestamp) -> Duration {
        let mut left = lock(&self.left);
        let since = match *left {
            Some(Left { upto, since }) if due <= upto => since,
            _ => left.insert(Left { upto: now, since: Instant::now() }).since,
        };
        self.patience().saturating_sub(since.elapsed())
    }
}

impl Cluster {
    /// How long to leave what is due to the keeper, unless this process is the keeper.
    pub(super) fn leave_due(&self, due: Timestamp, now: Timestamp) -> Duration {
        let lease = self.keeper.lease.load(Ordering::Relaxed);
        if lease != 0 && self.is_session(lease) {
            return Duration::ZERO;
        }
        let wait = self.keeper.leave(due, now);
        // It did not do it in time: perhaps there is none.
        if wait.is_zero()
            && let Err(error) = self.become_keeper()
        {
            tracing::debug!(%error, "this process could not become the store's keeper in the cluster");
        }
        wait
    }

    /// Whether this process is the keeper; it becomes that when nobody is.
    pub(super) fn become_keeper(&self) -> Result<bool> {
        let lease = self.take_keeping()?;
        self.keeper.lease.store(lease.unwrap_or(0), Ordering::Relaxed);
        Ok(lease.is_some())
    }

    /// The lease under which this process is the keeper, if it is.
    fn take_keeping(&self) -> Result<Option<i64>> {
        let key = self.keys.keeper();
        let ours: Bytes = self.keeper.name.to_be_bytes().to_vec().into();
        let is_ours = |row: &KeyValue| (row.value == ours).then_some(row.lease);
        let look = || RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let there = self.client.range(look(), self.patience)?.kvs.into_iter().next();
        if there.as_ref().is_some_and(|there| is_ours(there).is_none_or(|lease| self.is_session(lease))) {
            return Ok(there.as_ref().and_then(is_ours));
        }
        // Where it is ours, it is of a session that was ended.
        let modified = there.map_or(0, |there| there.mod_revision);
        // It goes with our session, which may be gone itself.
        for _ in 0..LEASES {
            let lease = self.lease()?;
            let put = PutRequest { key: key.clone(), value: ours.clone(), lease };
            let request = TxnRequest {
                compare: vec![Compare::modified(key.clone(), modified)],
                success: vec![Request::Put(put).into()],
                failure: vec![Request::Range(look()).into()],
            };
            let answer = match self.client.commit(request) {
                Err(status) if status.code() == Code::NotFound => {
                    self.leave_session(lease);
                    continue;
                }
                answer => answer.map_err(|status| refused(&status))?,
            };
            if answer.succeeded {
                return Ok(Some(lease));
            }
            return Ok(rows_of(answer).pop().flatten().as_ref().and_then(is_ours));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_due_when_it_was_noticed_is_left_once_and_what_comes_later_anew() -> Result<()> {
        let at = Timestamp::from_millis;
        let keeper = Keeper::new()?;
        assert!((HEAD_START..2 * HEAD_START).contains(&keeper.patience()));
        assert!(!keeper.leave(at(10), at(20)).is_zero());
        let long_ago =
            Instant::now().checked_sub(keeper.patience()).expect("this machine runs for half a second");
        *lock(&keeper.left) = Some(Left { upto: at(20), since: long_ago });
        assert!(keeper.leave(at(10), at(30)).is_zero());
        assert!(keeper.leave(at(20), at(30)).is_zero(), "all of it at one go");
        assert!(!keeper.leave(at(21), at(30)).is_zero());
        Ok(())
    }
}
