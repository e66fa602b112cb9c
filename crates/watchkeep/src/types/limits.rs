//! Every limit of the library, in one place.

use std::time::Duration;

/// The largest revision: the largest whole number that a JSON number carries exactly.
pub const MAX_REVISION: u64 = (1 << 53) - 1;

/// The largest deadline, in milliseconds since 1970: 9999-12-30T22:00:00Z, the last hour that every time zone can
/// write with a year of four digits.
pub const MAX_DEADLINE_MS: i64 = 253_402_207_200_000;

/// The longest content type, in bytes. Media types stay far below it, their parameters included.
pub const MAX_CONTENT_TYPE: usize = 1024;

/// The largest transaction of a store in a cluster, in bytes, with all that it reads and writes: of the 1.5 MiB that a
/// server takes. A value that is to go there is a little smaller.
pub const CLUSTER_TRANSACTION: usize = 1_400 << 10;

/// The longest text of a seal, in bytes.
pub const MAX_SEAL: usize = 1024;

/// The longest label, in bytes: the origin of what a handle writes, and what a consumer's holder calls itself.
pub const MAX_LABEL: usize = 256;

/// How many conditions and operations a [`Batch`](crate::Batch) has together, at the most.
pub const MAX_BATCH_OPERATIONS: usize = 4_096;

/// How many bytes of names and values a [`Batch`](crate::Batch) has, at the most.
pub const MAX_BATCH_BYTES: usize = 64 << 20;

/// How many events [`Condition::unchanged`](crate::Condition::unchanged) looks at, at the most.
pub const MAX_UNCHANGED_EVENTS: usize = 1_024;

/// How many different filters a union ([`Filter::any`](crate::Filter::any)) has, at the most.
pub const MAX_FILTER_PARTS: usize = 64;

/// How many answers to batches with an id are kept for each client, and how long.
pub(crate) const ANSWERS: u64 = 64;
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(24 * 3_600);
/// How many old ones one step drops.
pub(crate) const ANSWER_STEP: u32 = 256;

/// How many entries an iterator reads at a time.
pub(crate) const PAGE_ENTRIES: usize = 256;
/// How many bytes of entries an iterator reads at a time.
pub(crate) const PAGE_BYTES: usize = 1 << 20;

/// How many rows of the log a page of changes looks at, at the most.
pub(crate) const CHANGES_ROWS: usize = 1_000;

/// How many entries one step of a watcher's snapshot reads, and how many groups it looks at, whatever it finds there.
pub(crate) const SNAPSHOT_ENTRIES: usize = 256;
pub(crate) const SNAPSHOT_GROUPS: usize = 256;

/// For a watcher that began with a snapshot, and has not caught up since, upkeep leaves what it needs in the log whatever
/// retention says, while the log holds no more than so many events and bytes.
pub(crate) const SNAPSHOT_LOG_EVENTS: u64 = 2_000_000;
pub(crate) const SNAPSHOT_LOG_BYTES: u64 = 256 << 20;

/// What one group commit takes along at the most: jobs, bytes of them, and time.
pub(crate) const BATCH_JOBS: usize = 256;
pub(crate) const BATCH_BYTES: usize = 1 << 20;
pub(crate) const BATCH_TIME: Duration = Duration::from_millis(2);

/// How many writes may wait for their commit, and how many bytes of them: past either, asynchronous writes are refused.
pub(crate) const QUEUED_JOBS: usize = 65_536;
pub(crate) const QUEUED_BYTES: usize = 64 << 20;

/// How many calls may wait for such a thread: past that they are refused.
pub(crate) const QUEUED_CALLS: usize = 65_536;
/// How many threads read for asynchronous callers, at the least and at the most: one for each core.
pub(crate) const READING_THREADS: (usize, usize) = (2, 8);
/// How many threads run what may wait long for asynchronous callers: transactions, backups, closures. Most of them
/// wait for the turn, and cost little.
pub(crate) const CALLING_THREADS: usize = 32;

/// While other processes write, one rests this long after writing for so long; and how many of its own commits in a
/// row, without one of another's between, it takes for it to be alone again.
pub(crate) const REST: Duration = Duration::from_micros(250);
pub(crate) const REST_AFTER: Duration = Duration::from_millis(1);
pub(crate) const OTHERS_REMEMBERED: u32 = 64;

