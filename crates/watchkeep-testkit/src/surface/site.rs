//! Where stores come from.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use watchkeep::{Clock, Options};
use watchkeep_faultdisk::Disk;

use super::library::Library;
use super::{Fault, Surface};
use crate::faults::scratch;

/// What a site can do. What it cannot, the suites leave out there, and say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// What is closed can be opened again, with what was in it.
    pub restarts: bool,
    /// Callbacks can be registered.
    pub callbacks: bool,
    /// A callback may write: it does not wait for another thread by that.
    pub callbacks_write: bool,
    /// Its log can be trimmed. Where it cannot, that is refused.
    pub trims: bool,
}

/// Opens stores for the suites.
pub trait Site: Send + Sync + fmt::Debug {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Opens the one store of this site, which may be open already: another handle on it, as from another process.
    /// The clock is given beside the options, which do not tell it.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    fn open(&self, options: Options, clock: Arc<dyn Clock>) -> Result<Arc<dyn Surface>, Fault>;
}

impl<S: Site + ?Sized> Site for Arc<S> {
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    fn open(&self, options: Options, clock: Arc<dyn Clock>) -> Result<Arc<dyn Surface>, Fault> {
        (**self).open(options, clock)
    }
}

/// A site whose stores others can be built upon.
pub(super) trait Shelf: Site {
    /// As [`Site::open`], as a library.
    fn library(&self, options: Options, clock: Arc<dyn Clock>) -> Result<Library, Fault>;
}

/// A store in a file of its own, in a folder that goes with this value.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    asynchronous: bool,
    // Removed when dropped.
    _folder: TempDir,
}

impl File {
    /// A place for a file that is not there yet.
    ///
    /// # Errors
    ///
    /// When no folder can be made.
    pub fn new() -> Result<File, Fault> {
        let folder = tempfile::tempdir()?;
        Ok(File { path: folder.path().join("store.db"), asynchronous: false, _folder: folder })
    }

    /// The same over a disk that can be made to fail.
    ///
    /// # Errors
    ///
    /// When no folder can be made, or not observed.
    pub fn over_a_disk() -> Result<(File, Disk), Fault> {
        let folder = scratch()?;
        let disk = Disk::watch(folder.path())?;
        Ok((File { path: folder.path().join("store.db"), asynchronous: false, _folder: folder }, disk))
    }

    /// The same, used by callers that must not block: writes are futures, watchers asynchronous streams.
    #[must_use]
    pub fn asynchronous(self) -> File {
        File { asynchronous: true, ..self }
    }
}

impl Shelf for File {
    fn library(&self, options: Options, clock: Arc<dyn Clock>) -> Result<Library, Fault> {
        let store = options.clock(clock.clone()).open(&self.path)?;
        Ok(Library::new(store, clock, self.asynchronous))
    }
}

impl Site for File {
    fn capabilities(&self) -> Capabilities {
        Capabilities { restarts: true, callbacks: true, callbacks_write: !self.asynchronous, trims: true }
    }

    fn open(&self, options: Options, clock: Arc<dyn Clock>) -> Result<Arc<dyn Surface>, Fault> {
        Ok(Arc::new(self.library(options, clock)?))
    }
}

/// A store that is gone when it is closed. Its revisions lie apart, so that whoever counts by them is found out.
#[derive(Debug, Clone, Copy)]
pub struct Memory;

impl Site for Memory {
    fn capabilities(&self) -> Capabilities {
        Capabilities { restarts: false, callbacks: true, callbacks_write: true, trims: true }
    }

    fn open(&self, options: Options, clock: Arc<dyn Clock>) -> Result<Arc<dyn Surface>, Fault> {
        let store = options.clock(clock.clone()).sparse_revisions(true).open_in_memory()?;
        Ok(Arc::new(Library::new(store, clock, false)))
    }
}

/// A store in a cluster, under a prefix of its own.
#[cfg(feature = "etcd")]
#[derive(Debug)]
pub struct Cluster {
    address: String,
}

/// The variable that names the members of a cluster, as `scripts/cluster` sets it.
#[cfg(feature = "etcd")]
pub const CLUSTER: &str = "WATCHKEEP_TEST_ETCD";

/// How long a write waits for its turn on a cluster of tests, whose members take up to ten seconds to elect a leader.
#[cfg(feature = "etcd")]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(40);

/// Options that wait while a busy machine lets a cluster elect a leader.
#[cfg(feature = "etcd")]
pub fn patient() -> Options {
    Options::new().busy_timeout(PATIENCE)
}

#[cfg(feature = "etcd")]
impl Cluster {
    /// A prefix that nobody has, in the cluster whose members stand in [`CLUSTER`]; none where there is no cluster.
    pub fn new() -> Option<Cluster> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static STORES: AtomicU64 = AtomicU64::new(0);
        let members = std::env::var(CLUSTER).ok()?;
        let number = STORES.fetch_add(1, Ordering::Relaxed);
        Some(Cluster { address: format!("etcd://{members}/kit/{}-{number}", std::process::id()) })
    }
}

#[cfg(feature = "etcd")]
impl Shelf for Cluster {
    fn library(&self, options: Options, clock: Arc<dyn Clock>) -> Result<Library, Fault> {
        let store = options.busy_timeout(PATIENCE).clock(clock.clone()).connect(&self.address)?;
        Ok(Library::new(store, clock, false))
    }
}

#[cfg(feature = "etcd")]
impl Site for Cluster {
    fn capabilities(&self) -> Capabilities {
        Capabilities { restarts: true, callbacks: true, callbacks_write: true, trims: false }
    }

    fn open(&self, options: Options, clock: Arc<dyn Clock>) -> Result<Arc<dyn Surface>, Fault> {
        Ok(Arc::new(self.library(options, clock)?))
    }
}
