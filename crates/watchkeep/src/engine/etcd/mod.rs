//! The engine on an etcd cluster: the same rules over rows that stand there. What a transaction reads becomes compares,
//! what it writes becomes puts; whoever finds that something has changed meanwhile runs it again.

mod address;
mod buffer;
mod check;
mod chores;
mod client;
mod cluster;
mod commit;
mod connect;
mod follow;
mod halve;
mod holders;
mod keeper;
mod keys;
mod ledger;
mod past;
mod read;
mod recall;
mod retain;
mod rows;
mod server;
mod settings;
mod space;
mod status;
mod stored;
mod sweep;
mod tail;
mod wire;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::driver::{Lane, Signal};
use crate::engine::feed::Feed;
use crate::engine::floors::Floors;
use crate::engine::hold::{Hold, Holds};
use crate::engine::job::{self, Clear};
use crate::engine::lead::{Lead, Own, OwnDone, TakesAlong};
use crate::engine::led::{Led, Token};
use crate::engine::reads::answer;
use crate::engine::turn::Turn;
use crate::engine::upkeep::Upkeep;
use crate::engine::{
    Answer, Ask, Chores, Close, Completion, Done, Engine, File, Held, Query, Receipt, Sealed, Settled,
    Transact, Wait, Whole, nesting,
};
use crate::rules::{Author, Moment, Write};
use crate::types::batch::{Outcome, Unmet};
use crate::types::clock::{Clock, Timestamp};
use crate::types::error::{Error, Reason, Result};
use crate::types::limits::Limits;
use crate::types::name::NameRange;
use crate::types::options::Options;
use crate::types::revision::{Cursor, Revision, StoreId};
use crate::types::sync::atomic::{AtomicBool, Ordering};
use crate::types::sync::{Mutex, lock};

use address::Address;
use buffer::Buffer;
use client::CALL_TIME;
use cluster::Cluster;
use commit::Sent;
use read::EtcdRead;
use rows::EtcdRows;
use stored::{Made, end_of};

/// How many writes a leader takes along at the most: each takes a few compares, of which there are not many.
const TAKES_ALONG: usize = 64;
/// How many bytes of what waits are looked at beforehand: with large ones not all are taken along.
const FORESEEN_BYTES: usize = 256 << 10;
/// From one try of a transaction to the next, when others came between; it doubles up to the second of these.
const AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

/// Longer than anybody waits.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// The engine on a cluster.
pub(crate) struct EtcdEngine {
    address: String,
    cluster: Arc<Cluster>,
    turn: Turn<Token>,
    floors: Arc<Floors>,
    signal: Arc<Signal>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    busy_timeout: Duration,
    snapshot_age: Duration,
    upkeep: Upkeep,
    /// The earliest deadline, as far as it is known: none once it has to be asked for again.
    next_deadline: Mutex<Option<Option<Timestamp>>>,
    held: Holds<i64>,
    closed: AtomicBool,
    /// Whose it is: a forked child has a copy, and nobody who works for it.
    process: u32,
}

/// What became of one try of a transaction.
enum Tried {
    /// It is all done.
    Done,
    /// Once more, at once.
    Next,
    /// Once more, as of a linearizable point.
    Confirm,
    /// Others came between.
    Conflict,
    /// It is too much for one: with fewer that are taken along.
    Less,
}

/// What became of the leader's own write so far.
#[derive(Default)]
struct Progress {
    done: Option<Result<OwnDone>>,
    /// It failed by itself, and is not run again.
    has_failed: bool,
}

