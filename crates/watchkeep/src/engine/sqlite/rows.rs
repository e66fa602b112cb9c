//! The rows of the file, as rules see them, within one SQL transaction.

use std::sync::Arc;

use rusqlite::{Connection, params};

use crate::engine::epochs::Epochs;
use crate::engine::job::Transaction;
use crate::rules::{
    Answer, ConsumerRow, Did, DuePage, GroupAndRoom, GroupRow, Head, Logged, New, Place, Rows, Stamp,
};
use crate::types::batch::BatchId;
use crate::types::clock::Timestamp;
use crate::types::error::{Error, Reason, Result};
use crate::types::event::Change;
use crate::types::filter::Filter;
use crate::types::name::{NameRange, namespace_of};
use crate::types::quota::Quota;
use crate::types::revision::{Cursor, Revision};

use super::due::{self, Due};
use super::entries::Slot;
use super::log::{self, Salt};
use super::tally::Tally;
use super::{answers, consumers, counters, entries, epochs};

const HOLDS: &str =
    "SELECT 1 FROM wk_entries WHERE group_id = ?1 AND (deadline IS NULL OR deadline > ?2) LIMIT 1";

/// One SQL transaction, in which several jobs are committed.
pub(super) struct SqliteRows<'c> {
    pub(super) conn: &'c Connection,
    tally: Tally,
    /// The log's end before the transaction.
    pub(super) base: Revision,
    /// The log's end with all jobs sealed so far.
    pub(super) last: Revision,
    total_bytes: i64,
    salt: Salt,
    /// Why nothing is written, if nothing is.
    sealed: Option<Arc<str>>,
    /// What the job at hand logged.
    pending: Vec<Change>,
    /// What the sealed jobs changed.
    pub(super) changes: Vec<Arc<Change>>,
    /// The earliest deadline that was given to an entry.
    pub(super) earliest: Option<Timestamp>,
    /// A group was deleted, whose entries are to be swept.
    pub(super) has_buried: bool,
    /// Read when the first cursor is judged.
    epochs: Option<Epochs>,
}

impl<'c> SqliteRows<'c> {
    /// Inside a transaction that was just begun: the base is read in it, so it tells what others committed.
    pub(super) fn begin(conn: &'c Connection) -> Result<SqliteRows<'c>> {
        let (base, total_bytes) = log::end(conn)?;
        if base == Revision::ZERO && log::was_written(conn)? {
            let what = "its log is gone, and with it the last revision".to_owned();
            return Err(Reason::Corrupt { what }.into());
        }
        let ((salt, sealed), pending, changes) = (Salt::read_with_seal(conn)?, Vec::new(), Vec::new());
        Ok(SqliteRows {
            conn,
            tally: Tally::default(),
            base,
            last: base,
            total_bytes,
            salt,
            sealed,
            pending,
            changes,
            earliest: None,
            has_buried: false,
            epochs: None,
        })
    }

    fn run(&self, sql: &str) -> Result<()> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// The revision of an event of the job at hand.
    fn number(&self, stamp: Stamp) -> i64 {
        self.revision(self.last, stamp).as_i64()
    }

    fn note_deadline(&mut self, deadline: Option<Timestamp>) {
        self.earliest = self.earliest.into_iter().chain(deadline).min();
    }
}

impl Transaction for SqliteRows<'_> {
    fn mark(&mut self) -> Result<()> {
        self.run("SAVEPOINT job")
    }

    fn unmark(&mut self) -> Result<()> {
        self.run("RELEASE job")
    }

    fn undo(&mut self) -> Result<()> {
        self.tally.forget();
        self.run("ROLLBACK TO job")?;
        self.run("RELEASE job")
    }

    fn show(&mut self) -> Result<()> {
        self.tally.write(self.conn)
    }

    fn stands(&self) -> bool {
        !self.conn.is_autocommit()
    }

    fn sealed(&self) -> Option<Arc<str>> {
        self.sealed.clone()
    }

    /// The transaction knows of the job only when all its rows are written.
    fn seal(&mut self) -> Result<Option<Revision>> {
        self.show()?;
        let pending = std::mem::take(&mut self.pending);
        let Some(commit) = pending.last().map(|change| change.revision) else { return Ok(None) };
        let (mut total, mut changes) = (self.total_bytes, Vec::with_capacity(pending.len()));
        for change in pending {
            let change = Change { commit, ..change };
            total += i64::try_from(change.payload()).unwrap_or(i64::MAX);
            log::append(self.conn, self.salt, &change, total)?;
            changes.push(Arc::new(change));
        }
        self.total_bytes = total;
        self.changes.append(&mut changes);
        self.last = commit;
        Ok(Some(commit))
    }

    fn forget(&mut self) {
        self.pending.clear();
    }

    fn end(&self) -> Revision {
        self.last
    }

    fn revision(&self, end: Revision, stamp: Stamp) -> Revision {
        Revision::new(end.get().saturating_add(stamp.0).saturating_add(1))
    }
}

