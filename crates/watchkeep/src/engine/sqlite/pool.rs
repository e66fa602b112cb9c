//! Read connections: whoever reads takes one, or opens another rather than wait.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::engine::hold::{Hold, Holds};
use crate::engine::reads::answer;
use crate::engine::{Answer, Ask, Query};
use crate::types::clock::Clock;
use crate::types::error::{Error, ErrorKind, Reason, Result};
use crate::types::limits::{IDLE_READER, IDLE_READERS, LEAST_CACHE};
use crate::types::sync::{Condvar, Mutex, lock};

use super::connection::{self, Cache, Sync};
use super::guard::Guard;
use super::log;
use super::read::SqliteRead;

/// A connection, how much it may keep in memory as of its last use, and the thread that used it last.
struct Reader {
    conn: Connection,
    cache: Option<Cache>,
    thread: ThreadId,
}

/// Who reads.
#[derive(Debug, Clone, Copy)]
enum Who {
    /// Those who read entries: they share the page cache.
    Users,
    /// Those who read the log, page after page, or the whole file once, and the store, which looks after itself: a cache is of
    /// little use to them.
    Upkeep,
}

/// The connections of some who read.
#[derive(Default)]
struct Shelf {
    idle: Vec<Reader>,
    busy: usize,
    /// How many were idle at the least since a while: so many were not needed.
    least_idle: usize,
}

impl Shelf {
    /// The connection that a thread used last, which its processor has at hand, or else the one that was used last of all.
    fn take(&mut self, thread: ThreadId) -> Option<Reader> {
        match self.idle.iter().rposition(|reader| reader.thread == thread) {
            Some(own) => Some(self.idle.remove(own)),
            None => self.idle.pop(),
        }
    }
}

struct State {
    users: Shelf,
    upkeep: Shelf,
    closed: bool,
    /// Since when it is counted how many are idle.
    since: Instant,
}

impl State {
    fn shelf(&mut self, who: Who) -> &mut Shelf {
        match who {
            Who::Users => &mut self.users,
            Who::Upkeep => &mut self.upkeep,
        }
    }

    /// Connections that nobody needed for long, but for one of each kind.
    fn unneeded(&mut self) -> Vec<Reader> {
        if self.since.elapsed() < IDLE_READER {
            return Vec::new();
        }
        self.since = Instant::now();
        let mut gone = Vec::new();
        for Shelf { idle, busy, least_idle } in [&mut self.users, &mut self.upkeep] {
            let all = idle.len() + *busy;
            // The last of them were used last.
            gone.extend(idle.drain(..(*least_idle).min(all.saturating_sub(1))));
            *least_idle = idle.len();
        }
        gone
    }
}

/// The read connections of a store.
pub(super) struct Pool {
    path: PathBuf,
    sync: Sync,
    /// What all connections together keep in memory, in bytes.
    cache: u64,
    clock: Arc<dyn Clock>,
    guard: Arc<Guard>,
    state: Mutex<State>,
    held: Holds<Connection>,
    returned: Condvar,
}

impl Pool {
    pub(super) fn new(
        path: PathBuf,
        sync: Sync,
        cache: u64,
        clock: Arc<dyn Clock>,
        guard: Arc<Guard>,
    ) -> Pool {
        let state =
            State { users: Shelf::default(), upkeep: Shelf::default(), closed: false, since: Instant::now() };
        Pool {
            path,
            sync,
            cache,
            clock,
            guard,
            state: Mutex::new(state),
            held: Holds::default(),
            returned: Condvar::new(),
        }
    }

    /// Another connection, to the file that the store was opened on.
    fn connect(&self) -> Result<Connection> {
        self.guard.known()?;
        connection::reader(&self.path, self.sync, || self.guard.same_file())
    }

    /// Runs with a connection of its own.
    pub(super) fn with<T>(&self, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.lend(Who::Users, f)
    }

    /// The same, for what needs no cache: it takes nothing of that from those who read entries, and leaves them what they
    /// have in memory.
    pub(super) fn for_upkeep<T>(&self, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.lend(Who::Upkeep, f)
    }

    fn lend<T>(&self, who: Who, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.guard.known()?;
        let thread = thread::current().id();
        let (idle, cache) = {
            let mut state = lock(&self.state);
            if state.closed {
                return Err(Reason::Closed.into());
            }
            let shelf = state.shelf(who);
            shelf.busy += 1;
            let idle = shelf.take(thread);
            shelf.least_idle = shelf.least_idle.min(shelf.idle.len());
            (idle, self.share(shelf, who))
        };
        let mut lease = Lease { pool: self, who, reader: None };
        let reader = match idle {
            Some(reader) => Reader { thread, ..reader },
            None => Reader { conn: self.connect()?, cache: None, thread },
        };
        let reader = lease.reader.insert(reader);
        reader.keep(cache)?;
        let result = f(&reader.conn);
        if result.as_ref().is_err_and(may_be_ill) {
            // The next reader gets a fresh one.
            lease.reader = None;
        }
        result
    }

