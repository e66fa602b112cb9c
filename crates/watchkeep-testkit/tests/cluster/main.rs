//! The suites on a real etcd cluster, whose members stand in `WATCHKEEP_TEST_ETCD`:
//! `scripts/cluster cargo test --all-features --test cluster`.

#[cfg(unix)]
mod apart;
mod compaction;
#[cfg(unix)]
mod crowd;
mod far;
mod hub;
mod leases;
mod lies;
mod linear;
mod machines;
#[cfg(unix)]
mod members;
mod own;
#[cfg(unix)]
mod paused;
mod restored;
mod room;
mod scene;
mod secure;

use std::time::Duration;

use watchkeep::{Options, Retention};
use watchkeep_testkit::runner::Runner;
use watchkeep_testkit::size::scaled;
use watchkeep_testkit::surface::{Cluster, Fault};
use watchkeep_testkit::workload::{Load, Plan, Report, round_within};

/// A prefix of its own in the cluster.
fn cluster() -> Result<Cluster, Fault> {
    Cluster::new().ok_or_else(|| "no cluster: run this by scripts/cluster".into())
}

#[test]
fn a_store_in_a_cluster_does_what_the_model_does() -> Result<(), Fault> {
    for seed in 700..700 + scaled(1) {
        let mut runner = Runner::new(Box::new(cluster()?), Options::new(), Retention::FOREVER)?;
        runner.run(seed, 250).map_err(|mismatch| format!("seed {seed}: {mismatch}"))?;
    }
    Ok(())
}

#[test]
fn a_cluster_keeps_the_promises() -> Result<(), Fault> {
    let mut report = Report::default();
    for seed in 701..=700 + scaled(3) {
        let plan = Plan::new(seed, Load::SMALL);
        report.add(&round_within(Box::new(cluster()?), plan, Duration::from_secs(120))?);
    }
    assert!(report.is_clean(), "{report}");
    Ok(())
}
