//! The one module that calls the library.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use watchkeep::{
    AsyncStore, Cursor, DeleteOptions, Entry, Error, ErrorKind, Event, Filter, Revision, SetOptions, Store,
    StoreId, WatchOptions, Watcher, json,
};

use crate::limits::{HEARTBEAT, STREAM_EVENTS};
use crate::problem::Problem;
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

/// Where a stream begins.
#[derive(Debug, Clone)]
pub(crate) enum Begin {
    Now,
    After(Position),
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

/// A store, and when its server ends.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    store: AsyncStore,
    pub(crate) ending: Ending,
}

impl Gate {
    pub(crate) fn new(store: &Store, ending: Ending) -> Gate {
        Gate { store: store.to_async(), ending }
    }

    fn id(&self) -> StoreId {
        self.store.store().id()
    }

    pub(crate) fn position(&self, revision: Revision) -> Position {
        Position(self.store.store().cursor(revision).to_string())
    }

    /// An event as the object that the command line prints.
    pub(crate) fn json(&self, event: &Event) -> Bytes {
        json::event(event, self.id()).to_string().into()
    }

    /// The same store, whose writes bear a label.
    pub(crate) fn labelled(&self, origin: Option<&str>) -> Gate {
        let Some(origin) = origin else { return self.clone() };
        Gate { store: self.store.store().with_origin(origin).to_async(), ending: self.ending.clone() }
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

    /// The revision of a position in a condition: one of another store holds for no entry of this one.
    fn own(&self, position: &Position) -> Result<Revision, Problem> {
        let cursor: Cursor = position.0.parse()?;
        Ok(if cursor.store() == self.id() { cursor.revision() } else { Revision::new(0) })
    }

    /// Looks at a position from outside, before a stream begins there.
    pub(crate) async fn judge(&self, position: &Position) -> Result<Option<Gone>, Problem> {
        let cursor: Cursor = position.0.parse()?;
        if cursor.store() != self.id() {
            return Ok(Some(Gone::Foreign));
        }
        let last = self.store.blocking(Store::last_revision).await?;
        Ok((cursor.revision() > last).then_some(Gone::Future))
    }

    /// Begins a watch; none when a power cut took what its position stands for.
    pub(crate) async fn watch(&self, filter: Arc<Filter>, begin: Begin) -> Result<Option<Watcher>, Error> {
        let options = WatchOptions::new().buffer(STREAM_EVENTS).progress(HEARTBEAT);
        let options = match begin {
            Begin::Now => options,
            Begin::Snapshot => options.snapshot(),
            Begin::After(position) => options.after_cursor(position.0.parse()?),
        };
        let watch = move |store: &Store| store.watch_with((*filter).clone(), options);
        match self.store.blocking(watch).await {
            Err(error) if error.kind() == ErrorKind::ForeignCursor => Ok(None),
            begun => begun.map(Some),
        }
    }
}
