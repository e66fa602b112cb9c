//! Finds a commit in the history of a cluster, which has no index by time or number: halves its revisions.

use crate::types::error::Result;

/// What the feed was as of a revision of the cluster.
enum Told {
    /// It is so of this commit, which is the last one up to the revision.
    Yes { revision: i64, commit: i64 },
    /// It is not so from this commit on.
    No { commit: i64 },
    /// It cannot be read any more.
    Gone,
}

/// The last commit of which this is so, where it is so of all before it; zero where it is so of none.
///
/// `at` tells the last commit up to a revision of the cluster, and whether it is so of that one, if that one tells; none
/// where the revision is compacted. A commit that does not tell is as the next one that does.
pub(super) fn last(
    (first, last): (i64, i64),
    at: impl Fn(i64) -> Result<Option<(i64, Option<bool>)>>,
) -> Result<i64> {
    let (mut low, mut high, mut found) = (0, last, 0);
    // Mostly it is not even so of the first one that can be read.
    let (mut middle, mut is_first) = (first, true);
    while low < high {
        match ask(middle, high, &at)? {
            Told::Yes { revision, commit } => (low, found) = (revision, commit),
            Told::No { .. } if is_first => return Ok(0),
            Told::No { commit } => high = commit - 1,
            // What can be read comes after it.
            Told::Gone => low = middle,
        }
        (middle, is_first) = (low + (high - low + 1) / 2, false);
    }
    Ok(found)
}

/// Asks a commit, and those after it until one tells, in steps that double: some are left out, and it is found soon.
fn ask(from: i64, upto: i64, at: &impl Fn(i64) -> Result<Option<(i64, Option<bool>)>>) -> Result<Told> {
    let Some((first, mut says)) = at(from)? else { return Ok(Told::Gone) };
    let (mut revision, mut commit, mut step) = (from, first, 1);
    while says.is_none() && revision < upto {
        revision = from.saturating_add(step).min(upto);
        step *= 2;
        if let Some(there) = at(revision)? {
            (commit, says) = there;
        }
    }
    // When none tells, it is as if they were made now.
    Ok(if says == Some(true) { Told::Yes { revision, commit } } else { Told::No { commit: first } })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// What is found, and in how many reads, in a history of commits at every third revision.
    fn find(gone: i64, commits: &[Option<bool>]) -> (i64, u32) {
        let reads = Cell::new(0);
        let place = |number: usize| 3 * (i64::try_from(number).unwrap_or(0) + 1);
        let found = last((3, place(commits.len()) - 3), |revision| {
            reads.set(reads.get() + 1);
            if revision < gone {
                return Ok(None);
            }
            let number = usize::try_from(revision / 3 - 1).expect("a revision of the history");
            Ok(commits.get(number).map(|says| (place(number), *says)))
        });
        (found.expect("nothing fails"), reads.get())
    }

    #[test]
    fn finds_the_last_one_in_a_few_reads() {
        for (old, young) in [(0, 50), (1, 49), (20, 1_000), (1_000, 20), (1, 0), (40, 0)] {
            let commits = [vec![Some(true); old], vec![Some(false); young]].concat();
            let (found, reads) = find(0, &commits);
            assert_eq!(
                (found, reads < 16),
                (3 * i64::try_from(old).expect("few"), true),
                "{old} {young} {reads}"
            );
        }
        let commits = [vec![Some(true); 50], vec![Some(false); 50]].concat();
        assert_eq!(find(100, &commits).0, 150, "of what is compacted nothing is known");
    }

    #[test]
    fn one_that_does_not_tell_holds_nothing_back() {
        for silent in [0, 1, 30, 48, 49] {
            let mut commits = [vec![Some(true); 50], vec![Some(false); 50]].concat();
            commits[silent] = None;
            assert_eq!(find(0, &commits).0, if silent == 49 { 147 } else { 150 }, "{silent}");
        }
        // Those that do not tell are as the next one that does.
        let silent = vec![None; 40];
        let both = |next| find(0, &[vec![Some(true); 5], silent.clone(), vec![Some(next); 9]].concat()).0;
        assert!(both(true) == 162 && both(false) <= 15, "{} {}", both(true), both(false));
        // The first one of a store never tells.
        assert_eq!(find(0, &[None, Some(false)]).0, 0);
        assert_eq!(find(0, &[None, Some(true), Some(false)]).0, 6);
        assert_eq!(find(0, &[None]).0 + find(0, &silent).0, 0);
        let (_, reads) = find(0, &vec![None; 100_000]);
        assert!(reads < 40, "{reads}");
    }
}
