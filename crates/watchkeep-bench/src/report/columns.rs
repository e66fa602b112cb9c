//! What is shown of each workload: its title, what to know of it, and its columns.

use crate::plan::Workload;

use super::number::Unit;

/// What a column shows of a cell's rounds.
#[derive(Clone, Copy)]
pub(super) enum What {
    Median(&'static str, Unit),
    /// The least and the most.
    Spread(&'static str, Unit),
    /// The median of the rounds' ratios to another cell.
    Times(&'static str, Other),
    /// How many rows a set writes.
    Rows,
    /// What others took of the machine: the most.
    Others,
}

/// With which cell a cell is compared.
#[derive(Clone, Copy)]
pub(super) enum Other {
    /// The same work by another contender.
    Contender(&'static str),
    /// The same contender with a size of one.
    One,
    /// The disk with one thread.
    Floor,
}

pub(super) type Columns = &'static [(&'static str, What)];

const RAW: Other = Other::Contender("rusqlite");
const SET: Columns = &[
    ("rows a set", What::Rows),
    ("sets/s", What::Median("rate", Unit::Rate)),
    ("least ... most", What::Spread("rate", Unit::Rate)),
    ("p50", What::Median("p50", Unit::Time)),
    ("p99", What::Median("p99", Unit::Time)),
    ("× rusqlite", What::Times("rate", RAW)),
    ("× rusqlite-no-log", What::Times("rate", Other::Contender("rusqlite-no-log"))),
    ("× floor", What::Times("rate", Other::Floor)),
    ("others", What::Others),
];
const FLOOR: Columns = &[
    ("syncs/s", What::Median("rate", Unit::Rate)),
    ("least ... most", What::Spread("rate", Unit::Rate)),
    ("p50", What::Median("p50", Unit::Time)),
    ("p99", What::Median("p99", Unit::Time)),
    ("× floor", What::Times("rate", Other::Floor)),
    ("others", What::Others),
];
const GET: Columns = &[
    ("gets/s", What::Median("rate", Unit::Rate)),
    ("least ... most", What::Spread("rate", Unit::Rate)),
    ("p50", What::Median("p50", Unit::Time)),
    ("p99", What::Median("p99", Unit::Time)),
    ("× rusqlite", What::Times("rate", RAW)),
    ("× one thread", What::Times("rate", Other::One)),
    ("others", What::Others),
];
const LATENCY: Columns = &[
    ("event p50", What::Median("p50", Unit::Time)),
    ("least ... most", What::Spread("p50", Unit::Time)),
    ("event p99", What::Median("p99", Unit::Time)),
    ("set p50", What::Median("set p50", Unit::Time)),
    ("before the set returned", What::Median("early", Unit::Percent)),
    ("p50 × rusqlite", What::Times("p50", RAW)),
    ("p99 × rusqlite", What::Times("p99", RAW)),
    ("others", What::Others),
];
const FAN_OUT: Columns = &[
    ("set", What::Median("set", Unit::Time)),
    ("set, nobody matches", What::Median("set unwatched", Unit::Time)),
    ("send, an event", What::Median("send", Unit::Time)),
    ("least ... most", What::Spread("send", Unit::Time)),
    ("receive, an event", What::Median("receive", Unit::Time)),
    ("send × channels", What::Times("send", Other::Contender("channels"))),
    ("both × channels", What::Times("event", Other::Contender("channels"))),
    ("others", What::Others),
];
const SELECTIVITY: Columns = &[
    ("set p50", What::Median("set", Unit::Time)),
    ("least ... most", What::Spread("set", Unit::Time)),
    ("set p99", What::Median("p99", Unit::Time)),
    ("× one watcher", What::Times("set", Other::One)),
    ("× rusqlite", What::Times("set", RAW)),
    ("all armed in", What::Median("arm", Unit::Time)),
    ("a watcher", What::Median("arm each", Unit::Time)),
    ("memory of a watcher", What::Median("memory", Unit::Bytes)),
    ("others", What::Others),
];
const REPLAY: Columns = &[
    ("events/s", What::Median("rate", Unit::Rate)),
    ("least ... most", What::Spread("rate", Unit::Rate)),
    ("an event", What::Median("event", Unit::Time)),
    ("× rusqlite", What::Times("rate", RAW)),
    ("others", What::Others),
];

const SCAN: Columns = &[
    ("a scan", What::Median("p50", Unit::Time)),
    ("least ... most", What::Spread("p50", Unit::Time)),
    ("p99", What::Median("p99", Unit::Time)),
    ("an entry", What::Median("entry", Unit::Time)),
    ("time × rusqlite", What::Times("p50", RAW)),
    ("others", What::Others),
];
const BATCH: Columns = &[
    ("rows a set", What::Rows),
    ("a transaction", What::Median("mean", Unit::Time)),
    ("least ... most", What::Spread("mean", Unit::Time)),
    ("p50", What::Median("p50", Unit::Time)),
    ("p99", What::Median("p99", Unit::Time)),
    ("time × rusqlite", What::Times("mean", RAW)),
    ("time × rusqlite-no-log", What::Times("mean", Other::Contender("rusqlite-no-log"))),
    ("others", What::Others),
];
const IMPORT: Columns = &[
    ("rows an entry", What::Rows),
    ("took", What::Median("took", Unit::Time)),
    ("entries/s", What::Median("rate", Unit::Rate)),
    ("least ... most", What::Spread("rate", Unit::Rate)),
    ("time × rusqlite", What::Times("took", RAW)),
    ("time × rusqlite-no-log", What::Times("took", Other::Contender("rusqlite-no-log"))),
    ("file × rusqlite-no-log", What::Times("logged size", Other::Contender("rusqlite-no-log"))),
    ("trimmed", What::Times("trimmed size", Other::Contender("rusqlite-no-log"))),
    ("trimmed × names and values", What::Median("size", Unit::Rate)),
    ("others", What::Others),
];
const DISTURB: Columns = &[
    ("took", What::Median("took", Unit::Time)),
    ("least ... most", What::Spread("took", Unit::Time)),
    ("writer's p99, idle", What::Median("idle p99", Unit::Time)),
    ("p50 meanwhile", What::Median("p50", Unit::Time)),
    ("p99 meanwhile", What::Median("p99", Unit::Time)),
    ("p99 × idle", What::Median("times idle", Unit::Rate)),
    ("longest", What::Median("most", Unit::Time)),
    ("others", What::Others),
];
const OPEN: Columns = &[
    ("open", What::Median("open", Unit::Time)),
    ("first get", What::Median("first get", Unit::Time)),
    ("both", What::Median("both", Unit::Time)),
    ("least ... most", What::Spread("both", Unit::Time)),
    ("both × rusqlite", What::Times("both", RAW)),
    ("others", What::Others),
];
const GROWTH: Columns = &[
    ("get p50", What::Median("get", Unit::Time)),
    ("set p50", What::Median("set", Unit::Time)),
    ("set p99", What::Median("set p99", Unit::Time)),
    ("watched set and its event", What::Median("watched", Unit::Time)),
    ("get × rusqlite", What::Times("get", RAW)),
    ("set × rusqlite", What::Times("set", RAW)),
    ("others", What::Others),
];
const LAGGING: Columns = &[
    ("took", What::Median("took", Unit::Time)),
    ("× one watcher", What::Times("took", Other::One)),
    ("events/s, all together", What::Median("rate", Unit::Rate)),
    ("least ... most", What::Spread("rate", Unit::Rate)),
    ("an event", What::Median("event", Unit::Time)),
    ("rate × rusqlite", What::Times("rate", RAW)),
    ("others", What::Others),
];

impl Workload {
    pub(super) const fn title(self) -> &'static str {
        match self {
            Workload::Floor => "The floor: 4 KiB written and synced",
            Workload::Set => "Set",
            Workload::Pipelined => "Sets on their way together, from one thread",
            Workload::Get => "Get, warm, each key as often",
            Workload::GetZipf => "Get, warm, few keys most of the time (Zipf, 0.99)",
            Workload::GetBusy => "Get, warm, beside a writer",
            Workload::GetCold => "Get, cold",
            Workload::Batch => "Transactions of many sets",
            Workload::Scan => "Scan of a group",
            Workload::ImportSorted => "Import in the order of the keys",
            Workload::ImportRandom => "Import in random order",
            Workload::Latency => "Watch latency: from the begin of a set to its event in a waiting watcher",
            Workload::FanOut => "Fan-out of one event",
            Workload::Selectivity => "Selectivity: many watchers, one matches",
            Workload::CatchUp => "Catch-up: a watcher that starts at the log's beginning",
            Workload::History => "History: the log as an iterator",
            Workload::Lagging => "Watchers that lag together",
            Workload::DeleteGroup => "Deleting a large group beside a writer",
            Workload::Expiry => "Expiry of many entries beside a writer",
            Workload::Open => "Opening a large store",
            Workload::Growth => "Growth: stores of several sizes",
        }
    }

    pub(super) const fn size_title(self) -> &'static str {
        match self {
            Workload::Floor | Workload::Set | Workload::Get | Workload::GetZipf => "threads",
            Workload::GetBusy | Workload::GetCold => "threads",
            Workload::Batch => "sets",
            Workload::Latency | Workload::FanOut | Workload::Selectivity => "watchers",
            Workload::Lagging => "watchers",
            Workload::CatchUp | Workload::History => "events",
            Workload::Pipelined => "on their way",
            Workload::Scan
            | Workload::ImportSorted
            | Workload::ImportRandom
            | Workload::DeleteGroup
            | Workload::Expiry
            | Workload::Open
            | Workload::Growth => "entries",
        }
    }

