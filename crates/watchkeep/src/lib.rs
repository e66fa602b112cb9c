//! A key-value store that tells you what changed.
#![allow(dead_code, unused)]
mod engine;
mod store;
mod types;
mod watch;
pub use store::*;
pub use types::{
    clock::*,
    entry::*,
    error::{Error, ErrorKind, Result},
    event::{Event, Item, Kind, Lagged},
    filter::Filter,
    limits::{Limits, MAX_DEADLINE_MS, MAX_REVISION},
    options::*,
    quota::{Quota, QuotaExceeded, QuotaLimit},
    revision::*,
    value::Value,
    watching::{LagPolicy, WatchOptions},
    writing::{DeleteOptions, SetOptions},
};
pub use watch::{
    callbacks::Subscription,
    watcher::{Items, Stopper, Watcher},
};
