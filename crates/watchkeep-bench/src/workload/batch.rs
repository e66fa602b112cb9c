//! Transactions of many sets, in no order, in a large store.

use std::time::{Duration, Instant};

use super::Place;
use crate::Result;
use crate::data::{Name, names};
use crate::outcome::{Outcome, Section};
use crate::plan::Cell;
use crate::samples::Samples;

/// The cell's size is how many sets a transaction has.
pub(super) fn batch(cell: &Cell, place: &Place<'_>, window: Duration, entries: usize) -> Result<Outcome> {
    let names = names(entries);
    let peer = cell.contender.open(&place.loaded(cell, &names)?, cell)?;
    let before = peer.logged()?;
    let (mut outcome, mut samples) = (Outcome::default(), Samples::default());
    let mut random = fastrand::Rng::with_seed(1);
    let section = Section::begin()?;
    let until = Instant::now() + window;
    while Instant::now() < until {
        let drawn: Vec<Name> =
            (0..cell.size).filter_map(|_| names.get(random.usize(..entries)).cloned()).collect();
        let begun = Instant::now();
        peer.load(&drawn, drawn.len())?;
        samples.add(begun.elapsed());
    }
    section.end(&mut outcome)?;
    if let (Some(before), Some(after)) = (before, peer.logged()?) {
        outcome.check("events in the log", after - before, (samples.len() * cell.size) as u64);
    }
    outcome.metric("p50", samples.permille(500));
    outcome.metric("p99", samples.permille(990));
    outcome.metric("mean", samples.mean());
    outcome.metric("entry", samples.mean() / cell.size as f64);
    Ok(outcome)
}
