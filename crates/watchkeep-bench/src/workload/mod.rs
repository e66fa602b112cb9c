//! The workloads: what a cell does, in a process and a folder of its own.

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

use std::path::Path;
use std::sync::Barrier;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use crate::Result;
use crate::machine::refuse_memory;
use crate::outcome::{Outcome, Section};
use crate::plan::{Plan, Workload};

/// Measures one cell in an empty folder; its outcome as JSON.
pub(crate) fn cell(plan: &Plan, name: &str, folder: &Path, window: Duration) -> Result<String> {
    let cell = plan.named(name).ok_or_else(|| {
        format!("there is no cell {name:?}; cells are called like set/relaxed/16/watchkeep, see the JSON lines of a run")
    })?;
    refuse_memory(folder)?;
    let outcome = match cell.workload {
        Workload::Floor => set::floor(&cell, folder, window),
        Workload::Set => set::set(&cell, folder, window),
        Workload::Get | Workload::GetZipf => get::get(&cell, folder, window, plan.entries),
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
