//! The engine on one SQLite file.

mod answers;
mod backup;
mod ballast;
mod check;
mod columns;
mod connection;
mod consumers;
mod counters;
mod due;
mod entries;
mod epochs;
mod guard;
mod image;
mod inherited;
mod lead;
mod log;
mod maintain;
mod open;
mod past;
mod place;
mod pool;
mod read;
mod repair;
mod restore;
mod retention;
mod rows;
mod schema;
mod seal;
mod seats;
mod tally;
mod wake;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::feed::Feed;
use super::floors::Floors;
use super::lead::{Own, OwnDone};
use super::nesting::{self, FileKey};
use super::upkeep::Upkeep;
use super::{
    Answer, Ask, Chores, Close, Completion, Engine, Expected, File, Found, Held, Query, Receipt, Sealed,
    Settled, Transact, Wait, Whole, mixed_up,
};
use crate::driver::{Lane, Signal};
use crate::engine::turn::{self, Admission, Turn};
use crate::rules::{Author, Work, Write};
use crate::types::backup::{Backup, BackupOptions};
use crate::types::clock::{Clock, Timestamp};
use crate::types::consumer::Force;
use crate::types::error::{Error, ErrorKind, Reason, Result};
use crate::types::limits::{
    LAST_REAP, Limits, MIN_FREE, POLL, TRIM_STEP, UPKEEP_PATIENCE, WRITER_CACHE_PARTS,
};
use crate::types::name::NameRange;
use crate::types::options::{Durability, Options, Waking};
use crate::types::quota::Quota;
use crate::types::revision::{Cursor, Revision, StoreId};
use crate::types::sync::caught;

use ballast::Ballast;
use connection::{Cache, WalLength};
use epochs::Home;
use guard::Guard;
use pool::Pool;
use wake::Wake;
use writer::Writer;

pub(crate) use image::Image;
pub(crate) use restore::restore;

/// The engine on one SQLite file.
pub(crate) struct SqliteEngine {
    path: PathBuf,
    id: StoreId,
    durability: Durability,
    file: FileKey,
    /// Dropped with the last connection.
    _opened: inherited::Opened,
    limits: Limits,
    clock: Arc<dyn Clock>,
    busy_timeout: Duration,
    snapshot_age: Duration,
    turn: Turn<Writer>,
    pool: Pool,
    feed: Feed,
    floors: Arc<Floors>,
    signal: Arc<Signal>,
    wal: Arc<WalLength>,
    /// Wakes other processes, and is woken by them.
    wake: Wake,
    home: Home,
    epochs: epochs::Known,
    /// The earliest deadline that expiry knows of, in milliseconds.
    next_deadline: AtomicI64,
    /// The revision at which the log is looked at for trimming again.
    next_trim: AtomicU64,
    upkeep: Upkeep,
    /// What only removes what is due waits for nobody from now on.
    is_closing: Arc<AtomicBool>,
    is_poisoned: AtomicBool,
    guard: Arc<Guard>,
    ballast: Ballast,
}

impl SqliteEngine {
    /// Opens a file. The signal is raised when there is something to do for it in the background.
    pub(crate) fn open(path: &Path, options: &Options, signal: Arc<Signal>) -> Result<SqliteEngine> {
        // An absolute path is never taken for a URI, nor for one of SQLite's special names.
        let failed = |cause| Reason::Io { what: format!("{path:?} is no path of a file; name one"), cause };
        let path = &*std::path::absolute(path).map_err(failed)?;
        make_room(path, options)?;
        let open::Opened { mut conn, identity, file } = open::open(path, options)?;
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let sync = open::sync_of(identity.durability);
        let wal = Arc::new(WalLength::default());
        let writing = options.page_cache / WRITER_CACHE_PARTS;
        connection::writer(&mut conn, sync, Cache::new(writing), wal.clone())?;
        let wake = Wake::new(&path, signal.clone());
        wake.enter()?;
        let guard = Arc::new(Guard::of(&path, file.clone())?);
        // It may have waited long for others, who put another file there meanwhile.
        guard.same_file()?;
        let ballast = Ballast::of(&path, options.ballast);
        let reading = options.page_cache.saturating_sub(writing);
        let home = Home::of(&path, options.boot_id.as_deref());
        let epochs = epochs::Known::at(&conn)?;
        // Also where others released it: nothing may be set that uses up what they gave back.
        ballast.keep();
        let is_closing = Arc::new(AtomicBool::new(false));
        Ok(SqliteEngine {
            id: identity.id,
            durability: identity.durability,
            _opened: inherited::Opened::note(file.clone()),
            file,
            limits: options.limits,
            clock: options.clock.clone(),
            busy_timeout: options.busy_timeout,
            snapshot_age: options.snapshot_age,
            turn: Turn::new(Writer::new(conn, sync, is_closing.clone()), signal.clone()),
            pool: Pool::new(path.clone(), sync, reading, options.clock.clone(), guard.clone()),
            feed: Feed::default(),
            floors: Arc::default(),
            signal,
            wal,
            wake,
            home,
            epochs,
            next_deadline: AtomicI64::new(i64::MAX),
            next_trim: AtomicU64::new(0),
            upkeep: Upkeep::default(),
            is_closing,
            is_poisoned: AtomicBool::new(false),
            guard,
            ballast,
            path,
        })
    }

