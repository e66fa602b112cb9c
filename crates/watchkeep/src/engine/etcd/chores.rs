//! What a store in a cluster needs to have done now and then, and what is done with it as a whole.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::floors::Floors;
use crate::engine::led::Led as _;
use crate::engine::{Chores, Expected, Found, Whole};
use crate::types::backup::{Backup, BackupOptions};
use crate::types::clock::Timestamp;
use crate::types::consumer::Force;
use crate::types::error::{ErrorKind, Reason, Result};
use crate::types::quota::Quota;
use crate::types::revision::Revision;
use crate::types::sync::lock;

use super::buffer::{Buffer, Of};
use super::retain::{self, Need};
use super::{EtcdEngine, check, sweep};

impl Chores for EtcdEngine {
    /// Asked of the cluster only where it may have come, or where a write of this process may have changed it.
    fn next_deadline(&self) -> Result<Option<Timestamp>> {
        let (soonest, now) = (self.cluster.tail.take_soonest(), self.clock.now());
        let mut known = lock(&self.next_deadline);
        if let Some(next) = *known
            && next.is_none_or(|next| next > now)
        {
            let next = next.into_iter().chain(soonest).min();
            *known = Some(next);
            return Ok(next);
        }
        let before = *known;
        drop(known);
        let mut buffer = Buffer::new(self.cluster.clone(), false);
        let keys = self.cluster.keys.clone();
        let (from, to) = keys.all_deadlines();
        let page = buffer.page((&from, &to), Of::Keys, 1)?;
        let first =
            page.rows.first().and_then(|(key, _)| keys.deadline_of(key)).map(|(deadline, ..)| deadline);
        let mut known = lock(&self.next_deadline);
        // Another may have asked meanwhile, later than this did.
        let first = if *known == before { first } else { first.into_iter().chain(known.flatten()).min() };
        *known = Some(first);
        Ok(first)
    }

    fn leave_due(&self, due: Timestamp) -> Duration {
        self.cluster.leave_due(due, self.clock.now())
    }

    fn maintain(&self) -> Result<bool> {
        if !self.upkeep.is_due() {
            return Ok(false);
        }
        drop(self.held.end_old());
        self.cluster.keep_session();
        self.cluster.end_leases();
        self.cluster.look_for_room();
        let need =
            Need { now: self.clock.now(), floor: self.floors.least(), snapshot_age: self.snapshot_age };
        if let Err(error) = retain::step(&self.cluster, &need) {
            // What is not compacted now is compacted later.
            match error.kind() {
                ErrorKind::Busy | ErrorKind::Unavailable => {
                    tracing::debug!(%error, "the cluster could not be compacted");
                }
                _ => tracing::warn!(%error, "the cluster could not be compacted; its history grows"),
            }
        }
        match sweep::step(&self.cluster, self.clock.now()) {
            // The next round is soon enough.
            Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::Unavailable) => Ok(false),
            Ok(true) => {
                self.upkeep.want();
                Ok(true)
            }
            done => done,
        }
    }

    fn floors(&self) -> &Arc<Floors> {
        &self.floors
    }

    fn trim(&self, before: Revision, force: Force) -> Result<u64> {
        self.known()?;
        self.refuse_closed()?;
        retain::trim(&self.cluster, before, force)
    }
}

impl Whole for EtcdEngine {
    fn change_seal(&self, _: Option<&Expected<'_>>, _: Option<&str>) -> Result<Found> {
        Err(Reason::Remote.into())
    }

    fn sealed(&self) -> Result<Option<String>> {
        Ok(None)
    }

    fn quotas(&self) -> Result<Vec<(String, Quota)>> {
        Err(Reason::Remote.into())
    }

    fn check(&self) -> Result<(Vec<String>, [u64; 3])> {
        self.known()?;
        self.refuse_closed()?;
        check::check(&mut Buffer::new(self.cluster.clone(), true))
    }

    /// Nothing is counted that could be counted wrong, but for namespaces with a quota.
    fn repair(&self) -> Result<Vec<String>> {
        self.refuse_closed()?;
        Ok(Vec::new())
    }

    fn backup(&self, _: &Path, _: &mut BackupOptions) -> Result<Backup> {
        let what = "a store in a cluster is saved with the cluster, by `etcdctl snapshot save`; or export its entries";
        Err(Reason::Invalid { what: what.to_owned() }.into())
    }
}
