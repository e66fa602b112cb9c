//! `demo`: several threads write, a live watch shows it, a slow reader falls behind and catches up; in the end the
//! change log tells whether either of them missed anything.

mod hub;
mod pace;
#[cfg(unix)]
mod processes;
mod proof;
mod screen;
mod slow;
mod writers;

use std::panic::resume_unwind;
use std::path::Path;
use std::thread;
use std::time::Duration;

use watchkeep::{Filter, Options, Revision, Store, WatchOptions, Watcher};

use self::hub::Hub;
use self::pace::Pace;
use self::proof::Proof;
use self::screen::Screen;
use self::slow::SlowReader;
use self::writers::Written;
use super::{Access, open_with, signals, threads};
use crate::args::{Demo, Global};
use crate::exit::{FAILURE, Failure, Result};
use crate::output::Out;

/// The file that is written unless another is named.
const FILE: &str = "watchkeep-demo.db";
/// How long it lasts unless asked otherwise: to be watched here, or to be opened in a browser.
const SECONDS: u64 = 6;
const SECONDS_SERVED: u64 = 60;
/// How long the main thread waits for an event before it looks whether the writers are done.
const LOOK: Duration = Duration::from_millis(20);

pub(super) fn demo(global: &Global, store_is_named: bool, args: &Demo, out: &mut Out) -> Result<()> {
    if let Some(part) = args.part {
        return processes::play(part, global);
    }
    if args.processes {
        return processes::demo(global, store_is_named, out);
    }
    let path = if store_is_named { global.store.as_path() } else { Path::new(FILE) };
    let (store, start) = open_own(global, path)?;
    let hub = if args.serve { Some(Hub::start(&store)?) } else { None };
    let seconds = args.seconds.unwrap_or(if args.serve { SECONDS_SERVED } else { SECONDS });
    let pace = Pace::new(Duration::from_secs(seconds));
    let to_stop = pace.clone();
    signals::on_end(move || to_stop.stop())?;
    let mut screen = Screen::new(path, out);
    screen.opening(hub.as_ref().map(Hub::url))?;
    let proof = play(&store, start, hub.as_ref(), &pace, &mut screen)?;
    screen.proof(&proof)?;
    if !proof.holds() {
        return Err(Failure::new(FAILURE, "the numbers above must not be; please report them as a bug"));
    }
    screen.farewell()
}

/// Somebody who can be killed is needed, and a clock that processes share.
#[cfg(not(unix))]
mod processes {
    use crate::args::{Global, Part};
    use crate::exit::{FAILURE, Failure, Result};
    use crate::output::Out;

    pub(super) fn demo(_: &Global, _: bool, _: &mut Out) -> Result<()> {
        Err(Failure::new(FAILURE, "the demo with several processes needs Unix; run it without --processes"))
    }

    pub(super) fn play(_: Part, global: &Global) -> Result<()> {
        demo(global, false, &mut Out::stdout(false))
    }
}

/// A store that only the demo has written to, as it must not mix with somebody's data; and where this run begins in it:
/// at a revision of its own, however many run on the same file.
fn open_own(global: &Global, path: &Path) -> Result<(Store, Revision)> {
    let global = Global {
        store: path.to_owned(),
        namespace: global.namespace.clone(),
        origin: None,
        json: global.json,
        network: global.network,
    };
    let store = open_with(&global, Access::Write, Options::new())?;
    if store.last_revision()? > Revision::ZERO && !store.contains("demo", "made-by")? {
        let what = format!("{path:?} holds other data; name a file that is not there yet with --store");
        return Err(Failure::new(FAILURE, what));
    }
    let start = store.set("demo", "made-by", "watchkeep demo")?;
    Ok((store, start))
}

