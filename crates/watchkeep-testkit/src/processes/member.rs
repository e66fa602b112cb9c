//! The inside of a process that has the store open, and does what it is told on its standard input, a line at a time.
//! What it does, it tells on its standard output. When its input ends it closes the store, and ends.
//!
//! | line | what it does | what it tells |
//! |---|---|---|
//! | | opens the store | `ready WAKING` |
//! | `watch NAME AFTER BUFFER SLOW` | hands out events, after a revision or from `now` on; each takes so many ms | `armed`, `event` |
//! | `idle` | makes a watcher that nobody reads | `idle` |
//! | `callback NAME` | registers one | `armed`, `event` |
//! | `write LABEL FROM COUNT HOW BYTES` | writes so often | `wrote`, `failed`, `done` |
//! | `fill NAMESPACE LABEL COUNT` | writes and deletes under the quota of the namespace | `done` |
//! | `expire COUNT MS` | writes keys that expire | `done` |
//! | `consume NAME` | counts each expiry, in the transaction that acknowledges it | |
//! | `hold`, `release` | holds the write lock, and lets go | `holding`, `released` |
//! | `upkeep` | uses whatever looks at the file | `kept` |
//! | `trap` | opens and closes a descriptor of the file, which nobody may | `trapped` |
//! | `stats` | | `stats WAKING` |

use std::io::{BufRead, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use watchkeep::{
    ConsumerOptions, ConsumerStart, Error, ErrorKind, Filter, Kind, Options, Revision, Store, WatchOptions,
    Watcher,
};

use super::line::{self, Words, or_none};
use super::{now, pause};
use crate::record::{Moment, Seen};
use crate::surface::Fault;

/// What the file's pages take of a member's memory: its tests bound what events take.
const PAGE_CACHE: u64 = 4 << 20;

/// The name under which the long program of this crate takes a member's part.
pub const PART: &str = "member";
/// Where members write.
pub const GROUP: &str = "w";
/// Where members count.
pub const COUNTS: &str = "counts";

/// Says a line, whole.
fn tell(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    if out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).is_err() {
        // Nobody is interested any more.
        std::process::exit(0);
    }
}

fn failed(label: &str, began: Instant, error: &Error) {
    let (kind, took) = (error.kind(), began.elapsed().as_millis());
    tell(format_args!("failed\t{label}\t{kind:?}\t{took}\t{error}"));
}

/// Plays a member, if the arguments of the program ask for one.
///
/// # Errors
///
/// As [`play`].
pub fn part(arguments: &[String]) -> Option<Result<(), Fault>> {
    let (mark, rest) = arguments.split_first()?;
    (mark == PART).then(|| play(rest.iter().cloned()))
}

/// Plays the part: the file, and how many ms a write waits for others.
///
/// # Errors
///
/// When the store cannot be opened, or a line is not understood.
pub fn play(mut arguments: impl Iterator<Item = String>) -> Result<(), Fault> {
    let path = PathBuf::from(arguments.next().ok_or("a member needs a store")?);
    let busy = Duration::from_millis(arguments.next().ok_or("a member needs a timeout")?.parse()?);
    let store = Options::new().create(false).busy_timeout(busy).page_cache(PAGE_CACHE).open(&path)?;
    tell(format_args!("ready\t{}", store.stats()?.waking.as_str()));
    let member = Member { store, path, kept: Vec::new(), readers: Vec::new(), release: Arc::default() };
    member.obey()
}

struct Member {
    store: Store,
    path: PathBuf,
    /// Watchers that nobody reads.
    kept: Vec<Watcher>,
    /// Those that are read.
    readers: Vec<JoinHandle<()>>,
    release: Arc<Mutex<Option<mpsc::Sender<()>>>>,
}

