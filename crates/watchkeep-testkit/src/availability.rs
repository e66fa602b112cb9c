//! Whether a store is alive: every call is answered in time, and what was acknowledged is told in time.
//!
//! A probe asks for one thing of each kind that a caller may wait for. A refusal is an answer. What never comes is a
//! [`Silence`].

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use futures_core::Stream;
use watchkeep::{
    Error, ErrorKind, Filter, Kind, Options, Revision, SetOptions, Store, WatchOptions, Watcher,
};

use crate::surface::block_on;

/// The group that the probes write to.
pub const GROUP: &str = "probe";

/// The time to live of the entry whose expiry is awaited.
const TTL: Duration = Duration::from_millis(20);

/// Something that did not come in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// What was waited for.
    pub what: &'static str,
    /// How long.
    pub waited: Duration,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} did not come within {:?}", self.what, self.waited)
    }
}

/// What came of a probe.
#[derive(Debug, Default)]
pub struct Report {
    /// What was waited for in vain.
    pub silences: Vec<Silence>,
    /// What was refused, and how.
    pub refused: Vec<(&'static str, ErrorKind)>,
    /// How many things came.
    pub came: usize,
}

impl Report {
    /// Whether everything came, and nothing was refused.
    pub fn is_clean(&self) -> bool {
        self.silences.is_empty() && self.refused.is_empty()
    }

    fn note<T>(&mut self, limit: Duration, what: &'static str, coming: &Coming<T>) -> Option<T> {
        match coming.0.recv_timeout(limit) {
            Ok(Ok(value)) => {
                self.came += 1;
                Some(value)
            }
            Ok(Err(error)) => {
                self.refused.push((what, error.kind()));
                None
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                self.silences.push(Silence { what, waited: limit });
                None
            }
        }
    }
}

/// An answer that another thread waits for: one that never comes costs that thread, not the probe.
struct Coming<T>(Receiver<Result<T, Error>>);

fn ask<T: Send + 'static>(f: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Coming<T> {
    let (answer, coming) = mpsc::channel();
    thread::spawn(move || answer.send(f()).is_ok());
    Coming(coming)
}

/// Waits for an event in the probes' group, as a stream or as an iterator.
fn await_event(
    mut watcher: Watcher,
    streams: bool,
    wanted: impl Fn(Kind, Option<&str>) -> bool + Send + 'static,
) -> Coming<()> {
    ask(move || {
        loop {
            let next = if streams {
                block_on(poll_fn(|cx| Pin::new(&mut watcher).poll_next(cx)))
            } else {
                watcher.recv()
            };
            match next {
                Some(Ok(event)) if wanted(event.kind(), event.key()) => return Ok(()),
                Some(Ok(_)) => {}
                // Falling behind is not the end of a watch.
                Some(Err(error)) if error.kind() == ErrorKind::Lagged => {}
                Some(Err(error)) => return Err(error),
                // Ended: what was wanted never comes.
                None => loop {
                    thread::park();
                },
            }
        }
    })
}

fn watch(store: &Store, after: Option<Revision>) -> Result<Watcher, Error> {
    let options = WatchOptions::new().buffer(4);
    let options = after.into_iter().fold(options, WatchOptions::after);
    store.watch_with(Filter::group(GROUP), options)
}

/// How a probe is made.
#[derive(Debug, Clone, Copy)]
pub struct Probe<'l> {
    /// Tells its entries from those of other probes.
    pub label: &'l str,
    /// Each thing must come within this time.
    pub limit: Duration,
    /// How long the other handle on the file waits for writers.
    pub patience: Duration,
}

/// Asks for one of everything.
///
/// # Errors
///
/// When a watch is refused.
pub fn probe(store: &Store, Probe { label, limit, patience }: Probe<'_>) -> Result<Report, Error> {
    let mut report = Report::default();
    let key = |what: &str| format!("{label}-{what}");

    let (reading, seen) = (store.clone(), store.to_async());
    report.note(limit, "a read", &ask(move || reading.get(GROUP, "none")));
    report.note(limit, "an asynchronous read", &ask(move || block_on(seen.get(GROUP, "none"))));

    let begin = store.last_revision()?;
    let writes: [(&'static str, &'static str, Option<&'static str>); 3] = [
        ("a write", "its event", Some("its callback")),
        ("an asynchronous write", "its event, as a stream", None),
        ("another handle's write", "its event, of another handle", None),
    ];
    for (at, (what, told, called_back)) in writes.into_iter().enumerate() {
        let own = key(what);
        let (streams, wanted) = (at == 1, own.clone());
        let event = await_event(watch(store, None)?, streams, move |_, key| key == Some(&wanted));
        let (called, call) = mpsc::channel();
        let wanted = own.clone();
        let subscription = store.on_change(move |event| {
            if event.key() == Some(&wanted) {
                // Nobody listens any more once the probe is over.
                let _ = called.send(Ok(()));
            }
        });
        let store = store.clone();
        let write = ask(move || match at {
            0 => store.set(GROUP, &own, "v"),
            1 => block_on(store.to_async().set(GROUP, &own, "v")),
            _ => match store.path() {
                Some(path) => Options::new().busy_timeout(patience).open(path)?.set(GROUP, &own, "v"),
                None => store.set(GROUP, &own, "v"),
            },
        });
        if report.note(limit, what, &write).is_some() {
            report.note(limit, told, &event);
            called_back.and_then(|called_back| report.note(limit, called_back, &Coming(call)));
        }
        subscription.unregister();
    }

    let (own, wanted) = (key("due"), key("due"));
    let due = await_event(watch(store, None)?, false, move |kind, key| {
        kind == Kind::Expire && key == Some(&wanted)
    });
    let writing = store.clone();
    let write = ask(move || writing.set_with(GROUP, &own, "v", SetOptions::new().ttl(TTL)));
    if report.note(limit, "a write with a deadline", &write).is_some() {
        report.note(limit, "its expiry", &due);
        let late = await_event(watch(store, Some(begin))?, true, |_, _| true);
        report.note(limit, "the log, as a stream", &late);
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(200);

    #[test]
    fn a_store_that_stands_still_is_found() -> Result<(), crate::surface::Fault> {
        let folder = tempfile::tempdir()?;
        let store = Store::open(folder.path().join("app.db"))?;
        let (go, gone) = mpsc::channel::<()>();
        let stuck = std::sync::Mutex::new(gone);
        let stands = store.on_change(move |_| drop(stuck.lock().map(|gone| gone.recv())));
        let report = probe(&store, Probe { label: "a", limit: SOON, patience: SOON })?;
        let silent: Vec<_> = report.silences.iter().map(|silence| silence.what).collect();
        assert_eq!(
            silent,
            ["a write", "an asynchronous write", "its event, of another handle", "a write with a deadline"]
        );
        drop(go);
        stands.unregister();
        Ok(())
    }
}
