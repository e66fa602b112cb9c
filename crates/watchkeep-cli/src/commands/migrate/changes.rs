//! What is to be written to the target, in transactions that it takes.

use std::collections::BTreeSet;

use watchkeep::{Batch, Clock, Entry, Error, ErrorKind, SetOptions, Store, SystemClock, Timestamp, Value};

use super::enter::Mark;
use crate::exit::{Failure, Result};

/// How many operations a transaction has at first. A target that takes fewer says so, and gets half as many from then on.
const OPERATIONS: usize = 512;

/// About how many bytes: what a cluster takes, with room for names.
const BYTES: usize = 1 << 20;

/// What an operation takes beside its value, about.
const OVERHEAD: usize = 64;

/// For how many milliseconds the target has what came due in a sealed source: it announces the end, which the source does not.
const LAST: i64 = 100;

/// What is to be written of an entry.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) value: Value,
    pub(super) content_type: Option<String>,
    pub(super) deadline: Option<Timestamp>,
}

impl From<Entry> for State {
    fn from(entry: Entry) -> State {
        State { value: entry.value, content_type: entry.content_type, deadline: entry.deadline }
    }
}

/// An operation that may be done twice.
#[derive(Debug)]
pub(super) enum Change {
    Set { group: String, key: String, state: State },
    Delete { group: String, key: String },
    DeleteGroup { group: String },
}

impl Change {
    fn bytes(&self) -> usize {
        let (names, value) = match self {
            Change::Set { group, key, state } => (group.len() + key.len(), state.value.len()),
            Change::Delete { group, key } => (group.len() + key.len(), 0),
            Change::DeleteGroup { group } => (group.len(), 0),
        };
        OVERHEAD + names + value
    }

    /// When it is set only to expire, the entry's names are noted in `ending`, where there is one.
    fn add_to(&self, batch: Batch, ending: Option<&mut Ending>) -> Batch {
        let Change::Set { group, key, state } = self else {
            return match self {
                Change::DeleteGroup { group } => batch.delete_group(group),
                Change::Delete { group, key } | Change::Set { group, key, .. } => batch.delete(group, key),
            };
        };
        let deadline = match (self.is_due(), ending) {
            (true, Some(ending)) => {
                ending.insert((group.clone(), key.clone()));
                Some(Timestamp::from_millis(SystemClock.now().as_millis().saturating_add(LAST)))
            }
            // It has come due on the way: to whoever reads, it is not there. The source will say so.
            (true, None) => return batch.delete(group, key),
            (false, _) => state.deadline,
        };
        let mut options = SetOptions::new();
        if let Some(deadline) = deadline {
            options = options.expires_at(deadline);
        }
        if let Some(content_type) = &state.content_type {
            options = options.content_type(content_type);
        }
        batch.set_with(group, key, state.value.clone(), options)
    }

    /// A deadline must lie at least a millisecond ahead to be set.
    fn is_due(&self) -> bool {
        let Change::Set { state: State { deadline: Some(deadline), .. }, .. } = self else { return false };
        deadline.since(SystemClock.now()).as_millis() <= 1
    }

    fn place(&self) -> String {
        match self {
            Change::Set { group, key, .. } | Change::Delete { group, key } => {
                format!("group {group:?} key {key:?}")
            }
            Change::DeleteGroup { group } => format!("group {group:?}"),
        }
    }
}

/// The entries that were written to the target only to expire there, by group and key.
pub(super) type Ending = BTreeSet<(String, String)>;

/// Writes changes in their order.
pub(super) struct Changes<'s> {
    target: &'s Store,
    mark: &'s Mark,
    /// Where the source is sealed.
    ending: Option<&'s mut Ending>,
    waiting: Vec<Change>,
    bytes: usize,
    /// How many operations the target takes at once.
    most: usize,
    pub(super) written: u64,
}

