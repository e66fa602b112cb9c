//! What a writer notices of something large that goes on beside it: a group that is deleted, entries that expire.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::joined;
use crate::Result;
use crate::contender::Session;
use crate::data::{Name, group, value};
use crate::outcome::{Outcome, Section};
use crate::plan::{Cell, Workload};
use crate::samples::Samples;

/// How many keys the writer has, in a group of its own.
const KEYS: usize = 1_000;

pub(super) fn disturb(cell: &Cell, folder: &Path, window: Duration) -> Result<Outcome> {
    let many = in_group(0, cell.size);
    let names = in_group(1, KEYS);
    let peer = cell.contender.open(folder, cell)?;
    match cell.workload {
        Workload::Expiry => peer.load_expiring(&many, many.len())?,
        _ => peer.load(&many, many.len())?,
    }
    let (mut outcome, mut session, mut serial) = (Outcome::default(), peer.session()?, 0);
    let (mut idle, mut busy) = (Samples::default(), Samples::default());
    let section = Section::begin()?;
    let until = Instant::now() + window;
    while Instant::now() < until {
        idle.add(one(&mut *session, &names, &mut serial)?);
    }
    let done = AtomicBool::new(false);
    let took = std::thread::scope(|scope| {
        let task = scope.spawn(|| {
            let begun = Instant::now();
            let result = match cell.workload {
                Workload::Expiry => peer.expire(),
                _ => peer.delete_group(&group(0)),
            };
            let took = begun.elapsed();
            done.store(true, Ordering::Relaxed);
            result.map(|()| took)
        });
        // What goes on in the background after it has returned is felt as well.
        let mut until = None;
        while until.is_none_or(|until| Instant::now() < until) {
            busy.add(one(&mut *session, &names, &mut serial)?);
            if until.is_none() && done.load(Ordering::Relaxed) {
                until = Some(Instant::now() + 2 * window);
            }
        }
        joined(task)
    })?;
    section.end(&mut outcome)?;
    let mut left = 0;
    peer.session()?.scan(&group(0), &mut |_| left += 1)?;
    outcome.check("entries left", left, 0);
    let mut written = 0;
    peer.session()?.scan(&group(1), &mut |_| written += 1)?;
    outcome.check("entries written meanwhile", written, serial.min(KEYS as u64));
    outcome.metric("took", took.as_secs_f64() * 1e9);
    outcome.metric("idle p99", idle.permille(990));
    outcome.metric("p50", busy.permille(500));
    outcome.metric("p99", busy.permille(990));
    outcome.metric("most", busy.permille(1000));
    outcome.metric("times idle", busy.permille(990) / idle.permille(990).max(1.0));
    Ok(outcome)
}

fn in_group(number: usize, count: usize) -> Vec<Name> {
    (0..count).map(|key| Name { group: group(number), key: format!("key-{key:08}") }).collect()
}

/// One set; how long it took.
fn one(session: &mut dyn Session, names: &[Name], serial: &mut u64) -> Result<Duration> {
    let (number, mut text) = (usize::try_from(*serial)? % names.len(), String::new());
    *serial += 1;
    value(&mut text, number, *serial)?;
    let name = names.get(number).ok_or("no such name")?;
    let begun = Instant::now();
    session.set(name, &text)?;
    Ok(begun.elapsed())
}
