//! Generated concurrent workloads, held against all promises. Longer runs: `cargo run --release -p watchkeep-testkit
//! --bin promises -- --help`.

use watchkeep_testkit::surface::{Fault, File, Memory, Site};
use watchkeep_testkit::workload::{Load, Plan, Report, round};

fn run(site: &dyn Site, seed: u64, report: &mut Report) -> Result<(), Fault> {
    report.add(&round(site, &Plan::new(seed, Load::SMALL))?);
    Ok(())
}

#[test]
fn files_keep_the_promises() -> Result<(), Fault> {
    let mut report = Report::default();
    for seed in 1..=12 {
        run(&File::new()?, seed, &mut report)?;
    }
    assert!(report.is_clean(), "{report}");
    Ok(())
}

#[test]
fn memory_keeps_the_promises() -> Result<(), Fault> {
    let mut report = Report::default();
    for seed in 101..=104 {
        run(&Memory, seed, &mut report)?;
    }
    assert!(report.is_clean(), "{report}");
    Ok(())
}
