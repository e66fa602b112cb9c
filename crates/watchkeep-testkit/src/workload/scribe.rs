//! The scribe: reads the log as it grows, trims it behind itself, and looks at all of the store now and then.

use watchkeep::{Revision, Timestamp};

use super::stage::{Phase, Stage};
use crate::ops::{Dice, Draw};
use crate::record::{Picture, Want};

/// Writes the log down after this revision, until the writers are done; up to where.
pub(super) fn run(stage: &Stage, mut after: Revision, keep: Option<u64>, dice: &mut Dice) -> Revision {
    let mut beat = 0;
    loop {
        let (reached, phase) = stage.reached(beat);
        after = write_down(stage, after);
        stage.written_down(reached);
        if phase != Phase::Running {
            return after;
        }
        let mut draw = Draw::new(dice);
        if draw.one_in(25) {
            take_picture(stage, draw.below(stage.handles.len()));
        }
        if let Some(keep) = keep
            && draw.one_in(15)
            && let Some(handle) = stage.handles.first()
            && let Err(fault) = handle.compact(Revision::new(after.get().saturating_sub(keep)))
        {
            stage.fault(format!("the log could not be trimmed: {fault}"));
        }
        beat = reached + 1;
    }
}

/// Reads what is new in the log; up to where.
pub(super) fn write_down(stage: &Stage, after: Revision) -> Revision {
    let Some(handle) = stage.handles.first() else { return after };
    match handle.history(&Want::log(), after) {
        Ok((None, rows)) => {
            let last = rows.last().map_or(after, |row| row.revision);
            stage.records().rows.extend(rows);
            last
        }
        Ok((Some(lost), _)) => {
            stage.fault(format!("the log was trimmed before it was written down: {lost:?}"));
            lost.1
        }
        Err(fault) => {
            stage.fault(format!("the log could not be read: {fault}"));
            after
        }
    }
}

/// Looks at all of the store at once.
pub(super) fn take_picture(stage: &Stage, number: usize) {
    let Some(handle) = stage.handle(number) else { return };
    let (picture, now): (_, Option<Timestamp>) = stage.at_one_time(|| handle.picture());
    match picture {
        Ok((revision, entries)) => {
            let name = format!("a snapshot at {revision}");
            stage.records().pictures.push(Picture { name, revision, entries, now });
        }
        Err(fault) => stage.fault(format!("a snapshot could not be taken: {fault}")),
    }
}
