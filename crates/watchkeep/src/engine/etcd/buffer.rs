//! What a transaction reads and writes before it is sent: what it reads becomes compares, what it writes becomes puts. A
//! read sees what was written here, and all that it reads of the cluster is of one revision.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::types::error::{Reason, Result};
use crate::types::name::namespace_of;
use crate::types::revision::Revision;

use super::cluster::{Cluster, rows_of};
use super::recall::Stood;
use super::stored::{Made, Row, damaged, end_of};
use super::wire::{
    Compare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, Request, RequestOp, TxnRequest,
};

/// How many keys the first page of a range has, and how many any; and how many bytes are enough for one.
const FIRST_PAGE: i64 = 16;
const LARGEST_PAGE: i64 = 1_000;
const ENOUGH: usize = 256 << 10;
/// How many rows are read together at the most: of the largest values that fit one message.
const TOGETHER: usize = 40;

/// A row that was found in a range.
#[derive(Clone)]
pub(super) enum Found {
    Stands { modified: i64, value: Bytes },
    Written(Rc<dyn Wrapped>),
}

/// A row that is written here.
pub(super) trait Wrapped: Any {
    fn bytes(&self, events: u64) -> Bytes;
    fn lease(&self) -> i64;
}

impl<R: Row + 'static> Wrapped for R {
    fn bytes(&self, events: u64) -> Bytes {
        self.encode(events)
    }

    fn lease(&self) -> i64 {
        Row::lease(self)
    }
}

impl Found {
    pub(super) fn row<R: Row + Clone + 'static>(&self, key: &[u8]) -> Result<R> {
        let row = match self {
            Found::Stands { modified, value } => R::decode(value, *modified),
            Found::Written(row) => {
                let row: &dyn Any = &**row;
                row.downcast_ref::<R>().cloned()
            }
        };
        row.ok_or_else(|| damaged(R::WHAT, key))
    }
}

/// What is read of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Keys,
    Rows,
}

/// A page of a range.
pub(super) struct PageOf {
    pub(super) rows: Vec<(Bytes, Found)>,
    /// Where the next one begins, if there may be one.
    pub(super) next: Option<Bytes>,
}

/// What is written, by key; none for what is removed.
type Written = BTreeMap<Bytes, Option<Rc<dyn Wrapped>>>;

/// See the module.
pub(super) struct Buffer {
    pub(super) cluster: Arc<Cluster>,
    /// The cluster's revision of all that is read; zero until the first read.
    at: i64,
    /// Whether the first read is linearizable: it sees whatever was acknowledged before.
    linear: bool,
    /// Whether it goes by what this process remembers, and whether it did: that may be old.
    guesses: bool,
    has_guessed: bool,
    /// As of when the newest of that stood so: what is read is not from before.
    guessed: i64,
    /// What was looked at.
    stood: HashMap<Bytes, Stood>,
    /// What was read beforehand.
    fetched: HashMap<Bytes, Stood>,
    written: Written,
    marked: Option<Written>,
    /// How many keys ranges have, as of the revision of all reads.
    counts: HashMap<(Bytes, Bytes), i64>,
    /// Ranges of which nothing may have changed.
    ranges: Vec<(Bytes, Bytes)>,
    /// Where the feed stands, once that was asked for.
    feed: Option<(i64, i64)>,
    page: i64,
    /// Somebody compacted what it reads.
    gone: bool,
}

impl Buffer {
    pub(super) fn new(cluster: Arc<Cluster>, linear: bool) -> Buffer {
        Buffer {
            cluster,
            at: 0,
            linear,
            guesses: false,
            has_guessed: false,
            guessed: 0,
            stood: HashMap::new(),
            fetched: HashMap::new(),
            written: Written::new(),
            marked: None,
            counts: HashMap::new(),
            ranges: Vec::new(),
            feed: None,
            page: FIRST_PAGE,
            gone: false,
        }
    }

    /// As of a revision of the cluster.
    pub(super) fn pinned(cluster: Arc<Cluster>, at: i64) -> Buffer {
        Buffer { at, ..Buffer::new(cluster, false) }
    }

    /// For a write: goes by what this process remembers, for all that it looks at is compared.
    pub(super) fn guessing(cluster: Arc<Cluster>) -> Buffer {
        Buffer { guesses: cluster.recall.is_current(), ..Buffer::new(cluster, false) }
    }

