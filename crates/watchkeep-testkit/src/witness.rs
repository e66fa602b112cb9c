//! Is a history of single-key operations linearizable? Revisions are the witness: they say in which order the store
//! took the writes, so nothing has to be searched for, and millions of operations can be judged.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Instant;

use watchkeep::Revision;

/// What an operation on a key was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It was set, at this revision, whatever was there.
    Set(Revision),
    /// It was set, at the first revision, on condition that it stood at the second, or that it was not there.
    SetOver(Revision, Option<Revision>),
    /// It was deleted, at this revision.
    Deleted(Revision),
    /// It stood at this revision, or was not there: a read, or a condition that did not hold.
    Stood(Option<Revision>),
}

/// One operation, from its call to its return.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Which key.
    pub key: u32,
    /// When it was called.
    pub called: Instant,
    /// When it returned.
    pub returned: Instant,
    /// What it said.
    pub told: Told,
}

impl Call {
    /// The revision that it gave to its key.
    #[must_use]
    pub fn wrote(&self) -> Option<Revision> {
        match self.told {
            Told::Set(revision) | Told::SetOver(revision, _) | Told::Deleted(revision) => Some(revision),
            Told::Stood(_) => None,
        }
    }
}

/// What is not linearizable, at most ten of it.
///
/// In the order in which they were called, each call is placed at a revision: a write at its own, a read at the first
/// at which what it was told was so. None may be placed before one that had returned when it was called.
#[must_use]
pub fn faults(calls: &[Call]) -> Vec<String> {
    let mut faults = Vec::new();
    let keys = Keys::of(calls, &mut faults);
    let mut in_order: Vec<_> = calls.iter().collect();
    in_order.sort_by_key(|call| call.called);
    let mut open = BinaryHeap::new();
    let mut least = Revision::ZERO;
    for call in in_order {
        while let Some(&Reverse((returned, revision))) = open.peek()
            && returned < call.called
        {
            least = least.max(revision);
            open.pop();
        }
        match keys.place(call, least) {
            Some(revision) => open.push(Reverse((call.returned, revision))),
            None => faults.push(format!("{call:?}: at {least} or later that was never so")),
        }
    }
    faults.truncate(10);
    faults
}

/// Of each key: at which revision it changed, and whether it was there from then on.
struct Keys(BTreeMap<u32, Vec<(Revision, bool)>>);

impl Keys {
    fn of(calls: &[Call], faults: &mut Vec<String>) -> Keys {
        let (mut keys, mut given): (BTreeMap<u32, Vec<_>>, _) = (BTreeMap::new(), BTreeSet::new());
        for (revision, call) in calls.iter().filter_map(|call| Some((call.wrote()?, call))) {
            let there = !matches!(call.told, Told::Deleted(_));
            keys.entry(call.key).or_default().push((revision, there));
            if !given.insert(revision) {
                faults.push(format!("{call:?}: revision {revision} was given twice"));
            }
        }
        keys.values_mut().for_each(|changes| changes.sort_unstable());
        Keys(keys)
    }

