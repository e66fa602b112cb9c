//! Named consumers: durable cursors in the file, with acknowledgement.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::driver::Lane;
use crate::engine::{Query, Wait};
use crate::rules::{Act, Work};
use crate::types::consumer::{ConsumerInfo, ConsumerOptions, ConsumerStart, Force, Holder};
use crate::types::error::{ErrorKind, Reason, Result};
use crate::types::event::Event;
use crate::types::name::{NameRange, check_label};
use crate::types::revision::Revision;
use crate::types::watching::WatchOptions;
use crate::watch::watcher::Watcher;

use super::core::Core;
use super::handle::Store;
use super::lease::{self, Lease};

/// A named consumer that this handle holds: a [`Watcher`], whose position is kept in the file.
///
/// It begins after the last acknowledgement, whoever made it, so each event comes at least once: what was handed out
/// and not acknowledged comes again, after a crash or a restart. Acknowledgements are cumulative. One that is
/// [part of the transaction](crate::Transaction::ack) that the handler writes is there exactly when what was written
/// is: of that, each event is handled exactly once.
///
/// One holder has the name at a time. Its lease is renewed in the background while it lives and ends when this is
/// dropped, or after its time when the process dies. A holder that was taken for dead, and another took the name, gets
/// an error of kind [`Fenced`](crate::ErrorKind::Fenced) from every acknowledgement, and in place of the next event,
/// with which it ends.
///
/// Retention keeps what is not acknowledged, up to the ceiling that stands in [`Retention`](crate::Retention); past
/// it, an error of kind [`Lagged`](crate::ErrorKind::Lagged) says in its place what is lost, as for any watcher.
///
/// ```
/// use watchkeep::{ConsumerStart, ConsumerOptions, Store};
/// let store = Store::open_in_memory()?;
/// store.set("orders", "7", "1 apple")?;
/// store.set("orders", "8", "2 pears")?;
///
/// let from_the_beginning = ConsumerOptions::new().start(ConsumerStart::Beginning);
/// let mut consumer = store.consumer_with("billing", from_the_beginning)?;
/// let first = consumer.recv().unwrap()?;
/// consumer.ack(first.revision())?;
/// let second = consumer.recv().unwrap()?;
/// drop(consumer);
///
/// let mut again = store.consumer("billing")?;
/// assert_eq!(again.recv().unwrap()?.revision(), second.revision());
/// # Ok::<(), watchkeep::Error>(())
/// ```
pub struct Consumer {
    watcher: Watcher,
    acker: Acker,
}

/// Acknowledges for a [`Consumer`], from anywhere; got from [`Consumer::acker`] and cheap to clone.
///
/// ```
/// use watchkeep::Store;
/// let store = Store::open_in_memory()?;
/// let mut consumer = store.consumer("billing")?;
/// store.set("orders", "7", "1 apple")?;
/// let acker = consumer.acker().clone();
/// for event in consumer.by_ref().take(1) {
///     acker.ack(event?.revision())?;
/// }
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Clone)]
pub struct Acker {
    core: Arc<Core>,
    lease: Arc<Lease>,
}

impl Acker {
    /// Acknowledges everything up to a revision: it does not come again.
    ///
    /// What is acknowledged stays so: going back, or repeating, changes nothing. Entries of a snapshot are
    /// acknowledged together, by the revision of its [`Ready`](crate::Item::Ready) mark or of anything after it. It is
    /// a write like any other, and returns when it is as durable as the file is.
    ///
    /// # Errors
    ///
    /// `Fenced` when the consumer is not ours any more; `InvalidArgument` for a revision that was not handed out;
    /// `Nested` inside a transaction's closure: acknowledge [through it](crate::Transaction::ack); `Busy`, `Full`,
    /// `Closed`, `ReadOnly`, `Sealed`, `Corrupt`, `Io`, `UnknownOutcome`.
    pub fn ack(&self, revision: Revision) -> Result<()> {
        let Some(upto) = self.lease.admit(revision)? else { return Ok(()) };
        let done = self.core.write(self.lease.write(self.lease.ack(Some(upto))));
        done.inspect_err(|error| self.lease.learn(error)).map(drop)
    }

    pub(super) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }
}

impl AsRef<Acker> for Acker {
    fn as_ref(&self) -> &Acker {
        self
    }
}

impl AsRef<Acker> for Consumer {
    fn as_ref(&self) -> &Acker {
        &self.acker
    }
}

impl fmt::Debug for Acker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acker")
            .field("name", &self.lease.name)
            .field("fence", &self.lease.fence)
            .finish_non_exhaustive()
    }
}

impl Consumer {
    /// Acknowledges everything up to a revision; see [`Acker::ack`].
    ///
    /// # Errors
    ///
    /// As [`Acker::ack`].
    pub fn ack(&self, revision: Revision) -> Result<()> {
        self.acker.ack(revision)
    }