    /// What each connection may keep in memory, so that all together keep what they may. None is idle when another is opened,
    /// so an idle one never keeps more than this; one that was lent when there were fewer does until it comes back.
    fn share(&self, shelf: &Shelf, who: Who) -> Cache {
        match who {
            Who::Users => {
                let connections = (shelf.idle.len() + shelf.busy).max(1);
                Cache::new(self.cache / u64::try_from(connections).unwrap_or(u64::MAX))
            }
            Who::Upkeep => Cache::new(LEAST_CACHE),
        }
    }

    /// Answers a query. After the close, where it lingers, on a connection that is closed again at once.
    pub(super) fn ask(&self, query: &Query<'_>) -> Result<Answer> {
        let who = if query.is_of_log() { Who::Upkeep } else { Who::Users };
        if query.is_glance() {
            return self.lend(who, |conn| answer(&SqliteRead { conn, now: self.clock.now() }, query));
        }
        match self.lend(who, |conn| self.ask_on(conn, query)) {
            // The close may come at any moment, also between a look and the read.
            Err(error) if query.lingers() && matches!(error.reason(), Reason::Closed) => {
                self.ask_on(&self.connect()?, query)
            }
            answer => answer,
        }
    }

    fn ask_on(&self, conn: &Connection, query: &Query<'_>) -> Result<Answer> {
        conn.prepare_cached("BEGIN")?.execute([])?;
        let answer = answer(&SqliteRead { conn, now: self.clock.now() }, query);
        // A disk that failed has ended the transaction already; what it failed with is what counts.
        let ended = if conn.is_autocommit() { Ok(0) } else { conn.prepare_cached("COMMIT")?.execute([]) };
        answer.and_then(|answer| Ok(ended.map(|_| answer)?))
    }

    /// A read transaction that stays open: on a connection of its own, for a limited time.
    pub(super) fn hold(&self, limit: Duration) -> Result<Arc<Hold<Connection>>> {
        if lock(&self.state).closed {
            return Err(Reason::Closed.into());
        }
        let conn = self.connect()?;
        conn.execute_batch("BEGIN")?;
        // The first read fixes what the transaction sees.
        log::end(&conn)?;
        self.held.add(Hold::new(conn, limit, self.clock.clone()))
    }

    /// Ends held reads that are too old, and lets go of connections that are not needed.
    pub(super) fn end_old(&self) {
        drop(self.held.end_old());
        let unneeded = lock(&self.state).unneeded();
        drop(unneeded);
    }

    /// Refuses new readers, waits for those that are there, closes the connections.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        while state.users.busy + state.upkeep.busy > 0 {
            state = self.returned.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        let users = std::mem::take(&mut state.users.idle);
        let upkeep = std::mem::take(&mut state.upkeep.idle);
        drop(state);
        let all = users.into_iter().chain(upkeep).map(|reader| reader.conn).chain(self.held.close());
        if self.guard.is_lost() { all.for_each(connection::forget) } else { all.for_each(drop) }
    }
}

impl Reader {
    fn keep(&mut self, cache: Cache) -> Result<()> {
        if self.cache != Some(cache) {
            cache.set(&self.conn)?;
            self.cache = Some(cache);
        }
        Ok(())
    }
}

/// Whether it may be the connection that an error comes of. A refusal says something about what was asked, and costs nobody
/// what the connection keeps in memory.
fn may_be_ill(error: &Error) -> bool {
    use ErrorKind::{Busy, Corrupt, Full, Io, ReadOnly};
    matches!(error.kind(), Busy | Corrupt | Full | Io | ReadOnly)
}

