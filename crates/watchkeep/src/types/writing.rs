//! How a write is made: conditions, time to live, content type.

use std::time::Duration;

use super::clock::Timestamp;
use super::revision::Revision;

/// What an entry must be for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The key is not there.
    Absent,
    /// It is there.
    Present,
    /// The entry has this revision.
    At(Revision),
}

impl Expected {
    pub(crate) fn holds(self, current: Option<Revision>) -> bool {
        match self {
            Expected::Absent => current.is_none(),
            Expected::Present => current.is_some(),
            Expected::At(revision) => current == Some(revision),
        }
    }
}

/// What a write does to the entry's deadline.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ttl {
    #[default]
    Clear,
    Keep,
    For(Duration),
    Until(Timestamp),
}

/// How [`Store::set_with`](crate::Store::set_with) writes.
///
/// ```
/// use std::time::Duration;
/// use watchkeep::{SetOptions, Store};
/// let store = Store::open_in_memory()?;
/// let hour = SetOptions::new().ttl(Duration::from_secs(3600));
/// let revision = store.set_with("session", "token", "abc", hour.if_absent())?;
/// store.set_with("session", "token", "def", SetOptions::new().keep_ttl().if_revision(revision))?;
/// assert!(store.remaining_ttl("session", "token")?.is_some());
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SetOptions {
    pub(crate) expected: Option<Expected>,
    pub(crate) ttl: Ttl,
    pub(crate) content_type: Option<String>,
}

impl SetOptions {
    /// Unconditional, without a deadline.
    pub fn new() -> SetOptions {
        SetOptions::default()
    }

    /// The entry expires after this time, from 1 ms to the year 9999.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> SetOptions {
        self.ttl = Ttl::For(ttl);
        self
    }

    /// The entry expires at this time, which must lie ahead, up to the year 9999.
    #[must_use]
    pub fn expires_at(mut self, deadline: Timestamp) -> SetOptions {
        self.ttl = Ttl::Until(deadline);
        self
    }

    /// The entry keeps the deadline that it has.
    #[must_use]
    pub fn keep_ttl(mut self) -> SetOptions {
        self.ttl = Ttl::Keep;
        self
    }

    /// Only when the key is not there.
    #[must_use]
    pub fn if_absent(mut self) -> SetOptions {
        self.expected = Some(Expected::Absent);
        self
    }

    /// Only when the entry has this revision.
    #[must_use]
    pub fn if_revision(mut self, revision: Revision) -> SetOptions {
        self.expected = Some(Expected::At(revision));
        self
    }

    /// A content type to keep with the value, at most [`MAX_CONTENT_TYPE`](crate::MAX_CONTENT_TYPE) bytes.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> SetOptions {
        self.content_type = Some(content_type.into());
        self
    }
}

/// How [`Store::delete_with`](crate::Store::delete_with) deletes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct DeleteOptions {
    pub(crate) expected: Option<Expected>,
}

impl DeleteOptions {
    /// Unconditional.
    pub fn new() -> DeleteOptions {
        DeleteOptions::default()
    }

    /// Only when the entry has this revision.
    #[must_use]
    pub fn if_revision(mut self, revision: Revision) -> DeleteOptions {
        self.expected = Some(Expected::At(revision));
        self
    }
}
