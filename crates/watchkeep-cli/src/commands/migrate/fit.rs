//! What does not fit the target, looked for before anything is written.

use std::sync::atomic::AtomicBool;

use serde_json::json;
use watchkeep::{CLUSTER_TRANSACTION, Entry, Limits, View};

use super::{go_on, progress};
use crate::exit::{Failure, Result, USAGE};
use crate::output::{Out, bytes, counted, name};

/// How often a transaction of a cluster names an entry at the most: compares, puts, its deadline, the feed.
const NAMED: usize = 8;

/// What a transaction of a cluster holds besides.
const REST: usize = 8 << 10;

/// How many of them are listed.
const LISTED: u64 = 1_000;

/// Looks at all entries; how many there are. Prints those that do not fit, and refuses then.
pub(super) fn look(from: &View<'_>, to_cluster: bool, stop: &AtomicBool, out: &mut Out) -> Result<u64> {
    let bar = progress("looking", None, "entries");
    let (mut total, mut unfit) = (0, 0);
    for group in from.groups("") {
        let group = group?;
        for entry in from.entries(&group) {
            let entry = entry?;
            total += 1;
            bar.inc(1);
            if let Some(limit) = exceeded(&group, &entry, to_cluster) {
                unfit += 1;
                if unfit <= LISTED {
                    bar.suspend(|| list(&group, &entry, limit, out))?;
                }
            }
        }
        go_on(stop)?;
    }
    bar.finish_and_clear();
    if unfit == 0 {
        return Ok(total);
    }
    let what = format!(
        "{} larger than the target takes, and nothing was written; delete, split or shorten what is listed",
        counted(unfit, "entry is", "entries are")
    );
    Err(Failure::new(USAGE, what))
}

fn list(group: &str, entry: &Entry, limit: usize, out: &mut Out) -> Result<()> {
    let size = entry.value.len();
    if out.is_json() {
        return out.object(&json!({ "group": group, "key": entry.key, "bytes": size, "limit": limit }));
    }
    let (size, limit) = (u64::try_from(size).unwrap_or(u64::MAX), u64::try_from(limit).unwrap_or(u64::MAX));
    out.line(format_args!("{} {}: {}, at most {}", name(group), name(&entry.key), bytes(size), bytes(limit)))
}

/// How large the value may be at the most, where it is larger, or a name is too long.
fn exceeded(group: &str, entry: &Entry, to_cluster: bool) -> Option<usize> {
    let Limits { group: longest_group, key: longest_key, value: largest } = Limits::default();
    let named = NAMED * (group.len() + entry.key.len());
    let beside = named + entry.content_type.as_ref().map_or(0, String::len) * 2 + REST;
    let limit = match to_cluster {
        true => largest.min(CLUSTER_TRANSACTION.saturating_sub(beside)),
        false => largest,
    };
    let is_unfit = entry.value.len() > limit || group.len() > longest_group || entry.key.len() > longest_key;
    is_unfit.then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use watchkeep::Store;

    #[test]
    fn a_cluster_takes_less_than_a_file() -> watchkeep::Result<()> {
        let store = Store::open_in_memory()?;
        for (key, size, fits) in [("small", 1 << 20, true), ("large", CLUSTER_TRANSACTION, false)] {
            store.set("g", key, vec![0; size])?;
            let entry = store.entry("g", key)?.unwrap_or_else(|| unreachable!("it was set"));
            assert_eq!(exceeded("g", &entry, true).is_none(), fits, "{key}");
            assert_eq!(exceeded("g", &entry, false), None, "{key}");
        }
        Ok(())
    }
}
