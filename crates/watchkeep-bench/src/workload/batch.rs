//! Transactions of many sets, in no order, in a large store.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Place;
use crate::Result;
use crate::data::{Name, is_value, names};
use crate::outcome::{Outcome, Section};
use crate::plan::Cell;
use crate::samples::Samples;

/// The cell's size is how many sets a transaction has.
pub(super) fn batch(cell: &Cell, place: &Place<'_>, window: Duration, entries: usize) -> Result<Outcome> {
    let names = names(entries);
    let peer = cell.contender.open(&place.loaded(cell, &names)?, cell)?;
    let (mut outcome, mut samples) = (Outcome::default(), Samples::default());
    let mut random = fastrand::Rng::with_seed(1);
    let mut drawn = Vec::new();
    let section = Section::begin()?;
    let until = Instant::now() + window;
    while Instant::now() < until {
        drawn =
            (0..cell.size).filter_map(|_| names.get(random.usize(..entries)).cloned()).collect::<Vec<Name>>();
        let begun = Instant::now();
        peer.load(&drawn, drawn.len())?;
        samples.add(begun.elapsed());
    }
    section.end(&mut outcome)?;
    // Of a name that was drawn twice the last set stands.
    let last: HashMap<_, _> =
        drawn.iter().enumerate().map(|(number, name)| ((&name.group, &name.key), number)).collect();
    let (mut session, mut right) = (peer.session()?, 0);
    for number in last.values() {
        let name = drawn.get(*number).ok_or("no such name")?;
        session.get(name, &mut |read| right += u64::from(is_value(read, *number, Some(*number as u64))))?;
    }
    outcome.check("values read back", right, last.len() as u64);
    outcome.metric("p50", samples.permille(500));
    outcome.metric("p99", samples.permille(990));
    outcome.metric("mean", samples.mean());
    outcome.metric("entry", samples.mean() / cell.size as f64);
    Ok(outcome)
}
