//! A pass: the target is made what a moment of the source is. Only what differs is written, so that the same pass goes on
//! with what was interrupted, and compares.

use std::cmp::Ordering;
use std::iter::Peekable;

use watchkeep::{Entries, Entry, Groups, Revision, Snapshot, Store, View};

use super::changes::{Change, Changes};
use super::{Migration, progress};
use crate::exit::Result;

/// Where two stores differ.
#[derive(Debug)]
pub(super) enum Difference {
    /// The source has it, and the target not, or another.
    Entry {
        group: String,
        entry: Entry,
    },
    /// Only the target has it.
    Stray {
        group: String,
        key: String,
    },
    StrayGroup {
        group: String,
    },
}

impl Migration {
    /// Makes the target what the snapshot is; its revision, after which the rest is to be followed.
    pub(super) fn pass(&mut self, from: &Snapshot, total: u64) -> Result<Revision> {
        let bar = progress("copying", Some(total), "entries");
        let mut changes = Changes::new(&self.target, &self.mark);
        let differ = |difference| {
            changes.push(match difference {
                Difference::Entry { group, entry } => {
                    Change::Set { group, key: entry.key.clone(), state: entry.into() }
                }
                Difference::Stray { group, key } => Change::Delete { group, key },
                Difference::StrayGroup { group } => Change::DeleteGroup { group },
            })
        };
        let seen = || {
            bar.inc(1);
            self.go_on()
        };
        compare(&**from, &self.target, seen, differ)?;
        changes.flush()?;
        bar.finish_and_clear();
        let written = changes.written;
        self.summary.written += written;
        Ok(from.revision())
    }
}

/// What entries are read from: a moment, or a store as it is, which holds nothing that compaction could take away.
pub(super) trait Names {
    fn names(&self) -> Groups<'_>;
    fn held(&self, group: &str) -> Entries<'_>;
}

impl Names for View<'_> {
    fn names(&self) -> Groups<'_> {
        self.groups("")
    }

    fn held(&self, group: &str) -> Entries<'_> {
        self.entries(group)
    }
}

impl Names for Store {
    fn names(&self) -> Groups<'_> {
        self.groups("")
    }

    fn held(&self, group: &str) -> Entries<'_> {
        self.entries(group)
    }
}

/// Goes over both in the order of their names, and hands out where they differ. `seen` is called for each entry of the
/// source.
pub(super) fn compare(
    source: &impl Names,
    target: &impl Names,
    mut seen: impl FnMut() -> Result<()>,
    mut differ: impl FnMut(Difference) -> Result<()>,
) -> Result<()> {
    let (mut here, mut there) = (source.names().peekable(), target.names().peekable());
    while let Some(order) = next(&mut here, &mut there, |group| group.as_str())? {
        match order {
            Ordering::Greater => {
                if let Some(group) = there.next().transpose()? {
                    differ(Difference::StrayGroup { group })?;
                }
            }
            Ordering::Less | Ordering::Equal => {
                if order == Ordering::Equal {
                    there.next().transpose()?;
                }
                let Some(group) = here.next().transpose()? else { return Ok(()) };
                let mut entries = source.held(&group).peekable();
                let mut theirs = target.held(&group).peekable();
                while let Some(order) = next(&mut entries, &mut theirs, |entry| entry.key.as_str())? {
                    let is_stray = order == Ordering::Greater;
                    let their = if order == Ordering::Less { None } else { theirs.next().transpose()? };
                    if is_stray {
                        if let Some(stray) = their {
                            differ(Difference::Stray { group: group.clone(), key: stray.key })?;
                        }
                        continue;
                    }
                    let Some(entry) = entries.next().transpose()? else { break };
                    seen()?;
                    if !their.is_some_and(|their| is_same(&entry, &their)) {
                        differ(Difference::Entry { group: group.clone(), entry })?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Which of two sorted sequences has the next, by name: the first, both or the second; none at their ends.
fn next<T, I: Iterator<Item = watchkeep::Result<T>>>(
    one: &mut Peekable<I>,
    other: &mut Peekable<I>,
    name: impl Fn(&T) -> &str,
) -> Result<Option<Ordering>> {
    // An error is taken out, to be returned.
    for sequence in [&mut *one, &mut *other] {
        if let Some(failed) = sequence.next_if(Result::is_err) {
            failed?;
        }
    }
    Ok(match (one.peek(), other.peek()) {
        (Some(Ok(one)), Some(Ok(other))) => Some(name(one).cmp(name(other))),
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        _ => None,
    })
}

/// Whether a reader is told the same of both.
pub(super) fn is_same(one: &Entry, other: &Entry) -> bool {
    one.value == other.value && one.content_type == other.content_type && one.deadline == other.deadline
}

#[cfg(test)]
mod tests {
    use super::*;
    use watchkeep::{SetOptions, Store};

    #[test]
    fn a_comparison_names_what_differs_and_nothing_else() -> watchkeep::Result<()> {
        let (source, target) = (Store::open_in_memory()?, Store::open_in_memory()?);
        for (group, key) in [("a", "k"), ("b", "1"), ("b", "2"), ("b", "3"), ("c", "k"), ("e", "k")] {
            source.set(group, key, "v")?;
        }
        for (group, key) in [("b", "0"), ("b", "1"), ("b", "3"), ("c", "k"), ("d", "k"), ("f", "k")] {
            target.set(group, key, "v")?;
        }
        target.set("b", "3", "w")?;
        target.set_with("c", "k", "v", SetOptions::new().content_type("text/plain"))?;
        let (mut seen, mut found) = (0, Vec::new());
        let count = || {
            seen += 1;
            Ok(())
        };
        let note = |difference| {
            found.push(match difference {
                Difference::Entry { group, entry } => format!("{group} {}", entry.key),
                Difference::Stray { group, key } => format!("-{group} {key}"),
                Difference::StrayGroup { group } => format!("-{group}"),
            });
            Ok(())
        };
        assert!(compare(&source, &target, count, note).is_ok());
        assert_eq!(found, ["a k", "-b 0", "b 2", "b 3", "c k", "-d", "e k", "-f"]);
        assert_eq!(seen, 6);
        Ok(())
    }
}
