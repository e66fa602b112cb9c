//! Writing many entries as fast as can be, in the order of their keys or in none, and how large the file is then.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::Result;
use crate::data::{is_value, names, value_bytes};
use crate::outcome::{Outcome, Section};
use crate::plan::{Cell, Workload};

/// How many entries are read back.
const READ_BACK: usize = 2_000;

pub(super) fn import(cell: &Cell, folder: &Path) -> Result<Outcome> {
    let (mut outcome, mut names) = (Outcome::default(), names(cell.size));
    names.sort_unstable_by(|a, b| (&a.group, &a.key).cmp(&(&b.group, &b.key)));
    if cell.workload == Workload::ImportRandom {
        fastrand::Rng::with_seed(1).shuffle(&mut names);
    }
    let peer = cell.contender.open(folder, cell)?;
    let section = Section::begin()?;
    peer.load(&names, names.len())?;
    let took = section.end(&mut outcome)?;
    let mut session = peer.session()?;
    let (mut right, step) = (0, (names.len() / READ_BACK).max(1));
    for (number, name) in names.iter().enumerate().step_by(step) {
        session.get(name, &mut |read| right += u64::from(is_value(read, number, None)))?;
    }
    outcome.check("values read back", right, names.len().div_ceil(step) as u64);
    drop(session);
    drop(peer);
    outcome.metric("logged size", allocated(folder)?);
    let peer = cell.contender.open(folder, cell)?;
    peer.trim()?;
    drop(peer);
    let entries = names.iter().enumerate();
    let bytes = entries.map(|(number, name)| name.group.len() + name.key.len() + value_bytes(number));
    outcome.metric("rate", names.len() as f64 / took.as_secs_f64());
    outcome.metric("took", took.as_secs_f64() * 1e9);
    outcome.metric("trimmed size", allocated(folder)?);
    outcome.metric("size", allocated(folder)? / bytes.sum::<usize>() as f64);
    Ok(outcome)
}

/// What a folder takes on the disk, in bytes.
fn allocated(folder: &Path) -> Result<f64> {
    const BLOCK: f64 = 512.0;
    let mut sum = 0.0;
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        let about = file.metadata()?;
        // What is kept for a full disk holds nothing.
        let ballast = file.file_name().to_string_lossy().ends_with("-ballast");
        sum += match about.is_dir() {
            true => allocated(&file.path())?,
            false if ballast => 0.0,
            false => about.blocks() as f64 * BLOCK,
        };
    }
    Ok(sum)
}