    /// The cluster's revision of all that was read.
    pub(super) fn at(&self) -> i64 {
        self.at
    }

    /// Whether it reads of a revision that is compacted: nothing that came of it counts.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// What it reads of the log is gone.
    pub(super) fn note_gone(&mut self) {
        self.gone = true;
    }

    /// The rows of one kind that are written, with their keys.
    pub(super) fn written<R: Row + 'static>(&self) -> impl Iterator<Item = (&Bytes, &R)> {
        self.written.iter().filter_map(|(key, row)| {
            let row: &dyn Any = &**row.as_ref()?;
            Some((key, row.downcast_ref::<R>()?))
        })
    }

    /// Whether it went by what this process remembers.
    pub(super) fn has_guessed(&self) -> bool {
        self.has_guessed
    }

    /// Whether it has read anything that may be old.
    pub(super) fn may_be_old(&self) -> bool {
        self.has_guessed || (!self.linear && self.at > 0)
    }

    /// Asks the cluster, as of the revision of all reads.
    fn range(&mut self, request: RangeRequest) -> Result<super::wire::RangeResponse> {
        let (first, known) = (self.at == 0, self.cluster.tail.link().modified.max(self.guessed));
        let serializable = !first || !self.linear;
        let asked = RangeRequest { revision: self.at, serializable, ..request.clone() };
        let answer = self.cluster.client.range(asked, self.cluster.patience).inspect_err(|error| {
            self.gone |= matches!(error.reason(), Reason::HistoryGone);
        })?;
        if first {
            let at = answer.header.as_ref().map_or(0, |header| header.revision);
            // What this process has seen is never unseen: where a member is behind, all are asked.
            if at < known {
                if self.linear {
                    let said = "it answers with what is over".to_owned();
                    return Err(Reason::Unreachable { said }.into());
                }
                self.linear = true;
                return self.range(request);
            }
            self.at = at;
        }
        Ok(answer)
    }

    /// The row of a key, if it is there.
    pub(super) fn row<R: Row + Clone + 'static>(&mut self, key: &Bytes) -> Result<Option<R>> {
        match self.written.get(key) {
            Some(Some(row)) => return Found::Written(row.clone()).row(key).map(Some),
            Some(None) => return Ok(None),
            None => {}
        }
        let Stood { modified, value } = self.stood(key)?;
        if modified == 0 {
            return Ok(None);
        }
        R::decode(&value, modified).map(Some).ok_or_else(|| damaged(R::WHAT, key))
    }

    /// Whether there is a row of a key.
    pub(super) fn is_there(&mut self, key: &Bytes) -> Result<bool> {
        match self.written.get(key) {
            Some(written) => Ok(written.is_some()),
            None => Ok(self.stood(key)?.modified > 0),
        }
    }

    fn stood(&mut self, key: &Bytes) -> Result<Stood> {
        if let Some(stood) = self.stood.get(key) {
            return Ok(stood.clone());
        }
        let stood = match self.guess(key).or_else(|| self.fetched.remove(key)) {
            Some(stood) => stood,
            None => {
                let answer = self.range(RangeRequest { key: key.clone(), ..RangeRequest::default() })?;
                self.read(key, answer.kvs.into_iter().next())
            }
        };
        self.stood.insert(key.clone(), stood.clone());
        Ok(stood)
    }

    /// What is remembered of a key, if it is not from after what was read.
    fn guess(&mut self, key: &Bytes) -> Option<Stood> {
        let (stood, seen) = self.cluster.recall.get(key).filter(|_| self.guesses)?;
        if self.at > 0 && seen > self.at {
            return None;
        }
        self.has_guessed = true;
        self.guessed = self.guessed.max(seen);
        Some(stood)
    }

    /// What was read of a key is remembered.
    fn read(&self, key: &Bytes, kv: Option<KeyValue>) -> Stood {
        let stood = kv.map_or(Stood { modified: 0, value: Bytes::new() }, |kv| Stood {
            modified: kv.mod_revision,
            value: kv.value,
        });
        self.cluster.recall.note(key, &stood, self.at);
        stood
    }

    /// Reads together what will be looked at for some entries, as far as that is known; one by one each takes a round trip.
    pub(super) fn foresee<'n>(&mut self, entries: impl Iterator<Item = (&'n str, &'n str)>) -> Result<()> {
        let (cluster, mut wanted) = (self.cluster.clone(), BTreeSet::new());
        for (group, key) in entries {
            let row = cluster.keys.group(group);
            wanted.extend(cluster.recall.generation(&row).map(|id| cluster.keys.entry(id, key)));
            wanted.insert(row);
            // A write looks whether its namespace has a quota.
            wanted.extend(
                namespace_of(group).filter(|_| self.guesses).map(|name| cluster.keys.namespace(name)),
            );
        }
        self.fetch(wanted)
    }

    /// Reads rows together that will be looked at, unless they are remembered. What is not read here is read when it is
    /// looked at.
    pub(super) fn fetch(&mut self, wanted: impl IntoIterator<Item = Bytes>) -> Result<()> {
        let cluster = self.cluster.clone();
        let is_known = |key: &Bytes| self.guesses && cluster.recall.get(key).is_some();
        let wanted: Vec<Bytes> = wanted.into_iter().filter(|key| !is_known(key)).take(TOGETHER).collect();
        if self.at > 0 || wanted.len() < 2 {
            return Ok(());
        }
        let serializable = !self.linear;
        let look = |key: &Bytes| {
            Request::Range(RangeRequest { key: key.clone(), serializable, ..RangeRequest::default() }).into()
        };
        let request = TxnRequest { success: wanted.iter().map(look).collect(), ..TxnRequest::default() };
        let answer = cluster.client.look(request, cluster.patience)?;
        let at = answer.header.as_ref().map_or(0, |header| header.revision);
        // What a member that is behind says is left out.
        if at >= cluster.tail.link().modified {
            self.at = at;
            self.fetched = wanted
                .into_iter()
                .zip(rows_of(answer))
                .map(|(key, kv)| {
                    let stood = self.read(&key, kv);
                    (key, stood)
                })
                .collect();
        }
        Ok(())
    }

    pub(super) fn put<R: Row + 'static>(&mut self, key: Bytes, row: R) {
        self.written.insert(key, Some(Rc::new(row)));
    }

    pub(super) fn remove(&mut self, key: Bytes) {
        // What was made here and nowhere else leaves nothing to remove.
        if self.stood.get(&key).is_some_and(|stood| stood.modified == 0) {
            self.written.remove(&key);
        } else {
            self.written.insert(key, None);
        }
    }

    /// A page of a range, with what is written here.
    pub(super) fn page(&mut self, (from, to): (&Bytes, &Bytes), of: Of, limit: usize) -> Result<PageOf> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX).max(1);
        let limit = limit.min(if of == Of::Keys { LARGEST_PAGE } else { self.page });
        let answer = self.range(RangeRequest {
            key: from.clone(),
            range_end: to.clone(),
            limit,
            keys_only: of == Of::Keys,
            ..RangeRequest::default()
        })?;
        let last = answer.kvs.last().map(|kv| [&kv.key[..], b"\0"].concat().into());
        let next: Option<Bytes> = last.filter(|_| answer.more);
        let read: usize = answer.kvs.iter().map(|kv| kv.value.len()).sum();
        if of == Of::Rows {
            self.page =
                if read < ENOUGH { self.page * 2 } else { self.page / 2 }.clamp(FIRST_PAGE, LARGEST_PAGE);
        }
        let mut rows: BTreeMap<Bytes, Found> = answer
            .kvs
            .into_iter()
            .map(|kv| (kv.key, Found::Stands { modified: kv.mod_revision, value: kv.value }))
            .collect();
        let upto = next.as_ref().unwrap_or(to);
        if from < upto {
            for (key, row) in self.written.range(from.clone()..upto.clone()) {
                match row {
                    Some(row) => drop(rows.insert(key.clone(), Found::Written(row.clone()))),
                    None => drop(rows.remove(key)),
                }
            }
        }
        Ok(PageOf { rows: rows.into_iter().collect(), next })
    }

    /// Hands on the rows of a range in their order, until told to stop; whether it came to the end.
    pub(super) fn each(
        &mut self,
        (from, to): (Bytes, Bytes),
        of: Of,
        mut each: impl FnMut(&mut Buffer, &Bytes, &Found) -> Result<bool>,
    ) -> Result<bool> {
        let mut from = from;
        loop {
            let page = self.page((&from, &to), of, usize::MAX)?;
            for (key, found) in &page.rows {
                if !each(self, key, found)? {
                    return Ok(false);
                }
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(true),
            }
        }
    }

    /// How many keys a range has.
    pub(super) fn count(&mut self, (from, to): (&Bytes, &Bytes)) -> Result<u64> {
        if from >= to {
            return Ok(0);
        }
        let range = (from.clone(), to.clone());
        let mut count = match self.counts.get(&range) {
            Some(count) => *count,
            None => {
                let request = RangeRequest {
                    key: from.clone(),
                    range_end: to.clone(),
                    count_only: true,
                    ..RangeRequest::default()
                };
                let count = self.range(request)?.count;
                self.counts.insert(range, count);
                count
            }
        };
        let written: Vec<_> = self
            .written
            .range(from.clone()..to.clone())
            .map(|(key, row)| (key.clone(), row.is_some()))
            .collect();
        for (key, is_there) in written {
            let was_there = self.stood(&key)?.modified > 0;
            count += i64::from(is_there) - i64::from(was_there);
        }
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Where the log ends, as of all reads.
    pub(super) fn end(&mut self) -> Result<Revision> {
        let (version, modified) = self.feed()?;
        // The first says that the store was made, and nothing else.
        Ok(if version > 1 { end_of(modified) } else { Revision::ZERO })
    }

    /// The feed's version, and when it was written.
    fn feed(&mut self) -> Result<(i64, i64)> {
        if let Some(feed) = self.feed {
            return Ok(feed);
        }
        let key = self.cluster.keys.feed();
        let answer = self.range(RangeRequest { key, keys_only: true, ..RangeRequest::default() })?;
        let feed = answer.kvs.first().map_or((0, 0), |kv| (kv.version, kv.mod_revision));
        // Nobody here is told of an end that the log does not reach yet.
        self.cluster.wait(feed.0, self.cluster.patience)?;
        self.feed = Some(feed);
        Ok(feed)
    }

    /// Whatever anybody commits first, this is not committed: it has looked at everything.
    pub(super) fn hold_everything(&mut self) -> Result<()> {
        let (key, (_, modified)) = (self.cluster.keys.feed(), self.feed()?);
        self.stood.insert(key, Stood { modified, value: Bytes::new() });
        Ok(())
    }

    /// Nothing may be put into a range before this is committed.
    pub(super) fn hold_range(&mut self, range: (Bytes, Bytes)) {
        if !self.ranges.contains(&range) {
            self.ranges.push(range);
        }
    }

    pub(super) fn mark(&mut self) {
        self.marked = Some(self.written.clone());
    }

    pub(super) fn unmark(&mut self) {
        self.marked = None;
    }

    pub(super) fn undo(&mut self) {
        if let Some(marked) = self.marked.take() {
            self.written = marked;
        }
    }

    /// How many compares and how many puts it will take, about.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.stood.len() + self.ranges.len(), self.written.len())
    }

    /// What has to hold for it to be committed.
    pub(super) fn compares(&self) -> Vec<Compare> {
        let rows = self.stood.iter().map(|(key, stood)| Compare::modified(key.clone(), stood.modified));
        let ranges = self.ranges.iter();
        let ranges = ranges.map(|(from, to)| Compare::unwritten_since(from.clone(), to.clone(), self.at));
        rows.chain(ranges).collect()
    }

    /// It was committed: what it looked at stands as it did, and what it wrote of that as it wrote it.
    pub(super) fn remember(&self, made: Made) {
        if made.events == 0 {
            // What has no events does not know when it was committed.
            return self.forget();
        }
        for (key, stood) in &self.stood {
            let stood = match self.written.get(key) {
                Some(Some(row)) => Stood { modified: made.modified, value: row.bytes(made.events) },
                Some(None) => Stood { modified: 0, value: Bytes::new() },
                None => stood.clone(),
            };
            self.cluster.recall.note(key, &stood, made.modified);
        }
    }

    /// It was not committed: something that it looked at stands otherwise.
    pub(super) fn forget(&self) {
        self.cluster.recall.forget(self.stood.keys());
    }

    /// What it writes, in a commit of so many events.
    pub(super) fn puts(&self, events: u64) -> Vec<RequestOp> {
        let write = |(key, row): (&Bytes, &Option<Rc<dyn Wrapped>>)| match row {
            Some(row) => {
                let (value, lease) = (row.bytes(events), row.lease());
                Request::Put(PutRequest { key: key.clone(), value, lease }).into()
            }
            None => {
                Request::DeleteRange(DeleteRangeRequest { key: key.clone(), range_end: Bytes::new() }).into()
            }
        };
        self.written.iter().map(write).collect()
    }
}
