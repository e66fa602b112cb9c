//! Two processes on one file. The one that reads keeps its cursor in a small file of its own, and is killed; the other
//! writes ten thousand keys; the reader starts again from its cursor and gets exactly those, in order, then whatever is
//! written live. Without arguments it starts itself as its own reader.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use watchkeep::{Cursor, Filter, Revision, Store, WatchOptions};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const WHILE_DEAD: u64 = 10_000;
const LIVE: u64 = 50;
/// A reader that waits this long for more first notes where it is.
const IDLE: Duration = Duration::from_millis(5);

/// The reader's process: prints the revision of each event, and `noted` when its cursor is in the file.
fn read(store: &Path, bookmark: &Path) -> Result {
    let store = Store::open(store)?;
    let from = match std::fs::read_to_string(bookmark) {
        Ok(text) => text.parse()?,
        Err(_) => store.cursor(Revision::ZERO),
    };
    let mut watcher = store.watch_with(Filter::group("news"), WatchOptions::new().after_cursor(from))?;
    let (mut seen, mut noted) = (from.revision(), from.revision());
    loop {
        match watcher.recv_timeout(if seen > noted { IDLE } else { Duration::MAX }) {
            Some(event) => {
                seen = event?.revision();
                println!("{seen}");
            }
            // First act, then note: after a crash in between, an event comes again rather than never.
            None if seen > noted => {
                let new = bookmark.with_extension("new");
                std::fs::write(&new, store.cursor(seen).to_string())?;
                std::fs::rename(new, bookmark)?;
                noted = seen;
                println!("noted");
            }
            None => return Ok(()),
        }
    }
}

/// The reader, from outside. Killed when this goes.
struct Reader {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Reader {
    fn start(store: &Path, bookmark: &Path) -> Result<Reader> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg(store).arg(bookmark).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().ok_or("no pipe to the reader")?;
        Ok(Reader { child, lines: BufReader::new(out).lines() })
    }

    /// The next revision that it got; none when it noted its place instead.
    fn next(&mut self) -> Result<Option<Revision>> {
        let line = self.lines.next().ok_or("the reader ended")??;
        Ok(if line == "noted" { None } else { Some(line.parse()?) })
    }

    /// What it got, until it has come so far.
    fn up_to(&mut self, last: Revision) -> Result<Vec<Revision>> {
        let mut got = Vec::new();
        while got.last() != Some(&last) {
            got.extend(self.next()?);
        }
        Ok(got)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill(); // SIGKILL: it has no time for anything
        let _ = self.child.wait();
    }
}

fn main() -> Result {
    if let [store, bookmark] = std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        return read(Path::new(store), Path::new(bookmark));
    }
    let folder = tempfile::tempdir()?;
    let (path, bookmark) = (folder.path().join("app.db"), folder.path().join("cursor"));
    let store = Store::open(&path)?;
    let write = |keys: std::ops::Range<u64>| {
        let written = store.transaction(|tx| {
            keys.clone().try_for_each(|key| tx.set("news", &format!("{key:05}"), key.to_string()))
        });
        written.map(|it| it.revision)
    };

    // The first life: it reads, notes its place, and is killed.
    let mut reader = Reader::start(&path, &bookmark)?;
    let last = write(0..100)?;
    let got = reader.up_to(last)?.len();
    while reader.next()?.is_some() {}
    drop(reader);
    let cursor: Cursor = std::fs::read_to_string(&bookmark)?.parse()?;
    println!("the reader got {got} events, noted {cursor}, and was killed");

    for key in (100..100 + WHILE_DEAD).step_by(100) {
        write(key..key + 100)?;
    }
    let end = store.last_revision()?;
    println!("{WHILE_DEAD} keys were written while it was dead, up to revision {end}");

    // The second life.
    let start = Instant::now();
    let mut reader = Reader::start(&path, &bookmark)?;
    let got = reader.up_to(end)?;
    let written: Vec<Revision> = store
        .history(Filter::group("news"), cursor.revision())
        .map(|event| event.map(|event| event.revision()))
        .collect::<std::result::Result<_, _>>()?;
    println!("started again, it got {} in {:.2} s", got.len(), start.elapsed().as_secs_f64());
    assert_eq!(got, written, "missing, doubled or out of order");
    assert_eq!(got.len() as u64, WHILE_DEAD);

    let mut times = Vec::new();
    for key in 0..LIVE {
        let last = write(key..key + 1)?;
        let returned = Instant::now();
        reader.up_to(last)?;
        times.push(returned.elapsed());
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    println!("then {LIVE} live ones, {median:?} (median) after each commit had returned");
    Ok(())
}
