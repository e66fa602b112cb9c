//! Filters: which events a watcher wants.

use std::fmt;

use super::error::{Reason, Result};
use super::event::{Change, Event, Kind};
use super::limits::MAX_FILTER_PARTS;
use super::name::NameRange;

/// Which events a watcher wants.
///
/// A filter on keys (`key`, `key_prefix`, `key_name`) includes the deletion of their group, since that removes
/// them too; [`without_group_deletions`](Filter::without_group_deletions) leaves it out, as the original does.
/// [`Kind::Touch`] is delivered only when [`kinds`](Filter::kinds) names it. [`any`](Filter::any) makes one filter of
/// several.
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
    /// An event comes when one of them lets it through. In order and each once, so that equal unions are equal.
    parts: Vec<Part>,
}

/// A filter with one target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Part {
    pub(crate) target: Target,
    /// A bit for each kind: 1 set, 2 delete, 4 delete_group, 8 expire, 16 touch.
    pub(crate) kinds: u8,
    pub(crate) group_deletions: bool,
    pub(crate) excluded_origin: Option<Box<str>>,
}

/// Where in the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
        Kind::Other => 0,
    }
}

const DEFAULT_KINDS: u8 = bit(Kind::Set) | bit(Kind::Delete) | bit(Kind::DeleteGroup) | bit(Kind::Expire);

impl Filter {
    fn new(target: Target) -> Filter {
        let part = Part { target, kinds: DEFAULT_KINDS, group_deletions: true, excluded_origin: None };
        Filter::of_parts(vec![part])
    }

    pub(crate) fn of_parts(mut parts: Vec<Part>) -> Filter {
        parts.sort_unstable();
        parts.dedup();
        Filter { parts }
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What it weighs in a batch, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let weight = |part: &Part| {
            let names = match &part.target {
                Target::Groups { prefix: name } | Target::Group(name) => name.len(),
                Target::Key { group, key: name }
                | Target::KeyPrefix { group, prefix: name }
                | Target::KeyName { groups: group, key: name } => group.len() + name.len(),
            };
            64 + names + part.excluded_origin.as_ref().map_or(0, |origin| origin.len())
        };
        self.parts.iter().map(weight).sum()
    }

    /// The same with something done to every part.
    fn each(self, change: impl Fn(&mut Part)) -> Filter {
        let mut parts = self.parts;
        parts.iter_mut().for_each(change);
        Filter::of_parts(parts)
    }

    /// Every event that at least one of these filters lets through; none without filters.
    ///
    /// Each filter keeps its own kinds, group deletions and excluded origin. What is asked of the union afterwards
    /// ([`kinds`](Filter::kinds), [`without_group_deletions`](Filter::without_group_deletions),
    /// [`exclude_origin`](Filter::exclude_origin)) is asked of each. One watcher of a union is not several watchers:
    /// an event comes once however many of the filters match it, all events come in the order of their commits, and
    /// there is one snapshot, one [`Item::Ready`](crate::Item::Ready) and one cursor.
    ///
    /// The order of the filters, and one given twice, make no difference. The filters of a union within a union count
    /// as its own. More than [`MAX_FILTER_PARTS`](crate::MAX_FILTER_PARTS) different ones are refused as `TooLarge`
    /// by what takes the union: a watch, a consumer, the history, a page of changes, a condition. A callback, whose
    /// registration cannot fail, takes any number.
    ///
    /// ```
    /// use watchkeep::{Filter, Store, WatchOptions};
    /// let store = Store::open_in_memory()?;
    /// let filter = Filter::any([Filter::key("config", "theme"), Filter::group_prefix("session")]);
    /// let mut watcher = store.watch_with(filter, WatchOptions::new())?;
    /// store.set("session-7", "token", "abc")?;
    /// store.set("config", "size", "12")?;
    /// store.set("config", "theme", "dark")?;
    /// assert_eq!(watcher.recv().unwrap()?.group(), "session-7");
    /// assert_eq!(watcher.recv().unwrap()?.key(), Some("theme"));
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    pub fn any(filters: impl IntoIterator<Item = Filter>) -> Filter {
        Filter::of_parts(filters.into_iter().flat_map(|filter| filter.parts).collect())
    }

