//! `import`: entries from JSON lines, or from the original's database.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use watchkeep::{
    Clock, Error, Limits, MAX_CONTENT_TYPE, Revision, SetOptions, Store, SystemClock, Timestamp, Transaction,
    Value,
};

use super::go_store::GoStore;
use super::render::unreadable;
use super::{Access, open};
use crate::args::{Global, Import};
use crate::exit::{FAILURE, Failure, Result};
use crate::line::{self, Record};
use crate::output::{Out, counted, grouped};

/// What a line holds besides group, key, value and content type.
const REST_OF_A_LINE: usize = 1 << 10;

/// What some editors put before a text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Where entries come from: always the same ones, in the same order.
pub(super) trait Source {
    /// Hands out every entry from the first on, with where it stands.
    fn each(&mut self, visit: &mut dyn FnMut(Place, Record) -> Result<()>) -> Result<()>;
}

/// Where an entry stands in its source: `line` or `row`, from one on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) noun: &'static str,
    pub(super) number: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.noun, self.number)
    }
}

/// What the store says against an entry, and which entry that is.
fn refused(error: Error, place: Place, record: &Record) -> Failure {
    // A name may be what is too long; a value shows only its beginning.
    let [group, key] = [&record.group, &record.key].map(Value::from);
    Failure::from(error).at(format_args!("{place} (group {group:?} key {key:?})"))
}

/// What came of it.
#[derive(Debug, Default, Clone, Copy)]
struct Summary {
    imported: u64,
    expired: u64,
    revision: Option<Revision>,
}

pub(super) fn import(global: &Global, args: &Import, out: &mut Out) -> Result<()> {
    let mut source: Box<dyn Source> = match (&args.file, &args.from_go_store) {
        (_, Some(old)) => Box::new(GoStore::open(old)?),
        (Some(file), None) if args.batch.is_some() => Box::new(Lines::once(file)?),
        (Some(file), None) => Box::new(Lines::again_and_again(file)?),
        (None, None) => return Err(Failure::new(FAILURE, "there is nothing to import; name a file")),
    };
    let summary = match args.batch {
        Some(size) => in_batches(global, source.as_mut(), size)?,
        None => at_once(global, source.as_mut())?,
    };
    report(summary, out)
}

fn report(summary: Summary, out: &mut Out) -> Result<()> {
    let Summary { imported, expired, revision } = summary;
    if out.is_json() {
        let revision = revision.map(Revision::get);
        return out.object(&json!({ "imported": imported, "expired": expired, "revision": revision }));
    }
    let left_out = match expired {
        0 => String::new(),
        _ => format!(", left out {} whose deadline has passed", grouped(expired)),
    };
    out.line(format_args!("imported {}{left_out}", counted(imported, "entry", "entries")))
}

/// How many bytes of entries are put in the order of their keys before they are written. In that order they go into the
/// file several times as fast as in none: neighbours share its pages.
const SORTED_BYTES: usize = 64 << 20;

/// Entries on their way into the store.
#[derive(Default)]
struct Chunk {
    entries: Vec<(Place, Record)>,
    bytes: usize,
}

impl Chunk {
    fn push(&mut self, place: Place, record: Record) {
        let text =
            record.group.len() + record.key.len() + record.content_type.as_ref().map_or(0, String::len);
        self.bytes += size_of::<(Place, Record)>() + text + record.value.len();
        self.entries.push((place, record));
    }

    fn is_full(&self) -> bool {
        self.bytes >= SORTED_BYTES
    }

