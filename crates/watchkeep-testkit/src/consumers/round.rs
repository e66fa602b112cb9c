//! A made-up course: several handles on one file, as several processes have them, that write, take a name, handle
//! events, stand still while others take over, come back, and die.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tempfile::TempDir;
use watchkeep::{
    Clock, Consumer, ConsumerOptions, ConsumerStart, Durability, Error, ErrorKind, Event, Filter, Force,
    Kind, ManualClock, Options, Revision, Store, Timestamp,
};

use super::{Course, Life, Step};
use crate::surface::Fault;

const NAME: &str = "consumer";
const LEASE: Duration = Duration::from_secs(10);

/// How much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Steps of the course.
    pub steps: usize,
    /// Handles.
    pub holders: usize,
}

/// A handle with a clock of its own: one that does not move makes its holder stand still.
struct Place {
    name: usize,
    clock: Arc<ManualClock>,
    store: Store,
    holds: Option<Holds>,
}

struct Holds {
    consumer: Consumer,
    /// Which life of the course it is.
    life: usize,
    /// What was handed out and not acknowledged.
    open: Vec<Revision>,
}

struct Round {
    random: Rng,
    places: Vec<Place>,
    course: Course,
    tick: u64,
    _folder: TempDir,
}

/// Runs a course, the same for the same seed but for when a handle hears of what another wrote. Every event is handled
/// by a transaction that writes `done/<its revision>` and acknowledges it.
///
/// # Errors
///
/// What goes wrong otherwise.
pub fn round(seed: u64, load: Load) -> Result<Course, Fault> {
    let folder = tempfile::tempdir()?;
    let mut places = Vec::new();
    for name in 0..load.holders {
        let clock = Arc::new(ManualClock::default());
        let options = Options::new().durability(Durability::Relaxed).clock(clock.clone());
        let store = options.open(folder.path().join("store.db"))?;
        places.push(Place { name, clock, store, holds: None });
    }
    let random = Rng::with_seed(seed);
    let mut round = Round { random, places, course: Course::default(), tick: 0, _folder: folder };
    for _ in 0..load.steps {
        round.step()?;
    }
    round.end()
}

impl Place {
    fn restart(&mut self) -> Result<(), Fault> {
        self.holds = None;
        self.store.close()?;
        let options = Options::new().create(false).clock(self.clock.clone());
        self.store = options.open(self.store.path().ok_or("it is in memory")?)?;
        Ok(())
    }
}

/// Only events that another has not made by handling one.
fn options() -> ConsumerOptions {
    ConsumerOptions::new().filter(Filter::group("in")).start(ConsumerStart::Beginning).lease(LEASE)
}

fn is_fenced<T>(result: &Result<T, Error>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Fenced)
}

impl Round {
    fn step(&mut self) -> Result<(), Fault> {
        self.tick += 1;
        let at = self.random.usize(..self.places.len());
        // Out of the others, and back when it is done.
        let mut place = self.places.swap_remove(at);
        match self.random.u8(..100) {
            0..25 => self.write(&place)?,
            25..60 => self.handle(&mut place)?,
            60..80 => self.take(&mut place)?,
            80..90 => self.let_time_pass(&place),
            // It dies, or gives up: what it had open comes again.
            90..96 => place.holds = None,
            _ => place.restart()?,
        }
        self.places.push(place);
        Ok(())
    }

    fn write(&mut self, place: &Place) -> Result<(), Fault> {
        let random = &mut self.random;
        let keys: Vec<_> = (0..random.usize(1..6)).map(|_| random.u8(..20).to_string()).collect();
        let group = if random.u8(..4) == 0 { "other" } else { "in" };
        place.store.transaction(|tx| keys.iter().try_for_each(|key| tx.set(group, key, "value")))?;
        Ok(())
    }

