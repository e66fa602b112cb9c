//! Watchers: streams of events.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::{Bounds, Query};
use crate::types::error::{Error, Reason, Result};
use crate::types::event::{Event, Item};
use crate::types::filter::Filter;
use crate::types::revision::Revision;
use crate::types::watching::{Start, WatchOptions};

use super::hub::Hub;
use super::inbox::{Inbox, Shape};
#[cfg(feature = "async")]
use super::load::{Loaded, Request};
use super::reader::{Patience, Reader, Step};

/// A stream of events, registered from the moment it is made until it is dropped.
///
/// It is an iterator over events that waits for the next one, and ends when the store closes or the watch is
/// stopped. Falling behind is not an end: the watcher reads on from the change log (see
/// [`LagPolicy`](crate::LagPolicy)), and only what retention has trimmed is lost, which an error of kind
/// [`Lagged`](crate::ErrorKind::Lagged) tells in its place; the next call goes on after it. After any other error the
/// next call tries the same again: a loop that ignores errors spins on a damaged file.
///
/// ```
/// use watchkeep::Store;
/// let store = Store::open_in_memory()?;
/// let mut watcher = store.watch("config", "*");
/// store.set("config", "theme", "dark")?;
/// store.close()?;
/// for event in &mut watcher {
///     let event = event?;
///     println!("{} {:?}", event.kind(), event.key());
/// }
/// assert!(watcher.is_ended());
/// # Ok::<(), watchkeep::Error>(())
/// ```
pub struct Watcher {
    active: Option<Active>,
    /// Why there is nothing to watch.
    refused: Option<Error>,
    ended: bool,
    start: Revision,
}

/// Who keeps account of what a watcher hands out: a named consumer does.
pub(crate) trait Account: Send + Sync {
    /// Why the watch is over although it has not ended by itself.
    fn over(&self) -> Option<Error>;
    /// Takes note of an item that is handed out; whether the reader asked for it.
    fn note(&self, item: &Item) -> bool;
}

struct Active {
    hub: Arc<Hub>,
    reader: Reader,
    account: Option<Arc<dyn Account>>,
    #[cfg(feature = "async")]
    loading: Option<futures::Loading>,
}

impl Active {
    fn over(&self) -> Option<Error> {
        self.account.as_ref().and_then(|account| account.over())
    }

    fn is_wanted(&self, item: &Item) -> bool {
        self.account.as_ref().is_none_or(|account| account.note(item))
    }
}

impl Watcher {
    /// Registers a watcher. `scope` is the namespace's prefix, which the filter contains already.
    pub(crate) fn new(
        hub: &Arc<Hub>,
        filter: Filter,
        scope: &str,
        options: &WatchOptions,
    ) -> Result<Watcher> {
        let bounds = Watcher::query(hub, options)?.ask(&*hub.engine)?;
        Watcher::within(bounds, hub, filter, scope, options)
    }

