//! The channel of the original, go-store: what it publishes on its WebSocket hub as `store-events`, in that hub's form.
//!
//! A client of the original's knows channels and no ids, so its messages have none. It is told everything from now on:
//! its five fields have no room for a cursor.

use axum::extract::ws::Utf8Bytes;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::problem::Problem;
use crate::subscription::Told;

/// The one channel that there is.
pub(super) const CHANNEL: &str = "store-events";

/// What a client of the original's may say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Original {
    Subscribe,
    Unsubscribe,
    Ping,
    /// A channel that is not there.
    Unknown(String),
}

/// Whether a message without an id is one of the original's. It names the channel as `channel`, or as `data`.
pub(super) fn read(kind: &str, channel: Option<&str>) -> Option<Original> {
    Some(match (kind, channel) {
        ("ping", _) => Original::Ping,
        ("subscribe", Some(CHANNEL)) => Original::Subscribe,
        ("unsubscribe", Some(CHANNEL)) => Original::Unsubscribe,
        ("subscribe" | "unsubscribe", Some(other)) => Original::Unknown(other.to_owned()),
        _ => return None,
    })
}

/// What is told on the channel; the original has no marks, but for its `error`.
pub(super) fn of(told: &Told) -> Option<Utf8Bytes> {
    Some(match told {
        Told::Change { change, values, .. } => event(&change.json(*values))?,
        Told::Lagged(lost, _) => {
            error(&format!("the events {} to {} were trimmed before they could be told", lost.from, lost.to))
        }
        Told::Trouble(problem) => refusal(problem),
        Told::Bye(reason) => error(&format!("the channel ends: {reason}; come back")),
        Told::Reset(_) | Told::Ready(_) | Told::Heartbeat(_) => return None,
    })
}

/// The original's event, from the object of ours. The fields bear the names that Go gives them.
fn event(object: &Bytes) -> Option<Utf8Bytes> {
    let event: Value = serde_json::from_slice(object).ok()?;
    let text = |name: &str| event.get(name).and_then(Value::as_str);
    let (number, value) = match text("kind")? {
        "set" => (0, value(&event)),
        "delete_group" => (2, String::new()),
        // The original does not tell that a key expired. It is gone all the same.
        "delete" | "expire" => (1, String::new()),
        _ => return None,
    };
    let time = text("timestamp").unwrap_or_default();
    let data = json!({
        "Type": number,
        "Group": text("group").unwrap_or_default(),
        "Key": text("key").unwrap_or_default(),
        "Value": value,
        "Timestamp": time,
    });
    let message = json!({ "type": "event", "channel": CHANNEL, "data": data, "timestamp": time });
    Some(message.to_string().into())
}

/// Values are texts there; what is no UTF-8 gets the replacement character, as from Go.
fn value(event: &Value) -> String {
    let text = |name: &str| event.get(name).and_then(Value::as_str);
    let encoded = || BASE64_STANDARD.decode(text("value_base64")?).ok();
    match text("value") {
        Some(text) => text.to_owned(),
        None => String::from_utf8_lossy(&encoded().unwrap_or_default()).into_owned(),
    }
}

pub(super) fn refusal(problem: &Problem) -> Utf8Bytes {
    error(problem.detail())
}

fn error(detail: &str) -> Utf8Bytes {
    json!({ "type": "error", "channel": CHANNEL, "data": detail, "timestamp": now() }).to_string().into()
}

pub(super) fn pong() -> Utf8Bytes {
    json!({ "type": "pong", "timestamp": now() }).to_string().into()
}

fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}
