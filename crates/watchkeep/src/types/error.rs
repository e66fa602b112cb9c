//! One public error, whose kind says what the caller can do; the reasons behind it stay private.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::batch::Unmet;
use super::event::Lagged;
use super::quota::QuotaExceeded;
use super::revision::{Revision, StoreId};

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and what to do about it.
///
/// The text is one sentence with the next step; [`kind`](Error::kind) is for programs, and
/// [`source`](StdError::source) leads to the cause.
///
/// ```
/// use watchkeep::{ErrorKind, SetOptions, Store};
/// let store = Store::open_in_memory()?;
/// let revision = store.set("config", "theme", "dark")?;
/// let refused = store.set_with("config", "theme", "light", SetOptions::new().if_absent()).unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Conflict);
/// assert_eq!(refused.current_revision(), Some(revision));
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Clone)]
pub struct Error(std::sync::Arc<Reason>);

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The file, or the consumer, is not there: create it, or correct the name.
    NotFound,
    /// A condition (`if_absent`, `if_revision`) did not hold: read again and decide.
    Conflict,
    /// A quota of the namespace is used up: delete something, or raise it.
    QuotaExceeded,
    /// A named consumer is held by another, or still needs the events: wait for it, or take it by force.
    Held,
    /// The consumer is not ours any more, for another took it, or it was reset or removed: take it again.
    Fenced,
    /// A name is not allowed: choose another.
    InvalidName,
    /// An option or an argument makes no sense: correct the call.
    InvalidArgument,
    /// A name, a value, a content type or a label is longer than the limits allow.
    TooLarge,
    /// The store was closed, or belongs to the process before a fork: open it again.
    Closed,
    /// Another writer held the file for too long, or too many writes are queued: try again.
    Busy,
    /// A write from inside a transaction's closure that does not go through it: use the transaction.
    Nested,
    /// The disk, or the range of revisions, is full: make room.
    Full,
    /// The file is damaged: restore a backup.
    Corrupt,
    /// The file is not a store: choose another, or import it.
    ForeignFile,
    /// The file was written by a newer release: upgrade.
    NewerFormat,
    /// The file cannot be written: change its permissions.
    ReadOnly,
    /// The file was replaced or removed while the store was open: close the store, and open it again.
    Replaced,
    /// The cursor belongs to another store, to this one before it was restored, or to commits that a power cut took:
    /// start from a snapshot.
    ForeignCursor,
    /// Retention has trimmed events that the reader still needed: it goes on after them.
    Lagged,
    /// A snapshot was held longer than its maximum age: take another.
    SnapshotTooOld,
    /// The closure of a transaction, or the progress of a backup, gave up, and nothing was written.
    Aborted,
    /// A template is wrong, or names something that is not there.
    Template,
    /// A typed value could not be turned into JSON or back.
    Json,
    /// The operating system refused something: see the source.
    Io,
    /// It is not known whether the write is in the file: read it back, or write with a condition.
    UnknownOutcome,
    /// A write, or the store's own thread, failed in a way that makes it unsafe to go on: close the store, and open it
    /// again. Until then nothing is written; reads go on.
    Poisoned,
}

/// The table of kinds: exit code of the command line, HTTP status.
const TABLE: &[(ErrorKind, u8, u16)] = &[
    (ErrorKind::NotFound, 3, 404),
    (ErrorKind::Conflict, 4, 412),
    (ErrorKind::QuotaExceeded, 4, 507),
    (ErrorKind::Held, 4, 423),
    (ErrorKind::Fenced, 4, 409),
    (ErrorKind::InvalidName, 2, 400),
    (ErrorKind::InvalidArgument, 2, 400),
    (ErrorKind::TooLarge, 2, 413),
    (ErrorKind::Closed, 1, 503),
    (ErrorKind::Busy, 1, 503),
    (ErrorKind::Nested, 1, 500),
    (ErrorKind::Full, 1, 507),
    (ErrorKind::Corrupt, 5, 500),
    (ErrorKind::ForeignFile, 5, 500),
    (ErrorKind::NewerFormat, 5, 500),
    (ErrorKind::ReadOnly, 1, 403),
    (ErrorKind::Replaced, 1, 503),
    (ErrorKind::ForeignCursor, 2, 409),
    (ErrorKind::Lagged, 1, 410),
    (ErrorKind::SnapshotTooOld, 1, 410),
    (ErrorKind::Aborted, 1, 409),
    (ErrorKind::Template, 1, 422),
    (ErrorKind::Json, 1, 422),
    (ErrorKind::Io, 1, 500),
    (ErrorKind::UnknownOutcome, 1, 500),
    (ErrorKind::Poisoned, 1, 503),
];

impl ErrorKind {
    /// The exit code that the command line ends with.
    pub fn exit_code(self) -> u8 {
        self.row().1
    }

