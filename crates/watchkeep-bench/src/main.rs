//! Benchmarks of watchkeep beside what else a user would take: one command measures and writes the report.
//!
//! A *cell* is one measurement: a workload, a durability, a size and a contender. Each cell runs in a process and a
//! folder of its own (the hidden subcommand `cell`), and the rounds go over all cells in turn, so that a drift of
//! the machine hits all contenders alike. See `docs/benchmarks.md`.

mod arguments;
mod contender;
mod data;
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

use clap::Parser;

use arguments::{Arguments, Command};

/// Whatever goes wrong ends the run, with a sentence that says what to do.
type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Some(Command::Cell { name, folder }) => {
            workload::cell(name, folder, arguments.measure.window()).and_then(|text| print(&text))
        }
        Some(Command::Processes { repeats }) => {
            processes::run(&arguments.measure, *repeats).and_then(|text| print(&text))
        }
        Some(Command::Role { role }) => processes::play(role).and_then(|text| print(&text)),
        Some(Command::CountSyncs) => syncs::count(&arguments.measure).and_then(|text| print(&text)),
        None => run::run(&arguments).and_then(|text| print(&text)),
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
