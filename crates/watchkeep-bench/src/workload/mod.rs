//! The workloads: what a cell does, in a process and a folder of its own.

mod batch;
mod disturb;
mod fanout;
mod get;
mod growth;
mod import;
mod latency;
mod open;
mod pipeline;
mod replay;
mod scan;
mod selectivity;
mod set;

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use crate::Result;
use crate::data::Name;
use crate::machine::refuse_memory;
use crate::outcome::{Outcome, Section};
use crate::plan::{Cell, Plan, Workload};

/// Where a cell has its files.
pub(crate) struct Place<'a> {
    /// Its own folder, empty.
    pub(crate) folder: &'a Path,
    /// For the stores that several cells read: loading them takes longer than the cells.
    pub(crate) kept: &'a Path,
}

impl Place<'_> {
    /// The folder of a store of this contender that holds all these names, loaded unless an earlier cell did so.
    fn loaded(&self, cell: &Cell, names: &[Name]) -> Result<PathBuf> {
        let folder = self.kept.join(cell.contender.name());
        let mark = self.kept.join(format!("{}-is-loaded", cell.contender.name()));
        if !mark.exists() {
            std::fs::create_dir_all(&folder)?;
            cell.contender.open(&folder, cell)?.load(names, names.len())?;
            // Opened and closed again, so that the write-ahead log is in the file.
            drop(cell.contender.open(&folder, cell)?);
            std::fs::write(mark, "")?;
        }
        Ok(folder)
    }
}

/// Measures one cell; its outcome as JSON.
pub(crate) fn cell(plan: &Plan, name: &str, place: &Place<'_>, window: Duration) -> Result<String> {
    let folder = place.folder;
    let cell = plan.named(name).ok_or_else(|| {
        format!("there is no cell {name:?}; cells are called like set/relaxed/16/watchkeep, see the JSON lines of a run")
    })?;
    refuse_memory(folder)?;
    let outcome = match cell.workload {
        Workload::Floor => set::floor(&cell, folder, window),
        Workload::Set => set::set(&cell, folder, window),
        Workload::Get | Workload::GetZipf | Workload::GetBusy => get::get(&cell, place, window, plan.entries),
        Workload::GetCold => get::cold(&cell, place, plan.entries),
        Workload::Batch => batch::batch(&cell, place, window, plan.entries),
        Workload::Latency => latency::latency(&cell, folder, window),
        Workload::FanOut => fanout::fan_out(&cell, folder, window),
        Workload::Selectivity => selectivity::selectivity(&cell, folder, window),
        Workload::CatchUp | Workload::History | Workload::Lagging => replay::replay(&cell, folder),
        Workload::Pipelined => pipeline::pipelined(&cell, folder, window),
        Workload::Scan => scan::scan(&cell, folder, window),
        Workload::ImportSorted | Workload::ImportRandom => import::import(&cell, folder),
        Workload::DeleteGroup | Workload::Expiry => disturb::disturb(&cell, folder, window),
        Workload::Open => open::open(&cell, folder, window),
        Workload::Growth => growth::growth(&cell, folder, window),
    }?;
    if let Some(check) = outcome.wrong() {
        return Err(format!("{name}: {}: {} instead of {}", check.what, check.found, check.expected).into());
    }
    Ok(serde_json::to_string(&outcome)?)
}

/// Runs this many threads that begin together: each gets ready, calls what it is given, and works. How long the work
/// took, and what came of it.
fn together<T: Send>(
    threads: usize,
    outcome: &mut Outcome,
    work: impl Fn(usize, &dyn Fn()) -> Result<T> + Sync,
) -> Result<(Duration, Vec<T>)> {
    let barrier = Barrier::new(threads + 1);
    let wait = || {
        barrier.wait();
        barrier.wait();
    };
    std::thread::scope(|scope| {
        let (work, wait) = (&work, &wait);
        let threads: Vec<_> = (0..threads).map(|number| scope.spawn(move || work(number, wait))).collect();
        barrier.wait();
        let section = Section::begin();
        barrier.wait();
        let done: Result<Vec<T>> = threads.into_iter().map(joined).collect();
        let took = section?.end(outcome)?;
        Ok((took, done?))
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err("a thread of the benchmark panicked".into()))
}
