//! Stores in an etcd cluster beside plain etcd, through the same client in one run: `scripts/bench cluster`.
//!
//! Each round goes over all cells in turn, so that a drift of the machine hits both alike; shown are medians over the
//! rounds, and the least and the most.

mod plain;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use watchkeep::{Filter, Options, Quota, Store, WatchOptions};

use crate::Result;
use crate::arguments::Measure;
use crate::report::{Unit, show};
use crate::samples::{Samples, median};
use plain::Plain;

/// The members of the cluster, as `scripts/cluster` says them.
const CLUSTER: &str = "WATCHKEEP_TEST_ETCD";
/// How many keys are written, and read.
const KEYS: usize = 1_000;
/// How many bytes a value has.
const VALUE: usize = 100;
/// How long anybody waits for an event.
const LIMIT: Duration = Duration::from_secs(30);
const LATENCIES: usize = 300;
const FANOUTS: usize = 20;

/// What a cell found in one round: a rate a second, or times.
struct Found {
    rate: f64,
    times: Samples,
}

/// A row of the table, and what its rounds found.
struct Row {
    title: String,
    contender: &'static str,
    rates: Vec<f64>,
    halves: Vec<f64>,
    tails: Vec<f64>,
}

struct Place {
    members: String,
    prefix: String,
    window: Duration,
}

impl Place {
    fn store(&self, name: &str) -> Result<Store> {
        let options = Options::new().busy_timeout(LIMIT);
        Ok(options.connect(&format!("etcd://{}/{}/{name}", self.members, self.prefix))?)
    }

    /// The member that a store asks as well.
    fn plain(&self) -> Result<Plain> {
        Plain::connect(self.members.split(',').next().unwrap_or_default())
    }

    fn key(&self, name: &str, number: usize) -> String {
        format!("{}/{name}/{number:05}", self.prefix)
    }
}

/// Measures it all; tables in Markdown.
pub(crate) fn run(settings: &Measure, repeats: u32) -> Result<String> {
    let members = std::env::var(CLUSTER).map_err(|_| "no cluster: run this by scripts/bench cluster")?;
    let place = |round: u32| Place {
        members: members.clone(),
        prefix: format!("bench/{}/{round}", std::process::id()),
        window: settings.window(),
    };
    let mut tables: BTreeMap<usize, (&str, Vec<Row>)> = BTreeMap::new();
    for round in 0..repeats {
        let place = place(round);
        for (number, (section, measure)) in SECTIONS.iter().enumerate() {
            let (_, rows) = tables.entry(number).or_insert_with(|| (*section, Vec::new()));
            for (place, (title, contender, found)) in measure(&place)?.into_iter().enumerate() {
                if rows.len() <= place {
                    rows.push(Row { title, contender, rates: vec![], halves: vec![], tails: vec![] });
                }
                let (row, mut found) = (rows.get_mut(place).ok_or("rows differ from round to round")?, found);
                row.rates.push(found.rate);
                row.halves.push(found.times.permille(500));
                row.tails.push(found.times.permille(990));
            }
        }
    }
    let mut text = String::new();
    for (section, rows) in tables.values() {
        table(&mut text, section, rows)?;
    }
    Ok(text)
}

