//! Writers.

use watchkeep::{ErrorKind, Revision};

use super::plan::ECHO;
use super::reader::Seat;
use super::stage::Stage;
use crate::ops::{Dice, Draw, Op, Outcome, Place, Read, Refusal, Step};
use crate::record::{Fate, Write};

/// Makes a write, recorded; inside a callback, with the event that is its cause.
pub(super) fn write(
    stage: &Stage,
    number: usize,
    step: &Step,
    label: &str,
    cause: Option<Revision>,
) -> Outcome {
    let Some(handle) = stage.handle(number) else {
        return Outcome::Refused(Refusal::Kind(ErrorKind::Closed));
    };
    let (outcome, span) = stage.ticker.span(|| handle.perform(step, label));
    // Several writes share this label: which of them made an event, nobody can say.
    if label != ECHO {
        let (label, hub) = (label.to_owned(), stage.first_hub + number);
        stage.records().writes.push(Write { label, hub, span, cause, fate: fate(&outcome) });
    }
    outcome
}

fn fate(outcome: &Outcome) -> Fate {
    match outcome {
        Outcome::At(revision) | Outcome::Committed(_, revision) => Fate::Done(Some(*revision)),
        Outcome::Refused(Refusal::Kind(ErrorKind::UnknownOutcome | ErrorKind::Poisoned | ErrorKind::Io)) => {
            Fate::Unknown
        }
        Outcome::Refused(_) => Fate::Undone,
        _ => Fate::Done(None),
    }
}

/// A writer, from its first step to its last. After each it asks the stream that it holds itself.
pub(super) fn run(
    stage: &Stage,
    name: &str,
    number: usize,
    ops: usize,
    clock_moves: bool,
    dice: &mut Dice,
    seat: &mut Option<Seat>,
) {
    let mut own = dice.split();
    for count in 0..ops {
        let mut draw = Draw::new(dice);
        if clock_moves && draw.one_in(12) {
            let millis = if draw.one_in(4) {
                -i64::from(draw.pick(&[1_u8, 30, 100]))
            } else {
                i64::from(draw.pick(&[1_u16, 20, 100, 1_000]))
            };
            stage.move_clock(millis);
        }
        if draw.one_in(40) {
            take_away_due(stage, number);
        }
        let step = resolved(stage, number, draw.change());
        let echo = draw.one_in(6);
        let label = if echo { ECHO.to_owned() } else { format!("{name}.{count}") };
        let outcome = write(stage, number, &step, &label, None);
        if let Outcome::Refused(Refusal::Kind(kind)) = outcome
            && !matches!(kind, ErrorKind::Aborted | ErrorKind::TooLarge | ErrorKind::InvalidArgument)
        {
            stage.fault(format!("a write failed with {kind:?}: {step:?}"));
        }
        if let Some(seat) = seat {
            seat.read(stage, usize::MAX, &mut own);
        }
        stage.beat();
    }
}

fn take_away_due(stage: &Stage, number: usize) {
    if let Some(handle) = stage.handle(number) {
        handle.perform(&Step::whole(Op::PurgeExpired), "purge");
    }
}

/// Fills in what the entries have by now; another writer may be faster, and then the condition fails.
fn resolved(stage: &Stage, number: usize, step: Step) -> Step {
    let (namespace, handle) = (step.namespace.clone(), stage.handle(number));
    step.resolved(|place: &Place| {
        let op = Op::Read(Read::Entry(place.clone()));
        match handle?.perform(&Step { namespace: namespace.clone(), quota: None, op }, "writer") {
            Outcome::Entry(entry) => entry.map(|cell| cell.revision),
            _ => None,
        }
    })
}
