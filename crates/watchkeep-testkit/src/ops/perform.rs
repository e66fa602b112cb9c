//! Operations on a real store, through its public face.

use std::time::Duration;

use watchkeep::{
    AsyncStore, Batch, DeleteOptions, Entries, Entry, Error, ErrorKind, Groups, ListOptions, Page, Result,
    SetOptions, Snapshot, Store, Transaction, Value, View,
};

use super::{Call, Condition, Listed, Op, Outcome, Place, Read, Refusal, Step, Ttl, Write};
use crate::record::Cell;
use crate::surface::block_on;

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Refusal {
        match (error.kind(), error.quota_exceeded()) {
            (ErrorKind::Conflict, _) if !error.unmet().is_empty() => {
                Refusal::Unmet(error.unmet().iter().map(|unmet| (unmet.condition, unmet.current)).collect())
            }
            (ErrorKind::Conflict, _) => Refusal::Conflict(error.current_revision()),
            (_, Some(exceeded)) => Refusal::Quota(exceeded.limit, exceeded.allowed, exceeded.wanted),
            (kind, None) => Refusal::Kind(kind),
        }
    }
}

impl From<Entry> for Cell {
    fn from(entry: Entry) -> Cell {
        Cell {
            value: entry.value,
            revision: entry.revision,
            created: entry.created,
            updated: entry.updated,
            deadline: entry.deadline,
            content_type: entry.content_type,
        }
    }
}

impl From<Entry> for Listed {
    fn from(entry: Entry) -> Listed {
        Listed { key: entry.key.clone(), cell: entry.into() }
    }
}

/// Makes a step, writing under a label. What is about the log, the clock or the life of the store
/// is for who holds them, and is refused here. Asynchronously means: by a future, for which this thread waits.
pub fn perform(store: &Store, step: &Step, label: &str, asynchronous: bool) -> Outcome {
    attempt(store, step, label, asynchronous).unwrap_or_else(|error| Outcome::Refused((&error).into()))
}

fn attempt(store: &Store, step: &Step, label: &str, asynchronous: bool) -> Result<Outcome> {
    let store = store.with_origin(label);
    let store = match &step.namespace {
        Some(namespace) => store.scoped(namespace)?,
        None => store,
    };
    match step.quota {
        Some(quota) if asynchronous => block_on(store.to_async().set_quota(quota))?,
        Some(quota) => store.set_quota(quota)?,
        None => {}
    }
    match &step.op {
        Op::Write(write) if asynchronous => of_future(&store.to_async(), write),
        Op::Write(write) => of_store(&store, write),
        Op::Read(read) => look(&store, read),
        Op::Transaction { calls, lenient, abort } => {
            let (calls, lenient, abort) = (calls.clone(), *lenient, *abort);
            let run = move |tx: &Transaction<'_>| transact(tx, &calls, lenient, abort);
            let committed = if asynchronous {
                block_on(store.to_async().transaction(run))?
            } else {
                store.transaction(run)?
            };
            Ok(Outcome::Committed(committed.value, committed.revision))
        }
        Op::Batch(writes) => {
            let batch = writes.iter().fold(Batch::new(), batched);
            let applied =
                if asynchronous { block_on(store.to_async().apply(batch))? } else { store.apply(batch)? };
            let outcomes = applied.outcomes.into_iter().map(Outcome::from).collect();
            Ok(Outcome::Committed(outcomes, applied.revision))
        }
        Op::Snapshot(reads) => {
            let snapshot: Snapshot = store.snapshot()?;
            let outcomes = reads.iter().map(|read| look(&*snapshot, read)).collect::<Result<_>>()?;
            Ok(Outcome::Snapshot(outcomes, snapshot.revision()))
        }
        Op::PurgeExpired => Ok(Outcome::Number(store.purge_expired()?)),
        Op::History(..) | Op::Compact(_) | Op::Advance(_) | Op::StepBack(_) | Op::Restart => {
            Ok(Outcome::Refused(Refusal::Kind(ErrorKind::InvalidArgument)))
        }
    }
}