impl EtcdEngine {
    /// Opens a store in a cluster. The signal is raised when there is something to do for it in the background.
    pub(crate) fn open(address: &str, options: &Options, signal: Arc<Signal>) -> Result<EtcdEngine> {
        let place = Address::parse(address, |name| std::env::var(name).ok())?;
        // Whoever waits for no other writer still waits for the network.
        let patience = options.busy_timeout.clamp(CALL_TIME, LONGEST);
        let cluster = Cluster::open(&place, options, patience, signal.clone())?;
        Ok(EtcdEngine {
            address: address.to_owned(),
            cluster: Arc::new(cluster),
            turn: Turn::new(Token, signal.clone()),
            floors: Arc::default(),
            signal,
            clock: options.clock.clone(),
            limits: options.limits,
            busy_timeout: options.busy_timeout,
            snapshot_age: options.snapshot_age,
            upkeep: Upkeep::default(),
            next_deadline: Mutex::new(None),
            held: Holds::default(),
            closed: AtomicBool::new(false),
            process: std::process::id(),
        })
    }
    fn refuse_closed(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Reason::Closed.into()) } else { Ok(()) }
    }

    fn moment(&self) -> Moment {
        Moment { now: self.clock.now(), limits: self.limits, is_tight: false }
    }

    /// One transaction.
    fn attempt(
        &self,
        lead: &mut Lead<'_, Token>,
        own: &mut Own<'_>,
        outcome: &mut Progress,
        linear: bool,
        takes: usize,
    ) -> Result<Tried> {
        if !outcome.has_failed {
            // A refusal that was to be confirmed is none, should it come to no other.
            outcome.done = None;
        }
        self.cluster.stand()?;
        let mut rows = EtcdRows::begin(self.begin(lead, own, linear, takes)?);
        let mut is_reaping = false;
        if !outcome.has_failed {
            match self.apply(&mut rows, lead, own) {
                Ok(Clear::Done(done)) => outcome.done = Some(done),
                Ok(Clear::NotYet) => is_reaping = true,
                Err(_) if rows.buffer.borrow().is_gone() => return Ok(Tried::Conflict),
                // Nobody else gets an answer, either.
                Err(error) if matches!(error.reason(), Reason::Unreachable { .. }) => return Err(error),
                Err(error) => {
                    *outcome = Progress { done: Some(Err(error)), has_failed: true };
                    return Ok(Tried::Next);
                }
            }
        }
        // What others wrote waits behind what is in the way of the leader's own.
        let had_none = lead.taken.is_empty();
        if !is_reaping {
            let along = TakesAlong(takes);
            let applied = along.apply(&self.turn, &mut lead.taken, &mut rows, || self.moment());
            if applied.is_err() && !rows.buffer.borrow().is_gone() {
                return Ok(Tried::Next);
            }
        }
        if rows.buffer.borrow().is_gone() {
            // Somebody compacted what was being read: it is read anew.
            *outcome = Progress::default();
            lead.start_again();
            return Ok(Tried::Conflict);
        }
        let came_later = had_none && !lead.taken.is_empty();
        self.send(lead, outcome, rows, is_reaping, came_later)
    }

    /// What a try reads and writes. The first one goes by what is remembered; a closure reads what is there, for it may do
    /// more with that than write.
    fn begin(&self, lead: &Lead<'_, Token>, own: &Own<'_>, linear: bool, takes: usize) -> Result<Buffer> {
        if matches!(own, Own::Closure { .. }) {
            return Ok(Buffer::new(self.cluster.clone(), linear));
        }
        let mut buffer = match linear {
            true => Buffer::new(self.cluster.clone(), true),
            false => Buffer::guessing(self.cluster.clone()),
        };
        let mut jobs: Vec<_> = lead.jobs().cloned().collect();
        if jobs.is_empty() {
            jobs = self.turn.queued(takes, FORESEEN_BYTES);
        }
        let own = if let Own::Write(write) = own { Some(*write) } else { None };
        let writes = own.into_iter().chain(jobs.iter().filter_map(|job| job.write.as_ref()));
        buffer.foresee(writes.flat_map(|write| write.work.entries()))?;
        Ok(buffer)
    }

    fn apply(
        &self,
        rows: &mut EtcdRows,
        lead: &mut Lead<'_, Token>,
        own: &mut Own<'_>,
    ) -> Result<Clear<OwnDone>> {
        let moment = self.moment();
        match own {
            Own::Write(write) => {
                let done = job::apply(rows, moment, write, &mut lead.in_the_way)?;
                Ok(done.map(OwnDone::Write))
            }
            Own::Closure { author, f } => {
                let buffer = rows.buffer.clone();
                let f = |tx: &dyn Transact| nesting::inside(None, self.turn.address(), || f(tx));
                let read = |query: &Query<'_>| {
                    answer(&EtcdRead { buffer: &buffer, now: moment.now, holds: true }, query)
                };
                let sealed = job::close_over(rows, moment, author, &read, &mut lead.in_the_way, f)?;
                Ok(sealed.map(OwnDone::Closure))
            }
            Own::Others => Ok(Clear::Done(Ok(OwnDone::Others))),
        }
    }

    fn send(
        &self,
        lead: &mut Lead<'_, Token>,
        outcome: &mut Progress,
        rows: EtcdRows,
        is_reaping: bool,
        came_later: bool,
    ) -> Result<Tried> {
        let EtcdRows { buffer, sealed, has_deadline, has_buried, .. } = rows;
        let buffer = buffer.borrow();
        let (_, puts) = buffer.size();
        let is_refused = matches!(outcome.done, Some(Err(_))) || lead.has_refused();
        // What is refused, or finds nothing to do, says something of what is there now: not of what was there before the first
        // read of those who were not called yet.
        if (came_later || buffer.may_be_old()) && (is_refused || puts == 0) {
            return Ok(Tried::Confirm);
        }
        if puts == 0 {
            return Ok(Tried::Done);
        }
        match self.cluster.send(&buffer, sealed)? {
            Sent::Made(made) => {
                self.settle_receipts(lead, outcome, made);
                if has_deadline {
                    *lock(&self.next_deadline) = None;
                    self.signal.raise(Lane::Vital);
                }
                if has_buried || self.cluster.compacting.wants(self.cluster.tail.counted()) {
                    self.upkeep.want();
                    self.signal.raise(Lane::Work);
                }
                Ok(if is_reaping { Tried::Next } else { Tried::Done })
            }
            // Nobody need have come between where it went by what was remembered.
            Sent::Again if buffer.has_guessed() => Ok(Tried::Confirm),
            Sent::Again => Ok(Tried::Conflict),
            Sent::TooLarge if buffer.may_be_old() => Ok(Tried::Confirm),
            Sent::TooLarge if !lead.taken.is_empty() => Ok(Tried::Less),
            Sent::TooLarge => Err(too_large()),
        }
    }

    /// Makes the revisions real that were given before the commit.
    fn settle_receipts(&self, lead: &mut Lead<'_, Token>, outcome: &mut Progress, made: Made) {
        let end = self.cluster.tail.end();
        for result in lead.results() {
            match result {
                Ok(receipt) => settle_receipt(receipt, made, end),
                Err(error) => settle_error(error, made),
            }
        }
        match &mut outcome.done {
            Some(Err(error)) => settle_error(error, made),
            Some(Ok(OwnDone::Write(receipt))) => settle_receipt(receipt, made, end),
            Some(Ok(OwnDone::Closure(sealed))) => {
                sealed.revision = made.real(sealed.revision);
                sealed.announced = sealed.announced.map(|announced| made.real(announced).min(end));
            }
            _ => {}
        }
        if made.events > 0 {
            lead.announced = Some(end_of(made.modified).min(end));
        }
    }

    /// The last revision at a linearizable point.
    fn newest(&self) -> Result<Revision> {
        Buffer::new(self.cluster.clone(), true).end()
    }
}

