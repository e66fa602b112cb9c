//! Single reads: each key as often as any other, or few of them most of the time, beside a writer, or with nothing in
//! memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Place, joined, together};
use crate::Result;
use crate::contender::{Peer, Session};
use crate::data::{Name, is_value, names, value};
use crate::machine::{drop_cache, pause};
use crate::outcome::{Outcome, Section};
use crate::plan::{Cell, Workload};
use crate::samples::Samples;

const WARM_UP: usize = 20_000;
/// How many choices are made beforehand; then they come again.
const DRAWN: usize = 500_000;

/// How many keys are read of a store of which nothing is in memory.
const COLD: usize = 2_000;
/// From one set to the next of the writer beside the readers.
const PACE: Duration = Duration::from_millis(1);

/// Which key is read next.
struct Pick {
    entries: usize,
    /// For Zipf's law: how much the keys up to this one are read, added up; empty where all are alike.
    shares: Vec<f64>,
}

impl Pick {
    /// Zipf's law with the exponent 0.99, as YCSB has it.
    fn new(entries: usize, zipf: bool) -> Pick {
        let mut sum = 0.0;
        let shares = (1..=if zipf { entries } else { 0 }).map(|rank| {
            sum += (rank as f64).powf(-0.99);
            sum
        });
        Pick { entries, shares: shares.collect() }
    }

    fn next(&self, random: &mut fastrand::Rng) -> usize {
        let Some(all) = self.shares.last() else { return random.usize(..self.entries) };
        let at = random.f64() * all;
        let rank = self.shares.partition_point(|share| *share < at).min(self.entries - 1);
        // The keys that are read most lie all over the file; a prime keeps two ranks from one key.
        rank.wrapping_mul(15_485_863) % self.entries
    }
}

/// By as many threads as the cell's size says; beside a writer where the workload has one.
pub(super) fn get(cell: &Cell, place: &Place<'_>, window: Duration, entries: usize) -> Result<Outcome> {
    let (names, zipf) = (names(entries), cell.workload == Workload::GetZipf);
    let pick = Pick::new(entries, zipf);
    let peer = cell.contender.open(&place.loaded(cell, &names)?, cell)?;
    let (mut outcome, done) = (Outcome::default(), AtomicBool::new(false));
    let (took, read) = std::thread::scope(|scope| {
        let writer =
            (cell.workload == Workload::GetBusy).then(|| scope.spawn(|| write(&*peer, &names, &done)));
        let read = together(cell.size, &mut outcome, |thread, wait| {
            let mut random = fastrand::Rng::with_seed(thread as u64 + 1);
            let drawn: Vec<_> = (0..DRAWN).map(|_| pick.next(&mut random)).collect();
            let mut numbers = drawn.into_iter().cycle();
            let mut next = || numbers.next().unwrap_or_default();
            let ready = peer.session().and_then(|mut session| {
                for _ in 0..WARM_UP {
                    one(&mut *session, &names, next())?;
                }
                Ok(session)
            });
            wait();
            let (mut session, mut samples, mut right) = (ready?, Samples::default(), 0);
            let mut begun = Instant::now();
            let until = begun + window;
            while begun < until {
                right += one(&mut *session, &names, next())?;
                let done = Instant::now();
                samples.add(done - begun);
                begun = done;
            }
            Ok((samples, right))
        });
        done.store(true, Ordering::Relaxed);
        writer.map_or(Ok(()), joined)?;
        read
    })?;
    let (mut samples, mut right) = (Samples::default(), 0);
    for (of_thread, right_of_thread) in read {
        samples.extend(of_thread);
        right += right_of_thread;
    }
    figures(samples, took, right, &mut outcome);
    Ok(outcome)
}

/// The first reads of a store that was opened with nothing of it in memory.
pub(super) fn cold(cell: &Cell, place: &Place<'_>, entries: usize) -> Result<Outcome> {
    let names = names(entries);
    let folder = place.loaded(cell, &names)?;
    for file in std::fs::read_dir(&folder)? {
        let path = file?.path();
        if path.is_file() {
            drop_cache(&path)?;
        }
    }
    let peer = cell.contender.open(&folder, cell)?;
    let (mut session, mut random) = (peer.session()?, fastrand::Rng::with_seed(1));
    let (mut outcome, mut samples, mut right) = (Outcome::default(), Samples::default(), 0);
    let section = Section::begin()?;
    for _ in 0..COLD {
        let begun = Instant::now();
        right += one(&mut *session, &names, random.usize(..entries))?;
        samples.add(begun.elapsed());
    }
    let took = section.end(&mut outcome)?;
    figures(samples, took, right, &mut outcome);
    Ok(outcome)
}

fn figures(mut samples: Samples, took: Duration, right: u64, outcome: &mut Outcome) {
    outcome.metric("rate", samples.len() as f64 / took.as_secs_f64());
    outcome.metric("p50", samples.permille(500));
    outcome.metric("p99", samples.permille(990));
    outcome.check("values read", right, samples.len() as u64);
}

/// One read; 1 if it was right.
fn one(session: &mut dyn Session, names: &[Name], number: usize) -> Result<u64> {
    let mut right = 0;
    let name = names.get(number).ok_or("no such name")?;
    session.get(name, &mut |read| right = u64::from(is_value(read, number, None)))?;
    Ok(right)
}

/// Sets random keys at an even pace.
fn write(peer: &dyn Peer, names: &[Name], done: &AtomicBool) -> Result<()> {
    let (mut session, mut random) = (peer.session()?, fastrand::Rng::with_seed(0));
    let (mut text, mut next) = (String::new(), Instant::now());
    for serial in 0.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let number = random.usize(..names.len());
        value(&mut text, number, serial)?;
        session.set(names.get(number).ok_or("no such name")?, &text)?;
        next += PACE;
        pause(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}
