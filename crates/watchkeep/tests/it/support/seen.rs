//! What callbacks saw.

use std::sync::{Arc, Mutex};

use watchkeep::{Store, Subscription};

use super::line;

/// A list that callbacks write to.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen<T>(Arc<Mutex<Vec<T>>>);

impl<T: Clone> Seen<T> {
    pub(crate) fn new() -> Self {
        Seen(Arc::default())
    }

    pub(crate) fn push(&self, item: T) {
        if let Ok(mut seen) = self.0.lock() {
            seen.push(item);
        }
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.0.lock().map(|seen| seen.clone()).unwrap_or_default()
    }
}

/// A callback that notes every event as a line.
pub(crate) fn lines_of(store: &Store) -> (Seen<String>, Subscription) {
    let seen = Seen::new();
    let subscription = store.on_change({
        let seen = seen.clone();
        move |event| seen.push(line(event))
    });
    (seen, subscription)
}
