//! The promises of watchkeep as checkers, a model, and the suites that every engine must pass.

pub mod promises;
pub mod record;
