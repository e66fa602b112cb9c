//! What a client is told, whichever way it goes out: changes, and the marks between them.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::StatusCode;
use futures_core::Stream;
use watchkeep::{Error, ErrorKind, Filter, Item, Lagged, Revision, Watcher};

use crate::change::{Change, Values};
use crate::gate::{Gate, Gone, Part, Position, no_cursor};
use crate::problem::Problem;
use crate::ring::{End, Entry, Found, Ring, Seat};
use crate::turns::Turn;

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
    pub(crate) filter: Filter,
    /// How many bytes of memory it takes that the client named, about.
    pub(crate) weight: usize,
    pub(crate) snapshots: Snapshots,
    pub(crate) after: Option<Position>,
    /// Not what was written under this label.
    pub(crate) exclude_origin: Option<String>,
    pub(crate) values: Values,
}

/// Something that a client is told.
#[derive(Debug)]
pub(crate) enum Told {
    /// What follows is everything that is there: a copy must be emptied.
    Reset(&'static str),
    /// Before `Ready` it has no id: a client that is cut off there begins again.
    Change {
        change: Arc<Change>,
        with_id: bool,
        values: Values,
    },
    /// All that was there is told; from here on, changes.
    Ready(Position),
    Lagged(Lagged, Position),
    /// Where the client stands, once that is known.
    Heartbeat(Option<Position>),
    /// It cannot go on now.
    Trouble(Problem),
    /// The server ends, or closes its store.
    Bye(&'static str),
}

/// A watch of its own, with its turn.
type Own = (Watcher, Turn);
/// What comes, perhaps in turn behind others.
type Coming<T, E = Error> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Where what comes next comes from.
enum Source {
    /// The ring, at this place.
    Ring(u64),
    /// A watch of its own, for a snapshot.
    Opening(Coming<Own>),
    Own(Box<Own>),
    /// A page of the log, for what has left the ring.
    Reading(Coming<Part>),
    Part(Box<Part>),
    /// The file was replaced, and what is there now is waited for.
    Moving(Coming<(Gate, Arc<Ring>), Problem>),
    Ended,
}

/// What one client is told: a stream that ends after `Trouble` or `Bye`.
pub(crate) struct Subscription {
    gate: Gate,
    filter: Filter,
    snapshots: Snapshots,
    exclude_origin: Option<String>,
    values: Values,
    /// The snapshot is not complete.
    loading: bool,
    /// Everything up to this is told.
    told: Revision,
    seat: Seat,
    source: Source,
    /// Resolves with the reason of the `Bye`.
    ending: Pin<Box<dyn Future<Output = &'static str> + Send>>,
    /// What comes before anything else.
    first: VecDeque<Told>,
}

impl Subscription {
    /// Begins one.
    ///
    /// # Errors
    ///
    /// 409 when the position is not one of this store and snapshots are not wanted; whatever the watch is refused with.
    pub(crate) async fn begin(gate: &Gate, wanted: Wanted) -> Result<Subscription, Problem> {
        let ring = gate.ring(&wanted.filter).await?;
        let mut begun = Subscription {
            ending: Box::pin(ending(gate)),
            gate: gate.clone(),
            filter: wanted.filter,
            snapshots: wanted.snapshots,
            exclude_origin: wanted.exclude_origin,
            values: wanted.values,
            loading: false,
            told: Revision::ZERO,
            seat: ring.sit(),
            source: Source::Ended,
            first: VecDeque::new(),
        };
        match (wanted.after, wanted.snapshots) {
            (Some(after), _) => match gate.judge(&after).await? {
                Ok(revision) => begun.ready(revision),
                Err(gone) if wanted.snapshots == Snapshots::Auto => begun.load(gone.reason()),
                Err(Gone::Nonsense) => return Err(no_cursor(&after)),
                Err(Gone::Foreign | Gone::Lost) => return Err(not_ours()),
            },
            (None, Snapshots::Auto) => begun.load("start"),
            // What was there before the call is not news.
            (None, Snapshots::Never) => begun.ready(gate.last().await?),
        }
        Ok(begun)
    }

    /// Where the client stands: everything up to this is told.
    pub(crate) fn position(&self) -> Position {
        self.gate.position(self.told)
    }

    /// Tells what follows a revision.
    fn ready(&mut self, after: Revision) {
        self.loading = false;
        self.told = after;
        self.first.push_back(Told::Ready(self.gate.position(after)));
        self.go_on();
    }

    /// Goes on after what is told: in the ring, or beside it.
    fn go_on(&mut self) {
        self.source = match self.seat.ring().place_after(self.told) {
            Some(place) => Source::Ring(place),
            None => self.read_log(),
        };
    }

    fn read_log(&self) -> Source {
        let (gate, filter, after) = (self.gate.clone(), self.filter.clone(), self.told);
        Source::Reading(Box::pin(async move { gate.part(filter, after).await }))
    }

    /// Begins with what is there.
    fn load(&mut self, reason: &'static str) {
        self.loading = true;
        self.first.push_back(Told::Reset(reason));
        let (gate, filter) = (self.gate.clone(), self.filter.clone());
        self.source = Source::Opening(Box::pin(async move { gate.snapshot(filter).await }));
    }

    fn end(&mut self, last: Told) -> Option<Told> {
        self.source = Source::Ended;
        Some(last)
    }

    /// Nothing more comes from where it came from.
    fn leave(&mut self, end: End) -> Option<Told> {
        let end = match end {
            End::Failed(error) if error.kind() == ErrorKind::Closed => End::Closed,
            end => end,
        };
        let is_replaced = match &end {
            End::Failed(error) => error.kind() == ErrorKind::Replaced,
            End::Closed => self.gate.is_past(),
        };
        if is_replaced && self.snapshots == Snapshots::Auto {
            let (gate, filter) = (self.gate.clone(), self.filter.clone());
            self.source = Source::Moving(Box::pin(async move {
                let next = gate.next().await?;
                let ring = next.ring(&filter).await?;
                Ok((next, ring))
            }));
            return None;
        }
        self.end(match end {
            End::Failed(error) => Told::Trouble(error.into()),
            End::Closed => Told::Bye("closed"),
        })
    }

    /// Begins anew with what is there now.
    fn move_to(&mut self, gate: Gate, ring: &Arc<Ring>) {
        (self.gate, self.seat) = (gate, ring.sit());
        self.load("foreign");
    }

    fn change(&mut self, change: Arc<Change>) -> Option<Told> {
        // A snapshot is everything that is there, whoever wrote it.
        if !self.loading {
            self.told = change.revision();
            if self.exclude_origin.is_some() && change.origin() == self.exclude_origin.as_deref() {
                return None;
            }
        }
        Some(Told::Change { change, with_id: !self.loading, values: self.values })
    }

    fn lost(&mut self, lost: Lagged) -> Option<Told> {
        if self.snapshots == Snapshots::Auto {
            self.load("trimmed");
            return None;
        }
        self.told = lost.to;
        Some(Told::Lagged(lost, self.gate.position(lost.to)))
    }

    /// What the ring has.
    fn poll_ring(&mut self, place: u64, cx: &Context<'_>) -> Poll<Option<Told>> {
        let found = self.seat.ring().clone().find(place, &self.seat, cx);
        match found {
            Found::Nothing(seen) => {
                self.told = self.told.max(seen);
                return Poll::Pending;
            }
            Found::Behind => self.go_on(),
            Found::Ended(end) => return Poll::Ready(self.leave(end)),
            Found::Entry(entry) => {
                self.source = Source::Ring(place + 1);
                if entry.revision() > self.told {
                    return Poll::Ready(match entry {
                        Entry::Change(change) => self.change(change),
                        // The ring lost what this client has in part: the log tells what is left of it.
                        Entry::Lost(lost) if lost.from <= self.told => {
                            self.source = self.read_log();
                            None
                        }
                        Entry::Lost(lost) => self.lost(lost),
                    });
                }
            }
        }
        Poll::Ready(None)
    }

    /// What its own watch has.
    fn take(&mut self, item: Item) -> Option<Told> {
        match item {
            Item::Event(event) => self.change(self.gate.change(event)),
            Item::Ready(at) => {
                self.ready(at);
                None
            }
            // The library begins the snapshot again by itself.
            Item::Lagged(_) => Some(Told::Reset("trimmed")),
            _ => None,
        }
    }

    /// What became of reading the log.
    fn read(&mut self, read: Result<Part, Error>) -> Option<Told> {
        let error = match read {
            Ok(part) => {
                self.source = Source::Part(Box::new(part));
                return None;
            }
            Err(error) => error,
        };
        match (error.kind(), error.lagged()) {
            (_, Some(lost)) => {
                let told = self.lost(lost);
                if !self.loading {
                    self.go_on();
                }
                told
            }
            _ => self.leave(End::Failed(error)),
        }
    }

    /// Something to tell, or nothing yet while the source moved on.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Told>> {
        match &mut self.source {
            Source::Ended => Poll::Pending,
            Source::Ring(place) => {
                let place = *place;
                self.poll_ring(place, cx)
            }
            Source::Opening(opening) => match opening.as_mut().poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(own)) => {
                    self.source = Source::Own(Box::new(own));
                    Poll::Ready(None)
                }
                Poll::Ready(Err(error)) => Poll::Ready(self.leave(End::Failed(error))),
            },
            Source::Moving(moving) => match moving.as_mut().poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok((gate, ring))) => {
                    self.move_to(gate, &ring);
                    Poll::Ready(None)
                }
                Poll::Ready(Err(problem)) => Poll::Ready(self.end(Told::Trouble(problem))),
            },
            Source::Own(own) => match Pin::new(&mut own.0.items()).poll_next(cx) {
                Poll::Ready(Some(Ok(item))) => Poll::Ready(self.take(item)),
                Poll::Ready(Some(Err(error))) => Poll::Ready(self.leave(End::Failed(error))),
                Poll::Ready(None) => Poll::Ready(self.leave(End::Closed)),
                Poll::Pending => Poll::Pending,
            },
            Source::Reading(reading) => match reading.as_mut().poll(cx) {
                Poll::Ready(read) => Poll::Ready(self.read(read)),
                Poll::Pending => Poll::Pending,
            },
            Source::Part(part) => {
                let change = part.changes.pop_front();
                // With the last of it, the turn is over.
                let looked_at = part.changes.is_empty().then_some(part.next);
                let told = change.and_then(|change| self.change(change));
                if let Some(looked_at) = looked_at {
                    self.told = looked_at;
                    self.go_on();
                }
                Poll::Ready(told)
            }
        }
    }
}