    /// Takes some events, and handles some of those that it has.
    fn handle(&mut self, place: &mut Place) -> Result<(), Fault> {
        let (tick, random) = (self.tick, &mut self.random);
        let Place { store, holds, .. } = place;
        let Some(held) = holds else { return Ok(()) };
        let Some(life) = self.course.lives.get_mut(held.life) else { return Ok(()) };
        for _ in 0..random.usize(1..8) {
            let Some(event) = held.consumer.try_recv() else { break };
            if is_fenced(&event) {
                *holds = None;
                return Ok(());
            }
            let revision = event?.revision();
            life.steps.push((tick, Step::Handed(revision)));
            held.open.push(revision);
        }
        let some = random.usize(..=held.open.len());
        for revision in held.open.drain(..some).collect::<Vec<_>>() {
            let (gives_up, careless) = (random.u8(..10) == 0, random.bool());
            let handled = store.transaction(|tx| {
                tx.set("done", &revision.to_string(), "")?;
                let acked = tx.ack(&held.consumer, revision);
                // Whoever overlooks that it is not the holder any more writes nothing all the same.
                if !careless {
                    acked?;
                }
                if gives_up { Err(Error::abort("the handler failed")) } else { Ok(()) }
            });
            match handled {
                Ok(_) => life.steps.push((tick, Step::Acked(revision))),
                Err(error) if error.kind() == ErrorKind::Fenced => {
                    life.steps.push((tick, Step::Fenced(revision)))
                }
                // As a handler should: it does not go on past what it could not do.
                Err(error) if error.kind() == ErrorKind::Aborted => {
                    *holds = None;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn take(&mut self, place: &mut Place) -> Result<(), Fault> {
        if place.holds.is_some() {
            return Ok(());
        }
        match place.store.consumer_with(NAME, options()) {
            Err(error) if error.kind() == ErrorKind::Held => Ok(()),
            taken => {
                let consumer = taken?;
                let life = self.course.lives.len();
                self.course.lives.push(Life {
                    holder: format!("handle {}", place.name),
                    fence: consumer.fence(),
                    taken: self.tick,
                    steps: Vec::new(),
                });
                place.holds = Some(Holds { consumer, life, open: Vec::new() });
                Ok(())
            }
        }
    }

    /// The latest that anybody's clock shows.
    fn latest(&self) -> Timestamp {
        self.places.iter().map(|place| place.clock.now()).max().unwrap_or_default()
    }

    /// Time passes for everybody but one, who stands still; or it wakes, and it is as late as it is for the others.
    fn let_time_pass(&mut self, place: &Place) {
        let late = self.latest();
        if place.clock.now() < late {
            return place.clock.set(late);
        }
        let by = Duration::from_millis(self.random.u64(..15_000));
        self.places.iter().for_each(|other| other.clock.advance(by));
    }

    /// One that is left handles the rest; then the log tells what there was.
    fn end(mut self) -> Result<Course, Fault> {
        let late = self.latest();
        let Some(mut last) = self.places.pop() else { return Ok(self.course) };
        last.holds = None;
        for place in self.places.drain(..) {
            place.store.close()?;
        }
        // Whoever stood still may have a lease by a clock that is late.
        last.clock.set(late);
        last.clock.advance(LEASE);
        self.tick += 1;
        self.take(&mut last)?;
        let store = last.store.clone();
        let history: Vec<Event> =
            store.history(Filter::everything(), Revision::ZERO).collect::<Result<_, _>>()?;
        self.course.events = revisions(&history, "in").into_values().flatten().collect();
        self.course.events.sort_unstable();
        let end = self.course.events.last().copied().unwrap_or_default();
        let acked = || -> Result<Revision, Fault> {
            let row = store.consumers()?.into_iter().next().ok_or("the consumer is gone")?;
            Ok(row.acked.unwrap_or_default())
        };
        while acked()? < end {
            self.tick += 1;
            self.handle(&mut last)?;
            self.take(&mut last)?;
        }
        self.course.acked = acked()?;
        let history: Vec<Event> =
            store.history(Filter::everything(), Revision::ZERO).collect::<Result<_, _>>()?;
        for (key, times) in revisions(&history, "done") {
            let revision: Revision = key.parse()?;
            self.course.effects.extend(times.iter().map(|_| revision));
        }
        store.remove_consumer(NAME, Force::Yes)?;
        let report = store.check()?;
        if report.is_ok() { Ok(self.course) } else { Err(format!("{:?}", report.problems).into()) }
    }
}

/// When the keys of a group were set.
fn revisions(history: &[Event], group: &str) -> BTreeMap<String, Vec<Revision>> {
    let mut keys: BTreeMap<String, Vec<Revision>> = BTreeMap::new();
    for event in history.iter().filter(|event| event.group() == group && event.kind() == Kind::Set) {
        keys.entry(event.key().unwrap_or_default().to_owned()).or_default().push(event.revision());
    }
    keys
}
