//! The engine in memory: gone with the process. A commit publishes a new state; whoever reads keeps the one that it has.

#[cfg(all(test, any(loom, shuttle)))]
mod models;
mod read;
mod rows;
mod spacing;
mod state;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::driver::{Lane, Signal};
use crate::engine::feed::Feed;
use crate::engine::floors::Floors;
use crate::engine::hold::{Hold, Holds};
use crate::engine::job::{self, Clear};
use crate::engine::lead::{Lead, Own, OwnDone, TakesAlong};
use crate::engine::led::{Led, Token};
use crate::engine::reads::answer;
use crate::engine::sqlite::Image;
use crate::engine::turn::{Admission, Turn};
use crate::engine::upkeep::Upkeep;
use crate::engine::{
    Answer, Ask, Chores, Close, Completion, Engine, Expected, File, Found, Held, Query, Receipt, Sealed,
    Settled, Transact, Wait, Whole, mixed_up, nesting,
};
use crate::rules::{self, Author, Moment, Write};
use crate::types::backup::{Backup, BackupOptions};
use crate::types::batch::BatchId;
use crate::types::clock::{Clock, Timestamp};
use crate::types::consumer::Force;
use crate::types::error::{ErrorKind, Reason, Result};
use crate::types::limits::{ANSWER_TIME, BATCH_JOBS, Limits, TRIM_STEP, UPKEEP_PATIENCE};
use crate::types::options::Options;
use crate::types::quota::Quota;
use crate::types::revision::{Cursor, Epoch, Revision, StoreId};
use crate::types::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::types::sync::{Mutex, lock};

use read::MemoryRead;
use rows::MemoryRows;
use spacing::Spacing;
use state::State;

#[cfg(all(test, shuttle))]
pub(crate) use models::nth;
#[cfg(all(test, any(loom, shuttle)))]
pub(crate) use models::ordinal;

/// The engine in memory.
pub(crate) struct MemoryEngine {
    id: StoreId,
    turn: Turn<Token>,
    feed: Feed,
    floors: Arc<Floors>,
    signal: Arc<Signal>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    /// How many bytes entries and log may take, about.
    most: u64,
    busy_timeout: Duration,
    snapshot_age: Duration,
    upkeep: Upkeep,
    /// How many events came since the log was looked at for trimming.
    untrimmed: AtomicU64,
    /// The state as of the last commit.
    state: Mutex<Arc<State>>,
    held: Holds<Arc<State>>,
    closed: AtomicBool,
    /// How many writes a leader takes along.
    takes_along: TakesAlong,
    /// Whose it is: a forked child has a copy, and nobody who works for it.
    process: u32,
}

impl MemoryEngine {
    /// An empty store. The signal is raised when there is something to do for it in the background.
    pub(crate) fn open(options: &Options, signal: Arc<Signal>) -> Result<MemoryEngine> {
        let spacing = if options.sparse_revisions { Spacing::DRAWN } else { Spacing::DENSE };
        let state = State::new(Epoch::random()?, spacing);
        Ok(MemoryEngine::over(StoreId::random()?, state, TakesAlong(BATCH_JOBS), options, signal))
    }

    fn over(
        id: StoreId,
        mut state: State,
        takes_along: TakesAlong,
        options: &Options,
        signal: Arc<Signal>,
    ) -> MemoryEngine {
        state.retention = options.retention.unwrap_or_default();
        MemoryEngine {
            id,
            turn: Turn::new(Token, signal.clone()),
            feed: Feed::default(),
            floors: Arc::default(),
            signal,
            clock: options.clock.clone(),
            limits: options.limits,
            most: options.memory_limit,
            busy_timeout: options.busy_timeout,
            snapshot_age: options.snapshot_age,
            upkeep: Upkeep::default(),
            untrimmed: AtomicU64::new(0),
            state: Mutex::new(Arc::new(state)),
            held: Holds::default(),
            closed: AtomicBool::new(false),
            takes_along,
            process: std::process::id(),
        }
    }

    fn state(&self) -> Arc<State> {
        lock(&self.state).clone()
    }