impl Rows for SqliteRows<'_> {
    type Group = i64;
    type Slot = Slot;

    fn group(&mut self, name: &str) -> Result<Option<GroupRow<i64>>> {
        self.tally.group(self.conn, name)
    }

    fn group_and_room(&mut self, name: &str) -> Result<GroupAndRoom<i64>> {
        match namespace_of(name) {
            Some(namespace) => counters::group_and_room(self.conn, name, namespace),
            None => Ok((self.tally.group(self.conn, name)?, None)),
        }
    }

    fn holds(&mut self, group: i64, now: Timestamp) -> Result<bool> {
        Ok(self.conn.prepare_cached(HOLDS)?.exists(params![group, now.as_millis()])?)
    }

    fn groups(&mut self, names: &NameRange) -> Result<Vec<String>> {
        counters::groups(self.conn, names)
    }

    /// Its id is the revision of its first event: never used before, never again.
    fn make_group(&mut self, name: &str, stamp: Stamp) -> Result<GroupRow<i64>> {
        counters::create(self.conn, name, self.number(stamp))
    }

    fn count(&mut self, group: &GroupRow<i64>, name: &str, keys: i64, bytes: i64) -> Result<()> {
        self.tally.add(self.conn, group, name, keys, bytes)
    }

    /// Its entries are swept later.
    fn bury(&mut self, group: &GroupRow<i64>, name: &str) -> Result<u64> {
        self.has_buried = true;
        self.tally.release(name);
        counters::bury(self.conn, group, name)?;
        Ok(u64::try_from(group.keys).unwrap_or(0))
    }

    fn set_quota(&mut self, namespace: &str, quota: Quota) -> Result<()> {
        counters::set_quota(self.conn, namespace, quota)
    }

    fn entry(&mut self, group: i64, key: &str) -> Result<Option<Head<Slot>>> {
        entries::find(self.conn, group, key)
    }

    fn put(&mut self, group: i64, key: &str, over: Option<&Slot>, new: &New<'_>) -> Result<()> {
        let revision = self.revision(self.last, new.stamp);
        let New { updated, deadline, content_type, value, .. } = *new;
        let row = entries::Row { revision, updated, deadline, content_type, value };
        match over {
            Some(slot) => entries::put(self.conn, slot, &row)?,
            None => entries::put(self.conn, &Slot::fresh(group, key, revision), &row)?,
        }
        self.note_deadline(deadline);
        Ok(())
    }

    fn set_deadline(&mut self, slot: &Slot, deadline: Option<Timestamp>) -> Result<()> {
        entries::set_deadline(self.conn, slot, deadline)?;
        self.note_deadline(deadline);
        Ok(())
    }

    fn remove(&mut self, slot: &Slot) -> Result<()> {
        entries::remove(self.conn, slot)
    }

    fn due_entry(&mut self, group: i64, key: &str) -> Result<Option<Due>> {
        due::entry(self.conn, group, key)
    }

    fn due(&mut self, groups: &NameRange, now: Timestamp, limit: usize) -> Result<DuePage<Slot>> {
        due::page(self.conn, groups, now, limit)
    }

    fn has_due(&mut self, groups: &NameRange, now: Timestamp) -> Result<bool> {
        due::is_there(self.conn, groups, now)
    }

    /// A disk says so itself.
    fn is_full(&mut self, _: i64) -> Result<bool> {
        Ok(false)
    }

    fn log(&mut self, event: Logged<'_>) -> Result<Stamp> {
        let stamp = Stamp(u64::try_from(self.pending.len()).unwrap_or(u64::MAX));
        let before = self.pending.last().map_or(self.last, |change| change.revision);
        let revision = before.next().ok_or(Reason::NoRevisionLeft)?;
        self.pending.push(event.change(revision));
        Ok(stamp)
    }

    fn last(&mut self) -> Result<Revision> {
        Ok(self.pending.last().map_or(self.last, |change| change.revision))
    }

    fn trimmed(&mut self) -> Result<Revision> {
        log::trimmed(self.conn)
    }

    fn lost(&mut self, cursor: Cursor) -> Result<Option<Error>> {
        let last = self.last()?;
        let epochs = match &mut self.epochs {
            Some(epochs) => epochs,
            none => none.insert(epochs::all(self.conn)?),
        };
        Ok(epochs.refuse_lost(cursor, last).err())
    }

    fn logged(
        &mut self,
        after: Revision,
        limit: usize,
        each: &mut dyn FnMut(&Place<'_>) -> bool,
    ) -> Result<usize> {
        log::places(self.conn, after, limit, each)
    }

    fn answer(&mut self, id: &BatchId) -> Result<Option<Answer>> {
        answers::find(self.conn, id)
    }

    fn newest_answer(&mut self, client: &str) -> Result<Option<u64>> {
        answers::newest(self.conn, client)
    }

    fn keep_answer(&mut self, id: &BatchId, at: Timestamp, body: u32, done: &[Did]) -> Result<()> {
        let outcomes = done.iter().map(|did| did.at(|stamp| self.revision(self.last, stamp))).collect();
        let answer = Answer { body, revision: self.last()?, outcomes };
        answers::keep(self.conn, at, id, &answer)
    }

    fn has_consumer(&mut self, name: &str) -> Result<bool> {
        consumers::is_there(self.conn, name)
    }

    fn consumer(&mut self, name: &str) -> Result<Option<ConsumerRow>> {
        consumers::row(self.conn, name)
    }

    fn put_consumer(&mut self, name: &str, row: &ConsumerRow) -> Result<()> {
        consumers::put(self.conn, name, row)
    }

    fn set_consumer_filter(&mut self, name: &str, filter: &Filter) -> Result<()> {
        consumers::set_filter(self.conn, name, filter)
    }

    fn remove_consumer(&mut self, name: &str) -> Result<()> {
        consumers::remove(self.conn, name)
    }

    fn fence(&mut self) -> Result<u64> {
        consumers::next_fence(self.conn)
    }
}
