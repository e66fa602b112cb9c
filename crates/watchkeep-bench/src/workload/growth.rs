//! The same work in stores that become larger: a set, a get, and a set that somebody watches.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;
use crate::contender::Session;
use crate::data::{Name, is_value, names, value};
use crate::outcome::{Outcome, Section};
use crate::plan::Cell;
use crate::samples::Samples;

pub(super) fn growth(cell: &Cell, folder: &Path, window: Duration) -> Result<Outcome> {
    let (names, mut outcome) = (names(cell.size), Outcome::default());
    cell.contender.open(folder, cell)?.load(&names, names.len())?;
    let peer = cell.contender.open(folder, cell)?;
    let (mut session, mut random) = (peer.session()?, fastrand::Rng::with_seed(1));
    let (section, mut serial) = (Section::begin()?, cell.size as u64);

    let (mut gets, mut right) = (Samples::default(), 0);
    let until = Instant::now() + window / 3;
    while Instant::now() < until {
        let number = random.usize(..names.len());
        let name = names.get(number).ok_or("no such name")?;
        let begun = Instant::now();
        session.get(name, &mut |read| right += u64::from(is_value(read, number, None)))?;
        gets.add(begun.elapsed());
    }
    outcome.check("values read", right, gets.len() as u64);

    let mut sets = Samples::default();
    let until = Instant::now() + window / 3;
    while Instant::now() < until {
        sets.add(set(&mut *session, &names, random.usize(..names.len()), &mut serial)?);
    }
    outcome.metric("get", gets.permille(500));
    outcome.metric("set", sets.permille(500));
    outcome.metric("set p99", sets.permille(990));

    if let Ok(mut watch) = peer.watch(names.first().ok_or("no name")?) {
        let (mut watched, mut events) = (Samples::default(), 0);
        let until = Instant::now() + window / 3;
        while Instant::now() < until {
            let begun = Instant::now();
            set(&mut *session, &names, 0, &mut serial)?;
            events += u64::from(watch.try_next()?.is_some());
            watched.add(begun.elapsed());
        }
        events += u64::from(watch.try_next()?.is_some());
        outcome.check("events", events, watched.len() as u64);
        outcome.metric("watched", watched.permille(500));
    }
    section.end(&mut outcome)?;
    Ok(outcome)
}

/// How long a set took.
fn set(session: &mut dyn Session, names: &[Name], number: usize, serial: &mut u64) -> Result<Duration> {
    let mut text = String::new();
    // Another value each time: not every store tells of a set that changes nothing.
    *serial += 1;
    value(&mut text, number, *serial)?;
    let name = names.get(number).ok_or("no such name")?;
    let begun = Instant::now();
    session.set(name, &text)?;
    Ok(begun.elapsed())
}
