//! What is done to a store while faults happen.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use watchkeep::{
    ConsumerOptions, DeleteOptions, Error, ErrorKind, Filter, ManualClock, Options, Quota, Result, Retention,
    Revision, SetOptions, Store,
};

use crate::ops::{Choices, Dice};

/// The consumer of [`Workload::Consumers`], and the entry that says how far it came.
pub(super) const CONSUMER: &str = "worker";
pub(super) const POSITION: (&str, &str) = ("positions", "worker");

/// The events that a store with [`Workload::Upkeep`] keeps.
const KEPT: u64 = 48;

/// A kind of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Workload {
    /// One entry after the other: set, overwritten, deleted.
    Puts,
    /// Transactions of several events, deletions of groups among them; some give up.
    Transactions,
    /// Entries that expire, are touched, kept; time passes.
    Expiry,
    /// Deleted groups that are swept, a log that is trimmed by retention and by hand, checkpoints, another handle on
    /// the same file, restarts.
    Upkeep,
    /// Namespaces with quotas, which refuse some writes.
    Tenants,
    /// Three threads at once, committed together.
    Crowd,
    /// A named consumer, taken, read, acknowledged together with a write, and given back.
    Consumers,
}

/// Where a step is made.
pub struct Scene<'s> {
    /// The store.
    pub store: &'s Store,
    /// Its clock.
    pub clock: &'s ManualClock,
    /// What names the boot that the machine is in.
    pub boot: &'s str,
    /// Told of a write that returned, on the thread that wrote.
    pub acknowledge: &'s (dyn Fn(Revision) + Sync),
    /// Told of trimming before it is asked for.
    pub trimming: &'s dyn Fn(Revision),
}

impl std::fmt::Debug for Scene<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scene").field("store", self.store).finish_non_exhaustive()
    }
}

impl Workload {
    /// All of them.
    pub const ALL: [Workload; 7] = [
        Workload::Puts,
        Workload::Transactions,
        Workload::Expiry,
        Workload::Upkeep,
        Workload::Tenants,
        Workload::Crowd,
        Workload::Consumers,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Workload::Puts => "puts",
            Workload::Transactions => "transactions",
            Workload::Expiry => "expiry",
            Workload::Upkeep => "upkeep",
            Workload::Tenants => "tenants",
            Workload::Crowd => "crowd",
            Workload::Consumers => "consumers",
        }
    }

    /// How much of the log its store keeps.
    pub fn retention(self) -> Retention {
        if self == Workload::Upkeep { Retention::events(KEPT) } else { Retention::FOREVER }
    }

    /// Whether the store is closed and opened again before a step.
    pub fn restarts(self, step: u64) -> bool {
        self == Workload::Upkeep && step % 16 == 15
    }

    /// Makes a step. What the store may refuse, a quota say, is no error.
    ///
    /// # Errors
    ///
    /// What the store failed with.
    pub fn step(self, step: u64, dice: &mut Dice, scene: &Scene<'_>) -> Result<()> {
        match self {
            Workload::Puts => put(scene.store, dice, scene.acknowledge),
            Workload::Transactions => transaction(scene, dice),
            Workload::Expiry => expiry(scene, dice),
            Workload::Upkeep => upkeep(scene, step, dice),
            Workload::Tenants => tenants(scene, dice),
            Workload::Crowd => crowd(scene, dice),
            Workload::Consumers => consume(scene, dice),
        }
    }
}

fn pick<'n>(dice: &mut Dice, names: &[&'n str]) -> &'n str {
    names.get(dice.below(names.len())).copied().unwrap_or_default()
}

fn group(dice: &mut Dice) -> &'static str {
    pick(dice, &["a", "b", "t:a"])
}

fn key(dice: &mut Dice) -> String {
    format!("key-{}", dice.below(12))
}

/// Mostly short, at times longer than a page; text and bytes.
fn value(dice: &mut Dice) -> Vec<u8> {
    let len = if dice.below(12) == 0 { 3_000 + dice.below(3_000) } else { dice.below(300) };
    let first = if dice.below(4) == 0 { 0xc3 } else { b'a' };
    let letter = b'a' + u8::try_from(dice.below(26)).unwrap_or(0);
    let mut value = vec![letter; len];
    value.splice(..value.len().min(1), [first]);
    value
}

fn put(store: &Store, dice: &mut Dice, acknowledge: &(dyn Fn(Revision) + Sync)) -> Result<()> {
    match dice.below(8) {
        0 => store.delete(group(dice), &key(dice)).map(drop),
        1 => {
            let options = SetOptions::new().content_type("text/plain");
            acknowledge(store.set_with(group(dice), &key(dice), value(dice), options)?);
            Ok(())
        }
        _ => {
            acknowledge(store.set(group(dice), &key(dice), value(dice))?);
            Ok(())
        }
    }
}

