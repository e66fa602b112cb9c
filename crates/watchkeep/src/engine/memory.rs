//! An engine without a file, for the tests of interleavings: its log is a list, and a commit is one step. Turn, feed
//! and signal are those of every engine.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::types::backup::{Backup, BackupOptions};
use crate::types::batch::{Operation, Outcome};
use crate::types::clock::Timestamp;
use crate::types::consumer::{ConsumerInfo, Force};
use crate::types::entry::{Entry, KeyInfo};
use crate::types::error::{Error, Reason, Result};
use crate::types::event::{Change, Kind};
use crate::types::name::NameRange;
use crate::types::options::{Durability, Retention, Waking};
use crate::types::quota::Quota;
use crate::types::revision::{Revision, StoreId};
use crate::types::sync::atomic::{AtomicBool, Ordering};
use crate::types::sync::{Mutex, lock};
use crate::types::value::Value;

use super::feed::Feed;
use super::floors::Floors;
use super::signal::Signal;
use super::turn::{Admission, Job, Turn};
use super::{
    Act, Author, Completion, Done, Engine, Held, LogPage, Read, Receipt, Sealed, Totals, Transact, Write,
};

/// Nobody's deadline comes while a model runs.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Revisions are ordered, and not dense: from one to the next it is as far as no distance in events may be.
const GAP: u64 = 5_000;

/// The revision of the n-th event.
pub(crate) fn nth(ordinal: u64) -> Revision {
    Revision::new(ordinal * GAP)
}

/// Which event has this revision, counted from one.
pub(crate) fn ordinal(revision: Revision) -> u64 {
    revision.get() / GAP
}

/// How many writes a leader takes along: few, so that the turn is handed on, too.
const TAKES_ALONG: usize = 1;

/// What is given from writer to writer.
#[derive(Debug)]
struct Pen;

/// The engine. A write sets a key; its value does not matter.
pub(crate) struct MemoryEngine {
    id: StoreId,
    path: PathBuf,
    turn: Turn<Pen>,
    feed: Feed,
    floors: Arc<Floors>,
    log: Mutex<Vec<Arc<Change>>>,
    closed: AtomicBool,
}

struct MemoryRead<'l>(&'l [Arc<Change>]);

/// An open transaction.
#[derive(Default)]
struct Counting {
    events: Cell<u64>,
}

impl Transact for Counting {
    fn apply(&self, _: &Operation) -> Result<Outcome> {
        self.events.set(self.events.get() + 1);
        Ok(Outcome::Set(Revision::ZERO))
    }

    fn consumer(&self, _: &str, _: &Act) -> Result<()> {
        absent()
    }

    fn spoil(&self, _: &Error) {}

    fn read(&self) -> &dyn Read {
        &MemoryRead(&[])
    }
}

fn last(log: &[Arc<Change>]) -> Revision {
    log.last().map_or(Revision::ZERO, |change| change.revision)
}

/// Where the log ends after these commits.
fn end(base: Revision, commits: &[Revision]) -> Revision {
    commits.last().copied().unwrap_or(base)
}

fn set(revision: Revision, announced: Option<Revision>) -> Receipt {
    Receipt { done: Done::Batch(vec![Outcome::Set(revision)]), revision, announced }
}

/// What the models do not ask for.
fn absent<T>() -> Result<T> {
    Err(Reason::Invalid { what: "this engine only sets keys".to_owned() }.into())
}

