//! How much room the members of a cluster have left. A member that has none takes nothing any more, no delete either, and
//! all the others with it; so values are refused before that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tonic::{Code, Status};

use crate::types::error::Reason;
use crate::types::limits::CLUSTER_TRANSACTION;
use crate::types::sync::{Mutex, lock};

use super::client::{Called, Client, GRANT, Members};
use super::cluster::Cluster;
use super::wire::{LeaseGrantRequest, LeaseGrantResponse, StatusResponse};

/// What a member may take unless it is told otherwise.
const QUOTA: u64 = 2 << 30;
/// Of how much of the quota may be in use while values are taken: the rest is for deletes.
const IN_USE: u64 = 90;
/// How large the file may be, which a compaction does not shrink; unless less than this is in use: a file with so many
/// free pages does not grow.
const GROWN: u64 = 98;
const CROWDED: u64 = 75;
/// How often the members are asked.
const LOOK: Duration = Duration::from_secs(3);
/// After what time a member is forgotten that says nothing while others do: it may never come back.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// After how many bytes that were written here a member is asked as well: a part of the quota, and at the most so many.
const PART: u64 = 64;
const WRITTEN: u64 = 16 << 20;
/// How old the sizes are that a member says, at the most: it counts its pages when it commits them, each 100 ms.
const COUNTED: Duration = Duration::from_millis(250);
/// How long the lease lives that makes a member count, in seconds.
const NUDGE: i64 = 5;

/// What is known of it.
#[derive(Debug)]
pub(super) struct Space {
    /// As the environment has it.
    told: Option<u64>,
    state: Mutex<State>,
    /// Whether it was said that nobody tells.
    has_warned: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    looked: Option<Instant>,
    members: Vec<Member>,
    /// How many bytes were written here, and how many until a member was last asked.
    written: u64,
    asked: u64,
    /// Up to how many of them somebody has waited for the members to count: one of them may stay silent.
    waited: Option<u64>,
    /// How many had been written, and when; the first is as old as what a member says may be.
    marks: VecDeque<(Instant, u64)>,
}

impl State {
    /// How much had been written when a member counted that says so now, at the least.
    fn counted(&mut self) -> u64 {
        let now = Instant::now();
        self.marks.push_back((now, self.written));
        while self.marks.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= COUNTED) {
            self.marks.pop_front();
        }
        self.marks.front().map_or(0, |(_, written)| *written)
    }
}

/// What a member said last.
#[derive(Debug)]
struct Member {
    id: u64,
    said: Instant,
    room: Room,
    /// How much had been written here that is in those sizes, at the least.
    counted: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    in_use: u64,
    size: u64,
    quota: u64,
}

impl Room {
    fn is_over(part: u64, percent: u64, whole: u64) -> bool {
        u128::from(part) * 100 >= u128::from(percent) * u128::from(whole)
    }

    fn is_full(&self) -> bool {
        // A member refuses by its file's size, and its pages' being free counts nothing there.
        let next = self.size.saturating_add(CLUSTER_TRANSACTION as u64);
        Room::is_over(self.in_use, IN_USE, self.quota)
            || self.is_grown() && Room::is_over(self.in_use, CROWDED, self.quota)
            || next >= self.quota
    }

    fn is_grown(&self) -> bool {
        Room::is_over(self.size, GROWN, self.quota)
    }
}

impl Space {
    /// `first`: what came of asking a member.
    pub(super) fn new(told: Option<u64>, first: &Called<StatusResponse>) -> Space {
        let state = State { looked: Some(Instant::now()), ..State::default() };
        let space = Space { told, state: Mutex::new(state), has_warned: AtomicBool::new(false) };
        space.note([first]);
        space
    }

    /// Why values are refused, if they are: one member without room is enough.
    pub(super) fn refusal(&self) -> Option<Reason> {
        let state = lock(&self.state);
        let full = state.members.iter().find(|member| member.room.is_full())?;
        let Room { in_use, size, quota } = full.room;
        Some(Reason::ClusterTight { in_use, size, quota })
    }

    /// Whether a member is to be made to count its free pages: one is full of what may be free by now, and none has so
    /// large a file that it might refuse a lease, with an alarm that ends all writes.
    fn wants_a_count(&self) -> bool {
        let state = lock(&self.state);
        let mut rooms = state.members.iter().map(|member| &member.room);
        rooms.clone().any(Room::is_full) && !rooms.any(Room::is_grown)
    }

    /// Whether a member may be full by now, by what was written here that it had not counted when it was asked.
    fn may_be_full(&self) -> bool {
        let mut state = lock(&self.state);
        let written = state.written;
        let grown = |member: &Member| {
            let in_use = member.room.in_use.saturating_add(written.saturating_sub(member.counted));
            Room { in_use, ..member.room }.is_full()
        };
        let much = self.much(&state);
        let has_waited = state.waited.is_some_and(|waited| written < waited.saturating_add(much));
        if has_waited || !state.members.iter().any(grown) {
            return false;
        }
        // Whoever waits now until all of this is counted finds it counted.
        state.counted();
        state.waited = Some(written);
        true
    }

