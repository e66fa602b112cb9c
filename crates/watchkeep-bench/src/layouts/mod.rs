//! How the entries may lie in the file: layouts beside one another, over raw `rusqlite` and tables of their own. The
//! rounds go over all layouts in turn.

mod cells;
mod meter;
mod sql;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::arguments::Measure;
use crate::data::Values;
use crate::report::{Unit, show};
use crate::samples::median;
use crate::ticks::Ticks;

use cells::Names;
use meter::Figure;
use sql::{Layout, Sql};
use store::Store;

/// A measurement during which others took more than this, in percent of one core, is done again, so often.
const QUIET: f64 = 15.0;
const AGAIN: usize = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Choices {
    /// Which layouts: rowid, clustered, apart-BYTES, apart-BYTES-join.
    #[arg(
        long = "layout",
        value_delimiter = ',',
        default_value = "rowid,clustered,apart-250,apart-500,apart-1000,apart-2000"
    )]
    layouts: Vec<Layout>,

    /// How large the values are, in bytes; `mixed` is 90 % of 100 B, 9 % of 1 kB and 1 % of 20 kB.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,mixed")]
    values: Vec<Values>,

    #[arg(long, default_value_t = 4096)]
    page_size: u32,

    /// The page cache of each connection; SQLite's own 2 MB unless given.
    #[arg(long)]
    cache_mib: Option<u32>,

    /// After how many pages the write-ahead log is moved into the file.
    #[arg(long, default_value_t = 1_000)]
    wal_autocheckpoint: u32,

    /// How often each is measured; the tables show medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,

    /// How many seconds to wait, before a measurement, for a machine that others use; then it is done anyway. With
    /// none, nothing is measured again because of others.
    #[arg(long, default_value_t = 20.0)]
    patience: f64,

    /// Where to add every measurement, one JSON object a line. What is there already is not measured again.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A line of the JSON file.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    store: String,
    round: u32,
    metric: String,
    #[serde(flatten)]
    figure: Figure,
    /// What others took of the machine, in percent of one core.
    others: f64,
}

/// What is measured, by store, round and metric.
#[derive(Debug, Default)]
struct Record {
    file: Option<File>,
    known: BTreeMap<(String, u32, String), Figure>,
}

impl Record {
    fn open(choices: &Choices) -> Result<Record> {
        let Some(path) = &choices.json else { return Ok(Record::default()) };
        let mut record = Record::default();
        if path.exists() {
            for line in std::fs::read_to_string(path)?.lines() {
                let line: Line = serde_json::from_str(line)
                    .map_err(|error| format!("{path:?} is not of such a run: {error}"))?;
                record.known.insert((line.store, line.round, line.metric), line.figure);
            }
        }
        record.file = Some(OpenOptions::new().append(true).create(true).open(path)?);
        Ok(record)
    }

    fn note(&mut self, line: Line) -> Result<()> {
        if let Some(file) = &mut self.file {
            writeln!(file, "{}", serde_json::to_string(&line)?)?;
        }
        self.known.insert((line.store, line.round, line.metric), line.figure);
        Ok(())
    }

    /// A metric of a store in all rounds.
    fn figures(&self, store: &str, metric: &str, what: fn(&Figure) -> f64) -> Vec<f64> {
        let here = |(known, _): &(&(String, u32, String), &Figure)| known.0 == store && known.2 == metric;
        self.known.iter().filter(here).map(|(_, figure)| what(figure)).collect()
    }
}

/// Measures what is chosen; tables in Markdown.
pub(crate) fn run(choices: &Choices, measure: &Measure) -> Result<String> {
    let (mut record, names) = (Record::open(choices)?, Names::of(measure.entries));
    for round in 0..choices.repeats {
        for values in &choices.values {
            let mut layouts = choices.layouts.clone();
            if round % 2 == 1 {
                // So that nobody always comes after the same one.
                layouts.reverse();
            }
            for layout in layouts {
                one(choices, measure, (layout, *values, round), &names, &mut record)?;
            }
        }
    }
    choices.values.iter().map(|values| tables(choices, measure, *values, &record)).collect()
}

/// The name of a store: all that its figures depend on.
fn name(choices: &Choices, measure: &Measure, layout: Layout, values: Values) -> String {
    let cache = choices.cache_mib.map_or_else(|| "default".to_owned(), |mib| mib.to_string());
    let (page, checkpoint) = (choices.page_size, choices.wal_autocheckpoint);
    format!("{layout}/{values}/{}/{page}/{cache}/{checkpoint}/{}", measure.entries, measure.seconds)
}