impl Member {
    fn obey(mut self) -> Result<(), Fault> {
        for line in std::io::stdin().lock().lines() {
            let line = line?.replace(' ', "\t");
            let mut words = Words::of(&line);
            match words.text()? {
                "watch" => self.watch(&mut words)?,
                "idle" => {
                    self.kept.push(self.store.watch("*", "*"));
                    tell(format_args!("idle"));
                }
                "callback" => self.callback(words.text()?)?,
                "write" => self.write(&mut words)?,
                "fill" => self.fill(&mut words)?,
                "expire" => self.expire(words.number()?, words.number()?)?,
                "consume" => self.consume(words.text()?.to_owned()),
                "hold" => self.hold(),
                "release" => drop(self.release.lock().unwrap_or_else(PoisonError::into_inner).take()),
                "upkeep" => self.upkeep()?,
                "trap" => {
                    drop(std::fs::File::open(&self.path)?);
                    tell(format_args!("trapped"));
                }
                "stats" => tell(format_args!("stats\t{}", self.store.stats()?.waking.as_str())),
                unknown => return Err(format!("{unknown:?} is not understood").into()),
            }
        }
        self.store.close()?;
        // They hand out what they still owe.
        self.readers.into_iter().for_each(|reader| drop(reader.join()));
        tell(format_args!("closed"));
        Ok(())
    }

    fn watch(&mut self, words: &mut Words<'_>) -> Result<(), Fault> {
        let (name, after) = (words.text()?.to_owned(), words.text()?);
        let options = WatchOptions::new().buffer(words.number()?);
        let slow = Duration::from_millis(words.number()?);
        let options = match after {
            "now" => options,
            after => options.after(after.parse()?),
        };
        let called = now();
        let mut watcher = self.store.watch_with(Filter::everything(), options)?;
        let span = line::span(called, now());
        tell(format_args!("armed\twatcher\t{name}\t{after}\t{}\t{span}", watcher.start()));
        self.readers.push(std::thread::spawn(move || {
            loop {
                let called = now();
                match watcher.recv() {
                    Some(Ok(event)) => heard(&name, called, &(&event).into()),
                    Some(Err(error)) => failed(&name, Instant::now(), &error),
                    None => break,
                }
                if !slow.is_zero() {
                    pause(slow);
                }
            }
            tell(format_args!("ended\t{name}"));
        }));
        Ok(())
    }

    fn callback(&self, name: &str) -> Result<(), Fault> {
        let (own, called, start) = (name.to_owned(), now(), self.store.last_revision()?);
        self.store.on_change(move |event| heard(&own, now(), &event.into())).detach();
        let span = line::span(called, now());
        tell(format_args!("armed\tcallback\t{name}\tnow\t{start}\t{span}"));
        Ok(())
    }

    fn write(&self, words: &mut Words<'_>) -> Result<(), Fault> {
        let (label, from, count) = (words.text()?.to_owned(), words.number()?, words.number::<u64>()?);
        let (how, bytes) = (words.text()?.to_owned(), words.number()?);
        let store = self.store.clone();
        std::thread::spawn(move || {
            for number in from..count.saturating_add(from) {
                let name = format!("{label}.{number}");
                let (store, began, called) = (store.with_origin(&name), Instant::now(), now());
                let done = one_write(&store, &label, number, &how, bytes);
                let span = line::span(called, now());
                match done {
                    Ok(revision) => tell(format_args!("wrote\t{name}\t{span}\t{}", or_none(revision))),
                    Err(error) if error.kind() == ErrorKind::Closed => break,
                    Err(error) => failed(&name, began, &error),
                }
            }
            tell(format_args!("done\t{label}"));
        });
        Ok(())
    }

    /// Keys come and go; what finds no room is counted.
    fn fill(&self, words: &mut Words<'_>) -> Result<(), Fault> {
        let store = self.store.scoped(words.text()?)?;
        let (label, count) = (words.text()?.to_owned(), words.number::<u64>()?);
        std::thread::spawn(move || {
            let (mut written, mut refused) = (0, 0);
            for number in 0..count {
                let deletes = number % 4 == 3;
                let key = format!("{label}-{}", if deletes { number / 2 } else { number });
                let done = if deletes {
                    store.delete("keys", &key).map(drop)
                } else {
                    store.set("keys", &key, "v").map(drop)
                };
                match done {
                    Ok(()) => written += 1,
                    Err(error) if error.kind() == ErrorKind::QuotaExceeded => refused += 1,
                    Err(error) => failed(&label, Instant::now(), &error),
                }
            }
            tell(format_args!("done\t{label}\t{written}\t{refused}"));
        });
        Ok(())
    }

    fn expire(&self, count: u64, ms: u64) -> Result<(), Fault> {
        for number in 0..count {
            let lives = Duration::from_millis(ms + number % 50);
            self.store.set_with_ttl("due", &number.to_string(), "v", lives)?;
        }
        tell(format_args!("done\texpire"));
        Ok(())
    }

