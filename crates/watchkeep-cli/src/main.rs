//! The `watchkeep` command.
//!
//! `args` says what may be asked, `commands` does it, `output` prints it, `exit` says how it ended.

mod args;
mod commands;
mod exit;
mod output;
mod select;

use std::process::ExitCode;

use watchkeep_cli::{line, time};

fn main() -> ExitCode {
    survive_a_size_limit();
    match args::parse() {
        Ok((cli, store_is_named)) => output::show_log(&cli.command)
            .map_or_else(|failure| failure.end(), |()| commands::run(cli, store_is_named)),
        Err(error) => exit::usage(&error),
    }
}

/// Writing past the limit of a file's size (`ulimit -f`) is an error to report, not a signal to die of.
#[cfg(unix)]
fn survive_a_size_limit() {
    use std::sync::{Arc, atomic::AtomicBool};
    // Whatever handles the signal does: what was written to is told by the error.
    let noticed = Arc::new(AtomicBool::new(false));
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, noticed);
}

#[cfg(not(unix))]
fn survive_a_size_limit() {}
