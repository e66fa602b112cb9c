//! From the begin of a set to its event in a watcher that waits on another thread.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use crate::Result;
use crate::contender::Watch;
use crate::data::{names, value};
use crate::outcome::{Outcome, Section};
use crate::plan::Cell;
use crate::samples::Samples;

const WARM_UP: u64 = 50;
/// An event that takes longer is taken for lost.
const LOST: Duration = Duration::from_secs(10);

/// The writer waits for each event before it sets again; while it is being woken, the watcher goes back to sleep.
pub(super) fn latency(cell: &Cell, folder: &Path, window: Duration) -> Result<Outcome> {
    let peer = cell.contender.open(folder, cell)?;
    let names = names(1);
    let name = names.first().ok_or("no name")?;
    let (arrive, arrived) = channel();
    let last = Arc::new(AtomicU64::new(u64::MAX));
    let (watch, final_event) = (peer.watch(name)?, last.clone());
    // Not a scoped thread: when the writer fails, nobody waits for a watcher that waits for it.
    let watcher = std::thread::spawn(move || receive(watch, &arrive, &final_event));

    let (mut session, mut outcome) = (peer.session()?, Outcome::default());
    let (mut events, mut sets, mut early) = (Samples::default(), Samples::default(), 0_u64);
    let (mut section, mut until) = (None, None);
    let (mut serial, mut text) = (0, String::new());
    while last.load(Ordering::Relaxed) == u64::MAX {
        if serial == WARM_UP {
            (events, sets, early) = (Samples::default(), Samples::default(), 0);
            section = Some(Section::begin()?);
            until = Some(Instant::now() + window);
        }
        serial += 1;
        value(&mut text, 0, serial)?;
        if until.is_some_and(|until| Instant::now() >= until) {
            last.store(serial, Ordering::Relaxed);
        }
        let begun = Instant::now();
        session.set(name, &text)?;
        let done = Instant::now();
        let arrived = arrived.recv_timeout(LOST).map_err(|_| "an event was lost")?;
        events.add(arrived.saturating_duration_since(begun));
        sets.add(done - begun);
        early += u64::from(arrived < done);
    }
    section.ok_or("nothing was measured")?.end(&mut outcome)?;
    let received = watcher.join().map_err(|_| "the watcher panicked")??;
    outcome.check("events", received, serial);
    outcome.metric("count", events.len() as f64);
    outcome.metric("early", 100.0 * early as f64 / events.len().max(1) as f64);
    outcome.metric("p50", events.permille(500));
    outcome.metric("p99", events.permille(990));
    outcome.metric("set p50", sets.permille(500));
    Ok(outcome)
}

/// Tells when each event came, up to the last one; how many came.
fn receive(mut watch: Box<dyn Watch>, arrive: &Sender<Instant>, last: &AtomicU64) -> Result<u64> {
    let mut events = 0;
    while events < last.load(Ordering::Relaxed) && watch.next()?.is_some() {
        events += 1;
        if arrive.send(Instant::now()).is_err() {
            break;
        }
    }
    Ok(events)
}