    /// What must be known before one is registered.
    pub(crate) fn query(hub: &Hub, options: &WatchOptions) -> Result<Query<'static>> {
        let after = match options.start {
            Start::AfterCursor(cursor) => Some(cursor),
            _ => None,
        };
        Query::bounds(hub.engine.id(), after)
    }

    /// Registers a watcher on a store whose bounds are known.
    pub(crate) fn within(
        bounds: Bounds,
        hub: &Arc<Hub>,
        filter: Filter,
        scope: &str,
        options: &WatchOptions,
    ) -> Result<Watcher> {
        filter.check()?;
        let shape = Shape::new(filter, scope, options);
        let (inbox, start) = hub.register(shape, options.start, bounds.end)?;
        let reader = Reader::new(inbox, options.start == Start::Snapshot);
        let active = Active {
            hub: hub.clone(),
            reader,
            account: None,
            #[cfg(feature = "async")]
            loading: None,
        };
        Ok(Watcher { active: Some(active), refused: None, ended: false, start })
    }

    /// A watch of a store that is closed: it fails once, and ends.
    pub(crate) fn refused(error: Error) -> Watcher {
        Watcher { active: None, refused: Some(error), ended: false, start: Revision::ZERO }
    }

    /// The same watcher, which has account kept of what it hands out.
    pub(crate) fn account_to(mut self, account: Arc<dyn Account>) -> Watcher {
        if let Some(active) = &mut self.active {
            active.account = Some(account);
        }
        self
    }

    fn next_item(&mut self, patience: &Patience<'_>) -> Option<Result<Item>> {
        loop {
            let Some(active) = self.active.as_mut().filter(|_| !self.ended) else { return self.end() };
            #[cfg(feature = "async")]
            match active.finish_loading(patience) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
            if active.over().is_some() {
                return self.end();
            }
            match active.reader.next(&active.hub, patience) {
                Step::Item(item) if active.is_wanted(&item) => return Some(Ok(item)),
                Step::Item(_) => {}
                Step::Failed(error) => return Some(Err(error)),
                Step::Ended => return self.end(),
                Step::Empty | Step::Load(_) => return None,
            }
        }
    }

    /// The end; before it, why there is one, if that was not asked for.
    fn end(&mut self) -> Option<Result<Item>> {
        if !self.ended {
            self.ended = true;
            self.refused = self.refused.take().or_else(|| self.active.as_ref().and_then(Active::over));
        }
        self.refused.take().map(Err)
    }

    fn next_event(&mut self, patience: &Patience<'_>) -> Option<Result<Event>> {
        loop {
            if let Some(event) = only_events(self.next_item(patience)?) {
                return Some(event);
            }
        }
    }

    /// Waits for the next event; none when the watch has ended.
    pub fn recv(&mut self) -> Option<Result<Event>> {
        self.next_event(&Patience::Until(None))
    }

    /// The next event if there is one; none when there is none now, or when the watch has ended
    /// ([`is_ended`](Watcher::is_ended) tells which). It may read the change log, but waits for nobody.
    pub fn try_recv(&mut self) -> Option<Result<Event>> {
        self.next_event(&Patience::None)
    }

    /// Waits for the next event, at most this long; none when nothing came, or when the watch has ended.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<Result<Event>> {
        self.next_event(&Patience::Until(Instant::now().checked_add(timeout)))
    }

    /// The same stream with its marks: [`Ready`](Item::Ready), [`Progress`](Item::Progress),
    /// [`Lagged`](Item::Lagged).
    pub fn items(&mut self) -> Items<'_> {
        Items { watcher: self }
    }

    /// A handle that ends this watch from anywhere.
    pub fn stopper(&self) -> Stopper {
        Stopper { inbox: self.active.as_ref().map(|active| active.reader.inbox.clone()) }
    }

    /// How many events were dropped because the buffer was full; only [`LagPolicy::Drop`](crate::LagPolicy::Drop)
    /// drops.
    pub fn dropped(&self) -> u64 {
        self.active.as_ref().map_or(0, |active| active.reader.inbox.lock().dropped)
    }

    /// Whether the watch has ended, and everything was handed out.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Where the watch began: it sees what comes after this revision.
    pub fn start(&self) -> Revision {
        self.start
    }
}

/// What of an item concerns a reader of events only.
fn only_events(item: Result<Item>) -> Option<Result<Event>> {
    match item {
        Ok(Item::Event(event)) => Some(Ok(event)),
        Ok(Item::Lagged(lagged)) => Some(Err(Reason::Lagged(lagged).into())),
        Ok(Item::Ready(_) | Item::Progress(_)) => None,
        Err(error) => Some(Err(error)),
    }
}

impl Iterator for Watcher {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        self.recv()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(active) = self.active.take() {
            active.hub.unregister(&active.reader.inbox);
        }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filter = self.active.as_ref().map(|active| &active.reader.inbox.shape.filter);
        f.debug_struct("Watcher")
            .field("filter", &filter)
            .field("start", &self.start)
            .field("ended", &self.ended)
            .finish()
    }
}

/// A watcher's events and marks; see [`Watcher::items`].
#[derive(Debug)]
pub struct Items<'w> {
    watcher: &'w mut Watcher,
}

impl Items<'_> {
    /// Waits for the next item; none when the watch has ended.
    pub fn recv(&mut self) -> Option<Result<Item>> {
        self.watcher.next_item(&Patience::Until(None))
    }

    /// The next item if there is one.
    pub fn try_recv(&mut self) -> Option<Result<Item>> {
        self.watcher.next_item(&Patience::None)
    }

    /// Waits for the next item, at most this long.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<Result<Item>> {
        self.watcher.next_item(&Patience::Until(Instant::now().checked_add(timeout)))
    }
}

impl Iterator for Items<'_> {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Result<Item>> {
        self.recv()
    }
}

/// Ends a watch from anywhere, as often as one likes: the watcher hands out what it has buffered, and ends.
///
/// ```
/// use watchkeep::Store;
/// let store = Store::open_in_memory()?;
/// let mut watcher = store.watch("*", "*");
/// let stopper = watcher.stopper();
/// let reader = std::thread::spawn(move || watcher.recv().is_none());
/// stopper.stop();
/// stopper.stop();
/// assert!(reader.join().unwrap());
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Stopper {
    inbox: Option<Arc<Inbox>>,
}

impl Stopper {
    /// Ends the watch.
    pub fn stop(&self) {
        if let Some(inbox) = &self.inbox
            && inbox.stop()
        {
            inbox.wake();
        }
    }
}

#[cfg(feature = "async")]
mod futures {
    //! Watchers as asynchronous streams: woken by the hub, without a thread per watcher, on any runtime. What must
    //! be read from the file is read by the store's workers.

