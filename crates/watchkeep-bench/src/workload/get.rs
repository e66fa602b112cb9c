//! Single reads, warm.

use std::path::Path;
use std::time::{Duration, Instant};

use super::together;
use crate::Result;
use crate::contender::Session;
use crate::data::{NAMES, Name, is_value, names};
use crate::outcome::Outcome;
use crate::plan::Cell;
use crate::samples::Samples;

const WARM_UP: usize = 20_000;

pub(super) fn get(cell: &Cell, folder: &Path, window: Duration) -> Result<Outcome> {
    let names = names(NAMES);
    // Opened again after the load, so that the write-ahead log is in the file.
    cell.contender.open(folder, cell.durability)?.load(&names, NAMES)?;
    let peer = cell.contender.open(folder, cell.durability)?;
    let mut outcome = Outcome::default();
    let (took, read) = together(cell.size, &mut outcome, |thread, wait| {
        let mut random = fastrand::Rng::with_seed(thread as u64 + 1);
        let ready = peer.session().and_then(|mut session| {
            for _ in 0..WARM_UP {
                one(&mut *session, &names, &mut random)?;
            }
            Ok(session)
        });
        wait();
        let (mut session, mut samples, mut right) = (ready?, Samples::default(), 0);
        let mut begun = Instant::now();
        let until = begun + window;
        while begun < until {
            right += one(&mut *session, &names, &mut random)?;
            let done = Instant::now();
            samples.add(done - begun);
            begun = done;
        }
        Ok((samples, right))
    })?;
    let (mut samples, mut right) = (Samples::default(), 0);
    for (of_thread, right_of_thread) in read {
        samples.extend(of_thread);
        right += right_of_thread;
    }
    outcome.metric("rate", samples.len() as f64 / took.as_secs_f64());
    outcome.metric("p50", samples.permille(500));
    outcome.metric("p99", samples.permille(990));
    outcome.check("values read", right, samples.len() as u64);
    Ok(outcome)
}

/// One read; 1 if it was right.
fn one(session: &mut dyn Session, names: &[Name], random: &mut fastrand::Rng) -> Result<u64> {
    let number = random.usize(..names.len());
    let mut right = 0;
    let name = names.get(number).ok_or("no such name")?;
    session.get(name, &mut |read| right = u64::from(is_value(read, number, None)))?;
    Ok(right)
}
