//! The `watchkeep` command.
//!
//! `args` says what may be asked, `commands` does it, `output` prints it, `exit` says how it ended.

mod args;
mod commands;
mod exit;
mod line;
mod output;
mod select;
mod time;

use std::process::ExitCode;

fn main() -> ExitCode {
    output::show_library_warnings();
    match args::parse() {
        Ok((cli, store_is_named)) => commands::run(cli, store_is_named),
        Err(error) => exit::usage(&error),
    }
}
