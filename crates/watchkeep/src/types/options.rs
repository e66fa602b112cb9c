//! How a store is opened.

use std::sync::Arc;
use std::time::Duration;

use super::clock::{Clock, SystemClock};
use super::limits::{CONSUMER_AGE, CONSUMER_BYTES, Limits, MEMORY_LIMIT, PAGE_CACHE};

/// What a commit has survived when the write returns. A property of the file, chosen when it is made.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// A power cut: one sync for each commit.
    #[default]
    Full,
    /// A killed process, but not a power cut.
    Relaxed,
}

impl Durability {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Durability::Full => "full",
            Durability::Relaxed => "relaxed",
        }
    }
}

/// How a process hears of what other processes commit to the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Waking {
    /// By a signal, at once; and it looks for itself four times a second while it is watched, should a signal go missing.
    Signal,
    /// It looks for itself, twenty times a second: there is no wake file, or nothing that watches it.
    Poll,
    /// Nobody else can open the file: it is a private one.
    Alone,
}

impl Waking {
    /// One word: `signal`, `poll` or `alone`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Waking::Signal => "signal",
            Waking::Poll => "poll",
            Waking::Alone => "alone",
        }
    }
}

/// How much of the past the change log keeps. A property of the file, kept in it: whoever has it open trims by it.
///
/// Events go, oldest first and whole transactions at a time, when there are more than `max_events`, when they are
/// older than `max_age`, or when they take more than `max_bytes`; but the newest `min_events` stay whatever their
/// age, and whatever `max_events` says. The background trimmer works in steps, so the log may be a little longer
/// for a moment. An event whose time is ahead of now, because a clock was wrong, counts as old as the next whose time
/// is not.
///
/// Nothing goes that a named consumer has not acknowledged, up to a ceiling: it may hold back events that are no older
/// than `consumer_age`, as long as they are within the newest `consumer_bytes` of the log. Past that they go as if it
/// were not there, and it is told so. For a watcher that reads a snapshot, its own process keeps what it needs, up to a
/// log of 2,000,000 events or 256 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// 1,000,000 unless set.
    pub max_events: u64,
    /// 7 days unless set.
    pub max_age: Duration,
    /// Bytes of names and values; unlimited unless set.
    pub max_bytes: u64,
    /// 10,000 unless set.
    pub min_events: u64,
    /// How old what a named consumer holds back may become. 30 days unless set.
    pub consumer_age: Duration,
    /// How much of the log, in bytes of names and values from its end, a named consumer may hold back. 1 GiB unless
    /// set.
    pub consumer_bytes: u64,
}

impl Retention {
    /// Everything, for ever.
    pub const FOREVER: Retention = Retention {
        max_events: u64::MAX,
        max_age: Duration::MAX,
        max_bytes: u64::MAX,
        min_events: 0,
        consumer_age: CONSUMER_AGE,
        consumer_bytes: CONSUMER_BYTES,
    };

    /// The newest events, this many, whatever their age and size.
    pub const fn events(count: u64) -> Retention {
        Retention { max_events: count, min_events: count, ..Retention::FOREVER }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            max_events: 1_000_000,
            max_age: Duration::from_secs(7 * 24 * 3600),
            max_bytes: u64::MAX,
            min_events: 10_000,
            consumer_age: CONSUMER_AGE,
            consumer_bytes: CONSUMER_BYTES,
        }
    }
}

/// Who compacts the history of the etcd cluster that a store lies in. A property of the store, kept in the cluster:
/// whoever has it open keeps to it.
///
/// etcd keeps every former value of every key until it is told to compact, and a compaction takes from *all* who use the
/// cluster.
#[cfg(feature = "etcd")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compaction {
    /// Whoever else does: an operator, or the servers, as they are started. The store keeps no history back.
    #[default]
    Never,
    /// The store, by its [retention](Options::retention), as a file is trimmed: one of the processes that have it open does
    /// so in the background. For clusters whose history nobody else needs. At least the last two minutes stay.
    Own,
}

