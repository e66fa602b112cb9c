//! The server through a real listener, spoken to over real sockets.
#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail so")]

mod entries;
mod lists;
mod support_entries;