    /// The HTTP status that a server answers with.
    pub fn http_status(self) -> u16 {
        self.row().2
    }

    fn row(self) -> (ErrorKind, u8, u16) {
        TABLE.iter().copied().find(|row| row.0 == self).unwrap_or((self, 1, 500))
    }
}

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
    #[error("the disk of {path:?} has {free} bytes free, {needed} are needed; make room, then try again")]
    NoSpace { path: PathBuf, free: u64, needed: u64 },
    #[error("the disk is full, and nothing is set until it has room again; delete and compact, or make room")]
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
    #[error(
        "{} of the batch's conditions do not hold ({}); read again and decide",
        .0.len(), .0.iter().take(TOLD).map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    Unmet(Vec<Unmet>),
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
        "the consumer {name:?} is held by {holder:?} for another {left:?}; wait for it, or take it by force"
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
    #[error(
        "{path:?} cannot be written, and a store writes even to be read; change its permissions or those of its folder, or copy it to where it can be: with `cp`, or from a read-only medium with `watchkeep restore`"
    )]
    ReadOnly { path: PathBuf },
    #[error("the file cannot be written; change its permissions or those of its folder")]
    ReadOnlyFile(#[source] rusqlite::Error),
    #[error("the cursor belongs to store {theirs}, this is {ours}; start again from a snapshot")]
    ForeignCursor { theirs: StoreId, ours: StoreId },
    #[error(
        "revision {revision} may have been lost in a power cut: the store went on from {after} at {next}; start again from a snapshot"
    )]
    LostRevision { revision: Revision, after: Revision, next: Revision },
    #[error("revision {revision} lies after the last one, {last}; name that or an earlier one")]
    Ahead { revision: Revision, last: Revision },
    #[error("{text:?} is no cursor; it looks like k3v9x2mq-7, or is a bare revision like 7")]
    BadCursor { text: String },
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

fn fenced(by: &Option<String>) -> String {
    match by {
        Some(by) => format!("was taken over by {by:?}"),
        None => "was given back, reset or removed".to_owned(),
    }
}

impl Reason {
    fn kind(&self) -> ErrorKind {
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
            Reason::Conflict { .. } | Reason::Unmet(_) => ErrorKind::Conflict,
            Reason::Quota(_) => ErrorKind::QuotaExceeded,
            Reason::BadNamespace { .. } | Reason::BadConsumer { .. } => ErrorKind::InvalidName,
            Reason::ScopedTwice { .. }
            | Reason::HardLinks { .. }
            | Reason::MountedAlone { .. }
            | Reason::PathTooLong { .. }
            | Reason::NetworkFileSystem { .. }
            | Reason::TargetExists { .. }
            | Reason::Invalid { .. }
            | Reason::BadDeadline
            | Reason::Ahead { .. }
            | Reason::BadCursor { .. } => ErrorKind::InvalidArgument,
            Reason::TooLarge { .. }
            | Reason::TooLong { .. }
            | Reason::BatchTooLarge { .. }
            | Reason::TooLargeForSqlite(_) => ErrorKind::TooLarge,
            Reason::Closed | Reason::Forked => ErrorKind::Closed,
            Reason::Busy { .. } | Reason::QueueFull { .. } | Reason::Locked(_) | Reason::InUse { .. } => {
                ErrorKind::Busy
            }
            Reason::Nested => ErrorKind::Nested,
            Reason::DiskFull(_) | Reason::NoSpace { .. } | Reason::Tight | Reason::NoRevisionLeft => {
                ErrorKind::Full
            }
            Reason::Corrupt { .. } | Reason::CorruptFile(_) | Reason::BadBackup { .. } => ErrorKind::Corrupt,
            Reason::Replaced { .. } => ErrorKind::Replaced,
            Reason::NewerFormat { .. } => ErrorKind::NewerFormat,
            Reason::ReadOnly { .. } | Reason::ReadOnlyFile(_) | Reason::CannotWrite { .. } => {
                ErrorKind::ReadOnly
            }
            Reason::ForeignCursor { .. } | Reason::LostRevision { .. } => ErrorKind::ForeignCursor,
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
            Reason::Poisoned | Reason::ThreadDied => ErrorKind::Poisoned,
            Reason::UnknownOutcome(_) => ErrorKind::UnknownOutcome,
        }
    }
}

