//! Why something failed: what stands behind the one public error, and which kind it is.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::time::Duration;

use super::batch::{BatchId, Unmet};
use super::error::ErrorKind;
use super::event::Lagged;
use super::quota::QuotaExceeded;
use super::revision::{Cursor, Revision, StoreId};

/// How many unmet conditions an error's text names.
const TOLD: usize = 5;

/// A cause of another crate, kept whole.
pub(crate) type Cause = Box<dyn StdError + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Reason {
    #[error("{path:?} is not there; create it by opening it for writing, or correct the path")]
    NoFile { path: PathBuf },
    #[error("the folder {path:?} is not there; create it first")]
    NoFolder { path: PathBuf },
    #[error("{path:?} is a folder; name a file in it")]
    IsFolder { path: PathBuf },
    #[error("{path:?} is a {what}; name a regular file")]
    SpecialFile { path: PathBuf, what: &'static str },
    #[error(
        "{path:?} has {names} names (hard links), and its write-ahead log only one; remove the others, or copy it"
    )]
    HardLinks { path: PathBuf, names: u64 },
    #[error(
        "{path:?} is mounted without the folder that it lies in, and its write-ahead log lies beside it there; mount its folder instead"
    )]
    MountedAlone { path: PathBuf },
    #[error(
        "{path:?} is too long: its {part} has {len} bytes, and at most {limit} leave room for the files beside it; choose a shorter one"
    )]
    PathTooLong { path: PathBuf, part: &'static str, len: usize, limit: usize },
    #[error(
        "{path:?} lies on a network file system ({system}), whose locks SQLite cannot rely on; move it to a local disk, or insist on it (Options::network, --network)"
    )]
    NetworkFileSystem { path: PathBuf, system: &'static str },
    #[error("{log:?} is there without its store; put the store back beside it, or move it away")]
    Orphaned { log: PathBuf },
    #[error("{path:?} is there already and is not overwritten; name another file, or move it away")]
    TargetExists { path: PathBuf },
    #[error("{path:?} is no sound backup, and nothing was touched: {}; take another", .problems.join(", "))]
    BadBackup { path: PathBuf, problems: Vec<String> },
    #[error("{path:?} is open; close it in every process, then try again")]
    InUse { path: PathBuf },
    #[error(
        "{path:?} was {what} while the store was open; close the store, see to the file, and open it again"
    )]
    Replaced { path: PathBuf, what: &'static str },
    #[error("nothing can be written in {path:?}; change its permissions, or name another folder")]
    CannotWrite {
        path: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    #[error("the process was forked after the store was opened; open it again in the child")]
    Forked,
    #[error("the store's rows are kept elsewhere; do this where they are")]
    Remote,
    #[error(
        "{path:?} was open in the process that this one was forked from, and SQLite's locks do not part the two; open it in a process that is started anew (exec), or open it after the fork only"
    )]
    Inherited { path: PathBuf },
    #[error("what is due in the group has to go first; the transaction is run again")]
    DueFirst,
    #[error("the disk of {path:?} has {free} bytes free, {needed} are needed; make room, then try again")]
    NoSpace { path: PathBuf, free: u64, needed: u64 },
    #[error("there is no room left, and nothing is set until there is; delete and compact, or make room")]
    Tight,
    #[error(
        "{path:?} cannot be opened although its permissions allow it; are too many files open (ulimit -n)?"
    )]
    CannotOpen {
        path: PathBuf,
        #[source]
        cause: rusqlite::Error,
    },
    #[error("SQLite {found} is built in, which can lose commits; build with 3.51.3 or later")]
    OldSqlite { found: &'static str },
    #[error("group {group:?} key {key:?} {}; read it again and decide", conflict(.current))]
    Conflict { group: String, key: String, current: Option<Revision> },
    #[error("the store {}, and its seal was left as it is; look at it again and decide", seal_found(.found))]
    OtherSeal { found: Option<String> },
    #[error(
        "the store was written to after revision {last}, up to {found}, and its seal was left as it is; look at it again and decide"
    )]
    WrittenMeanwhile { last: Revision, found: Revision },
    #[error(
        "{} of the batch's conditions do not hold ({}); read again and decide",
        .0.len(), .0.iter().take(TOLD).map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    Unmet(Vec<Unmet>),
    #[error("sequence {} of the client {:?} was another batch; give each batch a sequence of its own", .id.sequence, .id.client)]
    OtherBatch { id: BatchId },
    #[error(
        "whether sequence {} of the client {:?} was applied is not known any more, the last is {last}; read it back, and go on with a later one",
        .id.sequence, .id.client
    )]
    LongAgo { id: BatchId, last: u64 },
    #[error(
        "the client's name {name:?} is not allowed: use letters, digits, hyphens, dots and underscores, at least one and at most 128"
    )]
    BadClient { name: String },
    #[error("{0}")]
    Quota(QuotaExceeded),
    #[error(
        "the namespace {name:?} is not allowed: use letters, digits and hyphens, at least one and at most 128"
    )]
    BadNamespace { name: String },
    #[error(
        "the consumer name {name:?} is not allowed: use letters, digits, hyphens, dots and underscores, at least one and at most 128"
    )]
    BadConsumer { name: String },
    #[error("there is no consumer {name:?}; see the list of consumers for those that there are")]
    NoConsumer { name: String },
    #[error(
        "the consumer {name:?} is held by {holder:?} for another {left:?} at the most; wait for it, or take it by force"
    )]
    Held { name: String, holder: String, left: Duration },
    #[error(
        "the consumer {name:?} still needs the events after {after}; let it acknowledge them, remove it, or compact by force"
    )]
    Needed { name: String, after: Revision },
    #[error("the consumer {name:?} {}; take it again to go on after its last acknowledgement", fenced(.by))]
    Fenced { name: String, by: Option<String> },
    #[error("this handle is scoped to {name:?} already; scope the whole store instead")]
    ScopedTwice { name: String },
    #[error("{what}")]
    Invalid { what: String },
    #[error(
        "the deadline must lie at least 1 ms ahead, and before the year 10000; choose another time to live"
    )]
    BadDeadline,
    #[error(
        "the {what} has {len} bytes, the limit is {limit}; shorten it, or raise the limit when opening the store"
    )]
    TooLarge { what: &'static str, len: usize, limit: usize },
    #[error("the {what} has {len}, the limit is {limit}; split it")]
    BatchTooLarge { what: &'static str, len: usize, limit: usize },
    #[error("it is larger than SQLite stores in one row; make it smaller, or split it")]
    TooLargeForSqlite(#[source] rusqlite::Error),
    #[error("the {what} has {len} bytes, the limit is {limit}; shorten it")]
    TooLong { what: &'static str, len: usize, limit: usize },
    #[error("the store is closed; open it again")]
    Closed,
    #[error("another writer held the file for {waited:?}; try again, or let it wait longer")]
    Busy { waited: Duration },
    #[error("{jobs} calls are queued already; await some of them, then try again")]
    QueueFull { jobs: usize },
    #[error("another process has the file locked; try again")]
    Locked(#[source] rusqlite::Error),
    #[error("a transaction on this file is open on this thread; write through it instead")]
    Nested,
    #[error("the disk is full; make room, then try again")]
    DiskFull(#[source] rusqlite::Error),
    #[error("all revisions are used up; export the store into a new file")]
    NoRevisionLeft,
    #[error("the file is damaged: {what}; restore a backup, or look closer with `watchkeep check`")]
    Corrupt { what: String },
    #[error("the file is damaged; restore a backup, or look closer with `watchkeep check`")]
    CorruptFile(#[source] rusqlite::Error),
    #[error("{path:?} is not a watchkeep store: {what}")]
    ForeignFile { path: PathBuf, what: String },
    #[error("{path:?} has format {found}, this release reads up to {known}; upgrade watchkeep")]
    NewerFormat { path: PathBuf, found: i64, known: i64 },
    #[error("{path:?} needs {word:?}, which this release does not know; upgrade watchkeep")]
    NewerFeature { path: PathBuf, word: String },
    #[error(
        "the group {group:?} was made by a newer release (flags {flags}), and this one neither reads nor writes in it; upgrade watchkeep"
    )]
    NewerGroup { group: String, flags: i64 },
    #[error(
        "{path:?} cannot be written, and a store writes even to be read; change its permissions or those of its folder, or copy it to where it can be: with `cp`, or from a read-only medium with `watchkeep restore`"
    )]
    ReadOnly { path: PathBuf },
    #[error("the file cannot be written; change its permissions or those of its folder")]
    ReadOnlyFile(#[source] rusqlite::Error),
    #[error("the cursor belongs to store {theirs}, this is {ours}; start again from a snapshot")]
    ForeignCursor { theirs: StoreId, ours: StoreId },
    #[error(
        "the event of the cursor {cursor} is not in this file: a power cut took it, or only another copy of the file has it; start again from a snapshot"
    )]
    LostCursor { cursor: Cursor },
    #[error("revision {revision} lies after the last one, {last}; name that or an earlier one")]
    Ahead { revision: Revision, last: Revision },
    #[error("{text:?} is no cursor; one looks like k3v9x2mq-4fz8ab-7")]
    BadCursor { text: String },
    #[error("{text:?} is no revision; one looks like 7")]
    BadRevision { text: String },
    #[error("the events from revision {} to {} are trimmed; what follows comes after them", .0.from, .0.to)]
    Lagged(Lagged),
    #[error("the snapshot is older than {limit:?}; take another, or raise its maximum age")]
    SnapshotTooOld { limit: Duration },
    #[error("the transaction gave up: {0}")]
    Aborted(#[source] Cause),
    #[error("the backup was given up, and nothing is left of it; make it again")]
    GivenUp,
    #[cfg(feature = "render")]
    #[error("the template is wrong: {what}")]
    Template {
        what: String,
        #[source]
        cause: minijinja::Error,
    },
    #[cfg(feature = "json")]
    #[error("group {group:?} key {key:?}: the value does not fit its JSON type")]
    Json {
        group: String,
        key: String,
        #[source]
        cause: serde_json::Error,
    },
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        cause: std::io::Error,
    },
    #[error("the file could not be used; {}", advice(.0))]
    Sqlite(#[source] rusqlite::Error),
    #[error("the commit failed half way, so it may or may not be in the file; read it back before going on")]
    UnknownOutcome(#[source] rusqlite::Error),
    #[cfg(feature = "etcd")]
    #[error("no member of the cluster answers ({said}); see that they are up, and can be reached")]
    Unreachable { said: String },
    #[cfg(feature = "etcd")]
    #[error("the cluster does not let us in ({said}); see to user, password and certificates")]
    Forbidden { said: String },
    #[cfg(feature = "etcd")]
    #[error(
        "there is no store under {prefix:?} in the cluster; create it by opening it for writing, or correct the address"
    )]
    NoStoreThere { prefix: String },
    #[cfg(feature = "etcd")]
    #[error(
        "the cluster has no space left, and takes no values; compact and defragment it, or raise its quota"
    )]
    ClusterFull,
    #[cfg(feature = "etcd")]
    #[error(
        "the cluster is almost full and takes no more values, so that deleting still works: a member uses {in_use} bytes, \
         in a file of {size}, of a quota of {quota}; delete what is not needed, compact the cluster, and defragment its \
         members; or raise their quota, and set WATCHKEEP_ETCD_QUOTA to it"
    )]
    ClusterTight { in_use: u64, size: u64, quota: u64 },
    #[cfg(feature = "etcd")]
    #[error(
        "the history of the cluster belongs to all who use it, and this store does not compact it; run `etcdctl compact`, \
         or, where nobody else needs that history, open the store with `Options::compaction(Compaction::Own)`"
    )]
    NotOurHistory,
    #[cfg(feature = "etcd")]
    #[error("what is asked for is compacted in the cluster; read what is there now")]
    HistoryGone,
    #[cfg(feature = "etcd")]
    #[error("it is too much for one transaction of the cluster ({said}); split it")]
    TooLargeForEtcd { said: String },
    #[cfg(feature = "etcd")]
    #[error(
        "the store was {what} in the cluster while it was open; close it, see to the cluster, and open it again"
    )]
    FeedReplaced { what: &'static str },
    #[cfg(feature = "etcd")]
    #[error(
        "the answer to a commit was lost ({said}), and whether it is made cannot be found out; read it back before going on"
    )]
    UnknownCommit { said: String },
    #[error(
        "the store is sealed ({why}); write where that says, or lift the seal with `watchkeep seal --lift`"
    )]
    Sealed { why: String },
    #[error(
        "an earlier write failed in a way that makes it unsafe to go on; close the store and open it again"
    )]
    Poisoned,
    #[error(
        "the store's own thread panicked, and nothing more is written; close the store and open it again"
    )]
    ThreadDied,
    #[error("the call panicked, and left nothing half done; see the panic's own message")]
    CallDied,
    #[error("{what} ended unexpectedly; close the store and open it again")]
    WorkerDied { what: &'static str },
}

