//! Read connections: whoever reads takes one, or opens another rather than wait.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::engine::hold::{Hold, Holds};
use crate::engine::reads::answer;
use crate::engine::{Answer, Ask, Query};
use crate::types::clock::Clock;
use crate::types::error::{Error, ErrorKind, Reason, Result};
use crate::types::limits::{READERS, UPKEEP_READERS};

use super::connection::{self, Sync};
use super::guard::Guard;
use super::log;
use super::read::SqliteRead;
use super::seats::{Seats, Who};

/// The read connections of a store.
pub(super) struct Pool {
    path: PathBuf,
    sync: Sync,
    clock: Arc<dyn Clock>,
    guard: Arc<Guard>,
    users: Seats,
    upkeep: Seats,
    held: Holds<Connection>,
}

impl Pool {
    /// `cache`: what all connections together keep in memory, in bytes.
    pub(super) fn new(
        path: PathBuf,
        sync: Sync,
        cache: u64,
        clock: Arc<dyn Clock>,
        guard: Arc<Guard>,
    ) -> Pool {
        let users = Seats::new(Who::Users, READERS, cache);
        let upkeep = Seats::new(Who::Upkeep, UPKEEP_READERS, 0);
        Pool { path, sync, clock, guard, users, upkeep, held: Holds::default() }
    }

    /// Another connection, to the file that the store was opened on.
    fn connect(&self) -> Result<Connection> {
        self.guard.known()?;
        connection::reader(&self.path, self.sync, || self.guard.same_file())
    }

    /// Runs with a connection of its own.
    pub(super) fn with<T>(&self, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.lend(&self.users, f)
    }

    /// The same, for what needs no cache: it takes nothing of that from those who read entries, and leaves them what they
    /// have in memory.
    pub(super) fn for_upkeep<T>(&self, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.lend(&self.upkeep, f)
    }

    fn lend<T>(&self, seats: &Seats, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.guard.known()?;
        let mut sitting = seats.sit(|| self.connect())?;
        let result = f(sitting.conn()?);
        if result.as_ref().is_err_and(may_be_ill) {
            sitting.discard();
        }
        result
    }

