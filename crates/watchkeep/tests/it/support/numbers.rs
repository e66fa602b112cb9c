//! Revisions as the tests write them: 1, 2, 3 …
//!
//! In a cluster revisions have gaps. So a test says there which event of the log it means, and where revisions are dense
//! that is the revision itself.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use watchkeep::{Filter, Kind, Revision, Store};

use super::Result;
use super::needs::Need;

/// The first commit of a cluster has these revisions behind it: a lower one is of a file, or is made up.
const FIRST: u64 = 4_096;

/// How long an event of another handle may take to come into the log. It is there already, so this is milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// The log of a store in a cluster, as another process reads it.
struct Log {
    address: String,
    reader: Option<Store>,
    known: Vec<Revision>,
}

thread_local! {
    /// The logs of the stores that this thread opened: a test has a thread to itself.
    static LOGS: RefCell<Vec<Log>> = const { RefCell::new(Vec::new()) };
}

/// Remembers a store in a cluster that a test opened, so that its revisions can be numbered.
#[cfg(feature = "etcd")]
pub(super) fn remember(address: &str) {
    LOGS.with_borrow_mut(|logs| {
        logs.push(Log { address: address.to_owned(), reader: None, known: Vec::new() });
    });
}

/// Which event of its store's log has this revision, counted from one. On a cluster that is asked on the thread that
/// opened the store; elsewhere, and of what is no event, it is the revision itself.
pub(crate) fn number(revision: Revision) -> u64 {
    if Need::DenseRevisions.is_met() || revision.get() < FIRST {
        return revision.get();
    }
    LOGS.with_borrow_mut(|logs| {
        let start = Instant::now();
        while start.elapsed() < PATIENCE && !logs.is_empty() {
            for log in logs.iter_mut().rev() {
                if let Ok(Some(number)) = log.number(revision) {
                    return number;
                }
            }
        }
        revision.get()
    })
}

/// The numbers of revisions.
pub(crate) fn numbers(revisions: &[Revision]) -> Vec<u64> {
    revisions.iter().copied().map(number).collect()
}

/// The revision of the event of this number, counted from one: the opposite of `number`.
pub(crate) fn nth(store: &Store, number: u64) -> Result<Revision> {
    if Need::DenseRevisions.is_met() || number == 0 {
        return Ok(Revision::new(number));
    }
    let events = store.history(Filter::everything().kinds(Kind::ALL), Revision::ZERO);
    let mut later = events.skip(usize::try_from(number)? - 1);
    Ok(later.next().ok_or("there is no such event yet")??.revision())
}

impl Log {
    fn number(&mut self, revision: Revision) -> Result<Option<u64>> {
        if self.known.last().is_none_or(|last| *last < revision) {
            let reader = match &self.reader {
                Some(reader) => reader,
                // Its clock stands still, so it lets nothing expire.
                None => self.reader.insert(connect(&self.address)?),
            };
            let after = self.known.last().copied().unwrap_or(Revision::ZERO);
            for event in reader.history(Filter::everything().kinds(Kind::ALL), after) {
                self.known.push(event?.revision());
            }
        }
        Ok(self.known.binary_search(&revision).ok().map(|at| at as u64 + 1))
    }
}

#[cfg(feature = "etcd")]
fn connect(address: &str) -> watchkeep::Result<Store> {
    let clock = std::sync::Arc::new(watchkeep::ManualClock::default());
    super::patient(watchkeep::Options::new().clock(clock)).connect(address)
}

#[cfg(not(feature = "etcd"))]
fn connect(address: &str) -> Result<Store> {
    Err(format!("{address} is in a cluster, and the feature etcd is off").into())
}
