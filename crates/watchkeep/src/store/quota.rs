//! Quotas, which are stored with the namespace.

use crate::engine::Query;
use crate::rules::{Work, Write};
use crate::types::error::{Reason, Result};
use crate::types::quota::Quota;

use super::handle::Store;

impl Store {
    /// Sets what the handle's namespace may hold, for good; `Quota::default()` takes the quota away.
    ///
    /// The quota is in the file, and binds every write into the namespace: those of other handles and processes, and
    /// those of a handle on the whole store, which names its groups `namespace:group`. It survives the last entry of
    /// the namespace, and goes along into a backup. What is there stays where it exceeds a new quota; only what would
    /// take more is refused. Setting the quota that is set already writes nothing.
    ///
    /// Every handle that is scoped to the namespace may set its quota: it bounds what a tenant stores, not what code
    /// with a handle can do. A program that acts for tenants decides whose wish it follows; `watchkeep serve` has no
    /// route for it.
    ///
    /// ```
    /// use watchkeep::{ErrorKind, Quota, Store};
    /// let store = Store::open_in_memory()?;
    /// let tenant = store.scoped("tenant-42")?;
    /// tenant.set_quota(Quota { max_keys: 1, ..Quota::default() })?;
    /// store.set("tenant-42:config", "theme", "dark")?;
    /// let refused = store.set("tenant-42:config", "size", "12").unwrap_err();
    /// assert_eq!(refused.kind(), ErrorKind::QuotaExceeded);
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the handle is not scoped, and for a limit past 2^63 − 1; `Busy`, `Nested`, `Full`,
    /// `Closed`, `ReadOnly`, `Sealed`, `Corrupt`, `Io`, `UnknownOutcome`.
    pub fn set_quota(&self, quota: Quota) -> Result<()> {
        self.core().write(self.quota_write(quota)?).map(drop)
    }

    /// What the handle's namespace may hold; none when nothing limits it, and for the whole store.
    ///
    /// ```
    /// use watchkeep::{Quota, Store};
    /// let tenant = Store::open_in_memory()?.scoped("tenant-42")?;
    /// assert_eq!(tenant.quota()?, None);
    /// let quota = Quota { max_bytes: 1 << 20, ..Quota::default() };
    /// tenant.set_quota(quota)?;
    /// assert_eq!(tenant.quota()?, Some(quota));
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Store::get).
    pub fn quota(&self) -> Result<Option<Quota>> {
        self.quota_query().map_or(Ok(None), |query| query.ask(&*self.core().engine))
    }

    /// All namespaces of the store that have a quota, by name.
    ///
    /// ```
    /// use watchkeep::{Quota, Store};
    /// let store = Store::open_in_memory()?;
    /// let quota = Quota { max_keys: 1000, ..Quota::default() };
    /// store.scoped("tenant-42")?.set_quota(quota)?;
    /// assert_eq!(store.quotas()?, [("tenant-42".to_owned(), quota)]);
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidArgument` on a scoped handle, and for a store in a cluster; `Closed`, `Io`, `Corrupt`.
    pub fn quotas(&self) -> Result<Vec<(String, Quota)>> {
        self.refuse_scope("its quotas are listed")?;
        self.whole()?.quotas()
    }

    /// Sets the quota of the handle's namespace, as [`set_quota`](Store::set_quota) does, and gives the handle back.
    ///
    /// ```
    /// use watchkeep::{Quota, Store};
    /// let store = Store::open_in_memory()?;
    /// let tenant = store.scoped("tenant-42")?.with_quota(Quota { max_keys: 1000, ..Quota::default() })?;
    /// tenant.set("config", "theme", "dark")?;
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`set_quota`](Store::set_quota).
    pub fn with_quota(&self, quota: Quota) -> Result<Store> {
        self.set_quota(quota)?;
        Ok(self.clone())
    }

    /// What asks for it; the whole store has none.
    pub(super) fn quota_query(&self) -> Option<Query<'static>> {
        self.namespace().map(|namespace| Query::Quota { namespace: namespace.to_owned().into() })
    }

    pub(super) fn quota_write(&self, quota: Quota) -> Result<Write> {
        let refuse = |what: &str| Reason::Invalid { what: what.to_owned() };
        let Some(namespace) = self.namespace() else {
            return Err(refuse("a quota needs a namespace; take the handle from `scoped`").into());
        };
        let limits = [quota.max_keys, quota.max_groups, quota.max_bytes];
        if limits.into_iter().any(|limit| i64::try_from(limit).is_err()) {
            return Err(refuse("a limit of a quota is below 2^63; zero is no limit").into());
        }
        Ok(self.authored(Work::Quota { namespace: namespace.to_owned(), quota }))
    }
}
