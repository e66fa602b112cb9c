//! The power goes under a real ext4, on which several processes use one store.
//!
//! A round is a process of its own, with a mount namespace of its own: mounts and loop devices go with it, however it
//! ends. In it the program runs itself again as two writers and a watcher, which say through pipes what they are
//! told. It takes root, loop devices and Debian's `qemu-system-common`.

mod volume;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use watchkeep::{
    Cursor, Durability, Filter, Kind, ManualClock, Options, Retention, Revision, Store, StoreId, WatchOptions,
};

use self::volume::{Held, Volume, bound, needs, run};
use super::verify::{Found, Judge, verify};
use super::{Expect, FILE, Row, Scene, Workload, Wrong};
use crate::ops::{Choices, Dice};
use crate::record::Seen;
use crate::surface::Fault;

/// The first argument of the program when it is a part of a round.
const PART: &str = "ext4-part";

/// The uses that several processes can make of one store without knowing of each other.
pub const SHARED: [Workload; 4] =
    [Workload::Puts, Workload::Transactions, Workload::Tenants, Workload::Crowd];

/// The cut comes after fewer acknowledgements than this.
const MOST_ACKED: usize = 150;
/// The cut comes after this time at the latest.
const PATIENCE: Duration = Duration::from_secs(60);

/// A round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The program that calls [`part`] with its arguments.
    pub program: PathBuf,
    /// What one of the writers does; the other's use is of the seed.
    pub workload: Workload,
    /// How durable the file is.
    pub durability: Durability,
    /// How durable it is held to be: the same, unless somebody tries whether a difference is seen.
    pub judged: Durability,
    /// Where all choices come from. Which process is faster is none of them, so a seed shows a round much like
    /// another, not the same.
    pub seed: u64,
}

/// Has two processes write to a store and one watch it, on a volume of their own; cuts the power; and holds what the
/// volume has then against what they were told.
///
/// # Errors
///
/// When this machine cannot do that: what is missing.
pub fn cut(plan: &Plan) -> Result<Row, Fault> {
    needs()?;
    let mut round = bound(Path::new("unshare"));
    round.args(["--mount", "--propagation", "private"]).arg(&plan.program).args([PART, "round"]);
    round.args([plan.workload.name(), name(plan.durability), name(plan.judged), &plan.seed.to_string()]);
    let said = run(round.arg(&plan.program))?;
    let (row, what) = said.split_once('\n').unwrap_or((&said, ""));
    let mut row: Row = row.parse()?;
    if row.broken > 0 {
        row.wrong.push(Wrong { seed: plan.seed, what: what.trim_end().to_owned() });
    }
    Ok(row)
}

/// Plays a part of a round, if the arguments of the program ask for one. Parts that use the store end the process.
///
/// # Errors
///
/// When the part cannot be played.
pub fn part(arguments: &[String]) -> Option<Result<(), Fault>> {
    let (mark, rest) = arguments.split_first()?;
    (mark == PART).then(|| {
        let rest: Vec<_> = rest.iter().map(String::as_str).collect();
        match rest.as_slice() {
            ["round", workload, durability, judged, seed, program] => round(&Plan {
                program: program.into(),
                workload: named(SHARED, Workload::name, workload)?,
                durability: named(DURABILITIES, name, durability)?,
                judged: named(DURABILITIES, name, judged)?,
                seed: seed.parse()?,
            }),
            ["writer", path, durability, workload, seed] => {
                let workload = named(SHARED, Workload::name, workload)?;
                play(path, durability, |store, clock| write(store, clock, workload, seed.parse()?))
            }
            ["watcher", path, durability] => play(path, durability, |store, _| watch(store)),
            _ => Err(format!("there is no part {rest:?}").into()),
        }
    })
}

const DURABILITIES: [Durability; 2] = [Durability::Full, Durability::Relaxed];

fn name(durability: Durability) -> &'static str {
    if durability == Durability::Full { "full" } else { "relaxed" }
}

fn named<T: Copy, const N: usize>(all: [T; N], name: fn(T) -> &'static str, text: &str) -> Result<T, Fault> {
    let found = all.into_iter().find(|one| name(*one) == text);
    found.ok_or_else(|| format!("a round knows no {text}").into())
}

/// Says a line in one piece, so that those who are killed leave no half of one but the last.
fn say(line: &str) -> Result<(), Fault> {
    Ok(std::io::stdout().lock().write_all(format!("{line}\n").as_bytes())?)
}

/// What names the boot before the cut.
const BEFORE: &str = "before the cut";

