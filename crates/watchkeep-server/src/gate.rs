//! The one module that calls the library.

mod changes;
mod figures;
mod reopen;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use axum::http::StatusCode;
use serde::Serialize;
use watchkeep::{
    AsyncStore, Batch, Cursor, Entry, Error, ErrorKind, Event, Filter, GroupPage, Item, KeyInfo, ListOptions,
    Revision, SetOptions, Store, StoreId, Transaction, Value, WatchOptions, Watcher, json,
};

use crate::access::{self, Pass};
use crate::change::{Change, Changes};
use crate::ending::Ending;
use crate::limits::{CHANGES_BYTES, HEARTBEAT, LAGGARDS, SNAPSHOTS, STREAM_EVENTS};
use crate::problem::Problem;
use crate::query::Query;
use crate::ring::{self, Ring};
use crate::tide::Tide;
use crate::turns::{Turn, Turns};

pub(crate) use changes::{Asked, Page, Part, foreign, lost};
pub(crate) use figures::Figures;
use figures::Surveyed;
pub(crate) use reopen::{Gates, Keeper, Reopen, wait};

/// A position as it goes over the wire: opaque there, compared for equality only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Position(String);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Cursor> for Position {
    fn from(cursor: Cursor) -> Position {
        Position(cursor.to_string())
    }
}

impl From<String> for Position {
    fn from(text: String) -> Position {
        Position(text)
    }
}

impl From<&str> for Position {
    fn from(text: &str) -> Position {
        Position(text.to_owned())
    }
}

impl Position {
    /// What it stands for.
    ///
    /// # Errors
    ///
    /// When it stands for nothing, as no server gives it.
    pub(crate) fn cursor(&self) -> Result<Cursor, Problem> {
        self.0.parse().map_err(|_| no_cursor(self))
    }
}

impl PartialEq<str> for Position {
    fn eq(&self, text: &str) -> bool {
        self.0 == text
    }
}

/// What a request asks of the entry that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    Always,
    Absent,
    Present,
    OneOf(Vec<Position>),
}

/// What a new deadline did.
#[derive(Debug)]
pub(crate) struct Touched {
    /// The entry as it is now.
    pub(crate) entry: Entry,
    /// Where the store stands after that.
    pub(crate) position: Position,
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

/// A page of the keys of a group.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) keys: Vec<serde_json::Value>,
    pub(crate) next: Option<String>,
    pub(crate) position: Position,
}

/// Why a stream cannot begin where it was to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The position belongs to another store.
    Foreign,
    /// What the position stands for is not in this store: a power cut took it, or only a copy of the file has it.
    Lost,
    /// No server gave this position.
    Nonsense,
}

/// The statistics that are a namespace's own.
const OWN_STATS: [&str; 4] = ["namespace", "entries", "groups", "bytes"];

/// A store, the rings over it, and when its server ends.
#[derive(Clone)]
pub(crate) struct Gate {
    store: AsyncStore,
    streams: Arc<Streams>,
    /// What all gates of one open file share.
    file: Arc<File>,
    pub(crate) ending: Ending,
    tide: Tide,
    /// The label of its writes.
    label: Option<String>,
    /// Whom it is for.
    pub(crate) pass: Pass,
    /// Where the gate is that comes after this one.
    gates: Option<Gates>,
}

/// The streams over one open file: nobody sees those of another namespace.
type File = Mutex<HashMap<String, Arc<Streams>>>;

/// What all streams over a store share, or over a namespace of it.
struct Streams {
    /// One for each filter, for as long as it has clients.
    rings: Mutex<HashMap<Filter, Weak<Ring>>>,
    /// Those who read beside a ring.
    snapshots: Turns,
    laggards: Turns,
    changes: Arc<Changes>,
    surveyed: Arc<Surveyed>,
}

impl Default for Streams {
    fn default() -> Streams {
        Streams::over(Changes::default())
    }
}

impl Streams {
    fn over(changes: Changes) -> Streams {
        Streams {
            rings: Mutex::default(),
            snapshots: Turns::new(SNAPSHOTS),
            laggards: Turns::new(LAGGARDS),
            changes: Arc::new(changes),
            surveyed: Arc::default(),
        }
    }