    /// Makes a state the one that is read, unless another commit came after the one that it was made of.
    fn publish(&self, mut state: State) -> bool {
        let mut published = lock(&self.state);
        if published.commit != state.commit {
            return false;
        }
        state.commit += 1;
        let before = std::mem::replace(&mut *published, Arc::new(state));
        drop(published);
        // What nobody reads any more is freed with no lock held.
        drop(before);
        true
    }
    /// One transaction; whether all of it is done.
    fn attempt(&self, lead: &mut Lead<'_, Token>, own: &mut Own<'_>, outcome: &mut Outcome) -> bool {
        let mut rows = MemoryRows::begin(State::clone(&self.state()), self.most);
        let moment = || Moment { now: self.clock.now(), limits: self.limits, is_tight: false };
        let mut is_reaping = false;
        if !outcome.has_failed {
            let done = match own {
                Own::Write(write) => job::apply(&mut rows, moment(), write, &mut lead.in_the_way)
                    .map(|done| done.map(OwnDone::Write)),
                Own::Closure { author, f } => {
                    let (moment, state) = (moment(), rows.state.clone());
                    let f = |tx: &dyn Transact| nesting::inside(None, self.turn.address(), || f(tx));
                    let read = |query: &Query<'_>| {
                        let state = state.borrow().clone();
                        answer(&MemoryRead { state: &state, now: moment.now }, query)
                    };
                    let sealed = job::close_over(&mut rows, moment, author, &read, &mut lead.in_the_way, f);
                    sealed.map(|done| done.map(OwnDone::Closure))
                }
                Own::Others => Ok(Clear::Done(Ok(OwnDone::Others))),
            };
            match done {
                Ok(Clear::Done(done)) => outcome.own = Some(done),
                Ok(Clear::NotYet) => is_reaping = true,
                Err(error) => {
                    *outcome = Outcome { own: Some(Err(error)), has_failed: true };
                    return false;
                }
            }
        }
        // What others wrote waits behind what is in the way of the leader's own.
        if !is_reaping && self.takes_along.apply(&self.turn, &mut lead.taken, &mut rows, moment).is_err() {
            return false;
        }
        let (base, last, has_sooner) = (rows.base, rows.last, rows.has_sooner);
        let (mut state, changes) = rows.into_parts();
        // The log takes no more than half of the room, whoever needs it.
        if last > base && state.log_weight() > self.most / 2 {
            state.trim_to(self.most / 2 - self.most / 16);
        }
        if !self.publish(state) {
            return false;
        }
        if last > base {
            self.note(changes.len());
            self.feed.push(base, last, changes);
            lead.announced = Some(last);
        }
        if has_sooner {
            self.signal.raise(Lane::Vital);
        }
        !is_reaping
    }

    /// Changes the state in a commit that announces nothing.
    fn exclusively<T>(&self, patience: Duration, mut f: impl FnMut(&mut State) -> Result<T>) -> Result<T> {
        match self.turn.enter(|| None, patience)? {
            Admission::Lead(token) => Lead::new(&self.turn, token).with(|_| {
                loop {
                    let mut state = State::clone(&self.state());
                    let done = f(&mut state)?;
                    if self.publish(state) {
                        return Ok(done);
                    }
                }
            }),
            Admission::Done(result) => Err(result.err().unwrap_or_else(mixed_up)),
        }
    }

    /// After a commit: the log is looked at for trimming now and then.
    fn note(&self, events: usize) {
        let events = u64::try_from(events).unwrap_or(u64::MAX);
        if self.untrimmed.fetch_add(events, Ordering::Relaxed).saturating_add(events) >= TRIM_STEP / 2 {
            self.untrimmed.store(0, Ordering::Relaxed);
            self.upkeep.want();
            self.signal.raise(Lane::Work);
        }
    }

    fn refuse_closed(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Reason::Closed.into()) } else { Ok(()) }
    }

    fn maintenance_step(&self) -> Result<bool> {
        drop(self.held.end_old());
        let now = self.clock.now();
        let cut = |state: &State| rules::cut(state, &state.retention, now, self.floors.least());
        let old = |state: &State| state.old_answers(before(now, ANSWER_TIME));
        let state = self.state();
        if cut(&state)?.is_none() && old(&state).is_empty() {
            return Ok(false);
        }
        self.exclusively(UPKEEP_PATIENCE.min(self.busy_timeout), |state| {
            let cut = cut(state)?;
            cut.into_iter().for_each(|cut| state.trim(cut));
            let old = old(state);
            old.iter().for_each(|id| state.forget_answer(id));
            Ok(cut.is_some() || !old.is_empty())
        })
    }
}

fn before(now: Timestamp, age: Duration) -> Timestamp {
    Timestamp::from_millis(now.as_millis().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)))
}

/// What became of the leader's own write so far.
#[derive(Default)]
struct Outcome {
    own: Option<Result<OwnDone>>,
    /// It took the transaction with it, and is not run again.
    has_failed: bool,
}

impl Led for MemoryEngine {
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
        let mut outcome = Outcome::default();
        while !self.attempt(&mut lead, &mut own, &mut outcome) {}
        if lead.announced.is_some() && matches!(outcome.own, Some(Err(_))) {
            // What was due went, although the write was refused: nobody else announces it.
            self.signal.raise(Lane::Work);
        }
        lead.finish(outcome.own, settled, |_| {})
    }
}

