//! What the server says: one JSON object a message, with the client's id.

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::change::{Change, Values};
use crate::gate::Position;
use crate::problem::Problem;
use crate::subscription::Told;

/// What a subscription is told.
pub(super) fn of(id: &str, told: &Told) -> Option<Utf8Bytes> {
    Some(match told {
        Told::Change { change, with_id, values } => return self::change(id, change, *with_id, *values),
        Told::Reset(reason) => mark("reset", id, json!({ "reason": reason })),
        Told::Ready(at) => mark("ready", id, json!({ "cursor": at.to_string() })),
        Told::Lagged(lost, at) => {
            let data = json!({ "cursor": at.to_string(), "from": lost.from.get(), "to": lost.to.get() });
            mark("lagged", id, data)
        }
        Told::Heartbeat(Some(at)) => mark("heartbeat", id, json!({ "cursor": at.to_string() })),
        Told::Heartbeat(None) => mark("heartbeat", id, json!({})),
        Told::Trouble(problem) => mark("trouble", id, refusal(problem)),
        Told::Bye(reason) => mark("bye", id, json!({ "reason": reason })),
    })
}

/// A change: its object is encoded already, and goes out as it is.
fn change(id: &str, change: &Change, with_id: bool, values: Values) -> Option<Utf8Bytes> {
    let mut head = json!({ "type": "change", "id": id });
    if let (true, Value::Object(head)) = (with_id, &mut head) {
        head.insert("cursor".to_owned(), change.at().to_string().into());
    }
    let json = change.json(values);
    let mut message = head.to_string().into_bytes();
    message.pop();
    message.reserve(json.len() + 16);
    message.extend_from_slice(b",\"event\":");
    message.extend_from_slice(&json);
    message.push(b'}');
    Utf8Bytes::try_from(Bytes::from(message)).ok()
}

/// A request is done; a write says where the store stands after it.
pub(super) fn done(id: &str, at: Option<&Position>) -> Utf8Bytes {
    match at {
        Some(at) => mark("done", id, json!({ "cursor": at.to_string() })),
        None => mark("done", id, json!({})),
    }
}

/// A message is refused.
pub(super) fn error(id: Option<&str>, problem: &Problem) -> Utf8Bytes {
    message("error", id, refusal(problem))
}

fn refusal(problem: &Problem) -> Value {
    let mut refusal = Map::new();
    refusal.insert("kind".to_owned(), problem.kind().into());
    refusal.insert("detail".to_owned(), problem.detail().into());
    if let Some((name, value)) = problem.also() {
        refusal.insert(name.to_owned(), value.clone());
    }
    refusal.into()
}

fn mark(name: &str, id: &str, data: Value) -> Utf8Bytes {
    message(name, Some(id), data)
}

fn message(name: &str, id: Option<&str>, data: Value) -> Utf8Bytes {
    let mut message = Map::new();
    message.insert("type".to_owned(), name.into());
    if let Some(id) = id {
        message.insert("id".to_owned(), id.into());
    }
    if let Value::Object(data) = data {
        message.extend(data);
    }
    Value::Object(message).to_string().into()
}
