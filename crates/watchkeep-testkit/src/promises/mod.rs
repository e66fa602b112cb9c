//! The promises, each a function of its name: it takes what one stream was told and everything else that is known,
//! and gives back what breaks the promise, with the revisions involved. An empty list is a kept promise.
//!
//! What a promise says of the whole run rather than of one stream is checked by [`Promise::check_run`].
//!
//! | promise | one stream | the whole run |
//! |---|---|---|
//! | ordered | revisions grow; a callback's runs do not overlap | a write that began after another had returned has the higher revision; all callbacks of a store run one at a time, in commit order |
//! | complete | from the first to the last revision seen nothing is missing; losses are true and in place | |
//! | unique | no revision twice | |
//! | atomic | events name their transaction's end; marks stand at such ends; nothing of what was rolled back | transactions do not mix; consistent readings equal the replayed log |
//! | after durable | another handle reads what was received | what was acknowledged is in the log, and in it after every restart |
//! | before return | what a returned write announced is there | |
//! | visible | who received an event reads it, or what came after it | |
//! | never blocks | a stream that drops holds no more than its buffer | no write took longer than the limit |
//! | resumable | a stream after R begins with the first event after R | no revision stands for two changes |
//! | snapshot, then tail | folded up to `Ready(R)`, it is the state at R; nothing is missing after R | |
//! | bookmarkable | nothing up to a mark comes after it, or is missing before it | |
//! | armed | a write that began later is seen, one that returned before is not | |
//! | expiry on time | | nothing expires early, everything due is announced, within the limit; consistent readings hide it |
//! | faithful | each event is its row of the log, seen through the filter | |

mod after_durable;
mod armed;
mod atomic;
mod before_return;
mod bookmarkable;
mod complete;
mod expiry_on_time;
mod faithful;
#[cfg(test)]
mod made_up;
mod never_blocks;
mod ordered;
mod resumable;
mod snapshot_then_tail;
mod unique;
mod visible;

use std::fmt;

use watchkeep::{Kind, LagPolicy, Revision};

use crate::record::{Beginning, Evidence, Recording, Source};

pub use after_durable::after_durable;
pub use armed::armed;
pub use atomic::atomic;
pub use before_return::before_return;
pub use bookmarkable::bookmarkable;
pub use complete::complete;
pub use expiry_on_time::{delays, expiry_on_time};
pub use faithful::faithful;
pub use never_blocks::never_blocks;
pub use ordered::ordered;
pub use resumable::resumable;
pub use snapshot_then_tail::snapshot_then_tail;
pub use unique::unique;
pub use visible::visible;

/// A promise of the watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Promise {
    /// Everybody sees one order.
    Ordered,
    /// Nothing is missing in between.
    Complete,
    /// Nothing comes twice.
    Unique,
    /// Transactions stay whole.
    Atomic,
    /// What is delivered stays.
    AfterDurable,
    /// What is written is delivered when the call returns.
    BeforeReturn,
    /// What is delivered can be read.
    Visible,
    /// Nobody delays a writer.
    NeverBlocks,
    /// A stream goes on where another ended.
    Resumable,
    /// The state, then what follows.
    SnapshotThenTail,
    /// Marks are true.
    Bookmarkable,
    /// From the call on.
    Armed,
    /// Deadlines are kept.
    ExpiryOnTime,
    /// What is delivered is what happened. Not among the promises by name, but under all of them.
    Faithful,
}

/// Something that breaks a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub promise: Promise,
    /// Whose stream, or which part of the run.
    pub who: String,
    /// The revisions involved.
    pub revisions: Vec<Revision>,
    /// What is wrong.
    pub what: String,
}

impl Promise {
    /// All of them, in the order of the documentation.
    pub const ALL: [Promise; 14] = [
        Promise::Ordered,
        Promise::Complete,
        Promise::Unique,
        Promise::Atomic,
        Promise::AfterDurable,
        Promise::BeforeReturn,
        Promise::Visible,
        Promise::NeverBlocks,
        Promise::Resumable,
        Promise::SnapshotThenTail,
        Promise::Bookmarkable,
        Promise::Armed,
        Promise::ExpiryOnTime,
        Promise::Faithful,
    ];

