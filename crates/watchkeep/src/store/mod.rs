//! The store: what users hold. It writes through the engine, has the hub deliver, and returns.

mod core;
mod handle;
mod history;
mod list;
mod report;
mod thread;
mod transaction;
mod view;

pub use handle::{Store, WeakStore};
pub use history::History;
pub use list::{Entries, Groups};
pub use report::{CheckReport, Stats};
pub use transaction::{Committed, Transaction};
pub use view::{Snapshot, View};
