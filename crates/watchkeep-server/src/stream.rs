//! `/v1/watch`: changes as server-sent events, for a plain `EventSource`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use watchkeep::{Error, Filter, Item, Kind, Watcher};

use crate::frame;
use crate::gate::{Begin, Gate, Gone, Position};
use crate::limits::WRITE;
use crate::problem::Problem;
use crate::query::Query;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Whether a stream shows what is there before it tells what changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Snapshots {
    /// When it has no good position, and after every loss.
    Auto,
    Never,
}

pub(crate) async fn watch(
    State(gate): State<Gate>,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let filter = Arc::new(filter(&mut query)?);
    let snapshots = match query.take("snapshot").as_deref() {
        Some("auto") => Snapshots::Auto,
        None | Some("never") => Snapshots::Never,
        Some(other) => return Err(Problem::bad(format!("snapshot={other:?} is neither auto nor never"))),
    };
    let after = query.take("after");
    query.end()?;
    // The bookmark of a client that comes back is newer than its URL.
    let bookmark = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let after = bookmark.filter(|id| !id.is_empty()).or(after).map(Position::from);
    let begun = begin(&gate, filter, snapshots, after).await;
    let body = match begun {
        Ok(feed) => Body::from_stream(feed),
        // Any other status than 200 ends a plain `EventSource` for good.
        Err(problem) if problem.is_temporary() => {
            Body::from(frame::trouble(problem.kind(), problem.detail()))
        }
        Err(problem) => return Err(problem),
    };
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-cache, no-transform"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, body).into_response())
}

/// Which events: names are literal, also `*`.
fn filter(query: &mut Query) -> Result<Filter, Problem> {
    let mut take = |name| query.take(name);
    let names = [take("group"), take("group_prefix"), take("key"), take("key_prefix")];
    let mut filter = match names {
        [None, None, None, None] => Filter::everything(),
        [Some(group), None, None, None] => Filter::group(group),
        [None, Some(prefix), None, None] => Filter::group_prefix(prefix),
        [Some(group), None, Some(key), None] => Filter::key(group, key),
        [None, None, Some(key), None] => Filter::key_name(key),
        [Some(group), None, None, Some(prefix)] => Filter::key_prefix(group, prefix),
        _ => {
            return Err(Problem::bad(
                "these names do not go together; give group, group_prefix, key, group and key, or group and key_prefix",
            ));
        }
    };
    if let Some(kinds) = query.take("kinds") {
        let kinds = kinds.split(',').map(|name| {
            Kind::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
                let known = Kind::ALL.map(Kind::as_str).join(", ");
                Problem::bad(format!("there is no kind {name:?}; there are {known}"))
            })
        });
        filter = filter.kinds(kinds.collect::<Result<Vec<_>, _>>()?);
    }
    if let Some(origin) = query.take("exclude_origin") {
        filter = filter.exclude_origin(origin);
    }
    Ok(filter)
}

async fn begin(
    gate: &Gate,
    filter: Arc<Filter>,
    snapshots: Snapshots,
    after: Option<Position>,
) -> Result<Feed, Problem> {
    let gone = match &after {
        Some(after) => gate.judge(after).await?,
        None => None,
    };
    let mut feed = Feed::new(gate, filter, snapshots);
    let begin = match (after, gone, snapshots) {
        (Some(after), None, _) => Begin::After(after),
        (None, _, Snapshots::Never) => Begin::Now,
        (None, _, Snapshots::Auto) => feed.reset("start"),
        (Some(_), Some(Gone::Foreign), Snapshots::Auto) => feed.reset("foreign"),
        (Some(_), Some(Gone::Future), Snapshots::Auto) => feed.reset("future"),
        (Some(after), Some(_), Snapshots::Never) => return Err(lost(&after)),
    };
    let watcher = match gate.watch(feed.filter.clone(), begin).await? {
        Some(watcher) => watcher,
        None if snapshots == Snapshots::Auto => {
            let begin = feed.reset("foreign");
            gate.watch(feed.filter.clone(), begin)
                .await?
                .ok_or_else(|| lost(&Position::from(String::new())))?
        }
        None => return Err(lost(&Position::from(String::new()))),
    };
    feed.open(watcher);
    Ok(feed)
}

fn lost(after: &Position) -> Problem {
    let detail = format!("the position {after} is not one of this store; start again, or take snapshot=auto");
    Problem::new(StatusCode::CONFLICT, "foreign_cursor", detail)
}