    /// The first revision, from this one on, at which a call was told the truth.
    fn place(&self, call: &Call, least: Revision) -> Option<Revision> {
        let changes = self.0.get(&call.key).map_or(&[][..], Vec::as_slice);
        // How the key stood before a place in its changes.
        let stood = |place: usize| {
            let before = place.checked_sub(1).and_then(|place| changes.get(place));
            before.filter(|(_, there)| *there).map(|(revision, _)| *revision)
        };
        match call.told {
            Told::Set(revision) | Told::Deleted(revision) => (revision > least).then_some(revision),
            Told::SetOver(revision, expected) => {
                let place = changes.partition_point(|(change, _)| *change < revision);
                (revision > least && stood(place) == expected).then_some(revision)
            }
            Told::Stood(told) => {
                let place = changes.partition_point(|(change, _)| *change <= least);
                let place = (place..=changes.len()).find(|place| stood(*place) == told)?;
                let began = place.checked_sub(1).and_then(|place| changes.get(place));
                Some(began.map_or(least, |(revision, _)| least.max(*revision)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn call(base: Instant, called: u64, returned: u64, told: Told) -> Call {
        let at = |ms| base + Duration::from_millis(ms);
        Call { key: 1, called: at(called), returned: at(returned), told }
    }

    fn good(calls: &[(u64, u64, Told)]) -> bool {
        let base = Instant::now();
        let calls: Vec<_> = calls.iter().map(|(from, to, told)| call(base, *from, *to, *told)).collect();
        faults(&calls).is_empty()
    }

    #[test]
    fn what_one_order_explains_is_good_and_what_none_does_is_not() {
        let at = Revision::new;
        let set = |revision| Told::Set(at(revision));
        let over = |revision, before: Option<u64>| Told::SetOver(at(revision), before.map(at));
        let stood = |revision: Option<u64>| Told::Stood(revision.map(at));
        let deleted = |revision| Told::Deleted(at(revision));
        // In order, at once, the wrong way round, and under one revision.
        assert!(good(&[(0, 1, set(1)), (2, 3, set(2))]));
        assert!(good(&[(0, 3, set(2)), (1, 2, set(1))]));
        assert!(!good(&[(0, 1, set(2)), (2, 3, set(1))]));
        assert!(!good(&[(0, 3, set(1)), (1, 2, set(1))]));
        // A read: of what was there, of what came meanwhile, of what had gone, and of what was still to come.
        assert!(good(&[(0, 1, set(1)), (2, 3, stood(Some(1))), (4, 5, set(2))]));
        assert!(good(&[(0, 1, set(1)), (2, 5, stood(Some(2))), (4, 6, set(2))]));
        assert!(!good(&[(0, 1, set(1)), (2, 3, set(2)), (4, 5, stood(Some(1)))]));
        assert!(!good(&[(0, 1, stood(Some(1))), (2, 3, set(1))]));
        assert!(good(&[(0, 1, stood(None)), (2, 3, set(1))]));
        assert!(!good(&[(0, 1, set(1)), (2, 3, stood(None))]));
        // Two reads while a write is under way: the new value may follow the old one, and not the other way round.
        assert!(good(&[(0, 1, set(1)), (2, 9, set(2)), (3, 4, stood(Some(1))), (5, 6, stood(Some(2)))]));
        assert!(!good(&[(0, 1, set(1)), (2, 9, set(2)), (3, 4, stood(Some(2))), (5, 6, stood(Some(1)))]));
        assert!(!good(&[(0, 9, set(1)), (1, 2, stood(Some(1))), (3, 4, stood(None))]));
        assert!(!good(&[(0, 9, set(2)), (1, 2, stood(Some(2))), (3, 4, set(1))]));
        // A deletion.
        assert!(good(&[(0, 1, set(1)), (2, 3, deleted(2)), (4, 5, stood(None))]));
        assert!(!good(&[(0, 1, set(1)), (2, 3, deleted(2)), (4, 5, stood(Some(1)))]));
        assert!(good(&[(0, 1, set(1)), (2, 9, set(3)), (3, 8, deleted(2)), (4, 5, stood(None))]));
        assert!(!good(&[
            (0, 1, set(1)),
            (2, 9, set(3)),
            (2, 9, deleted(2)),
            (4, 5, stood(Some(3))),
            (6, 7, stood(None))
        ]));
        // A condition.
        assert!(good(&[(0, 1, set(1)), (2, 3, over(2, Some(1)))]));
        assert!(!good(&[(0, 1, set(1)), (2, 3, set(2)), (4, 5, over(3, Some(1)))]));
        assert!(!good(&[(0, 1, set(1)), (2, 3, deleted(2)), (4, 5, over(3, Some(1)))]));
        assert!(good(&[(0, 1, over(1, None)), (2, 3, deleted(2)), (4, 5, over(3, None))]));
        assert!(!good(&[(0, 1, set(1)), (2, 3, over(2, None))]));
    }
}
