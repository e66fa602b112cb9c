//! The end of the log: the last commits of everybody, in their order and without a gap.
//!
//! Every commit puts the feed, so its `version` counts the commits: the one after the last known is next, a lower one is
//! known, and a higher one shows that some are missing.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::driver::{Lane, Signal};
use crate::engine::LogPage;
use crate::engine::feed::Feed;
use crate::types::clock::{Clock, Timestamp};
use crate::types::error::{Error, Reason, Result};
use crate::types::event::{Change, Kind};
use crate::types::limits::{PAGE_BYTES, PAGE_ENTRIES};
use crate::types::revision::Revision;
use crate::types::sync::{Condvar, Mutex, lock};

use super::ledger::Ledger;
use super::stored::{commit_of, end_of};

/// What became of a store whose feed is not the one that was followed.
pub(super) const SET_BACK: &str = "set back, as by a backup";

/// How many events are kept, and of what weight.
const KEPT: usize = 65_536;
const KEPT_BYTES: usize = 32 << 20;
/// Of how many commits it is known whose they are.
const IDS: usize = 4_096;

/// Where a chain of commits stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    /// How many commits there were.
    pub(super) version: i64,
    /// When the last of them was made.
    pub(super) modified: i64,
}

/// What a commit that was offered is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    Next,
    Known,
    /// Some before it are missing.
    Ahead,
    /// It is of another feed: one with a commit that is not known, in the place of one that is.
    Other,
}

struct State {
    link: Link,
    /// The events after `base`, in their order.
    window: VecDeque<Arc<Change>>,
    bytes: usize,
    base: Revision,
    /// Everything up to this revision is compacted, as far as that is known.
    trimmed: Revision,
    ledger: Ledger,
    /// The last commits: their ids, and where they are.
    ids: VecDeque<(u128, Link)>,
    /// The earliest deadline that came since it was last asked for.
    soonest: Option<Timestamp>,
    /// Why nothing more will come.
    broken: Option<Error>,
}

/// The last commits, as they come in.
pub(super) struct Tail {
    state: Mutex<State>,
    changed: Condvar,
    /// What this process committed, for the hub.
    pub(super) feed: Feed,
    signal: Arc<Signal>,
    clock: Arc<dyn Clock>,
}

impl Tail {
    /// After a commit up to which everything is known to be done.
    pub(super) fn new(link: Link, trimmed: Revision, signal: Arc<Signal>, clock: Arc<dyn Clock>) -> Tail {
        let state = State {
            link,
            window: VecDeque::new(),
            bytes: 0,
            base: end_of(link.modified),
            trimmed,
            ledger: Ledger::new(link.modified, clock.monotonic()),
            ids: VecDeque::new(),
            soonest: None,
            broken: None,
        };
        Tail { state: Mutex::new(state), changed: Condvar::new(), feed: Feed::default(), signal, clock }
    }

    pub(super) fn link(&self) -> Link {
        lock(&self.state).link
    }

    /// The last revision.
    pub(super) fn end(&self) -> Revision {
        end_of(self.link().modified)
    }

    /// How many bytes of names and values the events have that are here.
    pub(super) fn payload(&self) -> u64 {
        lock(&self.state).window.iter().map(|change| change.payload() as u64).sum()
    }

    /// The earliest deadline that came since this was last asked.
    pub(super) fn take_soonest(&self) -> Option<Timestamp> {
        lock(&self.state).soonest.take()
    }

    pub(super) fn trimmed(&self) -> Revision {
        lock(&self.state).trimmed
    }

    /// Everything up to a revision was found to be compacted.
    pub(super) fn note_trimmed(&self, trimmed: Revision) {
        let mut state = lock(&self.state);
        state.trimmed = state.trimmed.max(trimmed);
        state.ledger.forget(commit_of(trimmed));
    }

    /// How many events came in since the store was opened here, and how many bytes of them.
    pub(super) fn counted(&self) -> (u64, u64) {
        lock(&self.state).ledger.totals()
    }

    /// The last commit after which so many events came, or so many bytes, if they came since the store was opened here.
    pub(super) fn before_events(&self, count: u64) -> Option<i64> {
        lock(&self.state).ledger.before_events(count)
    }

