//! Who is measured. A contender opens a store in a folder; the workloads use nothing but these traits, so another
//! contender is a file here, and a line in [`ALL`].

mod disk;
mod limits;
mod raw;
mod watchkeep;

use std::path::Path;

use ::watchkeep::Durability;

use crate::Result;
use crate::data::Name;
use crate::plan::{Cell, Workload};

/// All contenders. The first that takes a cell is what the others are compared with, unless it is ours.
pub(crate) const ALL: &[&dyn Contender] = &[
    &watchkeep::Watchkeep,
    &watchkeep::Callbacks,
    &raw::Raw { cache_mib: None },
    &raw::Raw { cache_mib: Some(256) },
    &limits::Channel,
    &limits::Callback,
    &disk::Disk { append: false },
    &disk::Disk { append: true },
];

/// A store, or a model of one.
pub(crate) trait Contender: Sync {
    fn name(&self) -> &'static str;

    /// Versions and settings, for the report.
    fn about(&self) -> String;

    /// Whether it does this.
    fn takes(&self, cell: &Cell) -> bool;

    /// Opens the store in a folder of its own, making it when the folder is empty.
    fn open(&self, folder: &Path, durability: Durability) -> Result<Box<dyn Peer>>;
}

/// An open store, shared by the threads of a cell. What a contender does not take, it need not have.
pub(crate) trait Peer: Send + Sync {
    /// What one thread writes and reads through.
    fn session(&self) -> Result<Box<dyn Session + '_>>;

    /// Writes many entries, fast: the sets with the serial numbers below `count`, over the names in turn.
    fn load(&self, _names: &[Name], _count: usize) -> Result<()> {
        unsupported("load")
    }

    /// How many events its log holds.
    fn logged(&self) -> Result<u64> {
        unsupported("logged")
    }

    /// Watches one key from now on.
    fn watch(&self, _name: &Name) -> Result<Box<dyn Watch>> {
        unsupported("watch")
    }

    /// Reads the whole log, each event with all that it says.
    fn replay(&self, _workload: Workload, _events: u64) -> Result<Replayed> {
        unsupported("replay")
    }
}

/// What one thread writes and reads through.
pub(crate) trait Session {
    fn set(&mut self, name: &Name, value: &str) -> Result<()>;

    /// Hands over the value, owned by the reader as a user gets it; whether it is there.
    fn get(&mut self, _name: &Name, _value: &mut dyn FnMut(&[u8])) -> Result<bool> {
        unsupported("get")
    }
}

/// A watch of one key.
pub(crate) trait Watch: Send {
    /// Takes the next event if there is one; its revision.
    fn try_next(&mut self) -> Result<Option<u64>>;

    /// Waits for the next event; its revision, none at the end.
    fn next(&mut self) -> Result<Option<u64>> {
        unsupported("next")
    }
}

/// What a reader of the log came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replayed {
    pub(crate) events: u64,
    /// All revisions, added up: none is missing, none came twice.
    pub(crate) revisions: u64,
    /// The bytes of all values.
    pub(crate) bytes: u64,
}

fn unsupported<T>(what: &str) -> Result<T> {
    Err(format!("this contender has no `{what}`; its `takes` is wrong").into())
}
