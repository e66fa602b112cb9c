//! The one module that calls the library.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use watchkeep::{
    AsyncStore, Cursor, DeleteOptions, Entry, Error, ErrorKind, Event, Filter, Item, ListOptions, Page,
    Revision, SetOptions, Stats, Store, StoreId, WatchOptions, Watcher,
};

use crate::change::Change;
use crate::limits::{HEARTBEAT, LAGGARDS, SNAPSHOTS, STREAM_EVENTS};
use crate::problem::Problem;
use crate::ring::{self, Ring};
use crate::serve::Ending;

/// A position as it goes over the wire: opaque there, compared for equality only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position(String);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Position {
    fn from(text: String) -> Position {
        Position(text)
    }
}

/// What a write asks of the entry that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    Always,
    Absent,
    At(Position),
}

/// How long an entry is to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ttl {
    Clear,
    Keep,
    For(Duration),
}

/// A value to set.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) group: String,
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
    pub(crate) content_type: Option<String>,
    pub(crate) ttl: Ttl,
    pub(crate) condition: Condition,
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    Now,
    After(Revision),
    Snapshot,
}

/// Why a stream cannot begin where it was to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The position belongs to another store, or to commits that a power cut took.
    Foreign,
    /// The position lies ahead of this store.
    Future,
}

/// A store, the rings over it, and when its server ends.
#[derive(Clone)]
pub(crate) struct Gate {
    store: AsyncStore,
    streams: Arc<Streams>,
    pub(crate) ending: Ending,
}

/// What all streams over a store share.
struct Streams {
    /// One for each filter, for as long as it has clients.
    rings: Mutex<HashMap<Filter, Weak<Ring>>>,
    /// The rights to read beside a ring.
    snapshots: Arc<Semaphore>,
    laggards: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new(store: &Store, ending: Ending) -> Gate {
        let streams = Streams {
            rings: Mutex::default(),
            snapshots: Arc::new(Semaphore::new(SNAPSHOTS)),
            laggards: Arc::new(Semaphore::new(LAGGARDS)),
        };
        Gate { store: store.to_async(), streams: Arc::new(streams), ending }
    }

    fn id(&self) -> StoreId {
        self.store.store().id()
    }

    pub(crate) fn position(&self, revision: Revision) -> Position {
        Position(self.store.store().cursor(revision).to_string())
    }

    pub(crate) fn change(&self, event: Event) -> Arc<Change> {
        let at = self.position(event.revision());
        Change::new(event, at, self.id())
    }

    /// What an item of a watcher means to a ring.
    pub(crate) fn entry_of(&self, item: Result<Item, Error>) -> Result<ring::Told, Error> {
        Ok(match item? {
            Item::Event(event) => ring::Told::Entry(ring::Entry::Change(self.change(event))),
            Item::Lagged(lost) => ring::Told::Entry(ring::Entry::Lost(lost)),
            Item::Ready(at) | Item::Progress(at) => ring::Told::Seen(at),
            // A mark that a later library has, and this server does not know.
            _ => ring::Told::Seen(Revision::ZERO),
        })
    }

    /// The same store, whose writes bear a label.
    pub(crate) fn labelled(&self, origin: Option<&str>) -> Gate {
        let Some(origin) = origin else { return self.clone() };
        let store = self.store.store().with_origin(origin).to_async();
        Gate { store, streams: self.streams.clone(), ending: self.ending.clone() }
    }

    pub(crate) async fn entry(&self, group: &str, key: &str) -> Result<Option<Entry>, Problem> {
        Ok(self.store.entry(group, key).await?)
    }

    pub(crate) async fn put(&self, put: Put) -> Result<Position, Problem> {
        let mut options = SetOptions::new();
        options = match put.ttl {
            Ttl::Clear => options,
            Ttl::Keep => options.keep_ttl(),
            Ttl::For(ttl) => options.ttl(ttl),
        };
        options = match put.condition {
            Condition::Always => options,
            Condition::Absent => options.if_absent(),
            Condition::At(position) => options.if_revision(self.own(&position)?),
        };
        if let Some(content_type) = put.content_type {
            options = options.content_type(content_type);
        }
        Ok(self.position(self.store.set_with(&put.group, &put.key, put.value, options).await?))
    }

    /// Deletes an entry; whether it was there, and where the store stands after that.
    pub(crate) async fn delete(
        &self,
        group: String,
        key: String,
        condition: Condition,
    ) -> Result<(bool, Position), Problem> {
        let options = match condition {
            Condition::At(position) => DeleteOptions::new().if_revision(self.own(&position)?),
            Condition::Always | Condition::Absent => DeleteOptions::new(),
        };
        let done = self.store.transaction(move |tx| tx.delete_with(&group, &key, options.clone())).await?;
        Ok((done.value, self.position(done.revision)))
    }

