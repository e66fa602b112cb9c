//! Frames of server-sent events, as the HTML standard defines the format ("9.2.6 Interpreting an event stream").

use bytes::Bytes;
use serde_json::{Value, json};
use watchkeep::{Event, Lagged, StoreId};

use crate::gate::Position;
use crate::limits::RETRY;

/// When to come back after the stream ended: each client at another time.
pub(crate) fn retry() -> Bytes {
    format!("retry: {}\n\n", fastrand::u64(RETRY)).into()
}

/// A change, unnamed. Before the snapshot is complete it has no id: a client that is cut off there begins again.
pub(crate) fn change(event: &Event, store: StoreId, at: Option<&Position>) -> Bytes {
    let data = watchkeep::json::event(event, store);
    match at {
        Some(at) => format!("id: {at}\ndata: {data}\n\n").into(),
        None => format!("data: {data}\n\n").into(),
    }
}

/// Keeps the bookmark of a client whose filter matches nothing.
pub(crate) fn heartbeat(at: &Position) -> Bytes {
    format!("id: {at}\n\n").into()
}

/// Keeps the connection of a client that has no bookmark yet.
pub(crate) fn comment() -> Bytes {
    Bytes::from_static(b":\n\n")
}

/// Whoever folds the stream empties what it holds: what follows is everything.
pub(crate) fn reset(reason: &str) -> Bytes {
    format!("event: reset\nid:\ndata: {}\n\n", json!({ "reason": reason })).into()
}

/// All that was there is told; from here on, changes.
pub(crate) fn ready(at: &Position) -> Bytes {
    mark("ready", at, &json!({ "cursor": at.to_string() }))
}

/// These revisions are lost to the client.
pub(crate) fn lagged(lost: &Lagged, at: &Position) -> Bytes {
    let data = json!({ "cursor": at.to_string(), "from": lost.from.get(), "to": lost.to.get() });
    mark("lagged", at, &data)
}

/// The server ends; the client comes back.
pub(crate) fn bye(reason: &str) -> Bytes {
    format!("retry: {}\nevent: bye\ndata: {}\n\n", fastrand::u64(RETRY), json!({ "reason": reason })).into()
}

/// The stream cannot go on now; the client comes back.
pub(crate) fn trouble(kind: &str, detail: &str) -> Bytes {
    let data = json!({ "kind": kind, "detail": detail });
    format!("retry: {}\nevent: trouble\ndata: {data}\n\n", fastrand::u64(RETRY)).into()
}

fn mark(name: &str, at: &Position, data: &Value) -> Bytes {
    format!("event: {name}\nid: {at}\ndata: {data}\n\n").into()
}
