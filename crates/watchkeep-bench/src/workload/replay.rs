//! Reading the log from its beginning: as a watcher that starts there, as many that do, and as an iterator.

use std::path::Path;

use crate::Result;
use crate::contender::Replayed;
use crate::data::{NAMES, names, value_bytes};
use crate::outcome::{Outcome, Section};
use crate::plan::{Cell, Workload};

/// How many events those read that lag together.
const LAGGING: usize = 5_000;

pub(super) fn replay(cell: &Cell, folder: &Path) -> Result<Outcome> {
    let names = names(NAMES);
    let (count, watchers) = match cell.workload {
        Workload::Lagging => (LAGGING, cell.size),
        _ => (cell.size, 1),
    };
    cell.contender.open(folder, cell)?.load(&names, count)?;
    let peer = cell.contender.open(folder, cell)?;
    let mut outcome = Outcome::default();
    let section = Section::begin()?;
    let Replayed { events, revisions, bytes } = peer.replay(cell.workload, count as u64, watchers)?;
    let took = section.end(&mut outcome)?;
    let sizes = (0..count).map(|serial| value_bytes(serial % NAMES) as u64);
    let (count, watchers) = (count as u64, watchers as u64);
    outcome.check("events", events, watchers * count);
    outcome.check("sum of revisions", revisions, watchers * (count * (count + 1) / 2));
    outcome.check("bytes", bytes, watchers * sizes.sum::<u64>());
    outcome.metric("took", took.as_secs_f64() * 1e9);
    outcome.metric("rate", events as f64 / took.as_secs_f64());
    outcome.metric("event", took.as_secs_f64() * 1e9 / events.max(1) as f64);
    Ok(outcome)
}
