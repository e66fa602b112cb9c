//! How far it is from one revision to the next. Nothing but an engine may know: the models of interleavings and the suites
//! run over revisions that lie apart, so whoever counts by them is found out.

use crate::types::revision::Revision;

/// How far apart revisions lie where they are drawn, at most twice that.
const DRAWN: u64 = 97;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spacing {
    stride: u64,
    is_drawn: bool,
}

impl Spacing {
    /// One after the other.
    pub(super) const DENSE: Spacing = Spacing::every(1);
    /// Now near, now far.
    pub(super) const DRAWN: Spacing = Spacing { stride: DRAWN, is_drawn: true };

    /// Always so far.
    pub(super) const fn every(stride: u64) -> Spacing {
        Spacing { stride, is_drawn: false }
    }

    /// The revision of the n-th event, counted from one.
    pub(super) fn nth(self, ordinal: u64) -> Revision {
        // Each event has a span of its own, and its revision is anywhere in it.
        let within = if self.is_drawn && ordinal > 0 { mix(ordinal) % self.stride } else { 0 };
        Revision::new(ordinal.saturating_mul(self.stride).saturating_add(within))
    }

    /// How many events there are up to a revision.
    pub(super) fn ordinal(self, revision: Revision) -> u64 {
        let span = revision.get() / self.stride;
        if self.nth(span) <= revision { span } else { span - 1 }
    }

    /// How many events come after one revision up to another.
    pub(super) fn events(self, after: Revision, upto: Revision) -> u64 {
        self.ordinal(upto).saturating_sub(self.ordinal(after))
    }

    /// The revision that comes so many events after another, and one.
    pub(super) fn after(self, revision: Revision, events: u64) -> Revision {
        self.nth(self.ordinal(revision).saturating_add(events).saturating_add(1))
    }

    /// The revision after which the newest so many events lie.
    pub(super) fn before_newest(self, last: Revision, events: u64) -> Revision {
        self.nth(self.ordinal(last).saturating_sub(events))
    }
}

/// A number that looks drawn, always the same one (the finalizer of SplitMix64).
const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_rise_and_tell_how_many_events_there_are() {
        for spacing in [Spacing::DENSE, Spacing::every(5_000), Spacing::DRAWN] {
            assert_eq!((spacing.nth(0), spacing.ordinal(Revision::ZERO)), (Revision::ZERO, 0));
            for n in 0..2_000 {
                let (revision, next) = (spacing.nth(n), spacing.nth(n + 1));
                assert!(revision < next, "{spacing:?}");
                assert_eq!(spacing.after(revision, 0), next);
                let before_next = Revision::new(next.get() - 1);
                assert_eq!((spacing.ordinal(revision), spacing.ordinal(before_next)), (n, n), "{spacing:?}");
                assert_eq!(spacing.before_newest(spacing.nth(n + 7), 7), revision);
            }
            assert_eq!(spacing.events(spacing.nth(3), spacing.nth(10)), 7);
        }
    }

    #[test]
    fn drawn_gaps_are_of_all_sizes() {
        let gaps = (1..2_000).map(|n| Spacing::DRAWN.nth(n + 1).get() - Spacing::DRAWN.nth(n).get());
        let gaps: std::collections::BTreeSet<_> = gaps.collect();
        assert!(gaps.len() > 100 && gaps.first() < Some(&5) && gaps.last() > Some(&180), "{gaps:?}");
    }
}
