//! A store in a cluster: where it is, who it is, and what is known of its log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tonic::Code;

use crate::driver::Signal;
use crate::engine::LogPage;
use crate::types::error::{Error, Reason, Result};
use crate::types::event::Change;
use crate::types::options::Options;
use crate::types::revision::{Cursor, Epoch, Revision, StoreId};
use crate::types::sync::{Mutex, lock};

use super::address::Address;
use super::client::{CALL_TIME, Called, Client};
use super::commit::Sessions;
use super::follow::{AGAIN, Follower};
use super::holders::Holders;
use super::keeper::Keeper;
use super::keys::Keys;
use super::recall::Recall;
use super::retain::Compacting;
use super::space::Space;
use super::status::{is_compacted, is_no_answer, refused};
use super::stored::{Record, Row, Text};
use super::tail::{Link, Tail};
use super::wire::{
    Compare, KeyValue, PutRequest, RangeRequest, Request, RequestOp, Response, TxnRequest, TxnResponse,
};
use super::{server, settings};

/// For how long values are refused once the cluster was full.
const FULL: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Cluster {
    pub(super) client: Client,
    pub(super) keys: Keys,
    pub(super) tail: Arc<Tail>,
    pub(super) recall: Arc<Recall>,
    follower: Arc<Follower>,
    /// For how long a read asks one member after the other.
    pub(super) patience: Duration,
    pub(super) id: StoreId,
    epoch: Epoch,
    /// When the feed came to be: another one is another store.
    pub(super) created: i64,
    /// When the cluster said that it takes nothing any more, if it did.
    pub(super) full: Mutex<Option<Instant>>,
    pub(super) space: Arc<Space>,
    pub(super) keeper: Keeper,
    pub(super) compacting: Compacting,
    /// Which version of etcd the member runs that was asked first, if it said so.
    pub(super) version: Option<String>,
    pub(super) sessions: Sessions,
    pub(super) holders: Holders,
    /// Up to where the answers were looked through for old ones.
    pub(super) swept: Mutex<Option<Bytes>>,
}

/// What says that a store is there: its identity, and its feed.
struct There {
    id: StoreId,
    feed: KeyValue,
    cluster: u64,
    settings: Option<KeyValue>,
}

impl Cluster {
    /// Finds the store at an address, or makes it where that may be.
    pub(super) fn open(
        address: &Address,
        options: &Options,
        patience: Duration,
        signal: Arc<Signal>,
    ) -> Result<Cluster> {
        let (client, keys) = (Client::new(address)?, Keys::new(address.prefix.clone()));
        let there = match find(&client, &keys, patience)? {
            Some(there) => there,
            None if options.create => make(&client, &keys, patience)?,
            None => return Err(Reason::NoStoreThere { prefix: address.prefix.clone() }.into()),
        };
        let There { id, feed, cluster, settings } = there;
        let compacting = Compacting::new(settings::apply(&client, &keys, options, settings)?);
        let keeper = Keeper::new()?;
        // Whoever may not ask for it does without.
        let status = client.status();
        let space = Arc::new(Space::new(address.quota, &status));
        let version = status.ok().map(|status| status.version).filter(|version| !version.is_empty());
        server::warn(version.as_deref().unwrap_or_default());
        let tail = Arc::new(Tail::new(link_of(&feed), Revision::ZERO, signal, options.clock.clone()));
        let created = feed.create_revision;
        let recall = Arc::new(Recall::default());
        let follower = Arc::new(Follower {
            members: client.members(),
            tail: tail.clone(),
            recall: recall.clone(),
            keys: keys.clone(),
            created,
            cluster,
        });
        if feed.version > 1 {
            look_for_floor(&client, &follower, patience)?;
        }
        client.spawn(follower.clone().run());
        let epoch = epoch_of(cluster, created)?;
        let (full, swept, sessions, holders) = Default::default();
        Ok(Cluster {
            client,
            keys,
            tail,
            recall,
            follower,
            patience,
            id,
            epoch,
            created,
            full,
            space,
            keeper,
            compacting,
            version,
            sessions,
            holders,
            swept,
        })
    }

