//! What somebody may do, and where.

use std::fmt;

use watchkeep::Timestamp;

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    Read,
    Write,
    Watch,
    Inspect,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Right::Read => "read",
            Right::Write => "write",
            Right::Watch => "watch",
            Right::Inspect => "inspect",
        })
    }
}

/// What somebody may do.
///
/// ```
/// use watchkeep_server::Rights;
/// let rights = Rights { read: true, watch: true, ..Rights::NONE };
/// assert_eq!(rights.to_string(), "read, watch");
/// assert!(Rights::NONE.is_none() && !Rights::ALL.is_none());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rights {
    /// Entries, lists, and pages of the change log.
    pub read: bool,
    /// Setting, touching and deleting.
    pub write: bool,
    /// Streams of changes, with the values that they bear and the snapshots that they begin with.
    pub watch: bool,
    /// Counts and sizes.
    pub inspect: bool,
}

impl Rights {
    /// None of them.
    pub const NONE: Rights = Rights { read: false, write: false, watch: false, inspect: false };
    /// All of them.
    pub const ALL: Rights = Rights { read: true, write: true, watch: true, inspect: true };

    /// Whether nothing is allowed.
    pub fn is_none(self) -> bool {
        self == Rights::NONE
    }

    /// Their names.
    pub fn names(self) -> Vec<&'static str> {
        let named =
            [("read", self.read), ("write", self.write), ("watch", self.watch), ("inspect", self.inspect)];
        named.into_iter().filter_map(|(name, is_given)| is_given.then_some(name)).collect()
    }

    pub(crate) fn have(self, right: Right) -> bool {
        match right {
            Right::Read => self.read,
            Right::Write => self.write,
            Right::Watch => self.watch,
            Right::Inspect => self.inspect,
        }
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(", "))
    }
}

/// Who asks, where an application knows it: it puts this into a request's extensions.
///
/// ```
/// use watchkeep_server::{Principal, Rights};
/// let tenant = Principal {
///     namespace: Some("tenant-42".to_owned()),
///     rights: Rights { read: true, watch: true, ..Rights::NONE },
///     until: None,
/// };
/// # drop(tenant);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The namespace that it is confined to; none for the whole store.
    pub namespace: Option<String>,
    /// What it may do.
    pub rights: Rights,
    /// When it ends, and its streams with it; none for never.
    pub until: Option<Timestamp>,
}
