//! JSON: typed values, and events as the objects of the command line and of the server.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};

use crate::types::clock::Timestamp;
use crate::types::consumer::ConsumerInfo;
use crate::types::entry::KeyInfo;
use crate::types::error::{Reason, Result};
use crate::types::event::{Event, Item, Lagged};
use crate::types::options::Retention;
use crate::types::quota::Quota;
use crate::types::revision::{Cursor, Revision};
use crate::types::value::Value;

use super::handle::Store;
use super::report::Stats;

mod batch;

pub use batch::{applied, batch, unmet};

/// A point in time as RFC 3339 with milliseconds, in UTC: `2026-11-23T12:00:00.123Z`.
///
/// ```
/// use watchkeep::{Timestamp, json};
/// assert_eq!(json::timestamp(Timestamp::from_millis(1_795_435_200_123)), "2026-11-23T12:00:00.123Z");
/// ```
pub fn timestamp(time: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(time.as_millis()) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => time.as_millis().to_string(),
    }
}

/// An event and its cursor as a JSON object: what `watchkeep watch --json` prints in a line.
///
/// `value` where it is UTF-8, otherwise `value_base64`. `key` and `value` are missing where the event has none;
/// `deadline`, `content_type`, `previous_revision`, `previous_value` and `snapshot` are there only where they say
/// something.
///
/// ```
/// use watchkeep::{Store, json};
/// let store = Store::open_in_memory()?;
/// let mut watcher = store.watch("config", "*");
/// store.set("config", "theme", "dark")?;
/// let event = watcher.recv().unwrap()?;
/// let object = json::event(&event, store.cursor(event.revision()));
/// assert_eq!((&object["kind"], &object["key"], &object["value"]), (&"set".into(), &"theme".into(), &"dark".into()));
/// # Ok::<(), watchkeep::Error>(())
/// ```
pub fn event(event: &Event, cursor: Cursor) -> Json {
    let mut object = Map::new();
    object.insert("revision".into(), event.revision().get().into());
    object.insert("cursor".into(), cursor.to_string().into());
    object.insert("kind".into(), event.kind().as_str().into());
    object.insert("group".into(), event.group().into());
    if let Some(key) = event.key() {
        object.insert("key".into(), key.into());
    }
    if let Some(value) = event.value() {
        insert_value(&mut object, "value", value);
    }
    object.insert("timestamp".into(), timestamp(event.timestamp()).into());
    object.insert("origin".into(), event.origin().into());
    object.insert("commit".into(), event.commit().get().into());
    if let Some(deadline) = event.deadline() {
        object.insert("deadline".into(), timestamp(deadline).into());
    }
    if let Some(content_type) = event.content_type() {
        object.insert("content_type".into(), content_type.into());
    }
    if let Some(previous) = event.previous_revision() {
        object.insert("previous_revision".into(), previous.get().into());
    }
    if let Some(previous) = event.previous_value() {
        insert_value(&mut object, "previous_value", previous);
    }
    if event.is_snapshot() {
        object.insert("snapshot".into(), true.into());
    }
    Json::Object(object)
}

/// An event or a mark as a JSON object; marks are `{"kind":"ready","revision":9}`, `progress`, and `lagged` with
/// `from` and `to`.
pub fn item(item: &Item, store: &Store) -> Json {
    let mark = |kind: &str, revision: Revision| json!({ "kind": kind, "revision": revision.get(), "cursor": store.cursor(revision).to_string() });
    match item {
        Item::Event(change) => event(change, store.cursor(change.revision())),
        Item::Ready(at) => mark("ready", *at),
        Item::Progress(at) => mark("progress", *at),
        Item::Lagged(Lagged { from, to }) => {
            let mut object = mark("lagged", *to);
            if let Json::Object(object) = &mut object {
                object.insert("from".into(), from.get().into());
                object.insert("to".into(), to.get().into());
            }
            object
        }
    }
}

/// What is known about a key and the cursor of its revision, as a JSON object with the fields of `watchkeep list --json`.
///
/// ```
/// use watchkeep::{ListOptions, Store, json};
/// let store = Store::open_in_memory()?;
/// store.set("config", "theme", "dark")?;
/// let page = store.keys_page("config", ListOptions::new())?;
/// assert_eq!(json::key(&page.keys[0], store.cursor(page.keys[0].revision))["bytes"], 4);
/// # Ok::<(), watchkeep::Error>(())
/// ```
pub fn key(key: &KeyInfo, cursor: Cursor) -> Json {
    json!({
        "key": key.key,
        "bytes": key.bytes,
        "revision": key.revision.get(),
        "cursor": cursor.to_string(),
        "created": key.created.get(),
        "updated": timestamp(key.updated),
        "deadline": key.deadline.map(timestamp),
        "content_type": key.content_type,
    })
}

