//! Sends a transaction, once, and finds out what became of it whatever happens on the way.
//!
//! Each process has a session: a key of its own, which every transaction compares. What came of a transaction whose answer
//! was lost is found out by a fence: one transaction removes the session, puts another under a new name, and reads the
//! feed. After that the lost one is in the feed up to there, or it never will be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use tonic::{Code, Status};

use crate::types::error::{Error, ErrorKind, Reason, Result};
use crate::types::event::Change;
use crate::types::limits::CLUSTER_TRANSACTION;
use crate::types::revision::random;
use crate::types::sync::{Mutex, lock};

use super::buffer::Buffer;
use super::client::{CALL_TIME, Called, GRANT, KEEP_ALIVE, REVOKE};
use super::cluster::{Cluster, link_of, rows_of};
use super::follow::AGAIN;
use super::status::{is_distrust, is_no_answer, is_unsent, refused};
use super::stored::{EntryRow, Made, PER_COMMIT, Record, settled};
use super::tail::{Link, SET_BACK};
use super::wire::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, RangeRequest, Request,
    RequestOp, TxnRequest, TxnResponse,
};

/// How many compares, and how many puts, a transaction may have: of a server's 128, some for our own.
const COMPARES: usize = 120;
const PUTS: usize = 120;
/// From how many bytes on a value stands in the feed by its place.
const INLINE: usize = 4 << 10;
/// How long a session outlives its process, in seconds.
const SESSION: i64 = 60;

/// The session of this process.
#[derive(Debug, Clone, Copy)]
struct Session {
    id: u128,
    created: i64,
    lease: i64,
    renewed: Instant,
}

/// The session at hand, if there is one, and what is not known yet.
#[derive(Default)]
pub(super) struct Sessions {
    current: Mutex<Option<Session>>,
}

/// What became of a transaction.
pub(super) enum Sent {
    /// It is made, and known to the tail.
    Made(Made),
    /// Something that it had read has changed: it is run again.
    Again,
    /// It has too much for one transaction.
    TooLarge,
}

impl Cluster {
    /// Sends what a buffer holds, with its events.
    pub(super) fn send(&self, buffer: &Buffer, changes: Vec<Change>) -> Result<Sent> {
        let sent = self.send_once(buffer, changes);
        match &sent {
            Ok(Sent::Made(made)) => buffer.remember(*made),
            _ => buffer.forget(),
        }
        sent
    }

    fn send_once(&self, buffer: &Buffer, changes: Vec<Change>) -> Result<Sent> {
        let (compares, puts) = buffer.size();
        if compares + 2 > COMPARES || puts + 1 > PUTS || changes.len() as u64 > PER_COMMIT {
            return Ok(Sent::TooLarge);
        }
        let session = self.session()?;
        // Before it is sent: what comes of it comes after this.
        let known = self.tail.link();
        let record = Record { id: u128::from_be_bytes(random()?), changes };
        let request = self.request(buffer, &record, session);
        let bytes = request.encoded_len();
        if bytes > CLUSTER_TRANSACTION {
            return Ok(Sent::TooLarge);
        }
        let answer = match self.client.commit(request) {
            Ok(answer) if !answer.succeeded => return self.refusal(answer),
            Ok(answer) => answer,
            Err(status) if is_unsent(&status) => return Err(refused(&status)),
            Err(status) if is_no_answer(&status) => {
                return self.find_out(session, record, known.version, &status);
            }
            // A lease that it gives to a row is over: another is granted.
            Err(status) if status.code() == Code::NotFound => {
                self.holders.doubt();
                return Ok(Sent::Again);
            }
            Err(status) => {
                let error = refused(&status);
                if matches!(error.reason(), Reason::ClusterFull) {
                    *lock(&self.full) = Some(Instant::now());
                }
                return Err(error);
            }
        };
        let mut rows = rows_of(answer);
        let (after, before) = (rows.pop().flatten(), rows.into_iter().next().flatten());
        let (Some(before), Some(after)) = (before, after) else {
            return Err(Reason::Unreachable { said: "it does not say what it wrote".to_owned() }.into());
        };
        *lock(&self.full) = None;
        let before = link_of(&before);
        if before.version < known.version || before.version == known.version && before != known {
            return Err(self.set_back());
        }
        let made = self.made(record, (before, link_of(&after)));
        // It asks a member now and then: whoever follows here need not wait for that.
        self.wrote(bytes);
        made
    }

    /// The cluster was restored while the store was open, and took a commit before the feed was looked at.
    fn set_back(&self) -> Error {
        let error = Error::from(Reason::FeedReplaced { what: SET_BACK });
        self.tail.fail(&error);
        error
    }

