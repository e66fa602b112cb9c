//! Sealing a store: nobody writes to it any more, and whoever tries is told why.

use crate::driver::Lane;
use crate::types::error::{Reason, Result};
use crate::types::limits::MAX_SEAL;
use crate::types::revision::Revision;

use super::handle::Store;

impl Store {
    /// Seals the store: from now on every write is refused with kind `Sealed` and this text, in every process that has
    /// the file open or opens it later. Gives the last revision that the store has: nothing comes after it.
    ///
    /// Reads, watches and history go on. Sets, deletes, batches, transactions, acknowledgements, new consumers, quotas and
    /// retention are refused. A consumer that is held stays held, and can be given back; the log is trimmed. What is due is not there for those who read, as ever; it is announced once the seal
    /// is lifted.
    ///
    /// A backup of a sealed store is sealed. Sealing a sealed store changes the text. The seal is on the disk when this
    /// returns, whatever the durability.
    ///
    /// ```
    /// use watchkeep::{ErrorKind, Store};
    /// let store = Store::open_in_memory()?;
    /// let last = store.set("config", "theme", "dark")?;
    /// assert_eq!(store.seal("moved to etcd://10.0.0.1/app")?, last);
    ///
    /// let refused = store.set("config", "theme", "light").unwrap_err();
    /// assert_eq!(refused.kind(), ErrorKind::Sealed);
    /// assert!(refused.to_string().contains("moved to etcd://10.0.0.1/app"));
    /// assert_eq!(store.get("config", "theme")?.unwrap(), "dark");
    ///
    /// assert!(store.unseal()?);
    /// store.set("config", "theme", "light")?;
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the text is empty or has control characters, on a scoped handle, and for a store in a
    /// cluster; `TooLarge` when it is longer than [`MAX_SEAL`](crate::MAX_SEAL) bytes; `Busy`, `Nested`, `Full`, `Closed`,
    /// `Io`, `UnknownOutcome`.
    pub fn seal(&self, why: impl AsRef<str>) -> Result<Revision> {
        let why = why.as_ref();
        self.refuse_scope("it is sealed")?;
        if why.len() > MAX_SEAL {
            return Err(Reason::TooLong { what: "text of a seal", len: why.len(), limit: MAX_SEAL }.into());
        }
        if why.trim().is_empty() || why.chars().any(char::is_control) {
            let what = "the text of a seal is a line that says why; write one without control characters";
            return Err(Reason::Invalid { what: what.to_owned() }.into());
        }
        self.whole()?.seal(why)
    }

    /// Lifts the seal; whether there was one. Other processes announce what came due meanwhile within seconds.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` on a scoped handle, and for a store in a cluster; `Busy`, `Nested`, `Full`, `Closed`, `Io`,
    /// `UnknownOutcome`.
    pub fn unseal(&self) -> Result<bool> {
        self.refuse_scope("its seal is lifted")?;
        let was_sealed = self.whole()?.unseal()?;
        // What came due meanwhile has waited.
        self.core().signal.raise(Lane::Vital);
        Ok(was_sealed)
    }

    /// The text of the seal; none when the store takes writes. A store in a cluster is never sealed.
    ///
    /// ```
    /// use watchkeep::Store;
    /// let store = Store::open_in_memory()?;
    /// assert_eq!(store.sealed()?, None);
    /// store.seal("moving")?;
    /// assert_eq!(store.sealed()?.as_deref(), Some("moving"));
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Closed`, `Io`, `Corrupt`.
    pub fn sealed(&self) -> Result<Option<String>> {
        self.core().engine.whole().map_or(Ok(None), |whole| whole.sealed())
    }
}
