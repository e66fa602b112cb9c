//! What the messages of a server mean to a reader of the library's items.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value as Json;
use watchkeep::{Cursor, Kind, Lagged, Revision, Value};
use watchkeep_cli::time::parse_rfc3339;

use super::connection::Message;
use crate::record::Seen;

/// What the server says, read.
#[derive(Debug)]
pub(super) enum Said {
    Change(Box<Seen>),
    Ready(Revision),
    Lagged(Lagged),
    /// A snapshot follows, and what was told before is void.
    Reset,
    /// Where the reader stands.
    Heartbeat,
    /// It cannot go on now.
    Trouble,
    /// Its store is closed, and everything is told.
    Bye,
    /// Its server ends.
    Ending,
}

impl Message {
    /// Whether nothing follows it.
    pub(super) fn is_an_end(&self) -> bool {
        matches!(self.kind.as_str(), "trouble" | "bye")
    }

    pub(super) fn read(&self) -> Result<Said, String> {
        let bad = || format!("a message that cannot be read: {self:?}");
        let data = &self.data;
        let number = |name: &str| data.get(name).and_then(Json::as_u64).map(Revision::new).ok_or_else(bad);
        match self.kind.as_str() {
            "change" => {
                let seen = seen(data).ok_or_else(bad)?;
                match &self.at {
                    Some(at) if revision(at) != Some(seen.revision) => Err(bad()),
                    _ => Ok(Said::Change(Box::new(seen))),
                }
            }
            "ready" => {
                let at = data.get("cursor").and_then(Json::as_str).ok_or_else(bad)?;
                let told = self.at.as_deref() == Some(at);
                revision(at).filter(|_| told).map(Said::Ready).ok_or_else(bad)
            }
            "lagged" => Ok(Said::Lagged(Lagged { from: number("from")?, to: number("to")? })),
            "reset" => Ok(Said::Reset),
            "heartbeat" => Ok(Said::Heartbeat),
            "trouble" => Ok(Said::Trouble),
            "bye" if data.get("reason").and_then(Json::as_str) == Some("ending") => Ok(Said::Ending),
            "bye" => Ok(Said::Bye),
            _ => Err(bad()),
        }
    }
}

pub(super) fn revision(cursor: &str) -> Option<Revision> {
    Some(cursor.parse::<Cursor>().ok()?.revision())
}

/// An event, read back from its object.
fn seen(data: &Json) -> Option<Seen> {
    let text = |name: &str| data.get(name).and_then(Json::as_str);
    let number = |name: &str| data.get(name).and_then(Json::as_u64).map(Revision::new);
    let time = |name: &str| text(name).and_then(|time| parse_rfc3339(time).ok());
    let value = match text("value_base64") {
        Some(encoded) => Some(Value::from(BASE64_STANDARD.decode(encoded).ok()?)),
        None => text("value").map(Value::from),
    };
    let kind = text("kind")?;
    Some(Seen {
        revision: number("revision")?,
        commit: number("commit")?,
        kind: Kind::ALL.into_iter().find(|known| known.as_str() == kind)?,
        group: text("group")?.to_owned(),
        key: text("key").map(str::to_owned),
        value,
        content_type: text("content_type").map(str::to_owned),
        deadline: time("deadline"),
        previous: number("previous_revision"),
        previous_value: None,
        origin: text("origin").map(str::to_owned),
        timestamp: time("timestamp")?,
        snapshot: data.get("snapshot").is_some(),
    })
}