fn advice(error: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::CannotOpen) => {
            "see that it is there, and that not too many files are open (ulimit -n)"
        }
        Some(ErrorCode::SystemIoFailure) => {
            "see that its disk works, and that it does not reach a limit of the file size (ulimit -f)"
        }
        Some(ErrorCode::OutOfMemory) => {
            "there is not enough memory; free some, or raise its limit (ulimit -v)"
        }
        _ => "see that it is a file of ours on a disk that works",
    }
}

fn conflict(current: &Option<Revision>) -> String {
    match current {
        Some(revision) => format!("is at revision {revision}"),
        None => "is not there".to_owned(),
    }
}

fn seal_found(found: &Option<String>) -> String {
    match found {
        Some(text) => format!("is sealed ({text})"),
        None => "is not sealed".to_owned(),
    }
}

fn fenced(by: &Option<String>) -> String {
    match by {
        Some(by) => format!("was taken over by {by:?}"),
        None => "was given back, reset or removed".to_owned(),
    }
}

impl Reason {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Reason::NoFile { .. }
            | Reason::Orphaned { .. }
            | Reason::NoFolder { .. }
            | Reason::NoConsumer { .. } => ErrorKind::NotFound,
            Reason::Held { .. } | Reason::Needed { .. } => ErrorKind::Held,
            Reason::Fenced { .. } => ErrorKind::Fenced,
            Reason::IsFolder { .. } | Reason::SpecialFile { .. } | Reason::ForeignFile { .. } => {
                ErrorKind::ForeignFile
            }
            Reason::Conflict { .. }
            | Reason::Unmet(_)
            | Reason::OtherSeal { .. }
            | Reason::WrittenMeanwhile { .. } => ErrorKind::Conflict,
            Reason::Quota(_) => ErrorKind::QuotaExceeded,
            Reason::BadNamespace { .. } | Reason::BadConsumer { .. } | Reason::BadClient { .. } => {
                ErrorKind::InvalidName
            }
            Reason::ScopedTwice { .. }
            | Reason::OtherBatch { .. }
            | Reason::HardLinks { .. }
            | Reason::MountedAlone { .. }
            | Reason::PathTooLong { .. }
            | Reason::Inherited { .. }
            | Reason::NetworkFileSystem { .. }
            | Reason::TargetExists { .. }
            | Reason::Invalid { .. }
            | Reason::Remote
            | Reason::BadDeadline
            | Reason::Ahead { .. }
            | Reason::BadCursor { .. }
            | Reason::BadRevision { .. } => ErrorKind::InvalidArgument,
            Reason::TooLarge { .. }
            | Reason::TooLong { .. }
            | Reason::BatchTooLarge { .. }
            | Reason::TooLargeForSqlite(_) => ErrorKind::TooLarge,
            Reason::Closed | Reason::Forked => ErrorKind::Closed,
            Reason::Busy { .. }
            | Reason::QueueFull { .. }
            | Reason::DueFirst
            | Reason::Locked(_)
            | Reason::InUse { .. } => ErrorKind::Busy,
            Reason::Nested => ErrorKind::Nested,
            Reason::DiskFull(_) | Reason::NoSpace { .. } | Reason::Tight | Reason::NoRevisionLeft => {
                ErrorKind::Full
            }
            Reason::Corrupt { .. } | Reason::CorruptFile(_) | Reason::BadBackup { .. } => ErrorKind::Corrupt,
            Reason::Replaced { .. } => ErrorKind::Replaced,
            Reason::NewerFormat { .. } | Reason::NewerFeature { .. } | Reason::NewerGroup { .. } => {
                ErrorKind::NewerFormat
            }
            Reason::ReadOnly { .. } | Reason::ReadOnlyFile(_) | Reason::CannotWrite { .. } => {
                ErrorKind::ReadOnly
            }
            Reason::ForeignCursor { .. } => ErrorKind::ForeignCursor,
            Reason::LostCursor { .. } => ErrorKind::LostCursor,
            Reason::Lagged(_) => ErrorKind::Lagged,
            Reason::SnapshotTooOld { .. } => ErrorKind::SnapshotTooOld,
            Reason::Aborted(_) | Reason::GivenUp => ErrorKind::Aborted,
            #[cfg(feature = "render")]
            Reason::Template { .. } => ErrorKind::Template,
            #[cfg(feature = "json")]
            Reason::Json { .. } => ErrorKind::Json,
            Reason::Io { .. }
            | Reason::Sqlite(_)
            | Reason::CannotOpen { .. }
            | Reason::OldSqlite { .. }
            | Reason::CallDied
            | Reason::WorkerDied { .. } => ErrorKind::Io,
            #[cfg(feature = "etcd")]
            Reason::Unreachable { .. } => ErrorKind::Unavailable,
            #[cfg(feature = "etcd")]
            Reason::Forbidden { .. } => ErrorKind::Forbidden,
            #[cfg(feature = "etcd")]
            Reason::NoStoreThere { .. } => ErrorKind::NotFound,
            #[cfg(feature = "etcd")]
            Reason::ClusterFull | Reason::ClusterTight { .. } => ErrorKind::Full,
            #[cfg(feature = "etcd")]
            Reason::NotOurHistory => ErrorKind::InvalidArgument,
            #[cfg(feature = "etcd")]
            Reason::HistoryGone => ErrorKind::SnapshotTooOld,
            #[cfg(feature = "etcd")]
            Reason::TooLargeForEtcd { .. } => ErrorKind::TooLarge,
            #[cfg(feature = "etcd")]
            Reason::FeedReplaced { .. } => ErrorKind::Replaced,
            #[cfg(feature = "etcd")]
            Reason::UnknownCommit { .. } => ErrorKind::UnknownOutcome,
            Reason::Sealed { .. } => ErrorKind::Sealed,
            Reason::Poisoned | Reason::ThreadDied => ErrorKind::Poisoned,
            Reason::UnknownOutcome(_) | Reason::LongAgo { .. } => ErrorKind::UnknownOutcome,
        }
    }
}
