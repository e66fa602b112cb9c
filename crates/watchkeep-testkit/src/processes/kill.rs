//! Processes are killed while they write, while others write, and all at once; whatever they were told stays, and the
//! others do not notice.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use watchkeep::{Durability, Filter, Kind, Options, Revision, Store};

use super::member::{COUNTS, GROUP, counted};
use super::{Process, Told, evidence, pause};
use crate::faults::{FILE, Row, scratch};
use crate::promises::check_all;
use crate::record::Fate;
use crate::surface::Fault;

/// How often somebody is killed before all that was told is held against the whole log.
pub const KILLS: u64 = 15;
/// How long a write waits for others.
const BUSY: Duration = Duration::from_secs(30);
/// The consumer that counts what expired.
const CONSUMER: &str = "expired";

/// Somebody is killed [`KILLS`] times: one of 1, 2 or 4 writers, the process that watches, or all of them. The seed
/// also says how durable the file is.
///
/// # Errors
///
/// When the processes cannot be started; what breaks a promise is in the row.
pub fn rounds(program: &Path, seed: u64) -> Result<Row, Fault> {
    let mut life = Life::new(program, seed)?;
    let mut row = Row::default();
    for kill in 1..=KILLS {
        match life.round(kill) {
            Ok(what) => row.fine([what]),
            Err(fault) => {
                row.wrong(seed, fault.to_string());
                return Ok(row);
            }
        }
    }
    if let Err(fault) = life.end() {
        row.wrong(seed, fault.to_string());
    }
    Ok(row)
}

/// A file from its first opening to the last look at it.
struct Life {
    folder: TempDir,
    program: PathBuf,
    random: fastrand::Rng,
    writers: Vec<Writer>,
    watching: Option<Process>,
    /// How far the watching process had come when it was killed last.
    watched: Revision,
    /// How many processes were started.
    started: usize,
    /// Those that were killed.
    gone: Vec<Told>,
}

struct Writer {
    process: Process,
    label: String,
}

impl Life {
    fn new(program: &Path, seed: u64) -> Result<Life, Fault> {
        let folder = scratch()?;
        let durability = if seed.is_multiple_of(3) { Durability::Full } else { Durability::Relaxed };
        Options::new().durability(durability).open(folder.path().join(FILE))?.close()?;
        let mut life = Life {
            folder,
            program: program.to_owned(),
            random: fastrand::Rng::with_seed(seed),
            writers: Vec::new(),
            watching: None,
            watched: Revision::ZERO,
            started: 0,
            gone: Vec::new(),
        };
        let writers = match seed % 3 {
            0 => 2,
            1 => 1,
            _ => 4,
        };
        life.fill(writers)?;
        Ok(life)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(FILE)
    }

    fn process(&mut self) -> Result<Process, Fault> {
        self.started += 1;
        Process::start(&self.program, &self.path(), self.started, BUSY)
    }

    /// Starts whoever is missing.
    fn fill(&mut self, writers: usize) -> Result<(), Fault> {
        if self.watching.is_none() {
            let mut process = self.process()?;
            process.watch("all", &self.watched.to_string(), 0)?;
            self.watching = Some(process);
        }
        while self.writers.len() < writers {
            let mut process = self.process()?;
            let label = format!("p{}", self.started);
            process.tell(&format!("consume {CONSUMER}"))?;
            process.tell("callback own")?;
            process.tell(&format!("write {label} 0 1000000000 mixed 8"))?;
            self.writers.push(Writer { process, label });
        }
        Ok(())
    }

