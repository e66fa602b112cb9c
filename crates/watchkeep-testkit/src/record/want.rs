//! What a watcher asked for, as plain values that the checkers can read back, with a judgement of their own about
//! which changes that covers.

use watchkeep::{Filter, Kind};

use super::seen::Seen;

/// Where in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All of it.
    Everything,
    /// One group.
    Group(String),
    /// All groups that start so.
    GroupPrefix(String),
    /// One key, by group and key.
    Key(String, String),
    /// The keys of a group that start so, by group and prefix.
    KeyPrefix(String, String),
    /// The keys of this name in any group.
    KeyName(String),
    /// The original's call: group and key, where `*` is any.
    Pattern(String, String),
}

/// What a watcher asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The namespace that its handle is scoped to.
    pub namespace: Option<String>,
    /// Where in the store, or in the namespace.
    pub target: Target,
    /// Only these kinds; all but `touch` unless given.
    pub kinds: Option<Vec<Kind>>,
    /// Whether a filter on keys leaves their group's deletion out.
    pub without_group_deletions: bool,
    /// Not what this label wrote.
    pub excluded_origin: Option<String>,
    /// What is wanted besides, each with choices of its own, but for the namespace: a union.
    pub also: Vec<Want>,
}

impl Want {
    /// This, and nothing else.
    pub fn new(target: Target) -> Want {
        Want {
            namespace: None,
            target,
            kinds: None,
            without_group_deletions: false,
            excluded_origin: None,
            also: Vec::new(),
        }
    }

    /// All events of all kinds.
    pub fn log() -> Want {
        Want { kinds: Some(Kind::ALL.to_vec()), ..Want::new(Target::Everything) }
    }

    /// The library's filter that asks for the same, for a handle that is scoped to the namespace.
    pub fn filter(&self) -> Filter {
        let filter = match &self.target {
            Target::Everything => Filter::everything(),
            Target::Group(group) => Filter::group(group),
            Target::GroupPrefix(prefix) => Filter::group_prefix(prefix),
            Target::Key(group, key) => Filter::key(group, key),
            Target::KeyPrefix(group, prefix) => Filter::key_prefix(group, prefix),
            Target::KeyName(key) => Filter::key_name(key),
            Target::Pattern(group, key) => Filter::from_pattern(group, key),
        };
        let filter = match &self.kinds {
            Some(kinds) => filter.kinds(kinds.iter().copied()),
            None => filter,
        };
        let filter = if self.without_group_deletions { filter.without_group_deletions() } else { filter };
        let filter = match &self.excluded_origin {
            Some(origin) => filter.exclude_origin(origin),
            None => filter,
        };
        match self.also.as_slice() {
            [] => filter,
            also => Filter::any(also.iter().map(Want::filter).chain([filter])),
        }
    }

    /// Whether a change, as the log names it, must reach the watcher.
    pub fn wants(&self, row: &Seen) -> bool {
        let Some(group) = self.local(&row.group) else { return false };
        self.alone_wants(row, group) || self.also.iter().any(|want| want.alone_wants(row, group))
    }

    fn alone_wants(&self, row: &Seen, group: &str) -> bool {
        let kind = match &self.kinds {
            Some(kinds) => kinds.contains(&row.kind),
            None => row.kind != Kind::Touch,
        };
        let echo = row.origin.is_some() && row.origin == self.excluded_origin;
        kind && !echo && self.alone_covers(group, row.key.as_deref())
    }

    /// Whether it reaches a key, or what happens to a whole group when there is none; by their full names.
    pub fn covers(&self, group: &str, key: Option<&str>) -> bool {
        let Some(group) = self.local(group) else { return false };
        self.alone_covers(group, key) || self.also.iter().any(|want| want.alone_covers(group, key))
    }

    fn alone_covers(&self, group: &str, key: Option<&str>) -> bool {
        // A deletion of the whole group, for those who look at single keys.
        let deletion = key.is_none() && !self.without_group_deletions;
        match &self.target {
            Target::Everything => true,
            Target::Group(wanted) => group == wanted,
            Target::GroupPrefix(prefix) => group.starts_with(prefix.as_str()),
            Target::Key(wanted, name) => group == wanted && (deletion || key == Some(name)),
            Target::KeyPrefix(wanted, prefix) => {
                group == wanted && (deletion || key.is_some_and(|key| key.starts_with(prefix.as_str())))
            }
            Target::KeyName(name) => deletion || key == Some(name),
            Target::Pattern(wanted, name) => {
                (wanted == "*" || group == wanted) && (name == "*" || key == Some(name))
            }
        }
    }

    /// The group as the watcher names it; none when it lies outside its namespace.
    pub fn local<'a>(&self, group: &'a str) -> Option<&'a str> {
        match &self.namespace {
            Some(namespace) => group.strip_prefix(namespace.as_str())?.strip_prefix(':'),
            None => Some(group),
        }
    }

    /// Whether the current entries can be told from a stream that begins with them. Whose changes are left out makes
    /// no difference: before the mark they are not.
    pub fn folds(&self) -> bool {
        let all =
            |kinds: &Vec<Kind>| Kind::ALL.iter().all(|kind| *kind == Kind::Touch || kinds.contains(kind));
        self.kinds.as_ref().is_none_or(all)
            && !self.without_group_deletions
            && !matches!(&self.target, Target::Pattern(_, key) if key != "*")
            && self.also.iter().all(Want::folds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(target: Target, group: &str, key: Option<&str>) -> bool {
        Want::new(target).covers(group, key)
    }

    #[test]
    fn each_target_covers_its_own() {
        let text = str::to_owned;
        assert!(covers(Target::Everything, "g", None));
        assert!(
            covers(Target::Group(text("g")), "g", Some("k")) && !covers(Target::Group(text("g")), "gg", None)
        );
        assert!(covers(Target::GroupPrefix(text("g")), "gg", None));
        let key = || Target::Key(text("g"), text("k"));
        assert!(covers(key(), "g", Some("k")) && covers(key(), "g", None) && !covers(key(), "g", Some("kk")));
        let pattern = |group, key| Target::Pattern(text(group), text(key));
        assert!(covers(pattern("*", "k"), "x", Some("k")) && !covers(pattern("*", "k"), "x", None));
        assert!(covers(pattern("g", "*"), "g", None) && !covers(pattern("g", "k"), "g", None));
    }

    #[test]
    fn a_union_wants_what_one_of_its_own_wants() {
        let also = vec![Want::new(Target::KeyName("k".to_owned()))];
        let want = Want { namespace: Some("a".to_owned()), also, ..Want::new(Target::Group("g".to_owned())) };
        assert!(want.covers("a:g", Some("l")) && want.covers("a:h", Some("k")));
        assert!(!want.covers("a:h", Some("l")) && !want.covers("g", Some("k")));
    }

    #[test]
    fn a_namespace_is_not_seen_out_of() {
        let want = Want { namespace: Some("tenant-a".to_owned()), ..Want::new(Target::Everything) };
        assert!(want.covers("tenant-a:x", None) && want.covers("tenant-a:", Some("k")));
        assert!(!want.covers("Tenant-A:x", None) && !want.covers("tenant-a", None));
    }
}