fn transact(tx: &Transaction<'_>, calls: &[Call], lenient: bool, abort: bool) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for call in calls {
        let outcome = match call {
            Call::Write(write) => of_transaction(tx, write),
            Call::Read(read) => look(&**tx, read),
        };
        outcomes.push(match outcome {
            Err(error) if lenient => Outcome::Refused((&error).into()),
            outcome => outcome?,
        });
    }
    if abort { Err(Error::abort("as planned")) } else { Ok(outcomes) }
}

fn batched(batch: Batch, write: &Write) -> Batch {
    match write {
        Write::Set { place: Place { group, key }, value, ttl, condition, content_type } => {
            let options = set_options(*ttl, *condition, content_type.as_ref());
            batch.set_with(group, key, value.clone(), options)
        }
        Write::Delete { place: Place { group, key }, condition } => {
            batch.delete_with(group, key, delete_options(*condition))
        }
        Write::DeleteGroup(group) => batch.delete_group(group),
        Write::DeletePrefix(prefix) => batch.delete_prefix(prefix),
        Write::Touch(Place { group, key }, millis) => batch.touch(group, key, Duration::from_millis(*millis)),
        Write::Persist(Place { group, key }) => batch.persist(group, key),
    }
}

impl From<watchkeep::Outcome> for Outcome {
    fn from(outcome: watchkeep::Outcome) -> Outcome {
        match outcome {
            watchkeep::Outcome::Set(revision) => Outcome::At(revision),
            watchkeep::Outcome::Was(was) => Outcome::Was(was),
            watchkeep::Outcome::Keys(keys) => Outcome::Number(keys),
            other => unreachable!("an operation that the kit does not know: {other:?}"),
        }
    }
}

fn set_options(ttl: Ttl, condition: Condition, content_type: Option<&String>) -> SetOptions {
    let options = match ttl {
        Ttl::Clear => SetOptions::new(),
        Ttl::Keep => SetOptions::new().keep_ttl(),
        Ttl::For(millis) => SetOptions::new().ttl(Duration::from_millis(millis)),
        Ttl::Until(deadline) => SetOptions::new().expires_at(deadline),
    };
    let options = match condition {
        Condition::Absent => options.if_absent(),
        Condition::Revision(revision) => options.if_revision(revision),
        Condition::Always | Condition::Current | Condition::Stale => options,
    };
    match content_type {
        Some(content_type) => options.content_type(content_type),
        None => options,
    }
}

fn delete_options(condition: Condition) -> DeleteOptions {
    match condition {
        Condition::Revision(revision) => DeleteOptions::new().if_revision(revision),
        _ => DeleteOptions::new(),
    }
}

/// The writes of a store, of a transaction and of futures: the same calls, whose results differ only for `set`.
macro_rules! writes {
    ($name:ident, $on:ty, $wait:path, $set:expr) => {
        fn $name(on: &$on, write: &Write) -> Result<Outcome> {
            Ok(match write {
                Write::Set { place: Place { group, key }, value, ttl, condition, content_type } => {
                    let options = set_options(*ttl, *condition, content_type.as_ref());
                    $set($wait(on.set_with(group, key, value, options))?)
                }
                Write::Delete { place: Place { group, key }, condition } => {
                    Outcome::Was($wait(on.delete_with(group, key, delete_options(*condition)))?)
                }
                Write::DeleteGroup(group) => Outcome::Number($wait(on.delete_group(group))?),
                Write::DeletePrefix(prefix) => Outcome::Number($wait(on.delete_prefix(prefix))?),
                Write::Touch(Place { group, key }, millis) => {
                    Outcome::Was($wait(on.touch(group, key, Duration::from_millis(*millis)))?)
                }
                Write::Persist(Place { group, key }) => Outcome::Was($wait(on.persist(group, key))?),
            })
        }
    };
}

