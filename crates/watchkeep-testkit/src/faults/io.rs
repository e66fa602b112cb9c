//! Each single operation of SQLite fails: the first, the second, until a whole run meets no failure any more.

use watchkeep::{Durability, Error, ErrorKind, Filter, Kind, Revision};
use watchkeep_faultdisk::{Fault as DiskFault, What};

use super::verify::{Judge, verify};
use super::{Row, Stage, Workload};
use crate::ops::Dice;
use crate::record::Seen;
use crate::surface::Fault;

/// How many steps a run makes: what comes later does not differ. Some steps are several writes.
const fn steps(workload: Workload) -> u64 {
    if matches!(workload, Workload::Crowd | Workload::Consumers) { 4 } else { 10 }
}

/// What can be made to fail, with its name on the command line.
pub const KINDS: [(What, &str); 6] = [
    (What::Write, "write"),
    (What::Full, "full"),
    (What::Sync, "sync"),
    (What::Truncate, "truncate"),
    (What::Read, "read"),
    (What::Any, "any"),
];

/// Lets operations of a kind fail, one in `every`, beginning with `from`, until none is left. The seed of what is wrong
/// is the number of the operation.
///
/// # Errors
///
/// When the workload cannot be run at all.
pub fn sweep(workload: Workload, what: What, sticky: bool, from: u64, every: usize) -> Result<Row, Fault> {
    let mut row = Row::default();
    for nth in (from..).step_by(every) {
        match point(workload, DiskFault { what, nth, sticky })? {
            Point::Unmet => break,
            Point::Fine => row.fine([]),
            Point::Wrong(problem) => row.wrong(nth, problem),
        }
    }
    Ok(row)
}

/// What one failure came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Point {
    /// The run made fewer operations of this kind.
    Unmet,
    /// It was told, and nothing else was harmed.
    Fine,
    /// A promise was broken.
    Wrong(String),
}

/// Runs a workload over one failure, from the making of the file to its closing.
///
/// # Errors
///
/// When there is no folder to be had.
pub fn point(workload: Workload, fault: DiskFault) -> Result<Point, Fault> {
    let mut stage = Stage::new(workload, Durability::Full)?;
    stage.disk.fail(fault);
    let run = run(&mut stage).and_then(|()| after(&mut stage, fault));
    Ok(match run {
        _ if stage.disk.fired() == 0 => Point::Unmet,
        Ok(()) => Point::Fine,
        Err(problem) => Point::Wrong(problem),
    })
}

/// The error of a disk, by its kind.
fn by_kind(during: &str, error: &Error) -> Result<(), String> {
    match error.kind() {
        ErrorKind::Io
        | ErrorKind::Full
        | ErrorKind::UnknownOutcome
        | ErrorKind::Poisoned
        | ErrorKind::ReadOnly => Ok(()),
        _ => Err(format!("{during} a failure of the disk is told as {error:?}")),
    }
}

fn run(stage: &mut Stage) -> Result<(), String> {
    if let Err(error) = stage.reopen() {
        by_kind("while opening", &error)?;
    }
    let mut dice = Dice::new(11);
    let steps = steps(stage.workload());
    for step in 0..steps {
        if step == steps / 2 && stage.workload() == Workload::Upkeep {
            stage.reopen().or_else(|error| by_kind("while opening again", &error))?;
        }
        let began = stage.disk.now();
        let (done, errors) = stage.step(step, &mut dice);
        if let Err(error) = done {
            by_kind("while writing", &error)?;
            if error.kind() == ErrorKind::UnknownOutcome {
                stage.ledger().doubt(began);
            }
        }
        errors.iter().try_for_each(|error| by_kind("while watching", error))?;
        reads_go_on(stage)?;
    }
    Ok(())
}

/// No read is behind what was acknowledged.
fn reads_go_on(stage: &Stage) -> Result<(), String> {
    let Some(store) = stage.store() else { return Ok(()) };
    let told = stage.ledger().told();
    match store.last_revision() {
        Ok(last) if last < told => {
            return Err(format!("{told} was acknowledged, and {last} is read as the last"));
        }
        Ok(_) => {}
        Err(error) => by_kind("while reading", &error)?,
    }
    if told == Revision::ZERO {
        return Ok(());
    }
    let mut history = store.history(Filter::everything().kinds(Kind::ALL), Revision::new(told.get() - 1));
    match history.next() {
        Some(Ok(event)) if stage.ledger().event(told) == Some(&Seen::from(&event)) => Ok(()),
        // It was acknowledged, and the watcher could not read it yet.
        Some(Ok(event)) if event.revision() == told && stage.ledger().event(told).is_none() => Ok(()),
        Some(Err(error)) => by_kind("while reading the log", &error),
        other => Err(format!("{told} was acknowledged, and the log has {other:?}")),
    }
}

/// The disk works again.
fn after(stage: &mut Stage, fault: DiskFault) -> Result<(), String> {
    let failed = |error: &Error| format!("with the fault gone: {error:?}");
    stage.disk.heal();
    if stage.store().is_none() {
        stage.reopen().map_err(|error| failed(&error))?;
    }
    let written = stage.store().map(|store| store.set("after", "healing", "x").map(|it| store.cursor(it)));
    match written {
        Some(Ok(cursor)) => {
            let revision = cursor.revision();
            let now = stage.disk.now();
            stage.ledger().acknowledged(now, cursor);
            if let Some(error) = stage.drain().first() {
                return Err(format!("watching {}", failed(error)));
            }
            if stage.ledger().event(revision).is_none() {
                return Err(format!("{revision} was acknowledged, and the watcher has not got it"));
            }
        }
        // It refuses, and says what to do.
        Some(Err(error)) if error.kind() == ErrorKind::Poisoned => {}
        Some(Err(error)) => return Err(failed(&error)),
        None => {}
    }
    stage.close();
    let ledger = stage.ledger().clone();
    if let Some(problem) = ledger.problems.first() {
        return Err(problem.clone());
    }
    let now = stage.disk.now();
    verify(&stage.path(), &ledger.expect(now), Judge::Full)
        .map(drop)
        .map_err(|what| format!("opened again after {fault:?}: {what}"))
}
