//! How often a commit syncs: counted from outside, by `strace`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use watchkeep::Durability;

use crate::Result;
use crate::arguments::Measure;
use crate::outcome::{BEGIN_MARK, END_MARK, Outcome};
use crate::plan::{Cell, Plan, Workload};

/// What to watch: all ways to sync, and the looks at the marks.
const CALLS: &str = "trace=fsync,fdatasync,sync_file_range,msync,sync,syncfs,?stat,?statx,?newfstatat";

/// Counts the syncs of every contender's durable sets; a table.
pub(crate) fn count(plan: &Plan, measure: &Measure) -> Result<String> {
    let mut table = String::from(
        "| threads | contender | sets | syncs a set, of the log | of anything else |\n|---:|---|---:|---:|---:|\n",
    );
    let durable = |cell: &Cell| cell.durability == Durability::Full;
    for cell in plan.cells(&[Workload::Set]).into_iter().filter(durable) {
        let folder = measure.folder()?;
        let (sets, syncs) = trace(measure, &cell, folder.path())?;
        let logged: u64 =
            syncs.iter().filter(|(file, _)| file.ends_with("-wal")).map(|(_, count)| count).sum();
        let others = syncs.values().sum::<u64>() - logged;
        table.push_str(&format!(
            "| {} | {} | {sets:.0} | {:.3} | {:.3} |\n",
            cell.size,
            cell.contender.name(),
            logged as f64 / sets.max(1.0),
            others as f64 / sets.max(1.0)
        ));
    }
    Ok(table)
}

/// Runs a cell under `strace`: how many sets it made while it was measured, and the syncs of each file meanwhile.
fn trace(measure: &Measure, cell: &Cell, folder: &Path) -> Result<(f64, BTreeMap<String, u64>)> {
    let (data, record) = (folder.join("data"), folder.join("strace"));
    std::fs::create_dir(&data)?;
    let output = Command::new("strace")
        .args(["--follow-forks", "--decode-fds=path", "--quiet=all", "--signal=none", "-e", CALLS])
        .args(["-o".as_ref(), record.as_os_str()])
        .arg(std::env::current_exe()?)
        .args(["cell", &cell.name()])
        .arg(&data)
        .args(["--seconds", &measure.seconds.to_string()])
        .output()
        .map_err(|error| format!("strace cannot be run: {error}; install the package strace"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the cell {} failed under strace: {}", cell.name(), said.trim()).into());
    }
    let outcome: Outcome = serde_json::from_slice(&output.stdout)?;
    let syncs = between_marks(&std::fs::read_to_string(&record)?);
    Ok((outcome.metrics.get("count").copied().unwrap_or(0.0), syncs))
}

/// The syncs between the marks, by the name of the file.
fn between_marks(record: &str) -> BTreeMap<String, u64> {
    let mut syncs = BTreeMap::new();
    let measured = record
        .lines()
        .skip_while(|line| !line.contains(BEGIN_MARK))
        .take_while(|line| !line.contains(END_MARK))
        // The second half of a call that another thread interrupted.
        .filter(|line| !line.contains("resumed>"));
    for line in measured.filter(|line| line.contains("sync")) {
        let file =
            line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("?", |(file, _)| file);
        let file = file.rsplit('/').next().unwrap_or(file);
        *syncs.entry(file.to_owned()).or_default() += 1;
    }
    syncs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_counted_between_the_marks() {
        let record = "\
7 fsync(5</a/store.db-wal>) = 0
7 statx(AT_FDCWD, \"watchkeep-bench-begins\", 0, 0, 0) = -1 ENOENT
8 fsync(5</a/store.db-wal> <unfinished ...>
9 fdatasync(4</a/store.db>) = 0
8 <... fsync resumed>) = 0
8 fsync(5</a/store.db-wal>) = 0
7 statx(AT_FDCWD, \"watchkeep-bench-ends\", 0, 0, 0) = -1 ENOENT
8 fsync(5</a/store.db-wal>) = 0
";
        let syncs = between_marks(record);
        assert_eq!(syncs.get("store.db-wal"), Some(&2));
        assert_eq!(syncs.get("store.db"), Some(&1));
    }
}
