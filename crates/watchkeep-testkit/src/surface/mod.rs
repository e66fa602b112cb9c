//! What the suites talk to. The library is one surface; a server behind its wire, or several processes on a file,
//! are others, which need only say how they do these few things.

mod asynchronous;
mod hub;
mod library;
mod site;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use watchkeep::{Revision, Timestamp};

use crate::ops::{Outcome, Step};
use crate::record::{Note, Seen, Want, WatchSpec};

pub use asynchronous::block_on;
pub use hub::{Faults, Hub, Suffered, Wire};
#[cfg(feature = "etcd")]
pub use site::{CLUSTER, Cluster, patient};
pub use site::{Capabilities, File, Memory, Site};

/// Something that a suite did not expect to fail, and can only report.
pub type Fault = Box<dyn Error + Send + Sync>;

/// A function that is called for every change, with what it is told.
pub type Callback = Box<dyn FnMut(Note) + Send>;

/// What lies in the past: what of it is lost, and what is there.
pub type Past = (Option<(Revision, Revision)>, Vec<Seen>);

/// An entry in a reading of all: group, key and revision.
pub type Placed = (String, String, Revision);

/// A store as its users see it.
pub trait Surface: Send + Sync + fmt::Debug {
    /// Makes a step, writing under a label.
    fn perform(&self, step: &Step, label: &str) -> Outcome;

    /// The log after a revision.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    fn history(&self, want: &Want, after: Revision) -> Result<Past, Fault>;

    /// The last revision.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    fn last(&self) -> Result<Revision, Fault>;

    /// The oldest revision that the log holds.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    fn oldest(&self) -> Result<Revision, Fault>;

    /// Trims the log before a revision; how many events went.
    ///
    /// # Errors
    ///
    /// When it cannot be trimmed.
    fn compact(&self, before: Revision) -> Result<u64, Fault>;

    /// A consistent reading of all entries: the revision, and what was there.
    ///
    /// # Errors
    ///
    /// When it cannot be taken.
    fn picture(&self) -> Result<(Revision, Vec<Placed>), Fault>;

    /// Begins a stream.
    ///
    /// # Errors
    ///
    /// When it is refused.
    fn watch(&self, spec: &WatchSpec) -> Result<Box<dyn Stream>, Fault>;

    /// Registers a callback, where there are any; dropping what comes back unregisters it.
    fn on_change(&self, want: &Want, callback: Callback) -> Option<Box<dyn Registered>>;

    /// What the store finds wrong with itself.
    ///
    /// # Errors
    ///
    /// When it cannot look.
    fn check(&self) -> Result<Vec<String>, Fault>;

    /// Ends it.
    ///
    /// # Errors
    ///
    /// When it cannot end as it should.
    fn close(&self) -> Result<(), Fault>;

    /// The time as the store sees it.
    fn now(&self) -> Timestamp;
}

/// A callback's registration.
pub trait Registered: Send + fmt::Debug {
    /// Ends it.
    fn unregister(&self);
}

/// How long to wait for the next note of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// At most so long.
    Most(Duration),
    /// Until something comes, or the stream ends.
    Forever,
}

/// What a stream has next.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and mostly the large one")]
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// This.
    Note(Note),
    /// Nothing so far.
    Empty,
    /// Nothing here, which does not tell whether there is something.
    Pending,
    /// Nothing any more.
    Ended,
}

/// A stream under way.
pub trait Stream: Send + fmt::Debug {
    /// What comes next.
    fn next(&mut self, wait: Wait) -> Next;

    /// It sees what comes after this revision.
    fn start(&self) -> Revision;

    /// How many events it dropped.
    fn dropped(&self) -> u64;
}