impl Stream for Subscription {
    type Item = Told;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Told>> {
        let this = &mut *self;
        loop {
            if let Some(told) = this.first.pop_front() {
                return Poll::Ready(Some(told));
            }
            if matches!(this.source, Source::Ended) {
                return Poll::Ready(None);
            }
            if let Poll::Ready(why) = this.ending.as_mut().poll(cx) {
                return Poll::Ready(this.end(Told::Bye(why)));
            }
            match this.poll_source(cx) {
                Poll::Ready(Some(told)) if this.first.is_empty() => return Poll::Ready(Some(told)),
                Poll::Ready(Some(told)) => this.first.push_back(told),
                Poll::Ready(None) => {}
                Poll::Pending if this.seat.is_due(cx) => {
                    let at = (!this.loading).then(|| this.gate.position(this.told));
                    return Poll::Ready(Some(Told::Heartbeat(at)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Resolves when the server ends, or its client may use the gate no more.
fn ending(gate: &Gate) -> impl Future<Output = &'static str> + Send + use<> {
    let (over, ending) = (gate.over(), gate.ending.clone());
    async move {
        tokio::select! {
            why = over => why,
            () = ending.wait() => "ending",
        }
    }
}

impl Gone {
    fn reason(self) -> &'static str {
        match self {
            Gone::Foreign | Gone::Nonsense => "foreign",
            Gone::Lost => "epoch",
        }
    }
}

fn not_ours() -> Problem {
    let detail = "the position is not one of this store; start again, or ask for snapshot=auto";
    Problem::new(StatusCode::CONFLICT, "foreign_cursor", detail)
}

#[cfg(test)]
mod laggards;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::Instant;
    use watchkeep::Store;

    use super::*;
    use crate::ending::Ending;
    use crate::limits::HEARTBEAT;

    async fn next(subscription: &mut Subscription) -> Option<Told> {
        poll_fn(|cx| Pin::new(&mut *subscription).poll_next(cx)).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_client_hears_where_it_stands_once_in_each_heartbeat() -> Result<(), Problem> {
        let store = Store::open_in_memory()?;
        let last = store.cursor(store.set("other", "k", "v")?).to_string();
        let gate = Gate::new(&store, Ending::never());
        let wanted = Wanted {
            filter: Filter::group("g"),
            weight: 0,
            snapshots: Snapshots::Never,
            after: None,
            exclude_origin: None,
            values: Values::All,
        };
        let mut subscription = Subscription::begin(&gate, wanted).await?;
        assert!(matches!(next(&mut subscription).await, Some(Told::Ready(_))));
        let mut came = Vec::new();
        for _ in 0..3 {
            match next(&mut subscription).await {
                Some(Told::Heartbeat(Some(at))) => assert_eq!(at.to_string(), last),
                other => return Err(Problem::bad(format!("{other:?} instead of a heartbeat"))),
            }
            came.push(Instant::now());
        }
        // The first may be late: the clock ran while nobody asked.
        let [_, second, third] = came.as_slice() else { return Err(Problem::bad("not three")) };
        assert_eq!(*third - *second, HEARTBEAT);
        Ok(())
    }

    #[tokio::test]
    async fn what_a_ring_lost_and_a_client_has_is_not_called_lost() -> Result<(), Problem> {
        let store = Store::open_in_memory()?;
        let gate = Gate::new(&store, Ending::never());
        let wanted = |after: Option<Revision>| Wanted {
            filter: Filter::everything(),
            weight: 0,
            snapshots: Snapshots::Never,
            after: after.map(|at| gate.position(at)),
            exclude_origin: None,
            values: Values::All,
        };
        let _ring = Subscription::begin(&gate, wanted(None)).await?;
        // Nothing of this reaches the ring before it is trimmed: the ring's task has this thread, too.
        let value = "x".repeat(64 << 10);
        for _ in 0..400 {
            store.set("g", "k", value.clone())?;
        }
        let trimmed = store.compact(Revision::new(300))?;
        assert!(trimmed > 0);
        let mut client = Subscription::begin(&gate, wanted(Some(Revision::new(200)))).await?;
        assert!(matches!(next(&mut client).await, Some(Told::Ready(_))));
        match next(&mut client).await {
            Some(Told::Lagged(lost, _)) => assert_eq!((lost.from.get(), lost.to.get()), (201, 299)),
            other => return Err(Problem::bad(format!("{other:?} instead of the loss"))),
        }
        match next(&mut client).await {
            Some(Told::Change { change, .. }) => assert_eq!(change.revision().get(), 300),
            other => return Err(Problem::bad(format!("{other:?} instead of what follows"))),
        }
        Ok(())
    }
}