impl MemoryEngine {
    pub(crate) fn new(signal: Arc<Signal>) -> Arc<MemoryEngine> {
        Arc::new(MemoryEngine {
            id: StoreId::MODEL,
            path: PathBuf::new(),
            turn: Turn::new(Pen, signal),
            feed: Feed::default(),
            floors: Arc::default(),
            log: Mutex::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// Commits as another process would: nothing of it is in the feed.
    pub(crate) fn commit_elsewhere(&self) -> Revision {
        let (base, commits, _) = self.commit(&[1]);
        end(base, &commits)
    }

    /// Commits and leaves it in the feed; whoever calls this is alone with it.
    #[cfg(loom)]
    pub(crate) fn commit_here(&self) -> Revision {
        let (base, commits, changes) = self.commit(&[1]);
        self.feed.push(base, end(base, &commits), changes);
        end(base, &commits)
    }

    /// The last revision.
    pub(crate) fn end(&self) -> Revision {
        last(&lock(&self.log))
    }

    /// Commits transactions of so many events; the revision before them, the last of each, and the events.
    fn commit(&self, transactions: &[u64]) -> (Revision, Vec<Revision>, Vec<Arc<Change>>) {
        let mut log = lock(&self.log);
        let (base, mut commits, mut changes) = (last(&log), Vec::new(), Vec::new());
        for events in transactions {
            let before = ordinal(*commits.last().unwrap_or(&base));
            let commit = nth(before + events);
            changes.extend((before + 1..=before + events).map(|ordinal| change(nth(ordinal), commit)));
            commits.push(commit);
        }
        log.extend(changes.iter().cloned());
        (base, commits, changes)
    }

    /// Commits the leader's own writes and some of those that queued, and passes the turn on.
    fn lead(&self, pen: Pen, own: u64) -> Receipt {
        let taken: Vec<_> = (0..TAKES_ALONG).map_while(|_| self.turn.take_along()).collect();
        let transactions: Vec<_> = std::iter::once(own).chain(taken.iter().map(|_| 1)).collect();
        let (base, commits, changes) = self.commit(&transactions);
        self.feed.push(base, end(base, &commits), changes);
        let mut receipts = commits.into_iter().map(|commit| set(commit, Some(commit)));
        let own = receipts.next();
        let (background, waiting): (Vec<_>, Vec<_>) =
            taken.iter().zip(receipts).partition(|(job, _)| job.background);
        let finish = |(job, receipt): (&Arc<Job<Pen>>, _)| self.turn.finish(job, Ok(receipt));
        background.into_iter().for_each(finish);
        self.turn.pass(pen);
        waiting.into_iter().for_each(finish);
        own.unwrap_or_else(|| set(base, None))
    }

    /// Commits some of what was submitted; whether there was any.
    fn lead_background(&self) -> bool {
        self.turn.lead_for_background().map(|(pen, _)| self.lead(pen, 0)).is_some()
    }

    fn reads(&self, f: &mut dyn FnMut(&dyn Read) -> Result<()>) -> Result<()> {
        let log = lock(&self.log).clone();
        f(&MemoryRead(&log))
    }
}

fn change(revision: Revision, commit: Revision) -> Arc<Change> {
    Arc::new(Change {
        revision,
        commit,
        kind: Kind::Set,
        group: "g".into(),
        key: Some("k".into()),
        value: None,
        content_type: None,
        deadline: None,
        previous: None,
        origin: None,
        timestamp: Timestamp::default(),
    })
}

impl Engine for MemoryEngine {
    fn id(&self) -> StoreId {
        self.id
    }

    fn path(&self) -> &PathBuf {
        &self.path
    }

    fn durability(&self) -> Durability {
        Durability::Full
    }

    fn waking(&self) -> Waking {
        Waking::Alone
    }

    fn hears_others(&self) -> bool {
        false
    }

    fn distance(&self, from: Revision, to: Revision) -> u64 {
        ordinal(to).saturating_sub(ordinal(from))
    }

    fn write(&self, write: Write) -> Result<Receipt> {
        match self.turn.enter(|| Some(write), PATIENCE)? {
            Admission::Done(result) => result,
            Admission::Lead(pen) => Ok(self.lead(pen, 1)),
        }
    }

    fn transact(&self, _: &Author, f: &mut dyn FnMut(&dyn Transact) -> Result<()>) -> Result<Sealed> {
        match self.turn.enter(|| None, PATIENCE)? {
            Admission::Done(_) => absent(),
            Admission::Lead(pen) => {
                let counting = Counting::default();
                f(&counting)?;
                let receipt = self.lead(pen, counting.events.get());
                let revision = receipt.announced.unwrap_or_default();
                Ok(Sealed { revision, announced: receipt.announced })
            }
        }
    }

    fn submit(&self, write: Write, done: Completion) {
        self.turn.submit(write, PATIENCE, done);
    }

    fn settle(&self) -> Vec<(Completion, Result<Receipt>)> {
        self.lead_background();
        self.turn.take_settled()
    }

    fn glance(&self, f: &mut dyn FnMut(&dyn Read) -> Result<()>) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Reason::Closed.into()) } else { self.reads(f) }
    }