/// Uses the store until the disk fails, or for ever. As when the machine stops, nothing is closed.
fn play(
    path: &str,
    durability: &str,
    part: impl FnOnce(&Store, &Arc<ManualClock>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let clock = Arc::<ManualClock>::default();
    let options = Options::new()
        .durability(named(DURABILITIES, name, durability)?)
        .retention(Retention::FOREVER)
        .clock(clock.clone())
        .boot_id(BEFORE)
        .ballast(false);
    let store = options.open(path);
    let played = store.as_ref().map_err(|error| format!("{error:?}").into()).and_then(|store| {
        say(&format!("opened {}", store.id()))?;
        part(store, &clock)
    });
    if let Err(fault) = played {
        say(&format!("failed {}", fault.to_string().replace('\n', " ")))?;
    }
    std::process::exit(0)
}

fn everything() -> Filter {
    Filter::everything().kinds(Kind::ALL)
}

/// What an event is, behind its cursor, on one line.
fn text(store: &Store, event: &watchkeep::Event) -> String {
    format!("{} {:?}", store.cursor(event.revision()), Seen::from(event))
}

/// Writes, and says what was acknowledged.
fn write(store: &Store, clock: &ManualClock, workload: Workload, seed: u64) -> Result<(), Fault> {
    let mut dice = Dice::new(seed);
    let unheard = Mutex::new(None);
    let acknowledge = |revision: Revision| {
        // Acknowledged is acknowledged, also when it cannot be read any more.
        let before = Revision::new(revision.get().saturating_sub(1));
        let event = store.history(everything(), before).next().and_then(Result::ok);
        let line = event.map_or_else(|| store.cursor(revision).to_string(), |event| text(store, &event));
        if let Err(fault) = say(&format!("acked {line}")) {
            unheard.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
        }
    };
    let scene = Scene { store, clock, boot: BEFORE, acknowledge: &acknowledge, trimming: &|_| () };
    for step in 0.. {
        let done = workload.step(step, &mut dice, &scene);
        done.map_err(|error| format!("{}: {error:?}", workload.name()))?;
        unheard.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)?;
    }
    Ok(())
}

/// Says what is delivered.
fn watch(store: &Store) -> Result<(), Fault> {
    for event in store.watch_with(everything(), WatchOptions::new().after(Revision::ZERO))? {
        let event = event.map_err(|error| format!("watching: {error:?}"))?;
        say(&format!("delivered {}", text(store, &event)))?;
    }
    Ok(())
}

/// What the processes were told.
#[derive(Debug, Default)]
struct Told {
    id: Option<StoreId>,
    last: Revision,
    cursors: BTreeMap<Revision, Cursor>,
    acked: u64,
    delivered: u64,
    /// The last that the watcher received.
    received: Revision,
    /// Each event that anyone saw, as text.
    seen: BTreeMap<Revision, String>,
    /// What ended a process: after the cut, all of them are to fail.
    failed: Vec<String>,
    /// What must not be, whatever the disk has.
    problems: Vec<String>,
}

impl Told {
    fn take(&mut self, line: &str) -> Result<(), Fault> {
        let (what, rest) = line.split_once(' ').ok_or_else(|| format!("a process said {line:?}"))?;
        if what == "opened" {
            let id = rest.parse()?;
            if self.id.replace(id).is_some_and(|known| known != id) {
                self.problems.push(format!("one process opened store {id}, another did not"));
            }
            return Ok(());
        }
        if what == "failed" {
            self.failed.push(rest.to_owned());
            return Ok(());
        }
        let (cursor, event) = rest.split_once(' ').unwrap_or((rest, ""));
        let cursor: Cursor = cursor.parse()?;
        let revision = cursor.revision();
        let known = *self.cursors.entry(revision).or_insert(cursor);
        if known != cursor {
            self.problems.push(format!("revision {revision} has the cursors {known} and {cursor}"));
        }
        self.last = self.last.max(revision);
        if what == "acked" {
            self.acked += 1;
        } else {
            if revision.get() != self.received.get() + 1 {
                self.problems.push(format!("after {} the watcher received {revision}", self.received));
            }
            self.delivered += 1;
            self.received = revision;
        }
        if !event.is_empty()
            && let Some(known) = self.seen.insert(revision, event.to_owned())
            && known != event
        {
            self.problems.push(format!("revision {revision} was seen as {known} and as {event}"));
        }
        Ok(())
    }

