//! A round of large values against a hub whose clients stand still for longer than its rings reach, are cut off, and
//! come back. What they were told over all their connections is held against the promises.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use watchkeep::{Durability, ManualClock, Options, Revision};

use super::plan::{Pace, WatchPlan};
use super::reader::Seat;
use super::round::{Round, WRITE_LIMIT};
use super::stage::{Phase, Records, Stage};
use super::{scribe, writer};
use crate::ops::{Call, Choices as _, Condition, Dice, Draw, Op, Place, Step, Ttl, Write};
use crate::record::{Beginning, Evidence, Heard, Log, Target, Ticker, Want, WatchSpec};
use crate::surface::{Fault, Faults, Hub, Site as _, Suffered, Wait, Wire};

/// How many writers there are, and how often each writes at the most.
const WRITERS: usize = 2;
const WRITES: usize = 1_500;
/// How many clients there are.
const CLIENTS: usize = 4;
/// The writers go on until the clients have stood still so often, all together.
const STALLS: u64 = 6;
/// A client stands still for at most so many writes.
const STALL: usize = 900;
/// How large a value is at the most: 400 of them, of half of this on average, are more than a ring and a socket hold.
const VALUE: usize = 48 << 10;
const GROUPS: [&str; 2] = ["even", "odd"];
/// The last key of each group.
const END: &str = "end";
/// How long a client may take to read what is left.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the round of a seed.
///
/// # Errors
///
/// When the store cannot be opened or closed, or the server not started.
pub fn stalled(wire: Wire, seed: u64) -> Result<(Round, Suffered), Fault> {
    let mut dice = Dice::new(seed);
    let faults = Faults { seed, messages: 40, stall: STALL, cut: 4 << 20 };
    let hub = Hub::new(wire)?.with_faults(faults);
    let clock = Arc::new(ManualClock::default());
    let surface = hub.open(Options::new().durability(Durability::Relaxed), clock.clone())?;
    let stage = Stage::new(Ticker::new(), clock, vec![surface.clone()], 0);
    // Each wire in turn has a log that is trimmed behind it.
    let keep = (seed.is_multiple_of(2) == (wire == Wire::Events)).then_some(150);

    std::thread::scope(|scope| {
        let (stage, hub, (has_begun, begun)) = (&stage, &hub, mpsc::channel());
        let mut scribes_dice = dice.split();
        let scribe = scope.spawn(move || scribe::run(stage, Revision::ZERO, keep, &mut scribes_dice));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (mut dice, has_begun) = (dice.split(), has_begun.clone());
                scope.spawn(move || client(stage, number, &has_begun, &mut dice))
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let mut dice = dice.split();
                scope.spawn(move || write(stage, hub, number, &mut dice))
            })
            .collect();
        for writer in writers {
            writer.join().map_err(|_| "a writer panicked")?;
        }
        // Who watches from now on must not begin after the end.
        begun.iter().take(CLIENTS).for_each(drop);
        for group in GROUPS {
            writer::write(
                stage,
                0,
                &Step::whole(Op::Write(set(group, END, 1))),
                &format!("{END} {group}"),
                None,
            );
        }
        stage.enter(Phase::Quiet);
        hub.calm();
        let known = scribe.join().map_err(|_| "the scribe panicked")?;
        scribe::write_down(stage, known);
        for client in clients {
            client.join().map_err(|_| "a client panicked")?;
        }
        Ok::<(), Fault>(())
    })?;

    let floor = surface.oldest()?;
    surface.close()?;
    let quiet = stage.quiet().into_iter().collect();
    let Records { writes, recordings, pictures, rows, faults } = std::mem::take(&mut *stage.records());
    let evidence = Evidence {
        log: Log::new(rows),
        writes: writes.into_iter().map(|write| (write.label.clone(), write)).collect(),
        pictures,
        floor,
        quiet,
        latest: stage.latest(),
        write_limit: Some(WRITE_LIMIT),
        ..Evidence::default()
    };
    Ok((Round { seed, recordings, evidence, faults }, hub.suffered()))
}

fn set(group: &str, key: &str, size: usize) -> Write {
    let place = Place { group: group.to_owned(), key: key.to_owned() };
    let (value, ttl, condition) = ("x".repeat(size).into(), Ttl::Clear, Condition::Always);
    Write::Set { place, value, ttl, condition, content_type: None }
}

fn write(stage: &Stage, hub: &Hub, number: usize, dice: &mut Dice) {
    for count in (0..WRITES).take_while(|_| hub.suffered().stalls < STALLS) {
        let mut one = || {
            let group = GROUPS.get(dice.below(GROUPS.len())).copied().unwrap_or_default();
            set(group, &format!("k{}", dice.below(20)), 1 + dice.below(VALUE))
        };
        let op = match count % 10 {
            0 => {
                let calls = vec![Call::Write(one()), Call::Write(one())];
                Op::Transaction { calls, lenient: false, abort: false }
            }
            _ => Op::Write(one()),
        };
        writer::write(stage, 0, &Step::whole(op), &format!("w{number}.{count}"), None);
        stage.beat();
    }
}

/// A client, from some moment on until it has been told everything.
fn client(stage: &Stage, number: usize, has_begun: &mpsc::Sender<()>, dice: &mut Dice) {
    let mut draw = Draw::new(dice);
    let group = draw.pick(&GROUPS).to_owned();
    let want = match draw.below(3) {
        0 => Want::log(),
        1 => Want::new(Target::Group(group)),
        _ => Want::new(Target::GroupPrefix(group)),
    };
    let beginning = match draw.below(3) {
        0 => Beginning::Now,
        1 => Beginning::After(Revision::ZERO),
        _ => Beginning::Snapshot,
    };
    let spec = WatchSpec { beginning, ..WatchSpec::new(want) };
    let from = u64::try_from(draw.below(STALL)).unwrap_or(0);
    stage.reached(from);
    let name = format!("client {number} ({beginning:?})");
    let plan = WatchPlan { spec, pace: Pace::Waiting, leaves: None, from, handle: 0 };
    let seat = Seat::take(stage, &name, &plan);
    // The other side waits until all have.
    let _ = has_begun.send(());
    let Some(mut seat) = seat else { return };
    let group = match &plan.spec.want.target {
        Target::Group(group) | Target::GroupPrefix(group) => group.as_str(),
        _ => GROUPS.last().copied().unwrap_or_default(),
    };
    let (mut since, mut end) = (Instant::now(), None);
    while end.is_none() || !seat.recording().is_begun() {
        if seat.one(stage, Wait::Most(Duration::from_secs(1)), dice) || stage.phase() == Phase::Running {
            since = Instant::now();
        }
        let event = seat.recording().heard.last().and_then(Heard::event);
        end = event
            .filter(|it| it.group == group && it.key.as_deref() == Some(END))
            .map(|it| it.revision)
            .or(end);
        if since.elapsed() > PATIENCE {
            stage.fault(format!("{name} is told nothing any more"));
            return;
        }
    }
    seat.leave(stage, end.unwrap_or(Revision::ZERO));
}