    /// The rings that there are.
    fn rings(&self) -> Vec<Arc<Ring>> {
        lock(&self.rings).values().filter_map(Weak::upgrade).collect()
    }

    /// How many clients have a stream.
    fn clients(&self) -> usize {
        self.rings().iter().map(|ring| ring.clients()).sum()
    }
}

impl Gate {
    pub(crate) fn new(store: &Store, ending: Ending) -> Gate {
        Gate {
            store: store.to_async(),
            streams: Arc::default(),
            file: Arc::default(),
            ending,
            tide: Tide::default(),
            label: None,
            pass: Pass::default(),
            gates: None,
        }
    }

    fn id(&self) -> StoreId {
        self.store.store().id()
    }

    pub(crate) fn position(&self, revision: Revision) -> Position {
        self.store.store().cursor(revision).into()
    }

    pub(crate) fn change(&self, event: Event) -> Arc<Change> {
        self.streams.changes.share(event, self.store.store())
    }

    /// Whether the rings should hold less.
    pub(crate) fn is_crowded(&self) -> bool {
        self.streams.changes.bytes() > CHANGES_BYTES
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

    /// The same store, for a client that leaves at a moment of its own when the server ends.
    pub(crate) fn leaving(&self) -> Gate {
        Gate { ending: self.ending.drawn(), ..self.clone() }
    }

    /// The same store, whose writes bear a label.
    pub(crate) fn labelled(&self, origin: Option<&str>) -> Gate {
        let Some(origin) = origin else { return self.clone() };
        let store = self.store.store().with_origin(origin).to_async();
        Gate { store, label: Some(origin.to_owned()), ..self.clone() }
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
        if let Some(content_type) = put.content_type {
            options = options.content_type(content_type);
        }
        options = match put.condition {
            Condition::Always => options,
            Condition::Absent => options.if_absent(),
            Condition::Present | Condition::OneOf(_) => {
                let Put { group, key, value, condition, .. } = put;
                let value = Value::from(value);
                let set = move |tx: &Transaction<'_>, group: &str, key: &str| {
                    tx.set_with(group, key, value.clone(), options.clone())
                };
                return Ok(self.when(group, key, condition, set).await?.1);
            }
        };
        Ok(self.position(self.store.set_with(&put.group, &put.key, put.value, options).await?))
    }

    /// Applies a batch; what it did, and where the store stands after it.
    ///
    /// # Errors
    ///
    /// 412 with all conditions that do not hold.
    pub(crate) async fn apply(&self, batch: Batch) -> Result<(serde_json::Value, Position), Problem> {
        let applied = self.store.apply(batch).await.map_err(|error| {
            let unmet: Vec<_> =
                error.unmet().iter().map(|unmet| json::unmet(unmet, self.store.store())).collect();
            if unmet.is_empty() { error.into() } else { Problem::from(error).with("unmet", unmet) }
        })?;
        Ok((json::applied(&applied, self.store.store()), self.position(applied.revision)))
    }

    /// Deletes an entry; whether it was there, and where the store stands after that.
    pub(crate) async fn delete(
        &self,
        group: String,
        key: String,
        condition: Condition,
    ) -> Result<(bool, Position), Problem> {
        self.when(group, key, condition, |tx, group, key| tx.delete(group, key)).await
    }

