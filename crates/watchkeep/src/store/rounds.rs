//! What is done for an open store in the background, a round at a time, on whatever thread the driver has for it. One
//! lane gives signs of life for held consumers, and removes what is due; the other looks at what other processes wrote,
//! runs callbacks, commits asynchronous writes, and looks after the file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::driver::{Lane, Rounds, Signal, Woken};
use crate::engine::{Chores, File, Receipt, Settled};
use crate::rules::{Author, Work, Write};
use crate::types::clock::Timestamp;
use crate::types::error::{ErrorKind, Reason, Result};
use crate::types::limits::{BLIND, DEAF, DEAF_UNWATCHED, POLL, POLL_QUIET, POLL_UNSIGNALLED};
use crate::types::name::NameRange;
use crate::types::sync::atomic::{AtomicBool, Ordering};
use crate::types::sync::{Mutex, caught, lock};

use super::core::Core;

/// What a store's rounds remember from one to the next.
pub(super) struct Background {
    /// By how much of the longest pause this store is looked at.
    pace: f64,
    /// A round panicked: all that is left to do is to tell those who wait.
    is_dead: AtomicBool,
    listening: Mutex<Listening>,
    reaping: Arc<Reaping>,
    look: Fault,
    expiry: Fault,
    upkeep: Fault,
}

impl Default for Background {
    fn default() -> Background {
        Background {
            pace: 0.75 + fastrand::f64() / 4.0,
            is_dead: AtomicBool::default(),
            listening: Mutex::default(),
            reaping: Arc::default(),
            look: Fault::default(),
            expiry: Fault::default(),
            upkeep: Fault::default(),
        }
    }
}

/// What of the signals of other processes is of use.
#[derive(Default)]
struct Listening {
    /// Nothing is listened to until then: the last look after a signal brought no news.
    deaf_until: Option<Instant>,
    /// Something was heard, and not looked at yet.
    has_heard: bool,
}

/// A step of expiry.
#[derive(Default)]
struct Reaping {
    is_under_way: AtomicBool,
    /// What came of the last one.
    done: Mutex<Option<Result<()>>>,
    /// When it was found that the store is sealed: it is tried again after a while.
    sealed: Mutex<Option<Instant>>,
    /// The earliest deadline, as of the last time that the file was asked.
    next: Mutex<Option<Timestamp>>,
}

/// Since when one kind of work fails. It is reported once, and stops no other.
#[derive(Default)]
struct Fault(Mutex<Option<Instant>>);

impl Fault {
    /// What came of the work, if it did not fail; the first of several failures in a row is reported.
    fn note<T>(&self, core: &Core, work: &'static str, result: Result<T>) -> Option<T> {
        let mut since = lock(&self.0);
        let is_first = since.is_none();
        *since = if result.is_ok() { None } else { since.or_else(|| Some(Instant::now())) };
        drop(since);
        let report = |error: &_| {
            if is_first && !core.is_closed() {
                tracing::warn!(%error, work, "a part of the store's work in the background could not be done; it is tried again");
            }
        };
        result.inspect_err(report).ok()
    }

