//! Benchmarks without the peers: ours, raw SQLite, and the limits. `peers/` has the program with all.

use std::process::ExitCode;

fn main() -> ExitCode {
    watchkeep_bench::main(&[])
}
