//! Events: what a watcher sees.

use std::fmt;
use std::sync::Arc;

use super::clock::Timestamp;
use super::revision::{Cursor, Revision};
use super::value::Value;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// An entry was written.
    Set,
    /// An entry was deleted.
    Delete,
    /// A group was deleted with all its entries.
    DeleteGroup,
    /// An entry's deadline came.
    Expire,
    /// An entry's deadline was changed, its value not. Delivered only when asked for.
    Touch,
    /// Something that this release does not know, in a file that a newer one wrote. No filter lets it through.
    Other,
}

impl Kind {
    /// All kinds that this release knows.
    pub const ALL: [Kind; 5] = [Kind::Set, Kind::Delete, Kind::DeleteGroup, Kind::Expire, Kind::Touch];

    /// The kind's name: `set`, `delete`, `delete_group`, `expire`, `touch`, and `other`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Set => "set",
            Kind::Delete => "delete",
            Kind::DeleteGroup => "delete_group",
            Kind::Expire => "expire",
            Kind::Touch => "touch",
            Kind::Other => "other",
        }
    }

    /// The kind's number in the file, where a known one stands.
    pub(crate) const fn code(self) -> i64 {
        match self {
            Kind::Set => 1,
            Kind::Delete => 2,
            Kind::DeleteGroup => 3,
            Kind::Expire => 4,
            Kind::Touch => 5,
            Kind::Other => 0,
        }
    }

    pub(crate) fn from_code(code: i64) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One row of the change log, under the names that stand in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) revision: Revision,
    pub(crate) commit: Revision,
    pub(crate) kind: Kind,
    pub(crate) group: Box<str>,
    pub(crate) key: Option<Box<str>>,
    pub(crate) value: Option<Value>,
    pub(crate) content_type: Option<Box<str>>,
    pub(crate) deadline: Option<Timestamp>,
    /// The revision of the value that was there before.
    pub(crate) previous: Option<Revision>,
    pub(crate) origin: Option<Arc<str>>,
    pub(crate) timestamp: Timestamp,
}

impl Change {
    /// A set of one key at a revision, for tests.
    #[cfg(test)]
    pub(crate) fn sample(revision: Revision) -> Change {
        Change {
            revision,
            commit: revision,
            kind: Kind::Set,
            group: "g".into(),
            key: Some("k".into()),
            value: None,
            content_type: None,
            deadline: None,
            previous: None,
            origin: None,
            timestamp: Timestamp::default(),
        }
    }

    /// What it weighs in a log: names, content type and value, in bytes.
    pub(crate) fn payload(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        let names = self.group.len() + text(&self.key) + text(&self.content_type);
        names + self.value.as_ref().map_or(0, |value| value.len())
    }

    /// What it weighs in a buffer, in bytes.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Change>() + self.payload()
    }

    /// The same change without its value, for a reader that wants keys only.
    pub(crate) fn without_value(&self) -> Change {
        Change { value: None, ..self.clone() }
    }
}

/// One change of the store, as a cheap handle.
///
/// ```
/// use watchkeep::{Kind, Store};
/// let store = Store::open_in_memory()?;
/// let mut watcher = store.watch("config", "*");
/// store.set("config", "theme", "dark")?;
/// let event = watcher.recv().unwrap()?;
/// assert_eq!((event.kind(), event.group(), event.key()), (Kind::Set, "config", Some("theme")));
/// assert_eq!(event.value().unwrap(), "dark");
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Clone)]
pub struct Event {
    change: Arc<Change>,
    /// How much of the group's name belongs to the namespace that the reader is scoped to.
    scope: u16,
    snapshot: bool,
    previous_value: Option<Box<Value>>,
}

impl Event {
    pub(crate) fn new(change: Arc<Change>, scope: u16) -> Event {
        Event { change, scope, snapshot: false, previous_value: None }
    }

    pub(crate) fn in_snapshot(self) -> Event {
        Event { snapshot: true, ..self }
    }

