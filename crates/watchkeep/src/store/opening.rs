//! Opening a store, wherever it is.

use std::path::Path;
use std::sync::Arc;

use crate::driver::{self, Signal};
#[cfg(feature = "etcd")]
use crate::engine::etcd::EtcdEngine;
use crate::engine::memory::MemoryEngine;
use crate::engine::sqlite::SqliteEngine;
use crate::types::error::{Reason, Result};
use crate::types::options::Options;

use super::core::Core;
use super::handle::Store;

impl Options {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    ///
    /// `NotFound` when the file or its folder is missing, `ForeignFile` when it is something else, `NewerFormat`,
    /// `ReadOnly`, `Sealed` when the file is sealed and another retention is asked for, `Corrupt`, `InvalidArgument` when
    /// the file has another durability than asked for, lies where a store cannot be, or has too long a name; `Full`,
    /// `Busy`, `Io`.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        let signal = new_signal()?;
        let engine = SqliteEngine::open(path.as_ref(), &self, signal.clone())?;
        Store::start(Core::start(Arc::new(engine), self, signal)?)
    }

    /// A store of its own that is gone when it closes: in memory, where no other process has it. It keeps all promises
    /// but those of files and processes, and takes what [`memory_limit`](Options::memory_limit) allows.
    ///
    /// # Errors
    ///
    /// `Io` when the operating system has no descriptor or thread left for it.
    pub fn open_in_memory(self) -> Result<Store> {
        let signal = new_signal()?;
        let engine = MemoryEngine::open(&self, signal.clone())?;
        Store::start(Core::start(Arc::new(engine), self, signal)?)
    }
}

#[cfg(feature = "etcd")]
impl Options {
    /// Opens a store in an etcd cluster, or makes it: `etcd://a:2379,b:2379,c:2379/prefix`, and `etcds://` for TLS.
    ///
    /// The same store may be open in any number of processes on any number of machines. User and password come from the
    /// environment, `WATCHKEEP_ETCD_USER` and `WATCHKEEP_ETCD_PASSWORD` or `WATCHKEEP_ETCD_PASSWORD_FILE`; so do the files
    /// of the certificates, `WATCHKEEP_ETCD_CA`, `WATCHKEEP_ETCD_CERT` and `WATCHKEEP_ETCD_KEY`. What a cluster does
    /// otherwise than a file stands in `docs/scale.md`.
    ///
    /// ```no_run
    /// use watchkeep::Options;
    /// let store = Options::new().connect("etcd://10.0.0.1,10.0.0.2,10.0.0.3/app")?;
    /// store.set("config", "theme", "dark")?;
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for an address that is none; `NotFound` when nothing is there and nothing is to be made;
    /// `Unavailable`, `Forbidden`; `Corrupt`, `Io`.
    pub fn connect(self, address: &str) -> Result<Store> {
        let signal = new_signal()?;
        let engine = EtcdEngine::open(address, &self, signal.clone())?;
        Store::start(Core::start(Arc::new(engine), self, signal)?)
    }
}

fn new_signal() -> Result<Arc<Signal>> {
    let failed = |cause| {
        let what = "no thread or descriptor is left for what a store does in the background".to_owned();
        Reason::Io { what, cause }
    };
    Ok(driver::of_this_process().map_err(failed)?)
}