writes!(of_store, Store, std::convert::identity, Outcome::At);
writes!(of_future, AsyncStore, block_on, Outcome::At);
writes!(of_transaction, Transaction<'_>, std::convert::identity, |()| Outcome::Done);

/// The reads that a store, a snapshot and a transaction share.
trait Look {
    fn get(&self, group: &str, key: &str) -> Result<Option<Value>>;
    fn entry(&self, group: &str, key: &str) -> Result<Option<Entry>>;
    fn contains(&self, group: &str, key: &str) -> Result<bool>;
    fn remaining_ttl(&self, group: &str, key: &str) -> Result<Option<Duration>>;
    fn count(&self, group: &str) -> Result<u64>;
    fn count_all(&self, prefix: &str) -> Result<u64>;
    fn groups(&self, prefix: &str) -> Groups<'_>;
    fn entries_with(&self, group: &str, options: ListOptions) -> Entries<'_>;
    fn page(&self, group: &str, options: ListOptions) -> Result<Page>;
}

macro_rules! looks {
    ($on:ty) => {
        impl Look for $on {
            fn get(&self, group: &str, key: &str) -> Result<Option<Value>> {
                <$on>::get(self, group, key)
            }
            fn entry(&self, group: &str, key: &str) -> Result<Option<Entry>> {
                <$on>::entry(self, group, key)
            }
            fn contains(&self, group: &str, key: &str) -> Result<bool> {
                <$on>::contains(self, group, key)
            }
            fn remaining_ttl(&self, group: &str, key: &str) -> Result<Option<Duration>> {
                <$on>::remaining_ttl(self, group, key)
            }
            fn count(&self, group: &str) -> Result<u64> {
                <$on>::count(self, group)
            }
            fn count_all(&self, prefix: &str) -> Result<u64> {
                <$on>::count_all(self, prefix)
            }
            fn groups(&self, prefix: &str) -> Groups<'_> {
                <$on>::groups(self, prefix)
            }
            fn entries_with(&self, group: &str, options: ListOptions) -> Entries<'_> {
                <$on>::entries_with(self, group, options)
            }
            fn page(&self, group: &str, options: ListOptions) -> Result<Page> {
                <$on>::page(self, group, options)
            }
        }
    };
}

looks!(Store);
looks!(View<'_>);

fn list_options(prefix: &str, after: Option<&String>, limit: Option<usize>) -> ListOptions {
    let options = ListOptions::new().prefix(prefix);
    let options = match after {
        Some(after) => options.after(after),
        None => options,
    };
    match limit {
        Some(limit) => options.limit(limit),
        None => options,
    }
}

fn look<L: Look + ?Sized>(on: &L, read: &Read) -> Result<Outcome> {
    Ok(match read {
        Read::Get(Place { group, key }) => Outcome::Value(on.get(group, key)?),
        Read::Entry(Place { group, key }) => Outcome::Entry(on.entry(group, key)?.map(Cell::from)),
        Read::Contains(Place { group, key }) => Outcome::Was(on.contains(group, key)?),
        Read::RemainingTtl(Place { group, key }) => {
            Outcome::Left(on.remaining_ttl(group, key)?.map(|left| left.as_millis()))
        }
        Read::Count(group) => Outcome::Number(on.count(group)?),
        Read::CountAll(prefix) => Outcome::Number(on.count_all(prefix)?),
        Read::Groups(prefix) => Outcome::Names(on.groups(prefix).collect::<Result<_>>()?),
        Read::Entries(group, prefix, after, limit) => {
            let options = list_options(prefix, after.as_ref(), *limit);
            let entries = on.entries_with(group, options).map(|entry| entry.map(Listed::from));
            Outcome::Entries(entries.collect::<Result<_>>()?, None)
        }
        Read::Page(group, prefix, after, limit) => {
            let page = on.page(group, list_options(prefix, after.as_ref(), *limit))?;
            Outcome::Entries(page.entries.into_iter().map(Listed::from).collect(), page.next)
        }
    })
}