    /// That it has no more parts than what is kept of a filter, and looked at for each event, may have.
    pub(crate) fn check(&self) -> Result<()> {
        match self.parts.len() {
            len if len > MAX_FILTER_PARTS => {
                Err(Reason::TooLarge { what: "union of filters", len, limit: MAX_FILTER_PARTS }.into())
            }
            _ => Ok(()),
        }
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

    /// A filter by the names that stand in a request: those that are given say which of the constructors is meant. Names
    /// are literal, also `*`.
    ///
    /// ```
    /// use watchkeep::Filter;
    /// let name = |name: &str| Some(name.to_owned());
    /// assert_eq!(Filter::from_names(name("g"), None, name("k"), None)?, Filter::key("g", "k"));
    /// assert_eq!(Filter::from_names(None, None, None, None)?, Filter::everything());
    /// assert!(Filter::from_names(None, None, None, name("k")).is_err());
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for names that do not go together.
    pub fn from_names(
        group: Option<String>,
        group_prefix: Option<String>,
        key: Option<String>,
        key_prefix: Option<String>,
    ) -> Result<Filter> {
        Ok(match (group, group_prefix, key, key_prefix) {
            (None, None, None, None) => Filter::everything(),
            (Some(group), None, None, None) => Filter::group(group),
            (None, Some(prefix), None, None) => Filter::group_prefix(prefix),
            (Some(group), None, Some(key), None) => Filter::key(group, key),
            (None, None, Some(key), None) => Filter::key_name(key),
            (Some(group), None, None, Some(prefix)) => Filter::key_prefix(group, prefix),
            _ => {
                let what = "these names do not go together; give group, group_prefix, key, group and key, or group and key_prefix";
                return Err(Reason::Invalid { what: what.to_owned() }.into());
            }
        })
    }

    /// Only events of these kinds.
    #[must_use]
    pub fn kinds(self, kinds: impl IntoIterator<Item = Kind>) -> Filter {
        let kinds = kinds.into_iter().fold(0, |set, kind| set | bit(kind));
        self.each(|part| part.kinds = kinds)
    }

    /// Not the deletion of a group, where the filter is on keys.
    #[must_use]
    pub fn without_group_deletions(self) -> Filter {
        self.each(|part| part.group_deletions = false)
    }

    /// Not what a handle with this label wrote: a reader skips its own echo. A snapshot that a watch begins with is
    /// whole all the same.
    #[must_use]
    pub fn exclude_origin(self, origin: impl Into<String>) -> Filter {
        let origin: Box<str> = origin.into().into();
        self.each(|part| part.excluded_origin = Some(origin.clone()))
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
        self.parts.iter().any(|part| part.admits(kind, origin) && part.covers(group, key))
    }

    /// Whether it is about a group, or keys in it.
    pub(crate) fn reaches(&self, group: &str) -> bool {
        self.parts.iter().any(|part| part.target.ranges().0.contains(group))
    }

    /// Whether a change belongs to the state that a snapshot tells, whoever made it.
    pub(crate) fn concerns_state(&self, change: &Change) -> bool {
        let (kind, key) = (bit(change.kind), change.key.as_deref());
        self.parts.iter().any(|part| part.kinds & kind != 0 && part.covers(&change.group, key))
    }

    /// The same filter on other names of groups: on those that stand in the file, of a handle that is scoped to a
    /// namespace, or back.
    pub(crate) fn within(self, full: impl Fn(&str) -> String) -> Filter {
        self.each(|part| {
            let group = part.target.group_mut();
            *group = full(group).into();
        })
    }
}

impl Part {
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
}

impl Target {
    fn group_mut(&mut self) -> &mut Box<str> {
        let (Target::Groups { prefix: group }
        | Target::Group(group)
        | Target::Key { group, .. }
        | Target::KeyPrefix { group, .. }
        | Target::KeyName { groups: group, .. }) = self;
        group
    }

    /// Which groups, and which of their keys, it is about.
    pub(crate) fn ranges(&self) -> (NameRange, NameRange) {
        let all = || NameRange::prefix("");
        match self {
            Target::Groups { prefix } => (NameRange::prefix(prefix), all()),
            Target::Group(group) => (NameRange::exactly(group), all()),
            Target::Key { group, key } => (NameRange::exactly(group), NameRange::exactly(key)),
            Target::KeyPrefix { group, prefix } => (NameRange::exactly(group), NameRange::prefix(prefix)),
            Target::KeyName { groups, key } => (NameRange::prefix(groups), NameRange::exactly(key)),
        }
    }
}

/// For people: `group "config", only delete expire; or key "session" "token"`.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, others)) = self.parts.split_first() else { return f.write_str("nothing") };
        write!(f, "{first}")?;
        others.iter().try_for_each(|part| write!(f, "; or {part}"))
    }
}

impl fmt::Display for Part {
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