impl<'s> Changes<'s> {
    pub(super) fn new(target: &'s Store, mark: &'s Mark) -> Changes<'s> {
        Changes { target, mark, ending: None, waiting: Vec::new(), bytes: 0, most: OPERATIONS, written: 0 }
    }

    /// What is due is not left out but written to expire in the target, and noted: nobody else will announce it.
    pub(super) fn noting(self, ending: Option<&'s mut Ending>) -> Changes<'s> {
        Changes { ending, ..self }
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
            self.mark.hold()?;
            let (some, others) = rest.split_at(self.most.min(rest.len()));
            let mut batch = Batch::new();
            for change in some {
                batch = change.add_to(batch, self.ending.as_deref_mut());
            }
            match self.target.apply(batch) {
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

/// Whether what was refused is a deadline that has passed meanwhile: the next try sees to that entry.
fn has_come_due(error: &Error, changes: &[Change]) -> bool {
    error.kind() == ErrorKind::InvalidArgument && changes.iter().any(Change::is_due)
}

fn refused(error: Error, changes: &[Change]) -> Failure {
    match changes {
        [one] => Failure::from(error).at(format_args!("the target: {}", one.place())),
        _ => Failure::from(error).at("the target"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{mark, ours};
    use super::*;
    use std::time::Duration;
    use watchkeep::{Kind, Result};

    fn entries(store: &Store) -> Result<Vec<Entry>> {
        store.entries("g").collect()
    }

    fn set(entry: Entry) -> Change {
        Change::Set { group: "g".to_owned(), key: entry.key.clone(), state: entry.into() }
    }

    #[test]
    fn changes_keep_their_order_and_what_is_due_is_not_written() -> Result<()> {
        let (source, target) = (Store::open_in_memory()?, Store::open_in_memory()?);
        source.set("g", "a", "1")?;
        source.set_with_ttl("g", "b", "2", Duration::from_secs(3600))?;
        let mut taken = entries(&source)?;
        taken.iter_mut().filter(|entry| entry.key == "a").for_each(|entry| {
            entry.deadline = Some(SystemClock.now());
        });
        let mark = mark(&source, &target)?;
        target.set("g", "old", "3")?;
        let mut changes = Changes::new(&target, &mark);
        changes.push(Change::DeleteGroup { group: "g".to_owned() }).map_err(ours)?;
        for entry in taken {
            changes.push(set(entry)).map_err(ours)?;
        }
        changes.flush().map_err(ours)?;
        let keys: Vec<_> = entries(&target)?.into_iter().map(|entry| (entry.key, entry.deadline)).collect();
        assert_eq!(keys, [("b".to_owned(), entries(&source)?.pop().and_then(|entry| entry.deadline))]);
        Ok(())
    }

    #[test]
    fn what_is_due_in_a_sealed_source_expires_in_the_target() -> Result<()> {
        let (source, target) = (Store::open_in_memory()?, Store::open_in_memory()?);
        source.set("g", "k", "v")?;
        let mut taken = entries(&source)?;
        taken.iter_mut().for_each(|entry| entry.deadline = Some(SystemClock.now()));
        let (mark, mut watcher) = (mark(&source, &target)?, target.watch("g", "*"));
        let mut ending = Ending::new();
        let mut changes = Changes::new(&target, &mark).noting(Some(&mut ending));
        taken.into_iter().try_for_each(|entry| changes.push(set(entry))).map_err(ours)?;
        changes.flush().map_err(ours)?;
        let told: Vec<_> =
            watcher.by_ref().take(2).map(|event| event.map(|event| event.kind())).collect::<Result<_>>()?;
        assert_eq!(told, [Kind::Set, Kind::Expire]);
        assert_eq!(ending.into_iter().collect::<Vec<_>>(), [("g".to_owned(), "k".to_owned())]);
        Ok(())
    }

    #[test]
    fn a_run_that_lost_its_target_writes_nothing_more() -> Result<()> {
        let (source, target) = (Store::open_in_memory()?, Store::open_in_memory()?);
        let mark = mark(&source, &target)?;
        let mut changes = Changes::new(&target, &mark);
        changes.push(Change::DeleteGroup { group: "g".to_owned() }).map_err(ours)?;
        target.remove_consumer(&super::super::enter::mark_of(&source), watchkeep::Force::Yes)?;
        target.set("g", "k", "theirs")?;
        assert!(changes.flush().is_err());
        assert_eq!(target.count("g")?, 1);
        Ok(())
    }
}