fn transaction(scene: &Scene<'_>, dice: &mut Dice) -> Result<()> {
    let (events, gives_up) = (2 + dice.below(5), dice.below(6) == 0);
    let plan: Vec<_> = (0..events).map(|_| (dice.below(10), group(dice), key(dice), value(dice))).collect();
    let done = scene.store.transaction(|tx| {
        for (what, group, key, value) in &plan {
            match what {
                0 => drop(tx.delete_group(group)?),
                1 | 2 => drop(tx.delete_with(group, key, DeleteOptions::new())?),
                3 => tx.set_with_ttl(group, key, value.clone(), Duration::from_secs(500))?,
                _ => tx.set(group, key, value.clone())?,
            }
        }
        if gives_up { Err(Error::abort("on purpose")) } else { Ok(()) }
    });
    match done {
        Ok(done) => (scene.acknowledge)(done.revision),
        Err(error) if gives_up && error.kind() == ErrorKind::Aborted => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn expiry(scene: &Scene<'_>, dice: &mut Dice) -> Result<()> {
    let store = scene.store;
    let ttl = Duration::from_millis(1 + u64::try_from(dice.below(20_000)).unwrap_or(0));
    match dice.below(8) {
        0 | 1 => scene.clock.advance(Duration::from_secs(1 + u64::try_from(dice.below(8)).unwrap_or(0))),
        2 => drop(store.touch(group(dice), &key(dice), ttl)?),
        3 => drop(store.persist(group(dice), &key(dice))?),
        4 => drop(store.purge_expired()?),
        _ => (scene.acknowledge)(store.set_with_ttl(group(dice), &key(dice), value(dice), ttl)?),
    }
    Ok(())
}

fn upkeep(scene: &Scene<'_>, step: u64, dice: &mut Dice) -> Result<()> {
    let store = scene.store;
    match dice.below(8) {
        0 => drop(store.delete_group(group(dice))?),
        1 => {
            let last = store.last_revision()?.get();
            let before = last.saturating_sub(u64::try_from(dice.below(16)).unwrap_or(0));
            (scene.trimming)(Revision::new(before));
            store.compact(Revision::new(before))?;
        }
        2 => checkpoint(store, step),
        4 => {
            // As another process has it open.
            let other = Options::new()
                .ballast(false)
                .boot_id(scene.boot)
                .open(store.path().unwrap_or(Path::new("")))?;
            put(&other, dice, scene.acknowledge)?;
            other.close()?;
        }
        3 => {
            let many: Vec<_> = (0..8).map(|_| (key(dice), value(dice))).collect();
            let group = group(dice);
            let done = store.transaction(|tx| {
                many.iter().try_for_each(|(key, value)| tx.set(group, key, value.clone()))
            })?;
            (scene.acknowledge)(done.revision);
        }
        _ => put(store, dice, scene.acknowledge)?,
    }
    Ok(())
}

/// As another process does it that has the file open. Whether it gets through is its own affair.
fn checkpoint(store: &Store, step: u64) {
    let how = if step.is_multiple_of(2) { "PASSIVE" } else { "TRUNCATE" };
    if let Ok(conn) = rusqlite::Connection::open(store.path().unwrap_or(Path::new(""))) {
        let _ = conn.execute_batch("PRAGMA wal_autocheckpoint = 0");
        let _ = conn.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(()));
    }
}

fn tenants(scene: &Scene<'_>, dice: &mut Dice) -> Result<()> {
    let quota = Quota { max_keys: 6, max_groups: 2, max_bytes: 4_000 };
    let store = scene.store.scoped(pick(dice, &["one", "two"]))?.with_quota(quota)?;
    let done = match dice.below(8) {
        0 => store.delete_group(group(dice)).map(drop),
        1 => {
            let two = [(key(dice), value(dice)), (key(dice), value(dice))];
            let group = group(dice);
            let set = store
                .transaction(|tx| two.iter().try_for_each(|(key, value)| tx.set(group, key, value.clone())));
            set.map(|done| (scene.acknowledge)(done.revision))
        }
        _ => put(&store, dice, scene.acknowledge),
    };
    match done {
        Err(error) if error.kind() == ErrorKind::QuotaExceeded => Ok(()),
        done => done,
    }
}

fn crowd(scene: &Scene<'_>, dice: &mut Dice) -> Result<()> {
    let mut dice = [dice.split(), dice.split(), dice.split()];
    let (store, acknowledge) = (Arc::new(scene.store.clone()), scene.acknowledge);
    std::thread::scope(|threads| {
        let writers: Vec<_> = dice
            .iter_mut()
            .map(|dice| {
                let store = store.clone();
                threads.spawn(move || (0..2).try_for_each(|_| put(&store, dice, acknowledge)))
            })
            .collect();
        // All of them end before the first error is told.
        let done: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.into_iter().try_for_each(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// How far the consumer came is written twice in one transaction: as its acknowledgement, and as an entry.
fn consume(scene: &Scene<'_>, dice: &mut Dice) -> Result<()> {
    put(scene.store, dice, scene.acknowledge)?;
    let options = ConsumerOptions::new().filter(Filter::group_prefix(""));
    let mut consumer = match scene.store.consumer_with(CONSUMER, options) {
        Err(error) if error.kind() == ErrorKind::Held => {
            // It could not be given back: it comes free with time.
            scene.clock.advance(Duration::from_secs(3_600));
            return Ok(());
        }
        taken => taken?,
    };
    let mut last = None;
    for _ in 0..1 + dice.below(4) {
        last = consumer.try_recv().transpose()?.map(|event| event.revision()).or(last);
    }
    if let Some(revision) = last {
        let done = scene.store.transaction(|tx| {
            tx.set(POSITION.0, POSITION.1, revision.to_string())?;
            tx.ack(&consumer, revision)
        })?;
        (scene.acknowledge)(done.revision);
    }
    consumer.close()
}