    /// Gives an entry a new deadline, or takes it away; none when the entry is not there.
    pub(crate) async fn touch(
        &self,
        group: String,
        key: String,
        ttl: Option<Duration>,
        condition: Condition,
    ) -> Result<Option<Touched>, Problem> {
        let touch = move |tx: &Transaction<'_>, group: &str, key: &str| {
            match ttl {
                Some(ttl) => tx.touch(group, key, ttl)?,
                None => tx.persist(group, key)?,
            };
            tx.entry(group, key)
        };
        let (entry, position) = self.when(group, key, condition, touch).await?;
        Ok(entry.map(|entry| Touched { entry, position }))
    }

    /// Writes to an entry in a transaction that looks first whether the condition holds.
    async fn when<T: Send + 'static>(
        &self,
        group: String,
        key: String,
        condition: Condition,
        write: impl Fn(&Transaction<'_>, &str, &str) -> Result<T, Error> + Send + 'static,
    ) -> Result<(T, Position), Problem> {
        let (gate, name) = (self.clone(), (group.clone(), key.clone()));
        let job = move |tx: &Transaction<'_>| {
            let holds =
                condition == Condition::Always || gate.holds(&condition, tx.entry(&group, &key)?.as_ref());
            if holds { write(tx, &group, &key).map(Some) } else { Ok(None) }
        };
        let done = self.store.transaction(job).await?;
        match done.value {
            Some(value) => Ok((value, self.position(done.revision))),
            None => Err(unmet(&name.0, &name.1)),
        }
    }

    /// Whether a condition holds for what is there.
    pub(crate) fn holds(&self, condition: &Condition, entry: Option<&Entry>) -> bool {
        match condition {
            Condition::Always => true,
            Condition::Absent => entry.is_none(),
            Condition::Present => entry.is_some(),
            Condition::OneOf(positions) => {
                entry.is_some_and(|entry| positions.contains(&self.position(entry.revision)))
            }
        }
    }

    /// Takes the last parameter of a read, `min`, and waits until the store is at least as new as it says.
    pub(crate) async fn fresh(&self, mut query: Query) -> Result<(), Problem> {
        let min = query.take("min").map(Position::from);
        query.end()?;
        match min {
            Some(min) => self.reach(&min).await,
            None => Ok(()),
        }
    }

    async fn reach(&self, position: &Position) -> Result<(), Problem> {
        let cursor = position.cursor()?;
        let advice = "leave min= out, and read again";
        if cursor.store() != self.id() {
            return Err(foreign(advice));
        }
        let reach = async {
            // What was not given yet may come in the newest epoch only.
            if self.store.store().cursor(cursor.revision()) == cursor {
                self.tide.reach(&self.store, cursor.revision()).await?;
            }
            match self.store.revision_of(cursor).await {
                Err(error) if error.kind() == ErrorKind::LostCursor => Err(lost(advice)),
                known => Ok(known.map(drop)?),
            }
        };
        tokio::select! {
            reached = reach => reached,
            why = self.over() => Err(access::over(why)),
            () = self.ending.clone().wait() => {
                let detail = "the server ends; ask again when it is back";
                Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "ending", detail))
            }
        }
    }

    /// A page of the names of groups, and the position that it was read at.
    pub(crate) async fn groups(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(GroupPage, Position), Problem> {
        let page = self.store.groups_page(prefix, after, limit).await?;
        let position = self.position(page.revision);
        Ok((page, position))
    }

    /// A page of the keys of a group, each as an object; with its value where that is wanted.
    pub(crate) async fn keys(
        &self,
        group: &str,
        prefix: String,
        after: Option<String>,
        limit: usize,
        values: bool,
    ) -> Result<Keys, Problem> {
        let mut options = ListOptions::new().prefix(prefix).limit(limit);
        if let Some(after) = after {
            options = options.after(after);
        }
        let (keys, next, revision) = if values {
            let page = self.store.page(group, options).await?;
            let keys = page.entries.iter().map(|entry| {
                let mut object = json::key(&KeyInfo::from(entry), self.store.store().cursor(entry.revision));
                if let Some(object) = object.as_object_mut() {
                    json::insert_value(object, "value", &entry.value);
                }
                object
            });
            (keys.collect(), page.next, page.revision)
        } else {
            let page = self.store.keys_page(group, options).await?;
            let keys = page.keys.iter().map(|key| json::key(key, self.store.store().cursor(key.revision)));
            (keys.collect(), page.next, page.revision)
        };
        Ok(Keys { keys, next, position: self.position(revision) })
    }

    /// How many keys a group holds, and a position that the store had reached by then.
    pub(crate) async fn count(&self, group: &str) -> Result<(u64, Position), Problem> {
        let group = group.to_owned();
        let count = move |store: &Store| {
            // One moment for both.
            let snapshot = store.snapshot()?;
            Ok((snapshot.count(&group)?, snapshot.revision()))
        };
        let (count, revision) = self.store.blocking(count).await?;
        Ok((count, self.position(revision)))
    }

    /// Deletes a group; how many keys it held, and where the store stands after that.
    pub(crate) async fn delete_group(&self, group: String) -> Result<(u64, Position), Problem> {
        let done = self.store.transaction(move |tx| tx.delete_group(&group)).await?;
        Ok((done.value, self.position(done.revision)))
    }

    /// Counts and sizes, without where the store is.
    pub(crate) async fn stats(&self) -> Result<(serde_json::Value, Position), Problem> {
        let stats = self.store.stats().await?;
        let mut object = json::stats(&stats);
        if let Some(object) = object.as_object_mut() {
            object.shift_remove("path");
            object.shift_remove("address");
            if self.pass.namespace.is_some() {
                // The rest is of the whole file.
                object.retain(|name, _| OWN_STATS.contains(&name.as_str()));
            }
            object.insert("streams".to_owned(), self.streams().into());
        }
        Ok((object, self.position(stats.last_revision)))
    }

    /// How many clients have a stream.
    pub(crate) fn streams(&self) -> usize {
        self.streams.clients()
    }

    /// Looks at a position from outside, before a stream begins there.
    pub(crate) async fn judge(&self, position: &Position) -> Result<Result<Revision, Gone>, Problem> {
        let Ok(cursor) = position.cursor() else { return Ok(Err(Gone::Nonsense)) };
        if cursor.store() != self.id() {
            return Ok(Err(Gone::Foreign));
        }
        match self.store.revision_of(cursor).await {
            Err(error) if error.kind() == ErrorKind::LostCursor => Ok(Err(Gone::Lost)),
            known => Ok(Ok(known?)),
        }
    }

    /// The last revision of the store.
    pub(crate) async fn last(&self) -> Result<Revision, Problem> {
        Ok(self.store.last_revision().await?)
    }

    /// The ring of a filter; makes it when nobody has it yet.
    pub(crate) async fn ring(&self, filter: &Filter) -> Result<Arc<Ring>, Error> {
        let known = |rings: &HashMap<Filter, Weak<Ring>>| {
            rings.get(filter).and_then(Weak::upgrade).filter(|ring| !ring.is_ended())
        };
        if let Some(ring) = known(&lock(&self.streams.rings)) {
            return Ok(ring);
        }
        let watcher = self.store.watch_with(filter.clone(), watching()).await?;
        let mut rings = lock(&self.streams.rings);
        // Somebody else may have been faster.
        if let Some(ring) = known(&rings) {
            return Ok(ring);
        }
        // It is everybody's, and stays when the first of them goes.
        let everybody = Gate { pass: Pass::default(), ..self.clone() };
        let ring = Ring::start(&everybody, watcher);
        rings.retain(|_, ring| ring.strong_count() > 0);
        rings.insert(filter.clone(), Arc::downgrade(&ring));
        Ok(ring)
    }

    /// Begins a watch with what is there, in turn with others.
    pub(crate) async fn snapshot(&self, filter: Filter) -> Result<(Watcher, Turn), Error> {
        let turn = self.streams.snapshots.take().await?;
        Ok((self.store.watch_with(filter, watching().snapshot()).await?, turn))
    }
}

fn watching() -> WatchOptions {
    WatchOptions::new().buffer(STREAM_EVENTS).progress(HEARTBEAT)
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("store", &self.store).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was given as a position is none.
pub(crate) fn no_cursor(position: &Position) -> Problem {
    Problem::bad(format!(
        "{:?} is not a cursor; one looks like k3v9x2mq-4fz8ab-7: take one that the server gave",
        position.0
    ))
}

/// The condition of a request does not hold.
pub(crate) fn unmet(group: &str, key: &str) -> Problem {
    let detail = format!("group {group:?} key {key:?} is not as If-Match says; read it again and decide");
    Problem::new(StatusCode::PRECONDITION_FAILED, "conflict", detail)
}
