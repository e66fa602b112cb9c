//! Whether a watcher saw what the change log holds.

use std::collections::HashSet;

use watchkeep::Revision;

/// What came of the demo.
#[derive(Debug)]
pub(super) struct Proof {
    /// The revisions in the change log.
    pub(super) log: Vec<Revision>,
    /// How many revisions the writers were told.
    pub(super) acknowledged: usize,
    /// How many of them the log does not hold.
    pub(super) lost: usize,
    pub(super) live: Comparison,
    pub(super) slow: Comparison,
    /// The client of the hub, where there is one, and how often it was cut off.
    pub(super) over_http: Option<(Comparison, usize)>,
    /// How far the slow watcher was behind at the most.
    pub(super) behind: u64,
    /// How often the counter was incremented, and by how much it went up.
    pub(super) increments: u64,
    pub(super) visits: u64,
}

impl Proof {
    pub(super) fn holds(&self) -> bool {
        let over_http = self.over_http.is_none_or(|(heard, _)| heard.holds());
        self.lost == 0
            && self.live.holds()
            && self.slow.holds()
            && over_http
            && self.increments == self.visits
    }
}

/// What a watcher saw, beside the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) seen: usize,
    pub(super) missing: usize,
    pub(super) doubled: usize,
    pub(super) out_of_order: usize,
}

impl Comparison {
    pub(super) fn holds(self) -> bool {
        self.missing == 0 && self.doubled == 0 && self.out_of_order == 0
    }
}

pub(super) fn compare(log: &[Revision], seen: &[Revision]) -> Comparison {
    let distinct: HashSet<_> = seen.iter().collect();
    Comparison {
        seen: seen.len(),
        missing: log.iter().filter(|revision| !distinct.contains(revision)).count(),
        doubled: seen.len() - distinct.len(),
        out_of_order: seen.iter().zip(seen.iter().skip(1)).filter(|(one, next)| next < one).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_counted() {
        let revisions = |numbers: &[u64]| numbers.iter().copied().map(Revision::new).collect::<Vec<_>>();
        let log = revisions(&[1, 2, 3, 4]);
        assert!(compare(&log, &log).holds());
        let faulty = compare(&log, &revisions(&[1, 3, 2, 2]));
        assert_eq!(faulty, Comparison { seen: 4, missing: 1, doubled: 1, out_of_order: 1 });
    }
}
