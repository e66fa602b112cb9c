//! Generated workloads: several writers at once, watchers of every filter and policy, fast, slow and stalled ones,
//! some that come and go, callbacks that write back, transactions that fail, a log that is trimmed meanwhile, a clock
//! that is moved, restarts. What everybody was told is recorded, and held against the promises afterwards.
//!
//! What is drawn from the seed is the plan: who does what. How the threads interleave is the machine's; so a seed
//! that failed is run again several times, and a promise is believed after many seeds, not after one.

mod callback;
mod plan;
mod reader;
mod report;
mod round;
mod scribe;
mod stage;
mod stalled;
mod writer;

pub use plan::{Load, Pace, Plan, WatchPlan};
pub use report::{Line, Report};
pub use round::{Round, round, round_within};
pub use stalled::stalled;
