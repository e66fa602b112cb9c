//! `demo --processes`: a process that reads is killed, another writes ten thousand keys, and the reader goes on from its
//! cursor; in the end the change log tells whether it missed anything.

mod child;
mod part;
mod report;

use std::path::Path;
use std::time::{Duration, Instant};

use watchkeep::{Filter, Revision, Store};

use self::child::{Process, Said};
use self::report::{Report, Screen};
use super::{open_own, proof};
use crate::args::Global;
use crate::commands::signals::{self, Asked};
use crate::exit::{FAILURE, Failure, Result};
use crate::output::{Out, grouped};

pub(super) use self::part::play;

/// How many keys are written before the reader is killed, while it is dead, and afterwards.
const BEFORE: u64 = 200;
const WHILE_DEAD: u64 = 10_000;
const AFTER: u64 = 100;
/// The last keys are written so far apart: each is on its way alone.
const APART: Duration = Duration::from_millis(10);

pub(super) fn demo(global: &Global, store_is_named: bool, out: &mut Out) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("watchkeep-demo-").tempdir();
    let folder = folder
        .map_err(|error| Failure::new(FAILURE, format!("there is no room for temporary files: {error}")))?;
    let path = if store_is_named { global.store.clone() } else { folder.path().join("demo.db") };
    let (store, _) = open_own(global, &path)?;
    // A signal reaches the processes that are started here too, or the next thing they are told; this one cleans up.
    let asked = signals::on_end(|| {})?;
    // Of this run, not of one before it.
    let _ = std::fs::remove_file(part::bookmark(&path));
    store.delete_group(part::GROUP)?;
    let start = store.last_revision()?;
    let cursor = store.cursor(start).to_string();
    std::fs::write(part::bookmark(&path), cursor)
        .map_err(|error| Failure::new(FAILURE, format!("the cursor could not be written: {error}")))?;
    let mut screen = Screen::new(out);
    let report = scenes(&store, &path, start, &asked, &mut screen)?;
    let _ = std::fs::remove_file(part::bookmark(&path));
    screen.report(&report)?;
    store.close()?;
    if report.holds() {
        Ok(())
    } else {
        Err(Failure::new(FAILURE, "the numbers above must not be; please report them as a bug"))
    }
}

/// What a reader got, over its lives.
#[derive(Default)]
struct Got {
    revisions: Vec<Revision>,
    /// When each came.
    at: Vec<u64>,
}

impl Got {
    fn hear(&mut self, said: &Said) {
        if said.what == "got" {
            self.revisions.push(Revision::new(said.number(0)));
            self.at.push(said.number(2));
        }
    }
}

fn scenes(
    store: &Store,
    path: &Path,
    start: Revision,
    asked: &Asked,
    screen: &mut Screen<'_>,
) -> Result<Report> {
    let began = Instant::now();
    screen.opening(path)?;
    let mut writer = Process::start("writer", path, asked)?;
    let mut reader = Process::start("reader", path, asked)?;
    screen.scene(began, format_args!("process {} reads, process {} writes", reader.id(), writer.id()))?;
    let mut first = Got::default();
    let (last, _) = write(&mut writer, "write", 0, BEFORE)?;
    // It has handled them all, and noted that.
    while Revision::new(reader.until("noted", |said| first.hear(said))?.number(0)) < last {}
    let victim = reader.id();
    reader.kill(|said| first.hear(said))?;
    let cursor = read_bookmark(path)?;
    let seen = first.revisions.len();
    screen.scene(
        began,
        format_args!("the reader got {seen}, noted {cursor}, and is killed: kill -9 {victim}"),
    )?;

    let writing = Instant::now();
    let (end, _) = write(&mut writer, "bulk", BEFORE, WHILE_DEAD)?;
    let writing = writing.elapsed();
    screen.scene(
        began,
        format_args!(
            "{} writes {} keys, {} a transaction: up to revision {end}",
            writer.id(),
            grouped(WHILE_DEAD),
            part::AT_ONCE
        ),
    )?;

    let mut second = Got::default();
    let catching_up = Instant::now();
    let mut reader = Process::start("reader", path, asked)?;
    let id = reader.id();
    screen.scene(began, format_args!("the reader starts again as process {id}, after {cursor}"))?;
    hear_up_to(&mut reader, end, &mut second)?;
    let catching_up = catching_up.elapsed();
    screen.scene(began, format_args!("it has come to revision {end}, and reads live from here on"))?;
    let missed = second.revisions.clone();
    let mut live = Vec::new();
    for key in (BEFORE + WHILE_DEAD..).take(usize::try_from(AFTER).unwrap_or(usize::MAX)) {
        let (last, at) = write(&mut writer, "write", key, 1)?;
        hear_up_to(&mut reader, last, &mut second)?;
        // It may be there before its writer has returned.
        live.extend(second.at.last().map(|got| Duration::from_nanos(got.saturating_sub(at))));
        // Nothing is due: this only lets the time pass, and would bring what came twice.
        if let Some(said) = reader.within(APART)? {
            second.hear(&said);
        }
    }
    let last = store.last_revision()?;
    reader.kill(|said| second.hear(said))?;
    let log = logged(store, start, last)?;
    let dead: Vec<_> =
        log.iter().copied().filter(|revision| (cursor.revision()..=end).contains(revision)).collect();
    let dead = dead.get(usize::from(dead.first() == Some(&cursor.revision()))..).unwrap_or_default();
    let all: Vec<_> = first.revisions.iter().chain(&second.revisions).copied().collect();
    live.sort_unstable();
    Ok(Report {
        written: WHILE_DEAD,
        while_dead: proof::compare(dead, &missed),
        logged: dead.len(),
        all: proof::compare(&log, &all),
        log: log.len(),
        first: missed.first().copied().unwrap_or_default(),
        last: missed.last().copied().unwrap_or_default(),
        writing,
        catching_up,
        live,
        waking: store.stats()?.waking,
        took: began.elapsed(),
    })
}

/// Lets the writer write so many keys; the last revision, and when it was written.
fn write(writer: &mut Process, how: &str, first: u64, count: u64) -> Result<(Revision, u64)> {
    writer.tell(&format!("{how} {first} {count}"))?;
    let mut last = (Revision::ZERO, 0);
    writer.until("done", |said| last = (Revision::new(said.number(0)), said.number(1)))?;
    Ok(last)
}

/// Reads on until the reader has come so far.
fn hear_up_to(reader: &mut Process, end: Revision, got: &mut Got) -> Result<()> {
    while got.revisions.last().is_none_or(|last| *last < end) {
        let said = reader.next()?;
        got.hear(&said);
    }
    Ok(())
}

fn read_bookmark(path: &Path) -> Result<watchkeep::Cursor> {
    let text = std::fs::read_to_string(part::bookmark(path))
        .map_err(|error| Failure::new(FAILURE, format!("the reader left no cursor: {error}")))?;
    Ok(text.parse()?)
}

/// What the change log holds of it.
fn logged(store: &Store, start: Revision, last: Revision) -> Result<Vec<Revision>> {
    let events = store.history(Filter::group(part::GROUP), start);
    let revisions = events.map(|event| Ok(event?.revision())).collect::<Result<Vec<_>>>()?;
    Ok(revisions.into_iter().filter(|revision| *revision <= last).collect())
}