    fn consume(&self, name: String) {
        let store = self.store.clone();
        std::thread::spawn(move || {
            loop {
                match count_expiries(&store, &name) {
                    Err(error) if error.kind() == ErrorKind::Closed => return,
                    // Who was not let run for long loses it to another, and takes it again.
                    Err(error) if [ErrorKind::Held, ErrorKind::Fenced].contains(&error.kind()) => {}
                    Err(error) => return failed(&name, Instant::now(), &error),
                    Ok(()) => return,
                }
            }
        });
    }

    fn hold(&self) {
        let (store, (sender, wait)) = (self.store.clone(), mpsc::channel());
        *self.release.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        std::thread::spawn(move || {
            let (began, called) = (Instant::now(), now());
            let held = store.with_origin("held.0").transaction(|tx| {
                tx.set(GROUP, "held", "v")?;
                tell(format_args!("holding"));
                // Until somebody lets go, or the input ends.
                let _ = wait.recv();
                Ok(())
            });
            match held {
                Ok(done) => {
                    tell(format_args!("wrote\theld.0\t{}\t{}", line::span(called, now()), done.revision));
                    tell(format_args!("released"));
                }
                Err(error) => failed("held.0", began, &error),
            }
        });
    }

    /// Whatever looks at the file, or opens it once more.
    fn upkeep(&self) -> Result<(), Fault> {
        self.store.stats()?;
        self.store.check()?;
        let copy = tempfile::tempdir()?;
        self.store.backup(copy.path().join("copy.db"))?;
        let again = Store::open(&self.path)?;
        again.set(GROUP, "again", "v")?;
        again.close()?;
        let snapshot = self.store.snapshot()?;
        snapshot.entries(GROUP).try_for_each(|entry| entry.map(drop))?;
        self.store.compact(Revision::ZERO)?;
        drop(snapshot);
        tell(format_args!("kept"));
        Ok(())
    }
}

fn heard(name: &str, called: Moment, event: &Seen) {
    let span = line::span(called, now());
    tell(format_args!("event\t{name}\t{span}\t{}", line::seen(event)));
}

/// One write; its last revision, where the call tells it.
fn one_write(
    store: &Store,
    label: &str,
    number: u64,
    how: &str,
    bytes: usize,
) -> watchkeep::Result<Option<Revision>> {
    let (key, value) = (format!("{label}-{}", number % 100), format!("{number:0bytes$}"));
    match (how, number % 5) {
        ("mixed", 0) => {
            let ttl = Duration::from_millis(1 + number % 40);
            store.set_with_ttl(GROUP, &format!("{label}-t{number}"), value, ttl).map(Some)
        }
        ("mixed", 1) => {
            let two = store.transaction(|tx| {
                tx.set(GROUP, &key, value.as_str())?;
                tx.set("x", &key, value.as_str())
            });
            two.map(|done| Some(done.revision))
        }
        ("mixed", 2) => store.delete("x", &format!("{label}-{}", (number - 1) % 100)).map(|_| None),
        ("bulk", _) => {
            let all = store.transaction(|tx| {
                (0..100).try_for_each(|n| tx.set(GROUP, &format!("{key}-{n}"), value.as_str()))
            });
            all.map(|done| Some(done.revision))
        }
        _ => store.set(GROUP, &key, value).map(Some),
    }
}

/// Counts each expiry once, whoever dies in between.
fn count_expiries(store: &Store, name: &str) -> watchkeep::Result<()> {
    let options = ConsumerOptions::new()
        .filter(Filter::group(GROUP).kinds([Kind::Expire]))
        .start(ConsumerStart::Beginning)
        .lease(Duration::from_millis(300))
        .wait(Duration::MAX);
    let mut consumer = store.consumer_with(name, options)?;
    while let Some(event) = consumer.recv() {
        let event = event?;
        store.transaction(|tx| {
            let count = counted(tx.get(COUNTS, name)?);
            tx.set(COUNTS, name, (count + 1).to_string())?;
            tx.ack(&consumer, event.revision())
        })?;
    }
    Ok(())
}

/// The number that an entry holds.
pub(super) fn counted(value: Option<watchkeep::Value>) -> u64 {
    value.and_then(|value| value.as_str()?.parse().ok()).unwrap_or(0)
}
