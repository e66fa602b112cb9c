//! One public error, whose kind says what the caller can do; the reasons behind it stay private.

use std::error::Error as StdError;
use std::fmt;

use super::batch::Unmet;
use super::event::Lagged;
use super::quota::QuotaExceeded;
use super::revision::Revision;

pub(crate) use super::reason::Reason;

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
    /// The file, or the group, was written by a newer release: upgrade.
    NewerFormat,
    /// The file cannot be written: change its permissions.
    ReadOnly,
    /// The file was replaced or removed while the store was open: close the store, and open it again.
    Replaced,
    /// The cursor belongs to another store, or to this one before it was restored: start from a snapshot.
    ForeignCursor,
    /// The event of the cursor is not in this store: a power cut took it, or only another copy of the file has it. Start
    /// from a snapshot.
    LostCursor,
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
    /// No member of the cluster answers: see that it is up, and try again.
    Unavailable,
    /// The cluster does not let us in: see to user, password and certificates.
    Forbidden,
    /// The store is sealed, and its text says why: write where it has gone, or lift the seal.
    Sealed,
    /// It is not known whether the write is in the file: read it back, or write with a condition.
    UnknownOutcome,
    /// A write, or what is done for the store in the background, failed in a way that makes it unsafe to go on: close the store, and open it
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
    (ErrorKind::LostCursor, 2, 409),
    (ErrorKind::Lagged, 1, 410),
    (ErrorKind::SnapshotTooOld, 1, 410),
    (ErrorKind::Aborted, 1, 409),
    (ErrorKind::Template, 1, 422),
    (ErrorKind::Json, 1, 422),
    (ErrorKind::Io, 1, 500),
    (ErrorKind::Unavailable, 1, 503),
    (ErrorKind::Forbidden, 1, 500),
    (ErrorKind::Sealed, 4, 403),
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
