//! The promises of watchkeep as checkers, a model, and the suites that every engine must pass.

pub mod model;
pub mod ops;
pub mod promises;
pub mod record;
pub mod runner;
pub mod surface;
pub mod workload;
