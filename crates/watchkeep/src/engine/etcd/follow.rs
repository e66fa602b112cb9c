//! Follows the feed of the cluster, and mends what the watch of a server gets wrong: events that come twice, that come
//! back, or that never come.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;

use crate::engine::LogPage;
use crate::types::error::{Error, ErrorKind, Reason};
use crate::types::event::Change;
use crate::types::limits::{PAGE_BYTES, PAGE_ENTRIES};
use crate::types::revision::Revision;

use super::client::{CALL_TIME, Called, Members};
use super::keys::Keys;
use super::recall::Recall;
use super::status::{is_compacted, refused};
use super::stored::{EntryRow, Record, Row as _, commit_of, damaged, end_of};
use super::tail::{Link, Offered, SET_BACK, Tail};
use super::wire::{EventType, KeyValue, RangeRequest, WatchResponse};

/// How long a watch may say nothing before the feed is read: that shows whether it is alive, and whether the feed is the
/// same.
const SILENCE: Duration = Duration::from_secs(2);
/// From one try to the next while no member answers.
pub(super) const AGAIN: Duration = Duration::from_millis(100);

/// The same, where they refuse us.
const FORBIDDEN: Duration = Duration::from_secs(5);

/// A store's feed in its cluster.
pub(super) struct Follower {
    pub(super) members: Arc<Members>,
    pub(super) tail: Arc<Tail>,
    pub(super) recall: Arc<Recall>,
    pub(super) keys: Keys,
    /// When the feed came to be: another one is another store.
    pub(super) created: i64,
    pub(super) cluster: u64,
}

/// How a watch ended.
enum Ended {
    /// Begin anew, after this revision of the cluster at the least.
    Again(i64),
    /// Never again.
    Broken(Error),
}

/// What a watch of the past says.
enum Past {
    Said(Vec<(u128, Link, Vec<Arc<Change>>)>),
    /// What it was asked for is gone, up to this revision of the cluster.
    Compacted(i64),
}