    fn request(&self, buffer: &Buffer, record: &Record, session: Session) -> TxnRequest {
        let mut compare = buffer.compares();
        compare.push(Compare::created(self.keys.feed(), self.created));
        compare.push(Compare::created(self.keys.session(session.id), session.created));
        let look = |key| {
            let range = RangeRequest { key, keys_only: true, ..RangeRequest::default() };
            RequestOp::from(Request::Range(range))
        };
        // What comes before the commit, and the commit.
        let mut success = vec![look(self.keys.feed())];
        success.extend(buffer.puts(record.changes.len() as u64));
        if !record.changes.is_empty() {
            let value = record.encode(|number| self.apart(buffer, record.changes.get(number)?));
            success.push(Request::Put(PutRequest { key: self.keys.feed(), value, lease: 0 }).into());
        }
        success.push(look(self.keys.feed()));
        let failure = vec![look(self.keys.session(session.id)), look(self.keys.feed())];
        TxnRequest { compare, success, failure }
    }

    /// Where the value of an event stands, if not in the feed: in its entry, when that is what the commit leaves there.
    fn apart(&self, buffer: &Buffer, change: &Change) -> Option<bytes::Bytes> {
        change.value.as_ref().filter(|value| value.len() > INLINE)?;
        buffer
            .written::<EntryRow>()
            .find(|(_, row)| row.revision == change.revision)
            .map(|(key, _)| key.clone())
    }

    /// A compare did not hold: of ours, or of what was read.
    fn refusal(&self, answer: TxnResponse) -> Result<Sent> {
        let [session, feed] = rows_of(answer).try_into().unwrap_or([None, None]);
        match feed {
            Some(feed) if feed.create_revision == self.created => {}
            _ => return Err(Reason::FeedReplaced { what: "removed or made anew" }.into()),
        }
        if session.is_none() {
            // Nobody renewed it in time. What bears it is refused for ever, so another is safe.
            *lock(&self.sessions.current) = None;
        }
        Ok(Sent::Again)
    }

    /// `before`: where the feed was when it was made.
    fn made(&self, record: Record, (before, link): (Link, Link)) -> Result<Sent> {
        let made = Made { modified: link.modified, events: record.changes.len() as u64 };
        if record.changes.is_empty() {
            return Ok(Sent::Made(Made { modified: self.tail.link().modified, events: 0 }));
        }
        let changes: Vec<_> =
            record.changes.into_iter().map(|change| Arc::new(settled(change, made))).collect();
        // The commits of others before it come by the watch, which mends what it left out.
        match self.tail.commit(record.id, (before, link), &changes, 2 * CALL_TIME) {
            Err(error) if error.kind() == ErrorKind::Replaced => return Err(self.set_back()),
            Err(error) => tracing::warn!(%error, "a commit is made, and those before it do not come yet"),
            Ok(()) => {}
        }
        Ok(Sent::Made(made))
    }

    /// The answer was lost: fences the transaction, and looks whether it is in the feed.
    fn find_out(&self, session: Session, record: Record, known: i64, status: &Status) -> Result<Sent> {
        tracing::debug!(%status, "what became of a commit is not known; its session is ended to find out");
        let unknown = || Reason::UnknownCommit { said: status.message().to_owned() }.into();
        let until = Instant::now() + self.patience.max(CALL_TIME);
        let feed = loop {
            match self.fence(session) {
                Ok(feed) => break feed,
                Err(status) if is_no_answer(&status) && !is_distrust(&status) && Instant::now() < until => {
                    self.pause(AGAIN);
                }
                // Whoever writes next needs a session that is not this one.
                Err(_) => {
                    *lock(&self.sessions.current) = None;
                    return Err(unknown());
                }
            }
        };
        if record.changes.is_empty() {
            // Nothing tells whether it is in.
            return Err(unknown());
        }
        self.wait(feed.version, 2 * CALL_TIME).map_err(|_| unknown())?;
        match self.tail.find(record.id) {
            // The tail has it already.
            Some(link) => self.made(record, (link, link)),
            None if self.tail.knows_after(known) => Ok(Sent::Again),
            None => Err(unknown()),
        }
    }

    /// Ends a session and begins another, under a new name: over the same one, a put would fence nothing. Where the feed was
    /// then.
    fn fence(&self, session: Session) -> std::result::Result<Link, Status> {
        // What is refused is refused the next time, too.
        let (lease, id) = self.new_session().map_err(|error| match error.kind() {
            ErrorKind::Unavailable => Status::unavailable(error.to_string()),
            _ => Status::aborted(error.to_string()),
        })?;
        let begin =
            Request::Put(PutRequest { key: self.keys.session(id), value: bytes::Bytes::new(), lease });
        let look = Request::Range(RangeRequest {
            key: self.keys.feed(),
            keys_only: true,
            ..RangeRequest::default()
        });
        let end = Request::DeleteRange(DeleteRangeRequest {
            key: self.keys.session(session.id),
            range_end: bytes::Bytes::new(),
        });
        let request = TxnRequest {
            compare: Vec::new(),
            success: vec![end.into(), begin.into(), look.into()],
            failure: Vec::new(),
        };
        let answer = self.client.commit(request)?;
        let created = answer.header.as_ref().map_or(0, |header| header.revision);
        let feed = rows_of(answer).pop().flatten();
        *lock(&self.sessions.current) = Some(Session { id, created, lease, renewed: Instant::now() });
        feed.map(|feed| link_of(&feed)).ok_or_else(|| Status::data_loss("the feed is gone"))
    }

