//! A round: a store's lives, from its making to its last closing.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use watchkeep::{ManualClock, Options, Revision};

use super::callback::{Habit, Listener, listen};
use super::plan::{Pace, Plan, WatchPlan};
use super::reader::{Seat, desk, wait};
use super::scribe;
use super::stage::{Phase, Records, Stage};
use super::writer;
use crate::ops::{Condition, Dice, Draw, Op, Outcome, Place, Step, Ttl, Write};
use crate::promises::{Violation, check_all};
use crate::record::{Beginning, Evidence, Log, Recording, Ticker, Want, WatchSpec};
use crate::runner::LIMITS;
use crate::surface::{Fault, Site};

/// Threads that serve the streams that nobody waits at.
const DESKS: usize = 2;
/// A write that takes longer is blocked.
pub(super) const WRITE_LIMIT: Duration = Duration::from_secs(20);

/// What a round left behind.
#[derive(Debug)]
pub struct Round {
    /// What it was drawn from.
    pub seed: u64,
    /// What everybody was told.
    pub recordings: Vec<Recording>,
    /// What is known besides.
    pub evidence: Evidence,
    /// What went wrong that no promise speaks of.
    pub faults: Vec<String>,
}

impl Round {
    /// What breaks a promise.
    pub fn violations(&self) -> Vec<Violation> {
        check_all(&self.recordings, &self.evidence)
    }
}

/// Runs a round, which must come to its end within this time. One that does not is left behind, threads and all.
///
/// # Errors
///
/// As [`round`], and when it does not end.
pub fn round_within(site: Box<dyn Site>, plan: Plan, limit: Duration) -> Result<Round, Fault> {
    let (seed, (done, result)) = (plan.seed, mpsc::channel());
    std::thread::Builder::new().name(format!("round {seed}")).spawn(move || {
        // Nobody waits for it any more when it comes too late.
        drop(done.send(round(&*site, &plan)));
    })?;
    match result.recv_timeout(limit) {
        Ok(round) => round,
        Err(RecvTimeoutError::Timeout) => {
            Err(format!("seed {seed}: the round does not end: somebody waits for ever").into())
        }
        Err(RecvTimeoutError::Disconnected) => Err(format!("seed {seed}: the round panicked").into()),
    }
}

/// Runs a round.
///
/// # Errors
///
/// When a store cannot be opened or closed.
pub fn round(site: &dyn Site, plan: &Plan) -> Result<Round, Fault> {
    let options = Options::new().limits(LIMITS).retention(plan.retention).durability(plan.durability);
    let (clock, ticker) = (Arc::new(ManualClock::default()), Ticker::new());
    let mut dice = Dice::new(plan.seed ^ 0x5eed);
    let (mut all, mut evidence) = (Records::default(), Evidence::default());
    let mut known = Revision::ZERO;
    let lives = if site.capabilities().restarts { plan.lives.len() } else { 1 };
    for (number, watchers) in plan.lives.iter().take(lives).enumerate() {
        let handles = if site.capabilities().restarts { plan.handles } else { 1 };
        let handles =
            (0..handles).map(|_| site.open(options.clone(), clock.clone())).collect::<Result<_, _>>()?;
        let writing_back = site.capabilities().callbacks_write;
        let keep = plan.keep.filter(|_| site.capabilities().trims);
        let stage = Arc::new(Stage::new(ticker.clone(), clock.clone(), handles, number * plan.handles));
        (known, evidence.floor) =
            life(&stage, plan, (number, watchers), (known, keep), writing_back, &mut dice)?;
        evidence.quiet.extend(stage.quiet());
        evidence.latest = evidence.latest.max(stage.latest());
        let records = std::mem::take(&mut *stage.records());
        all.rows.extend(records.rows);
        all.writes.extend(records.writes);
        all.recordings.extend(records.recordings);
        all.pictures.extend(records.pictures);
        all.faults.extend(records.faults);
        if site.capabilities().restarts {
            let again = site.open(options.clone(), clock.clone())?;
            let (_, rows) = again.history(&Want::log(), Revision::ZERO)?;
            evidence.floor = evidence.floor.max(again.oldest()?);
            evidence.lives.push(Log::new(rows));
            again.close()?;
        }
    }
    evidence.settled = Some(watchkeep::Clock::now(&*clock));
    evidence.log = Log::new(all.rows);
    evidence.writes = all.writes.into_iter().map(|write| (write.label.clone(), write)).collect();
    evidence.pictures = all.pictures;
    evidence.write_limit = Some(WRITE_LIMIT);
    Ok(Round { seed: plan.seed, recordings: all.recordings, evidence, faults: all.faults })
}

