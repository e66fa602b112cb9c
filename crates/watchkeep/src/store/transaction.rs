//! Transactions: all or nothing, over many groups.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use crate::engine::Transact;
use crate::types::batch::{Operation, Outcome};
use crate::types::error::{Reason, Result};
use crate::types::name::Scope;
use crate::types::revision::{Revision, StoreId};
use crate::types::value::Value;
use crate::types::writing::{DeleteOptions, SetOptions};

use super::consumer::Acker;
use super::view::{Source, View};

/// A transaction that was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed<T> {
    /// What the closure returned.
    pub value: T,
    /// The revision of its last event; of the store, when it changed nothing.
    pub revision: Revision,
}

/// An open transaction: writes, and the reads of [`View`], which see what was written.
///
/// Got from [`Store::transaction`](crate::Store::transaction).
pub struct Transaction<'t> {
    engine: &'t dyn Transact,
    scope: &'t Scope,
    store: StoreId,
    view: View<'t>,
}

impl<'t> Transaction<'t> {
    pub(super) fn new(engine: &'t dyn Transact, scope: &'t Scope, store: StoreId) -> Transaction<'t> {
        let view = View::new(Source::Open(engine), Cow::Borrowed(scope));
        Transaction { engine, scope, store, view }
    }

    fn apply(&self, operation: Operation) -> Result<Outcome> {
        self.engine.apply(&operation.within(self.scope))
    }

    /// Writes an entry, as [`Store::set`](crate::Store::set); its revision is known when the transaction is
    /// committed.
    ///
    /// # Errors
    ///
    /// `TooLarge`, `QuotaExceeded`; `Full`, `Io`.
    pub fn set(&self, group: &str, key: &str, value: impl Into<Value>) -> Result<()> {
        self.set_with(group, key, value, SetOptions::new())
    }

    /// Writes an entry that expires.
    ///
    /// # Errors
    ///
    /// As [`set`](Transaction::set), and `InvalidArgument` for a time to live below 1 ms or past the year 9999.
    pub fn set_with_ttl(&self, group: &str, key: &str, value: impl Into<Value>, ttl: Duration) -> Result<()> {
        self.set_with(group, key, value, SetOptions::new().ttl(ttl))
    }

    /// Writes an entry under conditions.
    ///
    /// # Errors
    ///
    /// As [`set_with_ttl`](Transaction::set_with_ttl), and `Conflict`.
    pub fn set_with(
        &self,
        group: &str,
        key: &str,
        value: impl Into<Value>,
        options: SetOptions,
    ) -> Result<()> {
        self.apply(Operation::set(group, key, value.into(), options)).map(drop)
    }

    /// Deletes an entry; whether it was there.
    ///
    /// # Errors
    ///
    /// `Full`, `Io`.
    pub fn delete(&self, group: &str, key: &str) -> Result<bool> {
        self.delete_with(group, key, DeleteOptions::new())
    }

    /// Deletes an entry under a condition; whether it was there.
    ///
    /// # Errors
    ///
    /// As [`delete`](Transaction::delete), and `Conflict`.
    pub fn delete_with(&self, group: &str, key: &str, options: DeleteOptions) -> Result<bool> {
        Ok(self.apply(Operation::delete(group, key, &options))?.was_there())
    }

    /// Deletes a group with all its entries; how many there were.
    ///
    /// # Errors
    ///
    /// As [`delete`](Transaction::delete).
    pub fn delete_group(&self, group: &str) -> Result<u64> {
        Ok(self.apply(Operation::delete_group(group))?.keys())
    }

    /// Deletes all groups whose name starts so; how many entries there were.
    ///
    /// # Errors
    ///
    /// As [`delete`](Transaction::delete).
    pub fn delete_prefix(&self, group_prefix: &str) -> Result<u64> {
        Ok(self.apply(Operation::delete_prefix(group_prefix))?.keys())
    }

    /// Gives an entry a new deadline; whether it is there.
    ///
    /// # Errors
    ///
    /// As [`delete`](Transaction::delete), and `InvalidArgument` for a time to live below 1 ms or past the year
    /// 9999.
    pub fn touch(&self, group: &str, key: &str, ttl: Duration) -> Result<bool> {
        Ok(self.apply(Operation::touch(group, key, Some(ttl)))?.was_there())
    }

    /// Takes an entry's deadline away; whether it is there.
    ///
    /// # Errors
    ///
    /// As [`delete`](Transaction::delete).
    pub fn persist(&self, group: &str, key: &str) -> Result<bool> {
        Ok(self.apply(Operation::touch(group, key, None))?.was_there())
    }

    /// Acknowledges for a named consumer, as [`Acker::ack`], together with what the transaction writes: both are there
    /// afterwards, or neither is. So what a handler writes, it writes exactly once for each event.
    ///
    /// ```
    /// use watchkeep::Store;
    /// let store = Store::open_in_memory()?;
    /// let mut consumer = store.consumer("counting")?;
    /// store.set("orders", "7", "1 apple")?;
    /// let event = consumer.recv().unwrap()?;
    /// store.transaction(|tx| {
    ///     let count: u64 = tx.get("stats", "orders")?.and_then(|it| it.as_str()?.parse().ok()).unwrap_or(0);
    ///     tx.set("stats", "orders", (count + 1).to_string())?;
    ///     tx.ack(&consumer, event.revision())
    /// })?;
    /// assert_eq!(store.consumers()?[0].acked, Some(event.revision()));
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Fenced` when the consumer is not ours any more; `InvalidArgument` for a revision that was not handed out, and
    /// for a consumer of another store; `Full`, `Io`. After any of them the transaction fails with it, even if the
    /// closure overlooks it: what it wrote would be there without the acknowledgement.
    pub fn ack(&self, consumer: &impl AsRef<Acker>, revision: Revision) -> Result<()> {
        self.acknowledge(consumer.as_ref(), revision).inspect_err(|error| self.engine.spoil(error))
    }

    fn acknowledge(&self, acker: &Acker, revision: Revision) -> Result<()> {
        if acker.lease().store != self.store {
            let what = "the consumer belongs to another store; acknowledge in a transaction of its own store";
            return Err(Reason::Invalid { what: what.to_owned() }.into());
        }
        // Where nothing is to be noted, too: what a stale holder writes must not be there.
        let lease = acker.lease();
        let ack = lease.ack(lease.admit(revision)?);
        self.engine.consumer(&lease.name, &ack).inspect_err(|error| lease.learn(error))
    }
}

impl<'t> Deref for Transaction<'t> {
    type Target = View<'t>;

    fn deref(&self) -> &View<'t> {
        &self.view
    }
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("namespace", &self.scope.name()).finish_non_exhaustive()
    }
}