    use std::borrow::Cow;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};
    use std::time::Instant;

    use futures_core::Stream;

    use super::{Active, Event, Item, Items, Loaded, Patience, Request, Result, Step, Watcher, only_events};
    use crate::types::sync::thread::{self, Thread};
    use crate::types::sync::{Mutex, lock, wake};

    /// Something that a worker fetches.
    pub(super) struct Loading(Arc<Mutex<Slot>>);

    struct Slot {
        loaded: Option<Loaded>,
        waker: Waker,
    }

    /// The worker's side of it.
    struct Fetching(Arc<Mutex<Slot>>);

    impl Fetching {
        fn put(&self, loaded: Loaded) {
            lock(&self.0).loaded = Some(loaded);
        }
    }

    impl Drop for Fetching {
        /// Whoever waits is woken, also when there is nothing for it because the worker panicked.
        fn drop(&mut self) {
            let mut slot = lock(&self.0);
            slot.loaded.get_or_insert(Loaded::Died);
            let waker = slot.waker.clone();
            drop(slot);
            wake(waker);
        }
    }

    /// Wakes a blocked thread.
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    impl Active {
        /// Before blocking calls: takes in what a worker is still fetching for an asynchronous one. Whether there is
        /// nothing to wait for any more.
        pub(super) fn finish_loading(&mut self, patience: &Patience<'_>) -> Result<bool> {
            let Some(Loading(slot)) = &self.loading else { return Ok(true) };
            let waker = Waker::from(Arc::new(Unpark(thread::current())));
            let loaded = loop {
                let mut slot = lock(slot);
                if let Some(loaded) = slot.loaded.take() {
                    break loaded;
                }
                slot.waker.clone_from(&waker);
                drop(slot);
                match patience {
                    Patience::Until(None) => thread::park(),
                    Patience::Until(Some(deadline)) => {
                        let left = deadline.saturating_duration_since(Instant::now());
                        if left.is_zero() {
                            return Ok(false);
                        }
                        thread::park_timeout(left);
                    }
                    Patience::None | Patience::Woken(_) => return Ok(false),
                }
            };
            self.loading = None;
            self.reader.absorb(&self.hub, loaded).map(|()| true)
        }

        fn fetch(&self, request: Request, fetching: Fetching) {
            let (hub, inbox) = (self.hub.clone(), self.reader.inbox.clone());
            let mut request = match request.at_hand(&hub.log, &inbox.shape) {
                Ok(loaded) => return fetching.put(loaded),
                Err(request) => request,
            };
            let query = request.query(&*hub.engine, Cow::Owned(inbox.shape.filter.clone()));
            let (engine, workers) = (hub.engine.clone(), hub.workers.clone());
            let answered = move |answer| {
                fetching.put(request.answered(answer, &hub.log, &inbox.shape));
                drop(fetching);
            };
            engine.ask_later(query, &workers, Box::new(answered));
        }

        fn poll(&mut self, waker: &Waker) -> Poll<Step> {
            loop {
                if let Some(Loading(slot)) = &self.loading {
                    let mut slot = lock(slot);
                    let Some(loaded) = slot.loaded.take() else {
                        slot.waker.clone_from(waker);
                        return Poll::Pending;
                    };
                    drop(slot);
                    self.loading = None;
                    if let Err(error) = self.reader.absorb(&self.hub, loaded) {
                        return Poll::Ready(Step::Failed(error));
                    }
                }
                match self.reader.step(&self.hub, &Patience::Woken(waker)) {
                    Step::Empty => return Poll::Pending,
                    Step::Load(request) => {
                        let slot = Arc::new(Mutex::new(Slot { loaded: None, waker: waker.clone() }));
                        self.loading = Some(Loading(slot.clone()));
                        self.fetch(request, Fetching(slot));
                    }
                    step => return Poll::Ready(step),
                }
            }
        }
    }

    impl Watcher {
        fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item>>> {
            loop {
                let Some(active) = self.active.as_mut().filter(|_| !self.ended) else {
                    return Poll::Ready(self.end());
                };
                if active.over().is_some() {
                    return Poll::Ready(self.end());
                }
                match active.poll(cx.waker()) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Step::Item(item)) if active.is_wanted(&item) => {
                        return Poll::Ready(Some(Ok(item)));
                    }
                    Poll::Ready(Step::Item(_)) => {}
                    Poll::Ready(Step::Failed(error)) => return Poll::Ready(Some(Err(error))),
                    Poll::Ready(_) => return Poll::Ready(self.end()),
                }
            }
        }
    }

    /// # Cancel safety
    ///
    /// A future that waits for the next event holds none: dropping it loses nothing.
    impl Stream for Watcher {
        type Item = Result<Event>;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
            loop {
                let Poll::Ready(item) = self.poll_item(cx) else { return Poll::Pending };
                let Some(item) = item else { return Poll::Ready(None) };
                if let Some(event) = only_events(item) {
                    return Poll::Ready(Some(event));
                }
            }
        }
    }

    /// # Cancel safety
    ///
    /// As for [`Watcher`].
    impl Stream for Items<'_> {
        type Item = Result<Item>;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Item>>> {
            self.watcher.poll_item(cx)
        }
    }
}
