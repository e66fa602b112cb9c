//! Reading a whole group in order.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;
use crate::contender::Session;
use crate::data::{GROUPS, group, names, value_bytes};
use crate::outcome::{Outcome, Section};
use crate::plan::Cell;
use crate::samples::Samples;

/// Scans of all groups in turn; the cell's size is how many entries each has.
pub(super) fn scan(cell: &Cell, folder: &Path, window: Duration) -> Result<Outcome> {
    let names = names(cell.size * GROUPS);
    cell.contender.open(folder, cell)?.load(&names, names.len())?;
    let peer = cell.contender.open(folder, cell)?;
    let (mut outcome, mut samples, mut session) = (Outcome::default(), Samples::default(), peer.session()?);
    for number in 0..GROUPS {
        one(&mut *session, number)?;
    }
    let mut sizes = [0; GROUPS];
    for number in 0..names.len() {
        if let Some(size) = sizes.get_mut(number % GROUPS) {
            *size += value_bytes(number) as u64;
        }
    }
    let section = Section::begin()?;
    let (mut read, mut expected, mut until) = ((0, 0), 0, Instant::now() + window);
    for number in 0.. {
        let begun = Instant::now();
        // At least one of each group.
        if begun >= until && number >= GROUPS {
            break;
        }
        until = until.max(begun);
        let (entries, bytes) = one(&mut *session, number)?;
        samples.add(begun.elapsed());
        read = (read.0 + entries, read.1 + bytes);
        expected += sizes.get(number % GROUPS).copied().unwrap_or_default();
    }
    section.end(&mut outcome)?;
    let scans = samples.len() as u64;
    outcome.check("entries", read.0, scans * cell.size as u64);
    outcome.check("bytes", read.1, expected);
    outcome.metric("p50", samples.permille(500));
    outcome.metric("p99", samples.permille(990));
    outcome.metric("entry", samples.permille(500) / cell.size as f64);
    Ok(outcome)
}

/// How many entries and bytes of values a group has.
fn one(session: &mut dyn Session, number: usize) -> Result<(u64, u64)> {
    let (mut entries, mut bytes) = (0, 0);
    session.scan(&group(number), &mut |value| {
        entries += 1;
        bytes += std::hint::black_box(value).len() as u64;
    })?;
    Ok((entries, bytes))
}