impl Error {
    /// Gives up a transaction: nothing is written, and `transaction` returns this error, of kind
    /// [`Aborted`](ErrorKind::Aborted), with the cause as its source.
    ///
    /// ```
    /// use watchkeep::{Error, ErrorKind, Store};
    /// let store = Store::open_in_memory()?;
    /// let refused = store.transaction(|tx| {
    ///     tx.set("account", "alice", "-5")?;
    ///     Err::<(), _>(Error::abort("not enough money"))
    /// });
    /// assert_eq!(refused.unwrap_err().kind(), ErrorKind::Aborted);
    /// assert!(store.get("account", "alice")?.is_none());
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    pub fn abort(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Reason::Aborted(cause.into()).into()
    }

    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind()
    }

    /// Of a [`Conflict`](ErrorKind::Conflict): the revision that the entry has now, or none when it is not there.
    pub fn current_revision(&self) -> Option<Revision> {
        match &*self.0 {
            Reason::Conflict { current, .. } => *current,
            _ => None,
        }
    }

    /// Of a [`Conflict`](ErrorKind::Conflict) of a [`Batch`](crate::Batch): all conditions that did not hold.
    pub fn unmet(&self) -> &[Unmet] {
        match &*self.0 {
            Reason::Unmet(unmet) => unmet,
            _ => &[],
        }
    }

    /// Of a [`Lagged`](ErrorKind::Lagged): which revisions are lost.
    pub fn lagged(&self) -> Option<Lagged> {
        match &*self.0 {
            Reason::Lagged(lagged) => Some(*lagged),
            _ => None,
        }
    }

    /// Of a [`QuotaExceeded`](ErrorKind::QuotaExceeded): which limit of which namespace.
    pub fn quota_exceeded(&self) -> Option<&QuotaExceeded> {
        match &*self.0 {
            Reason::Quota(exceeded) => Some(exceeded),
            _ => None,
        }
    }

    pub(crate) fn reason(&self) -> &Reason {
        &self.0
    }
}

impl From<Reason> for Error {
    fn from(reason: Reason) -> Error {
        Error(std::sync::Arc::new(reason))
    }
}

/// Whether a column holds what we never write there.
fn is_misfit(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as Sqlite;
    matches!(
        error,
        Sqlite::InvalidColumnType(..)
            | Sqlite::FromSqlConversionFailure(..)
            | Sqlite::IntegralValueOutOfRange(..)
            | Sqlite::Utf8Error(..)
            | Sqlite::QueryReturnedNoRows
            | Sqlite::SqlInputError { .. }
    )
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        use rusqlite::ErrorCode;
        let reason = match error.sqlite_error_code() {
            // The last: others opened or recovered the file in each of many tries.
            Some(
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed,
            ) => Reason::Locked(error),
            Some(ErrorCode::TooBig) => Reason::TooLargeForSqlite(error),
            Some(ErrorCode::DiskFull) => Reason::DiskFull(error),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Reason::CorruptFile(error),
            Some(ErrorCode::ReadOnly) => Reason::ReadOnlyFile(error),
            // Our SQL is constant: what does not fit it is a file whose tables or rows are not what we wrote.
            Some(ErrorCode::Unknown | ErrorCode::TypeMismatch | ErrorCode::ConstraintViolation) => {
                Reason::CorruptFile(error)
            }
            None if is_misfit(&error) => Reason::CorruptFile(error),
            _ => Reason::Sqlite(error),
        };
        reason.into()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error").field("kind", &self.kind()).field("reason", &self.0).finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_word_and_leads_to_its_cause() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        let error = Error::abort("no");
        assert_eq!(error.kind(), ErrorKind::Aborted);
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("no"));
    }

    #[test]
    fn what_sqlite_says_becomes_what_a_caller_can_do() {
        use rusqlite::ffi;
        let told = |code| Error::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        for (code, kind, word) in [
            (ffi::SQLITE_BUSY, ErrorKind::Busy, "try again"),
            (ffi::SQLITE_PROTOCOL, ErrorKind::Busy, "try again"),
            (ffi::SQLITE_FULL, ErrorKind::Full, "make room"),
            (ffi::SQLITE_TOOBIG, ErrorKind::TooLarge, "smaller"),
            (ffi::SQLITE_NOMEM, ErrorKind::Io, "memory"),
            (ffi::SQLITE_IOERR, ErrorKind::Io, "ulimit -f"),
            (ffi::SQLITE_CORRUPT, ErrorKind::Corrupt, "backup"),
            (ffi::SQLITE_READONLY, ErrorKind::ReadOnly, "permissions"),
        ] {
            let error = told(code);
            assert!(error.kind() == kind && error.to_string().contains(word), "{code}: {error:?} {error}");
        }
    }

    #[test]
    fn every_kind_stands_in_the_table_once() {
        for (row, (kind, exit, status)) in TABLE.iter().enumerate() {
            assert!((1..=5).contains(exit) && (400..600).contains(status), "{kind:?}");
            assert_eq!(TABLE.iter().position(|other| other.0 == *kind), Some(row), "{kind:?} stands twice");
        }
        assert_eq!(TABLE.len(), ErrorKind::Poisoned as usize + 1, "a kind is missing");
    }
}
