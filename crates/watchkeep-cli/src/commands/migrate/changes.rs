//! What is to be written to the target, in transactions that it takes.

use watchkeep::{Batch, Clock, Entry, Error, ErrorKind, SetOptions, Store, SystemClock};

use crate::exit::{Failure, Result};

/// How many operations a transaction has at first. A target that takes fewer says so, and gets half as many from then on.
const OPERATIONS: usize = 512;

/// About how many bytes: what a cluster takes, with room for names.
const BYTES: usize = 1 << 20;

/// What an operation takes beside its value, about.
const OVERHEAD: usize = 64;

/// An operation that may be done twice.
#[derive(Debug)]
pub(super) enum Change {
    Set { group: String, entry: Entry },
    Delete { group: String, key: String },
    DeleteGroup { group: String },
}

impl Change {
    fn bytes(&self) -> usize {
        let (names, value) = match self {
            Change::Set { group, entry } => (group.len() + entry.key.len(), entry.value.len()),
            Change::Delete { group, key } => (group.len() + key.len(), 0),
            Change::DeleteGroup { group } => (group.len(), 0),
        };
        OVERHEAD + names + value
    }

    fn add_to(&self, batch: Batch) -> Batch {
        match self {
            // It has come due on the way: to whoever reads, it is not there.
            Change::Set { group, entry } if is_due(entry) => batch.delete(group, &entry.key),
            Change::Set { group, entry } => {
                let mut options = SetOptions::new();
                if let Some(deadline) = entry.deadline {
                    options = options.expires_at(deadline);
                }
                if let Some(content_type) = &entry.content_type {
                    options = options.content_type(content_type);
                }
                batch.set_with(group, &entry.key, entry.value.clone(), options)
            }
            Change::Delete { group, key } => batch.delete(group, key),
            Change::DeleteGroup { group } => batch.delete_group(group),
        }
    }

    fn place(&self) -> String {
        match self {
            Change::Set { group, entry } => format!("group {group:?} key {:?}", entry.key),
            Change::Delete { group, key } => format!("group {group:?} key {key:?}"),
            Change::DeleteGroup { group } => format!("group {group:?}"),
        }
    }
}

/// A deadline must lie at least a millisecond ahead to be set.
fn is_due(entry: &Entry) -> bool {
    entry.deadline.is_some_and(|deadline| deadline.since(SystemClock.now()).as_millis() <= 1)
}

/// Writes changes in their order.
pub(super) struct Changes<'s> {
    target: &'s Store,
    waiting: Vec<Change>,
    bytes: usize,
    /// How many operations the target takes at once.
    most: usize,
    pub(super) written: u64,
}

impl<'s> Changes<'s> {
    pub(super) fn new(target: &'s Store) -> Changes<'s> {
        Changes { target, waiting: Vec::new(), bytes: 0, most: OPERATIONS, written: 0 }
    }

    pub(super) fn push(&mut self, change: Change) -> Result<()> {
        let bytes = change.bytes();
        if self.waiting.len() >= self.most || self.bytes + bytes > BYTES {
            self.flush()?;
        }
        self.bytes += bytes;
        self.waiting.push(change);
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        let mut rest = &*self.waiting;
        while !rest.is_empty() {
            let (some, others) = rest.split_at(self.most.min(rest.len()));
            match self.target.apply(some.iter().fold(Batch::new(), |batch, change| change.add_to(batch))) {
                Ok(_) => {
                    self.written += u64::try_from(some.len()).unwrap_or(u64::MAX);
                    rest = others;
                }
                Err(error) if error.kind() == ErrorKind::TooLarge && some.len() > 1 => {
                    self.most = some.len().div_ceil(2);
                }
                Err(error) if has_come_due(&error, some) => {}
                Err(error) => return Err(refused(error, some)),
            }
        }
        self.waiting.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// Whether what was refused is a deadline that has passed meanwhile: the next try leaves that entry out.
fn has_come_due(error: &Error, changes: &[Change]) -> bool {
    error.kind() == ErrorKind::InvalidArgument
        && changes.iter().any(|change| matches!(change, Change::Set { entry, .. } if is_due(entry)))
}

fn refused(error: Error, changes: &[Change]) -> Failure {
    match changes {
        [one] => Failure::from(error).at(format_args!("the target: {}", one.place())),
        _ => Failure::from(error).at("the target"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use watchkeep::Options;

    fn entries(store: &Store) -> watchkeep::Result<Vec<Entry>> {
        store.entries("g").collect()
    }

    #[test]
    fn changes_keep_their_order_and_what_is_due_is_not_written() -> watchkeep::Result<()> {
        let (source, target) = (Store::open_in_memory()?, Options::new().open_in_memory()?);
        source.set("g", "a", "1")?;
        source.set_with_ttl("g", "b", "2", Duration::from_secs(3600))?;
        let mut taken = entries(&source)?;
        taken.iter_mut().filter(|entry| entry.key == "a").for_each(|entry| {
            entry.deadline = Some(SystemClock.now());
        });
        target.set("g", "old", "3")?;
        let mut changes = Changes::new(&target);
        let told = |error: Failure| Error::abort(error.to_string());
        changes.push(Change::DeleteGroup { group: "g".to_owned() }).map_err(told)?;
        for entry in taken {
            changes.push(Change::Set { group: "g".to_owned(), entry }).map_err(told)?;
        }
        changes.flush().map_err(told)?;
        let keys: Vec<_> = entries(&target)?.into_iter().map(|entry| (entry.key, entry.deadline)).collect();
        assert_eq!(keys, [("b".to_owned(), entries(&source)?.pop().and_then(|entry| entry.deadline))]);
        Ok(())
    }
}