/// A connection on loan: comes back whatever happens, unless it may be ill.
struct Lease<'p> {
    pool: &'p Pool,
    who: Who,
    reader: Option<Reader>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut reader = self.reader.take().filter(|reader| reader.conn.is_autocommit());
        let mut state = lock(&self.pool.state);
        // Others may have come meanwhile, and then what it may keep is less; or more than are kept have come back. Some may
        // while it is seen to, so it is looked at again.
        while let Some(mut back) = reader.take() {
            let cache = self.pool.share(state.shelf(self.who), self.who);
            let is_kept = state.shelf(self.who).idle.len() < IDLE_READERS;
            if is_kept && back.cache == Some(cache) {
                reader = Some(back);
                break;
            }
            // Both may take long. It counts as busy until it is done: a close waits for it.
            drop(state);
            reader = (is_kept && back.keep(cache).is_ok()).then_some(back);
            state = lock(&self.pool.state);
        }
        let shelf = state.shelf(self.who);
        shelf.busy -= 1;
        shelf.idle.extend(reader);
        // Only a close waits; to notify costs a system call even where nobody does.
        let is_awaited = state.closed;
        drop(state);
        if is_awaited {
            self.pool.returned.notify_all();
        }
    }
}

impl Ask for Hold<Connection> {
    fn ask(&self, query: &Query<'_>) -> Result<Answer> {
        self.with(|conn| answer(&SqliteRead { conn, now: self.now }, query))
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::driver::Signal;
    use crate::engine::sqlite::SqliteEngine;
    use crate::engine::{Close, Engine, Settled, Whole};
    use crate::types::backup::BackupOptions;
    use crate::types::options::Options;
    use crate::types::revision::Revision;

    const MIB: i64 = 1_024;

    /// What a connection may keep, in KiB.
    fn kept(conn: &Connection) -> Result<i64> {
        Ok(-conn.query_row("PRAGMA cache_size", [], |row| row.get::<_, i64>(0))?)
    }

    /// Runs with so many connections at once; what each may keep once all are there.
    fn at_once(pool: &Pool, readers: usize) -> Result<Vec<i64>> {
        let Some(others) = readers.checked_sub(1) else { return Ok(Vec::new()) };
        pool.with(|conn| {
            let mut all = at_once(pool, others)?;
            all.push(kept(conn)?);
            Ok(all)
        })
    }

    #[test]
    fn readers_share_what_may_be_kept_however_many_there_are() -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options::new().page_cache(64 << 20).ballast(false);
        let engine = SqliteEngine::open(&folder.path().join("app.db"), &options, Signal::unheard())?;
        let pool = &engine.pool;
        assert_eq!(at_once(pool, 1)?, [48 * MIB]);
        for readers in [2, 6, IDLE_READERS, 16] {
            at_once(pool, readers)?;
            let kept_idle: i64 = {
                let state = lock(&pool.state);
                let sizes = state.users.idle.iter().map(|reader| kept(&reader.conn));
                sizes.sum::<Result<i64>>()?
            };
            assert!(kept_idle <= 48 * MIB, "{readers} readers keep {kept_idle} KiB");
            assert_eq!(lock(&pool.state).users.idle.len(), readers.min(IDLE_READERS));
        }
        // The store itself takes nothing of it, and who reads the log does not, either.
        let alone = at_once(pool, 1)?;
        assert_eq!(pool.for_upkeep(kept)?, MIB);
        assert_eq!(at_once(pool, 1)?, alone);
        let all = |pool: &Pool| {
            let state = lock(&pool.state);
            state.users.idle.len() + state.users.busy
        };
        let before = all(pool);
        pool.with(|_| {
            for query in [
                Query::Last,
                Query::Bounds { after: None },
                Query::Log { after: Revision::ZERO },
                Query::Change { revision: Revision::new(1) },
            ] {
                pool.ask(&query)?;
                assert_eq!(all(pool), before, "{query:?} reads among those who read entries");
            }
            Ok(())
        })
    }