/// Counts and sizes as a JSON object: what `watchkeep stats --json` prints.
///
/// ```
/// use watchkeep::{Store, json};
/// let store = Store::open_in_memory()?;
/// store.set("config", "theme", "dark")?;
/// assert_eq!(json::stats(&store.stats()?)["entries"], 1);
/// # Ok::<(), watchkeep::Error>(())
/// ```
pub fn stats(stats: &Stats) -> Json {
    json!({
        "store": stats.store.as_str(),
        "path": stats.path.as_ref().map(|path| path.to_string_lossy()),
        "address": stats.address,
        "server": stats.server,
        "namespace": stats.namespace,
        "durability": stats.durability.as_str(),
        "entries": stats.entries,
        "groups": stats.groups,
        "bytes": stats.bytes,
        "quota": stats.quota.as_ref().map(quota),
        "first_revision": stats.first_revision.get(),
        "last_revision": stats.last_revision.get(),
        "log_events": stats.log_events,
        "log_bytes": stats.log_bytes,
        "waking": stats.waking.as_str(),
        "next_deadline": stats.next_deadline.map(timestamp),
        "consumers": stats.consumers.iter().map(consumer).collect::<Vec<_>>(),
        "watchers": stats.watchers,
        "callbacks": stats.callbacks,
        "file_bytes": stats.file_bytes,
        "wal_bytes": stats.wal_bytes,
        "sqlite_version": stats.sqlite_version,
    })
}

/// A quota as a JSON object: what `watchkeep quota --json` prints. Zero is no limit.
///
/// ```
/// use watchkeep::{Quota, json};
/// assert_eq!(json::quota(&Quota { max_keys: 7, ..Quota::default() })["max_keys"], 7);
/// ```
pub fn quota(quota: &Quota) -> Json {
    json!({
        "max_keys": quota.max_keys,
        "max_groups": quota.max_groups,
        "max_bytes": quota.max_bytes,
    })
}

/// A retention as a JSON object: what `watchkeep retention --json` prints. `null` is no limit, and ages are milliseconds.
///
/// ```
/// use watchkeep::{Retention, json};
/// let kept = json::retention(&Retention::events(7));
/// assert_eq!((&kept["max_events"], &kept["max_age_ms"]), (&7.into(), &serde_json::Value::Null));
/// ```
pub fn retention(retention: &Retention) -> Json {
    let number = |number| Some(number).filter(|number| *number != u64::MAX);
    let age = |age: Duration| number(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    json!({
        "max_events": number(retention.max_events),
        "max_age_ms": age(retention.max_age),
        "max_bytes": number(retention.max_bytes),
        "min_events": retention.min_events,
        "consumer_age_ms": age(retention.consumer_age),
        "consumer_bytes": number(retention.consumer_bytes),
    })
}

/// A named consumer as a JSON object: what `watchkeep consumers --json` prints in a line.
pub fn consumer(consumer: &ConsumerInfo) -> Json {
    json!({
        "name": consumer.name,
        "filter": consumer.filter.to_string(),
        "acked": consumer.acked.map(Revision::get),
        "acked_at": consumer.acked_at.map(timestamp),
        "created": timestamp(consumer.created),
        "fence": consumer.fence,
        "holder": consumer.holder.as_ref().map(|holder| &holder.label),
        "held": consumer.holder.as_ref().is_some_and(|holder| holder.is_alive),
        "lease_until": consumer.holder.as_ref().map(|holder| timestamp(holder.until)),
        "lag_events": consumer.lag_events,
        "lag_bytes": consumer.lag_bytes,
        "oldest_unacked": consumer.oldest_unacked.map(timestamp),
        "lost": consumer.lost.map(|lost| json!({ "from": lost.from.get(), "to": lost.to.get() })),
    })
}

/// Adds a value under `name` where it is UTF-8, otherwise under `name_base64`.
pub fn insert_value(object: &mut Map<String, Json>, name: &str, value: &Value) {
    match value.as_str() {
        Some(text) => object.insert(name.to_owned(), text.into()),
        None => object.insert(format!("{name}_base64"), BASE64_STANDARD.encode(value).into()),
    };
}

impl Store {
    /// A value that was written as JSON, if it is there.
    ///
    /// # Errors
    ///
    /// As [`get`](Store::get), and `Json` when it does not fit the type.
    pub fn get_json<T: DeserializeOwned>(&self, group: &str, key: &str) -> Result<Option<T>> {
        let Some(value) = self.get(group, key)? else { return Ok(None) };
        serde_json::from_slice(&value)
            .map(Some)
            .map_err(|cause| Reason::Json { group: group.to_owned(), key: key.to_owned(), cause }.into())
    }

    /// Writes a value as JSON, with the content type `application/json`.
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use watchkeep::Store;
    /// #[derive(Debug, PartialEq, Serialize, Deserialize)]
    /// struct Window { width: u32, height: u32 }
    /// let store = Store::open_in_memory()?;
    /// store.set_json("ui", "window", &Window { width: 800, height: 600 })?;
    /// assert_eq!(store.get_json("ui", "window")?, Some(Window { width: 800, height: 600 }));
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`set`](Store::set), and `Json` when it cannot be written as JSON.
    pub fn set_json<T: Serialize + ?Sized>(&self, group: &str, key: &str, value: &T) -> Result<Revision> {
        let json = serde_json::to_vec(value).map_err(|cause| Reason::Json {
            group: group.to_owned(),
            key: key.to_owned(),
            cause,
        })?;
        let options = crate::SetOptions::new().content_type("application/json");
        self.set_with(group, key, json, options)
    }
}
