//! Callbacks: functions that run for every event, in commit order, before the write that caused it returns.
//!
//! They are fed by an inbox like any watcher's, so what holds for watchers holds for them: nothing is missed, and
//! nothing grows without bound. One thread at a time runs them, with no lock held: a writer's, another waiting
//! writer's, or one in the background. Writes inside a callback return once the watchers hold them; their callbacks run
//! after the event at hand, and before the write returns that the event goes back to, whichever thread runs them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Instant;

use crate::types::event::{Event, Item, Kind};
use crate::types::filter::Filter;
use crate::types::limits::{CALLBACK_EVENTS, SLOW_CALLBACK};
use crate::types::revision::Revision;
use crate::types::sync::{Condvar, Mutex, lock, thread_local};
use crate::types::watching::{Start, WatchOptions};

use super::hub::Hub;
use super::inbox::Shape;
use super::reader::{Patience, Reader, Step};

type Function = Box<dyn FnMut(&Item) + Send>;

/// A registered callback.
struct Slot {
    filter: Filter,
    scope: u16,
    /// It is called for what comes after this.
    after: Revision,
    /// Marks are handed on as well.
    marks: bool,
    function: Mutex<Calling>,
}

/// The function is taken out while it is called.
enum Calling {
    Rests(Function),
    Runs,
    Unregistered,
}

#[derive(Default)]
struct State {
    slots: Arc<Vec<Arc<Slot>>>,
    /// The feed; none while nobody is registered, and while a thread runs the callbacks.
    reader: Option<Reader>,
    /// The feed is registered at the hub, wherever its reader is.
    fed: bool,
    /// All callbacks have run for everything up to here.
    done: Revision,
    /// Commits made inside callbacks that callbacks have still to run for, each with the event it goes back to.
    owed: BTreeMap<Revision, Revision>,
}

impl State {
    /// Nothing is left to run for a revision: neither for itself, nor for what callbacks wrote because of it.
    fn settled(&self, upto: Revision) -> bool {
        !self.fed || (self.done >= upto && self.owed.values().all(|root| *root > upto))
    }

    fn advance(&mut self, done: Revision) {
        self.done = self.done.max(done);
        while self.owed.first_key_value().is_some_and(|(commit, _)| *commit <= self.done) {
            self.owed.pop_first();
        }
    }
}

/// All callbacks of a store.
#[derive(Default)]
pub(crate) struct Callbacks {
    state: Mutex<State>,
    changed: Condvar,
}

thread_local! {
    /// The stores in whose callback this thread is, and the event to which what it writes there goes back. It has no
    /// destructor: a store may be used and closed by the destructors that run when a thread ends. So what is empty must
    /// hold no memory.
    static INSIDE: ManuallyDrop<RefCell<Vec<(usize, Revision)>>> =
        const { ManuallyDrop::new(RefCell::new(Vec::new())) };
}

impl Hub {
    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Whether this thread is in a callback of this store.
    pub(crate) fn in_callback(&self) -> bool {
        INSIDE.with(|inside| inside.borrow().iter().any(|(hub, _)| *hub == self.key()))
    }

    /// Registers a function for everything that is committed from now on.
    pub(crate) fn on_change(
        self: &Arc<Self>,
        filter: Filter,
        scope: &str,
        marks: bool,
        function: Function,
    ) -> Subscription {
        let newest = self.newest().unwrap_or_else(|error| {
            tracing::debug!(%error, "the file could not be read; the callback begins where the store is");
            Revision::ZERO
        });
        let mut state = lock(&self.callbacks.state);
        let start = if state.fed {
            newest.max(self.last())
        } else {
            // Every kind reaches the feed; each slot chooses for itself.
            let options = WatchOptions::new().buffer(CALLBACK_EVENTS);
            let everything = Filter::everything().kinds(Kind::ALL);
            let shape = Shape { calls_back: true, ..Shape::new(everything, "", &options) };
            let Ok((inbox, start)) = self.register(shape, Start::Now, newest) else {
                // Closed: nothing will ever happen.
                return Subscription { slot: None };
            };
            state.reader = Some(Reader::new(inbox, false));
            state.fed = true;
            state.done = start;
            state.owed.clear();
            start
        };
        let slot = Arc::new(Slot {
            filter,
            scope: u16::try_from(scope.len()).unwrap_or(u16::MAX),
            after: start,
            marks,
            function: Mutex::new(Calling::Rests(function)),
        });
        Arc::make_mut(&mut state.slots).push(slot.clone());
        drop(state);
        Subscription { slot: Some((Arc::downgrade(self), slot)) }
    }

