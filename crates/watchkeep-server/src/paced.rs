//! Streams of HTTP/2, many on one connection, of which each must go on being taken: the connection's own writes say
//! nothing of one stream, because its window may be closed while those of the others are open.
//!
//! hyper asks a body for its next piece only when the piece before has found room in the stream's window. So a stream
//! stalls when it holds a piece and does not ask for the next; it is reset then, and the others go on.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Error;
use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::admission::Admission;
use crate::limits::{PIECE, WRITE};
use crate::settings::Limit;

tokio::task_local! {
    /// How many pieces the stream of this task was handed, and whether it still holds the last one.
    static HANDED: Cell<(u64, bool)>;
}

/// Runs the streams of one connection, and knows how many there are.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    admission: Admission,
    open: watch::Sender<usize>,
}

impl Streams {
    pub(crate) fn new(admission: Admission) -> Streams {
        Streams { admission, open: watch::Sender::new(0) }
    }

    /// Resolves once there was a stream, and then none.
    pub(crate) async fn over(&self) {
        let mut open = self.open.subscribe();
        // Its sender is here.
        let _ = open.wait_for(|open| *open > 0).await;
        let _ = open.wait_for(|open| *open == 0).await;
    }

    /// Resolves once there was no stream for so long.
    pub(crate) async fn idle(&self, time: Duration) {
        let mut open = self.open.subscribe();
        loop {
            // Its sender is here.
            let _ = open.wait_for(|open| *open == 0).await;
            if tokio::time::timeout(time, open.wait_for(|open| *open > 0)).await.is_err() {
                return;
            }
        }
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let open = Open::new(&self.open);
        let admission = self.admission.clone();
        tokio::spawn(async move {
            watched(stream, &admission).await;
            drop(open);
        });
    }
}

/// One of the streams that are open.
struct Open(watch::Sender<usize>);

impl Open {
    fn new(all: &watch::Sender<usize>) -> Open {
        all.send_modify(|open| *open = open.saturating_add(1));
        Open(all.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// A stream, until it ends or has held a piece for so long. What is dropped before its end is reset.
async fn watched(stream: impl Future<Output = ()>, admission: &Admission) {
    let watching = async {
        let mut stream = pin!(stream);
        let mut timer = None;
        let mut seen = 0;
        poll_fn(|cx| {
            if stream.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let (pieces, is_held) = HANDED.with(Cell::get);
            if !is_held || pieces != seen {
                timer = None;
                seen = pieces;
            }
            if !is_held {
                return Poll::Pending;
            }
            let timer = timer.get_or_insert_with(|| Box::pin(sleep(admission.time(Limit::StallSeconds))));
            let stalled = timer.as_mut().poll(cx);
            if stalled.is_ready() {
                admission.reach(Limit::StallSeconds);
            }
            stalled
        })
        .await;
    };
    HANDED.scope(Cell::new((0, false)), watching).await;
}

/// A body that tells its stream when it is asked, and hands out small pieces: slow is not the same as stalled then, and
/// what a body holds, it holds until nearly all of it is written.
#[derive(Debug)]
pub(crate) struct Paced {
    body: Body,
    /// What is left of a piece that was too large.
    rest: Bytes,
}

impl From<Body> for Paced {
    fn from(body: Body) -> Paced {
        Paced { body, rest: Bytes::new() }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = if self.rest.is_empty() {
            Pin::new(&mut self.body).poll_frame(cx)
        } else {
            Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest)))))
        };
        let handed = matches!(frame, Poll::Ready(Some(Ok(_))));
        let tell =
            |told: &Cell<(u64, bool)>| told.set((told.get().0.wrapping_add(u64::from(handed)), handed));
        let most = if HANDED.try_with(tell).is_ok() { PIECE } else { WRITE };
        frame.map_ok(|frame| match frame.into_data() {
            Ok(mut data) if data.len() > most => {
                self.rest = data.split_off(most);
                Frame::data(data)
            }
            Ok(data) => Frame::data(data),
            Err(frame) => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}
