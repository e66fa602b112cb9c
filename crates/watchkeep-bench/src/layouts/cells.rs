//! What is measured of a layout.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::meter::{Figure, Meter};
use super::store::{Entry, KeyInfo, PAGE, Reader, Store, Writer};
use crate::Result;
use crate::data::{Name, Values};
use crate::machine::drop_cache;

const GROUPS: usize = 100;
/// How many entries a transaction of a load, of a batch and of a sweep has.
const BATCH: usize = 1_000;
/// How many entries the sweep removes, and the mixed group holds, in a large store.
const SWEPT: usize = 10_000;
const BESIDE: usize = 2_000;
/// The size of the large ones in the mixed group, and of its small ones between them.
const LARGE: Values = Values::Fixed(20_000);
const SMALL: Values = Values::Fixed(100);
/// How many keys are got cold before all is cold again.
const COLD: usize = 100;

/// The names of a store's entries: those that stay, those that are swept, and the large and small ones of a group
/// that is added when the others are measured.
#[derive(Debug)]
pub(super) struct Names {
    stay: Vec<Name>,
    swept: Vec<Name>,
    large: Vec<Name>,
    small: Vec<Name>,
}

fn group(number: usize) -> String {
    format!("grp-{number:03}")
}

impl Names {
    pub(super) fn of(entries: usize) -> Names {
        let name = |number: usize, group| Name { group, key: format!("key-{number:08}") };
        let beside = |first: usize| {
            (first..BESIDE.min(entries / 10))
                .step_by(2)
                .map(|number| name(number, group(GROUPS + 1)))
                .collect()
        };
        Names {
            stay: (0..entries).map(|number| name(number, group(number % GROUPS))).collect(),
            swept: (0..SWEPT.min(entries / 10)).map(|number| name(number, group(GROUPS))).collect(),
            large: beside(0),
            small: beside(1),
        }
    }

    pub(super) fn groups() -> impl Iterator<Item = String> {
        (0..GROUPS + 2).map(group)
    }

    /// What a load writes, in this order.
    fn load(&self, sorted: bool) -> Vec<&Name> {
        let mut names: Vec<&Name> = self.stay.iter().chain(&self.swept).collect();
        match sorted {
            true => names.sort_unstable_by_key(|name| (&name.group, &name.key)),
            false => random().shuffle(&mut names),
        }
        names
    }
}

/// The same draws for every layout.
fn random() -> fastrand::Rng {
    fastrand::Rng::with_seed(42)
}

fn draw<'n>(random: &mut fastrand::Rng, names: &'n [Name]) -> Result<&'n Name> {
    Ok(random.choice(names).ok_or("there are no entries")?)
}

