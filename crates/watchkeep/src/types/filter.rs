//! Filters: which events a watcher wants.

use std::fmt;

use super::event::{Change, Event, Kind};

/// Which events a watcher wants.
///
/// A filter on keys (`key`, `key_prefix`, `key_name`) includes the deletion of their group, since that removes
/// them too; [`without_group_deletions`](Filter::without_group_deletions) leaves it out, as the original does.
/// [`Kind::Touch`] is delivered only when [`kinds`](Filter::kinds) names it.
///
/// ```
/// use watchkeep::{Filter, Kind, Store, WatchOptions};
/// let store = Store::open_in_memory()?;
/// let gone = Filter::group_prefix("session").kinds([Kind::Delete, Kind::DeleteGroup, Kind::Expire]);
/// let mut watcher = store.watch_with(gone, WatchOptions::new())?;
/// store.set("session-7", "token", "abc")?;
/// store.delete("session-7", "token")?;
/// assert_eq!(watcher.recv().unwrap()?.kind(), Kind::Delete);
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    pub(crate) target: Target,
    /// A bit for each kind: 1 set, 2 delete, 4 delete_group, 8 expire, 16 touch.
    pub(crate) kinds: u8,
    pub(crate) group_deletions: bool,
    pub(crate) excluded_origin: Option<Box<str>>,
}

/// Where in the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// All groups whose name starts so; the empty prefix is everything.
    Groups {
        prefix: Box<str>,
    },
    Group(Box<str>),
    Key {
        group: Box<str>,
        key: Box<str>,
    },
    KeyPrefix {
        group: Box<str>,
        prefix: Box<str>,
    },
    /// The key of this name in every group whose name starts so.
    KeyName {
        groups: Box<str>,
        key: Box<str>,
    },
}

const fn bit(kind: Kind) -> u8 {
    match kind {
        Kind::Set => 1,
        Kind::Delete => 2,
        Kind::DeleteGroup => 4,
        Kind::Expire => 8,
        Kind::Touch => 16,
        // No filter lets it through.
        Kind::Gap => 0,
    }
}

const DEFAULT_KINDS: u8 = bit(Kind::Set) | bit(Kind::Delete) | bit(Kind::DeleteGroup) | bit(Kind::Expire);

impl Filter {
    fn new(target: Target) -> Filter {
        Filter { target, kinds: DEFAULT_KINDS, group_deletions: true, excluded_origin: None }
    }

    /// Every event of the store, or of the namespace that the handle is scoped to.
    pub fn everything() -> Filter {
        Filter::group_prefix("")
    }

    /// The events of one group.
    pub fn group(group: impl Into<String>) -> Filter {
        Filter::new(Target::Group(group.into().into()))
    }

    /// The events of all groups whose name starts so.
    pub fn group_prefix(prefix: impl Into<String>) -> Filter {
        Filter::new(Target::Groups { prefix: prefix.into().into() })
    }

    /// The events of one key, and the deletion of its group.
    pub fn key(group: impl Into<String>, key: impl Into<String>) -> Filter {
        Filter::new(Target::Key { group: group.into().into(), key: key.into().into() })
    }

    /// The events of the keys of a group that start so, and the deletion of the group.
    pub fn key_prefix(group: impl Into<String>, prefix: impl Into<String>) -> Filter {
        Filter::new(Target::KeyPrefix { group: group.into().into(), prefix: prefix.into().into() })
    }

    /// The events of the keys of this name in whatever group, and the deletion of any group.
    pub fn key_name(key: impl Into<String>) -> Filter {
        Filter::new(Target::KeyName { groups: "".into(), key: key.into().into() })
    }

    /// The original's call: `*` stands for any group, or any key. A filter on an exact key does not include the
    /// deletion of the group.
    ///
    /// A group or key whose name really is `*` is reached by the other constructors.
    pub fn from_pattern(group: &str, key: &str) -> Filter {
        match (group, key) {
            ("*", "*") => Filter::everything(),
            (group, "*") => Filter::group(group),
            ("*", key) => Filter::key_name(key).without_group_deletions(),
            (group, key) => Filter::key(group, key).without_group_deletions(),
        }
    }

    /// Only events of these kinds.
    #[must_use]
    pub fn kinds(mut self, kinds: impl IntoIterator<Item = Kind>) -> Filter {
        self.kinds = kinds.into_iter().fold(0, |set, kind| set | bit(kind));
        self
    }

    /// Not the deletion of a group, where the filter is on keys.
    #[must_use]
    pub fn without_group_deletions(mut self) -> Filter {
        self.group_deletions = false;
        self
    }

    /// Not what a handle with this label wrote: a reader skips its own echo. A snapshot that a watch begins with is
    /// whole all the same.
    #[must_use]
    pub fn exclude_origin(mut self, origin: impl Into<String>) -> Filter {
        self.excluded_origin = Some(origin.into().into());
        self
    }

    /// Whether the filter lets this event through.
    pub fn matches(&self, event: &Event) -> bool {
        self.lets_through(event.kind(), event.origin(), event.group(), event.key())
    }

    pub(crate) fn matches_change(&self, change: &Change) -> bool {
        self.lets_through(change.kind, change.origin.as_deref(), &change.group, change.key.as_deref())
    }