    /// Runs the callbacks for everything up to a revision and for what they write because of it, or waits until
    /// another thread has. Inside a callback it only notes that this is owed.
    pub(crate) fn run_callbacks(&self, upto: Revision) {
        let key = self.key();
        let root = INSIDE
            .with(|inside| inside.borrow().iter().find_map(|(hub, root)| (*hub == key).then_some(*root)));
        let mut state = lock(&self.callbacks.state);
        if let Some(root) = root {
            state.owed.insert(upto, root);
            return;
        }
        while !state.settled(upto) {
            if let Some(reader) = state.reader.take() {
                drop(state);
                let mut run = Run { hub: self, reader: Some(reader) };
                run.until(upto);
                drop(run);
                state = lock(&self.callbacks.state);
                continue;
            }
            let since = Instant::now();
            let (next, waited) = self
                .callbacks
                .changed
                .wait_timeout(state, SLOW_CALLBACK)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            if waited.timed_out() {
                tracing::warn!(
                    waited = ?since.elapsed(),
                    "a write waits for a slow callback; a callback must not wait for another thread's write, nor take a lock that is held while writing"
                );
            }
        }
    }

    /// Whether anybody is called back.
    pub(crate) fn calls_back(&self) -> bool {
        self.callbacks.is_fed()
    }

    /// How many callbacks there are.
    pub(crate) fn callback_count(&self) -> u64 {
        u64::try_from(lock(&self.callbacks.state).slots.len()).unwrap_or(u64::MAX)
    }
}

impl Callbacks {
    /// Whether the feed counts among the hub's watchers.
    pub(super) fn is_fed(&self) -> bool {
        lock(&self.state).fed
    }

    /// The last revision that somebody could wait for, with `upto`.
    fn owed(&self, upto: Revision) -> Revision {
        lock(&self.state).owed.last_key_value().map_or(upto, |(commit, _)| upto.max(*commit))
    }
}

/// One thread running the callbacks. Gives the feed back whatever happens.
struct Run<'h> {
    hub: &'h Hub,
    reader: Option<Reader>,
}

impl Run<'_> {
    fn until(&mut self, upto: Revision) {
        let Some(reader) = &mut self.reader else { return };
        loop {
            let seen = self.hub.last();
            let done = match reader.next(self.hub, &Patience::None) {
                Step::Item(item) => {
                    call_all(self.hub, &item);
                    match &item {
                        Item::Event(event) => event.revision(),
                        Item::Lagged(lagged) => lagged.to,
                        Item::Ready(at) | Item::Progress(at) => *at,
                    }
                }
                Step::Failed(error) => {
                    tracing::error!(%error, "callbacks are late, because the change log could not be read; they go on when it can");
                    self.hub.callbacks.owed(upto)
                }
                // Nothing is left of what was dispatched when we looked.
                Step::Empty => seen,
                Step::Ended | Step::Load(_) => self.hub.callbacks.owed(upto),
            };
            let mut state = lock(&self.hub.callbacks.state);
            state.advance(done);
            let finished = state.settled(upto) || state.slots.is_empty();
            drop(state);
            self.hub.callbacks.changed.notify_all();
            if finished {
                return;
            }
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.hub.callbacks.state);
        if state.slots.is_empty() {
            state.fed = false;
            drop(state);
            if let Some(reader) = self.reader.take() {
                self.hub.unregister(&reader.inbox);
            }
        } else {
            state.reader = self.reader.take();
            drop(state);
        }
        self.hub.callbacks.changed.notify_all();
    }
}