    /// A writer looks at its files only now and then; in between it asks what is known, which costs 1 % of a relaxed set.
    fn may_write(&self) -> Result<()> {
        self.ballast.want();
        if self.ballast.is_tight() {
            // There may be room again by now.
            self.ballast.keep();
        }
        if self.guard.is_due() { self.stand() } else { self.guard.known() }
    }

    /// What is the first to find the disk full is tried again: by then the ballast is given back, and what frees room
    /// can be done.
    fn with_ballast<T>(&self, mut f: impl FnMut() -> Result<T>) -> Result<T> {
        let before = self.ballast.is_tight();
        match f() {
            Err(error) if error.kind() == ErrorKind::Full && !before && self.ballast.is_tight() => f(),
            done => done,
        }
    }

    /// Notices a full disk: what is freed for deleting must not be filled by others first.
    fn notice(&self, error: &Error) {
        if matches!(error.reason(), Reason::DiskFull(_)) {
            self.ballast.release();
            self.upkeep.want();
            self.signal.raise(Lane::Work);
        }
    }

    /// After a commit: wakes who has to look earlier than it meant to.
    fn note(&self, earliest: Option<Timestamp>, last: Revision) {
        let sooner = earliest.is_some_and(|at| {
            self.next_deadline.fetch_min(at.as_millis(), Ordering::Relaxed) > at.as_millis()
        });
        if self.wal.wants_moving() || last.get() >= self.next_trim.load(Ordering::Relaxed) {
            self.next_trim.store(last.get() + TRIM_STEP / 2, Ordering::Relaxed);
            self.upkeep.want();
            self.signal.raise(Lane::Work);
        }
        if sooner {
            self.signal.raise(Lane::Vital);
        }
    }

    /// Commits some of what was submitted and not taken along by others; since when it waits, if there was any, and
    /// whether another process has the file.
    fn lead_background(&self, settled: &mut Settled) -> Option<(Instant, bool)> {
        let (writer, queued) = self.turn.lead_for_background(settled)?;
        let led = self.lead(writer, Own::Others, queued, settled);
        let is_busy = led.as_ref().is_err_and(|error| error.kind() == ErrorKind::Busy);
        if let Err(error) = led
            && !is_busy
        {
            tracing::warn!(%error, "writes in the background could not be committed");
        }
        Some((queued, is_busy))
    }

    /// Announces what is due when the store closes: where only short commands use the file, none of them stays until the
    /// background gets to it. Only as far as that takes a moment, and nobody else holds the file.
    ///
    /// Gives the connection back, which goes through the turn meanwhile.
    fn reap_at_last(&self, mut writer: Writer, settled: &mut Settled) -> Option<Writer> {
        let (begun, groups) = (Instant::now(), NameRange::prefix(""));
        let reap = Write { author: Author::default(), work: Work::Reap { groups: groups.clone() } };
        // A clock of the user's may panic, and a close must come to its end.
        let due = || caught(|| self.pool.for_upkeep(|conn| due::is_there(conn, &groups, self.clock.now())));
        while begun.elapsed() < LAST_REAP && matches!(due(), Some(Ok(true))) {
            writer.is_reaping = true;
            let done = caught(|| self.lead(writer, Own::Write(&reap), begun, settled));
            writer = self.turn.close()?;
            if !matches!(done, Some(Ok(_))) {
                tracing::debug!("what is due is left to the next to open the file");
                break;
            }
        }
        Some(writer)
    }

