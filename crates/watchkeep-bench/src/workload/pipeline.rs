//! Many sets on their way at once, from one thread.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;
use crate::data::{NAMES, is_value, names, value};
use crate::outcome::{Outcome, Section};
use crate::plan::Cell;
use crate::samples::Samples;

/// Each set that is done makes place for the next; the cell's size is how many are on their way.
pub(super) fn pipelined(cell: &Cell, folder: &Path, window: Duration) -> Result<Outcome> {
    let (peer, names) = (cell.contender.open(folder, cell)?, names(NAMES));
    let (mut outcome, mut samples, mut random) =
        (Outcome::default(), Samples::default(), fastrand::Rng::with_seed(1));
    let (mut serial, mut last) = (0_u64, vec![0; names.len()]);
    let section = Section::begin()?;
    let until = Instant::now() + window;
    let mut next = || {
        let (number, mut text) = (random.usize(..names.len()), String::new());
        if Instant::now() >= until || value(&mut text, number, serial + 1).is_err() {
            return None;
        }
        serial += 1;
        if let Some(last) = last.get_mut(number) {
            *last = serial;
        }
        names.get(number).cloned().map(|name| (name, text))
    };
    peer.pipeline(cell.size, &mut next, &mut |took| samples.add(took))?;
    let took = section.end(&mut outcome)?;
    outcome.check("sets", samples.len() as u64, serial);
    if let Some(logged) = peer.logged()? {
        outcome.check("events in the log", logged, serial);
    }
    let (mut session, mut right, mut asked) = (peer.session()?, 0, 0);
    for (number, (name, serial)) in names.iter().zip(&last).enumerate().filter(|(_, (_, last))| **last > 0) {
        asked += 1;
        session.get(name, &mut |read| right += u64::from(is_value(read, number, Some(*serial))))?;
    }
    outcome.check("values read back", right, asked);
    outcome.metric("rate", samples.len() as f64 / took.as_secs_f64());
    outcome.metric("p50", samples.permille(500));
    outcome.metric("p99", samples.permille(990));
    Ok(outcome)
}
