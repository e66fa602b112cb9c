//! Leading: one SQL transaction for the leader's own write and those that came meanwhile.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::driver::Lane;
use crate::engine::job::{self, Clear, Transaction};
use crate::engine::lead::{Lead, Own, OwnDone, Pen, TakesAlong};
use crate::engine::reads::answer;
use crate::engine::{Query, Settled, Transact, nesting};
use crate::rules::Moment;
use crate::types::error::{Error, ErrorKind, Result};
use crate::types::limits::BATCH_JOBS;

use super::SqliteEngine;
use super::read::SqliteRead;
use super::rows::SqliteRows;
use super::writer::Writer;

impl Pen for Writer {
    fn roll_back(&self) {
        Writer::roll_back(self);
    }
}

/// Why a transaction could not be committed.
enum Broken {
    /// One write took the whole transaction with it; the others can be run again without it.
    By {
        own: bool,
        error: Error,
    },
    Whole(Error),
    /// A step of what has to go before the leader's own write is committed: run again.
    Reaped,
    /// The seal that kept an epoch from beginning was lifted in between: run again.
    Unsealed,
}

impl SqliteEngine {
    /// Commits the leader's own write and what can be taken along, then passes the turn.
    pub(super) fn lead(
        &self,
        writer: Writer,
        mut own: Own<'_>,
        queued: Instant,
        settled: &mut Settled,
    ) -> Result<OwnDone> {
        let mut lead = Lead::new(&self.turn, writer);
        let mut own_result: Option<Result<OwnDone>> = None;
        loop {
            let attempt = self.attempt(&mut lead, &mut own, &mut own_result, queued);
            if let Err(Broken::By { error, .. } | Broken::Whole(error)) = &attempt {
                self.notice(error);
            }
            match attempt {
                Ok(()) => break,
                Err(Broken::By { own: true, error }) => own_result = Some(Err(error)),
                Err(Broken::By { own: false, .. } | Broken::Reaped | Broken::Unsealed) => {}
                Err(Broken::Whole(error)) => {
                    lead.fail(&mut own_result, &error);
                    if matches!(own, Own::Others) {
                        self.turn.fail_background(&error, error.kind() != ErrorKind::Busy, settled);
                    }
                    break;
                }
            }
        }
        if lead.announced.is_some() && matches!(own_result, Some(Err(_))) {
            // What was due went, although the write was refused: nobody else announces it.
            self.signal.raise(Lane::Work);
        }
        lead.finish(own_result, settled, |last| self.wake.announce(last))
    }

    /// One SQL transaction.
    fn attempt(
        &self,
        lead: &mut Lead<'_, Writer>,
        own: &mut Own<'_>,
        own_result: &mut Option<Result<OwnDone>>,
        queued: Instant,
    ) -> Result<(), Broken> {
        let is_again = own_result.is_some() || !lead.taken.is_empty();
        let Some(writer) = &mut lead.pen else { return Ok(()) };
        self.may_write().map_err(Broken::Whole)?;
        let patience = match own {
            // On a thread of the driver, which waits for no other process.
            Own::Others if !self.is_closing.load(Ordering::Acquire) => Duration::ZERO,
            _ => self.busy_timeout,
        };
        self.enter_epoch(writer, queued, patience).map_err(Broken::Whole)?;
        writer.begin(queued, patience).map_err(Broken::Whole)?;
        let begun = SqliteRows::begin(&writer.conn);
        let mut rows = begun.map_err(|error| self.abandon(writer, error))?;
        if !writer.has_entered && rows.sealed().is_none() {
            writer.roll_back();
            return Err(Broken::Unsealed);
        }
        if rows.base > self.epochs.upto() {
            // Others committed, and may have begun an epoch.
            self.epochs.look_at(&writer.conn, rows.base).map_err(|error| self.abandon(writer, error))?;
        }
        let is_tight = self.ballast.is_tight();
        let moment = || Moment { now: self.clock.now(), limits: self.limits, is_tight };

        // Its own first: a closure can only run here.
        let mut is_reaping = false;
        if !matches!(own_result, Some(Err(_))) {
            let done = match own {
                Own::Write(write) => job::apply(&mut rows, moment(), write, &mut lead.in_the_way)
                    .map(|done| done.map(OwnDone::Write)),
                Own::Closure { author, f } => {
                    let (moment, conn) = (moment(), rows.conn);
                    let f =
                        |tx: &dyn Transact| nesting::inside(Some(&self.file), self.turn.address(), || f(tx));
                    let read = |query: &Query<'_>| answer(&SqliteRead { conn, now: moment.now }, query);
                    let sealed = job::close_over(&mut rows, moment, author, &read, &mut lead.in_the_way, f);
                    sealed.map(|done| done.map(OwnDone::Closure))
                }
                Own::Others => Ok(Clear::Done(Ok(OwnDone::Others))),
            };
            match done {
                Ok(Clear::Done(result)) => *own_result = Some(result),
                Ok(Clear::NotYet) => is_reaping = true,
                Err(error) => {
                    writer.roll_back();
                    return Err(Broken::By { own: true, error });
                }
            }
        }
        // What others wrote waits behind what is in the way of the leader's own.
        if !is_reaping {
            let takes = if is_again { TakesAlong(0) } else { TakesAlong(BATCH_JOBS) };
            takes.apply(&self.turn, &mut lead.taken, &mut rows, moment).map_err(|error| {
                writer.roll_back();
                Broken::By { own: false, error }
            })?;
        }

        let SqliteRows { base, last, earliest, changes, has_buried, .. } = rows;
        writer.commit().map_err(Broken::Whole)?;
        writer.committed(base, last);
        self.epochs.reaches(last);
        if last > base {
            self.feed.push(base, last, changes);
            lead.announced = Some(last);
        }
        self.note(earliest, last);
        if has_buried {
            self.upkeep.want();
        }
        self.spare(writer);
        if is_reaping { Err(Broken::Reaped) } else { Ok(()) }
    }

