//! The store: what users hold. It writes through the engine, has the hub deliver, and returns.

#[cfg(feature = "async")]
mod asynchronous;
mod backup;
mod consumer;
mod core;
mod handle;
mod history;
#[cfg(feature = "json")]
pub mod json;
mod lease;
mod list;
mod quota;
#[cfg(feature = "render")]
mod render;
mod report;
mod rounds;
mod transaction;
mod view;
mod watching;
mod weak;

#[cfg(feature = "async")]
pub use asynchronous::{AsyncStore, Writing};
pub use consumer::{Acker, Consumer};
pub use handle::Store;
pub use history::History;
pub use list::{Entries, Groups};
pub use report::{CheckReport, Stats};
pub use transaction::{Committed, Transaction};
pub use view::{Snapshot, View};
pub use weak::WeakStore;

#[cfg(all(test, shuttle))]
mod tests {
    mod interleavings;
}
