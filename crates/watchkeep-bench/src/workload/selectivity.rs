//! Many watchers, each of another key, of which one matches.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;
use crate::data::{names, value};
use crate::machine::resident;
use crate::outcome::{Outcome, Section};
use crate::plan::Cell;
use crate::samples::Samples;

const WARM_UP: u64 = 50;

pub(super) fn selectivity(cell: &Cell, folder: &Path, window: Duration) -> Result<Outcome> {
    let peer = cell.contender.open(folder, cell)?;
    let names = names(cell.size);
    let matching = names.first().ok_or("no name")?;
    let (mut outcome, mut session, mut text) = (Outcome::default(), peer.session()?, String::new());
    value(&mut text, 0, 0)?;
    session.set(matching, &text)?;

    let mut watches = Vec::with_capacity(names.len());
    let (before, begun) = (resident()?, Instant::now());
    for name in &names {
        watches.push(peer.watch(name)?);
    }
    let (armed, after) = (begun.elapsed(), resident()?);
    outcome.metric("arm", armed.as_secs_f64() * 1e9);
    outcome.metric("arm each", armed.as_secs_f64() * 1e9 / names.len() as f64);
    // Below, the allocator's own steps are all that one sees.
    if names.len() >= 1_000 {
        outcome.metric("memory", (after - before) / names.len() as f64);
    }

    let (mut samples, mut section, mut until) = (Samples::default(), None, None);
    let (mut rounds, mut events) = (0, 0_u64);
    while until.is_none_or(|until| Instant::now() < until) {
        if rounds == WARM_UP {
            samples = Samples::default();
            section = Some(Section::begin()?);
            until = Some(Instant::now() + window);
        }
        rounds += 1;
        value(&mut text, 0, rounds)?;
        let begun = Instant::now();
        session.set(matching, &text)?;
        samples.add(begun.elapsed());
        events += u64::from(watches.first_mut().ok_or("no watch")?.try_next()?.is_some());
    }
    section.ok_or("nothing was measured")?.end(&mut outcome)?;
    for watch in &mut watches {
        events += u64::from(watch.try_next()?.is_some());
    }
    outcome.check("events", events, rounds);
    outcome.metric("set", samples.permille(500));
    outcome.metric("p99", samples.permille(990));
    outcome.metric("count", samples.len() as f64);
    Ok(outcome)
}
