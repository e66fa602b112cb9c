//! A run: the cells in rounds, each in a process of its own; what was disturbed is measured again.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::arguments::{Arguments, Measure};
use crate::machine::{Machine, pause};
use crate::outcome::Outcome;
use crate::plan::{Cell, Plan, Workload};
use crate::report;
use crate::syncs;
use crate::ticks::Ticks;

/// How often a disturbed cell is measured again.
const AGAIN: u32 = 3;
/// How long the machine is looked at to see whether it is quiet.
const LOOK: Duration = Duration::from_millis(200);

/// What a whole run came to.
pub(crate) struct Results {
    pub(crate) cells: Vec<Cell>,
    /// The rounds' outcomes of each cell, by its name.
    pub(crate) outcomes: BTreeMap<String, Vec<Outcome>>,
    pub(crate) machine: Machine,
    pub(crate) began: jiff::Timestamp,
    pub(crate) took: Duration,
    /// How many measurements were thrown away, because others used the machine.
    pub(crate) thrown_away: u32,
    /// What `count-syncs` found, or why it could not look; none when sets were not measured.
    pub(crate) syncs: Option<String>,
}

/// A line of the JSON file.
#[derive(Serialize, Deserialize)]
struct Line {
    cell: String,
    /// Of the store, where it is large.
    entries: usize,
    values: String,
    round: u32,
    kept: bool,
    #[serde(flatten)]
    outcome: Outcome,
}

/// What is measured already, by round and cell; and where to note what is measured now.
#[derive(Default)]
struct Record {
    file: Option<File>,
    entries: usize,
    values: String,
    known: BTreeMap<(u32, String), Outcome>,
    thrown_away: u32,
}

impl Record {
    fn open(arguments: &Arguments) -> Result<Record> {
        let Some(path) = &arguments.json else { return Ok(Record::default()) };
        let (entries, values) = (arguments.measure.entries, arguments.measure.values.to_string());
        let mut record = Record { entries, values, ..Record::default() };
        if arguments.resume && path.exists() {
            for line in std::fs::read_to_string(path)?.lines() {
                let line: Line = serde_json::from_str(line)
                    .map_err(|error| format!("{path:?} is not of a run: {error}"))?;
                if line.entries != record.entries || line.values != record.values {
                    return Err(format!(
                        "{path:?} is of a run with --entries {} --values {}; give the same, or another file",
                        line.entries, line.values
                    )
                    .into());
                }
                match line.kept {
                    true => drop(record.known.insert((line.round, line.cell), line.outcome)),
                    false => record.thrown_away += 1,
                }
            }
            record.file = Some(OpenOptions::new().append(true).open(path)?);
        } else {
            record.file = Some(File::create(path)?);
        }
        Ok(record)
    }

    fn note(&mut self, cell: &Cell, round: u32, kept: bool, outcome: &Outcome) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let (entries, values) = (self.entries, self.values.clone());
        let line = Line { cell: cell.name(), entries, values, round, kept, outcome: outcome.clone() };
        Ok(writeln!(file, "{}", serde_json::to_string(&line)?)?)
    }
}