/// Lets everybody write and read until the time is over, and looks at what came of it.
fn play(
    store: &Store,
    start: Revision,
    hub: Option<&Hub>,
    pace: &Pace,
    screen: &mut Screen<'_>,
) -> Result<Proof> {
    let counter = format!("visits-{start}");
    let (mut live, mut slow_watcher) = (watch(store, start)?, watch(store, start)?);
    let slow = SlowReader::new(pace.clone(), start);
    let client = hub.map(|hub| hub.client(pace.clone()));
    let end_readers = |end| {
        slow.read_up_to(end);
        client.iter().for_each(|client| client.read_up_to(end));
    };
    let mut seen = Vec::new();
    let (written, log, mut slow_seen, heard) = thread::scope(|scope| {
        let slow_reader = threads::start_in(scope, || slow.read(&mut slow_watcher))?;
        let client = client.as_ref().map(|client| threads::start_in(scope, || client.read(store, start)));
        let client = client.transpose().inspect_err(|_| end_readers(start))?;
        let writers = threads::start_in(scope, || writers::write(store, pace, &counter))
            .inspect_err(|_| end_readers(start))?;
        let result = (|| {
            show(&mut live, screen, &slow, &mut seen, |_| {
                let settled = || {
                    Ok::<_, Failure>(pace.is_stopped() || pace.is_overdue() || store.count("session")? == 0)
                };
                Ok(writers.is_finished() && settled()?)
            })?;
            let log = logged(store, start)?;
            let end = log.last().copied().unwrap_or(start);
            end_readers(end);
            show(&mut live, screen, &slow, &mut seen, |at| {
                Ok(at.unwrap_or(start) >= end || pace.is_overdue())
            })?;
            Ok::<_, Failure>(log)
        })();
        if result.is_err() {
            // The others have to come to their end too.
            pace.stop();
            end_readers(start);
        }
        let (written, slow_seen) = (joined(writers.join()), joined(slow_reader.join()));
        let heard = client.map(|client| joined(client.join())).transpose();
        Ok::<_, Failure>((written?, result?, slow_seen?, heard?))
    })?;
    let end = log.last().copied().unwrap_or(start);
    seen.retain(|&revision| revision <= end);
    slow_seen.retain(|&revision| revision <= end);
    let Written { acknowledged, increments } = written;
    Ok(Proof {
        live: proof::compare(&log, &seen),
        slow: proof::compare(&log, &slow_seen),
        over_http: heard.map(|mut heard| {
            heard.revisions.retain(|&revision| revision <= end);
            (proof::compare(&log, &heard.revisions), heard.cuts)
        }),
        lost: acknowledged.iter().filter(|revision| log.binary_search(revision).is_err()).count(),
        acknowledged: acknowledged.len(),
        log,
        behind: slow.most_behind(),
        increments,
        visits: writers::visits(store, &counter)?,
    })
}

/// Everything, from the same place on for both watchers.
fn watch(store: &Store, start: Revision) -> Result<Watcher> {
    Ok(store.watch_with(Filter::everything(), WatchOptions::new().after(start))?)
}

/// What the change log holds of it.
fn logged(store: &Store, start: Revision) -> Result<Vec<Revision>> {
    let events = store.history(Filter::everything(), start);
    events.map(|event| Ok(event?.revision())).collect()
}

/// Shows what the live watcher sees until it is enough.
fn show(
    live: &mut Watcher,
    screen: &mut Screen<'_>,
    slow: &SlowReader,
    seen: &mut Vec<Revision>,
    enough: impl Fn(Option<Revision>) -> Result<bool>,
) -> Result<()> {
    while !enough(seen.last().copied())? {
        match live.recv_timeout(LOOK) {
            Some(event) => {
                let event = event?;
                seen.push(event.revision());
                screen.event(&event, slow)?;
            }
            None if live.is_ended() => break,
            None => {}
        }
    }
    Ok(())
}

/// What a thread came to; its panic goes on in this one.
fn joined<T>(thread: thread::Result<T>) -> T {
    thread.unwrap_or_else(|panic| resume_unwind(panic))
}
