//! A folder under observation: what is recorded of it, and what shall fail.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use crate::image::{Op, Recording};
use crate::vfs;

/// Which operations shall fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    /// Writes, as an error of the device: half of the bytes get through.
    Write,
    /// Writes, because the disk is full: none of the bytes get through.
    Full,
    /// Syncs. What was written since the last one that succeeded may be lost for good, whatever later syncs say.
    Sync,
    /// Truncations.
    Truncate,
    /// Reads.
    Read,
    /// All of these, the opening of files and their deletion; writes as errors of the device.
    Any,
}

/// What shall fail, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Which operations.
    pub what: What,
    /// The how manieth of them, counted from 1 and from the moment at which the fault was given.
    pub nth: u64,
    /// Whether all that follow fail, too.
    pub sticky: bool,
}

/// An operation of SQLite on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Open,
    Read,
    Write,
    Truncate,
    Sync,
    Delete,
}

impl What {
    /// How SQLite is told of the failure; none when this operation does not fail.
    fn code(self, operation: Operation) -> Option<i32> {
        use rusqlite::ffi;
        let any = self == What::Any;
        match operation {
            Operation::Open if any => Some(ffi::SQLITE_CANTOPEN),
            Operation::Read if any || self == What::Read => Some(ffi::SQLITE_IOERR_READ),
            Operation::Write if self == What::Full => Some(ffi::SQLITE_FULL),
            Operation::Write if any || self == What::Write => Some(ffi::SQLITE_IOERR_WRITE),
            Operation::Truncate if any || self == What::Truncate => Some(ffi::SQLITE_IOERR_TRUNCATE),
            Operation::Sync if any || self == What::Sync => Some(ffi::SQLITE_IOERR_FSYNC),
            Operation::Delete if any => Some(ffi::SQLITE_IOERR_DELETE),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct Armed {
    fault: Option<Fault>,
    met: u64,
    fired: u64,
    lies: bool,
    slow: Duration,
}

/// What is known of an observed folder.
#[derive(Debug)]
pub(crate) struct Watched {
    folder: PathBuf,
    before: BTreeMap<String, Arc<[u8]>>,
    ops: Mutex<Vec<Op>>,
    armed: Mutex<Armed>,
}

impl Watched {
    /// How an operation that is about to be made fails; none when it does not.
    pub(crate) fn failure(&self, operation: Operation) -> Option<i32> {
        let mut armed = lock(&self.armed);
        let fault = armed.fault?;
        let code = fault.what.code(operation)?;
        armed.met += 1;
        let fires = armed.met == fault.nth || (fault.sticky && armed.met > fault.nth);
        armed.fired += u64::from(fires);
        fires.then_some(code)
    }

    pub(crate) fn record(&self, op: Op) {
        lock(&self.ops).push(op);
    }

    /// A sync begins: takes the time that it is to take.
    #[expect(clippy::disallowed_methods, reason = "a disk that is slow is slow")]
    pub(crate) fn take_time(&self) {
        let slow = lock(&self.armed).slow;
        if !slow.is_zero() {
            std::thread::sleep(slow);
        }
    }

    /// Whether syncs are said to have been made, and are not.
    pub(crate) fn lies(&self) -> bool {
        lock(&self.armed).lies
    }
}

static FOLDERS: RwLock<Vec<Weak<Watched>>> = RwLock::new(Vec::new());

/// The observed folder that a file lies in, and its name there.
pub(crate) fn find(path: &Path) -> Option<(Arc<Watched>, String)> {
    let (folder, name) = (path.parent()?, path.file_name()?.to_str()?);
    let folders = FOLDERS.read().unwrap_or_else(PoisonError::into_inner);
    let watched = folders.iter().filter_map(Weak::upgrade).find(|watched| watched.folder == folder)?;
    Some((watched, name.to_owned()))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder that is observed until this is dropped and the files in it are closed.
pub struct Disk(Arc<Watched>);

impl Disk {
    /// Observes a folder from now on. Nobody may have a file of it open; what is in it counts as safely on the disk.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read, or SQLite takes no other VFS.
    pub fn watch(folder: impl AsRef<Path>) -> std::io::Result<Disk> {
        vfs::install()?;
        // As SQLite names its files: without symbolic links.
        let folder = folder.as_ref().canonicalize()?;
        let mut before = BTreeMap::new();
        for file in std::fs::read_dir(&folder)? {
            let file = file?;
            if let (true, Ok(name)) = (file.file_type()?.is_file(), file.file_name().into_string()) {
                before.insert(name, std::fs::read(file.path())?.into());
            }
        }
        let watched = Arc::new(Watched { folder, before, ops: Mutex::default(), armed: Mutex::default() });
        let mut folders = FOLDERS.write().unwrap_or_else(PoisonError::into_inner);
        folders.retain(|watched| watched.strong_count() > 0);
        folders.push(Arc::downgrade(&watched));
        drop(folders);
        Ok(Disk(watched))
    }

    /// How many operations are recorded: the place of this moment in the recording.
    pub fn now(&self) -> usize {
        lock(&self.0.ops).len()
    }

    /// What happened so far.
    pub fn recording(&self) -> Recording {
        Recording::new(self.0.before.clone(), lock(&self.0.ops).clone())
    }

    /// Has operations fail, counted from now; a fault that was given before is taken away.
    pub fn fail(&self, fault: Fault) {
        let mut armed = lock(&self.0.armed);
        (armed.fault, armed.met, armed.fired) = (Some(fault), 0, 0);
    }

    /// Takes the fault away; how many operations it made fail.
    pub fn heal(&self) -> u64 {
        let mut armed = lock(&self.0.armed);
        armed.fault = None;
        armed.fired
    }

    /// How many operations the present fault made fail.
    pub fn fired(&self) -> u64 {
        lock(&self.0.armed).fired
    }

    /// From now on each sync takes so long, as on a disk: time for others to do what they should not.
    pub fn slow_syncs(&self, time: Duration) {
        lock(&self.0.armed).slow = time;
    }

    /// From now on says that syncs are made, and makes none: what a test of durability must find.
    pub fn lie_about_syncs(&self) {
        lock(&self.0.armed).lies = true;
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("folder", &self.0.folder)
            .field("recorded", &self.now())
            .finish_non_exhaustive()
    }
}
