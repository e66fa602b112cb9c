//! Is a history of single-key operations linearizable? Revisions are the witness: they say in which order the store
//! took the writes, so nothing has to be searched for, and millions of operations can be judged.

use std::collections::BTreeMap;
use std::time::Instant;

use watchkeep::Revision;

/// What an operation on a key was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It was set, at this revision; with the revision that it had to have before, where that was a condition.
    Set(Revision, Option<Revision>),
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
    fn wrote(&self) -> Option<Revision> {
        match self.told {
            Told::Set(revision, _) | Told::Deleted(revision) => Some(revision),
            Told::Stood(_) => None,
        }
    }
}

/// What is not linearizable, at most ten of it.
pub fn faults(calls: &[Call]) -> Vec<String> {
    let history = History::of(calls);
    let order = history.out_of_order();
    let told = calls.iter().filter_map(|call| history.fault(call));
    order.into_iter().chain(told).take(10).collect()
}

/// The writes, by what they are asked for.
struct History<'c> {
    by_revision: Vec<(Revision, &'c Call)>,
    /// When a write returned, and the highest revision of all that had returned by then.
    returned: Vec<(Instant, Revision)>,
    /// When a write was called, and the lowest revision of all that were called then or later.
    called: Vec<(Instant, Revision)>,
    /// Of each key: at which revision it changed, and whether it was there from then on.
    keys: BTreeMap<u32, Vec<(Revision, bool)>>,
}

impl<'c> History<'c> {
    fn of(calls: &'c [Call]) -> History<'c> {
        let mut by_revision: Vec<_> = calls.iter().filter_map(|call| Some((call.wrote()?, call))).collect();
        by_revision.sort_unstable_by_key(|(revision, _)| *revision);
        let mut keys: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for (revision, call) in &by_revision {
            let there = matches!(call.told, Told::Set(..));
            keys.entry(call.key).or_default().push((*revision, there));
        }
        let mut returned: Vec<_> =
            by_revision.iter().map(|(revision, call)| (call.returned, *revision)).collect();
        returned.sort_unstable();
        let mut highest = Revision::ZERO;
        for (_, revision) in &mut returned {
            highest = highest.max(*revision);
            *revision = highest;
        }
        let mut called: Vec<_> =
            by_revision.iter().map(|(revision, call)| (call.called, *revision)).collect();
        called.sort_unstable();
        let mut lowest = Revision::new(u64::MAX);
        for (_, revision) in called.iter_mut().rev() {
            lowest = lowest.min(*revision);
            *revision = lowest;
        }
        History { by_revision, returned, called, keys }
    }

    /// A write that returned before another was called, and has a higher revision.
    fn out_of_order(&self) -> Option<String> {
        let mut first: Option<(Instant, Revision)> = None;
        for (revision, call) in self.by_revision.iter().rev() {
            if let Some((returned, later)) = first
                && returned < call.called
            {
                return Some(format!("revision {later} had returned before {revision} was called"));
            }
            if first.is_none_or(|(returned, _)| call.returned < returned) {
                first = Some((call.returned, *revision));
            }
        }
        None
    }

    /// Whether what a call was told was so at some moment between its call and its return.
    fn fault(&self, call: &Call) -> Option<String> {
        let changes = self.keys.get(&call.key).map_or(&[][..], Vec::as_slice);
        let at = |revision: Revision| changes.partition_point(|(change, _)| *change < revision);
        match call.told {
            Told::Set(revision, Some(expected)) => {
                let before = at(revision).checked_sub(1).and_then(|place| changes.get(place));
                let held = before == Some(&(expected, true));
                (!held).then(|| format!("{call:?}: before it the key stood at {before:?}"))
            }
            Told::Set(_, None) | Told::Deleted(_) => None,
            Told::Stood(told) => {
                // Not before what had returned when it was called, and before all that was called after it returned.
                let known = self.returned.partition_point(|(returned, _)| *returned < call.called);
                let least = known.checked_sub(1).and_then(|place| self.returned.get(place));
                let least = least.map_or(Revision::ZERO, |(_, revision)| *revision);
                let later = self.called.partition_point(|(called, _)| *called <= call.returned);
                let before =
                    self.called.get(later).map_or(Revision::new(u64::MAX), |(_, revision)| *revision);
                let starts = std::iter::once((Revision::ZERO, false)).chain(changes.iter().copied());
                let ends = changes.iter().map(|(change, _)| *change).chain([Revision::new(u64::MAX)]);
                let skip = at(least).saturating_sub(1);
                let stood = starts
                    .zip(ends)
                    .skip(skip)
                    .take_while(|((start, _), _)| *start < before)
                    .filter(|(_, end)| *end > least)
                    .any(|((start, there), _)| there.then_some(start) == told);
                (!stood).then(|| format!("{call:?}: between {least} and {before} that was never so"))
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
        let (first, second) = (Told::Set(at(1), None), Told::Set(at(2), None));
        // In order, at once, and the wrong way round.
        assert!(good(&[(0, 1, first), (2, 3, second)]));
        assert!(good(&[(0, 3, second), (1, 2, first)]));
        assert!(!good(&[(0, 1, second), (2, 3, first)]));
        // A read: of what was there, of what came meanwhile, of what had gone, and of what was still to come.
        assert!(good(&[(0, 1, first), (2, 3, Told::Stood(Some(at(1)))), (4, 5, second)]));
        assert!(good(&[(0, 1, first), (2, 5, Told::Stood(Some(at(2)))), (4, 6, second)]));
        assert!(!good(&[(0, 1, first), (2, 3, second), (4, 5, Told::Stood(Some(at(1))))]));
        assert!(!good(&[(0, 1, Told::Stood(Some(at(1)))), (2, 3, first)]));
        assert!(good(&[(0, 1, Told::Stood(None)), (2, 3, first)]));
        assert!(!good(&[(0, 1, first), (2, 3, Told::Stood(None))]));
        // A deletion.
        let deleted = Told::Deleted(at(2));
        assert!(good(&[(0, 1, first), (2, 3, deleted), (4, 5, Told::Stood(None))]));
        assert!(!good(&[(0, 1, first), (2, 3, deleted), (4, 5, Told::Stood(Some(at(1))))]));
        // A condition.
        assert!(good(&[(0, 1, first), (2, 3, Told::Set(at(2), Some(at(1))))]));
        assert!(!good(&[(0, 1, first), (2, 3, second), (4, 5, Told::Set(at(3), Some(at(1))))]));
        assert!(!good(&[(0, 1, first), (2, 3, deleted), (4, 5, Told::Set(at(3), Some(at(1))))]));
    }
}
