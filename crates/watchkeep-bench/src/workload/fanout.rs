//! One event to many watchers of its key. They are read by the thread that writes, so none of them sleeps: what is
//! measured is the handing over, not the kernel's waking of threads.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;
use crate::data::{names, value};
use crate::outcome::{Outcome, Section};
use crate::plan::Cell;
use crate::samples::Samples;

const WARM_UP: u64 = 20;
const NOISE: f64 = 0.02;

/// Sets of the watched key and of one that nobody watches, in turn: the difference is the delivery.
pub(super) fn fan_out(cell: &Cell, folder: &Path, window: Duration) -> Result<Outcome> {
    let peer = cell.contender.open(folder, cell)?;
    let names = names(2);
    let [watched, unwatched] = names.as_slice() else { return Err("no names".into()) };
    let mut watches = (0..cell.size).map(|_| peer.watch(watched)).collect::<Result<Vec<_>>>()?;
    let (mut outcome, mut session, mut text) = (Outcome::default(), peer.session()?, String::new());
    let (mut with, mut without, mut drain) = (Samples::default(), Samples::default(), Samples::default());
    let mut section = None;
    let mut until = None;
    let (mut rounds, mut events) = (0, 0_u64);
    while until.is_none_or(|until| Instant::now() < until) {
        if rounds == WARM_UP {
            (with, without, drain) = (Samples::default(), Samples::default(), Samples::default());
            section = Some(Section::begin()?);
            until = Some(Instant::now() + window);
        }
        rounds += 1;
        value(&mut text, 1, rounds)?;
        let begun = Instant::now();
        session.set(unwatched, &text)?;
        without.add(begun.elapsed());
        value(&mut text, 0, rounds)?;
        let begun = Instant::now();
        session.set(watched, &text)?;
        let sent = Instant::now();
        for watch in &mut watches {
            events += u64::from(watch.try_next()?.is_some());
        }
        drain.add(sent.elapsed());
        with.add(sent - begun);
    }
    section.ok_or("nothing was measured")?.end(&mut outcome)?;
    for watch in &mut watches {
        events += u64::from(watch.try_next()?.is_some());
    }
    let watchers = watches.len();
    outcome.check("events", events, rounds * watchers as u64);
    let (with, without, drain) = (with.permille(500), without.permille(500), drain.permille(500));
    outcome.metric("set", with);
    outcome.metric("set unwatched", without);
    outcome.metric("receive", drain / watchers as f64);
    // A delivery that is small beside the set cannot be told from the set's own ups and downs.
    if with - without > NOISE * without {
        outcome.metric("send", (with - without) / watchers as f64);
        outcome.metric("event", (with - without + drain) / watchers as f64);
    }
    outcome.metric("count", rounds as f64);
    Ok(outcome)
}
