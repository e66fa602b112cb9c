//! Waiting until the store is at least as new as a position: whoever waits, one task looks.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::http::StatusCode;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use watchkeep::{AsyncStore, Error, Revision};

use crate::limits::{LOOK, MIN_TIME};
use crate::problem::Problem;

/// The last revision that was seen, while somebody waits for a later one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tide(Arc<Mutex<Weak<watch::Sender<Revision>>>>);

impl Tide {
    /// Returns when the store has this revision.
    ///
    /// # Errors
    ///
    /// 504 when it does not come in time; what reading the store is refused with.
    pub(crate) async fn reach(&self, store: &AsyncStore, revision: Revision) -> Result<(), Problem> {
        match timeout(MIN_TIME, self.wait(store, revision)).await {
            Ok(reached) => Ok(reached?),
            Err(_) => Err(Problem::new(
                StatusCode::GATEWAY_TIMEOUT,
                "too_late",
                format!(
                    "the store did not come to that position in {} seconds; ask again",
                    MIN_TIME.as_secs()
                ),
            )),
        }
    }

    async fn wait(&self, store: &AsyncStore, revision: Revision) -> Result<(), Error> {
        loop {
            if store.last_revision().await? >= revision {
                return Ok(());
            }
            // When the task gives up, reading here tells why.
            if self.join(store).wait_for(|last| *last >= revision).await.is_ok() {
                return Ok(());
            }
        }
    }

    fn join(&self, store: &AsyncStore) -> watch::Receiver<Revision> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = shared.upgrade() {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(Revision::new(0));
        let sender = Arc::new(sender);
        *shared = Arc::downgrade(&sender);
        tokio::spawn(self.clone().look(store.clone(), sender));
        receiver
    }

    /// Looks until nobody waits.
    async fn look(self, store: AsyncStore, sender: Arc<watch::Sender<Revision>>) {
        while let Ok(last) = store.last_revision().await {
            sender.send_replace(last);
            sleep(LOOK).await;
            let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if sender.receiver_count() == 0 {
                *shared = Weak::new();
                return;
            }
        }
    }
}
