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
mod opening;
#[cfg(feature = "async")]
mod pending;
mod quota;
#[cfg(feature = "render")]
mod render;
mod report;
mod rounds;
mod seal;
mod transaction;
mod view;
mod watching;
mod weak;

#[cfg(feature = "async")]
pub use asynchronous::AsyncStore;
pub use consumer::{Acker, Consumer};
pub use handle::Store;
pub use history::History;
pub use list::{Entries, Groups};
#[cfg(feature = "async")]
pub use pending::Writing;
pub use report::{CheckReport, Stats};
pub use transaction::{Committed, Transaction};
pub use view::{Snapshot, View};
pub use weak::WeakStore;

#[cfg(test)]
mod tests {
    #[cfg(all(feature = "async", not(any(loom, shuttle))))]
    mod distant;
    #[cfg(shuttle)]
    mod interleavings;
}
