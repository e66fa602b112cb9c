//! **Keep it. Watch it.** A key-value store on one SQLite file that tells you what changed.
//!
//! Entries live under a *group* and a *key*, in one file, with no server to run. Anyone may watch: a thread, an
//! async task, another process on the same file. Every change arrives once, in commit order, and where that is
//! impossible the watcher is told so instead of being left wrong.
//!
//! ```
//! use std::time::Duration;
//! use watchkeep::Store;
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("app.db");
//! let store = Store::open(&path)?;
//! let mut watcher = store.watch("config", "*");
//!
//! store.set("config", "theme", "dark")?;
//! store.set_with_ttl("session", "token", "abc", Duration::from_secs(3600))?;
//!
//! let event = watcher.recv().unwrap()?;
//! assert_eq!((event.key(), event.value().unwrap().as_str()), (Some("theme"), Some("dark")));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a watcher can rely on
//!
//! *Lag.* A watcher has a bounded buffer and never delays a writer. When the buffer is full it is not fed any more;
//! it reads on from the change log, at its own pace, and joins the live feed again. Only what retention has trimmed
//! is lost, and an error of kind [`Lagged`](ErrorKind::Lagged) says which revisions. Other policies are a choice:
//! [`LagPolicy`].
//!
//! *Close.* When the store closes, or the watch is stopped, the watcher hands out what it has, and ends.
//!
//! *Order.* All watchers and callbacks see events in commit order, one order for the whole store. The events of a
//! transaction follow one another and name the last one. An event is delivered after its commit is durable,
//! and before the write returns. Whoever has received it reads that revision or a later one.
//!
//! `docs/watch.md` in the repository has the promises one by one.
//!
//! # Features
//!
//! All on by default; they only add.
//!
//! * `json`: typed values through `serde`, and [events as JSON](json).
//! * `render`: [`Store::render`], templates over a group.
//! * `async`: [`AsyncStore`], and watchers as `futures_core::Stream`.

#![cfg_attr(
    not(feature = "async"),
    expect(dead_code, reason = "without the feature nobody calls what serves asynchronous callers")
)]

mod driver;
mod engine;
mod rules;
mod store;
mod types;
mod watch;

#[cfg(feature = "json")]
pub use store::json;
pub use store::{
    Acker, CheckReport, Committed, Consumer, Entries, Groups, History, Snapshot, Stats, Store, Transaction,
    View, WeakStore,
};
#[cfg(feature = "async")]
pub use store::{AsyncStore, Writing};
pub use types::backup::{Backup, BackupOptions, BackupProgress};
pub use types::batch::{Applied, Batch, Condition, Outcome, Unmet};
pub use types::clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use types::consumer::{ConsumerInfo, ConsumerOptions, ConsumerStart, Force, Holder};
pub use types::counters::Counters;
pub use types::entry::{Entry, GroupPage, KeyInfo, KeyPage, ListOptions, Page};
pub use types::error::{Error, ErrorKind, Result};
pub use types::event::{ChangePage, Event, Item, Kind, Lagged};
pub use types::filter::Filter;
pub use types::limits::{
    CLUSTER_TRANSACTION, Limits, MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, MAX_CONTENT_TYPE, MAX_DEADLINE_MS,
    MAX_FILTER_PARTS, MAX_LABEL, MAX_REVISION, MAX_SEAL, MAX_UNCHANGED_EVENTS,
};
#[cfg(feature = "etcd")]
pub use types::options::Compaction;
pub use types::options::{Durability, Options, Retention, Waking};
pub use types::quota::{Quota, QuotaExceeded, QuotaLimit};
pub use types::revision::{Cursor, Epoch, Revision, StoreId};
pub use types::value::Value;
pub use types::watching::{LagPolicy, WatchOptions};
pub use types::writing::{DeleteOptions, SetOptions};
pub use watch::callbacks::Subscription;
pub use watch::watcher::{Items, Stopper, Watcher};
