//! The engine as the models of interleavings use it: revisions lie far apart, a leader takes few along, and others may
//! commit in between.

use crate::rules::{Author, Job, Moment};
use crate::types::batch::Operation;
use crate::types::options::Retention;
use crate::types::value::Value;
use crate::types::writing::SetOptions;

use super::*;
use crate::engine::job::Transaction as _;

/// Revisions are ordered, and not dense: from one to the next it is as far as no distance in events may be.
const GAP: u64 = 5_000;

/// How many writes a leader takes along: few, so that the turn is handed on, too.
const TAKES_ALONG: TakesAlong = TakesAlong(1);

/// The revision of the n-th event.
#[cfg(shuttle)]
pub(crate) fn nth(ordinal: u64) -> Revision {
    Revision::new(ordinal * GAP)
}

/// Which event has this revision, counted from one.
pub(crate) fn ordinal(revision: Revision) -> u64 {
    revision.get() / GAP
}

impl MemoryEngine {
    pub(crate) fn model(signal: Arc<Signal>) -> Arc<MemoryEngine> {
        // Nobody's deadline comes while a model runs.
        let options = Options::new().busy_timeout(Duration::from_secs(3_600)).retention(Retention::FOREVER);
        Arc::new(MemoryEngine::over(
            StoreId::MODEL,
            State::new(Epoch::NONE, Spacing::every(GAP)),
            TAKES_ALONG,
            &options,
            signal,
        ))
    }

    /// Commits as another process would: nothing of it is in the feed.
    pub(crate) fn commit_elsewhere(&self) -> Revision {
        loop {
            let mut rows = MemoryRows::begin(State::clone(&self.state()), self.most);
            let moment = Moment { now: self.clock.now(), limits: self.limits, is_tight: false };
            let set = Operation::set("g", "k", Value::from("v"), SetOptions::new());
            Job::new(&mut rows, moment, &Author::default()).operate(&set).expect("a set");
            rows.seal().expect("a log in memory");
            let last = rows.last;
            if self.publish(rows.into_parts().0) {
                return last;
            }
        }
    }

    /// Commits and leaves it in the feed; whoever calls this is alone with it.
    #[cfg(loom)]
    pub(crate) fn commit_here(&self) -> Revision {
        let base = self.end();
        let last = self.commit_elsewhere();
        let changes = self.state().rows_after(base).map(|row| row.change.clone()).collect();
        self.feed.push(base, last, changes);
        last
    }

    /// The last revision.
    pub(crate) fn end(&self) -> Revision {
        self.state().last()
    }
}
