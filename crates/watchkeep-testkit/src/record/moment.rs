//! Moments: one order of everything that the threads of a run do, and the real time beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When something happened: its place among all that was noted, and the time since the run began.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment {
    /// No two moments of a run have the same; a smaller one was earlier, whatever the thread.
    pub tick: u64,
    /// Time since the run began.
    pub at: Duration,
}

impl Moment {
    /// A moment with this place and no time, for made-up streams.
    pub const fn tick(tick: u64) -> Moment {
        Moment { tick, at: Duration::ZERO }
    }
}

/// A call: when it was made and when it returned.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Before the call.
    pub called: Moment,
    /// After it.
    pub returned: Moment,
}

impl Span {
    /// A call between two places, for made-up streams.
    pub const fn ticks(called: u64, returned: u64) -> Span {
        Span { called: Moment::tick(called), returned: Moment::tick(returned) }
    }

    /// How long it took.
    pub fn duration(&self) -> Duration {
        self.returned.at.saturating_sub(self.called.at)
    }
}

/// Gives out moments; clones give out of the same row.
#[derive(Debug, Clone)]
pub struct Ticker(Arc<(Instant, AtomicU64)>);

impl Ticker {
    /// Begins a run.
    pub fn new() -> Ticker {
        Ticker(Arc::new((Instant::now(), AtomicU64::new(1))))
    }

    /// This very moment.
    pub fn now(&self) -> Moment {
        let (began, next) = &*self.0;
        Moment { tick: next.fetch_add(1, Ordering::SeqCst), at: began.elapsed() }
    }

    /// Makes a call and notes when.
    pub fn span<T>(&self, call: impl FnOnce() -> T) -> (T, Span) {
        let called = self.now();
        let result = call();
        (result, Span { called, returned: self.now() })
    }
}

impl Default for Ticker {
    fn default() -> Self {
        Ticker::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_several_threads_have_one_order() {
        let ticker = Ticker::new();
        let mut moments: Vec<Moment> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..100).map(|_| ticker.now()).collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        moments.sort_by_key(|moment| moment.tick);
        moments.dedup_by_key(|moment| moment.tick);
        assert_eq!(moments.len(), 400);
    }
}