impl Ask for MemoryEngine {
    fn ask(&self, query: &Query<'_>) -> Result<Answer> {
        self.known()?;
        if !query.lingers() {
            self.refuse_closed()?;
        }
        answer(&MemoryRead { state: &self.state(), now: self.clock.now() }, query)
    }
}

impl Engine for MemoryEngine {
    fn id(&self) -> StoreId {
        self.id
    }

    fn cursor(&self, revision: Revision) -> Cursor {
        self.state().epochs.cursor(self.id, revision)
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

    fn distance(&self, from: Revision, to: Revision) -> u64 {
        self.state().spacing.events(from, to)
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

    fn hold(&self) -> Result<Held> {
        self.known()?;
        Ok(self.held.add(Hold::new(self.state(), self.snapshot_age, self.clock.clone()))?)
    }

    fn feed(&self) -> &Feed {
        &self.feed
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
            }
        }
    }
}

impl Chores for MemoryEngine {
    fn next_deadline(&self) -> Result<Option<Timestamp>> {
        Ok(self.state().deadlines.into_iter().next().map(|(deadline, ..)| *deadline))
    }

    fn maintain(&self) -> Result<bool> {
        if !self.upkeep.is_due() {
            return Ok(false);
        }
        match self.maintenance_step() {
            // The next round is soon enough.
            Err(error) if error.kind() == ErrorKind::Busy => {
                self.upkeep.want();
                Ok(false)
            }
            done => done,
        }
    }

    fn floors(&self) -> &Arc<Floors> {
        &self.floors
    }

    fn trim(&self, before: Revision, force: Force) -> Result<u64> {
        self.may_write()?;
        self.exclusively(self.busy_timeout, |state| state.trim_before(before, force))
    }
}

impl Whole for MemoryEngine {
    fn check(&self) -> Result<(Vec<String>, [u64; 3])> {
        self.refuse_closed()?;
        let state = self.state();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let entries = state.groups.into_iter().map(|(_, group)| group.entries.len()).sum();
        Ok((state.problems(), [count(entries), count(state.groups.len()), count(state.log.len())]))
    }

    fn repair(&self) -> Result<Vec<String>> {
        self.may_write()?;
        self.refuse_closed()?;
        Ok(Vec::new())
    }

    fn change_seal(&self, expected: Option<&Expected<'_>>, to: Option<&str>) -> Result<Found> {
        self.may_write()?;
        self.exclusively(self.busy_timeout, |state| {
            let found = Found { text: state.sealed.as_deref().map(str::to_owned), last: state.last() };
            found.meets(expected)?;
            state.sealed = to.map(Arc::from);
            Ok(found)
        })
    }

    fn sealed(&self) -> Result<Option<String>> {
        self.known()?;
        self.refuse_closed()?;
        Ok(self.state().sealed.as_deref().map(str::to_owned))
    }

    fn quotas(&self) -> Result<Vec<(String, Quota)>> {
        self.known()?;
        self.refuse_closed()?;
        let state = self.state();
        let all = state.namespaces.into_iter().filter(|(_, namespace)| namespace.quota.limits());
        Ok(all.map(|(name, namespace)| (name.to_string(), namespace.quota)).collect())
    }

    fn backup(&self, target: &Path, options: &mut BackupOptions) -> Result<Backup> {
        self.refuse_closed()?;
        let state = self.state();
        if state.spacing != Spacing::DENSE {
            let what =
                "revisions lie apart in this store, which no file knows; open it without sparse_revisions";
            return Err(Reason::Invalid { what: what.to_owned() }.into());
        }
        let image = Image::new(state.retention)?;
        for (id, group) in &state.groups {
            image.group(id.0, &group.name, group.keys, group.bytes)?;
            for (key, stored) in &group.entries {
                image.entry(id.0, &stored.entry(key))?;
            }
        }
        for (name, namespace) in &state.namespaces {
            image.namespace(name, namespace.usage, namespace.quota)?;
        }
        for (name, (row, filter)) in &state.consumers {
            image.consumer(name, row, filter)?;
        }
        for ((client, sequence), (at, answer)) in &state.answers {
            let id = BatchId { client: client.to_string(), sequence: *sequence };
            image.answer(&id, *at, answer)?;
        }
        for row in state.rows_after(Revision::ZERO) {
            image.event(&row.change, row.total)?;
        }
        image.marks(state.trimmed, state.fence)?;
        state.sealed.as_deref().map_or(Ok(()), |why| image.seal(why))?;
        image.write(target, options)
    }
}

impl Ask for Hold<Arc<State>> {
    fn ask(&self, query: &Query<'_>) -> Result<Answer> {
        let state = self.with(|state| Ok(state.clone()))?;
        answer(&MemoryRead { state: &state, now: self.now }, query)
    }
}
