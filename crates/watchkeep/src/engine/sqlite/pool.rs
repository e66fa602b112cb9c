//! Read connections: whoever reads takes one, or opens another rather than wait.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::engine::hold::{Hold, Holds};
use crate::engine::reads::answer;
use crate::engine::{Answer, Ask, Query};
use crate::types::clock::Clock;
use crate::types::error::{Reason, Result};
use crate::types::limits::IDLE_READERS;
use crate::types::sync::{Condvar, Mutex, lock};

use super::connection::{self, Sync};
use super::guard::Guard;
use super::log;
use super::read::SqliteRead;

struct State {
    idle: Vec<Connection>,
    busy: usize,
    closed: bool,
}

/// The read connections of a store.
pub(super) struct Pool {
    path: PathBuf,
    sync: Sync,
    clock: Arc<dyn Clock>,
    guard: Arc<Guard>,
    state: Mutex<State>,
    held: Holds<Connection>,
    returned: Condvar,
}

impl Pool {
    pub(super) fn new(path: PathBuf, sync: Sync, clock: Arc<dyn Clock>, guard: Arc<Guard>) -> Pool {
        let state = State { idle: Vec::new(), busy: 0, closed: false };
        Pool {
            path,
            sync,
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
        self.guard.known()?;
        let idle = {
            let mut state = lock(&self.state);
            if state.closed {
                return Err(Reason::Closed.into());
            }
            state.busy += 1;
            state.idle.pop()
        };
        let mut lease = Lease { pool: self, conn: None };
        let conn = match idle {
            Some(conn) => conn,
            None => self.connect()?,
        };
        let result = f(lease.conn.insert(conn));
        if result.is_err() {
            // It may be the connection that is ill: the next reader gets a fresh one.
            lease.conn = None;
        }
        result
    }

    /// Answers a query. After the close, where it lingers, on a connection that is closed again at once.
    pub(super) fn ask(&self, query: &Query<'_>) -> Result<Answer> {
        if query.is_glance() {
            return self.with(|conn| answer(&SqliteRead { conn, now: self.clock.now() }, query));
        }
        match self.with(|conn| self.ask_on(conn, query)) {
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

    /// Ends held reads that are too old.
    pub(super) fn end_old(&self) {
        drop(self.held.end_old());
    }

    /// Refuses new readers, waits for those that are there, closes the connections.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        while state.busy > 0 {
            state = self.returned.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        let all = idle.into_iter().chain(self.held.close());
        if self.guard.is_lost() { all.for_each(connection::forget) } else { all.for_each(drop) }
    }
}

/// A connection on loan: comes back whatever happens, unless it may be ill.
struct Lease<'p> {
    pool: &'p Pool,
    conn: Option<Connection>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let conn = self.conn.take().filter(Connection::is_autocommit);
        let mut state = lock(&self.pool.state);
        state.busy -= 1;
        if let Some(conn) = conn
            && state.idle.len() < IDLE_READERS
        {
            state.idle.push(conn);
        }
        drop(state);
        self.pool.returned.notify_all();
    }
}

impl Ask for Hold<Connection> {
    fn ask(&self, query: &Query<'_>) -> Result<Answer> {
        self.with(|conn| answer(&SqliteRead { conn, now: self.now }, query))
    }
}
