//! How many interleavings a model checker runs, as asked and as counted.

use std::fmt::Debug;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the environment says of this name, or the default.
pub(crate) fn setting<T: FromStr<Err: Debug>>(name: &str, default: T) -> T {
    std::env::var(name).map_or(default, |given| given.parse().unwrap())
}

/// How many interleavings of a model were run. It is told when that ends, by a failure, too.
pub(crate) struct Schedules {
    model: String,
    run: AtomicU64,
}

impl Schedules {
    pub(crate) fn of(model: String) -> Schedules {
        Schedules { model, run: AtomicU64::new(0) }
    }

    pub(crate) fn count(&self) {
        self.run.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Schedules {
    #[expect(clippy::print_stdout, reason = "how much was explored is what is to be known")]
    fn drop(&mut self) {
        let schedules = self.run.load(Ordering::Relaxed);
        println!("{}: {schedules} schedules", self.model);
    }
}