    /// Refuses new writes, commits those that wait, and lets go of what writes.
    fn seal(&self, settled: &mut Settled) {
        if self.ballast.is_tight() {
            // What was deleted makes room before this process goes, as far as that takes no longer than a write may.
            let (begun, patience) = (Instant::now(), self.busy_timeout);
            while begun.elapsed() < patience && self.maintenance_step(patience).unwrap_or(false) {}
        }
        self.turn.refuse(settled);
        self.is_closing.store(true, Ordering::Release);
        // Not where the file must not be written any more, nor while this thread has it.
        let may_reap = !self.is_poisoned.load(Ordering::Acquire) && self.refuse_nested().is_ok();
        let reap = |writer, settled: &mut Settled| match may_reap {
            true => self.reap_at_last(writer, settled),
            false => Some(writer),
        };
        loop {
            while self.lead_background(settled).is_some() {}
            if let Some(writer) = self.turn.close().and_then(|writer| reap(writer, settled)) {
                // The last connection to go moves the write-ahead log into the file; the readers' are still there.
                if self.guard.is_lost() {
                    connection::forget(writer.conn);
                    self.guard.clear_the_way();
                }
                self.wake.leave();
                return;
            }
        }
    }

    /// Refuses writes on a thread that is inside a transaction's closure on the same file, through whatever engine.
    fn refuse_nested(&self) -> Result<()> {
        nesting::refuse(&self.file)
    }

    fn commit(&self, write: &Write, settled: &mut Settled) -> Result<Receipt> {
        let queued = Instant::now();
        match self.turn.enter(|| Some(write.clone()), self.busy_timeout)? {
            Admission::Done(result) => result,
            Admission::Lead(mut writer) => {
                writer.is_reaping = matches!(write.work, Work::Reap { .. });
                match self.lead(writer, Own::Write(write), queued, settled)? {
                    OwnDone::Write(receipt) => Ok(receipt),
                    OwnDone::Closure(_) | OwnDone::Others => Err(mixed_up()),
                }
            }
        }
    }
}

/// Refuses a disk that is too full to open a file on, having given back what the store kept for that.
fn make_room(path: &Path, options: &Options) -> Result<()> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if !place::has_room(&path) {
        Ballast::of(&path, options.ballast).release();
    }
    place::need_room(&path, MIN_FREE)
}

impl File for SqliteEngine {
    fn path(&self) -> &Path {
        &self.path
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn sizes(&self) -> (u64, u64) {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        (size(&self.path), size(&place::beside(&self.path, place::WAL)))
    }

    fn stand(&self) -> Result<()> {
        self.guard.known()?;
        match self.guard.look() {
            // While the store closes, its companions go.
            Some(lost) if !self.turn.is_closed() => Err(self.guard.lose(lost)),
            _ => Ok(()),
        }
    }

    fn hears_others(&self) -> bool {
        self.wake.tend()
    }

    fn is_untouched(&self) -> bool {
        self.guard.is_untouched()
    }

    fn waking(&self) -> Waking {
        if self.wake.listens() { Waking::Signal } else { Waking::Poll }
    }
}

impl Ask for SqliteEngine {
    fn ask(&self, query: &Query<'_>) -> Result<Answer> {
        self.pool.ask(query)
    }
}

impl Engine for SqliteEngine {
    fn id(&self) -> StoreId {
        self.id
    }

    fn cursor(&self, revision: Revision) -> Cursor {
        if let Some(cursor) = self.epochs.cursor(self.id, revision) {
            return cursor;
        }
        let look = || self.pool.for_upkeep(|conn| self.epochs.look_again(conn));
        // The second time on another connection.
        if let Err(error) = look().or_else(|_| look()) {
            tracing::warn!(%error, %revision, "the epochs could not be read; a cursor is given that will be refused");
        }
        self.epochs.last_cursor(self.id, revision)
    }

    fn file(&self) -> Option<&dyn File> {
        Some(self)
    }

    fn chores(&self) -> Option<&dyn Chores> {
        Some(self)
    }

    fn whole(&self) -> Option<&dyn Whole> {
        Some(self)
    }

    fn distance(&self, from: Revision, to: Revision) -> u64 {
        to.get().saturating_sub(from.get())
    }

    fn write(&self, write: Write, settled: &mut Settled) -> Result<Receipt> {
        self.refuse_nested()?;
        self.with_ballast(|| self.commit(&write, settled))
    }

    fn transact(
        &self,
        author: &Author,
        f: &mut dyn FnMut(&dyn Transact) -> Result<()>,
        settled: &mut Settled,
    ) -> Result<Sealed> {
        self.refuse_nested()?;
        let queued = Instant::now();
        match self.turn.enter(|| None, self.busy_timeout)? {
            Admission::Done(result) => Err(result.err().unwrap_or_else(mixed_up)),
            Admission::Lead(writer) => {
                match self.lead(writer, Own::Closure { author, f }, queued, settled)? {
                    OwnDone::Closure(sealed) => Ok(sealed),
                    OwnDone::Write(_) | OwnDone::Others => Err(mixed_up()),
                }
            }
        }
    }

