//! What callbacks saw.

use std::sync::{Arc, Mutex};

use watchkeep::{Event, Store, Subscription};

use super::lines;

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

/// The events that a callback saw, as lines.
pub(crate) struct SeenLines(Seen<Event>);

impl SeenLines {
    pub(crate) fn all(&self) -> Vec<String> {
        lines(&self.0.all())
    }
}

/// A callback that notes every event.
pub(crate) fn lines_of(store: &Store) -> (SeenLines, Subscription) {
    let seen = Seen::new();
    let subscription = store.on_change({
        let seen = seen.clone();
        move |event| seen.push(event.clone())
    });
    (SeenLines(seen), subscription)
}
