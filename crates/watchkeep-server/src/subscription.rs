//! What a client is told, whichever way it goes out: changes, and the marks between them.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::StatusCode;
use bytes::Bytes;
use futures_core::Stream;
use watchkeep::{Error, Event, Filter, Item, Lagged, Watcher};

use crate::gate::{Begin, Gate, Gone, Position};
use crate::problem::Problem;

/// Whether a subscription shows what is there before it tells what changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Snapshots {
    /// When it has no good position, and after every loss.
    Auto,
    Never,
}

/// What is subscribed to.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) filter: Arc<Filter>,
    pub(crate) snapshots: Snapshots,
    pub(crate) after: Option<Position>,
}

/// Something that a client is told.
#[derive(Debug)]
pub(crate) enum Told {
    /// What follows is everything that is there: a copy must be emptied.
    Reset(&'static str),
    Change(Change),
    /// All that was there is told; from here on, changes.
    Ready(Position),
    Lagged(Lagged, Position),
    /// Nothing came for a while; where the client stands, once that is known.
    Heartbeat(Option<Position>),
    /// It cannot go on now.
    Trouble(Problem),
    /// The server ends, or closes its store.
    Bye(&'static str),
}

/// A change, encoded.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// None before `ready`: a client that is cut off there begins again.
    pub(crate) at: Option<Position>,
    /// The object that `watchkeep watch --json` prints.
    pub(crate) json: Bytes,
}

type Opening = Pin<Box<dyn Future<Output = Result<Option<Watcher>, Error>> + Send>>;

/// Where the changes come from.
enum Source {
    /// A watch that is being begun.
    Opening(Opening),
    Open(Box<Watcher>),
    Ended,
}

/// What one client is told: a stream that ends after `Trouble` or `Bye`.
pub(crate) struct Subscription {
    gate: Gate,
    filter: Arc<Filter>,
    snapshots: Snapshots,
    /// The snapshot is not complete.
    loading: bool,
    source: Source,
    ending: Pin<Box<dyn Future<Output = ()> + Send>>,
    told: VecDeque<Told>,
}

impl Subscription {
    /// Begins one.
    ///
    /// # Errors
    ///
    /// 409 when the position is not one of this store and snapshots are not wanted; whatever the watch is refused with.
    pub(crate) async fn begin(gate: &Gate, wanted: Wanted) -> Result<Subscription, Problem> {
        let Wanted { filter, snapshots, after } = wanted;
        let gone = match &after {
            Some(after) => gate.judge(after).await?,
            None => None,
        };
        let mut begun = Subscription {
            ending: Box::pin(gate.ending.clone().wait()),
            gate: gate.clone(),
            filter,
            snapshots,
            loading: false,
            source: Source::Ended,
            told: VecDeque::new(),
        };
        let begin = match (after, gone, snapshots) {
            (Some(after), None, _) => Begin::After(after),
            (None, _, Snapshots::Never) => Begin::Now,
            (None, _, Snapshots::Auto) => begun.reset("start"),
            (Some(_), Some(Gone::Foreign), Snapshots::Auto) => begun.reset("foreign"),
            (Some(_), Some(Gone::Future), Snapshots::Auto) => begun.reset("future"),
            (Some(_), Some(_), Snapshots::Never) => return Err(not_ours()),
        };
        let watcher = match gate.watch(begun.filter.clone(), begin).await? {
            None if snapshots == Snapshots::Auto => {
                // A power cut took what the position stands for.
                let begin = begun.reset("foreign");
                gate.watch(begun.filter.clone(), begin).await?
            }
            watcher => watcher,
        };
        begun.open(watcher.ok_or_else(not_ours)?);
        Ok(begun)
    }

    fn reset(&mut self, reason: &'static str) -> Begin {
        self.loading = true;
        self.told.push_back(Told::Reset(reason));
        Begin::Snapshot
    }

    fn open(&mut self, watcher: Watcher) {
        if !self.loading {
            self.told.push_back(Told::Ready(self.gate.position(watcher.start())));
        }
        self.source = Source::Open(Box::new(watcher));
    }

    /// Begins again with what is there.
    fn begin_again(&mut self, reason: &'static str) {
        let begin = self.reset(reason);
        let (gate, filter) = (self.gate.clone(), self.filter.clone());
        self.source = Source::Opening(Box::pin(async move { gate.watch(filter, begin).await }));
    }

    fn end(&mut self, last: Told) {
        self.told.push_back(last);
        self.source = Source::Ended;
    }

    fn change(&self, event: &Event) -> Change {
        let at = (!self.loading).then(|| self.gate.position(event.revision()));
        Change { at, json: self.gate.json(event) }
    }

    fn take(&mut self, item: &Item) {
        let told = match item {
            Item::Event(event) => Told::Change(self.change(event)),
            Item::Ready(at) => {
                self.loading = false;
                Told::Ready(self.gate.position(*at))
            }
            Item::Progress(at) => Told::Heartbeat((!self.loading).then(|| self.gate.position(*at))),
            // The library begins the snapshot again by itself.
            Item::Lagged(_) if self.loading => Told::Reset("trimmed"),
            Item::Lagged(_) if self.snapshots == Snapshots::Auto => return self.begin_again("trimmed"),
            Item::Lagged(lost) => Told::Lagged(*lost, self.gate.position(lost.to)),
            // A mark that a later library has, and this server does not know.
            _ => return,
        };
        self.told.push_back(told);
    }

    /// Whether something came, or the source changed.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.source {
            Source::Ended => return Poll::Pending,
            Source::Opening(opening) => match opening.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Some(watcher))) => self.open(watcher),
                Poll::Ready(Ok(None)) => self.end(Told::Trouble(not_ours())),
                Poll::Ready(Err(error)) => self.end(Told::Trouble(error.into())),
            },
            Source::Open(watcher) => match Pin::new(&mut watcher.items()).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(item))) => self.take(&item),
                Poll::Ready(Some(Err(error))) => self.end(Told::Trouble(error.into())),
                Poll::Ready(None) => self.end(Told::Bye("closed")),
            },
        }
        Poll::Ready(())
    }
}

impl Stream for Subscription {
    type Item = Told;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Told>> {
        let this = &mut *self;
        loop {
            if let Some(told) = this.told.pop_front() {
                return Poll::Ready(Some(told));
            }
            if matches!(this.source, Source::Ended) {
                return Poll::Ready(None);
            }
            if this.ending.as_mut().poll(cx).is_ready() {
                this.end(Told::Bye("ending"));
            } else if this.poll_source(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

fn not_ours() -> Problem {
    let detail = "the position is not one of this store; start again, or ask for snapshot=auto";
    Problem::new(StatusCode::CONFLICT, "foreign_cursor", detail)
}
