//! Single reads, warm: each key as often as any other, or few of them most of the time.

use std::path::Path;
use std::time::{Duration, Instant};

use super::together;
use crate::Result;
use crate::contender::Session;
use crate::data::{Name, is_value, names};
use crate::outcome::Outcome;
use crate::plan::{Cell, Workload};
use crate::samples::Samples;

const WARM_UP: usize = 20_000;
/// How many choices are made beforehand; then they come again.
const DRAWN: usize = 500_000;

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

pub(super) fn get(cell: &Cell, folder: &Path, window: Duration, entries: usize) -> Result<Outcome> {
    let (names, zipf) = (names(entries), cell.workload == Workload::GetZipf);
    let pick = Pick::new(entries, zipf);
    // Opened again after the load, so that the write-ahead log is in the file.
    cell.contender.open(folder, cell)?.load(&names, entries)?;
    let peer = cell.contender.open(folder, cell)?;
    let mut outcome = Outcome::default();
    let (took, read) = together(cell.size, &mut outcome, |thread, wait| {
        let mut random = fastrand::Rng::with_seed(thread as u64 + 1);
        let mut numbers = (0..DRAWN).map(|_| pick.next(&mut random)).collect::<Vec<_>>().into_iter().cycle();
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
fn one(session: &mut dyn Session, names: &[Name], number: usize) -> Result<u64> {
    let mut right = 0;
    let name = names.get(number).ok_or("no such name")?;
    session.get(name, &mut |read| right = u64::from(is_value(read, number, None)))?;
    Ok(right)
}
