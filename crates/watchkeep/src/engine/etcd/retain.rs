//! Compacting the cluster, where the store is set to do so: up to where its retention lets go, by one process at a time.
//!
//! A compaction to the revision of a commit leaves that commit readable, and all that come after it. So whoever has seen
//! a commit loses nothing by a compaction to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::types::clock::Timestamp;
use crate::types::consumer::Force;
use crate::types::error::{Reason, Result};
use crate::types::limits::{SNAPSHOT_LOG_BYTES, SNAPSHOT_LOG_EVENTS};
use crate::types::options::{Compaction, Retention};
use crate::types::revision::Revision;
use crate::types::sync::{Mutex, lock};

use super::buffer::{Buffer, Of};
use super::cluster::Cluster;
use super::settings::{self, Settings};
use super::stored::{NamedRow, Record, commit_of};
use super::wire::{KeyValue, RangeRequest};
use super::{everything, halve};

/// For how long this process must have seen a commit before what came before it goes by itself, whatever retention says:
/// those who follow from other machines, and hold snapshots there, are behind by less. No clock is asked for it that
/// somebody may set.
const MARGIN: Duration = Duration::from_secs(120);
/// How often it is looked whether something may go, unless much was written.
const LOOK: Duration = Duration::from_secs(300);
/// How often at the most: a compaction costs the servers a look at all that they hold.
const SOONEST: Duration = Duration::from_secs(2);
/// Which part of what is kept is much.
const PART: u64 = 8;

/// What this process knows of compacting.
pub(super) struct Compacting {
    state: Mutex<State>,
    /// Up to which revision of the cluster this process knows it to be compacted.
    compacted: AtomicI64,
}

struct State {
    settings: Settings,
    looked: Instant,
    /// How many events, and how many bytes of them, had been seen then.
    seen: (u64, u64),
}

impl Compacting {
    pub(super) fn new(settings: Settings) -> Compacting {
        // A process that lives for a moment does not compact.
        let state = State { settings, looked: Instant::now(), seen: (0, 0) };
        Compacting { state: Mutex::new(state), compacted: AtomicI64::new(0) }
    }

    /// Whether so much was written that it is time to look, once so many events and bytes were seen.
    pub(super) fn wants(&self, seen: (u64, u64)) -> bool {
        lock(&self.state).wants(seen)
    }

    /// Whether to look; then it is noted that somebody does.
    fn is_due(&self, seen: (u64, u64)) -> bool {
        let mut state = lock(&self.state);
        let is_due = state.looked.elapsed() >= LOOK || state.wants(seen);
        if is_due {
            (state.looked, state.seen) = (Instant::now(), seen);
        }
        is_due
    }
}

impl State {
    fn wants(&self, (events, bytes): (u64, u64)) -> bool {
        let Settings { compaction, retention } = self.settings;
        let is_much = |since: u64, kept: u64| since >= (kept / PART).max(1);
        compaction == Compaction::Own
            && self.looked.elapsed() >= SOONEST
            && (is_much(events.saturating_sub(self.seen.0), retention.max_events)
                || is_much(bytes.saturating_sub(self.seen.1), retention.max_bytes))
    }
}

/// What a look at what to keep needs to know.
pub(super) struct Need {
    pub(super) now: Timestamp,
    /// What comes after it is read by somebody of this process who began with a snapshot.
    pub(super) floor: Option<Revision>,
    /// How old a snapshot of this process may become.
    pub(super) snapshot_age: Duration,
}

/// Compacts what may go, if it is time to look, and ours to do.
pub(super) fn step(cluster: &Arc<Cluster>, need: &Need) -> Result<()> {
    let compacting = &cluster.compacting;
    if !compacting.is_due(cluster.tail.counted()) {
        return Ok(());
    }
    let settings = settings::read(&cluster.client, &cluster.keys, cluster.patience)?;
    lock(&compacting.state).settings = settings;
    if settings.compaction != Compaction::Own || !cluster.become_keeper()? {
        return Ok(());
    }
    match cut(cluster, &settings.retention, need)? {
        Some(to) => compact(cluster, to).map(drop),
        None => Ok(()),
    }
}