    fn covers(filter: &Filter, group: &str, key: Option<&str>) -> bool {
        filter.parts.iter().any(|part| part.covers(group, key))
    }

    fn admits(filter: &Filter, kind: Kind, origin: Option<&str>) -> bool {
        filter.parts.iter().any(|part| part.admits(kind, origin))
    }

    #[test]
    fn the_original_call_has_four_shapes() {
        assert_eq!(Filter::from_pattern("*", "*"), Filter::everything());
        assert_eq!(Filter::from_pattern("g", "*"), Filter::group("g"));
        assert_eq!(Filter::from_pattern("*", "k"), Filter::key_name("k").without_group_deletions());
        let exact = Filter::from_pattern("g", "k");
        assert!(covers(&exact, "g", Some("k")) && !covers(&exact, "g", None));
        assert!(covers(&Filter::key("g", "k"), "g", None));
        assert!(!covers(&Filter::key("g", "k"), "h", None));
    }

    #[test]
    fn touch_comes_only_when_asked_for() {
        let everything = Filter::everything();
        assert!(Kind::ALL.into_iter().filter(|&kind| !admits(&everything, kind, None)).eq([Kind::Touch]));
        assert!(admits(&Filter::everything().kinds(Kind::ALL), Kind::Touch, None));
    }

    #[test]
    fn an_excluded_origin_excludes_only_itself() {
        let filter = Filter::everything().exclude_origin("me");
        assert!(!admits(&filter, Kind::Set, Some("me")));
        assert!(admits(&filter, Kind::Set, Some("you")) && admits(&filter, Kind::Set, None));
    }

    #[test]
    fn a_scoped_filter_does_not_see_out() {
        let scope = |group: &str| format!("a:{group}");
        let everything = Filter::everything().within(scope);
        assert!(
            covers(&everything, "a:g", Some("k"))
                && !covers(&everything, "ab:g", Some("k"))
                && !covers(&everything, "A:g", None)
        );
        let name = Filter::key_name("k").within(scope);
        assert!(covers(&name, "a:x", Some("k")) && covers(&name, "a:x", None) && !covers(&name, "b:x", None));
    }

    #[test]
    fn a_union_is_the_same_in_whatever_order_and_however_often() {
        let (a, b, c) = (Filter::group("a"), Filter::key("b", "k"), Filter::key_name("c").kinds([Kind::Set]));
        let nested = Filter::any([c.clone(), Filter::any([b.clone(), a.clone()]), c.clone()]);
        assert_eq!(Filter::any([a.clone(), b.clone(), c]), nested);
        assert_eq!(Filter::any([a.clone(), a.clone()]), a);
        assert_ne!(Filter::any([a.clone(), b]), a);
        assert_eq!(Filter::any([a.clone(), a.kinds([Kind::Set])]).kinds([Kind::Set]).parts.len(), 1);
    }

    #[test]
    fn each_filter_of_a_union_keeps_what_was_asked_of_it() {
        let deletes = Filter::group("a").kinds([Kind::Delete]);
        let union = Filter::any([deletes, Filter::key("b", "k").exclude_origin("me")]);
        let lets = |kind, origin, group| union.lets_through(kind, origin, group, Some("k"));
        assert!(lets(Kind::Delete, Some("me"), "a") && !lets(Kind::Set, None, "a"));
        assert!(lets(Kind::Set, None, "b") && !lets(Kind::Set, Some("me"), "b"));
        let other = union.clone().exclude_origin("you");
        assert!(!other.lets_through(Kind::Delete, Some("you"), "a", Some("k")));
        assert!(other.lets_through(Kind::Delete, Some("me"), "b", Some("k")));
    }

    #[test]
    fn an_empty_union_lets_nothing_through() {
        let nothing = Filter::any([]).kinds(Kind::ALL);
        assert!(Kind::ALL.into_iter().all(|kind| !nothing.lets_through(kind, None, "g", None)));
        assert_eq!(nothing.to_string(), "nothing");
    }

    #[test]
    fn a_union_reads_as_a_sentence() {
        let union = Filter::any([Filter::key("s", "t"), Filter::group("c").kinds([Kind::Delete])]);
        assert_eq!(union.to_string(), r#"group "c", only delete; or key "s" "t""#);
    }

    #[test]
    fn a_union_has_so_many_parts() {
        let union = |parts: usize| Filter::any((0..parts).map(|n| Filter::group(n.to_string())));
        assert!(union(MAX_FILTER_PARTS).check().is_ok());
        assert!(union(MAX_FILTER_PARTS + 1).check().is_err());
    }
}
