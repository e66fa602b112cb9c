//! Sealing a store: nobody writes to it any more, and whoever tries is told why.

use crate::driver::Lane;
use crate::engine::Expected;
use crate::rules::{Author, Work, Write};
use crate::types::error::{ErrorKind, Reason, Result};
use crate::types::limits::MAX_SEAL;
use crate::types::name::NameRange;
use crate::types::revision::Revision;

use super::handle::Store;

impl Store {
    /// Seals the store: from now on every write is refused with kind `Sealed` and this text, in every process that has
    /// the file open or opens it later. Gives the last revision that the store has: nothing comes after it.
    ///
    /// Reads, watches and history go on. Sets, deletes, batches, transactions, acknowledgements, quotas, retention and
    /// the taking of consumers, also of those that are there, are refused. A batch with an id that was applied before
    /// gets its answer. A consumer that is held stays held, and can be given back; the log is trimmed. What is due is
    /// announced before the seal. What comes due later is not there for those who read, as ever, and is announced once
    /// the seal is lifted.
    ///
    /// A backup of a sealed store is sealed. Sealing a sealed store changes the text: who must not replace another's
    /// seal calls [`change_seal`](Store::change_seal). The seal is on the disk when this returns, whatever the
    /// durability.
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
        check_text(why)?;
        let whole = self.whole()?;
        self.announce_due()?;
        Ok(whole.change_seal(None, Some(why))?.last)
    }

    /// Changes the seal only if it is still the one that is expected, in one step: `from` is its text, or none where the
    /// store is not sealed; `to` is the new text, or none to lift it. With `last`, only if the store has had no event
    /// after that revision. Gives the last revision.
    ///
    /// So two who seal a store do not overwrite each other, and whoever has sealed it finds out whether the seal was
    /// lifted in between.
    ///
    /// ```
    /// use watchkeep::{ErrorKind, Store};
    /// let store = Store::open_in_memory()?;
    /// let last = store.change_seal(None, Some("moving"), None)?;
    /// let refused = store.change_seal(None, Some("maintenance"), None).unwrap_err();
    /// assert_eq!(refused.kind(), ErrorKind::Conflict);
    /// store.change_seal(Some("moving"), Some("moved"), Some(last))?;
    /// assert_eq!(store.sealed()?.as_deref(), Some("moved"));
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Conflict` when the store is not as expected; nothing is changed then. Otherwise as [`seal`](Store::seal).
    pub fn change_seal(
        &self,
        from: Option<&str>,
        to: Option<&str>,
        last: Option<Revision>,
    ) -> Result<Revision> {
        self.refuse_scope("its seal is changed")?;
        to.map_or(Ok(()), check_text)?;
        let whole = self.whole()?;
        if from.is_none() && to.is_some() && last.is_none() {
            self.announce_due()?;
        }
        let found = whole.change_seal(Some(&Expected { text: from, last }), to)?;
        if to.is_none() {
            self.core().signal.raise(Lane::Vital);
        }
        Ok(found.last)
    }

    /// Removes what is due by now: in a sealed store nobody is told of it. One that is sealed already is left as it is.
    fn announce_due(&self) -> Result<()> {
        let core = self.core();
        let Some(chores) = core.engine.chores() else { return Ok(()) };
        let begun = core.clock.now();
        // What comes due meanwhile comes after the seal.
        while chores.next_deadline()?.is_some_and(|next| next <= begun) {
            let work = Work::Reap { groups: NameRange::prefix("") };
            let (_, more) = match core.write(Write { author: Author::default(), work }) {
                Err(error) if error.kind() == ErrorKind::Sealed => return Ok(()),
                reaped => reaped?.reaped()?,
            };
            if !more {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Lifts the seal; whether there was one. Other processes announce what came due meanwhile within seconds.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` on a scoped handle, and for a store in a cluster; `Busy`, `Nested`, `Full`, `Closed`, `Io`,
    /// `UnknownOutcome`.
    pub fn unseal(&self) -> Result<bool> {
        self.refuse_scope("its seal is lifted")?;
        let found = self.whole()?.change_seal(None, None)?;
        // What came due meanwhile has waited.
        self.core().signal.raise(Lane::Vital);
        Ok(found.text.is_some())
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

fn check_text(why: &str) -> Result<()> {
    if why.len() > MAX_SEAL {
        return Err(Reason::TooLong { what: "text of a seal", len: why.len(), limit: MAX_SEAL }.into());
    }
    if why.trim().is_empty() || why.chars().any(char::is_control) {
        let what = "the text of a seal is a line that says why; write one without control characters";
        return Err(Reason::Invalid { what: what.to_owned() }.into());
    }
    Ok(())
}
