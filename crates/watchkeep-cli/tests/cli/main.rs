//! The command line from outside: what it prints, what it says when it refuses, how it ends.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what cannot go on fails the test"
)]

mod consumers;
mod entries;
mod events;
mod files;
mod http;
mod migrate;
mod sandbox;
mod serving;
mod tokens;
mod transfer;
mod upkeep;
mod watching;