    /// One kill, and what must hold after it; who it was.
    fn round(&mut self, kill: u64) -> Result<&'static str, Fault> {
        let writers = self.writers.len();
        pause(Duration::from_micros(self.random.u64(2_000..40_000 / writers as u64)));
        let what = match kill % 5 {
            0 => "all_killed",
            3 => "watcher_killed",
            _ => "writer_killed",
        };
        if what != "writer_killed" {
            let process = self.watching.take().ok_or("nobody watches")?;
            let told = process.kill()?;
            self.watched = self.watched.max(told.position("all"));
            self.gone.push(told);
        }
        match what {
            "all_killed" => {
                for writer in std::mem::take(&mut self.writers) {
                    self.gone.push(writer.process.kill()?);
                }
            }
            "writer_killed" => {
                let victim = self.random.usize(..writers);
                let told = self.writers.swap_remove(victim).process.kill()?;
                self.gone.push(told);
                self.others_go_on()?;
            }
            _ => self.others_go_on()?,
        }
        self.look()?;
        self.fill(writers)?;
        Ok(what)
    }

    /// Whoever is left gets its next write done: two, as one may have been on its way already.
    fn others_go_on(&self) -> Result<(), Fault> {
        for Writer { process, label } in &self.writers {
            let before = process.told(|told| told.writes.len());
            process.wait_for(&format!("{label} goes on"), |told| told.writes.len() >= before + 2)?;
        }
        Ok(())
    }

    /// Whatever was acknowledged by those who are gone is in the file, and the file is sound.
    fn look(&self) -> Result<(), Fault> {
        let store = Store::open(self.path())?;
        let log = evidence(&store, &[])?.log;
        let mut jumps = 0;
        for (row, next) in log.rows().iter().zip(log.rows().iter().skip(1)) {
            jumps += u64::from(next.revision.get() != row.revision.get() + 1);
        }
        if jumps > 0 {
            return Err(format!("{jumps} revisions do not follow the one before").into());
        }
        for write in self.gone.iter().flat_map(|told| &told.writes) {
            let Fate::Done(Some(said)) = write.fate else { continue };
            match log.get(said) {
                Some(row) if row.origin.as_ref() == Some(&write.label) && row.commit == said => {}
                other => return Err(format!("{} was told {said}, which is {other:?}", write.label).into()),
            }
        }
        let problems = store.check()?.problems;
        if let Some(problem) = problems.first() {
            return Err(format!("the store finds in itself: {problem}").into());
        }
        Ok(store.close()?)
    }

    /// Everybody closes; what all of them were told, in all their lives, keeps every promise.
    fn end(mut self) -> Result<(), Fault> {
        let mut told = std::mem::take(&mut self.gone);
        // Whoever closes stops others' writes of its own only.
        for writer in std::mem::take(&mut self.writers) {
            told.push(writer.process.kill()?);
        }
        let store = Store::open(self.path())?;
        self.all_are_counted(&store)?;
        // After an unclean end the last row of a relaxed file may be a gap, which is no event.
        let last = store.set(GROUP, "last", "v")?;
        let watching = self.watching.take().ok_or("nobody watches")?;
        watching.wait_until("all", last)?;
        told.push(watching.close(store.last_revision()?)?);
        keeps_promises(&store, &told)?;
        Ok(store.close()?)
    }

    /// The consumer counted each expiry once, whoever was killed in between.
    fn all_are_counted(&self, store: &Store) -> Result<(), Fault> {
        store.purge_expired()?;
        let acked = |info: Option<&watchkeep::ConsumerInfo>| info.and_then(|info| info.acked);
        let acked = acked(store.consumers()?.first()).unwrap_or(Revision::ZERO);
        let counted = counted(store.get(COUNTS, CONSUMER)?);
        let expiries = store.history(Filter::group(GROUP).kinds([Kind::Expire]), Revision::ZERO);
        let mut expected = 0;
        for event in expiries {
            expected += u64::from(event?.revision() <= acked);
        }
        if counted == expected {
            Ok(())
        } else {
            Err(format!("{counted} expiries were counted up to {acked}, there were {expected}").into())
        }
    }
}

/// What processes told keeps every promise, and nothing was odd about it.
///
/// # Errors
///
/// What does not.
pub fn keeps_promises(store: &Store, told: &[Told]) -> Result<(), Fault> {
    if let Some(odd) = told.iter().flat_map(|told| &told.odd).next() {
        return Err(format!("a process said {odd}").into());
    }
    if let Some(failure) = told.iter().flat_map(|told| &told.failures).next() {
        return Err(format!("a process failed: {failure:?}").into());
    }
    let recordings: Vec<_> = told.iter().flat_map(|told| told.streams.values().cloned()).collect();
    let broken = check_all(&recordings, &evidence(store, told)?);
    if broken.is_empty() {
        return Ok(());
    }
    let broken: Vec<_> = broken.iter().take(5).map(ToString::to_string).collect();
    Err(broken.join("\n").into())
}