    /// Its name, which is that of its checker and of its test.
    pub const fn as_str(self) -> &'static str {
        match self {
            Promise::Ordered => "ordered",
            Promise::Complete => "complete",
            Promise::Unique => "unique",
            Promise::Atomic => "atomic",
            Promise::AfterDurable => "after_durable",
            Promise::BeforeReturn => "before_return",
            Promise::Visible => "visible",
            Promise::NeverBlocks => "never_blocks",
            Promise::Resumable => "resumable",
            Promise::SnapshotThenTail => "snapshot_then_tail",
            Promise::Bookmarkable => "bookmarkable",
            Promise::Armed => "armed",
            Promise::ExpiryOnTime => "expiry_on_time",
            Promise::Faithful => "faithful",
        }
    }

    /// Whether a stream can break it at all.
    pub fn concerns(self, recording: &Recording) -> bool {
        let (spec, watcher) = (&recording.spec, recording.source == Source::Watcher);
        match self {
            Promise::BeforeReturn => recording.is_whole(),
            Promise::Visible => recording.heard.iter().any(|heard| heard.reading.is_some()),
            Promise::NeverBlocks => spec.policy == LagPolicy::Drop && watcher,
            Promise::Resumable => matches!(spec.beginning, Beginning::After(_)),
            Promise::SnapshotThenTail => spec.beginning == Beginning::Snapshot,
            Promise::Bookmarkable => spec.progress.is_some() || spec.beginning == Beginning::Snapshot,
            Promise::Armed => spec.beginning == Beginning::Now,
            Promise::ExpiryOnTime => recording.changes().any(|change| change.kind == Kind::Expire),
            _ => true,
        }
    }

    /// What of one stream breaks it.
    pub fn check(self, recording: &Recording, evidence: &Evidence) -> Vec<Violation> {
        let checker = match self {
            Promise::Ordered => ordered,
            Promise::Complete => complete,
            Promise::Unique => unique,
            Promise::Atomic => atomic,
            Promise::AfterDurable => after_durable,
            Promise::BeforeReturn => before_return,
            Promise::Visible => visible,
            Promise::NeverBlocks => never_blocks,
            Promise::Resumable => resumable,
            Promise::SnapshotThenTail => snapshot_then_tail,
            Promise::Bookmarkable => bookmarkable,
            Promise::Armed => armed,
            Promise::ExpiryOnTime => expiry_on_time,
            Promise::Faithful => faithful,
        };
        checker(recording, evidence)
    }

    /// What of the whole run breaks it.
    pub fn check_run(self, recordings: &[Recording], evidence: &Evidence) -> Vec<Violation> {
        match self {
            Promise::Ordered => {
                let mut found = ordered::in_real_time(evidence);
                found.extend(ordered::callbacks_in_step(recordings));
                found
            }
            Promise::Atomic => atomic::of_log_and_pictures(evidence),
            Promise::AfterDurable => after_durable::of_run(evidence),
            Promise::NeverBlocks => never_blocks::of_writes(evidence),
            Promise::Resumable => resumable::no_revision_used_again(evidence),
            Promise::ExpiryOnTime => expiry_on_time::of_run(recordings, evidence),
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken for {}: {}", self.promise, self.who, self.what)?;
        if self.revisions.is_empty() {
            return Ok(());
        }
        let shown: Vec<String> = self.revisions.iter().take(12).map(ToString::to_string).collect();
        let more = self.revisions.len().saturating_sub(shown.len());
        write!(f, " [{}", shown.join(", "))?;
        if more > 0 {
            write!(f, " and {more} more")?;
        }
        f.write_str("]")
    }
}

/// All promises, for all streams and for the run.
pub fn check_all(recordings: &[Recording], evidence: &Evidence) -> Vec<Violation> {
    let streams = |promise: Promise| recordings.iter().flat_map(move |one| promise.check(one, evidence));
    Promise::ALL
        .into_iter()
        .flat_map(|promise| streams(promise).chain(promise.check_run(recordings, evidence)))
        .collect()
}

/// Collects what breaks a promise.
struct Findings {
    promise: Promise,
    who: String,
    found: Vec<Violation>,
}

impl Findings {
    fn new(promise: Promise, who: impl Into<String>) -> Findings {
        Findings { promise, who: who.into(), found: Vec::new() }
    }

    fn add(&mut self, revisions: impl Into<Vec<Revision>>, what: impl Into<String>) {
        let (revisions, what) = (revisions.into(), what.into());
        self.found.push(Violation { promise: self.promise, who: self.who.clone(), revisions, what });
    }

    /// One finding for all of them, if there are any.
    fn add_all(&mut self, revisions: Vec<Revision>, what: impl Into<String>) {
        if !revisions.is_empty() {
            self.add(revisions, what);
        }
    }
}

/// The revisions after one and up to another that a stream owes and neither handed out nor called lost.
fn missing(recording: &Recording, evidence: &Evidence, after: Revision, to: Revision) -> Vec<Revision> {
    let seen: std::collections::HashSet<Revision> =
        recording.changes().map(|change| change.revision).collect();
    let rows = evidence.log.between(after, to).iter();
    rows.filter(|row| recording.spec.want.wants(row))
        .map(|row| row.revision)
        .filter(|revision| !seen.contains(revision) && !recording.lost(*revision))
        .collect()
}
