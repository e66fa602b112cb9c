//! A store at the driver: what its parts raise when there is something to do for it.

use std::path::Path;
use std::sync::Arc;

use super::crew::Driver;
use super::process;
use super::seat::{Lane, Rounds, Seat, Woken};

/// What the parts of a store raise. Raised twice before it is seen is raised once.
pub(crate) struct Signal(Option<Seated>);

struct Seated {
    driver: Arc<Driver>,
    seat: Arc<Seat>,
}

impl Signal {
    pub(super) fn new(driver: Arc<Driver>, seat: Arc<Seat>) -> Signal {
        Signal(Some(Seated { driver, seat }))
    }

    /// Raised in vain: nobody works for this store.
    #[cfg(test)]
    pub(crate) fn unheard() -> Arc<Signal> {
        Arc::new(Signal(None))
    }

    /// What is a copy of another process's has no driver here, and must not touch its locks.
    fn seated(&self) -> Option<&Seated> {
        self.0.as_ref().filter(|seated| seated.driver.process == std::process::id())
    }

    /// There is something to do in a lane.
    pub(crate) fn raise(&self, lane: Lane) {
        if let Some(Seated { driver, seat }) = &self.0 {
            driver.wake(seat, lane, Woken::RAISED);
        }
    }

    /// From now on the store is worked for.
    pub(crate) fn begin(&self, rounds: Arc<dyn Rounds>) {
        if let Some(Seated { driver, seat }) = self.seated() {
            seat.begin(rounds);
            driver.begin(seat);
        }
    }

    /// Has the lane of work woken by the next that is done to a file, if it is not to be already; whether that works.
    /// `again`: there may be another file at the path.
    pub(crate) fn listen(&self, path: &Path, again: bool) -> bool {
        let Some(Seated { driver, seat }) = self.seated() else { return false };
        if !again && driver.ears.is_listening(seat) {
            return true;
        }
        match driver.listen(seat, path) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, ?path, "it cannot be watched; commits of other processes are polled for");
                false
            }
        }
    }

    /// Whether the calling thread is one of a driver's, which waits for nobody.
    pub(crate) fn on_own_thread(&self) -> bool {
        process::on_own_thread()
    }

    /// Nothing is done for the store any more. Waits for what is under way, except in the lane that the caller serves.
    pub(crate) fn end(&self, own: Option<Lane>) {
        if let Some(Seated { driver, seat }) = self.seated()
            && seat.end(own)
        {
            driver.leave(seat);
        }
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        self.end(None);
    }
}

impl std::fmt::Debug for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signal").finish_non_exhaustive()
    }
}
