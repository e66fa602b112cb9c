//! What of the log watchers that began with a snapshot still need: the trimmer of this process leaves it to them, up
//! to a bound.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::revision::Revision;
use crate::types::sync::{Mutex, lock};

#[derive(Debug, Default)]
struct State {
    next: u64,
    held: BTreeMap<u64, Revision>,
}

/// All that is needed.
#[derive(Debug, Default)]
pub(crate) struct Floors {
    state: Mutex<State>,
}

/// One who needs what comes after a revision, until this is dropped.
#[derive(Debug)]
pub(crate) struct Floor {
    floors: Arc<Floors>,
    id: u64,
}

impl Floors {
    pub(crate) fn hold(self: &Arc<Self>, after: Revision) -> Floor {
        let mut state = lock(&self.state);
        let id = state.next;
        state.next += 1;
        state.held.insert(id, after);
        drop(state);
        Floor { floors: self.clone(), id }
    }

    /// The revision after which everything is needed.
    pub(crate) fn least(&self) -> Option<Revision> {
        lock(&self.state).held.values().min().copied()
    }
}

impl Floor {
    /// Everything up to a revision is not needed any more.
    pub(crate) fn raise(&self, after: Revision) {
        lock(&self.floors.state).held.insert(self.id, after);
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        lock(&self.floors.state).held.remove(&self.id);
    }
}