/// What measures: is told the metrics, whether it can be done again, and how; and keeps what comes out.
pub(super) type Keep<'k> =
    dyn FnMut(&[&'static str], bool, &mut dyn FnMut() -> Result<Vec<Figure>>) -> Result<()> + 'k;

/// All that is measured of a store that is loaded in one order. What changes it comes last.
pub(super) fn all(
    (store, names, values): (&Store, &Names, Values),
    (sorted, window): (bool, Duration),
    keep: &mut Keep<'_>,
) -> Result<()> {
    store.create(Names::groups())?;
    let metrics = if sorted { ["load-sorted", "bytes-sorted"] } else { ["load", "bytes"] };
    keep(&metrics, false, &mut || load(store, names, values, sorted))?;
    let (scan, cold) = if sorted { ("scan-sorted", "cold-scan-sorted") } else { ("scan", "cold-scan") };
    keep(&[cold], true, &mut || {
        cold_rounds(store, window, |reader, random| scan_group(reader, &group(random.usize(0..GROUPS))))
    })?;
    if !sorted {
        keep(&["cold-get"], true, &mut || {
            cold_rounds(store, window, |reader, random| {
                (0..COLD).try_for_each(|_| get(reader, draw(random, &names.stay)?))?;
                Ok(COLD)
            })
        })?;
    }
    // What was cold is warm again.
    std::io::copy(&mut File::open(&store.path)?, &mut std::io::sink())?;
    let (reader, mut writer, mut random) = (store.reader()?, store.writer()?, random());
    keep(&[scan], true, &mut || rate(window, || scan_group(&reader, &group(random.usize(0..GROUPS)))))?;
    if sorted {
        return Ok(());
    }
    keep(&["get"], true, &mut || rate(window, || get(&reader, draw(&mut random, &names.stay)?).map(|()| 1)))?;
    keep(&["keys"], true, &mut || rate(window, || list_keys(&reader, &group(random.usize(0..GROUPS)))))?;
    for (names, values) in [(&names.large, LARGE), (&names.small, SMALL)] {
        names.chunks(BATCH).try_for_each(|part| writer.set(part.iter(), |text, it| values.text(text, it)))?;
    }
    writer.checkpoint()?;
    keep(&["get-large"], true, &mut || {
        rate(window, || get(&reader, draw(&mut random, &names.large)?).map(|()| 1))
    })?;
    keep(&["get-beside"], true, &mut || {
        rate(window, || get(&reader, draw(&mut random, &names.small)?).map(|()| 1))
    })?;
    keep(&["keys-beside"], true, &mut || rate(window, || list_keys(&reader, &group(GROUPS + 1))))?;
    keep(&["get-writing", "set-read"], true, &mut || {
        both(
            window,
            &mut writer,
            |writer, random| overwrite(writer, random, names, values, 1),
            |random| get(&reader, draw(random, &names.stay)?),
        )
    })?;
    keep(&["set"], true, &mut || rate(window, || overwrite(&mut writer, &mut random, names, values, 1)))?;
    keep(&["batch"], true, &mut || {
        rate(window, || overwrite(&mut writer, &mut random, names, values, BATCH))
    })?;
    keep(&["sweep"], false, &mut || sweep(&mut writer, names.swept.len()))
}

/// So many done a second, until the time is up; one at least.
fn rate(window: Duration, mut step: impl FnMut() -> Result<usize>) -> Result<Vec<Figure>> {
    let (mut meter, start, mut done) = (Meter::default(), Instant::now(), 0);
    meter.around(|| {
        loop {
            done += step()?;
            if start.elapsed() >= window {
                return Ok(());
            }
        }
    })?;
    Ok(vec![meter.figure(done)])
}

fn load(store: &Store, names: &Names, values: Values, sorted: bool) -> Result<Vec<Figure>> {
    let (names, mut writer, mut meter) = (names.load(sorted), store.writer()?, Meter::default());
    meter.around(|| {
        for part in names.chunks(BATCH) {
            writer.set(part.iter().copied(), |text, revision| values.text(text, revision))?;
        }
        // What is not in the file yet was not done for nothing.
        writer.checkpoint()
    })?;
    let size = Figure { clock: std::fs::metadata(&store.path)?.len() as f64, ..Figure::default() };
    Ok(vec![meter.figure(names.len()), size])
}

fn get(reader: &Reader<'_>, name: &Name) -> Result<()> {
    let found = reader.get(name)?.ok_or("an entry is missing")?;
    std::hint::black_box(found);
    Ok(())
}

/// Reads a group in pages; how many entries it holds.
fn pages<T>(key: impl Fn(&T) -> &str, page: impl Fn(&str) -> Result<Vec<T>>) -> Result<usize> {
    let (mut after, mut count) = (String::new(), 0);
    loop {
        let found = std::hint::black_box(page(&after)?);
        count += found.len();
        match found.last() {
            Some(last) if found.len() == PAGE => after = key(last).to_owned(),
            _ => return Ok(count),
        }
    }
}

fn scan_group(reader: &Reader<'_>, group: &str) -> Result<usize> {
    pages(|entry: &Entry| &entry.key, |after| reader.entries(group, after))
}

fn list_keys(reader: &Reader<'_>, group: &str) -> Result<usize> {
    pages(|key: &KeyInfo| &key.key, |after| reader.keys(group, after))
}

/// Writes so many random entries anew, in one transaction.
fn overwrite(
    writer: &mut Writer<'_>,
    random: &mut fastrand::Rng,
    names: &Names,
    values: Values,
    count: usize,
) -> Result<usize> {
    let mut drawn = Vec::with_capacity(count);
    for _ in 0..count {
        drawn.push(draw(random, &names.stay)?);
    }
    writer.set(drawn.into_iter(), |text, revision| values.text(text, revision))?;
    Ok(count)
}

/// The rates of reading and of writing, at the same time.
fn both(
    window: Duration,
    writer: &mut Writer<'_>,
    mut write: impl FnMut(&mut Writer<'_>, &mut fastrand::Rng) -> Result<usize> + Send,
    mut read: impl FnMut(&mut fastrand::Rng) -> Result<()>,
) -> Result<Vec<Figure>> {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| -> Result<Figure> {
            let (mut random, mut meter, mut done) = (random(), Meter::default(), 0);
            meter.around(|| {
                // Once at least, however short the time is.
                loop {
                    done += write(writer, &mut random)?;
                    if ended.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                }
            })?;
            Ok(meter.figure(done))
        });
        let mut random = fastrand::Rng::with_seed(7);
        let read = rate(window, || read(&mut random).map(|()| 1));
        ended.store(true, Ordering::Relaxed);
        let written = writing.join().map_err(|_| "the writer panicked")??;
        let mut figures = read?;
        figures.push(written);
        Ok(figures)
    })
}

/// Rounds with nothing of the file in memory, neither SQLite's nor the kernel's (the host may still have it); the
/// connection is fresh, but knows the schema.
fn cold_rounds(
    store: &Store,
    window: Duration,
    mut round: impl FnMut(&Reader<'_>, &mut fastrand::Rng) -> Result<usize>,
) -> Result<Vec<Figure>> {
    let (begun, mut random, mut meter, mut done) = (Instant::now(), random(), Meter::default(), 0);
    while done == 0 || begun.elapsed() < window {
        drop_cache(&store.path)?;
        let reader = store.reader()?;
        reader.keys("", "")?;
        reader.get(&Name { group: String::new(), key: String::new() })?;
        done += meter.around(|| round(&reader, &mut random))?;
    }
    Ok(vec![meter.figure(done)])
}

fn sweep(writer: &mut Writer<'_>, count: usize) -> Result<Vec<Figure>> {
    let (mut meter, mut left, swept) = (Meter::default(), count, group(GROUPS));
    meter.around(|| {
        while left > 0 {
            match writer.sweep(&swept, BATCH)? {
                0 => return Err("the group that is swept is not whole".into()),
                gone => left = left.saturating_sub(gone),
            }
        }
        writer.checkpoint()
    })?;
    Ok(vec![meter.figure(count)])
}
