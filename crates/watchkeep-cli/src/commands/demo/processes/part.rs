//! What the processes of the demo do that it starts: each reads what to do from its standard input, a line at a time,
//! and tells on its standard output what it did. When its input ends, so does it.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use watchkeep::{Cursor, Filter, Revision, Store, WatchOptions};

use crate::args::{Global, Part};
use crate::commands::{Access, open, threads};
use crate::exit::{FAILURE, Failure, Result};

/// What the processes write, and read.
pub(super) const GROUP: &str = "news";
/// How many keys a transaction writes while the reader is dead.
pub(super) const AT_ONCE: u64 = 20;
/// The reader notes its place whenever it has nothing to read, and at the latest after so many events.
const NOTE_AFTER: u32 = 1_000;
/// How long it waits for more before it notes its place.
const IDLE: Duration = Duration::from_millis(5);

pub(in super::super) fn play(part: Part, global: &Global) -> Result<()> {
    let store = open(global, Access::Change)?;
    match part {
        Part::Writer => write(&store),
        Part::Reader => read(&store),
    }
}

/// Where a reader keeps its cursor: beside the store, in a file of its own.
pub(super) fn bookmark(store: &Path) -> PathBuf {
    let mut path = store.to_owned().into_os_string();
    path.push("-cursor");
    path.into()
}

/// A clock that all processes of the machine share, in nanoseconds.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

fn tell(line: impl std::fmt::Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Failure::output)
}

/// Lines of `write FIRST COUNT` and `bulk FIRST COUNT`, answered by `wrote REVISION TIME` for each commit and `done`.
fn write(store: &Store) -> Result<()> {
    tell("ready")?;
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap_or_default();
        let mut words = line.split(' ');
        let (what, first, count) = (words.next(), number(words.next()), number(words.next()));
        let at_once = if what == Some("bulk") { AT_ONCE } else { 1 };
        let mut key = first;
        while key < first + count {
            let keys = key..(key + at_once).min(first + count);
            key = keys.end;
            let done = store.transaction(|tx| {
                keys.clone().try_for_each(|key| tx.set(GROUP, &format!("{key:05}"), key.to_string()))
            })?;
            tell(format_args!("wrote {} {}", done.revision, now()))?;
        }
        tell("done")?;
    }
    Ok(())
}

fn number(word: Option<&str>) -> u64 {
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// `got REVISION KEY TIME` for each event, and `noted REVISION` when the cursor is in its file.
fn read(store: &Store) -> Result<()> {
    let bookmark = bookmark(store.path().unwrap_or(Path::new("")));
    let from = match std::fs::read_to_string(&bookmark) {
        Ok(text) => text.trim().parse::<Cursor>()?,
        Err(_) => store.cursor(Revision::ZERO),
    };
    let mut watcher = store.watch_with(Filter::group(GROUP), WatchOptions::new().after_cursor(from))?;
    let stopper = watcher.stopper();
    threads::start(move || {
        std::io::stdin().lock().lines().for_each(drop);
        stopper.stop();
    })?;
    tell(format_args!("ready {}", from.revision()))?;
    let (mut seen, mut noted, mut since) = (from.revision(), from.revision(), 0);
    while !watcher.is_ended() {
        let event = watcher.recv_timeout(if seen > noted { IDLE } else { Duration::MAX });
        let idle = event.is_none();
        if let Some(event) = event {
            let event = event?;
            seen = event.revision();
            since += 1;
            tell(format_args!("got {seen} {} {}", event.key().unwrap_or_default(), now()))?;
        }
        // First act, then note: after a crash between the two an event would come again, and none would be missing.
        if seen > noted && (idle || since >= NOTE_AFTER) {
            note(&bookmark, store.cursor(seen))?;
            (noted, since) = (seen, 0);
            tell(format_args!("noted {noted}"))?;
        }
    }
    Ok(())
}

/// The whole cursor or the one before it, whenever this is killed.
fn note(bookmark: &Path, cursor: Cursor) -> Result<()> {
    let mut new = bookmark.to_owned().into_os_string();
    new.push("-new");
    let written = std::fs::write(&new, cursor.to_string()).and_then(|()| std::fs::rename(&new, bookmark));
    written.map_err(|error| Failure::new(FAILURE, format!("{bookmark:?} could not be written: {error}")))
}