    #[test]
    fn a_read_that_takes_long_keeps_its_share_meanwhile_and_no_idle_connection_more_than_its_own()
    -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options::new().page_cache(64 << 20).ballast(false);
        let engine = SqliteEngine::open(&folder.path().join("app.db"), &options, Signal::unheard())?;
        let pool = &engine.pool;
        let idle = || -> Result<Vec<i64>> {
            let state = lock(&pool.state);
            state.users.idle.iter().map(|reader| kept(&reader.conn)).collect()
        };
        pool.with(|slow| {
            assert_eq!(at_once(pool, 3)?, [12 * MIB, 16 * MIB, 24 * MIB]);
            assert_eq!((kept(slow)?, idle()?), (48 * MIB, vec![12 * MIB; 3]));
            Ok(())
        })?;
        assert_eq!(idle()?, [12 * MIB; 4]);
        Ok(())
    }

    /// How many connections are idle: those of readers, and of the upkeep.
    fn idle(pool: &Pool) -> [usize; 2] {
        let state = lock(&pool.state);
        [state.users.idle.len(), state.upkeep.idle.len()]
    }

    #[test]
    fn a_refusal_costs_no_connection_and_what_may_be_the_connections_fault_does() -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options::new().ballast(false);
        let engine = SqliteEngine::open(&folder.path().join("app.db"), &options, Signal::unheard())?;
        let pool = &engine.pool;
        let io = || Reason::Io { what: String::new(), cause: std::io::Error::other("a disk") };
        for (reason, left) in [
            (Reason::NewerGroup { group: "g".to_owned(), flags: 1 }, 1),
            (Reason::GivenUp, 1),
            (Reason::Corrupt { what: String::new() }, 0),
            (Reason::Sqlite(rusqlite::Error::InvalidQuery), 0),
            (io(), 0),
        ] {
            at_once(pool, 1)?;
            let refused = pool.with::<()>(|_| Err(reason.into()));
            assert_eq!(idle(pool), [left, 0], "{refused:?}");
        }
        let lost = format!("{}-4fz8ab-7", engine.id()).parse()?;
        let bounds = pool.ask(&Query::Bounds { after: Some(lost) });
        assert_eq!(bounds.map_err(|error| error.kind()).err(), Some(ErrorKind::LostCursor));
        assert_eq!(idle(pool), [0, 1]);
        Ok(())
    }

    #[test]
    fn a_check_and_a_backup_leave_the_readers_their_connections() -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options::new().ballast(false);
        let engine = SqliteEngine::open(&folder.path().join("app.db"), &options, Signal::unheard())?;
        assert_eq!(engine.check()?.0, Vec::<String>::new());
        engine.backup(&folder.path().join("copy.db"), &mut BackupOptions::new())?;
        assert_eq!(idle(&engine.pool), [0, 1]);
        Ok(())
    }

    #[test]
    fn connections_that_nobody_needs_are_let_go_but_for_one() -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options::new().ballast(false);
        let engine = SqliteEngine::open(&folder.path().join("app.db"), &options, Signal::unheard())?;
        let long_ago = || {
            let mut state = lock(&engine.pool.state);
            state.since = state.since.checked_sub(IDLE_READER).expect("a machine that runs for longer");
        };
        at_once(&engine.pool, 5)?;
        for (used, left) in [(5, 5), (2, 5), (2, 2), (0, 2), (0, 1), (0, 1)] {
            // What is used in a span stays at its end; what is not, goes.
            long_ago();
            engine.pool.end_old();
            at_once(&engine.pool, used)?;
            assert_eq!(lock(&engine.pool.state).users.idle.len(), left, "after {used} were used");
        }
        Ok(())
    }

    #[test]
    fn of_readers_that_come_back_at_once_no_more_are_kept_and_no_more_is() -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options::new().page_cache(64 << 20).ballast(false);
        let engine = SqliteEngine::open(&folder.path().join("app.db"), &options, Signal::unheard())?;
        // Where it goes wrong, it does in a tenth of the rounds.
        for _ in 0..20 {
            let gate = std::sync::Barrier::new(4 * IDLE_READERS);
            thread::scope(|scope| {
                for _ in 0..4 * IDLE_READERS {
                    scope.spawn(|| {
                        engine.pool.with(|conn| {
                            kept(conn)?;
                            gate.wait();
                            Ok(())
                        })
                    });
                }
            });
            let state = lock(&engine.pool.state);
            assert!(state.users.idle.len() <= IDLE_READERS, "{} are kept", state.users.idle.len());
            let sizes: Result<Vec<_>> = state.users.idle.iter().map(|reader| kept(&reader.conn)).collect();
            assert!(sizes?.iter().sum::<i64>() <= 48 * MIB);
        }
        Ok(())
    }

    #[test]
    fn a_close_leaves_no_connection_open_however_many_readers_come_back_at_once() -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().canonicalize().expect("a path").join("app.db");
        let options = Options::new().ballast(false);
        for _ in 0..5 {
            let engine = SqliteEngine::open(&path, &options, Signal::unheard())?;
            let gate = std::sync::Barrier::new(4 * IDLE_READERS + 1);
            thread::scope(|scope| -> Result<()> {
                for _ in 0..4 * IDLE_READERS {
                    scope.spawn(|| {
                        engine.pool.with(|conn| {
                            kept(conn)?;
                            gate.wait();
                            Ok(())
                        })
                    });
                }
                gate.wait();
                engine.close(Close::Writes, &mut Settled::default());
                engine.close(Close::Reads, &mut Settled::default());
                let open = std::fs::read_dir("/proc/self/fd").expect("descriptors");
                let targets = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
                assert_eq!(targets.filter(|target| *target == path).count(), 0);
                Ok(())
            })?;
        }
        Ok(())
    }
}
