//! When which lane is to be served again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::seat::{Lane, Seat};

/// The timers of all stores: each lane has at most one.
#[derive(Default)]
pub(super) struct Timers {
    by_time: BTreeMap<(Instant, u64, Lane), Arc<Seat>>,
    by_lane: HashMap<(u64, Lane), Instant>,
}

impl Timers {
    /// Sets a lane's timer, in place of the one that it has.
    pub(super) fn set(&mut self, seat: &Arc<Seat>, lane: Lane, at: Instant) {
        self.clear(seat, lane);
        self.by_time.insert((at, seat.id, lane), seat.clone());
        self.by_lane.insert((seat.id, lane), at);
    }

    pub(super) fn clear(&mut self, seat: &Seat, lane: Lane) {
        if let Some(at) = self.by_lane.remove(&(seat.id, lane)) {
            self.by_time.remove(&(at, seat.id, lane));
        }
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first_key_value().map(|((at, ..), _)| *at)
    }

    /// Takes out one that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<(Arc<Seat>, Lane)> {
        let first = self.by_time.first_entry().filter(|first| first.key().0 <= now)?;
        let ((_, id, lane), seat) = first.remove_entry();
        self.by_lane.remove(&(id, lane));
        Some((seat, lane))
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_lane_has_one_timer_and_they_come_in_order_of_time() {
        let (mut timers, start) = (Timers::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let seats = [0, 1].map(|id| Arc::new(Seat::new(id)));
        timers.set(&seats[0], Lane::Work, at(9));
        timers.set(&seats[1], Lane::Work, at(2));
        timers.set(&seats[0], Lane::Vital, at(3));
        timers.set(&seats[0], Lane::Work, at(1));
        timers.set(&seats[1], Lane::Vital, at(0));
        timers.clear(&seats[1], Lane::Vital);
        assert_eq!(timers.next(), Some(at(1)));
        let due = std::iter::from_fn(|| timers.due(at(2))).map(|(seat, lane)| (seat.id, lane));
        assert_eq!(due.collect::<Vec<_>>(), [(0, Lane::Work), (1, Lane::Work)]);
        assert_eq!(timers.next(), Some(at(3)));
        assert_eq!(timers.by_lane.len(), 1);
    }
}