    /// What acknowledges while the consumer itself is being read, or from another thread.
    pub fn acker(&self) -> &Acker {
        &self.acker
    }

    /// The number of this taking: larger than that of any taking before, of whatever consumer of this store. What is
    /// written elsewhere can be guarded with it against a holder that was taken for dead.
    pub fn fence(&self) -> u64 {
        self.acker.lease.fence
    }

    /// Gives the consumer back, so that another may take it at once. Dropping it does the same soon after, on the
    /// store's thread.
    ///
    /// # Errors
    ///
    /// As [`Acker::ack`], but for `Fenced`. The lease then runs out by itself.
    pub fn close(self) -> Result<()> {
        self.acker.lease.give_back(&self.acker.core)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.acker.core.leases.give_up(&self.acker.core, &self.acker.lease);
    }
}

impl Deref for Consumer {
    type Target = Watcher;

    fn deref(&self) -> &Watcher {
        &self.watcher
    }
}

impl DerefMut for Consumer {
    fn deref_mut(&mut self) -> &mut Watcher {
        &mut self.watcher
    }
}

impl Iterator for Consumer {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        self.watcher.recv()
    }
}

/// # Cancel safety
///
/// As for [`Watcher`].
#[cfg(feature = "async")]
impl futures_core::Stream for Consumer {
    type Item = Result<Event>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Event>>> {
        std::pin::Pin::new(&mut self.watcher).poll_next(cx)
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("acker", &self.acker).field("watcher", &self.watcher).finish()
    }
}

impl Store {
    /// Takes a named consumer, and makes it if it is not there: everything from now on, or where it was left.
    ///
    /// # Errors
    ///
    /// As [`consumer_with`](Store::consumer_with).
    pub fn consumer(&self, name: &str) -> Result<Consumer> {
        self.consumer_with(name, ConsumerOptions::new())
    }

    /// Takes a named consumer, and makes it if it is not there.
    ///
    /// A consumer of a [scoped](Store::scoped) handle belongs to the namespace and sees nothing else. Inside a callback
    /// one must not wait for another holder. A consumer that an earlier release let stand after the last revision goes
    /// on from that one, with a warning.
    ///
    /// # Errors
    ///
    /// `Held` when another has it, and does not let go within the time to wait; `InvalidName` unless it is letters,
    /// digits, hyphens, dots and underscores, 1 to 128 of them; `TooLarge` for a label over
    /// [`MAX_LABEL`](crate::MAX_LABEL); `InvalidArgument` when it is to start after
    /// a revision that lies after the last one; `ForeignCursor` and `LostCursor` when it is to start after a cursor that stands for no event
    /// of this store; `Busy`,
    /// `Nested`, `Full`, `Closed`, `ReadOnly`, `Sealed`, `Corrupt`, `Io`, `UnknownOutcome`.
    pub fn consumer_with(&self, name: &str, options: ConsumerOptions) -> Result<Consumer> {
        let core = self.core();
        core.engine.may_wait(Wait::Commit)?;
        let name = self.scope().consumer(name)?;
        let now = Instant::now();
        let until = now.checked_add(options.wait);
        loop {
            core.leases.flush(core);
            let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
            match self.take(&name, &options) {
                Err(error) if error.kind() == ErrorKind::Held && !left.is_zero() => core.leases.wait(left),
                taken => return taken,
            }
        }
    }

    fn take(&self, name: &str, options: &ConsumerOptions) -> Result<Consumer> {
        let core = self.core();
        // Looked at first: who waits for another does not write meanwhile.
        let row = self.consumer_rows(NameRange::exactly(name))?.pop();
        if let Some(Holder { label, until, is_alive: true }) = row.and_then(|row| row.holder) {
            let left = until.since(core.clock.now());
            return Err(Reason::Held { name: name.to_owned(), holder: label, left }.into());
        }
        let scope = self.scope();
        if let Some(filter) = &options.filter {
            filter.check()?;
            let excluded = filter.parts().iter().filter_map(|part| part.excluded_origin.as_deref());
            excluded.into_iter().try_for_each(|label| check_label("excluded origin", label))?;
        }
        options.holder.as_deref().map_or(Ok(()), |label| check_label("holder's label", label))?;
        let act = Act::Take {
            filter: options.filter.clone().map(|filter| filter.within(|group| scope.full(group))),
            start: self.own(options.start)?,
            holder: options.holder.clone().unwrap_or_else(|| self.label()),
            lease: options.lease,
        };
        let fence = core.write(self.authored(Work::Consumer { name: name.to_owned(), act }))?.fence()?;
        self.hold(name, fence, options).inspect_err(|_| {
            let act = Act::Release { fence };
            if let Err(error) = core.write(self.authored(Work::Consumer { name: name.to_owned(), act })) {
                tracing::debug!(%error, consumer = name, "a consumer could not be given back");
            }
        })
    }

