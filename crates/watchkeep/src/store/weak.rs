//! A handle that does not keep the store open.

use std::fmt;
use std::sync::{Arc, Weak};

use crate::rules::Author;

use super::core::Life;
use super::handle::Store;

impl Store {
    /// A handle that does not keep the store open: for callbacks, which would otherwise keep alive what keeps them.
    pub fn downgrade(&self) -> WeakStore {
        WeakStore { life: Arc::downgrade(&self.life), author: self.author.clone() }
    }
}

/// A handle that does not keep the store open; see [`Store::downgrade`].
///
/// ```
/// use watchkeep::{Kind, Store};
/// let store = Store::open_in_memory()?;
/// let weak = store.downgrade();
/// store.on_change(move |event| {
///     if let (Kind::Set, "inbox", Some(store)) = (event.kind(), event.group(), weak.upgrade()) {
///         store.set("seen", event.key().unwrap_or_default(), "yes").ok();
///     }
/// }).detach();
/// store.set("inbox", "1", "hello")?;
/// assert!(store.contains("seen", "1")?);
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Clone)]
pub struct WeakStore {
    life: Weak<Life>,
    author: Author,
}

impl WeakStore {
    /// The handle, while the store is open.
    pub fn upgrade(&self) -> Option<Store> {
        Some(Store { life: self.life.upgrade()?, author: self.author.clone() })
    }
}

impl fmt::Debug for WeakStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakStore").finish_non_exhaustive()
    }
}
