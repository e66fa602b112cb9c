//! Limits of a namespace.

use std::fmt;

/// What a namespace may hold; zero means unlimited.
///
/// It is stored with the namespace, see [`Store::set_quota`](crate::Store::set_quota). The size of an entry is the
/// length of its key plus the length of its value, in bytes.
///
/// ```
/// use watchkeep::{ErrorKind, Quota, Store};
/// let store = Store::open_in_memory()?;
/// let tenant = store.scoped("tenant-42")?.with_quota(Quota { max_keys: 1, ..Quota::default() })?;
/// tenant.set("config", "theme", "dark")?;
/// tenant.set("config", "theme", "light")?;
/// assert_eq!(tenant.set("config", "size", "12").unwrap_err().kind(), ErrorKind::QuotaExceeded);
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// How many keys, in all groups together.
    pub max_keys: u64,
    /// How many groups.
    pub max_groups: u64,
    /// How many bytes of keys and values.
    pub max_bytes: u64,
}

/// What a namespace holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) keys: u64,
    pub(crate) groups: u64,
    pub(crate) bytes: u64,
}

/// Which of the limits of a [`Quota`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuotaLimit {
    /// `max_keys`
    Keys,
    /// `max_groups`
    Groups,
    /// `max_bytes`
    Bytes,
}

/// A write that a quota refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaExceeded {
    /// The namespace.
    pub namespace: String,
    /// Which limit.
    pub limit: QuotaLimit,
    /// The limit's amount.
    pub allowed: u64,
    /// What the namespace would have held.
    pub wanted: u64,
}

impl fmt::Display for QuotaExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.limit {
            QuotaLimit::Keys => "keys",
            QuotaLimit::Groups => "groups",
            QuotaLimit::Bytes => "bytes",
        };
        write!(
            f,
            "the namespace {:?} may hold {} {unit}, this write needs {}; delete something, or raise the quota",
            self.namespace, self.allowed, self.wanted
        )
    }
}

impl Usage {
    pub(crate) fn plus(self, keys: i64, groups: i64, bytes: i64) -> Usage {
        Usage {
            keys: self.keys.saturating_add_signed(keys),
            groups: self.groups.saturating_add_signed(groups),
            bytes: self.bytes.saturating_add_signed(bytes),
        }
    }
}

impl Quota {
    /// Whether it limits anything.
    pub(crate) fn limits(&self) -> bool {
        *self != Quota::default()
    }

    /// What of the quota a namespace would exceed when it goes from `before` to `after`. A write that takes no
    /// more of something than before is never refused for it.
    pub(crate) fn exceeded(&self, namespace: &str, before: Usage, after: Usage) -> Option<QuotaExceeded> {
        let limits = [
            (QuotaLimit::Keys, self.max_keys, before.keys, after.keys),
            (QuotaLimit::Groups, self.max_groups, before.groups, after.groups),
            (QuotaLimit::Bytes, self.max_bytes, before.bytes, after.bytes),
        ];
        let over = |&(_, allowed, before, after): &(_, u64, u64, u64)| {
            allowed > 0 && after > allowed && after > before
        };
        limits.into_iter().find(over).map(|(limit, allowed, _, wanted)| QuotaExceeded {
            namespace: namespace.to_owned(),
            limit,
            allowed,
            wanted,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_unlimited_and_what_shrinks_is_never_refused() {
        let usage = |keys, bytes| Usage { keys, groups: 1, bytes };
        let quota = Quota { max_keys: 2, max_groups: 0, max_bytes: 10 };
        assert_eq!(quota.exceeded("n", usage(1, 5), usage(2, 10)), None);
        assert_eq!(
            quota.exceeded("n", usage(2, 5), usage(3, 6)).map(|over| over.limit),
            Some(QuotaLimit::Keys)
        );
        assert_eq!(quota.exceeded("n", usage(9, 50), usage(9, 40)), None);
        assert_eq!(quota.exceeded("n", usage(1, 5), usage(1, 11)).map(|over| over.wanted), Some(11));
        assert_eq!(Quota::default().exceeded("n", usage(0, 0), usage(u64::MAX, u64::MAX)), None);
    }
}
