//! A store in an observed folder, with everything noted that it says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;
use watchkeep::{
    Clock, Durability, Error, Filter, Item, Kind, ManualClock, Options, Revision, Store, Subscription,
    Timestamp, WatchOptions, Watcher,
};
use watchkeep_faultdisk::{Disk, Recording};

use super::workload::{Scene, Workload};
use super::{FILE, Ledger};
use crate::ops::Dice;
use crate::record::Seen;
use crate::surface::Fault;

/// A folder of its own, in memory where the machine has such.
///
/// # Errors
///
/// When it cannot be made.
pub fn scratch() -> std::io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("watchkeep-faults-");
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir() }
}

#[derive(Debug)]
struct Open {
    watcher: Watcher,
    _callback: Subscription,
    store: Store,
}

/// A store in an observed folder.
#[derive(Debug)]
pub struct Stage {
    /// The disk below it.
    pub disk: Arc<Disk>,
    ledger: Arc<Mutex<Ledger>>,
    clock: Arc<ManualClock>,
    workload: Workload,
    durability: Durability,
    boots: u64,
    open: Option<Open>,
    folder: TempDir,
}

impl Stage {
    /// An empty folder for a store that is used in this way.
    ///
    /// # Errors
    ///
    /// When there is no folder to be had.
    pub fn new(workload: Workload, durability: Durability) -> Result<Stage, Fault> {
        let folder = scratch()?;
        Ok(Stage {
            disk: Arc::new(Disk::watch(folder.path())?),
            ledger: Arc::default(),
            clock: Arc::default(),
            workload,
            durability,
            boots: 0,
            open: None,
            folder,
        })
    }

    /// What was noted.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the store is used for.
    pub fn workload(&self) -> Workload {
        self.workload
    }

    /// What its clock shows.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The store's file.
    pub fn path(&self) -> std::path::PathBuf {
        self.folder.path().join(FILE)
    }

    /// The store, while it is open.
    pub fn store(&self) -> Option<&Store> {
        self.open.as_ref().map(|open| &open.store)
    }

    /// What names the boot that its machine is in.
    fn boot(&self) -> String {
        format!("boot {}", self.boots)
    }

    /// Closes the store if it is open, and opens it in another boot, watched from the last event that anyone received.
    ///
    /// # Errors
    ///
    /// What opening it failed with.
    pub fn reopen(&mut self) -> watchkeep::Result<()> {
        self.close();
        self.boots += 1;
        let options = Options::new()
            .durability(self.durability)
            .retention(self.workload.retention())
            .clock(self.clock.clone())
            .boot_id(self.boot())
            .ballast(false);
        let store = options.open(self.path())?;
        self.ledger().opened(self.disk.now(), store.id());
        let all = || Filter::everything().kinds(Kind::ALL);
        let (disk, ledger, weak) = (self.disk.clone(), self.ledger.clone(), store.downgrade());
        let callback = store.on_change_with(all(), move |item| {
            if let (Item::Event(event), Some(store)) = (item, weak.upgrade()) {
                let cursor = store.cursor(event.revision());
                let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
                ledger.delivered(disk.now(), Seen::from(event), cursor);
            }
        });
        // What was acknowledged may not have been received yet.
        let received = self.ledger().events().last().map_or(Revision::ZERO, |event| event.revision);
        let watcher = store.watch_with(all(), WatchOptions::new().after(received))?;
        self.open = Some(Open { watcher, _callback: callback, store });
        Ok(())
    }

    /// Makes a step, and takes what the watcher has then.
    ///
    /// # Errors
    ///
    /// What the store failed with. What the watcher failed with is among the second.
    pub fn step(&mut self, step: u64, dice: &mut Dice) -> (watchkeep::Result<()>, Vec<Error>) {
        self.step_of(self.workload, step, dice)
    }

    /// As [`Stage::step`], of another workload.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn step_of(
        &mut self,
        workload: Workload,
        step: u64,
        dice: &mut Dice,
    ) -> (watchkeep::Result<()>, Vec<Error>) {
        let done = match &self.open {
            Some(Open { store, .. }) => {
                let (disk, ledger) = (&self.disk, &self.ledger);
                let note = || ledger.lock().unwrap_or_else(PoisonError::into_inner);
                let scene = Scene {
                    store,
                    clock: &self.clock,
                    boot: &self.boot(),
                    acknowledge: &|revision| {
                        let cursor = store.cursor(revision);
                        note().acknowledged(disk.now(), cursor);
                    },
                    trimming: &|to| note().trimming(disk.now(), to),
                };
                workload.step(step, dice, &scene)
            }
            None => Ok(()),
        };
        (done, self.drain())
    }

    /// Takes what the watcher has; what it failed with.
    pub fn drain(&mut self) -> Vec<Error> {
        let mut errors = Vec::new();
        while let Some(open) = &mut self.open {
            let Some(item) = open.watcher.try_recv() else { break };
            match item {
                Ok(event) => {
                    let cursor = open.store.cursor(event.revision());
                    self.ledger().delivered(self.disk.now(), Seen::from(&event), cursor);
                }
                Err(error) => {
                    errors.push(error);
                    break;
                }
            }
        }
        errors
    }

    /// Closes the store, and takes what the watcher still has.
    pub fn close(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        if let Err(error) = open.store.close() {
            self.ledger().problems.push(format!("closing failed: {error:?}"));
        }
        // A watcher that cannot read the log fails once with the close, and ends.
        for item in open.watcher.by_ref().take(10_000) {
            match item {
                Ok(event) => {
                    let cursor = open.store.cursor(event.revision());
                    self.ledger().delivered(self.disk.now(), Seen::from(&event), cursor);
                }
                Err(_) => break,
            }
        }
    }

    /// Runs so many steps without faults, and closes the store.
    ///
    /// # Errors
    ///
    /// What the store failed with.
    pub fn run(&mut self, steps: u64, dice: &mut Dice) -> Result<(), Fault> {
        self.reopen()?;
        for step in 0..steps {
            if self.workload.restarts(step) {
                self.reopen()?;
            }
            let (done, errors) = self.step(step, dice);
            done?;
            errors.into_iter().next().map_or(Ok(()), Err)?;
        }
        self.close();
        Ok(())
    }

    /// Everything that happened to the folder.
    pub fn recording(&self) -> Recording {
        self.disk.recording()
    }
}
