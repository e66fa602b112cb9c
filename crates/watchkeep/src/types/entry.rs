//! Entries, and how they are listed.

use std::time::Duration;

use super::clock::Timestamp;
use super::revision::Revision;
use super::value::Value;

/// An entry: a value with its key, revisions and deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Value,
    /// The revision of the value.
    pub revision: Revision,
    /// The revision at which the key came to be.
    pub created: Revision,
    /// When the value was written.
    pub updated: Timestamp,
    /// When the entry expires, if it does.
    pub deadline: Option<Timestamp>,
    /// The content type that was given with the value.
    pub content_type: Option<String>,
}

impl Entry {
    /// How long the entry has left at this time; none when it does not expire.
    pub fn remaining(&self, now: Timestamp) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.since(now))
    }
}

/// What is known about an entry without reading its value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyInfo {
    /// The key.
    pub key: String,
    /// The size of the value, in bytes.
    pub bytes: u64,
    /// The revision of the value.
    pub revision: Revision,
    /// The revision at which the key came to be.
    pub created: Revision,
    /// When the value was written.
    pub updated: Timestamp,
    /// When the entry expires, if it does.
    pub deadline: Option<Timestamp>,
    /// The content type that was given with the value.
    pub content_type: Option<String>,
}

impl From<&Entry> for KeyInfo {
    fn from(entry: &Entry) -> KeyInfo {
        KeyInfo {
            key: entry.key.clone(),
            bytes: entry.value.len() as u64,
            revision: entry.revision,
            created: entry.created,
            updated: entry.updated,
            deadline: entry.deadline,
            content_type: entry.content_type.clone(),
        }
    }
}

/// Which entries of a group to list, in the order of their keys.
///
/// ```
/// use watchkeep::{ListOptions, Store};
/// let store = Store::open_in_memory()?;
/// for key in ["a1", "a2", "a3", "b1"] {
///     store.set("letters", key, key)?;
/// }
/// let first = store.page("letters", ListOptions::new().prefix("a").limit(2))?;
/// assert_eq!(first.entries.len(), 2);
/// let rest = store.page("letters", ListOptions::new().prefix("a").after(first.next.unwrap()))?;
/// assert_eq!(rest.entries[0].key, "a3");
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ListOptions {
    pub(crate) prefix: String,
    pub(crate) after: Option<String>,
    pub(crate) limit: Option<usize>,
}

impl ListOptions {
    /// Everything.
    pub fn new() -> ListOptions {
        ListOptions::default()
    }

    /// Only keys that start so.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> ListOptions {
        self.prefix = prefix.into();
        self
    }

    /// Only keys after this one.
    #[must_use]
    pub fn after(mut self, key: impl Into<String>) -> ListOptions {
        self.after = Some(key.into());
        self
    }

    /// At the most so many. A page holds at most 256 entries or 1 MiB of them, whatever the limit.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> ListOptions {
        self.limit = Some(limit);
        self
    }
}

/// Some entries of a group, all read at one moment, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The entries, in the order of their keys.
    pub entries: Vec<Entry>,
    /// The key after which to go on; none at the end.
    pub next: Option<String>,
    /// The revision that the page was read at.
    pub revision: Revision,
}

/// Some keys of a group, all read at one moment, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyPage {
    /// The keys, in byte order.
    pub keys: Vec<KeyInfo>,
    /// The key after which to go on; none at the end.
    pub next: Option<String>,
    /// The revision that the page was read at.
    pub revision: Revision,
}

/// Some names of groups, all read at one moment, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupPage {
    /// The names, in byte order.
    pub groups: Vec<String>,
    /// The name after which to go on; none at the end.
    pub next: Option<String>,
    /// The revision that the page was read at.
    pub revision: Revision,
}
