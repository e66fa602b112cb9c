//! `watch --exec`: a command for each event.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use watchkeep::{Event, Store};

use crate::args::Global;
use crate::exit::{FAILURE, Failure, Result};

/// The longest text that goes into a variable: systems limit it, and the whole event is on standard input.
const LONGEST: usize = 64 << 10;

/// The command and what it is told besides the event.
#[derive(Debug)]
pub(super) struct Exec<'a> {
    command: &'a str,
    store: &'a Store,
    file: PathBuf,
    namespace: Option<&'a str>,
    /// Whether a command that fails gives us its exit code.
    passes_code: bool,
}

impl<'a> Exec<'a> {
    pub(super) fn new(command: &'a str, global: &'a Global, store: &'a Store, passes_code: bool) -> Exec<'a> {
        let file = std::path::absolute(&global.store).unwrap_or_else(|_| global.store.clone());
        Exec { command, store, file, namespace: global.namespace.as_deref(), passes_code }
    }

    /// Runs the command for this event, to its end.
    pub(super) fn run(&mut self, event: &Event) -> Result<()> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(self.command).stdin(Stdio::piped()).env("WATCHKEEP_STORE", &self.file);
        for (name, value) in self.variables(event) {
            match value.filter(|value| value.len() <= LONGEST && !value.contains('\0')) {
                Some(value) => command.env(name, value),
                // One of the same name around us is not about this event.
                None => command.env_remove(name),
            };
        }
        let failed = |what: String| {
            Failure::new(FAILURE, format!("the command for revision {} {what}", event.revision()))
        };
        let mut child = command.spawn().map_err(|error| failed(format!("could not be started: {error}")))?;
        let mut object = watchkeep::json::event(event, self.store.cursor(event.revision())).to_string();
        object.push('\n');
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(object.as_bytes()) {
                // It need not read it.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(failed(format!("could not be given the event: {error}")));
                }
                _ => {}
            }
        }
        let status = child.wait().map_err(|error| failed(format!("could not be waited for: {error}")))?;
        if status.success() {
            return Ok(());
        }
        let code = status.code().filter(|_| self.passes_code).and_then(|code| u8::try_from(code).ok());
        let what = failed(format!("{}; the watch ends", ended(status)));
        Err(Failure::new(code.unwrap_or(FAILURE), what.to_string()))
    }

    fn variables(&self, event: &Event) -> [(&'static str, Option<String>); 9] {
        [
            ("WATCHKEEP_NAMESPACE", self.namespace.map(str::to_owned)),
            ("WATCHKEEP_REVISION", Some(event.revision().to_string())),
            ("WATCHKEEP_CURSOR", Some(self.store.cursor(event.revision()).to_string())),
            ("WATCHKEEP_KIND", Some(event.kind().to_string())),
            ("WATCHKEEP_GROUP", Some(event.group().to_owned())),
            ("WATCHKEEP_KEY", event.key().map(str::to_owned)),
            ("WATCHKEEP_VALUE", event.value().and_then(|value| value.as_str()).map(str::to_owned)),
            ("WATCHKEEP_TIMESTAMP", Some(watchkeep::json::timestamp(event.timestamp()))),
            ("WATCHKEEP_ORIGIN", event.origin().map(str::to_owned)),
        ]
    }
}

fn ended(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("ended with exit code {code}"),
        None => format!("was ended ({status})"),
    }
}
