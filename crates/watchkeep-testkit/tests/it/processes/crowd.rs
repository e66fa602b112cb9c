//! A file in a folder of its own, and processes that have it open.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use watchkeep::{Durability, Options, Retention, Store};
use watchkeep_testkit::processes::Process;
use watchkeep_testkit::surface::Fault;

pub(crate) type Result<T = ()> = std::result::Result<T, Fault>;

/// How long a write waits for others, where that is not what is tested.
pub(crate) const BUSY: Duration = Duration::from_secs(30);

pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_faults"))
}

pub(crate) struct Crowd {
    pub(crate) folder: TempDir,
    pub(crate) store: Store,
    started: usize,
}

impl Crowd {
    pub(crate) fn new(durability: Durability) -> Result<Crowd> {
        let folder = tempfile::tempdir()?;
        let options = Options::new().durability(durability).retention(Retention::FOREVER);
        let store = options.busy_timeout(BUSY).open(folder.path().canonicalize()?.join("a.db"))?;
        Ok(Crowd { folder, store, started: 0 })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.store.path().map(Path::to_path_buf).unwrap_or_default()
    }

    /// A file beside the store's.
    pub(crate) fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.path().into_os_string();
        path.push(suffix);
        path.into()
    }

    pub(crate) fn process(&mut self) -> Result<Process> {
        self.process_with(BUSY)
    }

    pub(crate) fn process_with(&mut self, busy: Duration) -> Result<Process> {
        self.started += 1;
        Process::start(program(), &self.path(), self.started, busy)
    }

    /// Processes, so many.
    pub(crate) fn processes(&mut self, count: usize) -> Result<Vec<Process>> {
        (0..count).map(|_| self.process()).collect()
    }

    pub(crate) fn sound(&self) -> Result {
        assert_eq!(self.store.check()?.problems, Vec::<String>::new());
        Ok(())
    }
}