    /// Takes what is said until a time, or until so many writes were acknowledged.
    fn listen(&mut self, lines: &Receiver<String>, until: Instant, acked: usize) -> Result<(), Fault> {
        while self.failed.is_empty() && self.acked < u64::try_from(acked)? {
            match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.take(&line)?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(())
    }
}

/// Starts the program as a part of a round whose lines are heard.
fn start(program: &Path, arguments: &[&str], path: &Path, lines: &Sender<String>) -> Result<Held, Fault> {
    let (part, rest) = arguments.split_first().ok_or("no part")?;
    let mut command = bound(program);
    command.args([PART, part]).arg(path).args(rest).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let (output, lines) = (child.stdout.take().ok_or("no pipe")?, lines.clone());
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        // Who is killed may leave half a line, which says nothing.
        while output.read_line(&mut line).is_ok() && line.ends_with('\n') {
            if lines.send(line.trim_end_matches('\n').to_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    Ok(Held(child))
}

/// A whole round, and what it came to on standard output.
fn round(plan: &Plan) -> Result<(), Fault> {
    let mut dice = Dice::new(plan.seed);
    let mut volume = Volume::new()?;
    let path = volume.root().join(FILE);
    let told = use_and_cut(&mut volume, plan, &path, &mut dice)?;
    volume.restore(&mut dice)?;
    let mut row = Row::default();
    let mut wrong = String::new();
    match judge(&path, &told, plan.judged.into()) {
        Ok(found) => row.fine((found.lost > 0).then_some("lost")),
        Err(what) => {
            row.wrong(plan.seed, String::new());
            wrong = format!("after {} acknowledged and {} delivered: {what}", told.acked, told.delivered);
        }
    }
    row.note("acked", told.acked);
    row.note("delivered", told.delivered);
    volume.close()?;
    say(&format!("{row}\n{wrong}"))
}

/// Lets the processes use the store, and cuts the power at a random moment.
fn use_and_cut(volume: &mut Volume, plan: &Plan, path: &Path, dice: &mut Dice) -> Result<Told, Fault> {
    let (sender, lines) = channel();
    let mut told = Told::default();
    let durability = name(plan.durability);
    let mut watcher = start(&plan.program, &["watcher", durability], path, &sender)?;
    let mut writers = Vec::new();
    let other = SHARED.get(dice.below(SHARED.len())).copied().unwrap_or(Workload::Puts);
    for workload in [plan.workload, other] {
        let seed = dice.below(1 << 30).to_string();
        writers.push(start(&plan.program, &["writer", durability, workload.name(), &seed], path, &sender)?);
    }
    drop(sender);
    // Every eighth cut comes while the store is made.
    let most = if dice.below(8) == 0 { 3 } else { MOST_ACKED };
    told.listen(&lines, Instant::now() + PATIENCE, dice.below(most))?;
    volume.cut();
    if let Some(failed) = told.failed.first() {
        told.problems.push(format!("before the cut a process failed: {failed}"));
    }
    // What they are told now, while the disk fails under them, counts as well.
    let pause = Duration::from_micros(u64::try_from(dice.below(10_000))?);
    told.listen(&lines, Instant::now() + pause, usize::MAX)?;
    // The watcher first: who is killed while he commits may leave to others what no disk has.
    watcher.kill();
    writers.iter_mut().for_each(Held::kill);
    lines.iter().try_for_each(|line| told.take(&line))?;
    Ok(told)
}

/// Holds what is on the disk against what was said.
fn judge(path: &Path, told: &Told, judge: Judge) -> Result<Found, String> {
    if let Some(problem) = told.problems.first() {
        return Err(problem.clone());
    }
    // What is in the log is compared below: of events that only a killed writer knew, nobody can say what they were.
    let known = BTreeMap::new();
    let (doubt, trimmed) = (Some(Revision::ZERO), Revision::ZERO);
    let expect =
        Expect { known: &known, cursors: &told.cursors, told: told.last, id: told.id, doubt, trimmed };
    let found = verify(path, &expect, judge)?;
    let failed = |error| format!("it cannot be read again: {error:?}");
    let store = Options::new().ballast(false).open(path).map_err(failed)?;
    for event in store.history(everything(), Revision::ZERO) {
        let event = event.map_err(failed)?;
        let here = format!("{:?}", Seen::from(&event));
        match told.seen.get(&event.revision()) {
            Some(seen) if *seen != here && event.revision() <= found.last => {
                return Err(format!("revision {} is {here}, it was seen as {seen}", event.revision()));
            }
            _ => {}
        }
    }
    store.close().map_err(failed)?;
    Ok(found)
}
