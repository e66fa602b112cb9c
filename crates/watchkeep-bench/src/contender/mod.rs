//! Who is measured. A contender opens a store in a folder; the workloads use nothing but these traits, so another
//! contender is a file here, and a line in [`OURS`].

mod disk;
mod limits;
mod raw;
mod watchkeep;

use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;
use crate::data::Name;
use crate::plan::{Cell, Workload};

/// Those of this crate. The first that takes a cell is what the others are compared with, unless it is ours.
pub(crate) const OURS: &[&dyn Contender] = &[
    &watchkeep::Watchkeep,
    &watchkeep::Importing,
    &watchkeep::Callbacks,
    &raw::PLAIN,
    &raw::CACHE,
    &raw::NO_LOG,
    &limits::Channel,
    &limits::Callback,
    &disk::Disk { append: false },
    &disk::Disk { append: true },
];

/// A store, or a model of one.
pub trait Contender: Sync + Debug {
    /// A word.
    fn name(&self) -> &'static str;

    /// Versions and settings, for the report.
    fn about(&self) -> String;

    /// How many rows a set writes: with the row of the log, or without.
    fn rows(&self) -> u32 {
        1
    }

    /// Whether it does this.
    fn takes(&self, cell: &Cell) -> bool;

    /// Opens the store in a folder of its own, making it when the folder is empty.
    ///
    /// # Errors
    /// As the store has them.
    fn open(&self, folder: &Path, cell: &Cell) -> Result<Box<dyn Peer>>;
}

/// An open store, shared by the threads of a cell. What a contender does not take, it need not have.
pub trait Peer: Send + Sync {
    /// What one thread writes and reads through.
    ///
    /// # Errors
    /// As the store has them.
    fn session(&self) -> Result<Box<dyn Session + '_>>;

    /// Writes many entries, fast: the sets with the serial numbers below `count`, over the names in turn.
    ///
    /// # Errors
    /// As the store has them.
    fn load(&self, _names: &[Name], _count: usize) -> Result<()> {
        unsupported("load")
    }

    /// How many events its log holds; none where it keeps no log.
    ///
    /// # Errors
    /// As the store has them.
    fn logged(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Watches one key from now on.
    ///
    /// # Errors
    /// As the store has them.
    fn watch(&self, _name: &Name) -> Result<Box<dyn Watch>> {
        unsupported("watch")
    }

    /// Makes sets with this many on their way at once, as long as there is a next one, and tells how long each took;
    /// one after the other where there is no other way.
    ///
    /// # Errors
    /// As the store has them.
    fn pipeline(
        &self,
        _depth: usize,
        next: &mut dyn FnMut() -> Option<(Name, String)>,
        done: &mut dyn FnMut(Duration),
    ) -> Result<()> {
        let mut session = self.session()?;
        while let Some((name, value)) = next() {
            let begun = Instant::now();
            session.set(&name, &value)?;
            done(begun.elapsed());
        }
        Ok(())
    }

    /// Drops the log, and whatever else is not needed any more.
    ///
    /// # Errors
    /// As the store has them.
    fn trim(&self) -> Result<()> {
        Ok(())
    }

    /// Deletes a group with all its entries.
    ///
    /// # Errors
    /// As the store has them.
    fn delete_group(&self, _group: &str) -> Result<()> {
        unsupported("delete_group")
    }

    /// As `load`, with entries that `expire` removes.
    ///
    /// # Errors
    /// As the store has them.
    fn load_expiring(&self, _names: &[Name], _count: usize) -> Result<()> {
        unsupported("load_expiring")
    }

    /// Lets the time come for what expires, and removes it.
    ///
    /// # Errors
    /// As the store has them.
    fn expire(&self) -> Result<()> {
        unsupported("expire")
    }

    /// Reads the whole log, each event with all that it says; with several watchers, each reads all.
    ///
    /// # Errors
    /// As the store has them.
    fn replay(&self, _workload: Workload, _events: u64, _watchers: usize) -> Result<Replayed> {
        unsupported("replay")
    }
}

/// What one thread writes and reads through.
pub trait Session {
    /// Writes an entry.
    ///
    /// # Errors
    /// As the store has them.
    fn set(&mut self, name: &Name, value: &str) -> Result<()>;

    /// Hands over the value, owned by the reader as a user gets it; whether it is there.
    ///
    /// # Errors
    /// As the store has them.
    fn get(&mut self, _name: &Name, _value: &mut dyn FnMut(&[u8])) -> Result<bool> {
        unsupported("get")
    }

    /// Hands over the values of a group in the order of its keys.
    ///
    /// # Errors
    /// As the store has them.
    fn scan(&mut self, _group: &str, _value: &mut dyn FnMut(&[u8])) -> Result<()> {
        unsupported("scan")
    }
}

/// A watch of one key.
pub trait Watch: Send {
    /// Takes the next event if there is one; its revision.
    ///
    /// # Errors
    /// As the store has them.
    fn try_next(&mut self) -> Result<Option<u64>>;

    /// Waits for the next event; its revision, none at the end.
    ///
    /// # Errors
    /// As the store has them.
    fn next(&mut self) -> Result<Option<u64>> {
        unsupported("next")
    }
}

/// What a reader of the log came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// How many.
    pub events: u64,
    /// All revisions, added up: none is missing, none came twice.
    pub revisions: u64,
    /// The bytes of all values.
    pub bytes: u64,
}

/// The answer of a contender that was asked for what it does not do.
///
/// # Errors
/// Always.
pub fn unsupported<T>(what: &str) -> Result<T> {
    Err(format!("this contender has no `{what}`; its `takes` is wrong").into())
}
