//! The library for callers that must not block: writes as futures, watchers as asynchronous streams.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use futures_core::Stream as _;
use watchkeep::{Revision, Watcher};

use super::library::note;
use super::{Next, Stream, Wait};

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn waker() -> Waker {
    Waker::from(Arc::new(Unpark(std::thread::current())))
}

/// Runs a future to its end on this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let (waker, mut future) = (waker(), pin!(future));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// A watcher that is polled.
#[derive(Debug)]
pub(super) struct Polled(pub(super) Watcher);

impl Stream for Polled {
    fn next(&mut self, wait: Wait) -> Next {
        let (waker, began) = (waker(), Instant::now());
        loop {
            let polled = Pin::new(&mut self.0.items()).poll_next(&mut Context::from_waker(&waker));
            match polled {
                Poll::Ready(Some(item)) => return Next::Note(note(item)),
                Poll::Ready(None) => return Next::Ended,
                // That nothing is here yet does not tell that there is nothing: it may be on its way from the file.
                Poll::Pending => match wait {
                    Wait::No => return Next::Pending,
                    Wait::Forever => std::thread::park(),
                    Wait::Most(time) => match time.checked_sub(began.elapsed()) {
                        Some(left) if left > Duration::ZERO => std::thread::park_timeout(left),
                        _ => return Next::Pending,
                    },
                },
            }
        }
    }

    fn start(&self) -> Revision {
        self.0.start()
    }

    fn dropped(&self) -> u64 {
        self.0.dropped()
    }
}