    pub(crate) fn with_previous_value(self, value: Value) -> Event {
        Event { previous_value: Some(Box::new(value)), ..self }
    }

    pub(crate) fn change(&self) -> &Arc<Change> {
        &self.change
    }

    /// What happened.
    pub fn kind(&self) -> Kind {
        self.change.kind
    }

    /// The group, without the namespace that the reader is scoped to.
    pub fn group(&self) -> &str {
        self.change.group.get(usize::from(self.scope)..).unwrap_or_default()
    }

    /// The key; none for [`Kind::DeleteGroup`].
    pub fn key(&self) -> Option<&str> {
        self.change.key.as_deref()
    }

    /// The new value of a [`Kind::Set`], the last value of a [`Kind::Expire`]; none otherwise, and none when the
    /// reader asked for keys only.
    pub fn value(&self) -> Option<&Value> {
        self.change.value.as_ref()
    }

    /// The event's number.
    pub fn revision(&self) -> Revision {
        self.change.revision
    }

    /// The revision of the last event of the same transaction. In a snapshot, the event's own revision.
    pub fn commit(&self) -> Revision {
        self.change.commit
    }

    /// When it was committed, by the writer's clock.
    pub fn timestamp(&self) -> Timestamp {
        self.change.timestamp
    }

    /// The label of the handle that wrote it.
    pub fn origin(&self) -> Option<&str> {
        self.change.origin.as_deref()
    }

    /// When the entry expires, or did.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.change.deadline
    }

    /// The content type that was given with the value.
    pub fn content_type(&self) -> Option<&str> {
        self.change.content_type.as_deref()
    }

    /// The revision of the value that this event replaced or removed; none when there was none.
    pub fn previous_revision(&self) -> Option<Revision> {
        self.change.previous
    }

    /// The value that this event replaced or removed: only when the watcher asked for it, and only while the log
    /// still holds it.
    pub fn previous_value(&self) -> Option<&Value> {
        self.previous_value.as_deref()
    }

    /// Whether this is part of the state that a watcher began with, before its [`Item::Ready`].
    pub fn is_snapshot(&self) -> bool {
        self.snapshot
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("revision", &self.revision().get())
            .field("commit", &self.commit().get())
            .field("kind", &self.kind())
            .field("group", &self.group())
            .field("key", &self.key())
            .field("value", &self.value())
            .field("origin", &self.origin())
            .field("snapshot", &self.snapshot)
            .finish_non_exhaustive()
    }
}

/// Some events of the change log, and where to go on; see [`Store::changes`](crate::Store::changes).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ChangePage {
    /// What matches among the rows that were looked at, in the order of the log.
    pub events: Vec<Event>,
    /// The position to go on from: the last row that was looked at, whether or not it matched.
    pub next: Cursor,
    /// The oldest position that a page may begin at.
    pub floor: Cursor,
    /// The end of the log: when `next` is the same, there is no more by now.
    pub end: Cursor,
}

/// Events that retention trimmed before the reader came to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lagged {
    /// The first lost revision.
    pub from: Revision,
    /// The last lost revision.
    pub to: Revision,
}

/// An event, or a mark between events.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Item {
    /// A change, or an entry of the snapshot that the watch began with.
    Event(Event),
    /// The snapshot is complete: all that came before, folded, is the state at this revision.
    Ready(Revision),
    /// The watcher has seen everything up to this revision.
    Progress(Revision),
    /// These revisions are lost to this watcher; it goes on after them. Before `Ready` it means that the
    /// snapshot begins again: forget what came of it.
    Lagged(Lagged),
}

impl Item {
    /// The event, if it is one.
    pub fn event(&self) -> Option<&Event> {
        match self {
            Item::Event(event) => Some(event),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_stays_small() {
        assert!(size_of::<Event>() <= 24, "{}", size_of::<Event>());
        for kind in Kind::ALL {
            assert_eq!(Kind::from_code(kind.code()), Some(kind));
        }
        assert_eq!((Kind::from_code(0), Kind::from_code(6)), (None, None));
    }
}
