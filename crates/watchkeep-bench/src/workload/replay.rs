//! Reading the log from its beginning: as a watcher that starts there, and as an iterator.

use std::path::Path;

use crate::Result;
use crate::contender::Replayed;
use crate::data::{NAMES, VALUE_BYTES, names};
use crate::outcome::{Outcome, Section};
use crate::plan::Cell;

pub(super) fn replay(cell: &Cell, folder: &Path) -> Result<Outcome> {
    let (names, count) = (names(NAMES), cell.size as u64);
    cell.contender.open(folder, cell)?.load(&names, cell.size)?;
    let peer = cell.contender.open(folder, cell)?;
    let mut outcome = Outcome::default();
    let section = Section::begin()?;
    let Replayed { events, revisions, bytes } = peer.replay(cell.workload, count)?;
    let took = section.end(&mut outcome)?;
    outcome.check("events", events, count);
    outcome.check("sum of revisions", revisions, count * (count + 1) / 2);
    outcome.check("bytes", bytes, count * VALUE_BYTES as u64);
    outcome.metric("rate", events as f64 / took.as_secs_f64());
    outcome.metric("event", took.as_secs_f64() * 1e9 / events.max(1) as f64);
    Ok(outcome)
}
