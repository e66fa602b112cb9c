//! The measurements: processes are started, told to begin, and asked what they saw.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use watchkeep::Durability;

use crate::Result;
use crate::arguments::Measure;
use crate::samples::Samples;

use super::Reader;
use super::role::make;

/// The first commits warm caches and code; they are not counted.
const WARM_UP: u64 = 20;

/// How long after a set returned in one process its event was in another's hands, in nanoseconds.
pub(super) struct Latency {
    pub(super) commits: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) most: f64,
    /// What the reader took of one core meanwhile.
    pub(super) cpu: f64,
}

pub(super) fn latency(
    settings: &Measure,
    durability: Durability,
    spacing: Duration,
    reader: Reader,
) -> Result<Latency> {
    let folder = settings.folder()?;
    let file = folder.path().join("store.db");
    make(&file, durability)?;
    let spacing_counted = spacing.max(Duration::from_micros(250));
    let wanted = settings.window().as_nanos() / spacing_counted.as_nanos();
    let count = WARM_UP + u64::try_from(wanted)?;
    let count_text = count.to_string();
    let watching = Actor::start(&["watch", text(&file)?, reader.word(), &count_text])?;
    let writing = Actor::start(&["write", text(&file)?, &spacing.as_micros().to_string(), &count_text])?;
    watching.go()?;
    let written = times(&writing.go_and_finish()?);
    let said = watching.finish()?;
    let arrived = times(&said);
    if arrived.len() as u64 != count {
        return Err(format!("{} of {count} events arrived", arrived.len()).into());
    }
    let mut samples = Samples::default();
    for (revision, returned) in written.iter().filter(|(revision, _)| **revision > WARM_UP) {
        let arrived = arrived.get(revision).ok_or("an event did not arrive")?;
        // It may be there before its writer has returned.
        samples.add(Duration::from_nanos(arrived.saturating_sub(*returned)));
    }
    Ok(Latency {
        commits: samples.len() as f64,
        p50: samples.permille(500),
        p99: samples.permille(990),
        most: samples.permille(1000),
        cpu: number(&said, "cpu")?,
    })
}

/// What a reader takes of one core while nothing is written.
pub(super) fn idle(settings: &Measure, reader: Reader) -> Result<f64> {
    let folder = settings.folder()?;
    let file = folder.path().join("store.db");
    make(&file, Durability::Full)?;
    let millis = settings.window().as_millis().to_string();
    number(&Actor::start(&["idle", text(&file)?, reader.word(), &millis])?.go_and_finish()?, "cpu")
}

/// How writing processes share the file.
pub(super) struct Fairness {
    pub(super) rate: f64,
    /// Of the one with the fewest sets, in parts of what would be fair.
    pub(super) least_share: f64,
    /// Of all of them, in nanoseconds.
    pub(super) longest_wait: f64,
}

pub(super) fn fairness(settings: &Measure, durability: Durability, writers: u32) -> Result<Fairness> {
    let folder = settings.folder()?;
    let file = folder.path().join("store.db");
    make(&file, durability)?;
    let millis = settings.window().as_millis().to_string();
    let actors = (0..writers)
        .map(|_| Actor::start(&["race", text(&file)?, &millis]))
        .collect::<Result<Vec<Actor>>>()?;
    actors.iter().try_for_each(Actor::go)?;
    let said = actors.into_iter().map(Actor::finish).collect::<Result<Vec<String>>>()?;
    let of = |name: &str| said.iter().map(|said| number(said, name)).collect::<Result<Vec<f64>>>();
    let sets = of("sets")?;
    let all: f64 = sets.iter().sum();
    Ok(Fairness {
        rate: all / settings.seconds,
        least_share: sets.iter().copied().fold(f64::INFINITY, f64::min) * f64::from(writers) / all.max(1.0),
        longest_wait: of("longest")?.into_iter().fold(0.0, f64::max),
    })
}

/// A process that plays a part. One that is not waited for is ended.
pub(super) struct Actor {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Actor {
    /// Starts it, and waits until it is ready.
    pub(super) fn start(arguments: &[&str]) -> Result<Actor> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("role")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("a process has no standard output")?;
        let mut actor = Actor { child, out: BufReader::new(out) };
        let mut line = String::new();
        actor.out.read_line(&mut line)?;
        if line == "ready\n" { Ok(actor) } else { Err(format!("{arguments:?} did not begin").into()) }
    }

    pub(super) fn go(&self) -> Result<()> {
        let mut stdin = self.child.stdin.as_ref().ok_or("a process has no standard input")?;
        Ok(stdin.write_all(b"go\n")?)
    }

    pub(super) fn finish(mut self) -> Result<String> {
        let mut said = String::new();
        self.out.read_to_string(&mut said)?;
        if self.child.wait()?.success() { Ok(said) } else { Err("a process that took part failed".into()) }
    }

    pub(super) fn go_and_finish(self) -> Result<String> {
        self.go()?;
        self.finish()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // Both fail when it has ended, as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| "name a folder in UTF-8 with --dir".into())
}

/// Revisions and when they were written, or arrived.
pub(super) fn times(said: &str) -> HashMap<u64, u64> {
    let parse = |line: &str| {
        let (revision, at) = line.strip_prefix("at ")?.split_once(' ')?;
        Some((revision.parse().ok()?, at.parse().ok()?))
    };
    said.lines().filter_map(parse).collect()
}

pub(super) fn number(said: &str, name: &str) -> Result<f64> {
    let value = said.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.ok_or_else(|| format!("a process did not tell its {name}").into())
}
