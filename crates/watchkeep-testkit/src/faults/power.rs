//! The power goes.

use std::time::Duration;

use watchkeep::{Durability, ErrorKind};
use watchkeep_faultdisk::{Fault as DiskFault, What};

use super::verify::verify;
use super::{FILE, Row, Stage, Workload, scratch};
use crate::ops::{Choices, Dice};
use crate::surface::Fault;

/// Rounds on one run of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// What the store is used for.
    pub workload: Workload,
    /// How durable its file is.
    pub durability: Durability,
    /// How durable it is held to be: the same, unless somebody tries whether a difference is seen.
    pub judged: Durability,
    /// The disk says that syncs are made, and makes none.
    pub lies: bool,
    /// Syncs fail now and then before the power goes.
    pub failing: bool,
    /// Where everything random comes from.
    pub seed: u64,
    /// How many steps are made.
    pub steps: u64,
    /// How many cuts are tried on what these steps did.
    pub cuts: u64,
}

impl Plan {
    /// Cuts on a file of this durability.
    pub fn new(workload: Workload, durability: Durability, seed: u64) -> Plan {
        Plan {
            workload,
            durability,
            judged: durability,
            lies: false,
            failing: false,
            seed,
            // Some steps are several writes.
            steps: match workload {
                Workload::Crowd => 8,
                Workload::Consumers => 16,
                _ => 30,
            },
            cuts: 50,
        }
    }
}

/// Runs a workload and cuts the power at random places of it.
///
/// # Errors
///
/// When the workload cannot be run at all.
pub fn cut(plan: &Plan) -> Result<Row, Fault> {
    let mut dice = Dice::new(plan.seed);
    let mut stage = Stage::new(plan.workload, plan.durability)?;
    if plan.lies {
        stage.disk.lie_about_syncs();
    }
    if plan.workload == Workload::Crowd {
        // Who is told too early of a commit has time to say so.
        stage.disk.slow_syncs(Duration::from_millis(2));
    }
    let mut row = Row::default();
    if plan.failing {
        if let Err(what) = run_failing(&mut stage, plan.steps, &mut dice) {
            row.wrong(plan.seed, what);
        }
    } else {
        stage.run(plan.steps, &mut dice)?;
    }
    let (recording, ledger) = (stage.recording(), stage.ledger().clone());
    drop(stage);
    if let Some(problem) = ledger.problems.first() {
        row.wrong(plan.seed, problem.clone());
    }
    // Where syncs fail, what comes after the first of them is of interest.
    let from = recording.first_failed_sync().unwrap_or(0);
    let folder = scratch()?;
    for _ in 0..plan.cuts {
        let at = from + dice.below(recording.len() + 1 - from);
        let seed = u64::try_from(dice.below(1 << 30)).unwrap_or(0);
        recording.image_at(at, seed).write_to(folder.path())?;
        match verify(&folder.path().join(FILE), &ledger.expect(at), plan.judged.into()) {
            Ok(found) => {
                let worth_counting = [
                    (found.lost > 0, "lost"),
                    (recording.first_failed_sync().is_some(), "after-a-failed-sync"),
                ];
                row.fine(worth_counting.into_iter().filter(|(is, _)| *is).map(|(_, what)| what));
            }
            Err(what) => row.wrong(plan.seed, format!("cut at {at} of {}: {what}", recording.len())),
        }
    }
    Ok(row)
}

/// A run in which syncs fail now and then. After a write whose outcome is unknown the handle must refuse all that
/// follow, and is opened again.
fn run_failing(stage: &mut Stage, steps: u64, dice: &mut Dice) -> Result<(), String> {
    let failed = |error: watchkeep::Error| format!("without a fault: {error:?}");
    stage.reopen().map_err(failed)?;
    // Since when a failed sync may have left something in doubt.
    let mut since = None;
    for step in 0..steps {
        if dice.below(6) == 0 {
            since = since.filter(|_| stage.disk.fired() > 0).or(Some(stage.disk.now()));
            let nth = 1 + u64::try_from(dice.below(4)).unwrap_or(0);
            stage.disk.fail(DiskFault { what: What::Sync, nth, sticky: dice.below(4) == 0 });
        }
        let (done, _) = stage.step(step, dice);
        let Err(error) = done else { continue };
        let Some(from) = since.take() else { return Err(failed(error)) };
        stage.disk.heal();
        if !matches!(error.kind(), ErrorKind::UnknownOutcome | ErrorKind::Poisoned | ErrorKind::Io) {
            return Err(format!("a failed sync is told as {error:?}"));
        }
        stage.ledger().doubt(from);
        // Upkeep writes through another handle, too, which is closed by now; that one may be what failed.
        if stage.workload() != Workload::Upkeep
            && let Some(Ok(revision)) = stage.store().map(|store| store.set("after", "a failed sync", "x"))
        {
            return Err(format!("after {error:?} the handle acknowledged {revision}"));
        }
        stage.reopen().map_err(failed)?;
    }
    stage.disk.heal();
    stage.close();
    Ok(())
}
