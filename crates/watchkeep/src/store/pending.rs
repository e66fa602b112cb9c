//! Results that are on their way to those who do not block for them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::types::error::{Reason, Result};
use crate::types::sync::{Mutex, lock, wake};

/// Where a result is put, and who waits for it.
struct Slot<T> {
    result: Option<T>,
    waker: Option<Waker>,
    /// Nobody will put a result here any more.
    abandoned: bool,
}

/// The side that puts the result.
pub(super) struct Sender<T>(Arc<Mutex<Slot<T>>>);

/// A result that is on its way.
pub(super) struct Pending<T>(Arc<Mutex<Slot<T>>>);

pub(super) fn slot<T>() -> (Sender<T>, Pending<T>) {
    let slot = Arc::new(Mutex::new(Slot { result: None, waker: None, abandoned: false }));
    (Sender(slot.clone()), Pending(slot))
}

impl<T> Sender<T> {
    pub(super) fn send(self, result: T) {
        lock(&self.0).result = Some(result);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut slot = lock(&self.0);
        slot.abandoned = true;
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            wake(waker);
        }
    }
}

impl<T> Pending<T> {
    /// What is known at once.
    pub(super) fn of(result: T) -> Pending<T> {
        let (sender, pending) = slot();
        sender.send(result);
        pending
    }
}

impl<T> Future for Pending<Result<T>> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let mut slot = lock(&self.0);
        if let Some(result) = slot.result.take() {
            return Poll::Ready(result);
        }
        if slot.abandoned {
            return Poll::Ready(Err(Reason::CallDied.into()));
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// A write that is queued: resolves when it is committed, as durable as the file is, held by the watchers, and seen by
/// the callbacks.
///
/// # Cancel safety
///
/// Dropping it does not take the write back.
#[must_use = "the write happens anyway, but its outcome is known only here"]
pub struct Writing<T> {
    pending: Pending<Result<T>>,
}

impl<T> Writing<T> {
    pub(super) fn new(pending: Pending<Result<T>>) -> Writing<T> {
        Writing { pending }
    }

    /// What is known at once.
    pub(super) fn of(result: Result<T>) -> Writing<T> {
        Writing { pending: Pending::of(result) }
    }
}

impl<T> Future for Writing<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        Pin::new(&mut self.pending).poll(cx)
    }
}

impl<T> fmt::Debug for Writing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writing").finish_non_exhaustive()
    }
}