/// Trims the log before a revision, now; how many events went.
pub(super) fn trim(cluster: &Arc<Cluster>, before: Revision, force: Force) -> Result<u64> {
    if settings::read(&cluster.client, &cluster.keys, cluster.patience)?.compaction != Compaction::Own {
        return Err(Reason::NotOurHistory.into());
    }
    // The last commit always stays.
    let last = commit_of(before).min(cluster.tail.link().modified).saturating_sub(1);
    let Some(to) = at(cluster, last, true)?.filter(|feed| feed.version > 1) else { return Ok(0) };
    if force == Force::No
        && let Some((name, after)) = least_acknowledged(cluster)?
        && commit_of(after) < to.mod_revision
    {
        return Err(Reason::Needed { name, after }.into());
    }
    compact(cluster, to.mod_revision)
}

/// Compacts the cluster; how many events of this store went.
fn compact(cluster: &Cluster, to: i64) -> Result<u64> {
    let before = cluster.tail.trimmed();
    match cluster.client.compact(to, cluster.patience) {
        Err(error) if !matches!(error.reason(), Reason::HistoryGone) => return Err(error),
        Err(_) => {}
        Ok(()) => tracing::debug!(to, "the cluster's history is compacted"),
    }
    cluster.compacting.compacted.fetch_max(to, Ordering::Relaxed);
    let after = cluster.find_floor(to)?;
    Ok(if after > before { cluster.tail.distance(before, after) } else { 0 })
}

/// Which consumer has acknowledged least.
fn least_acknowledged(cluster: &Arc<Cluster>) -> Result<Option<(String, Revision)>> {
    let mut least: Option<(String, Revision)> = None;
    let keys = cluster.keys.clone();
    Buffer::new(cluster.clone(), true).each(keys.consumers(&everything()), Of::Rows, |_, key, row| {
        let NamedRow { row, .. } = row.row(key)?;
        if let Some(acked) = row.acked
            && least.as_ref().is_none_or(|(_, least)| acked < *least)
        {
            least = keys.consumer_of(key).map(|name| (name.to_owned(), acked));
        }
        Ok(true)
    })?;
    Ok(least)
}

/// The commit to which retention compacts now: all that come after it stay.
fn cut(cluster: &Arc<Cluster>, keep: &Retention, need: &Need) -> Result<Option<i64>> {
    let log = Log { cluster, now: need.now };
    let by_count = log.before_events(keep.max_events)?;
    let by_size = by_count.max(log.before_bytes(keep.max_bytes));
    let wanted = by_size.max(log.older_than(keep.max_age)?).min(log.before_events(keep.min_events)?);
    let known = cluster.compacting.compacted.load(Ordering::Relaxed).max(commit_of(cluster.tail.trimmed()));
    if wanted <= known {
        return Ok(None);
    }
    let margin = MARGIN.max(need.snapshot_age.saturating_mul(2));
    let mut to = wanted.min(cluster.tail.seen_before(margin).unwrap_or(0));
    if let Some((_, acked)) = least_acknowledged(cluster)?.filter(|(_, acked)| commit_of(*acked) < to) {
        let ceiling = log.before_bytes(keep.consumer_bytes).max(log.older_than(keep.consumer_age)?);
        to = to.min(ceiling.max(commit_of(acked)));
    }
    if let Some(floor) = need.floor.map(commit_of).filter(|floor| *floor < to) {
        let ceiling = log.before_bytes(SNAPSHOT_LOG_BYTES).max(log.before_events(SNAPSHOT_LOG_EVENTS)?);
        to = to.min(ceiling.max(floor));
    }
    Ok((to > known).then_some(to))
}

