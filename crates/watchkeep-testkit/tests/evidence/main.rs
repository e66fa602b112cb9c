//! What takes the machine's clock: run alone by `scripts/evidence`, never by `cargo test`.

mod expiry_on_time;
mod soak;