    fn lasts(&self) -> Duration {
        lock(&self.0).map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Rounds for Core {
    fn round(&self, lane: Lane, woken: Woken) -> Option<Duration> {
        if !self.background.is_dead.load(Ordering::Acquire) {
            let done = caught(|| match lane {
                Lane::Vital => vital(self, woken),
                Lane::Work => work(self, woken),
            });
            if let Some(pause) = done {
                return pause;
            }
            // A clock or a subscriber of the user's panicked, or we did. Nobody may wait for this store in silence.
            let error = Reason::ThreadDied.into();
            caught(|| tracing::error!(%error, "the store's work in the background panicked"));
            caught(|| self.poison(&error));
            self.background.is_dead.store(true, Ordering::Release);
            self.signal.raise(Lane::Work);
        }
        match lane {
            Lane::Vital => None,
            Lane::Work => caught(|| answer(self)).unwrap_or(Some(POLL)),
        }
    }
}

/// Closes the store when that is wanted; whether it did.
fn close_if_wanted(core: &Core) -> bool {
    if !core.close_wanted.load(Ordering::Acquire) {
        return false;
    }
    core.close_here();
    true
}

/// What is left to do once the store is poisoned: tell those who wait.
fn answer(core: &Core) -> Option<Duration> {
    settle(core);
    if close_if_wanted(core) { None } else { Some(POLL) }
}

/// Commits some of what was submitted, and completes it, with what the other lane left to this one. When to try again.
fn settle(core: &Core) -> Option<Duration> {
    let mut settled = Settled { own: Vec::new(), users: core.take_left_over() };
    let again = core.engine.settle(&mut settled);
    core.complete(None, settled);
    again
}

/// How long a look may be put off while nothing calls for it. Spread: a thousand stores do not look in step.
fn net(core: &Core, hears: bool) -> Duration {
    let net = match core.hub.is_watched() || !core.leases.is_empty() {
        false => POLL_QUIET,
        true if hears => POLL,
        true => POLL_UNSIGNALLED,
    };
    // Always the same for a store: who is looked at for another reason does not move the timer forward.
    net.mul_f64(core.background.pace)
}

/// Whether the store may be used, as far as its files tell; if not, watchers are told.
fn stands(core: &Core) -> bool {
    let Err(error) = core.engine.usable() else { return true };
    core.hub.fail(&error);
    false
}

/// The lane on which others rely in time. It waits for nobody, and runs no callbacks.
fn vital(core: &Core, woken: Woken) -> Option<Duration> {
    if core.is_closed() {
        return None;
    }
    let lease = core.leases.keep(core);
    let file_says = woken.is(Woken::RAISED);
    let due = core.background.expiry.note(core, "expiry", expire(core, file_says)).unwrap_or(Some(POLL));
    let mut settled = Settled::default();
    let again = if core.engine.has_vital() { core.engine.settle(&mut settled) } else { None };
    core.leave_over(settled);
    let reaping = &core.background.reaping;
    let reaped = lock(&reaping.done).take();
    if let Some(reaped) = reaped {
        core.background.expiry.note(core, "expiry", reaped);
    }
    let pause = [lease, due, again].into_iter().flatten().min()?;
    // Nobody tells when the clock is set, or that the machine slept.
    Some(pause.min(if core.engine.file().is_some() { net(core, true) } else { POLL_QUIET }))
}

/// Has what is due removed, a step at a time; how long until something is due. The file is asked only where that may
/// have changed.
fn expire(core: &Core, ask: bool) -> Result<Option<Duration>> {
    let reaping = &core.background.reaping;
    let known = *lock(&reaping.next);
    let now = core.clock.now();
    if !ask {
        match known {
            None => return Ok(None),
            Some(next) if next > now => return Ok(Some(next.since(now))),
            Some(_) => {}
        }
    }
    let next = core.engine.chores().map_or(Ok(None), Chores::next_deadline)?;
    *lock(&reaping.next) = next;
    let Some(next) = next else { return Ok(None) };
    let now = core.clock.now();
    if next > now {
        return Ok(Some(next.since(now)));
    }
    let rest = lock(&reaping.sealed).map(|since| POLL_QUIET.saturating_sub(since.elapsed()));
    // Whoever lifts the seal raises the signal.
    if let Some(rest) = rest.filter(|rest| !rest.is_zero() && !ask) {
        return Ok(Some(rest));
    }
    let wait = core.engine.chores().map_or(Duration::ZERO, |chores| chores.leave_due(next));
    if !wait.is_zero() {
        return Ok(Some(wait));
    }
    if !reaping.is_under_way.swap(true, Ordering::AcqRel) {
        submit_reaping(core, reaping.clone());
    }
    // When it is done this lane is woken, for there may be more.
    Ok(Some(POLL))
}

fn submit_reaping(core: &Core, reaping: Arc<Reaping>) {
    let everything = Work::Reap { groups: NameRange::prefix("") };
    let signal: Arc<Signal> = core.signal.clone();
    let done = move |result: Result<Receipt>| {
        let is_done = result.is_ok();
        let is_sealed = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Sealed);
        *lock(&reaping.sealed) = is_sealed.then(Instant::now);
        // Nothing is wrong with a store that is sealed.
        *lock(&reaping.done) = Some(if is_sealed { Ok(()) } else { result.map(drop) });
        reaping.is_under_way.store(false, Ordering::Release);
        if is_done {
            signal.raise(Lane::Vital);
        }
    };
    core.engine.submit(Write { author: Author::default(), work: everything }, Box::new(done));
}

/// Everything else.
fn work(core: &Core, woken: Woken) -> Option<Duration> {
    if close_if_wanted(core) {
        return None;
    }
    let again = settle(core);
    if core.is_closed() {
        return Some(POLL);
    }
    if !stands(core) {
        return Some(POLL);
    }
    let mut listening = lock(&core.background.listening);
    listening.has_heard |= woken.is(Woken::HEARD);
    let deaf = listening.deaf_until.map(|until| until.saturating_duration_since(Instant::now()));
    if let Some(deaf) = deaf.filter(|deaf| !deaf.is_zero())
        && !woken.is(Woken::RAISED)
    {
        return Some(again.map_or(deaf, |again| again.min(deaf)));
    }
    let has_heard = std::mem::take(&mut listening.has_heard);
    listening.deaf_until = None;
    drop(listening);

    let file = core.engine.file();
    let hears = file.is_none_or(File::hears_others);
    let is_untouched = file.is_none_or(File::is_untouched);
    if has_heard || woken.is(Woken::RAISED) || !is_untouched {
        let deaf = look(core, !has_heard && !woken.is(Woken::RAISED));
        if has_heard && !deaf.is_zero() {
            lock(&core.background.listening).deaf_until = Some(Instant::now() + deaf);
        }
    }
    let more = core
        .background
        .upkeep
        .note(core, "upkeep", core.engine.chores().map_or(Ok(false), Chores::maintain))
        .unwrap_or(false);
    let progress = core.hub.progress();
    let net = if file.is_some() { net(core, hears) } else { POLL_QUIET };
    let more = more.then_some(Duration::ZERO);
    [again, progress, more].into_iter().flatten().chain([net]).min()
}

/// What others wrote may have brought a deadline that is earlier than those that are known.
fn note_deadline(core: &Core) {
    let next = core.engine.chores().map_or(Ok(None), Chores::next_deadline);
    let known = *lock(&core.background.reaping.next);
    // What goes wrong, the other lane tells.
    if next.is_err() || next.is_ok_and(|next| next.is_some() && known.is_none_or(|known| next < Some(known)))
    {
        core.signal.raise(Lane::Vital);
    }
}

/// Looks at what others wrote, and hands it on; for how long a signal is of no use after this. `unsignalled`: nothing
/// told of it.
fn look(core: &Core, unsignalled: bool) -> Duration {
    let fault = &core.background.look;
    let told = core.hub.last();
    let looked = core.engine.heard();
    if let Err(error) = &looked
        && matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Io)
        && fault.lasts() >= BLIND
    {
        // Whoever waits would wait in silence.
        core.hub.fail(error);
    }
    let last = fault.note(core, "looking for what others wrote", looked);
    if let Some(last) = last.filter(|last| *last < told) {
        let what = format!("it went back from revision {told}, which was told, to {last}");
        core.poison(&Reason::Corrupt { what }.into());
    }
    let has_news = last.is_some_and(|last| core.hub.last() < last);
    last.into_iter().for_each(|last| core.hub.deliver(last));
    // After the watchers, who wait for it, and before callbacks, which may take their time.
    if has_news || unsignalled {
        note_deadline(core);
    }
    last.into_iter().for_each(|last| core.hub.run_callbacks(last));
    match (core.hub.is_watched(), has_news) {
        (false, _) => DEAF_UNWATCHED,
        (true, false) => DEAF,
        (true, true) => Duration::ZERO,
    }
}