    pub(crate) fn lets_through(
        &self,
        kind: Kind,
        origin: Option<&str>,
        group: &str,
        key: Option<&str>,
    ) -> bool {
        self.admits(kind, origin) && self.covers(group, key)
    }

    /// Whether a change belongs to the state that a snapshot tells, whoever made it.
    pub(crate) fn concerns_state(&self, change: &Change) -> bool {
        self.kinds & bit(change.kind) != 0 && self.covers(&change.group, change.key.as_deref())
    }

    fn admits(&self, kind: Kind, origin: Option<&str>) -> bool {
        self.kinds & bit(kind) != 0 && (origin.is_none() || origin != self.excluded_origin.as_deref())
    }

    /// Whether it reaches a key, or, without one, what happens to a whole group.
    fn covers(&self, group: &str, key: Option<&str>) -> bool {
        match (&self.target, key) {
            (Target::Groups { prefix }, _) => group.starts_with(&**prefix),
            (Target::Group(name), _) => group == &**name,
            (Target::Key { group: name, key: wanted }, Some(key)) => group == &**name && key == &**wanted,
            (Target::KeyPrefix { group: name, prefix }, Some(key)) => {
                group == &**name && key.starts_with(&**prefix)
            }
            (Target::KeyName { groups, key: wanted }, Some(key)) => {
                key == &**wanted && group.starts_with(&**groups)
            }
            (Target::Key { group: name, .. } | Target::KeyPrefix { group: name, .. }, None) => {
                self.group_deletions && group == &**name
            }
            (Target::KeyName { groups, .. }, None) => self.group_deletions && group.starts_with(&**groups),
        }
    }

    /// The same filter on other names of groups: on those that stand in the file, of a handle that is scoped to a
    /// namespace, or back.
    pub(crate) fn within(mut self, full: impl Fn(&str) -> String) -> Filter {
        let (Target::Groups { prefix: group }
        | Target::Group(group)
        | Target::Key { group, .. }
        | Target::KeyPrefix { group, .. }
        | Target::KeyName { groups: group, .. }) = &mut self.target;
        *group = full(group).into();
        self
    }
}

/// For people: `group "config", only delete expire`.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Groups { prefix } if prefix.is_empty() => f.write_str("everything"),
            Target::Groups { prefix } => write!(f, "groups {prefix:?}..."),
            Target::Group(group) => write!(f, "group {group:?}"),
            Target::Key { group, key } => write!(f, "key {group:?} {key:?}"),
            Target::KeyPrefix { group, prefix } => write!(f, "keys {group:?} {prefix:?}..."),
            Target::KeyName { groups, key } if groups.is_empty() => write!(f, "key {key:?} in any group"),
            Target::KeyName { groups, key } => write!(f, "key {key:?} in groups {groups:?}..."),
        }?;
        if self.kinds != DEFAULT_KINDS {
            f.write_str(", only")?;
            let kinds = Kind::ALL.into_iter().filter(|&kind| self.kinds & bit(kind) != 0);
            kinds.into_iter().try_for_each(|kind| write!(f, " {kind}"))?;
        }
        if !self.group_deletions {
            f.write_str(", without group deletions")?;
        }
        match &self.excluded_origin {
            Some(origin) => write!(f, ", not from {origin:?}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_call_has_four_shapes() {
        assert_eq!(Filter::from_pattern("*", "*"), Filter::everything());
        assert_eq!(Filter::from_pattern("g", "*"), Filter::group("g"));
        assert_eq!(Filter::from_pattern("*", "k").target, Filter::key_name("k").target);
        let exact = Filter::from_pattern("g", "k");
        assert!(exact.covers("g", Some("k")) && !exact.covers("g", None));
        assert!(Filter::key("g", "k").covers("g", None));
        assert!(!Filter::key("g", "k").covers("h", None));
    }

    #[test]
    fn touch_comes_only_when_asked_for() {
        let everything = Filter::everything();
        assert!(Kind::ALL.into_iter().filter(|&kind| !everything.admits(kind, None)).eq([Kind::Touch]));
        assert!(Filter::everything().kinds(Kind::ALL).admits(Kind::Touch, None));
    }

    #[test]
    fn gaps_never_come() {
        assert!(
            !Filter::everything().kinds(Kind::ALL.into_iter().chain([Kind::Gap])).admits(Kind::Gap, None)
        );
    }

    #[test]
    fn an_excluded_origin_excludes_only_itself() {
        let filter = Filter::everything().exclude_origin("me");
        assert!(!filter.admits(Kind::Set, Some("me")));
        assert!(filter.admits(Kind::Set, Some("you")) && filter.admits(Kind::Set, None));
    }

    #[test]
    fn a_scoped_filter_does_not_see_out() {
        let scope = |group: &str| format!("a:{group}");
        let everything = Filter::everything().within(scope);
        assert!(
            everything.covers("a:g", Some("k"))
                && !everything.covers("ab:g", Some("k"))
                && !everything.covers("A:g", None)
        );
        let name = Filter::key_name("k").within(scope);
        assert!(name.covers("a:x", Some("k")) && name.covers("a:x", None) && !name.covers("b:x", None));
    }
}