    /// In the order of their keys; of several for one key the last stays the last.
    fn sorted(&mut self) -> &[(Place, Record)] {
        self.entries.sort_by(|(_, one), (_, next)| (&one.group, &one.key).cmp(&(&next.group, &next.key)));
        &self.entries
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}

/// Everything in one transaction. The source is read to its end first: a bad line is found before anything is
/// written, and no other writer waits for a slow source.
fn at_once(global: &Global, source: &mut dyn Source) -> Result<Summary> {
    let progress = progress("reading", None);
    let mut total = 0;
    source.each(&mut |_, _| {
        total += 1;
        progress.inc(1);
        Ok(())
    })?;
    progress.finish_and_clear();
    let store = open(global, Access::Write)?;
    let progress = self::progress("writing", Some(total));
    let mut failure = None;
    let done = store.transaction(|tx| {
        progress.reset();
        failure = None;
        let (now, mut summary) = (SystemClock.now(), Summary::default());
        let mut chunk = Chunk::default();
        let mut write = |chunk: &mut Chunk| {
            for (place, record) in chunk.sorted() {
                progress.inc(1);
                put(tx, record, now, &mut summary).map_err(|error| refused(error, *place, record))?;
            }
            chunk.clear();
            Ok(())
        };
        let written = source.each(&mut |place, record| {
            chunk.push(place, record);
            if chunk.is_full() { write(&mut chunk) } else { Ok(()) }
        });
        let written = written.and_then(|()| write(&mut chunk));
        written.map(|()| summary).map_err(|error| {
            failure = Some(error);
            Error::abort("the import failed")
        })
    });
    progress.finish_and_clear();
    match (failure, done) {
        (Some(failure), Err(_)) => Err(failure),
        (_, done) => {
            let done = done?;
            Ok(Summary { revision: (done.value.imported > 0).then_some(done.revision), ..done.value })
        }
    }
}

/// So many entries in a transaction; what is in when it fails stays in, and is told.
fn in_batches(global: &Global, source: &mut dyn Source, size: u64) -> Result<Summary> {
    let store = open(global, Access::Write)?;
    let progress = progress("writing", None);
    let (mut batch, mut summary, mut through) = (Chunk::default(), Summary::default(), None);
    let mut commit = |batch: &mut Chunk| {
        let Some(last) = batch.entries.last().map(|(last, _)| *last) else { return Ok(()) };
        write_batch(&store, batch.sorted(), &mut summary)?;
        through = Some(last);
        batch.clear();
        Ok(())
    };
    let result = source
        .each(&mut |place, record| {
            progress.inc(1);
            batch.push(place, record);
            if u64::try_from(batch.entries.len()).is_ok_and(|len| len >= size) {
                commit(&mut batch)
            } else {
                Ok(())
            }
        })
        .and_then(|()| commit(&mut batch));
    progress.finish_and_clear();
    match (result, through) {
        (Ok(()), _) => Ok(summary),
        (Err(failure), None) => Err(Failure::new(failure.code(), format!("{failure}; nothing is in"))),
        (Err(failure), Some(Place { noun, number })) => {
            let what = format!("{failure}; what stands up to {noun} {number} is in");
            Err(Failure::new(failure.code(), what))
        }
    }
}

fn write_batch(store: &Store, batch: &[(Place, Record)], summary: &mut Summary) -> Result<()> {
    let mut at = None;
    let done = store.transaction(|tx| {
        let (now, mut summary) = (SystemClock.now(), *summary);
        for (place, record) in batch {
            at = Some((*place, record));
            put(tx, record, now, &mut summary)?;
        }
        at = None;
        Ok(summary)
    });
    let done = match (done, at) {
        (Err(error), Some((place, record))) => return Err(refused(error, place, record)),
        (done, _) => done?,
    };
    let wrote = done.value.imported > summary.imported;
    *summary = Summary { revision: if wrote { Some(done.revision) } else { summary.revision }, ..done.value };
    Ok(())
}

fn put(
    tx: &Transaction<'_>,
    record: &Record,
    now: Timestamp,
    summary: &mut Summary,
) -> watchkeep::Result<()> {
    let mut options = SetOptions::new();
    if let Some(deadline) = record.deadline {
        if deadline <= now {
            summary.expired += 1;
            return Ok(());
        }
        options = options.expires_at(deadline);
    }
    if let Some(content_type) = &record.content_type {
        options = options.content_type(content_type);
    }
    summary.imported += 1;
    tx.set_with(&record.group, &record.key, &record.value, options)
}

/// Drawn on standard error, and only on a terminal.
fn progress(what: &'static str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{msg} {wide_bar} {human_pos} of {human_len} entries"),
        None => (ProgressBar::new_spinner(), "{msg} {spinner} {human_pos} entries"),
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_message(what)
}

/// JSON lines.
struct Lines {
    input: Input,
    name: String,
}

enum Input {
    /// A file that can be read as often as one likes.
    File(File),
    /// Something that can be read once.
    Stream(Box<dyn Read>),
}

impl Lines {
    /// For reading once.
    fn once(path: &Path) -> Result<Lines> {
        let input = if path == Path::new("-") {
            Input::Stream(Box::new(io::stdin()))
        } else {
            Input::Stream(Box::new(File::open(path).map_err(|error| unreadable(path, &error))?))
        };
        Ok(Lines { input, name: name_of(path) })
    }