type Opening = Pin<Box<dyn Future<Output = Result<Option<Watcher>, Error>> + Send>>;

/// Where a stream's frames come from.
enum Source {
    /// A watch that is being begun.
    Opening(Opening),
    Open(Box<Watcher>),
    Ended,
}

/// The body of a stream.
struct Feed {
    gate: Gate,
    filter: Arc<Filter>,
    snapshots: Snapshots,
    /// The snapshot is not complete: nothing that is told has an id.
    loading: bool,
    source: Source,
    ending: Pin<Box<dyn Future<Output = ()> + Send>>,
    frames: VecDeque<Bytes>,
}

impl Feed {
    fn new(gate: &Gate, filter: Arc<Filter>, snapshots: Snapshots) -> Feed {
        Feed {
            ending: Box::pin(gate.ending.clone().wait()),
            gate: gate.clone(),
            filter,
            snapshots,
            loading: false,
            source: Source::Ended,
            frames: VecDeque::from([frame::retry()]),
        }
    }

    /// What follows is everything that is there.
    fn reset(&mut self, reason: &str) -> Begin {
        self.loading = true;
        self.frames.push_back(frame::reset(reason));
        Begin::Snapshot
    }

    fn open(&mut self, watcher: Watcher) {
        if !self.loading {
            self.frames.push_back(frame::ready(&self.gate.position(watcher.start())));
        }
        self.source = Source::Open(Box::new(watcher));
    }

    /// Begins again with what is there.
    fn begin_again(&mut self, reason: &str) {
        let begin = self.reset(reason);
        let (gate, filter) = (self.gate.clone(), self.filter.clone());
        self.source = Source::Opening(Box::pin(async move { gate.watch(filter, begin).await }));
    }

    fn end(&mut self, last: Bytes) {
        self.frames.push_back(last);
        self.source = Source::Ended;
    }

    fn fail(&mut self, error: Error) {
        let problem = Problem::from(error);
        self.end(frame::trouble(problem.kind(), problem.detail()));
    }

    fn take(&mut self, item: &Item) {
        let gate = &self.gate;
        match item {
            Item::Event(event) => {
                let at = (!self.loading).then(|| gate.position(event.revision()));
                self.frames.push_back(frame::change(event, gate.id(), at.as_ref()));
            }
            Item::Ready(at) => {
                self.frames.push_back(frame::ready(&gate.position(*at)));
                self.loading = false;
            }
            Item::Progress(_) if self.loading => self.frames.push_back(frame::comment()),
            Item::Progress(at) => self.frames.push_back(frame::heartbeat(&gate.position(*at))),
            // The library begins the snapshot again by itself.
            Item::Lagged(_) if self.loading => drop(self.reset("trimmed")),
            Item::Lagged(_) if self.snapshots == Snapshots::Auto => self.begin_again("trimmed"),
            Item::Lagged(lost) => self.frames.push_back(frame::lagged(lost, &gate.position(lost.to))),
            // A mark that a later library has, and this server does not know.
            _ => {}
        }
    }

    /// Whether something came, or the source changed.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.source {
            Source::Ended => return Poll::Pending,
            Source::Opening(opening) => match opening.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Some(watcher))) => self.open(watcher),
                Poll::Ready(Ok(None)) => self.end(frame::bye("foreign")),
                Poll::Ready(Err(error)) => self.fail(error),
            },
            Source::Open(watcher) => match Pin::new(&mut watcher.items()).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(item))) => self.take(&item),
                Poll::Ready(Some(Err(error))) => self.fail(error),
                Poll::Ready(None) => self.end(frame::bye("closed")),
            },
        }
        Poll::Ready(())
    }
}

impl Stream for Feed {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let feed = &mut *self;
        // What is pending goes out in one write.
        let mut out = BytesMut::new();
        loop {
            while let Some(frame) = feed.frames.pop_front() {
                out.extend_from_slice(&frame);
            }
            if out.len() >= WRITE {
                return Poll::Ready(Some(Ok(out.freeze())));
            }
            if !matches!(feed.source, Source::Ended) && feed.ending.as_mut().poll(cx).is_ready() {
                feed.end(frame::bye("ending"));
                continue;
            }
            if feed.poll_source(cx).is_ready() {
                continue;
            }
            return match &feed.source {
                _ if !out.is_empty() => Poll::Ready(Some(Ok(out.freeze()))),
                Source::Ended => Poll::Ready(None),
                _ => Poll::Pending,
            };
        }
    }
}
