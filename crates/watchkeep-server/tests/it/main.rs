//! The server through real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what cannot go on fails the test"
)]

mod changes;
mod draining;
mod entries;
mod lists;
mod openapi;
mod operations;
mod proxies;
mod replaced;
mod strangers;
mod streams;
mod support;
mod support_entries;
mod support_ws;
mod ws;
