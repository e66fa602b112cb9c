//! `/v1/watch`: changes as server-sent events, for a plain `EventSource`.

use std::convert::Infallible;
use std::mem::take;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Extension;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_core::Stream;

use crate::access::Streaming;
use crate::admission::{Load, Weight};
use crate::frame;
use crate::gate::Position;
use crate::limits::WRITE;
use crate::metrics::Refused;
use crate::openapi::{Beginning, Bookmark, Filtered};
use crate::problem::Problem;
use crate::query;
use crate::subscription::{Subscription, Told};

/// Where streams are.
pub(crate) const ROUTE: &str = "/v1/watch";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Changes as server-sent events, for a plain `EventSource`.
#[utoipa::path(
    get,
    path = ROUTE,
    operation_id = "watch",
    params(Filtered, Beginning, Bookmark),
    security((), ("token" = ["watch"]), ("ticket" = [])),
    responses((
        status = 200,
        content_type = "text/event-stream",
        description = "Unnamed messages, whose data is an `Event`, and the marks `ready`, `reset`, `lagged`, `trouble` \
            and `bye`. It does not end by itself. The reason of a `reset` is `start`, `trimmed`, `foreign` or `epoch`.",
    ))
)]
pub(crate) async fn watch(
    streaming: Result<Streaming, Problem>,
    Extension(load): Extension<Load>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    match begin(streaming, &load, &headers).await {
        Err(problem) if problem.is_temporary() => Ok(trouble(problem)),
        answer => answer,
    }
}

async fn begin(
    streaming: Result<Streaming, Problem>,
    load: &Load,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let Streaming(gate, mut query) = streaming?;
    let mut wanted = query::wanted(&mut query)?;
    query.end()?;
    // The bookmark of a client that comes back is newer than its URL.
    if let Some(bookmark) = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) {
        wanted.after = Some(Position::from(&*String::from_utf8_lossy(bookmark.as_bytes())));
    }
    let weight = load.filter(wanted.weight)?;
    let subscription = Subscription::begin(&gate.leaving(), wanted).await?;
    let first = Some(frame::retry());
    Ok(answer(Body::from_stream(Frames { subscription, first, is_sated: false, _weight: Some(weight) })))
}

/// A refusal that is temporary: any other status than 200 ends a plain `EventSource` for good.
pub(crate) fn trouble(problem: Problem) -> Response {
    let refused = Refused(problem.kind().to_owned());
    let mut response = answer(Body::from(frame::of(&Told::Trouble(problem))));
    response.extensions_mut().insert(refused);
    response
}

fn answer(body: Body) -> Response {
    let headers =
        [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache, no-transform"), (BUFFERING, "no")];
    (headers, body).into_response()
}

/// The body of a stream.
struct Frames {
    subscription: Subscription,
    first: Option<Bytes>,
    /// As much as goes out in one write has just gone out: others come first.
    is_sated: bool,
    _weight: Option<Weight>,
}

impl Stream for Frames {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        if take(&mut self.is_sated) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // What is pending goes out in one write.
        let mut out = BytesMut::from(self.first.take().unwrap_or_default());
        while out.len() < WRITE {
            match Pin::new(&mut self.subscription).poll_next(cx) {
                Poll::Ready(Some(told)) => out.extend_from_slice(&frame::of(&told)),
                Poll::Ready(None) if out.is_empty() => return Poll::Ready(None),
                Poll::Pending if out.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        self.is_sated = out.len() >= WRITE;
        Poll::Ready(Some(Ok(out.freeze())))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
    use std::time::Duration;

    use tokio::time::timeout;
    use watchkeep::{Revision, Store};

    use super::*;
    use crate::ending::Ending;
    use crate::gate::Gate;
    use crate::query::Query;

    /// Far longer than anything takes that goes right.
    const LIMIT: Duration = Duration::from_secs(30);

    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_client_that_catches_up_lets_others_in_between_its_writes() -> Result<(), Problem> {
        let store = Store::open_in_memory()?;
        let gate = Gate::new(&store, Ending::never());
        let mut query = Query::of([("after", Some(gate.position(Revision::ZERO).to_string()))]);
        for _ in 0..8 {
            store.set("g", "k", vec![b'x'; WRITE / 2])?;
        }
        let subscription = Subscription::begin(&gate, query::wanted(&mut query)?).await?;
        let mut frames = Frames { subscription, first: None, is_sated: false, _weight: None };
        // The first may come before what is read from the log.
        for _ in 0..2 {
            if !frames.is_sated {
                let chunk = timeout(LIMIT, poll_fn(|cx| Pin::new(&mut frames).poll_next(cx))).await;
                assert!(chunk.is_ok_and(|chunk| chunk.is_some()), "nothing came");
            }
        }
        // There is more, and it is asked again at once, but not before others.
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let waker = Waker::from(woken.clone());
        assert!(Pin::new(&mut frames).poll_next(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(Pin::new(&mut frames).poll_next(&mut Context::from_waker(&waker)).is_ready());
        Ok(())
    }
}