    /// Gives an entry another time to live, or none; the entry after that, if it is there.
    pub(crate) async fn touch(
        &self,
        group: String,
        key: String,
        ttl: Option<Duration>,
    ) -> Result<Option<Entry>, Problem> {
        let touched = self.store.transaction(move |tx| {
            match ttl {
                Some(ttl) => tx.touch(&group, &key, ttl)?,
                None => tx.persist(&group, &key)?,
            };
            tx.entry(&group, &key)
        });
        Ok(touched.await?.value)
    }

    /// The names of groups after one, and after which to go on.
    pub(crate) async fn groups(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
    ) -> Result<(Vec<String>, Option<String>), Problem> {
        let read = move |store: &Store| {
            let groups = store.groups(&prefix);
            let groups = after.into_iter().fold(groups, |groups, after| groups.after(after));
            groups.take(limit + 1).collect::<Result<Vec<_>, _>>()
        };
        let mut groups = self.store.blocking(read).await?;
        let more = groups.len() > limit;
        groups.truncate(limit);
        let next = groups.last().cloned().filter(|_| more);
        Ok((groups, next))
    }

    pub(crate) async fn keys(&self, group: &str, options: ListOptions) -> Result<Page, Problem> {
        Ok(self.store.page(group, options).await?)
    }

    pub(crate) async fn count(&self, group: &str) -> Result<u64, Problem> {
        Ok(self.store.count(group).await?)
    }

    /// How many keys went, and where the store stands after that.
    pub(crate) async fn delete_group(&self, group: String) -> Result<(u64, Position), Problem> {
        let done = self.store.transaction(move |tx| tx.delete_group(&group)).await?;
        Ok((done.value, self.position(done.revision)))
    }

    pub(crate) async fn stats(&self) -> Result<Stats, Problem> {
        Ok(self.store.blocking(Store::stats).await?)
    }

    /// How many clients have a stream.
    pub(crate) fn streams(&self) -> usize {
        lock(&self.streams.rings).values().filter_map(Weak::upgrade).map(|ring| ring.clients()).sum()
    }

    /// The revision of a position in a condition: one of another store holds for no entry of this one.
    fn own(&self, position: &Position) -> Result<Revision, Problem> {
        let cursor: Cursor = position.0.parse()?;
        Ok(if cursor.store() == self.id() { cursor.revision() } else { Revision::new(0) })
    }

    /// Looks at a position from outside, before a stream begins there.
    pub(crate) async fn judge(&self, position: &Position) -> Result<Result<Revision, Gone>, Problem> {
        let cursor: Cursor = position.0.parse()?;
        if cursor.store() != self.id() {
            return Ok(Err(Gone::Foreign));
        }
        let ahead = cursor.revision() > self.last().await?;
        Ok(if ahead { Err(Gone::Future) } else { Ok(cursor.revision()) })
    }

    /// The last revision of the store.
    pub(crate) async fn last(&self) -> Result<Revision, Problem> {
        Ok(self.store.blocking(Store::last_revision).await?)
    }

    /// The ring of a filter; makes it when nobody has it yet.
    pub(crate) async fn ring(&self, filter: &Filter) -> Result<Arc<Ring>, Error> {
        let known = |rings: &HashMap<Filter, Weak<Ring>>| {
            rings.get(filter).and_then(Weak::upgrade).filter(|ring| !ring.is_ended())
        };
        if let Some(ring) = known(&lock(&self.streams.rings)) {
            return Ok(ring);
        }
        let Some(watcher) = self.begin(filter.clone(), Begin::Now).await? else {
            return Err(Error::abort("a watch from now on has no position"));
        };
        let mut rings = lock(&self.streams.rings);
        // Somebody else may have been faster.
        if let Some(ring) = known(&rings) {
            return Ok(ring);
        }
        let ring = Ring::start(self, watcher);
        rings.retain(|_, ring| ring.strong_count() > 0);
        rings.insert(filter.clone(), Arc::downgrade(&ring));
        Ok(ring)
    }

    /// Begins a watch beside a ring, in turn with others; none when a power cut took what its position stands for.
    pub(crate) async fn watch(
        &self,
        filter: Filter,
        begin: Begin,
    ) -> Result<Option<(Watcher, OwnedSemaphorePermit)>, Error> {
        let rights = if begin == Begin::Snapshot { &self.streams.snapshots } else { &self.streams.laggards };
        let right = rights.clone().acquire_owned().await.map_err(Error::abort)?;
        Ok(self.begin(filter, begin).await?.map(|watcher| (watcher, right)))
    }

    async fn begin(&self, filter: Filter, begin: Begin) -> Result<Option<Watcher>, Error> {
        let options = WatchOptions::new().buffer(STREAM_EVENTS).progress(HEARTBEAT);
        let options = match begin {
            Begin::Now => options,
            Begin::Snapshot => options.snapshot(),
            Begin::After(revision) => options.after(revision),
        };
        match self.store.blocking(move |store| store.watch_with(filter, options)).await {
            Err(error) if error.kind() == ErrorKind::ForeignCursor => Ok(None),
            begun => begun.map(Some),
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("store", &self.store).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