    /// Watches for a consumer that was just taken.
    fn hold(&self, name: &str, fence: u64, options: &ConsumerOptions) -> Result<Consumer> {
        let core = self.core();
        let row = self.consumer_rows(NameRange::exactly(name))?.pop();
        let Some(row) = row.filter(|row| row.fence == fence) else {
            return Err(Reason::Fenced { name: name.to_owned(), by: None }.into());
        };
        let wants_progress = options.watch.progress.is_some();
        let watch = match row.acked {
            Some(acked) => options.watch.clone().after(acked),
            None => options.watch.clone().snapshot(),
        };
        let watch = WatchOptions {
            // At the marks the position moves on where nothing matches.
            progress: watch.progress.or(Some(lease::beat(options.lease))),
            ..watch
        };
        let watcher = Watcher::new(&core.hub, row.filter, self.scope().prefix(), &watch)?;
        let lease = Arc::new(Lease::new(
            (self.id(), name.to_owned(), fence),
            row.acked,
            (options.lease, wants_progress),
            watcher.stopper(),
            core.clock.now(),
        ));
        core.leases.add(lease.clone());
        core.signal.raise(Lane::Vital);
        // It is looked at more often from now on.
        core.signal.raise(Lane::Work);
        let watcher = watcher.account_to(lease.clone());
        Ok(Consumer { watcher, acker: Acker { core: core.clone(), lease } })
    }

    /// What a holder calls itself that was not told.
    fn label(&self) -> String {
        let process = format!("process {}", std::process::id());
        match self.origin() {
            Some(origin) => format!("{process}, {origin}"),
            None => process,
        }
    }

    /// A start, when its cursor is one of this store.
    fn own(&self, start: ConsumerStart) -> Result<ConsumerStart> {
        match start {
            ConsumerStart::AfterCursor(cursor) => cursor.refuse_foreign(self.id()).map(|()| start),
            start => Ok(start),
        }
    }

    fn consumer_rows(&self, names: NameRange) -> Result<Vec<ConsumerInfo>> {
        Query::Consumers { names }.ask(&*self.core().engine)
    }

    /// All named consumers of the file, or of the handle's namespace, by name.
    ///
    /// A handle that is not scoped sees those of namespaces, too, as `namespace:name`.
    ///
    /// # Errors
    ///
    /// `Closed`, `Io`, `Corrupt`.
    pub fn consumers(&self) -> Result<Vec<ConsumerInfo>> {
        Ok(self.known(self.consumer_rows(self.scope().groups(""))?))
    }

    /// Consumers, under the names that this handle knows.
    pub(super) fn known(&self, mut rows: Vec<ConsumerInfo>) -> Vec<ConsumerInfo> {
        let scope = self.scope();
        for row in &mut rows {
            row.name = scope.local(&row.name).to_owned();
            row.filter = row.filter.clone().within(|group| scope.local(group).to_owned());
        }
        rows
    }

    /// Sets a consumer to another place: it goes on there when it is taken next.
    ///
    /// ```
    /// use watchkeep::{ConsumerStart, Force, Store};
    /// let store = Store::open_in_memory()?;
    /// store.consumer("billing")?.close()?;
    /// store.set("orders", "7", "1 apple")?;
    /// store.reset_consumer("billing", ConsumerStart::Now, Force::No)?;
    /// assert!(store.consumer("billing")?.try_recv().is_none());
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `NotFound`; `Held` while somebody holds it, unless forced: then the holder loses it; `InvalidArgument` for a
    /// revision after the last one; `ForeignCursor` and `LostCursor` for a cursor that stands for no event of this store; `Busy`, `Nested`, `Full`, `Closed`, `ReadOnly`, `Sealed`, `Corrupt`, `Io`, `UnknownOutcome`.
    pub fn reset_consumer(&self, name: &str, to: ConsumerStart, force: Force) -> Result<()> {
        self.change_consumer(name, Act::Reset { to: self.own(to)?, force })
    }

    /// Removes a consumer, its position with it: the log keeps nothing for it any more.
    ///
    /// # Errors
    ///
    /// As [`reset_consumer`](Store::reset_consumer).
    pub fn remove_consumer(&self, name: &str, force: Force) -> Result<()> {
        self.change_consumer(name, Act::Remove { force })
    }

    fn change_consumer(&self, name: &str, act: Act) -> Result<()> {
        let core = self.core();
        core.engine.may_wait(Wait::Commit)?;
        core.leases.flush(core);
        core.write(self.authored(Work::Consumer { name: self.scope().full(name), act })).map(drop)
    }
}