    pub(super) fn cursor(&self, revision: Revision) -> Cursor {
        Cursor::new(self.id, self.epoch, revision)
    }

    /// Refuses a cursor of this store whose event is not here.
    pub(super) fn refuse_lost(&self, cursor: Cursor, end: Revision) -> Result<()> {
        if cursor.revision() <= end && cursor.epoch() == self.epoch {
            Ok(())
        } else {
            Err(Reason::LostCursor { cursor }.into())
        }
    }

    /// Why values are refused, if they are: the cluster said so, or soon will.
    pub(super) fn full(&self) -> Option<Reason> {
        // Then it is asked again.
        let said = lock(&self.full).is_some_and(|since| since.elapsed() < FULL);
        if said { Some(Reason::ClusterFull) } else { self.no_room() }
    }

    /// The log was compacted up to a revision of the cluster: what is trimmed by that.
    pub(super) fn find_floor(&self, upto: i64) -> Result<Revision> {
        let (follower, patience) = (self.follower.clone(), self.patience);
        let find = async move { insist(patience, || find_floor(&follower, upto)).await };
        let found = self.client.wait(find);
        found.map_err(|status| refused(&status))?;
        Ok(self.tail.trimmed())
    }

    /// Finds out whether somebody has compacted the log.
    pub(super) fn look_for_floor(&self) -> Result<()> {
        look_for_floor(&self.client, &self.follower, self.patience)
    }

    /// A page of the log after a revision.
    pub(super) fn log(&self, after: Revision) -> Result<LogPage> {
        if let Some(page) = self.tail.page(after.max(self.tail.trimmed())) {
            return Ok(page);
        }
        let (follower, patience) = (self.follower.clone(), self.patience);
        let page = self.client.wait(async move { insist(patience, || follower.page(after)).await });
        page.map_err(|status| refused(&status))
    }

    /// One event, if it is kept.
    pub(super) fn change(&self, revision: Revision) -> Result<Option<Arc<Change>>> {
        if let Some(found) = self.tail.change(revision) {
            return Ok(found);
        }
        if revision <= self.tail.trimmed() || revision > self.tail.end() {
            return Ok(None);
        }
        let before = Revision::new(revision.get().saturating_sub(1));
        let page = self.log(before)?;
        Ok(page.changes.into_iter().find(|change| change.revision == revision))
    }

    /// Waits until what was committed up to a revision of the feed is known here.
    pub(super) fn wait(&self, version: i64, limit: Duration) -> Result<()> {
        self.tail.wait(version, Instant::now() + limit)
    }

    /// Lets some time pass.
    pub(super) fn pause(&self, time: Duration) {
        let slept = self.client.wait(async move {
            tokio::time::sleep(time).await;
            Ok(())
        });
        drop(slept);
    }

    /// Why nothing can be done any more.
    pub(super) fn stand(&self) -> Result<()> {
        self.tail.broken().map_or(Ok(()), Err)
    }
}

/// Whether the first commits are compacted.
fn look_for_floor(client: &Client, follower: &Arc<Follower>, patience: Duration) -> Result<()> {
    let reader = follower.clone();
    let found = client.wait(async move { insist(patience, || reader.find_floor()).await });
    found.map_err(|status| refused(&status))
}

/// What is trimmed by a compaction, or by another one that went further at the same time.
async fn find_floor(follower: &Follower, upto: i64) -> Called<()> {
    match follower.floor(upto).await {
        Err(status) if status.code() == Code::Aborted => follower.find_floor().await,
        found => found.map(drop),
    }
}

