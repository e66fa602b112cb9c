//! How a command ends: the exit codes, and the one line on standard error.

use std::error::Error as _;
use std::fmt;
use std::io::{self, Write};
use std::iter;
use std::process::ExitCode;

/// The end of a command that did what was asked.
pub(crate) const FINE: u8 = 0;
/// Something failed.
pub(crate) const FAILURE: u8 = 1;
/// The command line itself is wrong.
pub(crate) const USAGE: u8 = 2;
/// The key, group or file is not there.
pub(crate) const NOT_FOUND: u8 = 3;
/// A condition, a quota, a consumer or a seal stands against it.
pub(crate) const REFUSED: u8 = 4;
/// The file is damaged, or none of ours.
pub(crate) const BAD_FILE: u8 = 5;

/// The codes as `watchkeep --help` lists them.
pub(crate) const HELP: &str = "\
Exit codes:
  0  fine
  1  failure
  2  usage: the command line, a name or a value is not allowed
  3  not found: the key, the group or the file
  4  refused: a condition did not hold, a quota is used up, a consumer is another's,
     or the store is sealed
  5  the file is damaged, or not a store";

/// The result of a command.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library refused; its text says what to do.
    Store(watchkeep::Error),
    /// The command refused.
    Here { code: u8, what: String },
    /// Nobody reads the output any more, so there is nothing left to do and nothing to report.
    ClosedPipe,
}

impl Failure {
    pub(crate) fn new(code: u8, what: impl Into<String>) -> Failure {
        Failure::Here { code, what: what.into() }
    }

    /// Standard output did not take what was written to it.
    pub(crate) fn output(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
            _ => Failure::new(FAILURE, format!("the output could not be written: {error}; make room for it")),
        }
    }

    /// The same failure, with where it happened in front.
    pub(crate) fn at(self, place: impl fmt::Display) -> Failure {
        match self {
            Failure::ClosedPipe => self,
            failure => Failure::Here { code: failure.code(), what: format!("{place}: {failure}") },
        }
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Store(error) => error.kind().exit_code(),
            Failure::Here { code, .. } => *code,
            Failure::ClosedPipe => FINE,
        }
    }

    /// Reports the failure and gives the code to end with.
    pub(crate) fn end(&self) -> ExitCode {
        if !matches!(self, Failure::ClosedPipe) {
            crate::output::complain(self);
        }
        ExitCode::from(self.code())
    }
}

impl From<watchkeep::Error> for Failure {
    fn from(error: watchkeep::Error) -> Failure {
        Failure::Store(error)
    }
}

/// One line, with the causes that it does not name itself.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Failure::Store(error) => with_causes(error),
            Failure::Here { what, .. } => what.clone(),
            Failure::ClosedPipe => "the output was closed".to_owned(),
        };
        f.write_str(&one_line(&text))
    }
}

/// Reports what is wrong with the command line, or shows what was asked for instead of a command.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // What is left in the buffer would be lost in silence.
            match error.print().and_then(|()| io::stdout().flush()).map_err(Failure::output) {
                Err(failure @ Failure::Here { .. }) => failure.end(),
                _ => ExitCode::from(if error.exit_code() == 0 { FINE } else { USAGE }),
            }
        }
        _ => {
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            // What follows is long, and `--help` has it too.
            let (what, usage) = text.split_once("Usage: ").unwrap_or((text, "watchkeep"));
            let what = what.split("For more information").next().unwrap_or(what).replace("\n\n  tip: ", "; ");
            let command = usage.split_whitespace().take_while(|word| !word.starts_with(['[', '<', '-']));
            let command = command.collect::<Vec<_>>().join(" ");
            Failure::new(USAGE, format!("{}; see `{command} --help`", what.trim())).end()
        }
    }
}

fn with_causes(error: &watchkeep::Error) -> String {
    let text = error.to_string();
    let causes = iter::successors(error.source(), |&cause| cause.source()).map(ToString::to_string);
    let mut told: Vec<String> = Vec::new();
    for cause in causes {
        // A cause often says what the one above it says, and more.
        told.retain(|above| !cause.contains(above));
        if !text.contains(&cause) && !told.iter().any(|above| above.contains(&cause)) {
            told.push(cause);
        }
    }
    if told.is_empty() { text } else { format!("{text} ({})", told.join(": ")) }
}

/// The words of a text in one line.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_its_cause() {
        let error = Failure::from(watchkeep::Error::abort("not\nenough  money"));
        assert_eq!(error.to_string(), "the transaction gave up: not enough money");
        assert_eq!(error.at("line 7").to_string(), "line 7: the transaction gave up: not enough money");
    }

    #[test]
    fn a_closed_pipe_is_fine() {
        let closed = Failure::output(io::ErrorKind::BrokenPipe.into());
        assert_eq!(closed.at("anywhere").code(), FINE);
        assert_eq!(Failure::output(io::ErrorKind::StorageFull.into()).code(), FAILURE);
    }
}