/// Commits above this are dispatched from the log instead of from memory.
pub(crate) const FEED_EVENTS: usize = 4_096;
pub(crate) const FEED_BYTES: usize = 1 << 20;
/// What the feed holds of commits that nobody has dispatched yet; past it, the log serves.
pub(crate) const FEED_TOTAL_BYTES: usize = 4 << 20;

/// Farther behind than this, a hub does not replay the log to everybody.
pub(crate) const FAR_BEHIND: u64 = 1_024;

/// What the callbacks' queue holds before it reads on from the log.
pub(crate) const CALLBACK_EVENTS: usize = 4_096;

/// What the shared cache of decoded log pages holds.
pub(crate) const LOG_CACHE_BYTES: usize = 8 << 20;

/// How many due entries one transaction removes.
pub(crate) const REAP_STEP: usize = 128;
/// How long a store that closes removes what is due. It does not wait for who holds the file.
pub(crate) const LAST_REAP: Duration = Duration::from_millis(250);
/// How many entries of deleted groups one step sweeps.
pub(crate) const SWEEP_STEP: usize = 512;
/// How many events one step of the trimmer removes.
pub(crate) const TRIM_STEP: u64 = 512;

/// How many workers of the driver serve what users' code may keep, at the most, and how many more what others rely on in
/// time. A store that waits needs no worker: these are for callbacks that block.
pub(crate) const DRIVER_WORKERS: usize = 512;
pub(crate) const DRIVER_WORKERS_VITAL: usize = 2;
/// A worker more is started when somebody has waited so long for one.
pub(crate) const GROW_AFTER: Duration = Duration::from_millis(5);
/// Workers that were not needed for so long end, but for the last.
pub(crate) const IDLE_WORKER: Duration = Duration::from_secs(5);

/// How often a store is looked at for what other processes wrote, whatever wakes it besides, while somebody wants to
/// know: watchers, callbacks, holders of consumers.
pub(crate) const POLL: Duration = Duration::from_millis(250);
/// The same where nothing signals what other processes write.
pub(crate) const POLL_UNSIGNALLED: Duration = Duration::from_millis(50);
/// The same while nobody wants to know, and where nobody else can write.
pub(crate) const POLL_QUIET: Duration = Duration::from_secs(5);
/// How long a store is deaf after a signal without news: most likely it heard its own process write, and whoever writes
/// finds what others wrote.
pub(crate) const DEAF: Duration = Duration::from_millis(2);
/// The same while nobody watches: only deadlines are looked for.
pub(crate) const DEAF_UNWATCHED: Duration = Duration::from_millis(20);
/// A file that looks untouched is believed to be so when it was read so long after it was touched: the time of a file
/// moves in steps, of 10 ms at the most.
pub(crate) const TOUCH_GRAIN: Duration = Duration::from_millis(50);

/// While another process has the file, what waits in the background is tried again after a quarter of the time that it
/// has waited, within these bounds.
pub(crate) const RETRY: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(20));
/// How long a step of upkeep waits for whoever writes.
pub(crate) const UPKEEP_PATIENCE: Duration = Duration::from_millis(100);

/// When a store's file could not be read for so long, watchers are told and ended.
pub(crate) const BLIND: Duration = Duration::from_secs(5);

/// How often a store is looked after when nothing calls for it, and somebody wants to know what others wrote.
pub(crate) const UPKEEP: Duration = Duration::from_secs(1);

/// When a callback is reported as slow.
pub(crate) const SLOW_CALLBACK: Duration = Duration::from_secs(1);

/// What a store in memory may take, in bytes, unless asked otherwise.
pub(crate) const MEMORY_LIMIT: u64 = 1 << 30;

/// The write-ahead log is moved into the file when it has grown by this: the longer it is, the more often a page is moved
/// only once for several writes.
pub(crate) const CHECKPOINT_PAGES: u64 = 16_000;

/// What is moved while writers wait is at most about so long, unless they write faster than it is moved.
pub(crate) const CHECKPOINT_LAST_PAGES: u64 = 500;
/// How often it is tried to come to that.
pub(crate) const CHECKPOINT_PASSES: usize = 4;

/// The same where it was moved and has not begun again from its start, because somebody was just reading it.
pub(crate) const CHECKPOINT_RETRY_PAGES: u64 = CHECKPOINT_PAGES / 10;

/// What the write-ahead log keeps of its length, in bytes, when it begins again from its start. It is above what
/// [`CHECKPOINT_PAGES`] usually let it come to, so that usual writes find room in it that is allocated already.
pub(crate) const WAL_KEPT: i64 = 96 << 20;