/// Calls every callback that wants the item.
fn call_all(hub: &Hub, item: &Item) {
    let state = lock(&hub.callbacks.state);
    let slots = state.slots.clone();
    let root = match item {
        Item::Event(event) => state.owed.get(&event.commit()).copied().unwrap_or(event.revision()),
        Item::Lagged(lagged) => lagged.to,
        Item::Ready(at) | Item::Progress(at) => *at,
    };
    drop(state);
    INSIDE.with(|inside| inside.borrow_mut().push((hub.key(), root)));
    for slot in slots.iter() {
        let wanted = match item {
            Item::Event(event) => event.revision() > slot.after && slot.filter.matches_change(event.change()),
            _ => slot.marks,
        };
        if wanted {
            call(slot, item);
        }
    }
    INSIDE.with(|inside| {
        let mut inside = inside.borrow_mut();
        inside.pop();
        if inside.is_empty() {
            *inside = Vec::new();
        }
    });
}

fn call(slot: &Slot, item: &Item) {
    let mut calling = lock(&slot.function);
    let mut function = match std::mem::replace(&mut *calling, Calling::Runs) {
        Calling::Rests(function) => function,
        other => {
            *calling = other;
            return;
        }
    };
    drop(calling);
    let item = match item {
        Item::Event(event) => Item::Event(Event::new(event.change().clone(), slot.scope)),
        mark => mark.clone(),
    };
    let since = Instant::now();
    if catch_unwind(AssertUnwindSafe(|| function(&item))).is_err() {
        tracing::error!("a callback panicked; the write and the other callbacks are not affected");
    }
    if since.elapsed() >= SLOW_CALLBACK {
        tracing::warn!(took = ?since.elapsed(), "a callback was slow; every write waits for it");
    }
    let mut calling = lock(&slot.function);
    if let Calling::Runs = *calling {
        *calling = Calling::Rests(function);
        return;
    }
    drop(calling);
    // Unregistered meanwhile: what it captured is dropped here, with no lock held.
    drop_quietly(function);
}

/// Dropping what a user's closure captured runs the user's code.
fn drop_quietly(function: Function) {
    if catch_unwind(AssertUnwindSafe(|| drop(function))).is_err() {
        tracing::error!("dropping a callback panicked");
    }
}

/// Keeps a callback registered. Dropping it unregisters the callback, as [`unregister`](Subscription::unregister)
/// does; [`detach`](Subscription::detach) leaves it there for as long as the store is open.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use watchkeep::Store;
/// let store = Store::open_in_memory()?;
/// let seen = Arc::new(Mutex::new(Vec::new()));
/// let subscription = store.on_change({
///     let seen = seen.clone();
///     move |event| seen.lock().unwrap().push(event.key().unwrap_or_default().to_owned())
/// });
/// store.set("config", "theme", "dark")?;
/// subscription.unregister();
/// store.set("config", "size", "12")?;
/// assert_eq!(*seen.lock().unwrap(), ["theme"]);
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[must_use = "dropping a subscription unregisters its callback"]
pub struct Subscription {
    slot: Option<(Weak<Hub>, Arc<Slot>)>,
}

impl Subscription {
    /// Ends the registration. May be called as often as one likes, also from inside the callback; does not wait for
    /// a call that is under way.
    pub fn unregister(&self) {
        let Some((hub, slot)) = &self.slot else { return };
        let function = std::mem::replace(&mut *lock(&slot.function), Calling::Unregistered);
        if let Some(hub) = hub.upgrade() {
            hub.forget(slot);
        }
        if let Calling::Rests(function) = function {
            drop_quietly(function);
        }
    }

    /// Leaves the callback registered for as long as the store is open.
    pub fn detach(mut self) {
        self.slot = None;
    }
}

impl Hub {
    fn forget(&self, slot: &Arc<Slot>) {
        let mut state = lock(&self.callbacks.state);
        Arc::make_mut(&mut state.slots).retain(|known| !Arc::ptr_eq(known, slot));
        let reader = if state.slots.is_empty() { state.reader.take() } else { None };
        if let Some(reader) = reader {
            state.fed = false;
            drop(state);
            self.unregister(&reader.inbox);
            self.callbacks.changed.notify_all();
        }
    }

    /// Lets go of all callbacks: the store is closed.
    pub(crate) fn forget_callbacks(&self) {
        let slots = std::mem::take(&mut lock(&self.callbacks.state).slots);
        for slot in slots.iter() {
            let function = std::mem::replace(&mut *lock(&slot.function), Calling::Unregistered);
            if let Calling::Rests(function) = function {
                drop_quietly(function);
            }
        }
        self.callbacks.changed.notify_all();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.unregister();
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}