/// How a store is opened.
///
/// ```
/// use std::time::Duration;
/// use watchkeep::{Durability, Options, Retention};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("app.db");
/// let store = Options::new()
///     .durability(Durability::Relaxed)
///     .retention(Retention::events(50_000))
///     .busy_timeout(Duration::from_secs(2))
///     .open(&path)?;
/// store.set("config", "theme", "dark")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) create: bool,
    pub(crate) adopt: bool,
    pub(crate) network: bool,
    pub(crate) ballast: bool,
    pub(crate) durability: Option<Durability>,
    pub(crate) retention: Option<Retention>,
    #[cfg(feature = "etcd")]
    pub(crate) compaction: Option<Compaction>,
    pub(crate) memory_limit: u64,
    pub(crate) page_cache: u64,
    pub(crate) sparse_revisions: bool,
    pub(crate) limits: Limits,
    pub(crate) busy_timeout: Duration,
    pub(crate) snapshot_age: Duration,
    pub(crate) origin: Option<Arc<str>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) boot_id: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            create: true,
            adopt: false,
            network: false,
            ballast: true,
            durability: None,
            retention: None,
            #[cfg(feature = "etcd")]
            compaction: None,
            memory_limit: MEMORY_LIMIT,
            page_cache: PAGE_CACHE,
            sparse_revisions: false,
            limits: Limits::default(),
            busy_timeout: Duration::from_secs(5),
            snapshot_age: Duration::from_secs(60),
            origin: None,
            clock: Arc::new(SystemClock),
            boot_id: None,
        }
    }
}

impl Options {
    /// A file that is made when it is not there, with full durability.
    pub fn new() -> Options {
        Options::default()
    }

    /// Whether a missing file is made. True unless set; otherwise it is an error of kind
    /// [`NotFound`](crate::ErrorKind::NotFound).
    #[must_use]
    pub fn create(mut self, create: bool) -> Options {
        self.create = create;
        self
    }

    /// Whether an SQLite file that holds other tables gets ours beside them. False unless set; otherwise such a
    /// file is an error of kind [`ForeignFile`](crate::ErrorKind::ForeignFile), and so is one whose texts are not UTF-8.
    #[must_use]
    pub fn adopt(mut self, adopt: bool) -> Options {
        self.adopt = adopt;
        self
    }

