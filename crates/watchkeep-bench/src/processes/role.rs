//! What a process does that takes part in a measurement: it says that it is ready, waits for a line, does its part,
//! and prints what it saw.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Subcommand, ValueEnum};
use rusqlite::Connection;
use rustix::time::{ClockId, clock_gettime};
use watchkeep::{Durability, Options, Retention, Revision, Store};

use crate::Result;
use crate::machine::pause;

/// A part in a measurement.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Sets one key again and again; prints when each set had returned.
    Write { file: PathBuf, gap_us: u64, count: u64 },
    /// Waits for so many events; prints when each had arrived.
    Watch { file: PathBuf, reader: Reader, count: u64 },
    /// Waits for what never comes; prints what that cost.
    Idle { file: PathBuf, reader: Reader, millis: u64 },
    /// Has many stores open, all watched or none but the first; prints what that costs, and when so many events of the
    /// first had arrived.
    Stores {
        folder: PathBuf,
        stores: usize,
        #[arg(action = clap::ArgAction::Set)]
        watched: bool,
        millis: u64,
        count: u64,
    },
    /// Sets as fast as it can; prints how many, and the longest wait.
    Race { file: PathBuf, millis: u64 },
}

/// Who waits for another process's commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reader {
    /// A watcher of watchkeep.
    Watchkeep,
    /// A loop over `PRAGMA data_version` on a bare connection.
    Poll1ms,
    Poll10ms,
}

impl Reader {
    pub(crate) const ALL: [Reader; 3] = [Reader::Watchkeep, Reader::Poll1ms, Reader::Poll10ms];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Reader::Watchkeep => "watchkeep",
            Reader::Poll1ms => "poll 1 ms",
            Reader::Poll10ms => "poll 10 ms",
        }
    }

    /// As an argument.
    pub(super) fn word(self) -> &'static str {
        match self {
            Reader::Watchkeep => "watchkeep",
            Reader::Poll1ms => "poll1ms",
            Reader::Poll10ms => "poll10ms",
        }
    }

    fn pause(self) -> Duration {
        Duration::from_millis(if self == Reader::Poll10ms { 10 } else { 1 })
    }
}

/// Makes the file.
pub(crate) fn make(file: &Path, durability: Durability) -> Result<()> {
    let options = Options::new().durability(durability).retention(Retention::FOREVER);
    Ok(options.open(file)?.close()?)
}

/// Plays a part.
pub(crate) fn play(role: &Role) -> Result<String> {
    match role {
        Role::Write { file, gap_us, count } => write(file, Duration::from_micros(*gap_us), *count),
        Role::Watch { file, reader, count } => watch(file, *reader, *count),
        Role::Idle { file, reader, millis } => idle(file, *reader, Duration::from_millis(*millis)),
        Role::Stores { folder, stores, watched, millis, count } => {
            super::stores::hold(folder, (*stores, *watched), Duration::from_millis(*millis), *count)
        }
        Role::Race { file, millis } => race(file, Duration::from_millis(*millis)),
    }
}

/// Says that it is ready, and waits to be told to begin.
pub(super) fn ready() -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready")?;
    out.flush()?;
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

fn write(file: &Path, gap: Duration, count: u64) -> Result<String> {
    let store = Store::open(file)?;
    let mut seen = Vec::new();
    ready()?;
    for number in 0..count {
        let revision = store.set("g", "k", number.to_string())?;
        seen.push((revision.get(), nanos(ClockId::Monotonic)));
        if !gap.is_zero() {
            pause(gap);
        }
    }
    Ok(lines(&seen))
}

fn watch(file: &Path, reader: Reader, count: u64) -> Result<String> {
    let mut seen = Vec::new();
    let mut meter = None;
    match reader {
        Reader::Watchkeep => {
            let store = Store::open(file)?;
            let mut watcher = store.watch("*", "*");
            ready()?;
            while (seen.len() as u64) < count {
                let event = watcher.recv().ok_or("the watch ended")??;
                meter.get_or_insert_with(Meter::start);
                seen.push((event.revision().get(), nanos(ClockId::Monotonic)));
            }
        }
        Reader::Poll1ms | Reader::Poll10ms => {
            let mut poll = Poll::open(file)?;
            ready()?;
            while (seen.len() as u64) < count {
                for revision in poll.look()? {
                    meter.get_or_insert_with(Meter::start);
                    seen.push((revision.get(), nanos(ClockId::Monotonic)));
                }
                pause(reader.pause());
            }
        }
    }
    let share = meter.map_or(0.0, |meter| meter.share());
    Ok(format!("cpu {share}\n{}", lines(&seen)))
}

fn idle(file: &Path, reader: Reader, time: Duration) -> Result<String> {
    let meter;
    match reader {
        Reader::Watchkeep => {
            let store = Store::open(file)?;
            let mut watcher = store.watch("*", "*");
            ready()?;
            meter = Meter::start();
            if watcher.recv_timeout(time).is_some() {
                return Err("an event came, where none was written".into());
            }
        }
        Reader::Poll1ms | Reader::Poll10ms => {
            let mut poll = Poll::open(file)?;
            ready()?;
            meter = Meter::start();
            while meter.began.elapsed() < time {
                poll.look()?;
                pause(reader.pause());
            }
        }
    }
    Ok(format!("cpu {}\n", meter.share()))
}

fn race(file: &Path, time: Duration) -> Result<String> {
    let store = Store::open(file)?;
    ready()?;
    let (start, mut sets, mut longest) = (Instant::now(), 0_u64, Duration::ZERO);
    while start.elapsed() < time {
        let begin = Instant::now();
        store.set("g", "k", "v")?;
        longest = longest.max(begin.elapsed());
        sets += 1;
    }
    Ok(format!("sets {sets}\nlongest {}\n", longest.as_nanos()))
}

pub(super) fn lines(seen: &[(u64, u64)]) -> String {
    seen.iter().map(|(revision, at)| format!("at {revision} {at}\n")).collect()
}

/// The commits of others, looked for.
struct Poll {
    conn: Connection,
    version: i64,
    last: Revision,
}

impl Poll {
    fn open(file: &Path) -> Result<Poll> {
        let mut poll = Poll { conn: Connection::open(file)?, version: -1, last: Revision::ZERO };
        poll.look()?;
        Ok(poll)
    }

    fn look(&mut self) -> Result<Vec<Revision>> {
        let version =
            self.conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get::<_, i64>(0))?;
        if version == self.version {
            return Ok(Vec::new());
        }
        self.version = version;
        let mut statement =
            self.conn.prepare_cached("SELECT revision FROM wk_log WHERE revision > ?1 ORDER BY revision")?;
        let new = statement
            .query_map([i64::try_from(self.last.get())?], |row| row.get::<_, i64>(0))?
            .map(|revision| Ok(Revision::new(u64::try_from(revision?)?)))
            .collect::<Result<Vec<Revision>>>()?;
        self.last = new.last().copied().unwrap_or(self.last);
        Ok(new)
    }
}

/// The processor time that this process takes.
pub(super) struct Meter {
    began: Instant,
    cpu: u64,
}

impl Meter {
    pub(super) fn start() -> Meter {
        Meter { began: Instant::now(), cpu: nanos(ClockId::ProcessCPUTime) }
    }

    /// Of one core.
    pub(super) fn share(&self) -> f64 {
        let cpu = nanos(ClockId::ProcessCPUTime).saturating_sub(self.cpu);
        cpu as f64 / self.began.elapsed().as_nanos().max(1) as f64
    }
}

/// A clock that all processes share, in nanoseconds.
pub(super) fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