    fn read(&self, f: &mut dyn FnMut(&dyn Read) -> Result<()>) -> Result<()> {
        self.glance(f)
    }

    fn linger(&self, f: &mut dyn FnMut(&dyn Read) -> Result<()>) -> Result<()> {
        self.reads(f)
    }

    fn hold(&self) -> Result<Arc<dyn Held>> {
        absent()
    }

    fn feed(&self) -> &Feed {
        &self.feed
    }

    fn floors(&self) -> &Arc<Floors> {
        &self.floors
    }

    fn next_deadline(&self) -> Result<Option<Timestamp>> {
        Ok(None)
    }

    fn maintain(&self) -> Result<bool> {
        Ok(false)
    }

    fn retention(&self) -> Result<Retention> {
        Ok(Retention::FOREVER)
    }

    fn trim(&self, _: Revision, _: Force) -> Result<u64> {
        absent()
    }

    fn check(&self) -> Result<(Vec<String>, [u64; 3])> {
        absent()
    }

    fn repair(&self) -> Result<Vec<String>> {
        absent()
    }

    fn backup(&self, _: &Path, _: &mut BackupOptions) -> Result<Backup> {
        absent()
    }

    fn stand(&self) -> Result<()> {
        Ok(())
    }

    fn is_forked(&self) -> bool {
        false
    }

    fn sizes(&self) -> (u64, u64) {
        (0, 0)
    }

    fn is_closed(&self) -> bool {
        self.turn.is_closed()
    }

    fn refuse_nested(&self) -> Result<()> {
        Ok(())
    }

    fn refuse_own_turn(&self) -> Result<()> {
        Ok(())
    }

    fn poison(&self, error: &Error) {
        self.turn.poison(error);
    }

    fn seal(&self) -> Result<()> {
        self.turn.refuse();
        loop {
            while self.lead_background() {}
            if self.turn.close().is_some() {
                return Ok(());
            }
        }
    }

    fn close(&self, _: bool) {
        self.closed.store(true, Ordering::Release);
    }
}

impl Read for MemoryRead<'_> {
    fn now(&self) -> Timestamp {
        Timestamp::default()
    }

    fn last(&self) -> Result<Revision> {
        Ok(last(self.0))
    }

    fn log(&self, after: Revision, limit: usize) -> Result<LogPage> {
        let changes = self.0.iter().filter(|change| change.revision > after).take(limit).cloned().collect();
        Ok(LogPage { trimmed: Revision::ZERO, end: last(self.0), changes })
    }

    fn refuse_lost(&self, _: Revision) -> Result<()> {
        Ok(())
    }

    fn change(&self, revision: Revision) -> Result<Option<Arc<Change>>> {
        Ok(self.0.iter().find(|change| change.revision == revision).cloned())
    }

    fn value(&self, _: &str, _: &str) -> Result<Option<Value>> {
        absent()
    }

    fn entry(&self, _: &str, _: &str) -> Result<Option<Entry>> {
        absent()
    }

    fn entries(&self, _: &str, _: &NameRange, _: usize) -> Result<(Vec<Entry>, bool)> {
        absent()
    }

    fn keys(&self, _: &str, _: &NameRange, _: usize) -> Result<Vec<KeyInfo>> {
        absent()
    }

    fn groups(&self, _: &NameRange, _: usize) -> Result<Vec<String>> {
        absent()
    }

    fn count(&self, _: &str) -> Result<u64> {
        absent()
    }

    fn count_all(&self, _: &NameRange) -> Result<u64> {
        absent()
    }

    fn totals(&self, _: &NameRange) -> Result<Totals> {
        absent()
    }

    fn quota(&self, _: &str) -> Result<Option<Quota>> {
        absent()
    }

    fn consumers(&self, _: &NameRange) -> Result<Vec<ConsumerInfo>> {
        absent()
    }
}
