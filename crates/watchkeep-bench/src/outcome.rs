//! What came of one measurement.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::ticks::Ticks;

/// One cell's numbers, and what was checked.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Rates a second, times in nanoseconds, counts, bytes.
    pub(crate) metrics: BTreeMap<String, f64>,
    pub(crate) checks: Vec<Check>,
    /// What others took of the machine meanwhile, in percent of one core.
    pub(crate) others: f64,
}

/// Something that was counted, and what it had to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Check {
    pub(crate) what: String,
    pub(crate) found: u64,
    pub(crate) expected: u64,
}

impl Outcome {
    pub(crate) fn metric(&mut self, name: &str, value: f64) {
        self.metrics.insert(name.to_owned(), value);
    }

    pub(crate) fn check(&mut self, what: &str, found: u64, expected: u64) {
        self.checks.push(Check { what: what.to_owned(), found, expected });
    }

    /// The first check that failed.
    pub(crate) fn wrong(&self) -> Option<&Check> {
        self.checks.iter().find(|check| check.found != check.expected)
    }
}

/// Looked for before and after what is measured: `strace` sees it, and so `count-syncs` knows what to count.
pub(crate) const BEGIN_MARK: &str = "watchkeep-bench-begins";
pub(crate) const END_MARK: &str = "watchkeep-bench-ends";

/// What is measured, from begin to end: others' use of the machine is counted in it.
#[derive(Debug)]
pub(crate) struct Section {
    ticks: Ticks,
    begun: Instant,
}

impl Section {
    pub(crate) fn begin() -> Result<Section> {
        let _ = Path::new(BEGIN_MARK).exists();
        Ok(Section { ticks: Ticks::now()?, begun: Instant::now() })
    }

    /// How long it took.
    pub(crate) fn end(self, outcome: &mut Outcome) -> Result<Duration> {
        let took = self.begun.elapsed();
        outcome.others = Ticks::now()?.others_since(&self.ticks, took);
        let _ = Path::new(END_MARK).exists();
        Ok(took)
    }
}