    fn of(&self, status: &StatusResponse) -> Room {
        let number = |number: i64| u64::try_from(number).unwrap_or(0);
        let theirs = match status.db_size_quota {
            0 => QUOTA,
            // It has none.
            ..0 => u64::MAX,
            quota => number(quota),
        };
        let quota = self.told.unwrap_or(theirs);
        Room { in_use: number(status.db_size_in_use), size: number(status.db_size), quota }
    }

    /// After how many bytes a member is asked.
    fn much(&self, state: &State) -> u64 {
        let least = state.members.iter().map(|member| member.room.quota).min();
        WRITTEN.min(least.or(self.told).unwrap_or(QUOTA) / PART)
    }

    /// Whether so much was written that a member is to be asked.
    fn wrote(&self, bytes: u64) -> bool {
        let mut state = lock(&self.state);
        state.written = state.written.saturating_add(bytes);
        state.written.saturating_sub(state.asked) >= self.much(&state)
    }

    /// What came of asking some members. What is known of the others stays.
    fn note<'a>(&self, all: impl IntoIterator<Item = &'a Called<StatusResponse>>) {
        let mut state = lock(&self.state);
        // Whoever says nothing now is not asked by each commit.
        state.asked = state.written;
        let counted = state.counted();
        drop(state);
        for said in all {
            match said {
                Ok(status) => self.note_one(status, counted),
                Err(status) => self.warn(status),
            }
        }
    }

    fn note_one(&self, status: &StatusResponse, counted: u64) {
        let id = status.header.as_ref().map_or(0, |header| header.member_id);
        let member = Member { id, said: Instant::now(), room: self.of(status), counted };
        let members = &mut lock(&self.state).members;
        members.retain(|other| other.id != id && other.said.elapsed() < FORGOTTEN);
        members.push(member);
    }

    /// Says once that nobody watches the room, where members refuse to tell.
    fn warn(&self, status: &Status) {
        if status.code() != Code::PermissionDenied {
            tracing::debug!(%status, "a member does not tell how much room it has");
        } else if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %status,
                "the room in the cluster cannot be watched, so values are taken until it refuses everything; give the \
                 store's user the role root, or watch the members' size by other means"
            );
        }
    }

    /// Whether it is time to ask the members.
    fn is_due(&self) -> bool {
        let looked = &mut lock(&self.state).looked;
        let is_due = looked.is_none_or(|looked| looked.elapsed() >= LOOK);
        if is_due {
            *looked = Some(Instant::now());
        }
        is_due
    }

    /// Asks all members for their room, now and then. Nobody waits for them: one may be silent.
    fn look(self: &Arc<Self>, client: &Client) {
        if !self.is_due() {
            return;
        }
        let (space, members) = (self.clone(), client.members());
        client.spawn(async move {
            space.note(&members.clone().statuses().await);
            if space.wants_a_count() {
                nudge(&members).await;
            }
        });
    }
}

/// A member counts its free pages when it commits something, so what a compaction freed is not seen while nobody writes.
/// A lease is no part of the history, and leaves nothing behind.
async fn nudge(members: &Members) {
    let granted: Called<LeaseGrantResponse> =
        members.ask(GRANT, LeaseGrantRequest { ttl: NUDGE }, LOOK).await;
    if let Err(status) = granted {
        tracing::debug!(%status, "a member that is almost full could not be made to count");
    }
}

impl Cluster {
    /// Something was written: now and then the member that took it is asked for its room.
    pub(super) fn wrote(&self, bytes: usize) {
        if self.space.wrote(bytes as u64) {
            self.space.note([&self.client.status()]);
        }
    }

    /// Why values are refused, if they are. A fast writer is held up until the members have counted what it wrote.
    pub(super) fn no_room(&self) -> Option<Reason> {
        if self.space.refusal().is_none() && self.space.may_be_full() {
            let members = self.client.members();
            let asked = self.client.wait(async move {
                tokio::time::sleep(COUNTED).await;
                Ok(members.statuses().await)
            });
            self.space.note(&asked.unwrap_or_default());
        }
        self.space.refusal()
    }

