//! Generated concurrent workloads, held against all promises. Longer runs: `cargo run --release -p watchkeep-testkit
//! --bin promises -- --help`.

use std::time::Duration;

use watchkeep_testkit::size::scaled;
use watchkeep_testkit::surface::{Fault, File, Hub, Memory, Site, Wire};
use watchkeep_testkit::workload::{Load, Plan, Report, round_within};

fn run(site: Box<dyn Site>, seed: u64, report: &mut Report) -> Result<(), Fault> {
    report.add(&round_within(site, Plan::new(seed, Load::SMALL), Duration::from_secs(120))?);
    Ok(())
}

#[test]
fn files_keep_the_promises() -> Result<(), Fault> {
    let mut report = Report::default();
    for seed in 1..=scaled(12) {
        run(Box::new(File::new()?), seed, &mut report)?;
    }
    assert!(report.is_clean(), "{report}");
    Ok(())
}

#[test]
fn memory_keeps_the_promises() -> Result<(), Fault> {
    let mut report = Report::default();
    for seed in 101..=100 + scaled(5) {
        run(Box::new(Memory), seed, &mut report)?;
    }
    assert!(report.is_clean(), "{report}");
    Ok(())
}

#[test]
fn futures_and_asynchronous_streams_keep_the_promises() -> Result<(), Fault> {
    let mut report = Report::default();
    for seed in 201..=200 + scaled(5) {
        run(Box::new(File::new()?.asynchronous()), seed, &mut report)?;
    }
    assert!(report.is_clean(), "{report}");
    Ok(())
}

#[test]
fn streams_of_server_sent_events_keep_the_promises() -> Result<(), Fault> {
    let mut report = Report::default();
    for seed in 301..=300 + scaled(6) {
        run(Box::new(Hub::new(Wire::Events)?), seed, &mut report)?;
    }
    assert!(report.is_clean(), "{report}");
    Ok(())
}

#[test]
fn subscriptions_over_a_websocket_keep_the_promises() -> Result<(), Fault> {
    let mut report = Report::default();
    for seed in 401..=400 + scaled(6) {
        run(Box::new(Hub::new(Wire::WebSocket)?), seed, &mut report)?;
    }
    assert!(report.is_clean(), "{report}");
    Ok(())
}