    fn submit(&self, write: Write, done: Completion) {
        match self.refuse_nested() {
            Ok(()) => self.turn.submit(write, self.busy_timeout, done),
            // At once: whoever waited for it inside the closure would hold up who completes it.
            Err(error) => done(Err(error)),
        }
    }

    fn settle(&self, settled: &mut Settled) -> Option<Duration> {
        let led = self.lead_background(settled);
        match led {
            Some((_, false)) => self.turn.has_background().then_some(Duration::ZERO),
            // Whoever leads raises the signal when it passes the turn; should it take long, some are overdue by then.
            None => self.turn.has_background().then_some(POLL),
            Some((queued, true)) => self.turn.has_background().then(|| turn::retry(queued.elapsed())),
        }
    }

    fn has_vital(&self) -> bool {
        self.turn.has_vital()
    }

    fn hold(&self) -> Result<Held> {
        Ok(self.pool.hold(self.snapshot_age)?)
    }

    fn feed(&self) -> &Feed {
        &self.feed
    }

    fn may_wait(&self, what_for: Wait) -> Result<()> {
        if self.guard.is_forked() {
            return Err(Reason::Forked.into());
        }
        match what_for {
            Wait::Commit => self.refuse_nested(),
            Wait::Turn => nesting::refuse_turn(self.turn.address()),
        }
    }

    fn close(&self, how: Close<'_>, settled: &mut Settled) {
        match how {
            Close::Poisoned(error) => {
                self.is_poisoned.store(true, Ordering::Release);
                self.turn.poison(error, settled);
            }
            Close::Writes => self.seal(settled),
            Close::Reads => self.pool.close(),
        }
    }
}

impl Chores for SqliteEngine {
    fn next_deadline(&self) -> Result<Option<Timestamp>> {
        // Forgotten first: a deadline that is set while we look raises the signal.
        self.next_deadline.store(i64::MAX, Ordering::Relaxed);
        let (id, newer, next) = self.pool.for_upkeep(|conn| {
            let newer = open::newer_feature(conn, &self.path)?;
            Ok((open::identity(conn)?, newer, read::next_deadline(conn)?))
        })?;
        if let Some(newer) = newer {
            // Another process is of a newer release, and did what this one must not write beside.
            return Err(self.guard.lose(newer));
        }
        if id != self.id {
            // Its inode is the same, so a look at it tells nothing.
            return Err(self
                .guard
                .lose(Reason::Replaced { path: self.path.clone(), what: guard::OVERWRITTEN }));
        }
        if let Some(next) = next {
            self.next_deadline.fetch_min(next.as_millis(), Ordering::Relaxed);
        }
        Ok(next)
    }

    fn maintain(&self) -> Result<bool> {
        if !self.upkeep.is_due() {
            return Ok(false);
        }
        match self.maintenance_step(UPKEEP_PATIENCE.min(self.busy_timeout)) {
            // The next round is soon enough.
            Err(error) if error.kind() == ErrorKind::Busy => {
                self.upkeep.want();
                Ok(false)
            }
            done => done.inspect_err(|error| self.notice(error)),
        }
    }

    fn floors(&self) -> &Arc<Floors> {
        &self.floors
    }

    fn trim(&self, before: Revision, force: Force) -> Result<u64> {
        self.refuse_nested()?;
        let to = Revision::new(before.get().saturating_sub(1));
        self.with_ballast(|| self.trim_to(to, force).inspect_err(|error| self.notice(error)))
    }
}

impl Whole for SqliteEngine {
    fn check(&self) -> Result<(Vec<String>, [u64; 3])> {
        self.pool.for_upkeep(check::check)
    }

    fn repair(&self) -> Result<Vec<String>> {
        self.refuse_nested()?;
        self.exclusively(self.busy_timeout, repair::counters).inspect_err(|error| self.notice(error))
    }

    fn change_seal(&self, expected: Option<&Expected<'_>>, to: Option<&str>) -> Result<Found> {
        self.under_seal(|conn| {
            let found = Found { text: seal::text(conn)?, last: log::end(conn)?.0 };
            found.meets(expected)?;
            to.map_or_else(|| seal::lift(conn), |why| seal::put(conn, why))?;
            Ok(found)
        })
    }

    fn sealed(&self) -> Result<Option<String>> {
        self.pool.with(seal::text)
    }

    fn quotas(&self) -> Result<Vec<(String, Quota)>> {
        self.pool.with(counters::quotas)
    }

    fn backup(&self, target: &Path, options: &mut BackupOptions) -> Result<Backup> {
        self.pool.for_upkeep(|conn| backup::backup(conn, target, options))
    }
}
