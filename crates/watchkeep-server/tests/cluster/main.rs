//! Several servers that share nothing but a real etcd cluster, whose members stand in `WATCHKEEP_TEST_ETCD`:
//! `scripts/cluster cargo test --all-features --test cluster`.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what cannot go on fails the test"
)]

mod away;
mod link;
#[expect(dead_code, reason = "the tests of one server use the rest")]
#[path = "../it/support.rs"]
mod support;
#[expect(dead_code, reason = "the tests of one server use the rest")]
#[path = "../it/support_entries.rs"]
mod support_entries;
mod together;
mod tokens;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{LIMIT, Result};
use watchkeep::Options;

/// The members of the cluster.
fn members() -> Result<String> {
    Ok(std::env::var("WATCHKEEP_TEST_ETCD").map_err(|_| "no cluster: run this by scripts/cluster")?)
}

/// A prefix in the cluster where nothing is yet.
fn prefix() -> String {
    static PLACES: AtomicU64 = AtomicU64::new(0);
    format!("servers/{}-{}", std::process::id(), PLACES.fetch_add(1, Ordering::Relaxed))
}

/// Options that wait while the members elect a leader: they take up to ten seconds for that.
fn patient() -> Options {
    Options::new().busy_timeout(Duration::from_secs(40))
}

fn place() -> Result<String> {
    Ok(format!("etcd://{}/{}", members()?, prefix()))
}

/// Asks again until this holds.
fn until(what: &str, holds: impl Fn() -> bool) -> Result {
    let began = Instant::now();
    while !holds() {
        if began.elapsed() > LIMIT {
            return Err(format!("it never comes about that {what}").into());
        }
        // From one look to the next; what is waited for comes from another process.
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Ok(())
}