/// The log as far as it can be read: each answer is a commit, or zero where there is none.
struct Log<'c> {
    cluster: &'c Cluster,
    now: Timestamp,
}

impl Log<'_> {
    /// The last commit after which at least so many events came.
    fn before_events(&self, count: u64) -> Result<i64> {
        if let Some(known) = self.cluster.tail.before_events(count) {
            return Ok(known);
        }
        // What came before the store was opened here is not counted: a commit has at least one.
        let version = self.cluster.tail.link().version;
        match version.checked_sub_unsigned(count).filter(|first| *first > 1) {
            Some(upto) => self.last(true, |feed| Some(feed.version <= upto)),
            None => Ok(0),
        }
    }

    /// The last commit after which so many bytes came, as far as they came since the store was opened here.
    fn before_bytes(&self, bytes: u64) -> i64 {
        self.cluster.tail.before_bytes(bytes).unwrap_or(0)
    }

    /// The last commit that is older. One that is dated in the future tells nothing of its age, nor does the first version,
    /// which has no events.
    fn older_than(&self, age: Duration) -> Result<i64> {
        if age == Duration::MAX {
            return Ok(0);
        }
        self.last(false, |feed| is_older(feed, self.now, age))
    }

    /// The last commit of which this is so.
    fn last(&self, keys_only: bool, is_so: impl Fn(&KeyValue) -> Option<bool>) -> Result<i64> {
        let cluster = self.cluster;
        let known = cluster.compacting.compacted.load(Ordering::Relaxed);
        let first = known.max(cluster.created).max(commit_of(cluster.tail.trimmed()));
        let last = cluster.tail.link().modified;
        halve::last((first, last), |revision| {
            Ok(at(cluster, revision, keys_only)?.map(|feed| (feed.mod_revision, is_so(&feed))))
        })
    }
}

/// Whether a commit is older, if it tells.
fn is_older(feed: &KeyValue, now: Timestamp, age: Duration) -> Option<bool> {
    let Some((_, told)) = Record::decode(&feed.value, feed.mod_revision) else { return Some(false) };
    let made = told.first()?.change.timestamp;
    (made <= now).then(|| now.since(made) > age)
}

/// The feed as of a revision of the cluster, if that can still be read.
fn at(cluster: &Cluster, revision: i64, keys_only: bool) -> Result<Option<KeyValue>> {
    if revision < cluster.created {
        return Ok(None);
    }
    let key = cluster.keys.feed();
    let request = RangeRequest { key, revision, keys_only, serializable: true, ..RangeRequest::default() };
    match cluster.client.range(request, cluster.patience) {
        Err(error) if matches!(error.reason(), Reason::HistoryGone) => Ok(None),
        answer => Ok(answer?.kvs.into_iter().next()),
    }
}

#[cfg(test)]
mod tests {
    use crate::types::event::Change;

    use super::super::stored::end_of;
    use super::*;

    /// A version of the feed with an event of this time, or without any.
    fn feed(made: Option<i64>) -> KeyValue {
        let revision = end_of(7);
        let change = |made| Change { timestamp: Timestamp::from_millis(made), ..Change::sample(revision) };
        let record = Record { id: 1, changes: made.map(change).into_iter().collect() };
        KeyValue { mod_revision: 7, value: record.encode(|_| None), ..KeyValue::default() }
    }

    #[test]
    fn what_has_no_time_or_one_that_is_to_come_does_not_tell_how_old_it_is() {
        let is_older = |made| is_older(&feed(made), Timestamp::from_millis(10_000), Duration::from_secs(5));
        assert_eq!([is_older(Some(4_999)), is_older(Some(5_000))], [Some(true), Some(false)]);
        assert_eq!([is_older(Some(10_000)), is_older(Some(10_001))], [Some(false), None]);
        assert_eq!(is_older(None), None, "the first version only says that the store was made");
    }
}