/// Measures what is chosen; the report.
pub(crate) fn run(plan: &Plan, arguments: &Arguments) -> Result<String> {
    let (began, start) = (jiff::Timestamp::now(), Instant::now());
    let mut cells = plan.cells(&arguments.chosen());
    for name in &arguments.contenders {
        if !plan.has(name) {
            return Err(format!(
                "there is no contender {name:?}; the tables of docs/benchmarks.md name them"
            )
            .into());
        }
    }
    cells.retain(|cell| {
        let named = arguments.contenders.iter().any(|name| name == cell.contender.name());
        named || arguments.contenders.is_empty()
    });
    let folder = arguments.measure.folder()?;
    let mut results = Results {
        machine: Machine::look(folder.path()),
        outcomes: BTreeMap::new(),
        began,
        took: Duration::ZERO,
        thrown_away: 0,
        syncs: None,
        cells,
    };
    std::fs::create_dir(folder.path().join("kept"))?;
    let mut record = Record::open(arguments)?;
    results.thrown_away = record.thrown_away;
    let stopped = stop_flag()?;
    let bar = progress(results.cells.iter().map(|cell| u64::from(arguments.repeats(cell.workload))).sum());
    for round in 0..arguments.repeats {
        for place in 0..results.cells.len() {
            // Every other round runs backwards, so that nobody always comes after the same one.
            let place = if round % 2 == 0 { place } else { results.cells.len() - 1 - place };
            let Some(cell) = results.cells.get(place).copied() else { continue };
            if round >= arguments.repeats(cell.workload) {
                continue;
            }
            bar.set_message(cell.name());
            let outcome = match record.known.remove(&(round, cell.name())) {
                Some(known) => known,
                None => {
                    let note = &mut |outcome: &Outcome, kept: bool| {
                        results.thrown_away += u32::from(!kept);
                        record.note(&cell, round, kept, outcome)
                    };
                    measure(arguments, &cell, folder.path(), &stopped, note)?
                }
            };
            results.outcomes.entry(cell.name()).or_default().push(outcome);
            bar.inc(1);
        }
    }
    if arguments.chosen().contains(&Workload::Set) {
        bar.set_message("syncs");
        let counted = syncs::count(plan, &arguments.measure);
        results.syncs = Some(counted.unwrap_or_else(|error| format!("Not counted: {error}\n")));
    }
    bar.finish_and_clear();
    results.took = start.elapsed();
    let report = report::markdown(&results, arguments)?;
    if let Some(path) = &arguments.report {
        std::fs::write(path, &report).map_err(|error| format!("{path:?} cannot be written: {error}"))?;
    }
    folder.close()?;
    Ok(report)
}

/// Measures a cell when the machine is quiet, and again while others disturb it; the quietest outcome.
fn measure(
    arguments: &Arguments,
    cell: &Cell,
    folder: &Path,
    stopped: &AtomicBool,
    note: &mut dyn FnMut(&Outcome, bool) -> Result<()>,
) -> Result<Outcome> {
    let mut best: Option<Outcome> = None;
    for again in 0..=AGAIN {
        wait_for_quiet(arguments, stopped)?;
        let outcome = in_process(&arguments.measure, cell, folder)?;
        let quiet = outcome.others <= arguments.quiet;
        if best.as_ref().is_none_or(|best| outcome.others < best.others) {
            if let Some(worse) = best.replace(outcome) {
                note(&worse, false)?;
            }
        } else {
            note(&outcome, false)?;
        }
        if quiet || again == AGAIN {
            let best = best.ok_or("nothing was measured")?;
            note(&best, true)?;
            return Ok(best);
        }
    }
    Err("nothing was measured".into())
}

/// Runs a cell in a process and a folder of its own.
fn in_process(measure: &Measure, cell: &Cell, folder: &Path) -> Result<Outcome> {
    let fresh = tempfile::Builder::new().prefix("cell-").tempdir_in(folder)?;
    let output = Command::new(std::env::current_exe()?)
        .args(["cell", &cell.name()])
        .arg(fresh.path())
        .arg("--kept")
        .arg(folder.join("kept"))
        .args(["--seconds", &measure.seconds.to_string(), "--entries", &measure.entries.to_string()])
        .args(["--values", &measure.values.to_string()])
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the cell {} failed ({}): {}", cell.name(), output.status, said.trim()).into());
    }
    fresh.close()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Waits until others take less of the machine than is allowed, or patience ends.
fn wait_for_quiet(arguments: &Arguments, stopped: &AtomicBool) -> Result<()> {
    let look = if arguments.quick { Duration::from_millis(1) } else { LOOK };
    let until = Instant::now() + Duration::from_secs_f64(arguments.patience);
    loop {
        if stopped.load(Ordering::Relaxed) {
            return Err("stopped; nothing is written".into());
        }
        let before = Ticks::now()?;
        pause(look);
        if Ticks::now()?.others_since(&before, look) <= arguments.quiet || Instant::now() >= until {
            return Ok(());
        }
    }
}

/// Raised by SIGINT and SIGTERM, so that the data is removed.
fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stopped.clone())?;
    }
    Ok(stopped)
}

/// On a terminal only.
fn progress(cells: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(cells), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} left  {msg}") {
        bar.set_style(style);
    }
    bar
}
