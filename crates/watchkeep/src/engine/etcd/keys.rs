//! Where the rows of a store stand in the cluster. All under the store's prefix, which ends with a slash:
//!
//! | key | what it holds |
//! |---|---|
//! | `feed` | the events of the last commit; its earlier versions are the log |
//! | `meta` | the store's identity; put with the first version of the feed |
//! | `g/<group>` | the generation of a group; empty while the group is deleted |
//! | `e/<generation>/<key>` | an entry |
//! | `t/<deadline>/<generation>/<key>` | the group's name: the entry expires then |
//! | `x/<generation>` | put by each removal of an entry: a compare over a range does not see those |
//! | `b/<generation>` | a deleted group, to be swept |
//! | `n/<namespace>` | quota and usage, where there is a quota |
//! | `c/<consumer>` | a named consumer |
//! | `h/<consumer>` | that its holder lives: goes with the lease of that |
//! | `a/<client>/<sequence>` | the answer to a batch |
//! | `settings` | what holds for the store as a whole: how much of the past it keeps, and who compacts |
//! | `keeper` | the process that compacts, and removes first what is due, while it lives |
//! | `fences` | the number of the last taking of a consumer |
//! | `s/<session>` | a process that has the store open |

use bytes::Bytes;

use crate::types::clock::Timestamp;
use crate::types::name::NameRange;

/// The generation of a group: drawn at random when the group comes to be, so that what is left of an earlier one is not
/// found any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Generation(pub(super) u128);

/// A place in the order of time, as text that sorts alike: sixteen digits.
const DIGITS: usize = 16;