fn too_large() -> Error {
    let said = "at most 120 reads and 120 writes, 4,096 events and 1.4 MB".to_owned();
    Reason::TooLargeForEtcd { said }.into()
}

/// `end`: of what is known here. What comes after it is announced once it is known.
fn settle_receipt(receipt: &mut Receipt, made: Made, end: Revision) {
    receipt.revision = made.real(receipt.revision);
    receipt.announced = receipt.announced.map(|announced| made.real(announced).min(end));
    // The second of two equal batches in one commit is a repetition.
    if let Done::Batch(outcomes) | Done::Repeated(outcomes) = &mut receipt.done {
        for outcome in outcomes {
            if let Outcome::Set(revision) = outcome {
                *revision = made.real(*revision);
            }
        }
    }
}

/// What was refused because of another write of the same commit names that one's revision.
fn settle_error(error: &mut Error, made: Made) {
    let real = |current: &Option<Revision>| current.map(|current| made.real(current));
    match error.reason() {
        Reason::Conflict { group, key, current } => {
            *error =
                Reason::Conflict { group: group.clone(), key: key.clone(), current: real(current) }.into();
        }
        Reason::Unmet(unmet) => {
            let unmet = unmet.iter().map(|it| Unmet { current: real(&it.current), ..*it });
            *error = Reason::Unmet(unmet.collect()).into();
        }
        Reason::Ahead { revision, last } => {
            *error = Reason::Ahead { revision: *revision, last: made.real(*last) }.into();
        }
        _ => {}
    }
}