/// All of a layout, with one kind of values, once.
fn one(
    choices: &Choices,
    measure: &Measure,
    (layout, values, round): (Layout, Values, u32),
    names: &Names,
    record: &mut Record,
) -> Result<()> {
    let name = name(choices, measure, layout, values);
    // The sorted store is the first, and the last metric of the other is the last of all.
    for (sorted, last) in [(true, "scan-sorted"), (false, "sweep")] {
        if record.known.contains_key(&(name.clone(), round, last.to_owned())) {
            continue;
        }
        let folder = measure.folder()?;
        let store = Store {
            path: folder.path().join("store.db"),
            layout,
            page_size: choices.page_size,
            cache_mib: choices.cache_mib,
            wal_autocheckpoint: choices.wal_autocheckpoint,
            sql: Sql::of(layout),
        };
        cells::all((&store, names, values), (sorted, measure.window()), &mut |metrics, again, step| {
            let is_known =
                |metric: &&str| record.known.contains_key(&(name.clone(), round, (*metric).to_owned()));
            if again && metrics.iter().all(is_known) {
                return Ok(());
            }
            let mut best: Option<(f64, Vec<Figure>)> = None;
            for _ in 0..=if again && choices.patience > 0.0 { AGAIN } else { 0 } {
                wait_for_quiet(choices.patience)?;
                let (before, start) = (Ticks::now()?, Instant::now());
                let found = step()?;
                let others = Ticks::now()?.others_since(&before, start.elapsed());
                if best.as_ref().is_none_or(|(least, _)| others < *least) {
                    best = Some((others, found));
                }
                if others <= QUIET {
                    break;
                }
            }
            let (others, found) = best.ok_or("nothing was measured")?;
            for (metric, figure) in
                metrics.iter().zip(found).filter(|(metric, _)| !is_known(metric)).collect::<Vec<_>>()
            {
                let (store, metric) = (name.clone(), (*metric).to_owned());
                record.note(Line { store, round, metric, figure, others })?;
            }
            Ok(())
        })?;
        folder.close()?;
    }
    Ok(())
}

/// Waits until others take less of the machine than is allowed, or patience ends.
fn wait_for_quiet(patience: f64) -> Result<()> {
    let (look, begun) = (Duration::from_millis(200), Instant::now());
    while begun.elapsed().as_secs_f64() < patience {
        let (before, start) = (Ticks::now()?, Instant::now());
        while start.elapsed() < look {
            std::thread::park_timeout(look.saturating_sub(start.elapsed()));
        }
        if Ticks::now()?.others_since(&before, start.elapsed()) <= QUIET {
            break;
        }
    }
    Ok(())
}

const METRICS: [&str; 19] = [
    "load-sorted",
    "load",
    "bytes-sorted",
    "bytes",
    "get",
    "get-large",
    "get-beside",
    "get-writing",
    "set-read",
    "scan",
    "scan-sorted",
    "keys",
    "keys-beside",
    "set",
    "batch",
    "sweep",
    "cold-get",
    "cold-scan",
    "cold-scan-sorted",
];

/// A table: its title, its rows, and which figure it shows.
type Section = (&'static str, &'static [&'static str], fn(&Figure) -> f64);

const WRITING: [&str; 5] = ["load-sorted", "load", "set", "batch", "sweep"];
const COLD: [&str; 3] = ["cold-get", "cold-scan", "cold-scan-sorted"];

/// The tables of one kind of values.
fn tables(choices: &Choices, measure: &Measure, values: Values, record: &Record) -> Result<String> {
    let mut text = String::new();
    let sections: [Section; 4] = [
        ("entries a second, and bytes of the file", &METRICS, |figure| figure.clock),
        ("entries a second of a processor", &METRICS, |figure| figure.cpu),
        ("bytes written for an entry", &WRITING, |figure| figure.written),
        ("bytes read from the disk for an entry", &COLD, |figure| figure.read),
    ];
    for (title, metrics, what) in sections {
        writeln!(
            text,
            "\n{} entries of {values} bytes, pages of {} bytes: {title}\n",
            measure.entries, choices.page_size
        )?;
        table(&mut text, choices, metrics, &|layout, metric| {
            record.figures(&name(choices, measure, layout, values), metric, what)
        })?;
    }
    Ok(text)
}

/// The medians of the first layout, what the others are to it, and how far apart the rounds were in the worst one.
fn table(
    text: &mut String,
    choices: &Choices,
    metrics: &[&str],
    found: &dyn Fn(Layout, &str) -> Vec<f64>,
) -> Result<()> {
    let [first, others @ ..] = choices.layouts.as_slice() else { return Err("no layout is chosen".into()) };
    let titles: String = others.iter().map(|layout| format!(" {layout} |")).collect();
    writeln!(text, "| | {first} | spread |{titles}\n|---|---:|---:|{}", "---:|".repeat(others.len()))?;
    for metric in metrics {
        let of_first = median(&found(*first, metric));
        if of_first <= 0.0 {
            continue;
        }
        let mut spread = 0.0;
        for layout in &choices.layouts {
            let values = found(*layout, metric);
            let least = values.iter().copied().fold(f64::MAX, f64::min);
            let most = values.iter().copied().fold(0.0, f64::max);
            spread = f64::max(spread, 100.0 * (most - least) / median(&values));
        }
        write!(text, "| {metric} | {} | {} |", show(of_first, Unit::Rate), show(spread, Unit::Percent))?;
        for layout in others {
            write!(text, " {:.2} |", median(&found(*layout, metric)) / of_first)?;
        }
        writeln!(text)?;
    }
    Ok(())
}
