//! The power goes under a real ext4. It takes root, loop devices and the tools that `scripts/test tools` installs.
//! Longer runs: `cargo run --release -p watchkeep-testkit --bin faults -- ext4 ext4-relaxed`.

use watchkeep::Durability;
use watchkeep_testkit::faults::Row;
use watchkeep_testkit::faults::ext4::{Plan, SHARED, cut};
use watchkeep_testkit::size::scaled;
use watchkeep_testkit::surface::Fault;

fn cuts(rounds: u64, durability: Durability, judged: Durability) -> Result<Row, Fault> {
    let mut all = Row::default();
    for (seed, workload) in (1..=rounds).zip(SHARED.into_iter().cycle()) {
        let program = env!("CARGO_BIN_EXE_faults").into();
        all.add(cut(&Plan { program, workload, durability, judged, seed })?);
    }
    Ok(all)
}

#[test]
fn nothing_that_a_process_was_told_is_lost() -> Result<(), Fault> {
    let all = cuts(scaled(4), Durability::Full, Durability::Full)?;
    assert_eq!(all.problem(), None);
    assert_eq!(all.count("lost"), 0);
    assert!(
        all.count("acked") > scaled(40) && all.count("delivered") > scaled(10),
        "hardly anything happened: {all}"
    );
    Ok(())
}

#[test]
fn at_relaxed_durability_whole_transactions_go_from_the_end() -> Result<(), Fault> {
    let all = cuts(scaled(4), Durability::Relaxed, Durability::Relaxed)?;
    assert_eq!(all.problem(), None);
    // A cut takes something in 19 of 20 rounds. A seed does not repeat a round exactly: that it takes nothing in more
    // than three of four must not happen by chance.
    assert!(all.count("lost") >= all.rounds / 4, "the cuts take hardly anything: {all}");
    Ok(())
}

#[test]
fn a_file_that_is_not_synced_for_each_commit_is_found_out() -> Result<(), Fault> {
    let all = cuts(scaled(4), Durability::Relaxed, Durability::Full)?;
    assert!(all.broken >= all.rounds / 4, "{all}");
    Ok(())
}
