//! The power goes at any moment. Longer runs: `cargo run --release -p watchkeep-testkit --bin faults -- power`.

use watchkeep::Durability;
use watchkeep_testkit::faults::power::{Plan, cut};
use watchkeep_testkit::faults::{Row, Workload};
use watchkeep_testkit::size::scaled;
use watchkeep_testkit::surface::Fault;

/// So many runs of a workload, with 50 cuts each.
fn cuts(runs: u64, plan: impl Fn(u64) -> Plan) -> Result<Row, Fault> {
    let mut all = Row::default();
    for seed in 1..=runs {
        all.add(cut(&plan(seed))?);
    }
    Ok(all)
}

/// The same where nothing may be wrong: the first that is ends it.
fn sound_cuts(runs: u64, plan: impl Fn(u64) -> Plan) -> Result<Row, Fault> {
    let mut all = Row::default();
    for seed in 1..=runs {
        all.add(cut(&plan(seed))?);
        assert_eq!(all.problem(), None);
    }
    Ok(all)
}

/// 150 cuts: whatever was acknowledged or delivered before the cut is there after it.
fn nothing_is_lost(workload: Workload) -> Result<(), Fault> {
    let all = sound_cuts(scaled(3), |seed| Plan::new(workload, Durability::Full, seed))?;
    assert_eq!((all.rounds, all.count("lost")), (scaled(150), 0));
    Ok(())
}

#[test]
fn a_power_cut_loses_no_put() -> Result<(), Fault> {
    nothing_is_lost(Workload::Puts)
}

#[test]
fn a_power_cut_loses_no_transaction_and_no_half_of_one() -> Result<(), Fault> {
    nothing_is_lost(Workload::Transactions)
}

#[test]
fn a_power_cut_loses_no_expiry() -> Result<(), Fault> {
    nothing_is_lost(Workload::Expiry)
}

#[test]
fn a_power_cut_loses_nothing_amidst_sweeps_trims_and_checkpoints() -> Result<(), Fault> {
    nothing_is_lost(Workload::Upkeep)
}

#[test]
fn a_power_cut_loses_no_counter_of_a_namespace() -> Result<(), Fault> {
    nothing_is_lost(Workload::Tenants)
}

#[test]
fn a_power_cut_loses_nothing_that_was_committed_together() -> Result<(), Fault> {
    nothing_is_lost(Workload::Crowd)
}

#[test]
fn a_power_cut_loses_no_acknowledgement_of_a_consumer() -> Result<(), Fault> {
    nothing_is_lost(Workload::Consumers)
}

#[test]
fn at_relaxed_durability_a_power_cut_takes_whole_transactions_from_the_end() -> Result<(), Fault> {
    let mut all = Row::default();
    for workload in Workload::ALL {
        all.add(sound_cuts(scaled(1), |seed| Plan::new(workload, Durability::Relaxed, seed))?);
    }
    assert!(all.count("lost") > all.rounds / 4, "the cuts take hardly anything: {all}");
    Ok(())
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_nothing_that_was_is_lost() -> Result<(), Fault> {
    let mut all = Row::default();
    for workload in Workload::ALL {
        all.add(sound_cuts(scaled(1), |seed| Plan {
            failing: true,
            ..Plan::new(workload, Durability::Full, seed)
        })?);
    }
    assert!(all.count("after-a-failed-sync") >= scaled(200), "{all}");
    Ok(())
}

// What the cuts are worth: they find a file that does not sync for each commit, and a disk that does not sync at all.

#[test]
fn a_file_that_is_not_synced_for_each_commit_is_found_out() -> Result<(), Fault> {
    for workload in Workload::ALL {
        let full = |seed| Plan::new(workload, Durability::Full, seed);
        let all = cuts(1, |seed| Plan { durability: Durability::Relaxed, ..full(seed) })?;
        assert!(all.broken > all.rounds / 4, "{workload:?}: {all}");
    }
    Ok(())
}

#[test]
fn a_disk_that_lies_about_syncs_is_found_out() -> Result<(), Fault> {
    for workload in Workload::ALL {
        let all = cuts(1, |seed| Plan { lies: true, ..Plan::new(workload, Durability::Full, seed) })?;
        assert!(all.broken > all.rounds / 2, "{workload:?}: {all}");
    }
    Ok(())
}
