//! Opening a large store, and its first read.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;
use crate::data::{is_value, names};
use crate::outcome::{Outcome, Section};
use crate::plan::Cell;
use crate::samples::Samples;

/// Opens it again and again, with the file in the system's memory.
pub(super) fn open(cell: &Cell, folder: &Path, window: Duration) -> Result<Outcome> {
    let (names, mut outcome) = (names(cell.size), Outcome::default());
    cell.contender.open(folder, cell)?.load(&names, names.len())?;
    let (mut opens, mut gets, mut both) = (Samples::default(), Samples::default(), Samples::default());
    let (mut random, mut right) = (fastrand::Rng::with_seed(1), 0);
    let section = Section::begin()?;
    let until = Instant::now() + window;
    while Instant::now() < until || opens.len() < 3 {
        let number = random.usize(..names.len());
        let name = names.get(number).ok_or("no such name")?;
        let begun = Instant::now();
        let peer = cell.contender.open(folder, cell)?;
        let opened = Instant::now();
        peer.session()?.get(name, &mut |read| right += u64::from(is_value(read, number, None)))?;
        let read = Instant::now();
        opens.add(opened - begun);
        gets.add(read - opened);
        both.add(read - begun);
    }
    section.end(&mut outcome)?;
    outcome.check("values read", right, opens.len() as u64);
    outcome.metric("open", opens.permille(500));
    outcome.metric("first get", gets.permille(500));
    outcome.metric("both", both.permille(500));
    Ok(outcome)
}