/// From opening to closing; the last revision, and the oldest that the log still holds.
fn life(
    stage: &Arc<Stage>,
    plan: &Plan,
    (number, watchers): (usize, &[WatchPlan]),
    (known, keep): (Revision, Option<u64>),
    writing_back: bool,
    dice: &mut Dice,
) -> Result<(Revision, Revision), Fault> {
    let name = |place: usize, watcher: &WatchPlan| {
        let WatchSpec { policy, buffer, .. } = watcher.spec;
        format!("watcher {number}.{place} ({policy:?}, buffer {buffer}, {:?})", watcher.pace)
    };
    let named = watchers.iter().enumerate().map(|(place, watcher)| (name(place, watcher), watcher.clone()));
    let (waiting, served): (Vec<_>, Vec<_>) = named.partition(|(_, watcher)| watcher.pace == Pace::Waiting);
    let listeners = listeners(stage, plan, number, writing_back, dice);

    std::thread::scope(|scope| {
        let mut scribes_dice = dice.split();
        let scribe = scope.spawn(move || scribe::run(stage, known, keep, &mut scribes_dice));
        let desks: Vec<_> = (0..DESKS)
            .map(|desk_number| {
                let plans: Vec<_> = served.iter().skip(desk_number).step_by(DESKS).cloned().collect();
                let mut dice = dice.split();
                scope.spawn(move || desk(stage, &plans, &mut dice))
            })
            .collect();
        let waiting: Vec<_> = waiting
            .iter()
            .map(|(name, watcher)| {
                let mut dice = dice.split();
                scope.spawn(move || wait(stage, name, watcher, &mut dice))
            })
            .collect();
        let writers: Vec<_> = plan
            .writers
            .iter()
            .enumerate()
            .map(|(place, handle)| {
                let mut dice = dice.split();
                let mut seat = mirror(stage, &format!("writer {number}.{place}"), *handle);
                scope.spawn(move || {
                    let name = format!("w{number}.{place}");
                    writer::run(stage, &name, *handle, plan.ops, plan.clock_moves, &mut dice, &mut seat);
                    seat
                })
            })
            .collect();

        let mut seats: Vec<Seat> = Vec::new();
        for writer in writers {
            seats.extend(writer.join().map_err(|_| "a writer panicked")?);
        }
        let last = settle(stage, number)?;
        stage.enter(Phase::Quiet);
        let known = scribe.join().map_err(|_| "the scribe panicked")?;
        let known = scribe::write_down(stage, known);
        for desk in desks {
            seats.extend(desk.join().map_err(|_| "a desk panicked")?);
        }
        for handle in 0..stage.handles.len() {
            scribe::take_picture(stage, handle);
        }
        for problem in stage.handles.first().map(|handle| handle.check()).transpose()?.unwrap_or_default() {
            stage.fault(format!("the store finds in itself: {problem}"));
        }

        let floor = stage.handles.first().ok_or("nothing is open")?.oldest()?;
        stage.enter(Phase::Closed);
        for handle in &stage.handles {
            handle.close()?;
        }
        for reader in waiting {
            seats.extend(reader.join().map_err(|_| "a reader panicked")?);
        }
        seats.into_iter().for_each(|seat| seat.drain(stage, last, dice));
        listeners.into_iter().for_each(|listener| listener.leave(stage, last));
        Ok((known, floor))
    })
}

/// The stream that a writer holds, and asks after each of its writes.
fn mirror(stage: &Stage, name: &str, handle: usize) -> Option<Seat> {
    let spec = WatchSpec { beginning: Beginning::Now, ..WatchSpec::new(Want::log()) };
    let plan = WatchPlan { spec, pace: Pace::Every(1, usize::MAX), leaves: None, from: 0, handle };
    Seat::take(stage, name, &plan)
}

fn listeners(
    stage: &Arc<Stage>,
    plan: &Plan,
    number: usize,
    writing_back: bool,
    dice: &mut Dice,
) -> Vec<Listener> {
    let habits = |draw: &mut Draw<'_>| match draw.below(5) {
        0 | 1 => Habit::Quiet,
        2 if writing_back => Habit::WritesBack,
        2 => Habit::Quiet,
        3 => Habit::Panics,
        _ => Habit::Goes(1 + draw.below(40)),
    };
    let wants = plan.callbacks.iter().enumerate();
    wants
        .filter_map(|(place, want)| {
            let mut draw = Draw::new(dice);
            let (habit, handle) = (habits(&mut draw), draw.below(stage.handles.len()));
            listen(stage, &format!("callback {number}.{place} {habit:?}"), handle, want, habit)
        })
        .collect()
}

/// The writers are done: what is due is announced, and what callbacks write about it is written. The last revision.
fn settle(stage: &Arc<Stage>, number: usize) -> Result<Revision, Fault> {
    stage.move_clock(1_000);
    let first = stage.handles.first().ok_or("nothing is open")?;
    if let Outcome::Refused(refusal) = first.perform(&Step::whole(Op::PurgeExpired), "purge") {
        return Err(format!("what is due could not be purged: {refusal:?}").into());
    }
    // A write returns after all callbacks of its handle have run, for what others wrote too.
    for handle in (0..stage.handles.len()).rev() {
        let place = Place { group: "end".to_owned(), key: number.to_string() };
        let (value, ttl, condition) = ("end".into(), Ttl::Clear, Condition::Always);
        let op = Op::Write(Write::Set { place, value, ttl, condition, content_type: None });
        writer::write(stage, handle, &Step::whole(op), &format!("callback end {number}.{handle}"), None);
    }
    first.last()
}