/// When nobody has written while it was looked at so often, the write-ahead log is moved into the file and emptied.
pub(crate) const WAL_IDLE_LOOKS: u32 = 3;

/// What the page caches of a store take, in bytes, unless asked otherwise; how much of it is the writing connection's; and
/// what each connection has at the least.
pub(crate) const PAGE_CACHE: u64 = 64 << 20;
pub(crate) const WRITER_CACHE_PARTS: u64 = 4;
pub(crate) const LEAST_CACHE: u64 = 1 << 20;

/// Read connections that nobody used for so long are closed, but for one.
pub(crate) const IDLE_READER: Duration = Duration::from_secs(10);

/// An entry whose key, content type and value come to more bytes than this keeps its value apart. SQLite reads a whole
/// row to compare its key, so one that does not fit into its page makes its neighbours slow: that begins at some 1,000.
pub(crate) const INLINE: usize = 500;

/// Read connections that a store keeps; for more who read at once others are opened, and closed after the read. And those
/// for the store itself, and for who reads the log.
pub(crate) const READERS: usize = 32;
pub(crate) const UPKEEP_READERS: usize = 8;

/// How long a consumer stays its holder's without a sign of life, unless asked otherwise, and at the least.
pub(crate) const CONSUMER_LEASE: Duration = Duration::from_secs(10);
pub(crate) const CONSUMER_LEASE_MIN: Duration = Duration::from_millis(100);
/// A holder gives a sign of life every such part of its lease.
pub(crate) const LEASE_PARTS: u32 = 3;
/// The longest name of a namespace, in bytes.
pub(crate) const NAMESPACE: usize = 128;
/// The longest name of a consumer, in bytes.
pub(crate) const CONSUMER_NAME: usize = 128;

/// How long the log is kept for a consumer, unless the file says otherwise: well past the usual retention by age,
/// or it would add nothing.
pub(crate) const CONSUMER_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How much of the log is kept for a consumer, unless the file says otherwise.
pub(crate) const CONSUMER_BYTES: u64 = 1 << 30;

/// The oldest SQLite that does not lose a write-ahead log to two connections that write and move it: 3.51.3.
pub(crate) const MIN_SQLITE: i32 = 3_051_003;

/// With less free than this, in bytes, a file is not opened: the index of the write-ahead log is mapped, and a page of
/// it that finds no room kills the process.
pub(crate) const MIN_FREE: u64 = 256 << 10;

/// The size of the ballast in bytes: what is given back to a full disk so that deleting works again. It must hold what
/// of the write-ahead log is new to the file, several times over: 1 MiB was tried, and was not enough.
pub(crate) const BALLAST_BYTES: u64 = 4 << 20;
/// How much must be free, in bytes, for the ballast to be made again: more than it takes, or it would come and go.
pub(crate) const BALLAST_ROOM: u64 = 2 * BALLAST_BYTES;

/// With less free than this, in bytes, room is scarce: then the write-ahead log is kept shorter than
/// [`SCARCE_PAGES`], because on a full disk a log that is much longer than the ballast could not be moved any more.
pub(crate) const SCARCE: u64 = 64 << 20;
pub(crate) const SCARCE_PAGES: u64 = 256;

/// The longest path that SQLite opens, with what it puts behind it, in bytes.
pub(crate) const SQLITE_PATH: usize = 512;
/// The longest name in a folder where the file system does not say, in bytes.
pub(crate) const NAME_MAX: usize = 255;

/// How often a busy writer looks whether its files are still the ones that it opened.
pub(crate) const GUARD_EVERY: Duration = Duration::from_millis(10);

/// How many pages of a backup are copied between two calls of its progress.
pub(crate) const COPY_PAGES: i32 = 256;

/// How large names and values may be, in bytes.
///
/// ```
/// use watchkeep::{Limits, Options};
/// let limits = Limits { value: 1024, ..Limits::default() };
/// let store = Options::new().limits(limits).open_in_memory()?;
/// assert!(store.set("config", "big", vec![0; 1025]).is_err());
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest group name, its namespace included. 512 bytes unless set.
    pub group: usize,
    /// The longest key. 1 KiB unless set.
    pub key: usize,
    /// The largest value. 16 MiB unless set.
    pub value: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { group: 512, key: 1024, value: 16 << 20 }
    }
}