    pub(super) fn before_bytes(&self, bytes: u64) -> Option<i64> {
        lock(&self.state).ledger.before_bytes(bytes)
    }

    /// How many bytes came in up to a revision since the store was opened here, by whole commits.
    pub(super) fn bytes_upto(&self, revision: Revision) -> u64 {
        let commit = commit_of(revision);
        lock(&self.state).ledger.bytes_upto(if end_of(commit) == revision { commit } else { commit - 1 })
    }

    /// The last commit that was seen here so long ago, if one was since the store was opened here.
    pub(super) fn seen_before(&self, age: Duration) -> Option<i64> {
        let then = self.clock.monotonic().checked_sub(age)?;
        lock(&self.state).ledger.seen_by(then)
    }

    /// A commit that the cluster told of.
    pub(super) fn offer(&self, id: u128, link: Link, changes: Vec<Arc<Change>>) -> Offered {
        let has_deadline = changes.iter().any(|change| change.deadline.is_some());
        let offered = self.add(id, link, changes, None);
        if offered == Offered::Next {
            if has_deadline {
                self.signal.raise(Lane::Vital);
            }
            self.signal.raise(Lane::Work);
        }
        offered
    }

    /// `own`: what came before a commit of this process, as the cluster has it.
    fn add(&self, id: u128, link: Link, changes: Vec<Arc<Change>>, own: Option<Link>) -> Offered {
        // A user's clock is asked before the lock.
        let seen = self.clock.monotonic();
        let mut state = lock(&self.state);
        let known = state.link;
        if link.version <= known.version {
            // What this process commits is not told by others as something else.
            if own.is_some() && state.knows(link) && !state.has(id) {
                return Offered::Other;
            }
            if own.is_some() {
                // The watch brought it before the answer came.
                self.feed.count(&changes);
            }
            return Offered::Known;
        }
        if link.version > known.version + 1 {
            return Offered::Ahead;
        }
        if own.is_some_and(|before| before != known) {
            return Offered::Other;
        }
        if own.is_some() {
            // In the order of the commits, so under the lock.
            self.feed.push(end_of(known.modified), end_of(link.modified), changes.clone());
        }
        let gone = state.push(id, (link, seen), changes);
        drop(state);
        drop(gone);
        self.changed.notify_all();
        Offered::Next
    }

    /// Adds a commit of this process, once those before it are known; refuses one whose chain is another. `before` is the
    /// last of those, as the cluster has it.
    pub(super) fn commit(
        &self,
        id: u128,
        (before, link): (Link, Link),
        changes: &[Arc<Change>],
        limit: Duration,
    ) -> Result<()> {
        let until = Instant::now() + limit;
        loop {
            match self.add(id, link, changes.to_vec(), Some(before)) {
                Offered::Next | Offered::Known => return Ok(()),
                Offered::Other => return Err(Reason::FeedReplaced { what: SET_BACK }.into()),
                Offered::Ahead => self.wait(link.version - 1, until)?,
            }
        }
    }