    /// For reading more than once: what cannot be wound back is put aside in a temporary file.
    fn again_and_again(path: &Path) -> Result<Lines> {
        let name = name_of(path);
        if path != Path::new("-") {
            let file = File::open(path).map_err(|error| unreadable(path, &error))?;
            let kind = file.metadata().map_err(|error| unreadable(path, &error))?.file_type();
            if kind.is_dir() {
                return Err(unreadable(path, &io::ErrorKind::IsADirectory.into()));
            }
            if kind.is_file() {
                return Ok(Lines { input: Input::File(file), name });
            }
        }
        let lines = Lines::once(path)?;
        let Input::Stream(mut stream) = lines.input else { return Ok(lines) };
        let put_aside = |error: io::Error| {
            Failure::new(
                FAILURE,
                format!("{name} could not be put aside: {error}; make room, or use --batch"),
            )
        };
        let mut aside = tempfile::tempfile().map_err(put_aside)?;
        io::copy(&mut stream, &mut aside).map_err(put_aside)?;
        Ok(Lines { input: Input::File(aside), name })
    }
}

/// More bytes than a line can have that is an entry: every byte of it may be written as six, and names and layout
/// take some.
fn longest_line() -> u64 {
    let Limits { group, key, value } = Limits::default();
    6 * (group + key + value + MAX_CONTENT_TYPE + REST_OF_A_LINE) as u64
}

fn name_of(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { format!("{path:?}") }
}

impl Source for Lines {
    fn each(&mut self, visit: &mut dyn FnMut(Place, Record) -> Result<()>) -> Result<()> {
        let name = &self.name;
        let unread = |error: io::Error| Failure::new(FAILURE, format!("{name} could not be read: {error}"));
        let input: &mut dyn Read = match &mut self.input {
            Input::File(file) => {
                file.rewind().map_err(unread)?;
                file
            }
            Input::Stream(stream) => stream,
        };
        let mut reader = BufReader::with_capacity(64 << 10, input);
        let mut place = Place { noun: "line", number: 0 };
        let (mut line, longest) = (Vec::new(), longest_line());
        loop {
            line.clear();
            if reader.by_ref().take(longest).read_until(b'\n', &mut line).map_err(unread)? == 0 {
                return Ok(());
            }
            place.number += 1;
            let is_too_long = line.len() as u64 == longest && !line.ends_with(b"\n");
            if place.number == 1 && line.starts_with(BYTE_ORDER_MARK) {
                line.drain(..BYTE_ORDER_MARK.len());
            }
            let bad = |what| {
                Failure::new(
                    FAILURE,
                    format!("{place} of {name} is no entry: {what}; correct it, then import again"),
                )
            };
            if is_too_long {
                return Err(bad("it is longer than any".to_owned()));
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            visit(place, line::read(&line).map_err(bad)?)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_sorted_in_pieces_of_a_bounded_size() {
        let record = |key: u64| Record {
            group: "g".to_owned(),
            key: format!("{:02}", key % 3),
            value: "v".repeat(1 << 20).into(),
            deadline: None,
            content_type: None,
        };
        let (mut chunk, mut pieces) = (Chunk::default(), Vec::new());
        for number in 0..70 {
            chunk.push(Place { noun: "line", number }, record(70 - number));
            if chunk.is_full() {
                let places: Vec<_> =
                    chunk.sorted().iter().map(|(place, record)| (record.key.clone(), place.number)).collect();
                assert!(places.is_sorted(), "in the order of keys, and of lines where they are the same");
                pieces.push(places.len());
                chunk.clear();
            }
        }
        assert_eq!((pieces, chunk.entries.len()), (vec![64], 6));
    }
}
