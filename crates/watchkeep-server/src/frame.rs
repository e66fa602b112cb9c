//! Frames of server-sent events, as the HTML standard defines the format ("9.2.6 Interpreting an event stream").

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use crate::limits::RETRY;
use crate::subscription::Told;

/// When to come back after the stream ended: each client at another time.
pub(crate) fn retry() -> Bytes {
    format!("retry: {}\n\n", fastrand::u64(RETRY)).into()
}

/// The frame of what a client is told.
pub(crate) fn of(told: &Told) -> Bytes {
    match told {
        // Unnamed, so that `onmessage` gets it whatever its kind.
        Told::Change { change, with_id, values } => change.frame(*values, *with_id),
        // The empty id clears the bookmark: a client that is cut off before `ready` begins again.
        Told::Reset(reason) => mark("reset", Some(""), &json!({ "reason": reason })),
        Told::Ready(at) => {
            let at = at.to_string();
            mark("ready", Some(&at), &json!({ "cursor": at }))
        }
        Told::Lagged(lost, at) => {
            let at = at.to_string();
            let data = json!({ "cursor": at, "from": lost.from.get(), "to": lost.to.get() });
            mark("lagged", Some(&at), &data)
        }
        // An id alone moves the bookmark, and no handler of the page's runs.
        Told::Heartbeat(Some(at)) => format!("id: {at}\n\n").into(),
        Told::Heartbeat(None) => Bytes::from_static(b":\n\n"),
        Told::Trouble(problem) => {
            last("trouble", &json!({ "kind": problem.kind(), "detail": problem.detail() }))
        }
        Told::Bye(reason) => last("bye", &json!({ "reason": reason })),
    }
}

fn last(name: &str, data: &Value) -> Bytes {
    let mut frame = BytesMut::from(format!("retry: {}\n", fastrand::u64(RETRY)).as_bytes());
    frame.extend_from_slice(&mark(name, None, data));
    frame.freeze()
}

fn mark(name: &str, id: Option<&str>, data: &Value) -> Bytes {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: {name}\n{id}data: {data}\n\n").into()
}