    /// Waits until so many commits are known.
    pub(super) fn wait(&self, version: i64, until: Instant) -> Result<()> {
        let mut state = lock(&self.state);
        while state.link.version < version {
            if let Some(broken) = &state.broken {
                return Err(broken.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let said = "its feed does not come".to_owned();
                return Err(Reason::Unreachable { said }.into());
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Where the commit of this id is, if it is one of the last.
    pub(super) fn find(&self, id: u128) -> Option<Link> {
        let state = lock(&self.state);
        state.ids.iter().rev().find(|(known, _)| *known == id).map(|(_, link)| *link)
    }

    /// Whether all commits after this one are known by their ids.
    pub(super) fn knows_after(&self, version: i64) -> bool {
        let state = lock(&self.state);
        state.ids.front().map_or(state.link.version, |(_, first)| first.version - 1) <= version
    }

    /// What lies between is lost: the chain goes on with this commit.
    pub(super) fn jump(&self, id: u128, link: Link, changes: Vec<Arc<Change>>) {
        let before = changes.first().map(|first| Revision::new(first.revision.get().saturating_sub(1)));
        let now = self.clock.monotonic();
        let mut state = lock(&self.state);
        if link.version <= state.link.version {
            return;
        }
        (state.base, state.bytes) = (before.unwrap_or(end_of(link.modified)), 0);
        state.trimmed = state.trimmed.max(state.base);
        state.ids.clear();
        state.ledger.jump(link.modified.saturating_sub(1), now);
        let gone = std::mem::take(&mut state.window);
        let cut = state.push(id, (link, now), changes);
        // What is lost may have brought any deadline: the cluster is asked.
        state.soonest = Some(Timestamp::default());
        drop(state);
        drop((gone, cut));
        self.changed.notify_all();
        self.signal.raise(Lane::Vital);
        self.signal.raise(Lane::Work);
    }

    /// Nothing more will come.
    pub(super) fn fail(&self, error: &Error) {
        lock(&self.state).broken.get_or_insert_with(|| error.clone());
        self.changed.notify_all();
        self.signal.raise(Lane::Work);
    }

    pub(super) fn broken(&self) -> Option<Error> {
        lock(&self.state).broken.clone()
    }

    /// A page of the log after a revision, if it is here.
    pub(super) fn page(&self, after: Revision) -> Option<LogPage> {
        let state = lock(&self.state);
        if after < state.base {
            return None;
        }
        let from = state.window.partition_point(|change| change.revision <= after);
        let (mut changes, mut bytes) = (Vec::new(), 0);
        for change in state.window.range(from..) {
            bytes += change.weight();
            changes.push(change.clone());
            if changes.len() >= PAGE_ENTRIES || bytes >= PAGE_BYTES {
                break;
            }
        }
        Some(LogPage { trimmed: state.trimmed, end: end_of(state.link.modified), changes })
    }

    /// One event, if it is here; the outer none where it may lie before what is.
    pub(super) fn change(&self, revision: Revision) -> Option<Option<Arc<Change>>> {
        let state = lock(&self.state);
        if revision <= state.base {
            return None;
        }
        let found = state.window.binary_search_by_key(&revision, |change| change.revision);
        Some(found.ok().and_then(|place| state.window.get(place).cloned()))
    }

    /// How many events lie between two revisions: counted as far as they are here, and by their commits before.
    pub(super) fn distance(&self, from: Revision, to: Revision) -> u64 {
        let state = lock(&self.state);
        let place = |revision| state.window.partition_point(|change| change.revision <= revision);
        let here = place(to).saturating_sub(place(from));
        let before = commit_of(state.base.min(to)).saturating_sub(commit_of(from)).max(0);
        // There are no more commits than versions of the feed.
        let before = before.min(state.link.version).unsigned_abs();
        u64::try_from(here).unwrap_or(u64::MAX).saturating_add(before)
    }
}

impl State {
    /// Whether a commit of this version is known by its id.
    fn knows(&self, link: Link) -> bool {
        self.ids.front().is_some_and(|(_, first)| first.version <= link.version)
    }

    fn has(&self, id: u128) -> bool {
        self.ids.iter().rev().any(|(known, _)| *known == id)
    }

    /// Adds a commit; what is let go for it.
    fn push(
        &mut self,
        id: u128,
        (link, seen): (Link, Duration),
        changes: Vec<Arc<Change>>,
    ) -> Vec<Arc<Change>> {
        self.link = link;
        self.ids.push_back((id, link));
        if self.ids.len() > IDS {
            self.ids.pop_front();
        }
        self.bytes += changes.iter().map(|change| change.weight()).sum::<usize>();
        let payload = changes.iter().map(|change| change.payload() as u64).sum();
        self.ledger.add((link.modified, seen), changes.len() as u64, payload);
        let deadlines = changes.iter().filter(|change| change.kind != Kind::Expire);
        self.soonest = self.soonest.into_iter().chain(deadlines.filter_map(|change| change.deadline)).min();
        self.window.extend(changes);
        let mut gone = Vec::new();
        // The last commit always stays, and none is cut in two.
        let newest = end_of(link.modified);
        while self.window.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some(front) = self.window.front() else { break };
            let end = end_of(commit_of(front.revision));
            if end >= newest {
                break;
            }
            while let Some(front) = self.window.pop_front_if(|front| front.revision <= end) {
                self.bytes -= front.weight();
                gone.push(front);
            }
            self.base = end;
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use crate::types::clock::SystemClock;

    use super::*;

    fn tail_at(version: i64, modified: i64) -> Tail {
        Tail::new(Link { version, modified }, Revision::ZERO, Signal::unheard(), Arc::new(SystemClock))
    }

    fn change(modified: i64) -> Arc<Change> {
        Arc::new(Change::sample(end_of(modified)))
    }

    #[test]
    fn the_chain_takes_what_is_next_and_nothing_else() {
        let at = |version, modified| Link { version, modified };
        let tail = tail_at(3, 30);
        let offer =
            |link: Link| tail.offer(link.version.unsigned_abs().into(), link, vec![change(link.modified)]);
        assert_eq!(offer(at(3, 30)), Offered::Known, "twice");
        assert_eq!(offer(at(2, 20)), Offered::Known, "back in time");
        assert_eq!(offer(at(5, 50)), Offered::Ahead, "one is missing");
        assert_eq!(offer(at(4, 41)), Offered::Next);
        assert_eq!(offer(at(5, 50)), Offered::Next);
        assert_eq!(tail.end(), end_of(50));
        assert_eq!(tail.find(5), Some(at(5, 50)));
        assert!(tail.find(7).is_none() && tail.knows_after(3) && !tail.knows_after(2));
        let revisions = |after| {
            let changes = tail.page(after).map(|page| page.changes);
            changes.map(|changes| changes.iter().map(|change| change.revision).collect::<Vec<_>>())
        };
        assert_eq!(revisions(end_of(30)), Some(vec![end_of(41), end_of(50)]));
        assert_eq!(revisions(end_of(41)), Some(vec![end_of(50)]));
        assert_eq!(revisions(end_of(29)), None, "that is not here");
        assert_eq!(tail.distance(end_of(30), end_of(50)), 2);
        tail.jump(9, at(9, 90), vec![change(90)]);
        let before = Revision::new(end_of(90).get() - 1);
        assert_eq!((tail.trimmed(), tail.end()), (before, end_of(90)));
        assert_eq!(revisions(end_of(50)), None, "what lies between is lost");
        assert_eq!(revisions(before), Some(vec![end_of(90)]));
    }

    #[test]
    fn a_commit_in_another_chain_is_refused() {
        let at = |version, modified| Link { version, modified };
        let limit = Duration::from_secs(60);
        let tail = || {
            let tail = tail_at(48, 980);
            for (version, modified) in [(49_i64, 990), (50, 1_000)] {
                assert_eq!(
                    tail.offer(version.unsigned_abs().into(), at(version, modified), Vec::new()),
                    Offered::Next
                );
            }
            tail
        };
        let commit = |tail: &Tail, id, before, link| {
            tail.commit(id, (before, link), &[], limit).map_err(|error| error.kind())
        };
        // Its own commit may come by the watch first.
        assert_eq!(commit(&tail(), 50, at(49, 990), at(50, 1_000)), Ok(()));
        assert_eq!(commit(&tail(), 51, at(50, 1_000), at(51, 1_001)), Ok(()));
        // Of before it was opened here, nothing is known.
        assert_eq!(commit(&tail(), 7, at(47, 970), at(48, 980)), Ok(()));
        // Set back to the 45th, and written to again: the 50th, or the 51st after another 50th.
        let replaced = Err(crate::types::error::ErrorKind::Replaced);
        assert_eq!(commit(&tail(), 7, at(49, 1_003), at(50, 1_004)), replaced);
        assert_eq!(commit(&tail(), 7, at(50, 1_004), at(51, 1_005)), replaced);
    }

    #[test]
    fn what_is_kept_is_bounded_and_whole() {
        let tail = tail_at(0, 0);
        let total = i64::try_from(KEPT).expect("a number") + 100;
        for number in 1..=total {
            let link = Link { version: number, modified: number };
            assert_eq!(tail.offer(0, link, vec![change(number)]), Offered::Next);
        }
        assert!(tail.page(end_of(99)).is_none() && tail.page(end_of(100)).is_some());
        assert_eq!(tail.distance(end_of(100), end_of(total)), KEPT as u64);
    }
}
