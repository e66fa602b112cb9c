//! The end of a server: of everything at once, or spread over a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use crate::limits::{DRAIN_TIME, SOCKETS};

/// From when to when a server ends.
#[derive(Debug, Clone, Copy)]
struct End {
    from: Instant,
    to: Instant,
}

/// Tells everything that a server has under way that it ends.
#[derive(Debug, Clone)]
pub struct Closer(Arc<watch::Sender<Option<End>>>);

impl Closer {
    /// Ends the server: it accepts nobody any more, streams get their `bye` at once, and requests under way have five
    /// seconds. So it is without another server that takes over: the sooner it is back, the better.
    pub fn close(&self) {
        self.drain(Duration::ZERO);
    }

    /// Ends the server over this time, at most an hour: for one whose clients find another server meanwhile.
    ///
    /// `/readyz` says so at once. Requests are still answered, each on a connection of its own. Streams end one by one,
    /// each at a moment that is drawn for it, so that their clients do not all come at once to whoever takes over. When
    /// the time is over the server [closes](Closer::close); of two ends the earlier one counts.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use watchkeep::Store;
    /// use watchkeep_server::{Listen, Server};
    ///
    /// let server = Server::bind(&Store::open("app.db")?, &Listen::default()).await?;
    /// server.closer().drain(Duration::from_secs(20));
    /// server.run().await; // for twenty seconds
    /// # Ok(())
    /// # }
    /// ```
    pub fn drain(&self, over: Duration) {
        let (from, over) = (Instant::now(), over.min(DRAIN_TIME));
        let end = End { from, to: from + over };
        self.0.send_if_modified(|known| {
            let is_sooner = known.is_none_or(|known| end.to < known.to);
            if is_sooner {
                *known = Some(end);
            }
            is_sooner
        });
        tracing::info!(?over, "the server ends");
    }
}

/// The other end of a [`Closer`], and whom a server that ends waits for besides its requests.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    end: Option<watch::Receiver<Option<End>>>,
    /// When its owner leaves while the server ends, as a part of the time that is left for it.
    part: f64,
    /// Since when its owner is there.
    since: Instant,
    /// A connection that is upgraded is nobody's request any more; each holds one of these instead.
    sockets: Arc<Semaphore>,
}

impl Ending {
    fn new(end: Option<watch::Receiver<Option<End>>>) -> Ending {
        let sockets = Arc::new(Semaphore::new(SOCKETS as usize));
        Ending { end, part: 1.0, since: Instant::now(), sockets }
    }

    /// Of routes that are mounted in somebody else's server.
    pub(crate) fn never() -> Ending {
        Ending::new(None)
    }

    /// Of a server, and what ends it.
    pub(crate) fn pair() -> (Closer, Ending) {
        let (sender, receiver) = watch::channel(None);
        (Closer(Arc::new(sender)), Ending::new(Some(receiver)))
    }

    /// The same end, for somebody who comes now and leaves at a moment of its own.
    pub(crate) fn drawn(&self) -> Ending {
        Ending { part: fastrand::f64(), since: Instant::now(), ..self.clone() }
    }

    /// What an upgraded connection holds while it lives, so that the end waits for it. How many there may be is a limit
    /// that is asked elsewhere.
    pub(crate) fn socket(&self) -> Option<OwnedSemaphorePermit> {
        self.sockets.clone().try_acquire_owned().ok()
    }

    /// How many upgraded connections there are.
    pub(crate) fn sockets(&self) -> usize {
        (SOCKETS as usize).saturating_sub(self.sockets.available_permits())
    }

    /// Resolves when no upgraded connection is left.
    pub(crate) async fn sockets_gone(&self) {
        // It is never closed.
        let _ = self.sockets.acquire_many(SOCKETS).await;
    }

    /// Whether the server has begun to end.
    pub(crate) fn has_begun(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.borrow().is_some())
    }

    /// Resolves when the server begins to end.
    pub(crate) async fn begun(self) {
        match self.end {
            // The server that would say so is gone, which is the same.
            Some(mut end) => drop(end.wait_for(Option::is_some).await),
            None => std::future::pending().await,
        }
    }

    /// Resolves when its owner is to leave: at the end of the server's time, or at the moment that was drawn.
    pub(crate) async fn wait(self) {
        let Some(mut end) = self.end else { return std::future::pending().await };
        loop {
            let known = *end.borrow_and_update();
            let at = known.map(|known| {
                let from = known.from.max(self.since);
                from + known.to.saturating_duration_since(from).mul_f64(self.part)
            });
            let leaves = async {
                match at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = leaves => return,
                sooner = end.changed() => if sooner.is_err() { return },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// When each of those who wait leaves, in seconds.
    async fn leaving(endings: Vec<Ending>) -> Vec<u64> {
        let begun = Instant::now();
        let mut waiting: JoinSet<_> = endings.into_iter().map(Ending::wait).collect();
        let mut left = Vec::new();
        while waiting.join_next().await.is_some() {
            left.push(begun.elapsed().as_secs());
        }
        left
    }

    #[tokio::test(start_paused = true)]
    async fn streams_leave_evenly_and_requests_at_the_end() {
        fastrand::seed(17);
        let (closer, ending) = Ending::pair();
        let streams = (0..1_000).map(|_| ending.drawn()).collect();
        assert!(!ending.has_begun());
        closer.drain(20 * SECOND);
        assert!(ending.has_begun());
        let left = leaving(streams).await;
        for second in 0..20 {
            let many = left.iter().filter(|left| **left == second).count();
            assert!((25..=80).contains(&many), "{many} left in second {second}");
        }
        assert_eq!(left.len(), 1_000);

        let (closer, ending) = Ending::pair();
        closer.drain(20 * SECOND);
        // Half of the time later, others come, and have the other half.
        tokio::time::advance(10 * SECOND).await;
        let mut late: Vec<_> = (0..100).map(|_| ending.drawn()).collect();
        late.push(ending);
        let left = leaving(late).await;
        assert_eq!((left.last(), left.iter().filter(|left| **left < 5).count() / 25), (Some(&10), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_ends_the_earlier_one_counts_and_none_is_later_than_an_hour() {
        for (ends, seconds) in
            [(&[0][..], 0), (&[20, 0], 0), (&[0, 20], 0), (&[20, 5], 5), (&[5, 20], 5), (&[u64::MAX], 3_600)]
        {
            let (closer, ending) = Ending::pair();
            ends.iter().for_each(|seconds| closer.drain(Duration::from_secs(*seconds)));
            assert_eq!(leaving(vec![ending]).await, [seconds], "{ends:?}");
        }
        // Also for those who wait already.
        let (closer, ending) = Ending::pair();
        let waiting = tokio::spawn(leaving(vec![ending]));
        tokio::task::yield_now().await;
        closer.drain(20 * SECOND);
        tokio::time::advance(SECOND).await;
        closer.close();
        assert!(waiting.await.is_ok_and(|left| left == [1]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_gone_ends_everything_and_one_that_is_not_ours_nothing() {
        let (closer, ending) = Ending::pair();
        drop(closer);
        assert_eq!(leaving(vec![ending.drawn(), ending]).await, [0, 0]);
        assert!(tokio::time::timeout(1_000 * SECOND, Ending::never().wait()).await.is_err());
    }
}