impl Follower {
    /// Follows until the feed is gone.
    pub(super) async fn run(self: Arc<Self>) {
        let (mut bookmark, mut is_forbidden) = (0, false);
        loop {
            let ended = self.watch(bookmark).await;
            self.recall.set_current(false);
            match ended {
                Ok(Ended::Again(seen)) => (bookmark, is_forbidden) = (seen.max(bookmark), false),
                Ok(Ended::Broken(error)) => return self.tail.fail(&error),
                // Whoever is not let in asks seldom, and says so once.
                Err(status) if refused(&status).kind() == ErrorKind::Forbidden => {
                    if !std::mem::replace(&mut is_forbidden, true) {
                        tracing::warn!(%status, "the cluster does not let this store watch its feed; it is tried again");
                    }
                    tokio::time::sleep(FORBIDDEN).await;
                }
                Err(status) => {
                    tracing::debug!(%status, "the cluster's feed cannot be watched; it is tried again");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Watches until something is wrong.
    async fn watch(&self, bookmark: i64) -> Called<Ended> {
        // A feed that was made anew, or a cluster that was restored, must not be taken for this one.
        if let Err(error) = self.look().await? {
            return Ok(Ended::Broken(error));
        }
        // What is older is of a feed that was here before.
        let from = self.tail.link().modified.max(bookmark).max(self.created) + 1;
        let mut stream = self.members.watch(self.keys.feed(), from).await?;
        self.recall.set_current(true);
        let (mut parts, mut was_behind) = (Vec::new(), false);
        let mut until = Instant::now() + SILENCE;
        loop {
            let message = match tokio::time::timeout_at(until, stream.message()).await {
                Ok(message) => message?,
                Err(_) => {
                    let link = match self.look().await? {
                        Ok((link, _)) => link,
                        Err(error) => return Ok(Ended::Broken(error)),
                    };
                    let is_behind = self.tail.link().version < link.version;
                    if is_behind && was_behind {
                        // It is silent, and should not be.
                        self.members.leave_current();
                        return Ok(Ended::Again(0));
                    }
                    was_behind = is_behind;
                    until = Instant::now() + SILENCE;
                    continue;
                }
            };
            let Some(message) = message else { return Ok(Ended::Again(0)) };
            if message.canceled {
                return self.canceled(&message).await;
            }
            let is_part = message.fragment;
            parts.extend(message.events);
            if is_part {
                continue;
            }
            for event in parts.drain(..) {
                let Some(kv) = event.kv.filter(|kv| kv.mod_revision >= from) else { continue };
                if event.kind == i32::from(EventType::Delete) {
                    // Whether it is gone, the next look tells.
                    return Ok(Ended::Again(0));
                }
                if kv.create_revision != self.created {
                    continue;
                }
                match self.take(&kv).await? {
                    // Neither what is known nor a notice is a sign of life: they may come where news does not.
                    Offered::Known => continue,
                    Offered::Next => {}
                    Offered::Ahead => self.heal(&kv).await?,
                    // Whether it is another feed, the next look tells.
                    Offered::Other => return Ok(Ended::Again(0)),
                }
                (until, was_behind) = (Instant::now() + SILENCE, false);
            }
        }
    }

    /// Where the feed is at a linearizable point, and the cluster's revision there; an error when it is another.
    async fn look(&self) -> Called<Result<(Link, i64), Error>> {
        match self.look_once().await? {
            // A member that was paused may answer with what is over.
            Err(_) => {
                self.members.leave_current();
                self.look_once().await
            }
            there => Ok(there),
        }
    }

    async fn look_once(&self) -> Called<Result<(Link, i64), Error>> {
        // What this process commits meanwhile may be missing from the answer.
        let known = self.tail.link();
        let request = RangeRequest { key: self.keys.feed(), keys_only: true, ..RangeRequest::default() };
        let answer = self.members.range(request, CALL_TIME).await?;
        let header = answer.header.unwrap_or_default();
        let Some(kv) = answer.kvs.first() else { return Ok(Err(replaced("removed"))) };
        let what = if header.cluster_id != self.cluster {
            "moved to another cluster"
        } else if kv.create_revision != self.created {
            "made anew"
        } else if kv.version < known.version
            || header.revision < known.modified
            || !self.goes_through(known, kv).await?
        {
            SET_BACK
        } else {
            return Ok(Ok((Link { version: kv.version, modified: kv.mod_revision }, header.revision)));
        };
        Ok(Err(replaced(what)))
    }

    /// Whether a commit that is known is part of the feed that ends here. A cluster that was set back and written to again
    /// has another one in its place.
    async fn goes_through(&self, known: Link, end: &KeyValue) -> Called<bool> {
        if known.version <= 1 || end.version == known.version {
            // The first version is known by when the feed was made.
            return Ok(known.version <= 1 || end.mod_revision == known.modified);
        }
        let request = RangeRequest {
            key: self.keys.feed(),
            revision: known.modified,
            keys_only: true,
            ..RangeRequest::default()
        };
        match self.members.range(request, CALL_TIME).await {
            Ok(answer) => Ok(answer.kvs.first().is_some_and(|kv| kv.version == known.version)),
            // What is compacted tells nothing.
            Err(status) if is_compacted(&status) => Ok(true),
            Err(status) => Err(status),
        }
    }

    /// Hands a version of the feed to the tail.
    async fn take(&self, kv: &KeyValue) -> Called<Offered> {
        let link = Link { version: kv.version, modified: kv.mod_revision };
        if link.version <= self.tail.link().version {
            return Ok(Offered::Known);
        }
        Ok(match self.read(kv).await? {
            (id, Some(changes)) => {
                self.recall.heed(&self.keys, &changes);
                self.tail.offer(id, link, changes)
            }
            (id, None) => {
                self.tail.jump(id, link, Vec::new());
                Offered::Next
            }
        })
    }

    /// What a version of the feed says, with the values that lie apart; no events where one of those is compacted.
    async fn read(&self, kv: &KeyValue) -> Called<(u128, Option<Vec<Arc<Change>>>)> {
        let Some((id, told)) = Record::decode(&kv.value, kv.mod_revision) else {
            return Err(Status::data_loss(damaged("event", &kv.key).to_string()));
        };
        let mut changes = Vec::with_capacity(told.len());
        for mut told in told {
            if let Some(key) = told.apart {
                let request = RangeRequest {
                    key,
                    revision: kv.mod_revision,
                    serializable: true,
                    ..RangeRequest::default()
                };
                let found = match self.members.range(request, CALL_TIME).await {
                    Err(status) if is_compacted(&status) => return Ok((id, None)),
                    found => found?,
                };
                let row = found.kvs.first().and_then(|kv| EntryRow::decode(&kv.value, kv.mod_revision));
                let row = row.ok_or_else(|| Status::data_loss("a value of the feed is not where it says"))?;
                told.change.value = Some(row.value);
            }
            changes.push(Arc::new(told.change));
        }
        Ok((id, Some(changes)))
    }

    /// Finds what lies between the tail and a version of the feed, and takes all of it: backwards, by the revision before
    /// each. A watch that left it out once may do so again.
    async fn heal(&self, next: &KeyValue) -> Called<()> {
        let known = self.tail.link().version;
        tracing::warn!(known, next = next.version, "the cluster's watch left out events; they are read back");
        let mut missing = vec![next.clone()];
        while let Some(first) = missing.last().filter(|first| first.version > known + 1) {
            let request = RangeRequest {
                key: self.keys.feed(),
                revision: first.mod_revision - 1,
                serializable: true,
                ..RangeRequest::default()
            };
            match self.members.range(request, CALL_TIME).await {
                Ok(answer) => match answer.kvs.into_iter().next() {
                    Some(kv) if kv.version < first.version => missing.push(kv),
                    _ => return Err(Status::data_loss("the feed's versions have a hole")),
                },
                Err(status) if is_compacted(&status) => {
                    let (id, changes) = self.read(first).await?;
                    let link = Link { version: first.version, modified: first.mod_revision };
                    self.tail.jump(id, link, changes.unwrap_or_default());
                    break;
                }
                Err(status) => return Err(status),
            }
        }
        for kv in missing.iter().rev() {
            self.take(kv).await?;
        }
        Ok(())
    }

    /// The server ended the watch. Where it says that its start is compacted, an idle store has lost nothing.
    async fn canceled(&self, message: &WatchResponse) -> Called<Ended> {
        if message.compact_revision == 0 {
            tracing::debug!(reason = message.cancel_reason, "the cluster ended the watch");
            self.members.leave_current();
            return Err(Status::unavailable(message.cancel_reason.clone()));
        }
        let (link, at) = match self.look().await? {
            Ok(looked) => looked,
            Err(error) => return Ok(Ended::Broken(error)),
        };
        let known = self.tail.link();
        if link.version == known.version {
            return Ok(Ended::Again(at));
        }
        // The last version before the compaction can still be read; of those before it, what can be is read back.
        match self.at(message.compact_revision).await? {
            Some(kv) if kv.version > known.version => {
                self.heal(&kv).await?;
                Ok(Ended::Again(message.compact_revision))
            }
            // The store was made later, or nothing happened since.
            _ => Ok(Ended::Again(message.compact_revision - 1)),
        }
    }

    /// The feed as of a revision of the cluster.
    async fn at(&self, revision: i64) -> Called<Option<KeyValue>> {
        let request = RangeRequest { key: self.keys.feed(), revision, ..RangeRequest::default() };
        Ok(self.members.range(request, CALL_TIME).await?.kvs.into_iter().next())
    }

    /// Finds out up to where the log is compacted.
    pub(super) async fn find_floor(&self) -> Called<()> {
        if let Past::Compacted(upto) = self.past(self.created).await? {
            self.floor(upto).await?;
        }
        Ok(())
    }

    /// The last commit up to a revision of the cluster that everything before is compacted to: it can still be read, so what
    /// is trimmed ends before its first event. None where the store was made later.
    pub(super) async fn floor(&self, upto: i64) -> Called<Option<(i64, Vec<Arc<Change>>)>> {
        let found = self.at(upto).await.map_err(|status| match is_compacted(&status) {
            // By another one, meanwhile.
            true => lie("it is being compacted"),
            false => status,
        })?;
        let Some(kv) = found else { return Ok(None) };
        let (_, changes) = self.read(&kv).await?;
        match changes.as_ref().map(|changes| changes.first()) {
            Some(Some(first)) => {
                self.tail.note_trimmed(Revision::new(first.revision.get().saturating_sub(1)));
            }
            // The first version says that the store was made, and nothing else.
            Some(None) => {}
            None => self.tail.note_trimmed(end_of(kv.mod_revision)),
        }
        Ok(Some((kv.mod_revision, changes.unwrap_or_default())))
    }

    /// A page of the log that begins before the tail, and ends there at the latest.
    pub(super) async fn page(&self, after: Revision) -> Called<LogPage> {
        // The commit of a revision itself: it may have more events after it.
        let (mut after, mut from) = (after.max(self.tail.trimmed()), None);
        loop {
            if let Some(page) = self.tail.page(after) {
                return Ok(page);
            }
            let changes = match self.past(from.unwrap_or(commit_of(after).max(self.created))).await? {
                Past::Said(commits) => commits.into_iter().flat_map(|(_, _, changes)| changes).collect(),
                Past::Compacted(upto) => {
                    // Between that commit and the compaction there is none.
                    from = Some(upto + 1);
                    let floor = self.floor(upto).await?;
                    after = after.max(self.tail.trimmed());
                    match floor {
                        Some((modified, changes)) if end_of(modified) > after => changes,
                        _ => continue,
                    }
                }
            };
            let changes: Vec<_> = changes.into_iter().filter(|change| change.revision > after).collect();
            if changes.is_empty() {
                return Err(Status::data_loss("the log ends before its end"));
            }
            return Ok(LogPage { trimmed: self.tail.trimmed(), end: self.tail.end(), changes });
        }
    }

    /// That a watch from a revision of the cluster on begins with the first version from there: nothing before it in the
    /// watch tells.
    async fn refuse_hole(&self, first: &KeyValue, from: i64) -> Called<()> {
        match self.at(first.mod_revision - 1).await {
            Ok(Some(before)) if before.mod_revision >= from || before.version + 1 != first.version => {
                Err(hole())
            }
            Ok(_) => Ok(()),
            Err(status) if is_compacted(&status) => Err(lie("it is being compacted")),
            Err(status) => Err(status),
        }
    }

    /// What the feed said from a revision of the cluster on: a page of it, or up to the tail.
    async fn past(&self, from: i64) -> Called<Past> {
        let upto = self.tail.link();
        let mut stream = self.members.watch(self.keys.feed(), from).await?;
        let (mut commits, mut events, mut bytes) = (Vec::new(), 0, 0);
        let (mut parts, mut until) = (Vec::new(), Instant::now() + CALL_TIME);
        loop {
            let message = match tokio::time::timeout_at(until, stream.message()).await {
                Ok(message) => message?.ok_or_else(|| lie("the watch ended"))?,
                Err(_) => {
                    self.members.leave_current();
                    return Err(lie("the past does not come"));
                }
            };
            if message.canceled && message.compact_revision > 0 {
                return match self.at(from).await {
                    Err(status) if is_compacted(&status) => Ok(Past::Compacted(message.compact_revision)),
                    Err(status) => Err(status),
                    // It would be told as lost, and is there.
                    Ok(_) => Err(lie("the watch takes for compacted what is not")),
                };
            }
            if message.canceled {
                // Where a token was over, this renews it: a watch itself does not say so.
                drop(self.look_once().await?);
                return Err(Status::aborted(message.cancel_reason));
            }
            parts.extend(message.events);
            if message.fragment {
                continue;
            }
            for kv in parts.drain(..).filter_map(|event| event.kv) {
                if kv.mod_revision < from || kv.create_revision != self.created {
                    continue;
                }
                let link = Link { version: kv.version, modified: kv.mod_revision };
                if commits.is_empty() && kv.mod_revision > from {
                    self.refuse_hole(&kv, from).await?;
                }
                match commits.last().map(|(_, last, _): &(u128, Link, Vec<Arc<Change>>)| last.version) {
                    Some(last) if link.version <= last => continue,
                    Some(last) if link.version > last + 1 => {
                        return Err(hole());
                    }
                    _ => {}
                }
                let (id, changes) = self.read(&kv).await?;
                let changes = changes.ok_or_else(|| lie("it is being compacted"))?;
                events += changes.len();
                bytes += changes.iter().map(|change| change.weight()).sum::<usize>();
                commits.push((id, link, changes));
                until = Instant::now() + CALL_TIME;
                // The first may hold nothing new.
                let is_full = commits.len() > 1 && (events >= PAGE_ENTRIES || bytes >= PAGE_BYTES);
                if is_full || link.version >= upto.version {
                    return Ok(Past::Said(commits));
                }
            }
        }
    }
}

/// What a reader of the past tells where another one may be told the truth.
fn lie(what: &'static str) -> Status {
    Status::aborted(what)
}

fn hole() -> Status {
    lie("the watch of the past has a hole")
}

fn replaced(what: &'static str) -> Error {
    Reason::FeedReplaced { what }.into()
}
