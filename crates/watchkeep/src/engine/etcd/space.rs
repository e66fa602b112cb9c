//! How much room the members of a cluster have left. A member that has none takes nothing any more, no delete either, and
//! all the others with it; so values are refused before that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::types::error::{Reason, Result};
use crate::types::sync::{Mutex, lock};

use super::client::GRANT;
use super::cluster::Cluster;
use super::wire::{LeaseGrantRequest, LeaseGrantResponse, StatusResponse};

/// What a member may take unless it is told otherwise.
const QUOTA: u64 = 2 << 30;
/// Of how much of the quota may be in use while values are taken: the rest is for deletes.
const IN_USE: u64 = 90;
/// How large the file may be, which a compaction does not shrink. While it has free pages it does not grow, mostly.
const GROWN: u64 = 98;
/// How often the members are asked.
const LOOK: Duration = Duration::from_secs(3);
/// And after how many bytes that were written here: a part of the quota, and at the most so many.
const PART: u64 = 64;
const WRITTEN: u64 = 16 << 20;
/// How long the lease lives that makes a member count, in seconds.
const NUDGE: i64 = 5;

/// What is known of it.
#[derive(Debug)]
pub(super) struct Space {
    /// As the environment has it.
    told: Option<u64>,
    state: Mutex<State>,
    /// What was written since a member was asked.
    written: AtomicU64,
}

#[derive(Debug)]
struct State {
    looked: Instant,
    room: Room,
}

/// Of the member that has the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) in_use: u64,
    pub(super) size: u64,
    pub(super) quota: u64,
}

impl Room {
    fn is_over(part: u64, percent: u64, whole: u64) -> bool {
        u128::from(part) * 100 >= u128::from(percent) * u128::from(whole)
    }

    fn is_full(&self) -> bool {
        Room::is_over(self.in_use, IN_USE, self.quota) || Room::is_over(self.size, GROWN, self.quota)
    }

    /// The smaller of both.
    fn least(self, other: Room) -> Room {
        let by_free = |room: &Room| room.quota.saturating_sub(room.in_use);
        Room {
            in_use: if by_free(&other) < by_free(&self) { other.in_use } else { self.in_use },
            size: self.size.max(other.size),
            quota: self.quota.min(other.quota),
        }
    }
}

impl Space {
    /// `first`: what a member said, if it did.
    pub(super) fn new(told: Option<u64>, first: Option<&StatusResponse>) -> Space {
        let room = Room { in_use: 0, size: 0, quota: told.unwrap_or(QUOTA) };
        let state = State { looked: Instant::now(), room };
        let space = Space { told, state: Mutex::new(state), written: AtomicU64::new(0) };
        space.note(first.map(|status| space.of(status)).into_iter());
        space
    }

    /// Why values are refused, if they are.
    pub(super) fn refusal(&self) -> Option<Reason> {
        let room = lock(&self.state).room;
        let Room { in_use, size, quota } = room;
        room.is_full().then_some(Reason::ClusterTight { in_use, size, quota })
    }

    fn of(&self, status: &StatusResponse) -> Room {
        let number = |number: i64| u64::try_from(number).unwrap_or(0);
        let theirs = Some(number(status.db_size_quota)).filter(|quota| *quota > 0);
        let quota = self.told.or(theirs).unwrap_or(QUOTA);
        Room { in_use: number(status.db_size_in_use), size: number(status.db_size), quota }
    }

    /// Whether so much was written that a member is to be asked.
    fn wrote(&self, bytes: u64) -> bool {
        let much = WRITTEN.min(lock(&self.state).room.quota / PART);
        self.written.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) >= much
    }

    fn note(&self, all: impl Iterator<Item = Room>) {
        if let Some(room) = all.reduce(Room::least) {
            self.written.store(0, Ordering::Relaxed);
            lock(&self.state).room = room;
        }
    }
}

impl Cluster {
    /// Something was written: now and then the member that took it is asked for its room.
    pub(super) fn wrote(&self, bytes: usize) {
        if !self.space.wrote(bytes as u64) {
            return;
        }
        match self.client.status() {
            Ok(status) => self.space.note([self.space.of(&status)].into_iter()),
            Err(status) => tracing::debug!(%status, "a member does not tell how much room it has"),
        }
    }

    /// Asks all members for their room, now and then.
    pub(super) fn look_for_room(&self) {
        let mut state = lock(&self.space.state);
        if state.looked.elapsed() < LOOK {
            return;
        }
        state.looked = Instant::now();
        drop(state);
        if let Ok(all) = self.client.statuses() {
            self.space.note(all.iter().map(|status| self.space.of(status)));
        }
        if self.space.refusal().is_some() {
            self.nudge();
        }
    }

    /// A member counts its free pages when it commits something, so what a compaction freed is not seen while nobody writes.
    /// A lease is no part of the history, and leaves nothing behind.
    fn nudge(&self) {
        let granted: Result<LeaseGrantResponse> =
            self.client.ask(GRANT, LeaseGrantRequest { ttl: NUDGE }, LOOK);
        if let Err(error) = granted {
            tracing::debug!(%error, "a member that is almost full could not be made to count");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(size: i64, in_use: i64, quota: i64) -> StatusResponse {
        let version = String::new();
        StatusResponse { version, db_size: size, db_size_in_use: in_use, db_size_quota: quota }
    }

    #[test]
    fn values_are_refused_before_the_quota_and_taken_again_below_it() {
        let space = Space::new(Some(1_000), None);
        let is_full_with = |all: &[StatusResponse]| {
            space.note(all.iter().map(|status| space.of(status)));
            space.refusal().is_some()
        };
        assert!(!is_full_with(&[said(900, 899, 0)]));
        assert!(is_full_with(&[said(900, 900, 0)]));
        assert!(is_full_with(&[said(100, 100, 0), said(950, 920, 0)]), "one member is enough");
        assert!(!is_full_with(&[said(950, 400, 0)]), "free pages are taken again");
        assert!(is_full_with(&[said(980, 400, 0)]), "it may grow by any value");
        assert!(is_full_with(&[]), "nobody says anything else");
        assert!(!is_full_with(&[said(10, 10, 0)]));
    }

    #[test]
    fn the_quota_is_what_is_told_or_what_the_servers_say_or_their_default() {
        let quota = |told, said: &StatusResponse| Space::new(told, None).of(said).quota;
        assert_eq!(quota(Some(7), &said(1, 1, 9)), 7);
        assert_eq!(quota(None, &said(1, 1, 9)), 9);
        assert_eq!(quota(None, &said(1, 1, 0)), QUOTA);
    }

    #[test]
    fn a_member_is_asked_after_so_many_bytes() {
        let space = Space::new(Some(64_000), None);
        assert!(!space.wrote(999) && space.wrote(1));
        space.note([space.of(&said(1, 1, 0))].into_iter());
        assert!(!space.wrote(999));
    }
}