    /// Whether a file on a network file system is opened. False unless set; otherwise such a file is an error of kind
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument), as far as it can be told: file locks there often do
    /// not hold, and then two writers damage the file.
    #[must_use]
    pub fn network(mut self, network: bool) -> Options {
        self.network = network;
        self
    }

    /// Whether a file of 4 MiB, named like the store with `-ballast` behind it, is kept beside the store and given
    /// back when the disk is full, so that deleting works again. True unless set. The first write through this handle
    /// makes it; a private store has none.
    #[must_use]
    pub fn ballast(mut self, ballast: bool) -> Options {
        self.ballast = ballast;
        self
    }

    /// The durability of a new file, and what an existing one must have. Unless set, a new file is
    /// [`Durability::Full`], and an existing one is taken as it is.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Options {
        self.durability = Some(durability);
        self
    }

    /// How much of the past the log keeps, from now on, whoever has the file open. Unless set, a new file gets the
    /// default, and an existing one keeps what it has.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Options {
        self.retention = Some(retention);
        self
    }

    /// Who compacts the history of the cluster, from now on, whoever has the store open. Unless set, a new store has
    /// [`Compaction::Never`], and an existing one keeps what it has. Nothing else looks at it.
    ///
    /// With [`Compaction::Own`] the history of the *whole* cluster goes by this store's retention: other stores' watchers
    /// that are behind, and other users of the cluster, lose what they have not read.
    ///
    /// ```no_run
    /// use watchkeep::{Compaction, Options, Retention};
    /// let store = Options::new()
    ///     .compaction(Compaction::Own)
    ///     .retention(Retention::events(100_000))
    ///     .connect("etcd://10.0.0.1,10.0.0.2,10.0.0.3/app")?;
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    #[cfg(feature = "etcd")]
    #[must_use]
    pub fn compaction(mut self, compaction: Compaction) -> Options {
        self.compaction = Some(compaction);
        self
    }

    /// How many bytes a store [in memory](Options::open_in_memory) may take, about: names, values, and 256 bytes more for
    /// each entry, each event of the log and each answer to a batch with an id. 1 GiB unless set. A set that would take more is refused with an error of kind
    /// [`Full`](crate::ErrorKind::Full); deleting is not. The log is trimmed to half of it, whoever still needs it.
    ///
    /// ```
    /// use watchkeep::{ErrorKind, Options};
    /// let store = Options::new().memory_limit(100_000).open_in_memory()?;
    /// assert_eq!(store.set("g", "large", vec![0; 100_000]).unwrap_err().kind(), ErrorKind::Full);
    /// store.set("g", "small", "v")?;
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> Options {
        self.memory_limit = bytes;
        self
    }

    /// How many bytes of a file's pages this store keeps in memory at the most, about: a quarter for writing, and the rest
    /// for all who read at once, be it one or sixteen, but at least 1 MiB for each. 64 MiB unless set. It is taken as pages
    /// are read, not when the store is opened, and a read that began when fewer were reading keeps its larger share until it
    /// returns. A [`snapshot`](crate::Store::snapshot) has 2 MB of its own.
    #[must_use]
    pub fn page_cache(mut self, bytes: u64) -> Options {
        self.page_cache = bytes;
        self
    }

    /// Whether the revisions of a store [in memory](Options::open_in_memory) lie apart, now near and now far. False unless
    /// set. For tests of code that must not count by revisions, which are ordered and not dense.
    ///
    /// ```
    /// use watchkeep::Options;
    /// let store = Options::new().sparse_revisions(true).open_in_memory()?;
    /// let (first, second) = (store.set("g", "k", "1")?, store.set("g", "k", "2")?);
    /// assert!(second.get() > first.get() + 1);
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    #[must_use]
    pub fn sparse_revisions(mut self, sparse: bool) -> Options {
        self.sparse_revisions = sparse;
        self
    }

    /// How large names and values may be.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Options {
        self.limits = limits;
        self
    }

    /// How long a write waits for others before it fails with kind [`Busy`](crate::ErrorKind::Busy). Five seconds
    /// unless set.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Options {
        self.busy_timeout = timeout;
        self
    }

    /// How long a [`snapshot`](crate::Store::snapshot) may be held before its reads fail with kind
    /// [`SnapshotTooOld`](crate::ErrorKind::SnapshotTooOld). One minute unless set: while it is held, the file's
    /// write-ahead log grows.
    #[must_use]
    pub fn snapshot_age(mut self, age: Duration) -> Options {
        self.snapshot_age = age;
        self
    }

    /// The label of what this handle writes, at most [`MAX_LABEL`](crate::MAX_LABEL) bytes; see [`Store::with_origin`](crate::Store::with_origin).
    #[must_use]
    pub fn origin(mut self, origin: impl Into<String>) -> Options {
        self.origin = Some(origin.into().into());
        self
    }

    /// Where the time comes from: the machine unless set.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Options {
        self.clock = clock;
        self
    }

    /// What names the present boot of the machine: another text after each boot, the same in all processes until the
    /// next. Linux tells it, and this need not be set there. Elsewhere each opening of a file that writes adds a row to it,
    /// unless this is set.
    ///
    /// At most [`MAX_LABEL`](crate::MAX_LABEL) bytes; opening a file with a longer one is an error of kind
    /// [`TooLarge`](crate::ErrorKind::TooLarge).
    ///
    /// By it a [`Cursor`](crate::Cursor) of what a power cut took is told from one of what was written in its place.
    #[must_use]
    pub fn boot_id(mut self, id: impl Into<String>) -> Options {
        self.boot_id = Some(id.into());
        self
    }
}
