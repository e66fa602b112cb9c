//! How many events and bytes came after a commit: counted since the store was opened here, for a cluster counts neither.

use std::collections::VecDeque;
use std::time::Duration;

/// How many places are remembered. With more, every other one is let go, and what is told becomes coarser.
const MARKS: usize = 16_384;

/// The running totals up to a commit, with it.
#[derive(Debug, Clone, Copy)]
struct Mark {
    modified: i64,
    /// When it was seen here, by a clock that nobody sets.
    seen: Duration,
    events: u64,
    bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    marks: VecDeque<Mark>,
    events: u64,
    bytes: u64,
}

impl Ledger {
    /// What came up to this commit is not counted.
    pub(super) fn new(modified: i64, seen: Duration) -> Ledger {
        let start = Mark { modified, seen, events: 0, bytes: 0 };
        Ledger { marks: VecDeque::from([start]), events: 0, bytes: 0 }
    }

    /// How many events there were since, and how many bytes of them.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.events, self.bytes)
    }

    /// How many bytes there were up to this commit, or at the start where that came later.
    pub(super) fn bytes_upto(&self, modified: i64) -> u64 {
        let place = self.marks.partition_point(|mark| mark.modified <= modified);
        self.marks.get(place.saturating_sub(1)).map_or(self.bytes, |mark| mark.bytes)
    }

    /// The next commit.
    pub(super) fn add(&mut self, (modified, seen): (i64, Duration), events: u64, bytes: u64) {
        self.events += events;
        self.bytes += bytes;
        if self.marks.len() >= MARKS {
            let mut place = 0_usize;
            self.marks.retain(|_| {
                place += 1;
                place % 2 == 1
            });
        }
        self.marks.push_back(Mark { modified, seen, events: self.events, bytes: self.bytes });
    }

    /// Commits between the last and this one are not known: nothing before it is counted.
    pub(super) fn jump(&mut self, modified: i64, seen: Duration) {
        let Ledger { events, bytes, .. } = *self;
        self.marks = VecDeque::from([Mark { modified, seen, events, bytes }]);
    }

    /// Nobody asks for what came before this commit any more.
    pub(super) fn forget(&mut self, before: i64) {
        while self.marks.get(1).is_some_and(|mark| mark.modified <= before) {
            self.marks.pop_front();
        }
    }

    /// A commit after which at least so many events came, the last that is known, if that is known.
    pub(super) fn before_events(&self, count: u64) -> Option<i64> {
        self.last(|mark| self.events - mark.events >= count)
    }

    /// The same with bytes.
    pub(super) fn before_bytes(&self, bytes: u64) -> Option<i64> {
        self.last(|mark| self.bytes - mark.bytes >= bytes)
    }

    /// The last commit that is known to have been seen by then.
    pub(super) fn seen_by(&self, then: Duration) -> Option<i64> {
        self.last(|mark| mark.seen <= then)
    }

    /// The totals grow, so what is so of a mark is so of those before it.
    fn last(&self, is_so: impl Fn(&Mark) -> bool) -> Option<i64> {
        let place = self.marks.partition_point(is_so);
        self.marks.get(place.checked_sub(1)?).map(|mark| mark.modified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_after_which_commit_so_much_came() {
        let mut ledger = Ledger::new(10, Duration::ZERO);
        for modified in [20, 30, 40] {
            ledger.add((modified, Duration::ZERO), 2, 100);
        }
        let before = |count| ledger.before_events(count);
        assert_eq!([before(0), before(1), before(2), before(3)].map(Option::unwrap), [40, 30, 30, 20]);
        assert_eq!((before(6), before(7)), (Some(10), None));
        assert_eq!((ledger.before_bytes(250), ledger.before_bytes(301)), (Some(10), None));
        let upto = |modified| ledger.bytes_upto(modified);
        assert_eq!([upto(0), upto(10), upto(20), upto(39), upto(40)], [0, 0, 100, 200, 300]);
        ledger.forget(30);
        assert_eq!(ledger.bytes_upto(10), 200, "nobody knows more");
        assert_eq!((ledger.before_events(2), ledger.before_events(3)), (Some(30), None));
        ledger.jump(90, Duration::ZERO);
        ledger.add((100, Duration::ZERO), 1, 1);
        assert_eq!((ledger.before_events(1), ledger.before_events(2)), (Some(90), None));
    }

    #[test]
    fn tells_what_was_seen_by_when() {
        let second = Duration::from_secs;
        let mut ledger = Ledger::new(10, second(5));
        for number in 6_u32..9 {
            ledger.add((10 * i64::from(number), second(number.into())), 1, 1);
        }
        let seen = |then| ledger.seen_by(second(then));
        assert_eq!([seen(4), seen(5), seen(7), seen(100)], [None, Some(10), Some(70), Some(80)]);
        ledger.jump(200, second(300));
        assert_eq!([ledger.seen_by(second(299)), ledger.seen_by(second(300))], [None, Some(200)]);
    }

    #[test]
    fn is_bounded_and_never_tells_of_too_few() {
        let mut ledger = Ledger::new(0, Duration::ZERO);
        let total = 100_000;
        for modified in 1..=total {
            ledger.add((modified, Duration::ZERO), 1, 1);
        }
        assert!(ledger.marks.len() <= MARKS);
        let found = ledger.before_events(1_000).expect("it is known");
        let after = total - found;
        assert!((1_000..1_100).contains(&after), "{after}");
    }
}