/// Reads the past again, where a watch got it wrong: another may get it right. A member that does not answer gets less
/// patience.
async fn insist<T, F: Future<Output = Called<T>>>(patience: Duration, read: impl Fn() -> F) -> Called<T> {
    let begun = Instant::now();
    loop {
        match read().await {
            // One that says that it was compacted was asked beside a compaction.
            Err(status)
                if is_no_answer(&status) && begun.elapsed() < patience
                    || (status.code() == Code::Aborted || is_compacted(&status))
                        && begun.elapsed() < patience.max(2 * CALL_TIME) =>
            {
                tracing::debug!(%status, "the past of the cluster's feed does not come; it is asked for again");
                tokio::time::sleep(AGAIN).await;
            }
            done => return done,
        }
    }
}

/// The chain's place at a version of the feed. The first says that the store was made, and nothing else.
pub(super) fn link_of(feed: &KeyValue) -> Link {
    let modified = if feed.version > 1 { feed.mod_revision } else { 0 };
    Link { version: feed.version, modified }
}

fn range(key: Bytes, keys_only: bool) -> RequestOp {
    Request::Range(RangeRequest { key, keys_only, ..RangeRequest::default() }).into()
}

/// The first rows of the answers to ranges.
pub(super) fn rows_of(answer: TxnResponse) -> Vec<Option<KeyValue>> {
    let row = |response: Option<Response>| match response {
        Some(Response::Range(range)) => range.kvs.into_iter().next(),
        _ => None,
    };
    answer.responses.into_iter().map(|op| row(op.response)).collect()
}

fn find(client: &Client, keys: &Keys, patience: Duration) -> Result<Option<There>> {
    let rows = vec![range(keys.meta(), false), range(keys.feed(), true), range(keys.settings(), false)];
    let answer = client.look(TxnRequest { success: rows, ..TxnRequest::default() }, patience)?;
    there(answer)
}

fn there(answer: TxnResponse) -> Result<Option<There>> {
    let cluster = answer.header.as_ref().map_or(0, |header| header.cluster_id);
    let [meta, feed, settings] = rows_of(answer).try_into().unwrap_or([None, None, None]);
    match (meta, feed) {
        (Some(meta), Some(feed)) => {
            let id = Text::decode(&meta.value, 0).and_then(|Text(text)| text.parse().ok());
            let id = id.ok_or_else(|| super::stored::damaged("identity", &meta.key))?;
            Ok(Some(There { id, feed, cluster, settings }))
        }
        (None, None) => Ok(None),
        _ => Err(Reason::Corrupt { what: "half of the store's own rows are gone".to_owned() }.into()),
    }
}

/// Makes a store. Of two who do so at once one makes it, and both find it.
fn make(client: &Client, keys: &Keys, patience: Duration) -> Result<There> {
    let put = |key: Bytes, value: Bytes| Request::Put(PutRequest { key, value, lease: 0 }).into();
    let id = StoreId::random()?;
    let first = Record { id: 0, changes: Vec::new() }.encode(|_| None);
    let request = TxnRequest {
        compare: vec![Compare::modified(keys.meta(), 0), Compare::modified(keys.feed(), 0)],
        success: vec![put(keys.meta(), Text(id.to_string()).encode(0)), put(keys.feed(), first)],
        failure: Vec::new(),
    };
    // Whatever came of it: it is there then, or could not be made.
    let made = client.commit(request);
    match find(client, keys, patience)? {
        Some(there) => Ok(there),
        None => Err(made.err().map_or_else(
            || Error::from(Reason::Unreachable { said: "it made no store".to_owned() }),
            |status| refused(&status),
        )),
    }
}

/// Six letters that stand for a cluster and a feed in it: a cluster that is restored is another.
fn epoch_of(cluster: u64, created: i64) -> Result<Epoch> {
    const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let mixed = (cluster ^ created.unsigned_abs().rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let letter = |place: u32| {
        let at = usize::try_from(mixed >> (34 + 5 * place) & 31).unwrap_or(0);
        LETTERS.get(at).copied().map_or('0', char::from)
    };
    (0..6).map(letter).collect::<String>().parse()
}