type Cells = Vec<(String, &'static str, Found)>;

/// Measures one round of a section.
type Measured = fn(&Place) -> Result<Cells>;

/// What is measured: a title, and what measures one round.
const SECTIONS: &[(&str, Measured)] = &[
    ("Sets: random keys of 1,000 that are there, values of 100 bytes", sets),
    ("Sets in a namespace with a quota, and two stores that set the same key", costs),
    ("Gets: random keys of 1,000", gets),
    (
        "From the begin of a set to its event: a parked watcher in the same process, and in another store",
        latency,
    ),
    ("One event to many watchers of another store: until all have it", fanout),
];

fn table(text: &mut String, section: &str, rows: &[Row]) -> Result<()> {
    writeln!(text, "\n## {section}\n")?;
    writeln!(text, "| | contender | a second | least ... most | p50 | p99 | × etcd |")?;
    writeln!(text, "|---|---|---:|---:|---:|---:|---:|")?;
    for row in rows {
        let rate = median(&row.rates);
        let least = row.rates.iter().copied().fold(f64::INFINITY, f64::min);
        let most = row.rates.iter().copied().fold(0.0, f64::max);
        let plain = rows.iter().find(|it| it.contender == PLAIN && it.title == row.title);
        let times = plain.map_or("–".to_owned(), |plain| format!("{:.2}", rate / median(&plain.rates)));
        writeln!(
            text,
            "| {} | {} | {} | {} ... {} | {} | {} | {times} |",
            row.title,
            row.contender,
            show(rate, Unit::Rate),
            show(least, Unit::Rate),
            show(most, Unit::Rate),
            show(median(&row.halves), Unit::Time),
            show(median(&row.tails), Unit::Time),
        )?;
    }
    Ok(())
}

const OURS: &str = "watchkeep";
const PLAIN: &str = "etcd";

fn sets(place: &Place) -> Result<Cells> {
    let (store, plain, value) = (place.store("sets")?, place.plain()?, "x".repeat(VALUE));
    let set = |_, number: usize| {
        store.set("config", &format!("{number:05}"), &*value)?;
        Ok(())
    };
    let put = |_, number: usize| plain.put(&place.key("sets-plain", number), &value);
    let (ours, theirs) = (AtomicU64::new(KEYS as u64), AtomicU64::new(KEYS as u64));
    let fresh = |last: &AtomicU64| usize::try_from(last.fetch_add(1, Ordering::Relaxed)).unwrap_or(0);
    let mut cells = Vec::new();
    for number in 0..KEYS {
        set(0, number)?;
        put(0, number)?;
    }
    for writers in [1, 16, 64] {
        let title = count(writers, "writer");
        cells.push((title.clone(), OURS, pace(place.window, writers, set)?));
        cells.push((title, PLAIN, pace(place.window, writers, put)?));
    }
    let title = "1 writer, keys that were never there";
    cells.push((title.to_owned(), OURS, pace(place.window, 1, |_, _| set(0, fresh(&ours)))?));
    cells.push((title.to_owned(), PLAIN, pace(place.window, 1, |_, _| put(0, fresh(&theirs)))?));
    store.close()?;
    Ok(cells)
}

fn costs(place: &Place) -> Result<Cells> {
    let (store, other, value) = (place.store("costs")?, place.store("costs")?, "x".repeat(VALUE));
    let mut cells = Vec::new();
    let team = store.scoped("team")?;
    for writers in [1, 16] {
        team.set_quota(Quota::default())?;
        let set = |_, number: usize| {
            team.set("config", &format!("{number:05}"), &*value)?;
            Ok(())
        };
        let title = format!("{}, a namespace without a quota", count(writers, "writer"));
        cells.push((title, OURS, pace(place.window, writers, set)?));
        team.set_quota(Quota { max_keys: 1_000 * KEYS as u64, ..Quota::default() })?;
        let title = format!("{}, a namespace with one", count(writers, "writer"));
        cells.push((title, OURS, pace(place.window, writers, set)?));
    }
    let stores = [&store, &other];
    let set = |key: &'static str| {
        let value = &value;
        move |writer: usize, _| {
            let key = if key.is_empty() { format!("own-{writer}") } else { key.to_owned() };
            let store = stores.get(writer % 2).ok_or("no store")?;
            store.set("shared", &key, &**value)?;
            Ok(())
        }
    };
    cells.push(("two stores, a key each".to_owned(), OURS, pace(place.window, 2, set(""))?));
    cells.push(("two stores, the same key".to_owned(), OURS, pace(place.window, 2, set("same"))?));
    store.close()?;
    other.close()?;
    Ok(cells)
}

fn gets(place: &Place) -> Result<Cells> {
    // What was set before.
    let (store, plain) = (place.store("sets")?, place.plain()?);
    let mut cells = Vec::new();
    for readers in [1, 16] {
        let title = count(readers, "reader");
        let ours = pace(place.window, readers, |_, number| {
            store.get("config", &format!("{number:05}"))?;
            Ok(())
        })?;
        cells.push((title.clone(), OURS, ours));
        let plain =
            pace(place.window, readers, |_, number| plain.get(&place.key("sets-plain", number)).map(drop))?;
        cells.push((title, PLAIN, plain));
    }
    store.close()?;
    Ok(cells)
}