    fn new_session(&self) -> Result<(i64, u128)> {
        Ok((self.grant(SESSION)?, u128::from_be_bytes(random()?)))
    }

    /// A lease for so many seconds.
    pub(super) fn grant(&self, ttl: i64) -> Result<i64> {
        let granted: LeaseGrantResponse = self.client.ask(GRANT, LeaseGrantRequest { ttl }, self.patience)?;
        Ok(granted.id)
    }

    /// Renews a lease; how many seconds it has now, none where it is gone.
    pub(super) fn keep_lease(&self, id: i64) -> Called<i64> {
        let members = self.client.members();
        self.client.wait(async move {
            let kept: LeaseKeepAliveResponse = members.once(KEEP_ALIVE, LeaseKeepAliveRequest { id }).await?;
            Ok(kept.ttl)
        })
    }

    /// The session at hand; begins one where there is none.
    fn session(&self) -> Result<Session> {
        let current = *lock(&self.sessions.current);
        if let Some(session) = current {
            return Ok(session);
        }
        let until = Instant::now() + self.patience;
        let session = loop {
            // Another name each time: one that is put twice does not tell when it came to be.
            let (lease, id) = self.new_session()?;
            let put = PutRequest { key: self.keys.session(id), value: bytes::Bytes::new(), lease };
            let request = TxnRequest { success: vec![Request::Put(put).into()], ..TxnRequest::default() };
            match self.client.commit(request) {
                Ok(answer) => {
                    let created = answer.header.map_or(0, |header| header.revision);
                    break Session { id, created, lease, renewed: Instant::now() };
                }
                Err(status) if is_no_answer(&status) && Instant::now() < until => {}
                Err(status) => return Err(refused(&status)),
            }
        };
        *lock(&self.sessions.current) = Some(session);
        Ok(session)
    }

    /// The lease of the session.
    pub(super) fn lease(&self) -> Result<i64> {
        Ok(self.session()?.lease)
    }

    /// Whether the session is the one of this lease.
    pub(super) fn is_session(&self, lease: i64) -> bool {
        lock(&self.sessions.current).is_some_and(|current| current.lease == lease)
    }

    /// Renews the session now and then.
    pub(super) fn keep_session(&self) {
        let Some(session) = *lock(&self.sessions.current) else { return };
        if session.renewed.elapsed() < Duration::from_secs(SESSION.unsigned_abs() / 4) {
            return;
        }
        match self.keep_lease(session.lease) {
            // It ended, and its keys with it.
            Ok(ttl) if ttl <= 0 => self.leave_session(session.lease),
            Ok(_) => {
                if let Some(current) = lock(&self.sessions.current).as_mut().filter(|it| it.id == session.id)
                {
                    current.renewed = Instant::now();
                }
            }
            Err(status) => tracing::debug!(%status, "the session in the cluster could not be renewed"),
        }
    }

    /// The lease of a session is gone: another one is begun when it is needed.
    pub(super) fn leave_session(&self, lease: i64) {
        tracing::debug!("the session in the cluster is gone; another is begun when it is needed");
        lock(&self.sessions.current).take_if(|current| current.lease == lease);
    }

    /// Ends the session.
    pub(super) fn end_session(&self) {
        let Some(session) = lock(&self.sessions.current).take() else { return };
        self.revoke(vec![session.lease]);
    }

    /// Ends leases, as far as that takes no longer than a call may. The rest end by themselves.
    pub(super) fn revoke(&self, leases: Vec<i64>) {
        let members = self.client.members();
        let end = async move {
            for id in leases {
                let ended: Called<LeaseRevokeResponse> =
                    members.ask(REVOKE, LeaseRevokeRequest { id }, CALL_TIME).await;
                if let Err(status) = ended {
                    tracing::debug!(%status, "a lease in the cluster could not be ended");
                }
            }
        };
        let ended = self.client.wait(async { Ok(tokio::time::timeout(CALL_TIME, end).await) });
        if !matches!(ended, Ok(Ok(()))) {
            tracing::debug!("leases in the cluster end by themselves");
        }
    }
}
