//! Generated concurrent workloads, held against all promises. Longer runs: `cargo run --release -p watchkeep-testkit
//! --bin promises -- --help`.

use std::time::Duration;

use watchkeep_testkit::faults::Row;
use watchkeep_testkit::size::scaled;
use watchkeep_testkit::surface::{Fault, Faults, File, Hub, Memory, Site, Wire};
use watchkeep_testkit::workload::{Load, Plan, Report, round_within, stalled};

/// Clients that stand still for a moment, are cut off anywhere, and come back.
const FAULTS: Faults = Faults { seed: 0, messages: 20, stall: 30, cut: 16 << 10 };

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

/// What clients with faults were told, for the evidence.
fn print(report: &Report, counts: [(&str, u64); 3]) {
    let told = [("events", report.events as u64), ("losses", report.losses as u64)];
    let counts = told.into_iter().chain(counts).map(|(name, count)| (name.to_owned(), count)).collect();
    Row { rounds: report.rounds as u64, counts, ..Row::default() }.print("hub");
}

#[test]
fn clients_that_stall_drop_and_return_keep_the_promises() -> Result<(), Fault> {
    let mut report = Report::default();
    for seed in 501..=500 + scaled(4) {
        for wire in [Wire::Events, Wire::WebSocket] {
            run(Box::new(Hub::new(wire)?.with_faults(Faults { seed, ..FAULTS })), seed, &mut report)?;
        }
    }
    assert!(report.is_clean(), "{report}");
    print(&report, [("stalls", 0), ("cuts", 0), ("returns", 0)]);
    Ok(())
}

#[test]
fn clients_that_fall_out_of_their_ring_keep_the_promises() -> Result<(), Fault> {
    let (mut report, mut stalls, mut cuts, mut returns) = (Report::default(), 0, 0, 0);
    for seed in 601..=600 + scaled(1) {
        for wire in [Wire::Events, Wire::WebSocket] {
            let (round, suffered) = stalled(wire, seed)?;
            assert!(suffered.stalls > 0, "{suffered:?}");
            (stalls, cuts, returns) =
                (stalls + suffered.stalls, cuts + suffered.cuts, returns + suffered.returns);
            report.add(&round);
        }
    }
    assert!(report.is_clean(), "{report}");
    print(&report, [("stalls", stalls), ("cuts", cuts), ("returns", returns)]);
    Ok(())
}
