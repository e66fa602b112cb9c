//! The tables of each workload.

use watchkeep::Durability;

use crate::plan::{Cell, Workload, durability_name};
use crate::run::Results;
use crate::samples::median;

use super::number::{Unit, plain, show};

/// What a column shows of a cell's rounds.
#[derive(Clone, Copy)]
enum What {
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
enum Other {
    /// The same work by another contender.
    Contender(&'static str),
    /// The same contender with a size of one.
    One,
    /// The disk with one thread.
    Floor,
}

type Columns = &'static [(&'static str, What)];

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

impl Workload {
    const fn title(self) -> &'static str {
        match self {
            Workload::Floor => "The floor: 4 KiB written and synced",
            Workload::Set => "Set",
            Workload::Get => "Get, warm, each key as often",
            Workload::GetZipf => "Get, warm, few keys most of the time (Zipf, 0.99)",
            Workload::Latency => "Watch latency: from the begin of a set to its event in a waiting watcher",
            Workload::FanOut => "Fan-out of one event",
            Workload::Selectivity => "Selectivity: many watchers, one matches",
            Workload::CatchUp => "Catch-up: a watcher that starts at the log's beginning",
            Workload::History => "History: the log as an iterator",
        }
    }

    const fn size_title(self) -> &'static str {
        match self {
            Workload::Floor | Workload::Set | Workload::Get | Workload::GetZipf => "threads",
            Workload::Latency | Workload::FanOut | Workload::Selectivity => "watchers",
            Workload::CatchUp | Workload::History => "events",
        }
    }

    const fn note(self) -> &'static str {
        match self {
            Workload::Floor => {
                "The disk's limit for what is durable; `× floor` means times `disk` with one thread. A write-ahead log \
                 that still grows is nearer to `disk-append`."
            }
            Workload::Set => {
                "Random keys of 100,000 in 10 groups, from an empty store; names of 20 bytes, values of 100. Each \
                 thread waits for its set before the next. Where a set writes two rows, the second is the log's; stores that keep no \
                 log write one, beside `rusqlite-no-log`. Checked: the log's length, and 2,000 values read back."
            }
            Workload::Get | Workload::GetZipf => {
                "Random keys; every value is looked at. The write-ahead log is empty."
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
            Workload::CatchUp | Workload::History => {
                "Every event with all that it says; checked by count, sum of revisions and bytes. The rival reads the \
                 same columns by one statement into a struct of its own."
            }
        }
    }

    const fn columns(self) -> Columns {
        match self {
            Workload::Floor => FLOOR,
            Workload::Set => SET,
            Workload::Get | Workload::GetZipf => GET,
            Workload::Latency => LATENCY,
            Workload::FanOut => FAN_OUT,
            Workload::Selectivity => SELECTIVITY,
            Workload::CatchUp | Workload::History => REPLAY,
        }
    }
}

/// A workload's section: title, note, a table for each durability.
pub(super) fn section(results: &Results, workload: Workload) -> String {
    let mut text = format!("## {}\n\n{}\n", workload.title(), workload.note());
    let durabilities = [Durability::Full, Durability::Relaxed];
    let cells = |durability| {
        let here = move |cell: &&Cell| cell.workload == workload && cell.durability == durability;
        results.cells.iter().filter(here)
    };
    let several = durabilities.iter().filter(|&&durability| cells(durability).count() > 0).count() > 1;
    for durability in durabilities {
        if cells(durability).count() == 0 {
            continue;
        }
        if several {
            text.push_str(&format!("\n### {}\n", durability_name(durability)));
        }
        text.push_str(&table(results, workload, cells(durability)));
    }
    text
}

fn table<'r>(results: &Results, workload: Workload, cells: impl Iterator<Item = &'r Cell> + Clone) -> String {
    let shown = |(_, what): &&(&str, What)| cells.clone().any(|cell| shows(results, cell, *what).is_some());
    let columns: Vec<_> = workload.columns().iter().filter(shown).collect();
    let titles: Vec<_> = columns.iter().map(|(title, _)| *title).collect();
    let mut text = format!("\n| {} | contender | {} |\n", workload.size_title(), titles.join(" | "));
    text.push_str(&format!("|---:|---|{}\n", "---:|".repeat(columns.len())));
    for cell in cells {
        let numbers: Vec<_> = columns
            .iter()
            .map(|(_, what)| shows(results, cell, *what).unwrap_or_else(|| "–".to_owned()))
            .collect();
        let size = plain(cell.size as f64);
        let size = if cell.size < 1_000 { cell.size.to_string() } else { size };
        text.push_str(&format!("| {size} | {} | {} |\n", cell.contender.name(), numbers.join(" | ")));
    }
    text
}

/// What stands in a field; none when the cell has no such number.
fn shows(results: &Results, cell: &Cell, what: What) -> Option<String> {
    match what {
        What::Median(metric, unit) => Some(show(median(&values(results, cell, metric)?), unit)),
        What::Spread(metric, unit) => {
            let values = values(results, cell, metric)?;
            let least = values.iter().copied().min_by(f64::total_cmp)?;
            let most = values.iter().copied().max_by(f64::total_cmp)?;
            Some(format!("{} ... {}", show(least, unit), show(most, unit)))
        }
        What::Times(metric, other) => {
            let other = other.cell(results, cell)?;
            let (mine, theirs) = (values(results, cell, metric)?, values(results, other, metric)?);
            let ratios: Vec<f64> = mine.iter().zip(&theirs).map(|(mine, theirs)| mine / theirs).collect();
            Some(plain(median(&ratios)))
        }
        What::Rows => Some(cell.contender.rows().to_string()),
        What::Others => {
            let outcomes = results.outcomes.get(&cell.name())?;
            let most = outcomes.iter().map(|outcome| outcome.others).max_by(f64::total_cmp)?;
            Some(show(most.max(0.0), Unit::Percent))
        }
    }
}

impl Other {
    fn cell<'r>(self, results: &'r Results, cell: &Cell) -> Option<&'r Cell> {
        results.cells.iter().find(|other| {
            let alike = other.workload == cell.workload && other.durability == cell.durability;
            match self {
                Other::Contender(name) => alike && other.size == cell.size && other.contender.name() == name,
                Other::One => alike && other.size == 1 && other.contender.name() == cell.contender.name(),
                Other::Floor => {
                    other.workload == Workload::Floor
                        && other.size == 1
                        && cell.durability == Durability::Full
                }
            }
        })
    }
}

/// A metric in all rounds of a cell.
fn values(results: &Results, cell: &Cell, metric: &str) -> Option<Vec<f64>> {
    let outcomes = results.outcomes.get(&cell.name())?;
    outcomes.iter().map(|outcome| outcome.metrics.get(metric).copied()).collect()
}
