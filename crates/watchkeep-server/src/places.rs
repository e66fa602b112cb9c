//! How many of something each has at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places that are taken, by those who have them.
#[derive(Debug)]
pub(crate) struct Places<K>(Arc<Mutex<HashMap<K, u64>>>);

impl<K> Default for Places<K> {
    fn default() -> Places<K> {
        Places(Arc::default())
    }
}

impl<K: Eq + Hash + Clone> Places<K> {
    /// One place more, unless so many are taken; with how many there were before.
    pub(crate) fn take(&self, by: K, most: u64) -> Option<(Place<K>, u64)> {
        let mut taken = lock(&self.0);
        let before = taken.get(&by).copied().unwrap_or_default();
        if before >= most {
            return None;
        }
        taken.insert(by.clone(), before + 1);
        Some((Place { taken: self.0.clone(), by }, before))
    }

    /// Whether nobody has one.
    #[cfg(test)]
    pub(crate) fn are_free(&self) -> bool {
        lock(&self.0).is_empty()
    }
}

fn lock<K>(taken: &Mutex<HashMap<K, u64>>) -> MutexGuard<'_, HashMap<K, u64>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place, which is free again once this is dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Eq + Hash> {
    taken: Arc<Mutex<HashMap<K, u64>>>,
    by: K,
}

impl<K: Eq + Hash> Place<K> {
    /// Who has it.
    pub(crate) fn by(&self) -> &K {
        &self.by
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        if let Some(many) = taken.get_mut(&self.by) {
            *many = many.saturating_sub(1);
            if *many == 0 {
                // Otherwise every address that ever came would stay here.
                taken.remove(&self.by);
            }
        }
    }
}
