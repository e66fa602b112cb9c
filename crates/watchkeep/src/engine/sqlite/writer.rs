//! The connection that writes: beginning against other processes, committing, and what a failed commit leaves behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use crate::types::error::{Reason, Result};
use crate::types::limits::{OTHERS_REMEMBERED, REST, REST_AFTER};
use crate::types::revision::Revision;

use super::connection::{self, Sync, nap};
use super::epochs::{self, Home};
use super::seal;

/// The connection that writes. Who holds it has the turn.
pub(super) struct Writer {
    pub(super) conn: Connection,
    /// A sync failed: what the file holds is unknown, and nothing more is acknowledged.
    poisoned: bool,
    courtesy: Courtesy,
    sync: Sync,
    /// The newest epoch of the file began in this boot, and is known.
    pub(super) has_entered: bool,
    /// The store closes: see `is_reaping`.
    is_closing: Arc<AtomicBool>,
    /// What comes next only removes what is due, which others can do: a close does not wait for it.
    pub(super) is_reaping: bool,
}

/// SQLite's lock knows no queue: whoever comes back at once wins against those who nap. So a process that sees others
/// write rests now and then.
struct Courtesy {
    /// The last revision after this process's last commit.
    last: Revision,
    /// When the last rest ended.
    rested: Instant,
    /// Others wrote not long ago: so many commits may still go by before that is forgotten.
    others: u32,
}

impl Courtesy {
    /// How long to let others go first.
    fn rest(&mut self) -> Duration {
        let now = Instant::now();
        if self.others == 0 || now.duration_since(self.rested) < REST_AFTER {
            return Duration::ZERO;
        }
        self.rested = now + REST;
        REST
    }

    /// A transaction began at `base` and ended at `last`.
    fn committed(&mut self, base: Revision, last: Revision) {
        self.others = if base == self.last { self.others.saturating_sub(1) } else { OTHERS_REMEMBERED };
        self.last = last;
    }
}

impl Writer {
    pub(super) fn new(conn: Connection, sync: Sync, is_closing: Arc<AtomicBool>) -> Writer {
        let courtesy = Courtesy { last: Revision::ZERO, rested: Instant::now(), others: 0 };
        Writer { conn, poisoned: false, courtesy, sync, has_entered: false, is_closing, is_reaping: false }
    }

    pub(super) fn run(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(drop)
    }

    /// Begins a transaction, waiting for other processes until the deadline.
    pub(super) fn begin(&mut self, queued: Instant, timeout: Duration) -> Result<()> {
        if self.poisoned {
            return Err(Reason::Poisoned.into());
        }
        let is_reaping = std::mem::take(&mut self.is_reaping);
        let patience = || match is_reaping && self.is_closing.load(Ordering::Acquire) {
            true => Duration::ZERO,
            false => timeout,
        };
        let rest = self.courtesy.rest();
        if !rest.is_zero() {
            nap(rest);
        }
        connection::begin(&self.conn, queued, patience)
    }

    /// A transaction of the store's own, which announces nothing.
    pub(super) fn transaction<T>(
        &mut self,
        queued: Instant,
        timeout: Duration,
        f: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        self.begin(queued, timeout)?;
        let result = f(&self.conn);
        if result.is_ok() {
            self.commit()?;
        }
        self.roll_back();
        result
    }

    pub(super) fn commit(&mut self) -> Result<()> {
        let Err(error) = self.run("COMMIT") else { return Ok(()) };
        self.roll_back();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy) => Err(error.into()),
            _ => {
                self.poisoned = true;
                tracing::error!(%error, "a commit failed; nothing more is written through this handle");
                Err(Reason::UnknownOutcome(error).into())
            }
        }
    }

    /// Notes a commit that began at `base` and ended at `last`.
    pub(super) fn committed(&mut self, base: Revision, last: Revision) {
        self.courtesy.committed(base, last);
    }

    /// Begins an epoch before the first write of a boot, in a transaction of its own that is synced: no revision is given
    /// in an epoch that a power cut can take. Whether the newest is ours now, which it is not where the file is sealed.
    pub(super) fn enter_epoch(&mut self, home: &Home, queued: Instant, timeout: Duration) -> Result<bool> {
        if home.is_of_newest(&self.conn)? {
            return Ok(true);
        }
        // Without waiting for others, and without a sync.
        if seal::text(&self.conn)?.is_some() {
            return Ok(false);
        }
        self.synced(|writer| writer.transaction(queued, timeout, |conn| epochs::enter(conn, home)))
    }

    /// Does something that is synced at either durability.
    pub(super) fn synced<T>(&mut self, f: impl FnOnce(&mut Writer) -> Result<T>) -> Result<T> {
        self.run(Sync::Full.pragma())?;
        let done = f(self);
        self.run(self.sync.pragma())?;
        done
    }

    pub(super) fn roll_back(&self) {
        if !self.conn.is_autocommit() {
            // What fails here fails again, and is reported, at the next BEGIN.
            drop(self.run("ROLLBACK"));
        }
    }
}
