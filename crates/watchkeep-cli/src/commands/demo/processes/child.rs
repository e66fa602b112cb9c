//! A process of the demo, seen from the one that starts it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::commands::signals::{A_MOMENT, Asked};
use crate::commands::threads;
use crate::exit::{FAILURE, Failure, Result};

/// How long an answer may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process that the demo started. It is killed when this goes.
pub(super) struct Process {
    child: Child,
    lines: Receiver<String>,
    name: &'static str,
    asked: Asked,
}

/// A `wrote`, `got`, `noted` or other line: its first word, and the numbers behind it.
pub(super) struct Said {
    pub(super) what: String,
    pub(super) words: Vec<String>,
}

impl Said {
    fn of(line: &str) -> Said {
        let mut words = line.split(' ').map(str::to_owned);
        Said { what: words.next().unwrap_or_default(), words: words.collect() }
    }

    pub(super) fn number(&self, place: usize) -> u64 {
        self.words.get(place).and_then(|word| word.parse().ok()).unwrap_or(0)
    }
}

impl Process {
    /// Starts this very program in a part, and waits until it is ready.
    pub(super) fn start(name: &'static str, store: &Path, asked: &Asked) -> Result<Process> {
        let failed =
            |error: std::io::Error| Failure::new(FAILURE, format!("no {name} can be started: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg("--store").arg(store).args(["demo", "--part", name]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let (sender, lines) = channel();
        let out = child.stdout.take();
        let mut process = Process { child, lines, name, asked: asked.clone() };
        if let Some(out) = out {
            threads::start(move || {
                let lines = BufReader::new(out).lines().map_while(std::result::Result::ok);
                lines.for_each(|line| drop(sender.send(line)));
            })?;
        }
        process.until("ready", |_| {})?;
        Ok(process)
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it something to do.
    pub(super) fn tell(&mut self, line: &str) -> Result<()> {
        let name = self.name;
        let told = self.child.stdin.as_mut().map(|stdin| writeln!(stdin, "{line}"));
        match told {
            Some(Ok(())) => Ok(()),
            _ => Err(Failure::new(FAILURE, format!("the {name} does not listen any more"))),
        }
    }

    /// The next line that it says.
    pub(super) fn next(&mut self) -> Result<Said> {
        self.within(PATIENCE)?.ok_or_else(|| {
            Failure::new(FAILURE, format!("the {} says nothing for {} s", self.name, PATIENCE.as_secs()))
        })
    }

    /// The next line that it says, or none when it says nothing for so long.
    pub(super) fn within(&mut self, time: Duration) -> Result<Option<Said>> {
        use std::sync::mpsc::RecvTimeoutError;
        let stopped = || Failure::new(FAILURE, "stopped before anything was proved; run it again");
        if self.asked.to_end_within(Duration::ZERO) {
            return Err(stopped());
        }
        match self.lines.recv_timeout(time) {
            Ok(line) => Ok(Some(Said::of(&line))),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            // The signal may have reached it first.
            Err(RecvTimeoutError::Disconnected) if self.asked.to_end_within(A_MOMENT) => Err(stopped()),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Failure::new(FAILURE, format!("the {} ended before its time", self.name)))
            }
        }
    }

    /// Hands out its lines until one begins with a word.
    pub(super) fn until(&mut self, what: &str, mut heard: impl FnMut(&Said)) -> Result<Said> {
        loop {
            let said = self.next()?;
            if said.what == what {
                return Ok(said);
            }
            heard(&said);
        }
    }

    /// Kills it with SIGKILL, and hands out what it had said by then.
    pub(super) fn kill(mut self, mut heard: impl FnMut(&Said)) -> Result<()> {
        let refused = |error| Failure::new(FAILURE, format!("the process could not be killed: {error}"));
        self.child.kill().map_err(refused)?;
        let status = self.child.wait().map_err(refused)?;
        self.lines.iter().for_each(|line| heard(&Said::of(&line)));
        match status.signal() {
            Some(9) => Ok(()),
            _ => Err(Failure::new(FAILURE, format!("it ended by itself, with {status}"))),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