/// The keys of a store.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Generation {
    /// From the path of an entry.
    fn parse(text: &str) -> Option<Generation> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(Generation))?
    }
}

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Keys {
    pub(super) fn new(prefix: String) -> Keys {
        Keys { prefix }
    }

    fn key(&self, rest: std::fmt::Arguments<'_>) -> Bytes {
        format!("{}{rest}", self.prefix).into()
    }

    pub(super) fn feed(&self) -> Bytes {
        self.key(format_args!("feed"))
    }

    pub(super) fn meta(&self) -> Bytes {
        self.key(format_args!("meta"))
    }

    pub(super) fn fences(&self) -> Bytes {
        self.key(format_args!("fences"))
    }

    pub(super) fn settings(&self) -> Bytes {
        self.key(format_args!("settings"))
    }

    pub(super) fn keeper(&self) -> Bytes {
        self.key(format_args!("keeper"))
    }

    pub(super) fn group(&self, name: &str) -> Bytes {
        self.key(format_args!("g/{name}"))
    }

    pub(super) fn entry(&self, group: Generation, key: &str) -> Bytes {
        self.key(format_args!("e/{group}/{key}"))
    }

    pub(super) fn deadline(&self, at: Timestamp, group: Generation, key: &str) -> Bytes {
        self.key(format_args!("t/{:0DIGITS$}/{group}/{key}", at.as_millis().max(0)))
    }

    pub(super) fn removals(&self, group: Generation) -> Bytes {
        self.key(format_args!("x/{group}"))
    }

    pub(super) fn buried(&self, group: Generation) -> Bytes {
        self.key(format_args!("b/{group}"))
    }

    pub(super) fn namespace(&self, name: &str) -> Bytes {
        self.key(format_args!("n/{name}"))
    }

    pub(super) fn consumer(&self, name: &str) -> Bytes {
        self.key(format_args!("c/{name}"))
    }

    pub(super) fn holder(&self, name: &str) -> Bytes {
        self.key(format_args!("h/{name}"))
    }

    pub(super) fn answer(&self, client: &str, sequence: u64) -> Bytes {
        self.key(format_args!("a/{client}/{sequence:0DIGITS$}"))
    }

    pub(super) fn session(&self, id: u128) -> Bytes {
        self.key(format_args!("s/{id:032x}"))
    }

    /// The rows of one kind whose names lie in a range: from, and up to.
    fn named(&self, kind: &str, names: &NameRange) -> (Bytes, Bytes) {
        let (from, above) = match &names.from {
            std::ops::Bound::Included(from) => (from.as_str(), ""),
            std::ops::Bound::Excluded(from) => (from.as_str(), "\0"),
            std::ops::Bound::Unbounded => ("", ""),
        };
        let from = self.key(format_args!("{kind}/{from}{above}"));
        let to = match &names.to {
            Some(to) => self.key(format_args!("{kind}/{to}")),
            None => self.end(kind),
        };
        // An empty range is that of one key, which no row has: a range that ends where it begins would be one key.
        if to <= from {
            (self.key(format_args!("{kind}")), self.key(format_args!("{kind}\0")))
        } else {
            (from, to)
        }
    }

    /// What comes after all rows of a kind: the character after the slash.
    fn end(&self, kind: &str) -> Bytes {
        self.key(format_args!("{kind}0"))
    }

    pub(super) fn groups(&self, names: &NameRange) -> (Bytes, Bytes) {
        self.named("g", names)
    }

    pub(super) fn consumers(&self, names: &NameRange) -> (Bytes, Bytes) {
        self.named("c", names)
    }

    pub(super) fn holders(&self, names: &NameRange) -> (Bytes, Bytes) {
        self.named("h", names)
    }

    pub(super) fn entries(&self, group: Generation, keys: &NameRange) -> (Bytes, Bytes) {
        self.named(&format!("e/{group}"), keys)
    }

    pub(super) fn all_entries(&self) -> (Bytes, Bytes) {
        (self.key(format_args!("e/")), self.end("e"))
    }

    pub(super) fn all_answers(&self) -> (Bytes, Bytes) {
        (self.key(format_args!("a/")), self.end("a"))
    }

    pub(super) fn all_buried(&self) -> (Bytes, Bytes) {
        (self.key(format_args!("b/")), self.end("b"))
    }

    /// What is due at a time, the earliest first.
    pub(super) fn due(&self, now: Timestamp) -> (Bytes, Bytes) {
        let after = now.as_millis().saturating_add(1).max(0);
        (self.key(format_args!("t/")), self.key(format_args!("t/{after:0DIGITS$}")))
    }

    pub(super) fn all_deadlines(&self) -> (Bytes, Bytes) {
        (self.key(format_args!("t/")), self.end("t"))
    }

    pub(super) fn answers(&self, client: &str) -> (Bytes, Bytes) {
        let kind = format!("a/{client}");
        (self.key(format_args!("{kind}/")), self.end(&kind))
    }

    /// What comes after a kind and a slash.
    fn rest<'k>(&self, kind: &str, key: &'k [u8]) -> Option<&'k str> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(self.prefix.as_str())?;
        rest.strip_prefix(kind)?.strip_prefix('/')
    }

    pub(super) fn group_of<'k>(&self, key: &'k [u8]) -> Option<&'k str> {
        self.rest("g", key)
    }

    pub(super) fn consumer_of<'k>(&self, key: &'k [u8]) -> Option<&'k str> {
        self.rest("c", key)
    }

    pub(super) fn held_of<'k>(&self, key: &'k [u8]) -> Option<&'k str> {
        self.rest("h", key)
    }

    pub(super) fn buried_of(&self, key: &[u8]) -> Option<Generation> {
        Generation::parse(self.rest("b", key)?)
    }

    pub(super) fn entry_of<'k>(&self, key: &'k [u8]) -> Option<(Generation, &'k str)> {
        let (group, key) = self.rest("e", key)?.split_once('/')?;
        Some((Generation::parse(group)?, key))
    }

    pub(super) fn sequence_of(&self, client: &str, key: &[u8]) -> Option<u64> {
        self.rest(&format!("a/{client}"), key)?.parse().ok()
    }

    pub(super) fn deadline_of<'k>(&self, key: &'k [u8]) -> Option<(Timestamp, Generation, &'k str)> {
        let (at, rest) = self.rest("t", key)?.split_once('/')?;
        let (group, key) = rest.split_once('/')?;
        Some((Timestamp::from_millis(at.parse().ok()?), Generation::parse(group)?, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_again_and_sort_as_their_names_do() {
        let (keys, group) = (Keys::new("app/".to_owned()), Generation(7));
        let at = Timestamp::from_millis(12);
        assert_eq!(keys.entry_of(&keys.entry(group, "a/b")), Some((group, "a/b")));
        assert_eq!(keys.deadline_of(&keys.deadline(at, group, "a/b")), Some((at, group, "a/b")));
        assert_eq!(keys.group_of(&keys.group("x/y")), Some("x/y"));
        assert_eq!(keys.sequence_of("c", &keys.answer("c", 9)), Some(9));
        let (from, to) = keys.due(at);
        assert!((&from..&to).contains(&&keys.deadline(at, group, "z")));
        assert!(!(&from..&to).contains(&&keys.deadline(Timestamp::from_millis(13), group, "")));
        let (from, to) = keys.entries(group, &NameRange::prefix(""));
        assert!(
            (&from..&to).contains(&&keys.entry(group, ""))
                && (&from..&to).contains(&&keys.entry(group, "\u{10ffff}"))
        );
        assert!(!(&from..&to).contains(&&keys.entry(Generation(8), "")));
    }

    #[test]
    fn a_range_that_is_empty_holds_no_row_not_even_where_it_begins() {
        let (keys, group) = (Keys::new("app/".to_owned()), Generation(7));
        // What begins with `a`, after `b`.
        let empty = NameRange { from: std::ops::Bound::Excluded("b".to_owned()), ..NameRange::prefix("a") };
        let (from, to) = keys.entries(group, &empty);
        assert!(from < to, "etcd would take it to be one key, or all that follow");
        for name in ["", "a", "b", "b\0", "c"] {
            assert!(!(&from..&to).contains(&&keys.entry(group, name)), "{name:?}");
        }
    }
}