    pub(super) const fn note(self) -> &'static str {
        match self {
            Workload::Floor => {
                "The disk's limit for what is durable; `× floor` means times `disk` with one thread. A write-ahead log \
                 that still grows is nearer to `disk-append`."
            }
            Workload::Set => {
                "Random keys of 100,000 in 10 groups, from an empty store; names of 20 bytes. Each \
                 thread waits for its set before the next. Where a set writes two rows, the second is the log's; stores that keep no \
                 log write one, beside `rusqlite-no-log`. Checked: the log's length, and 2,000 values read back."
            }
            Workload::Get | Workload::GetZipf => {
                "Random keys; every value is looked at. The write-ahead log is empty."
            }
            Workload::GetBusy => {
                "As above, while another thread sets a random key every millisecond: after each commit a reader of \
                 SQLite begins with an empty page cache."
            }
            Workload::GetCold => {
                "2,000 random keys, the first reads after the store was opened; nothing of its files is in the system's \
                 memory at first."
            }
            Workload::Batch => {
                "Random keys of all, in a store of as many; one transaction after the other. Redb syncs at each."
            }
            Workload::Latency => {
                "One watcher on another thread, asleep when the set begins; the writer waits for each event. The rival \
                 is a commit, then a `sync_channel` to a sleeping thread."
            }
            Workload::FanOut => {
                "All watch one key, and are read by the thread that writes, so nobody sleeps. `send` is the set of that \
                 key less the set of a key that nobody watches (medians, in turn), for each watcher; it is left out where \
                 it drowns in the noise of the set. `channels` and `functions` have no store: they are the limit."
            }
            Workload::Selectivity => {
                "Each watches a key of its own; the sets are of one of them. Memory is what arming adds to the \
                 process's resident memory, before any event."
            }
            Workload::Pipelined => {
                "One thread starts the next set when one is done: `AsyncStore::set`, as many tasks would that each await \
                 their own. `rusqlite` has no such thing: it sets one after the other."
            }
            Workload::Scan => {
                "All entries of a group with all their columns, in the order of its keys and in pages of 256, from a store of \
                 ten such groups. Peers read their values in one go."
            }
            Workload::ImportSorted | Workload::ImportRandom => {
                "Into an empty store, in transactions of 2,000; `watchkeep-import` sorts 64 MiB at a time, and each is a \
                 transaction. The files are measured as the disk counts them after the store was closed, and again after \
                 the log was trimmed. Checked: 2,000 values read back."
            }
            Workload::Lagging => {
                "All begin at the start of a log of 5,000 events and are read in turn by one thread. The rival reads the \
                 log once, and hands each row to each as an `Arc`."
            }
            Workload::DeleteGroup => {
                "A writer sets keys of another group, one after the other, before, while, and for some time after the \
                 group is deleted. Checked: nothing of it is left, and all of the writer's is there."
            }
            Workload::Expiry => {
                "As above; the clock is moved, and what is due is removed. The rival deletes 2,000 entries in a \
                 transaction, with their log rows."
            }
            Workload::Open => {
                "Again and again, with the file in the system's memory. The rival opens two connections, one for writing \
                 and one for the read, as it has them everywhere here."
            }
            Workload::Growth => {
                "Random keys of all; the watched set is of one key, and its event is taken by the thread that sets. What \
                 grows is the depth of the tree and what the page cache misses."
            }
            Workload::CatchUp | Workload::History => {
                "Every event with all that it says; checked by count, sum of revisions and bytes. The rival reads the \
                 same columns by one statement into a struct of its own."
            }
        }
    }

    pub(super) const fn columns(self) -> Columns {
        match self {
            Workload::Floor => FLOOR,
            Workload::Set | Workload::Pipelined => SET,
            Workload::Get | Workload::GetZipf | Workload::GetBusy | Workload::GetCold => GET,
            Workload::Batch => BATCH,
            Workload::Latency => LATENCY,
            Workload::FanOut => FAN_OUT,
            Workload::Selectivity => SELECTIVITY,
            Workload::CatchUp | Workload::History => REPLAY,
            Workload::Scan => SCAN,
            Workload::ImportSorted | Workload::ImportRandom => IMPORT,
            Workload::Lagging => LAGGING,
            Workload::DeleteGroup | Workload::Expiry => DISTURB,
            Workload::Open => OPEN,
            Workload::Growth => GROWTH,
        }
    }
}
