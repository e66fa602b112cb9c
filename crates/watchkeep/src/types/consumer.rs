//! Named consumers: how one is taken, and what can be said about it.

use std::time::Duration;

use super::clock::Timestamp;
use super::event::Lagged;
use super::filter::Filter;
use super::limits::{CONSUMER_LEASE, CONSUMER_LEASE_MIN};
use super::revision::{Cursor, Revision};
use super::watching::WatchOptions;

/// Where a named consumer begins that is not in the file yet, or where it is set to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsumerStart {
    /// After the last revision: with what comes next.
    #[default]
    Now,
    /// Where the change log begins, wherever that is.
    Beginning,
    /// After this revision, taken as it is: one of another store is not noticed. What of it is trimmed is told as
    /// lost. One after the last revision is refused.
    After(Revision),
    /// After this cursor. One whose event is not this store's is refused.
    AfterCursor(Cursor),
    /// With the current entries and a [`Ready`](crate::Item::Ready) mark, then every later change. The entries come
    /// again, as they are then, until the mark or something after it is acknowledged.
    Snapshot,
}

/// Whether to go on although a consumer stands against it: one that is held, or that still needs the events.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Force {
    /// It is refused with kind [`Held`](crate::ErrorKind::Held).
    #[default]
    No,
    /// It is done. A holder loses the consumer and is told so; events that are lost are told as lost.
    Yes,
}

/// How [`Store::consumer_with`](crate::Store::consumer_with) takes a named consumer.
///
/// ```
/// use watchkeep::{ConsumerOptions, ConsumerStart, Filter, Store};
/// let store = Store::open_in_memory()?;
/// store.set("orders", "7", "1 apple")?;
/// let orders = ConsumerOptions::new().filter(Filter::group("orders")).start(ConsumerStart::Beginning);
/// let mut consumer = store.consumer_with("billing", orders)?;
/// let event = consumer.recv().unwrap()?;
/// consumer.ack(event.revision())?;
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerOptions {
    pub(crate) filter: Option<Filter>,
    pub(crate) start: ConsumerStart,
    pub(crate) lease: Duration,
    pub(crate) wait: Duration,
    pub(crate) holder: Option<String>,
    /// Start and policy aside, which are the consumer's own.
    pub(crate) watch: WatchOptions,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        ConsumerOptions {
            filter: None,
            start: ConsumerStart::Now,
            lease: CONSUMER_LEASE,
            wait: Duration::ZERO,
            holder: None,
            watch: WatchOptions::new(),
        }
    }
}

impl ConsumerOptions {
    /// A new consumer sees everything from now on; one that is in the file goes on as it was. One that is held is
    /// not waited for.
    pub fn new() -> ConsumerOptions {
        ConsumerOptions::default()
    }

    /// Which events it gets. Unless set, a new consumer gets everything, and one that is in the file keeps the
    /// filter that it had. Another filter holds for what comes after the last acknowledgement: what was passed over
    /// before does not come back.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> ConsumerOptions {
        self.filter = Some(filter);
        self
    }

    /// Where a new consumer begins; one that is in the file goes on after its last acknowledgement, whatever is
    /// said here. [`ConsumerStart::Now`] unless set.
    #[must_use]
    pub fn start(mut self, start: ConsumerStart) -> ConsumerOptions {
        self.start = start;
        self
    }

    /// How long the consumer stays ours without a sign of life, at least 100 ms. Ten seconds unless set. While it is
    /// held, it is renewed in the background every third of that.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> ConsumerOptions {
        self.lease = lease.max(CONSUMER_LEASE_MIN);
        self
    }

    /// How long to wait for another holder to let go before it is an error of kind
    /// [`Held`](crate::ErrorKind::Held). Not at all unless set; [`Duration::MAX`] waits for ever.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> ConsumerOptions {
        self.wait = wait;
        self
    }

    /// What others are told about who holds the consumer, at most [`MAX_LABEL`](crate::MAX_LABEL) bytes. Unless set,
    /// the process's number, with the label of the handle if it has one.
    #[must_use]
    pub fn holder(mut self, label: impl Into<String>) -> ConsumerOptions {
        self.holder = Some(label.into());
        self
    }

    /// How many events the buffer holds; see [`WatchOptions::buffer`].
    #[must_use]
    pub fn buffer(mut self, events: usize) -> ConsumerOptions {
        self.watch = self.watch.buffer(events);
        self
    }

    /// How many bytes of events the buffer holds; see [`WatchOptions::buffer_bytes`].
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: usize) -> ConsumerOptions {
        self.watch = self.watch.buffer_bytes(bytes);
        self
    }

    /// Asks for [`Progress`](crate::Item::Progress) marks; see [`WatchOptions::progress`]. They may be acknowledged,
    /// but need not be: once all that was handed out is acknowledged, it is done in the background.
    #[must_use]
    pub fn progress(mut self, every: Duration) -> ConsumerOptions {
        self.watch = self.watch.progress(every);
        self
    }

    /// Asks for the value that each event replaced or removed; see [`WatchOptions::previous_values`].
    #[must_use]
    pub fn previous_values(mut self) -> ConsumerOptions {
        self.watch = self.watch.previous_values();
        self
    }

    /// Asks for events without values.
    #[must_use]
    pub fn keys_only(mut self) -> ConsumerOptions {
        self.watch = self.watch.keys_only();
        self
    }
}

/// A named consumer as it stands in the file; see [`Store::consumers`](crate::Store::consumers).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerInfo {
    /// Its name, without the namespace that the handle is scoped to.
    pub name: String,
    /// Which events it gets.
    pub filter: Filter,
    /// Everything up to this revision is acknowledged, or does not concern it. None while it begins with a snapshot.
    pub acked: Option<Revision>,
    /// When its holder last acknowledged something.
    pub acked_at: Option<Timestamp>,
    /// When it came to be.
    pub created: Timestamp,
    /// The number of its last taking; see [`Consumer::fence`](crate::Consumer::fence).
    pub fence: u64,
    /// Who took it last and has not given it back.
    pub holder: Option<Holder>,
    /// How many events were written after `acked`, whether they match the filter or not, and those that retention has
    /// taken included. Zero while it begins with a snapshot.
    pub lag_events: u64,
    /// How many bytes of names and values the log holds after `acked`.
    pub lag_bytes: u64,
    /// When the oldest event after `acked` was written that the log holds, whether it matches the filter or not.
    pub oldest_unacked: Option<Timestamp>,
    /// What retention has taken from it, for it passed the ceiling; it is told when it goes on.
    pub lost: Option<Lagged>,
}

/// Who holds a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// What it calls itself.
    pub label: String,
    /// Until when, unless it gives another sign of life.
    pub until: Timestamp,
    /// Whether that lies ahead: otherwise it is gone or stands still, and whoever asks for the consumer gets it.
    pub is_alive: bool,
}