impl Led for EtcdEngine {
    fn turn(&self) -> &Turn<Token> {
        &self.turn
    }

    fn busy_timeout(&self) -> Duration {
        self.busy_timeout
    }

    fn process(&self) -> u32 {
        self.process
    }

    fn lead(&self, token: Token, mut own: Own<'_>, settled: &mut Settled) -> Result<OwnDone> {
        let mut lead = Lead::new(&self.turn, token);
        let mut outcome = Progress::default();
        let (mut linear, mut takes, mut pause) = (false, TAKES_ALONG, AGAIN.0);
        let until = Instant::now() + self.busy_timeout.min(LONGEST);
        loop {
            match self.attempt(&mut lead, &mut own, &mut outcome, linear, takes) {
                Ok(Tried::Done) => break,
                Ok(Tried::Next) => {}
                Ok(Tried::Confirm) => linear = true,
                Ok(Tried::Conflict) if Instant::now() >= until => {
                    let error = Error::from(Reason::Busy { waited: self.busy_timeout });
                    lead.fail(&mut outcome.done, &error);
                    break;
                }
                Ok(Tried::Conflict) => {
                    linear = true;
                    self.cluster.pause(pause.mul_f64(0.5 + fastrand::f64() / 2.0));
                    pause = (pause * 2).min(AGAIN.1);
                }
                // It is the one that is too much.
                Ok(Tried::Less) if matches!(own, Own::Others) && lead.taken.len() == 1 => {
                    lead.fail(&mut outcome.done, &too_large());
                    break;
                }
                Ok(Tried::Less) => {
                    takes = lead.taken.len() / 2;
                    lead.shed(takes);
                }
                Err(error) => {
                    if matches!(error.reason(), Reason::Unreachable { .. }) {
                        lead.take_waiting(TAKES_ALONG);
                    }
                    lead.fail(&mut outcome.done, &error);
                    break;
                }
            }
        }
        if lead.announced.is_some() && matches!(outcome.done, Some(Err(_))) {
            // What was due went, although the write was refused: nobody else announces it.
            self.signal.raise(Lane::Work);
        }
        lead.finish(outcome.done, settled, |_| {})
    }
}

