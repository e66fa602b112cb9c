//! Rows as this process saw them last. A write is tried on them first, without a read: what it looks at becomes compares,
//! so a row that somebody changed since costs another try and nothing else.

use std::collections::HashMap;

use bytes::Bytes;

use crate::types::event::Change;
use crate::types::name::namespace_of;
use crate::types::sync::atomic::{AtomicBool, Ordering};
use crate::types::sync::{Mutex, lock};

use super::keys::{Generation, Keys};
use super::stored::{GroupRow, Row as _};

/// How many rows are remembered, at the least, and how large the largest is. Twice as many may be.
const ROWS: usize = 4_096;
const LARGEST: usize = 512;

/// A row as the cluster had it.
#[derive(Debug, Clone)]
pub(super) struct Stood {
    /// Zero where there was none.
    pub(super) modified: i64,
    pub(super) value: Bytes,
}

/// A row, and the revision of the cluster as of which it stood so.
pub(super) type Seen = (Stood, i64);

/// See the module.
#[derive(Default)]
pub(super) struct Recall {
    rows: Mutex<Rows>,
    /// Whether the feed is being watched. Where it is not, the cluster may be away, and a write that sent nothing before it
    /// was refused is known not to be done.
    is_current: AtomicBool,
}

/// Once there are enough young ones they are the old ones, and those from before are forgotten.
#[derive(Default)]
struct Rows {
    young: HashMap<Bytes, Seen>,
    old: HashMap<Bytes, Seen>,
}

impl Rows {
    fn get(&self, key: &Bytes) -> Option<&Seen> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    fn forget(&mut self, key: &Bytes) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

impl Recall {
    pub(super) fn get(&self, key: &Bytes) -> Option<Seen> {
        lock(&self.rows).get(key).cloned()
    }

    pub(super) fn is_current(&self) -> bool {
        self.is_current.load(Ordering::Relaxed)
    }

    pub(super) fn set_current(&self, is_current: bool) {
        self.is_current.store(is_current, Ordering::Relaxed);
    }

    /// A row stood so as of a revision of the cluster.
    pub(super) fn note(&self, key: &Bytes, stood: &Stood, at: i64) {
        let mut rows = lock(&self.rows);
        if rows.get(key).is_some_and(|(_, seen)| *seen > at) {
            return;
        }
        if stood.value.len() > LARGEST {
            return rows.forget(key);
        }
        if rows.young.len() >= ROWS {
            rows.old = std::mem::take(&mut rows.young);
        }
        // A copy: what was read is a part of a message, all of which it would keep.
        let own = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        let stood = Stood { modified: stood.modified, value: own(&stood.value) };
        rows.young.insert(own(key), (stood, at));
    }

    pub(super) fn forget<'k>(&self, keys: impl Iterator<Item = &'k Bytes>) {
        let mut rows = lock(&self.rows);
        keys.for_each(|key| rows.forget(key));
    }

    /// The generation of a group, as far as it is remembered.
    pub(super) fn generation(&self, group: &Bytes) -> Option<Generation> {
        let (Stood { modified, value }, _) = self.get(group)?;
        if modified == 0 {
            return None;
        }
        GroupRow::decode(&value, modified)?.generation
    }

    /// Another process changed these.
    pub(super) fn heed(&self, keys: &Keys, changes: &[impl AsRef<Change>]) {
        for change in changes.iter().map(AsRef::as_ref) {
            let group = keys.group(&change.group);
            let entry = change.key.as_ref().zip(self.generation(&group));
            // A group that is not known may just have come to be.
            let stale = entry.map_or(group, |(key, id)| keys.entry(id, key));
            // Its usage, where it has a quota.
            let usage = namespace_of(&change.group).map(|name| keys.namespace(name));
            self.forget([stale].iter().chain(&usage));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stood(modified: i64, value: &str) -> Stood {
        Stood { modified, value: Bytes::copy_from_slice(value.as_bytes()) }
    }

    fn seen(recall: &Recall, key: &'static str) -> Option<i64> {
        recall.get(&Bytes::from(key)).map(|(stood, _)| stood.modified)
    }

    #[test]
    fn what_was_seen_later_counts() {
        let (recall, key) = (Recall::default(), Bytes::from("a"));
        recall.note(&key, &stood(5, "x"), 9);
        recall.note(&key, &stood(3, "x"), 8);
        assert_eq!(seen(&recall, "a"), Some(5));
        recall.note(&key, &stood(0, ""), 10);
        assert_eq!(seen(&recall, "a"), Some(0));
        // What is too large is read each time.
        recall.note(&key, &stood(12, &"x".repeat(LARGEST + 1)), 12);
        assert_eq!(seen(&recall, "a"), None);
    }

    #[test]
    fn a_bounded_number_is_remembered_and_the_last_ones_are() {
        let recall = Recall::default();
        let key = |number: usize| Bytes::from(format!("{number}"));
        for number in 0..5 * ROWS {
            recall.note(&key(number), &stood(1, "x"), 1);
        }
        let remembered = (0..5 * ROWS).filter(|number| recall.get(&key(*number)).is_some()).count();
        assert!((ROWS..=2 * ROWS).contains(&remembered), "{remembered}");
        assert!((4 * ROWS..5 * ROWS).all(|number| recall.get(&key(number)).is_some()));
    }
}