    /// Answers a query. After the close, where it lingers, on a connection that is closed again at once.
    pub(super) fn ask(&self, query: &Query<'_>) -> Result<Answer> {
        let seats = if query.is_of_log() { &self.upkeep } else { &self.users };
        if query.is_glance() {
            return self.lend(seats, |conn| answer(&SqliteRead { conn, now: self.clock.now() }, query));
        }
        match self.lend(seats, |conn| self.ask_on(conn, query)) {
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
        self.users.refuse_closed()?;
        let conn = self.connect()?;
        conn.execute_batch("BEGIN")?;
        // The first read fixes what the transaction sees.
        log::end(&conn)?;
        self.held.add(Hold::new(conn, limit, self.clock.clone()))
    }

    /// Ends held reads that are too old, and lets go of connections that are not needed.
    pub(super) fn end_old(&self) {
        drop(self.held.end_old());
        drop((self.users.unneeded(), self.upkeep.unneeded()));
    }

    /// Refuses new readers, waits for those that are there, closes the connections.
    pub(super) fn close(&self) {
        [&self.users, &self.upkeep].into_iter().for_each(Seats::refuse);
        let all = self.users.close().into_iter().chain(self.upkeep.close()).chain(self.held.close());
        if self.guard.is_lost() { all.for_each(connection::forget) } else { all.for_each(drop) }
    }
}

/// Whether it may be the connection that an error comes of. A refusal says something about what was asked, and costs nobody
/// what the connection keeps in memory.
fn may_be_ill(error: &Error) -> bool {
    use ErrorKind::{Busy, Corrupt, Full, Io, ReadOnly};
    matches!(error.kind(), Busy | Corrupt | Full | Io | ReadOnly)
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
        for readers in [2, 6, 16, READERS, READERS + 8] {
            at_once(pool, readers)?;
            let kept_free: i64 = pool.users.free(kept).into_iter().sum::<Result<i64>>()?;
            assert!(kept_free <= 48 * MIB, "{readers} readers keep {kept_free} KiB");
            assert_eq!(idle(pool)[0], readers.min(READERS));
        }
        // The store itself takes nothing of it, and who reads the log does not, either.
        let alone = at_once(pool, 1)?;
        assert_eq!(pool.for_upkeep(kept)?, MIB);
        assert_eq!(at_once(pool, 1)?, alone);
        let before = pool.users.connections();
        pool.with(|_| {
            for query in [
                Query::Last,
                Query::Bounds { after: None },
                Query::Log { after: Revision::ZERO },
                Query::Change { revision: Revision::new(1) },
            ] {
                pool.ask(&query)?;
                assert_eq!(pool.users.connections(), before, "{query:?} reads among those who read entries");
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
        let idle = || pool.users.free(kept).into_iter().collect::<Result<Vec<_>>>();
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
        [&pool.users, &pool.upkeep].map(|seats| seats.free(|_| ()).len())
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
    fn a_thread_comes_back_to_the_connection_that_it_had() -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options::new().ballast(false);
        let engine = SqliteEngine::open(&folder.path().join("app.db"), &options, Signal::unheard())?;
        let (pool, both, turn) = (&engine.pool, std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        let sign =
            |conn: &Connection| Ok(conn.query_row("PRAGMA busy_timeout", [], |row| row.get::<_, u32>(0))?);
        let reads = |own: u32| -> Result<Vec<u32>> {
            let signed = pool.with(|conn| {
                both.wait();
                let signed = conn.busy_timeout(Duration::from_millis(own.into()));
                both.wait();
                Ok(signed?)
            });
            let mut read = Vec::new();
            // In turn, so that all seats are free each time.
            for number in 0..10 {
                if number % 2 == own % 2 {
                    // The log is read on seats of its own.
                    read.push(pool.ask(&Query::Last).and_then(|_| pool.with(sign)));
                }
                turn.wait();
            }
            signed.and_then(|()| read.into_iter().collect())
        };
        std::thread::scope(|scope| {
            for (own, reader) in [1_001, 1_002].map(|own| (own, scope.spawn(move || reads(own)))) {
                assert_eq!(reader.join().expect("no panic")?, vec![own; 5]);
            }
            Ok(())
        })
    }

    #[test]
    fn connections_that_nobody_needs_are_let_go_but_for_one() -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options::new().ballast(false);
        let engine = SqliteEngine::open(&folder.path().join("app.db"), &options, Signal::unheard())?;
        at_once(&engine.pool, 5)?;
        for (used, left) in [(5, 5), (2, 5), (2, 2), (0, 2), (0, 1), (0, 1)] {
            // What is used in a span stays at its end; what is not, goes.
            engine.pool.users.age();
            engine.pool.end_old();
            at_once(&engine.pool, used)?;
            assert_eq!(idle(&engine.pool)[0], left, "after {used} were used");
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
            let gate = std::sync::Barrier::new(2 * READERS);
            std::thread::scope(|scope| {
                for _ in 0..2 * READERS {
                    scope.spawn(|| {
                        engine.pool.with(|conn| {
                            kept(conn)?;
                            gate.wait();
                            Ok(())
                        })
                    });
                }
            });
            let sizes = engine.pool.users.free(kept).into_iter().collect::<Result<Vec<_>>>()?;
            assert!(sizes.len() <= READERS, "{} are kept", sizes.len());
            assert!(sizes.iter().sum::<i64>() <= 48 * MIB, "{sizes:?}");
            assert_eq!(engine.pool.users.connections(), sizes.len());
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
            let gate = std::sync::Barrier::new(2 * READERS + 1);
            std::thread::scope(|scope| -> Result<()> {
                for _ in 0..2 * READERS {
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