impl Ask for EtcdEngine {
    fn ask(&self, query: &Query<'_>) -> Result<Answer> {
        self.known()?;
        if !query.lingers() {
            self.refuse_closed()?;
            // What stands there now may be another store's.
            self.usable()?;
        }
        match query {
            Query::Log { after } => Ok(self.cluster.log(*after)?.into()),
            Query::Change { revision } => Ok(self.cluster.change(*revision)?.into()),
            Query::Last => Ok(self.newest()?.into()),
            _ => {
                let read = || {
                    let mut buffer = Buffer::new(self.cluster.clone(), true);
                    if let Query::Value { group, key } | Query::Entry { group, key } = query {
                        buffer.foresee([(&**group, &**key)].into_iter())?;
                    }
                    let buffer = RefCell::new(buffer);
                    answer(&EtcdRead { buffer: &buffer, now: self.clock.now(), holds: false }, query)
                };
                match read() {
                    // Somebody compacted it between two reads.
                    Err(error) if matches!(error.reason(), Reason::HistoryGone) => read(),
                    answer => answer,
                }
            }
        }
    }
}

/// A moment that is held: a revision of the cluster.
struct HeldAt {
    cluster: Arc<Cluster>,
    hold: Arc<Hold<i64>>,
    process: u32,
}

impl Ask for HeldAt {
    fn ask(&self, query: &Query<'_>) -> Result<Answer> {
        if self.process != std::process::id() {
            return Err(Reason::Forked.into());
        }
        let at = self.hold.with(|at| Ok(*at))?;
        let buffer = RefCell::new(Buffer::pinned(self.cluster.clone(), at));
        answer(&EtcdRead { buffer: &buffer, now: self.hold.now, holds: false }, query)
    }
}

impl Engine for EtcdEngine {
    fn id(&self) -> StoreId {
        self.cluster.id
    }

    fn cursor(&self, revision: Revision) -> Cursor {
        self.cluster.cursor(revision)
    }

    fn file(&self) -> Option<&dyn File> {
        None
    }

    fn chores(&self) -> Option<&dyn Chores> {
        Some(self)
    }

    fn whole(&self) -> Option<&dyn Whole> {
        Some(self)
    }

    fn address(&self) -> Option<&str> {
        Some(&self.address)
    }

    fn server(&self) -> Option<&str> {
        self.cluster.version.as_deref()
    }

    fn usable(&self) -> Result<()> {
        self.cluster.stand()
    }

    fn heard(&self) -> Result<Revision> {
        Ok(self.cluster.tail.end())
    }

    fn hold(&self) -> Result<Held> {
        self.known()?;
        self.refuse_closed()?;
        let mut buffer = Buffer::new(self.cluster.clone(), true);
        buffer.end()?;
        let hold = self.held.add(Hold::new(buffer.at(), self.snapshot_age, self.clock.clone()))?;
        Ok(Arc::new(HeldAt { cluster: self.cluster.clone(), hold, process: self.process }))
    }

    fn write(&self, write: Write, settled: &mut Settled) -> Result<Receipt> {
        self.write_in_turn(&write, settled)
    }

    fn transact(
        &self,
        author: &Author,
        f: &mut dyn FnMut(&dyn Transact) -> Result<()>,
        settled: &mut Settled,
    ) -> Result<Sealed> {
        self.transact_in_turn(author, f, settled)
    }

    fn submit(&self, write: Write, done: Completion) {
        self.submit_in_turn(write, done);
    }

    fn settle(&self, settled: &mut Settled) -> Option<Duration> {
        self.settle_in_turn(settled)
    }

    fn has_vital(&self) -> bool {
        self.turn.has_vital()
    }

    fn feed(&self) -> &Feed {
        &self.cluster.tail.feed
    }

    fn distance(&self, from: Revision, to: Revision) -> u64 {
        self.cluster.tail.distance(from, to)
    }

    fn may_wait(&self, _: Wait) -> Result<()> {
        self.may_write()
    }

    fn close(&self, how: Close<'_>, settled: &mut Settled) {
        match how {
            Close::Poisoned(error) => self.turn.poison(error, settled),
            Close::Writes => self.end_writes(settled),
            Close::Reads => {
                self.closed.store(true, Ordering::Release);
                drop(self.held.close());
                self.cluster.end_leases();
                self.cluster.end_session();
            }
        }
    }
}

/// All names.
fn everything() -> NameRange {
    NameRange::prefix("")
}
