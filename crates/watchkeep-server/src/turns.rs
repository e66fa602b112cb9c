//! Turns: so many clients at once read beside a ring, the others wait. Nobody holds up those behind it for long: who
//! reads slowly goes on reading when its turn is over, and so does the next.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use watchkeep::Error;

use crate::limits::TURN_TIME;

#[derive(Debug)]
pub(crate) struct Turns(Arc<Semaphore>);

/// A turn, which ends with this, and after [`TURN_TIME`] by itself.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "only its end counts")] oneshot::Sender<Infallible>);

impl Turns {
    pub(crate) fn new(at_once: usize) -> Turns {
        Turns(Arc::new(Semaphore::new(at_once)))
    }

    /// Waits for a turn. It is a task that waits: a client that is not polled gets its turn, too, and loses it.
    pub(crate) async fn take(&self) -> Result<Turn, Error> {
        let (rights, (give, given)) = (self.0.clone(), oneshot::channel());
        tokio::spawn(async move {
            let (turn, ended) = oneshot::channel();
            let right = rights.acquire_owned().await;
            if right.is_ok() && give.send(Turn(turn)).is_ok() {
                // However it ends, it ends.
                let _ = timeout(TURN_TIME, ended).await;
            }
        });
        given.await.map_err(Error::abort)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_ends_with_its_client_and_after_its_time() -> Result<(), Error> {
        let (turns, start) = (Turns::new(2), Instant::now());
        let (first, _second) = (turns.take().await?, turns.take().await?);
        drop(first);
        let _third = turns.take().await?;
        assert_eq!(start.elapsed(), Duration::ZERO);
        // Two that nobody polls while they wait, and one that went away.
        let mut stalled = [Box::pin(turns.take()), Box::pin(turns.take())];
        for stalled in &mut stalled {
            assert!(timeout(Duration::ZERO, stalled).await.is_err());
        }
        assert!(timeout(Duration::ZERO, turns.take()).await.is_err());
        let _last = turns.take().await?;
        let waited = start.elapsed();
        assert!(waited >= 2 * TURN_TIME && waited < 3 * TURN_TIME, "{waited:?}");
        Ok(())
    }
}
