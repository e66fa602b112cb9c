//! Benchmarks of watchkeep beside what else a user would take: one command measures and writes the report.
//!
//! A *cell* is one measurement: a workload, a durability, a size and a contender. Each cell runs in a process and a
//! folder of its own (the hidden subcommand `cell`), and the rounds go over all cells in turn, so that a drift of
//! the machine hits all contenders alike. See `docs/benchmarks.md`.
//!
//! What it compares with beside SQLite stands in `peers/`, a crate of its own outside of the workspace.

mod arguments;
#[cfg(feature = "etcd")]
mod cluster;
mod contender;
mod data;
mod layouts;
mod machine;
mod outcome;
mod plan;
mod processes;
mod report;
mod run;
mod samples;
mod syncs;
mod ticks;
mod workload;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

pub use contender::{Contender, Peer, Replayed, Session, Watch, unsupported};
pub use data::{Name, value};
pub use machine::version_in;
pub use plan::{Cell, Workload};
pub use watchkeep::Durability;

use arguments::{Arguments, Command};
use plan::Plan;
use workload::Place;

/// Whatever goes wrong ends the run, with a sentence that says what to do.
pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// The program: reads its arguments and measures our contenders, and these.
pub fn main(more: &'static [&'static dyn Contender]) -> ExitCode {
    let arguments = Arguments::read();
    let plan = Plan::new(more, arguments.measure.entries);
    data::choose(arguments.measure.values);
    let done = match &arguments.command {
        Some(Command::Cell { name, folder, kept }) => {
            let place = Place { folder, kept: kept.as_deref().unwrap_or(folder) };
            workload::cell(&plan, name, &place, arguments.measure.window()).and_then(|text| print(&text))
        }
        Some(Command::Processes { repeats }) => {
            processes::run(&arguments.measure, *repeats).and_then(|text| print(&text))
        }
        Some(Command::Stores { count }) => {
            processes::run_stores(&arguments.measure, count).and_then(|text| print(&text))
        }
        Some(Command::Layouts(choices)) => {
            layouts::run(choices, &arguments.measure).and_then(|text| print(&text))
        }
        #[cfg(feature = "etcd")]
        Some(Command::Cluster { repeats }) => {
            cluster::run(&arguments.measure, *repeats).and_then(|text| print(&text))
        }
        Some(Command::Role { role }) => processes::play(role).and_then(|text| print(&text)),
        Some(Command::CountSyncs) => syncs::count(&plan, &arguments.measure).and_then(|text| print(&text)),
        None => run::run(&plan, &arguments).and_then(|text| print(&text)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "watchkeep-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
