//! The feed: what this process committed, in order, for the hub to take. It is a short cut: whatever is not in it
//! is in the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::types::counters::Count;
use crate::types::event::{Change, Kind};
use crate::types::limits::{FEED_BYTES, FEED_EVENTS, FEED_TOTAL_BYTES};
use crate::types::revision::Revision;
use crate::types::sync::{Mutex, lock};

/// The events of one commit.
#[derive(Debug)]
struct Commit {
    /// The last revision before it.
    base: Revision,
    last: Revision,
    /// None when there are too many to hold: the log has them.
    changes: Option<Vec<Arc<Change>>>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Commits {
    queue: VecDeque<Commit>,
    bytes: usize,
}

/// Commits that were not yet dispatched.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    commits: Mutex<Commits>,
    /// How many commits there were, and how many events they had.
    pub(crate) committed: Count,
    pub(crate) events: Count,
    /// How many of these were expiries, and how many milliseconds late they came.
    pub(crate) expired: Count,
    pub(crate) lateness: Count,
}

impl Feed {
    /// Adds a commit; called in the order of the commits.
    pub(crate) fn push(&self, base: Revision, last: Revision, changes: Vec<Arc<Change>>) {
        self.count(&changes);
        let bytes: usize = changes.iter().map(|change| change.weight()).sum();
        let mut commits = lock(&self.commits);
        let fits =
            changes.len() <= FEED_EVENTS && bytes <= FEED_BYTES && commits.bytes + bytes <= FEED_TOTAL_BYTES;
        let (changes, bytes) = if fits { (Some(changes), bytes) } else { (None, 0) };
        commits.bytes += bytes;
        commits.queue.push_back(Commit { base, last, changes, bytes });
    }

    /// Counts a commit of this process. One that is read from the log by all, and so not added, is counted too.
    pub(crate) fn count(&self, changes: &[Arc<Change>]) {
        self.committed.add(1);
        self.events.add(u64::try_from(changes.len()).unwrap_or(u64::MAX));
        for expired in changes.iter().filter(|change| change.kind == Kind::Expire) {
            let late = expired.deadline.map_or(Duration::ZERO, |deadline| expired.timestamp.since(deadline));
            self.expired.add(1);
            self.lateness.add(u64::try_from(late.as_millis()).unwrap_or(u64::MAX));
        }
    }

    /// The commit that follows `after` directly, if it is here; what lies before it is let go.
    pub(crate) fn take(&self, after: Revision) -> Option<Vec<Arc<Change>>> {
        let mut gone = Vec::new();
        let mut commits = lock(&self.commits);
        let mut taken = None;
        while commits.queue.front().is_some_and(|front| front.last <= after || front.base == after) {
            let Some(front) = commits.queue.pop_front() else { break };
            commits.bytes -= front.bytes;
            if front.last > after {
                taken = front.changes;
                break;
            }
            gone.push(front);
        }
        // Values are dropped outside the lock.
        drop(commits);
        drop(gone);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: u64) -> Arc<Change> {
        Arc::new(Change::sample(Revision::new(revision)))
    }

    #[test]
    fn only_what_follows_directly_is_taken() {
        let (feed, at) = (Feed::default(), Revision::new);
        feed.push(at(0), at(1), vec![change(1)]);
        feed.push(at(4), at(5), vec![change(5)]);
        assert_eq!(feed.take(at(0)).map(|changes| changes.len()), Some(1));
        // Another process committed 2 to 4: the log has them.
        assert!(feed.take(at(1)).is_none());
        assert!(feed.take(at(4)).is_some());
        feed.push(at(5), at(6), vec![change(6)]);
        // The log was read past it meanwhile.
        assert!(feed.take(at(6)).is_none());
        assert_eq!(lock(&feed.commits).bytes, 0);
    }
}
