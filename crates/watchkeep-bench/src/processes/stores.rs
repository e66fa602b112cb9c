//! Many open stores in one process: what they cost, and how long another process's commit takes to one of them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::ClockId;
use watchkeep::{Durability, Options, Store};

use crate::Result;
use crate::arguments::Measure;
use crate::report::{Unit, show};
use crate::samples::Samples;

use super::measure::{Actor, number, text, times};
use super::role::{Meter, lines, make, nanos, ready};

/// How far apart the commits are whose way is measured.
const SPACING: Duration = Duration::from_millis(2);
/// The first commits warm caches and code; they are not counted.
const WARM_UP: u64 = 20;

/// Measures it for so many stores each; a table in Markdown.
pub(crate) fn run(settings: &Measure, counts: &[usize]) -> Result<String> {
    let mut table = String::from(
        "| stores | watched | threads | descriptors of ours | descriptors | memory a store | idle CPU, of one core | commits | p50 | p99 |\n\
         |---:|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for count in counts {
        for watched in [false, true] {
            let folder = settings.folder()?;
            let first = folder.path().join("0.db");
            make(&first, Durability::Relaxed)?;
            let commits = WARM_UP + u64::try_from(settings.window().as_nanos() / SPACING.as_nanos())?;
            let (stores, watched, millis, events) = (
                count.to_string(),
                watched.to_string(),
                settings.window().as_millis().to_string(),
                commits.to_string(),
            );
            let holding =
                Actor::start(&["stores", text(folder.path())?, &stores, &watched, &millis, &events])?;
            let gap = SPACING.as_micros().to_string();
            let writing = Actor::start(&["write", text(&first)?, &gap, &events])?;
            holding.go()?;
            let written = times(&writing.go_and_finish()?);
            let said = holding.finish()?;
            let (arrived, mut samples) = (times(&said), Samples::default());
            for (revision, returned) in written.iter().filter(|(revision, _)| **revision > WARM_UP) {
                let arrived = arrived.get(revision).ok_or("an event did not arrive")?;
                samples.add(Duration::from_nanos(arrived.saturating_sub(*returned)));
            }
            writeln!(
                table,
                "| {count} | {watched} | {} | {} | {} | {:.0} KiB | {:.2} % | {} | {} | {} |",
                number(&said, "threads")?,
                number(&said, "own")?,
                number(&said, "descriptors")?,
                number(&said, "memory")? / 1024.0,
                100.0 * number(&said, "cpu")?,
                samples.len(),
                show(samples.permille(500), Unit::Time),
                show(samples.permille(990), Unit::Time),
            )?;
        }
    }
    Ok(table)
}

/// Holds so many stores, all watched or only the first; what that costs, and when events of the first arrived.
pub(super) fn hold(
    folder: &Path,
    (count, watched): (usize, bool),
    time: Duration,
    events: u64,
) -> Result<String> {
    let before = resident()?;
    let open = |number: usize| -> Result<Store> {
        let options = Options::new().durability(Durability::Relaxed).ballast(false);
        Ok(options.open(folder.join(format!("{number}.db")))?)
    };
    let stores = (0..count).map(open).collect::<Result<Vec<Store>>>()?;
    let mut watcher = stores.first().ok_or("no store")?.watch("*", "*");
    let others: Vec<_> =
        stores.iter().skip(1).filter(|_| watched).map(|store| store.watch("*", "*")).collect();
    // What was begun at the opening is done by then.
    pause(Duration::from_secs(7));
    let memory = resident()?.saturating_sub(before) / count.max(1);
    let threads = std::fs::read_dir("/proc/self/task")?.count() - 1;
    let (mut own, mut descriptors) = (0, 0);
    for descriptor in std::fs::read_dir("/proc/self/fd")? {
        let target = std::fs::read_link(descriptor?.path()).unwrap_or_default();
        descriptors += 1;
        own += usize::from(target.to_string_lossy().starts_with("anon_inode"));
    }
    let meter = Meter::start();
    pause(time);
    let cpu = meter.share();
    ready()?;
    let mut seen = Vec::new();
    while (seen.len() as u64) < events {
        let event = watcher.recv().ok_or("the watch ended")??;
        seen.push((event.revision().get(), nanos(ClockId::Monotonic)));
    }
    drop(others);
    Ok(format!(
        "threads {threads}\nown {own}\ndescriptors {descriptors}\nmemory {memory}\ncpu {cpu}\n{}",
        lines(&seen)
    ))
}

/// What of this process is in memory, in bytes.
fn resident() -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? * 1024)
}

/// Waits, whatever happens.
fn pause(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::thread::park_timeout(time.saturating_sub(begun.elapsed()));
    }
}