    /// Before the first write: the newest epoch is one of this boot, and is known here. In a sealed file no revision is
    /// given, and no epoch begins.
    fn enter_epoch(&self, writer: &mut Writer, queued: Instant, patience: Duration) -> Result<()> {
        if !writer.has_entered && writer.enter_epoch(&self.home, queued, patience)? {
            self.epochs.look_again(&writer.conn)?;
            writer.has_entered = true;
        }
        Ok(())
    }

    fn abandon(&self, writer: &Writer, error: Error) -> Broken {
        writer.roll_back();
        Broken::Whole(error)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[expect(clippy::expect_used, reason = "a test fails by it")]
mod tests {
    use std::sync::{Arc, mpsc};

    use rusqlite::Connection;

    use super::*;
    use crate::driver::{Driver, Rounds, Signal, Size, Woken};
    use crate::engine::Engine;
    use crate::rules::{Author, Write};
    use crate::types::batch::Operation;
    use crate::types::options::Options;
    use crate::types::value::Value;
    use crate::types::writing::SetOptions;

    /// Says when its lane of work is served.
    struct Told(mpsc::Sender<()>);

    impl Rounds for Told {
        fn round(&self, lane: Lane, _: Woken) -> Option<Duration> {
            if lane == Lane::Work {
                self.0.send(()).ok();
            }
            None
        }
    }

    fn enter(driver: &Arc<Driver>) -> (Arc<Signal>, mpsc::Receiver<()>) {
        let signal = driver.enter().expect("threads").expect("it has not ended");
        let (told, served) = mpsc::channel();
        signal.begin(Arc::new(Told(told)));
        served.recv().expect("the first round");
        (signal, served)
    }

    /// Whoever leads in the background is told when to try again, and by nothing else: or a file that somebody has locked
    /// keeps a core busy.
    #[test]
    fn what_another_process_keeps_waiting_is_tried_again_after_a_time_and_raises_nothing() -> Result<()> {
        // One serves the lanes of work, in the order in which they were raised.
        let driver = Driver::new(Size { at_once: 1, work: 1, vital: 0 }).expect("descriptors");
        let ((signal, served), (other, sentinel)) = (enter(&driver), enter(&driver));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("app.db");
        let engine = SqliteEngine::open(&path, &Options::new().ballast(false), signal)?;
        let neighbour = Connection::open(&path)?;
        neighbour.execute_batch("BEGIN IMMEDIATE")?;
        let set = Operation::set("g", "k", Value::from("v"), SetOptions::new());
        engine.submit(Write { author: Author::default(), work: set.into() }, Box::new(drop));
        served.recv().expect("it is raised for what was submitted");
        for _ in 0..3 {
            let again = engine.settle(&mut Settled::default());
            assert!(again.is_some_and(|again| !again.is_zero()), "{again:?}");
        }
        other.raise(Lane::Work);
        sentinel.recv().expect("what was raised before it is served by now");
        assert!(served.try_recv().is_err(), "it was raised for what is tried again anyway");
        neighbour.execute_batch("ROLLBACK")?;
        let mut settled = Settled::default();
        assert_eq!((engine.settle(&mut settled), settled.users.len()), (None, 1));
        Ok(())
    }

    /// SQLite rolls everything back when the disk is full. What the closure looks at after that must not be written first:
    /// outside of a transaction it would stay.
    #[test]
    fn a_closure_that_reads_on_after_a_full_disk_leaves_no_count_behind() -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("app.db");
        let engine = SqliteEngine::open(&path, &Options::new().ballast(false), Signal::unheard())?;
        let set = |key, bytes| Operation::set("g", key, vec![0; bytes].into(), SetOptions::new());
        engine
            .write(Write { author: Author::default(), work: set("k", 1).into() }, &mut Settled::default())?;
        let pages = engine.exclusively(engine.busy_timeout, |conn| {
            let pages: i64 = conn.query_row("PRAGMA page_count", [], |row| row.get(0))?;
            Ok(conn.query_row(&format!("PRAGMA max_page_count = {}", pages + 2), [], |row| {
                row.get::<_, i64>(0)
            })?)
        })?;
        let mut counted = None;
        let mut closure = |tx: &dyn Transact| {
            tx.apply(&set("a", 1))?;
            let full = tx.apply(&set("large", 100_000));
            assert!(full.is_err(), "there are only {pages} pages");
            counted = tx.ask(&Query::Count { group: "g".into() }).ok();
            Ok(())
        };
        engine.transact(&Author::default(), &mut closure, &mut Settled::default()).expect_err("it is full");
        assert!(counted.is_some(), "it can be read");
        let count: i64 =
            Connection::open(&path)?.query_row("SELECT keys FROM wk_groups", [], |row| row.get(0))?;
        assert_eq!(count, 1);
        Ok(())
    }
}
