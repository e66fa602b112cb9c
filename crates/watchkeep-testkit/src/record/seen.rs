//! A change as plain values.

use watchkeep::{Event, Kind, Revision, Timestamp, Value};

/// A change: as a stream handed it out, or as the log holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The event's number.
    pub revision: Revision,
    /// The last revision of its transaction.
    pub commit: Revision,
    /// What happened.
    pub kind: Kind,
    /// The group, as the handle names it that the change was seen through.
    pub group: String,
    /// The key; none for a group's deletion.
    pub key: Option<String>,
    /// The value.
    pub value: Option<Value>,
    /// The content type.
    pub content_type: Option<String>,
    /// When the entry expires, or did.
    pub deadline: Option<Timestamp>,
    /// The revision of what was there before.
    pub previous: Option<Revision>,
    /// What was there before.
    pub previous_value: Option<Value>,
    /// The label of the handle that wrote it.
    pub origin: Option<String>,
    /// When it was written, by the writer's clock.
    pub timestamp: Timestamp,
    /// Whether it is part of the state that a stream began with.
    pub snapshot: bool,
}

impl Seen {
    /// Where it happened, to be shown.
    pub fn place(&self) -> String {
        match &self.key {
            Some(key) => format!("{:?}/{key:?}", self.group),
            None => format!("{:?}", self.group),
        }
    }
}

impl From<&Event> for Seen {
    fn from(event: &Event) -> Seen {
        Seen {
            revision: event.revision(),
            commit: event.commit(),
            kind: event.kind(),
            group: event.group().to_owned(),
            key: event.key().map(str::to_owned),
            value: event.value().cloned(),
            content_type: event.content_type().map(str::to_owned),
            deadline: event.deadline(),
            previous: event.previous_revision(),
            previous_value: event.previous_value().cloned(),
            origin: event.origin().map(str::to_owned),
            timestamp: event.timestamp(),
            snapshot: event.is_snapshot(),
        }
    }
}