    /// Has all members asked for their room, now and then.
    pub(super) fn look_for_room(&self) {
        self.space.look(&self.client);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::address::Address;
    use super::super::wire::ResponseHeader;
    use super::*;

    fn said_by(member_id: u64, [size, in_use, quota]: [i64; 3]) -> Called<StatusResponse> {
        let header = Some(ResponseHeader { member_id, ..ResponseHeader::default() });
        let sizes = StatusResponse { db_size: size, db_size_in_use: in_use, ..StatusResponse::default() };
        Ok(StatusResponse { header, db_size_quota: quota, ..sizes })
    }

    fn said(size: i64, in_use: i64, quota: i64) -> Called<StatusResponse> {
        said_by(1, [size, in_use, quota])
    }

    fn refused() -> Called<StatusResponse> {
        Err(Status::permission_denied("etcdserver: permission denied"))
    }

    fn is_full(space: &Space) -> bool {
        space.refusal().is_some()
    }

    const MB: i64 = 1_000_000;

    #[test]
    fn values_are_refused_before_the_quota_and_taken_again_below_it() {
        let space = Space::new(Some(1_000_000_000), &refused());
        let is_full_with = |all: &[Called<StatusResponse>]| {
            space.note(all);
            is_full(&space)
        };
        assert!(!is_full_with(&[said(900 * MB, 899 * MB, 0)]) && !space.wants_a_count());
        assert!(is_full_with(&[said(900 * MB, 900 * MB, 0)]) && space.wants_a_count());
        assert!(!is_full_with(&[said(950 * MB, 400 * MB, 0)]), "free pages are taken again");
        assert!(is_full_with(&[said(980 * MB, 750 * MB, 0)]), "it may grow by any value");
        assert!(!space.wants_a_count(), "by a lease, too");
        assert!(!is_full_with(&[said(998 * MB, 749 * MB, 0)]), "a quarter of it is free");
        assert!(is_full_with(&[said(999 * MB, 0, 0)]), "one transaction may be more than its file may have");
        assert!(is_full_with(&[]), "nobody says anything else");
        assert!(is_full_with(&[refused()]), "nor that");
        assert!(!is_full_with(&[said(10 * MB, 10 * MB, 0)]));
    }

    #[test]
    fn what_one_member_says_is_of_that_one() {
        let by = |id, [size, in_use, quota]: [i64; 3]| said_by(id, [size * MB, in_use * MB, quota * MB]);
        let space = Space::new(None, &by(1, [100, 100, 1_000]));
        space.note(&[by(2, [950, 920, 1_000]), by(3, [800, 800, -1])]);
        assert!(is_full(&space), "one member is enough");
        space.note(&[by(1, [100, 100, 1_000])]);
        assert!(is_full(&space), "the other one is as it was");
        space.note(&[by(2, [950, 100, 1_000])]);
        assert!(!is_full(&space), "sizes of one are not held against the quota of another");
    }

    #[test]
    fn the_quota_is_what_is_told_or_what_the_servers_say_or_their_default() {
        let quota = |told, said: Called<StatusResponse>| {
            said.map(|said| Space::new(told, &refused()).of(&said).quota).ok()
        };
        assert_eq!(quota(Some(7), said(1, 1, 9)), Some(7));
        assert_eq!(quota(None, said(1, 1, 9)), Some(9));
        assert_eq!(quota(None, said(1, 1, 0)), Some(QUOTA));
        assert!(!is_full(&Space::new(None, &said(i64::MAX, i64::MAX, -1))), "it has none");
    }

    #[test]
    fn a_member_is_asked_after_so_many_bytes_whether_or_not_it_answers() {
        let space = Space::new(Some(64_000), &refused());
        assert!(!space.wrote(999) && space.wrote(1));
        for answer in [said(1, 1, 0), refused()] {
            space.note([&answer]);
            assert!(!space.wrote(999) && space.wrote(1));
        }
    }

    #[test]
    fn what_a_member_cannot_have_counted_yet_is_in_use() {
        const SOME: u64 = MB.unsigned_abs();
        let says = || said(10 * MB, 10 * MB, 0);
        let space = Space::new(Some(1_000 * SOME), &says());
        space.wrote(889 * SOME);
        assert!(!space.may_be_full());
        space.wrote(SOME);
        assert!(space.may_be_full(), "however long a member is not asked");
        // It says what it counted before that.
        space.note(&[says()]);
        assert!(!space.may_be_full(), "one that stays silent is waited for once");
        space.wrote(15 * SOME);
        assert!(!space.may_be_full());
        space.wrote(SOME);
        assert!(space.may_be_full(), "and again after as much as it is asked after");
        // All that was written is older than what a member says.
        for (at, _) in &mut lock(&space.state).marks {
            *at -= COUNTED;
        }
        space.note(&[says()]);
        space.wrote(16 * SOME);
        assert!(!space.may_be_full(), "what it says now has all that was written before");
    }

    #[test]
    fn nobody_waits_for_a_member_that_is_silent() {
        let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let place = format!("etcd://{}/app", silent.local_addr().expect("an address"));
        let client = Client::new(&Address::parse(&place, |_| None).expect("an address")).expect("a client");
        let space = Arc::new(Space::new(None, &refused()));
        lock(&space.state).looked = None;
        let asked = Instant::now();
        space.look(&client);
        assert!(asked.elapsed() < super::super::client::STATUS_TIME);
        assert!(!space.is_due(), "it is being asked");
    }

    #[test]
    fn who_is_refused_is_told_once() {
        let space = Space::new(None, &Err(Status::unavailable("it is away")));
        assert!(!space.has_warned.load(Ordering::Relaxed), "it may come back");
        space.note([&refused()]);
        assert!(space.has_warned.load(Ordering::Relaxed));
    }
}
