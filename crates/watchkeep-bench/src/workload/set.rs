//! Single sets, and the floor under them.

use std::path::Path;
use std::time::{Duration, Instant};

use super::together;
use crate::Result;
use crate::contender::{Peer, Session};
use crate::data::{NAMES, Name, is_value, names, value};
use crate::outcome::Outcome;
use crate::plan::Cell;
use crate::samples::Samples;

/// Sets by each thread before anything is measured.
const WARM_UP: u64 = 50;
/// How many of the written keys are read back.
const READ_BACK: usize = 2_000;

/// What one thread wrote.
struct Written {
    samples: Samples,
    sets: u64,
    /// The last serial number of each key of this thread.
    last: Vec<u64>,
}

pub(super) fn floor(cell: &Cell, folder: &Path, window: Duration) -> Result<Outcome> {
    let peer = cell.contender.open(folder, cell)?;
    Ok(write(&*peer, cell, &names(NAMES), window)?.0)
}

pub(super) fn set(cell: &Cell, folder: &Path, window: Duration) -> Result<Outcome> {
    let (peer, names) = (cell.contender.open(folder, cell)?, names(NAMES));
    let (mut outcome, written) = write(&*peer, cell, &names, window)?;
    if let Some(logged) = peer.logged()? {
        outcome.check("events in the log", logged, written.iter().map(|thread| thread.sets).sum());
    }
    read_back(&*peer, &names, &written, &mut outcome)?;
    Ok(outcome)
}

/// Each thread writes keys of its own, in random order, one after the other.
fn write(peer: &dyn Peer, cell: &Cell, names: &[Name], window: Duration) -> Result<(Outcome, Vec<Written>)> {
    let (threads, mut outcome) = (cell.size, Outcome::default());
    let (took, mut written) = together(threads, &mut outcome, |thread, wait| {
        let ready = peer.session().and_then(|mut session| {
            let mut written = Written { samples: Samples::default(), sets: 0, last: Vec::new() };
            written.last = vec![0; names.len().div_ceil(threads)];
            let mut random = fastrand::Rng::with_seed(thread as u64 + 1);
            let mut text = String::with_capacity(128);
            for _ in 0..WARM_UP {
                one(&mut *session, names, (thread, threads), &mut random, &mut text, &mut written)?;
            }
            written.samples = Samples::default();
            Ok((session, written, random, text))
        });
        // Also after a failure: the others wait.
        wait();
        let (mut session, mut written, mut random, mut text) = ready?;
        let until = Instant::now() + window;
        while one(&mut *session, names, (thread, threads), &mut random, &mut text, &mut written)? < until {}
        Ok(written)
    })?;
    let mut samples = Samples::default();
    for thread in &mut written {
        samples.extend(std::mem::take(&mut thread.samples));
    }
    outcome.metric("rate", samples.len() as f64 / took.as_secs_f64());
    outcome.metric("count", samples.len() as f64);
    outcome.metric("p50", samples.permille(500));
    outcome.metric("p99", samples.permille(990));
    Ok((outcome, written))
}

/// One set; when it was done.
fn one(
    session: &mut dyn Session,
    names: &[Name],
    (thread, threads): (usize, usize),
    random: &mut fastrand::Rng,
    text: &mut String,
    written: &mut Written,
) -> Result<Instant> {
    let place = random.usize(..(names.len() - thread).div_ceil(threads));
    let number = place * threads + thread;
    written.sets += 1;
    value(text, number, written.sets)?;
    let name = names.get(number).ok_or("no such name")?;
    let begun = Instant::now();
    session.set(name, text)?;
    let done = Instant::now();
    written.samples.add(done - begun);
    if let Some(last) = written.last.get_mut(place) {
        *last = written.sets;
    }
    Ok(done)
}

/// What was written last must be there.
fn read_back(peer: &dyn Peer, names: &[Name], written: &[Written], outcome: &mut Outcome) -> Result<()> {
    let (mut session, threads) = (peer.session()?, written.len());
    let (mut right, mut asked) = (0, 0);
    for (thread, written) in written.iter().enumerate() {
        let keys = written.last.iter().enumerate().filter(|(_, serial)| **serial > 0);
        for (place, serial) in keys.take(READ_BACK / threads) {
            let number = place * threads + thread;
            let Some(name) = names.get(number) else { continue };
            asked += 1;
            session.get(name, &mut |read| right += u64::from(is_value(read, number, Some(*serial))))?;
        }
    }
    outcome.check("values read back", right, asked);
    Ok(())
}
