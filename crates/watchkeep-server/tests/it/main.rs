//! The server through real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what cannot go on fails the test"
)]

mod access;
mod batches;
mod bounds;
mod changes;
mod conditions;
mod draining;
mod entries;
mod filters;
mod fixtures;
mod forwarded;
mod lists;
mod openapi;
mod operations;
mod pages;
mod proxies;
mod replaced;
mod sockets;
mod strangers;
mod streams;
mod support;
mod support_entries;
mod support_tls;
mod support_ws;
mod tls;
mod ws;