fn latency(place: &Place) -> Result<Cells> {
    let (store, other, value) = (place.store("latency")?, place.store("latency")?, "x".repeat(VALUE));
    let set_one = || set(&store, &value);
    let mut cells = Vec::new();
    for (title, watching) in [("the same store", &store), ("another store", &other)] {
        let mut watcher = watching.watch("config", "*");
        let mut next = || watcher.recv_timeout(LIMIT).ok_or("no event came")?.map_err(Into::into).map(drop);
        let found = arrivals(LATENCIES, set_one, &mut next)?;
        cells.push((title.to_owned(), OURS, found));
    }
    let (writing, watching) = (place.plain()?, place.plain()?);
    let mut watch = watching.watch(&place.key("latency-plain", 0))?;
    let mut next = || watch.next().map(drop);
    let put = || writing.put(&place.key("latency-plain", 0), &value);
    cells.push(("another store".to_owned(), PLAIN, arrivals(LATENCIES, put, &mut next)?));
    store.close()?;
    other.close()?;
    Ok(cells)
}

fn fanout(place: &Place) -> Result<Cells> {
    let (store, other, value) = (place.store("fanout")?, place.store("fanout")?, "x".repeat(VALUE));
    let set_one = || set(&store, &value);
    let mut cells = Vec::new();
    for watchers in [1, 100, 10_000] {
        let options = || WatchOptions::new().buffer(FANOUTS);
        let filter = || Filter::group("config");
        let mut all = (0..watchers)
            .map(|_| other.watch_with(filter(), options()))
            .collect::<watchkeep::Result<Vec<_>>>()?;
        let mut next = || {
            let mut all = all.iter_mut();
            all.try_for_each(|watcher| {
                watcher.recv_timeout(LIMIT).ok_or("no event came")?.map_err(Into::into).map(drop)
            })
        };
        let found = arrivals(FANOUTS, set_one, &mut next)?;
        cells.push((count(watchers, "watcher"), OURS, found));
    }
    store.close()?;
    other.close()?;
    Ok(cells)
}

fn set(store: &Store, value: &str) -> Result<()> {
    store.set("config", "key", value)?;
    Ok(())
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// How often so many threads get it done in a second, with random numbers of a key; and how long each takes.
fn pace(window: Duration, threads: usize, work: impl Fn(usize, usize) -> Result<()> + Sync) -> Result<Found> {
    let (stop, done, ready) = (AtomicBool::new(false), AtomicU64::new(0), Barrier::new(threads + 1));
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|thread| {
                let (stop, done, ready, work) = (&stop, &done, &ready, &work);
                scope.spawn(move || -> Result<Samples> {
                    let (mut random, mut times) =
                        (fastrand::Rng::with_seed(thread as u64), Samples::default());
                    // The first opens what is opened once.
                    let first = work(thread, random.usize(0..KEYS));
                    ready.wait();
                    first?;
                    while !stop.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        work(thread, random.usize(0..KEYS))?;
                        times.add(begun.elapsed());
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(times)
                })
            })
            .collect();
        ready.wait();
        let (begun, (_never, pause)) = (Instant::now(), mpsc::channel::<()>());
        let _ = pause.recv_timeout(window);
        let count = done.load(Ordering::Relaxed);
        let elapsed = begun.elapsed();
        stop.store(true, Ordering::Relaxed);
        let mut times = Samples::default();
        for thread in all {
            times.extend(thread.join().map_err(|_| "a thread panicked")??);
        }
        Ok(Found { rate: count as f64 / elapsed.as_secs_f64(), times })
    })
}

/// From the begin of a write to the arrival of its event, so many times, one after the other.
fn arrivals(
    times: usize,
    write: impl Fn() -> Result<()> + Sync,
    next: &mut dyn FnMut() -> Result<()>,
) -> Result<Found> {
    let mut samples = Samples::default();
    thread::scope(|scope| -> Result<()> {
        for number in 0..=times {
            let begun = Instant::now();
            // The watcher is parked when the event comes.
            let writing = scope.spawn(&write);
            next()?;
            // The first warms up.
            if number > 0 {
                samples.add(begun.elapsed());
            }
            writing.join().map_err(|_| "the writer panicked")??;
        }
        Ok(())
    })?;
    Ok(Found { rate: 1e9 / samples.mean(), times: samples })
}
