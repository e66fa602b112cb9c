//! The store's own thread: expiry, what other processes wrote, asynchronous writes, signs of life of those who hold
//! consumers, upkeep of the file.

use std::time::{Duration, Instant};

use crate::engine::signal::Woken;
use crate::engine::{Chores, File};
use crate::rules::{Author, Work, Write};
use crate::types::error::{ErrorKind, Reason, Result};
use crate::types::limits::{BLIND, DEAF, DEAF_UNWATCHED, POLL, POLL_UNSIGNALLED};
use crate::types::name::NameRange;
use crate::types::sync::atomic::Ordering;
use crate::types::sync::caught;

use super::core::Core;

/// Runs until the store closes.
pub(super) fn run(core: &Core) {
    if caught(|| work(core)).is_some() {
        return;
    }
    // A clock or a subscriber of the user's panicked, or we did. Nobody may wait for this thread in silence.
    let error = Reason::ThreadDied.into();
    caught(|| tracing::error!(%error, "the store's thread panicked"));
    caught(|| core.poison(&error));
    while caught(|| answer(core)) != Some(Next::End) {
        core.signal.wait(POLL, true);
    }
}

/// Whether the thread goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Round,
    End,
}

/// Closes the store when that is wanted, and says whether to go on.
fn next(core: &Core) -> Next {
    if core.ending.load(Ordering::Acquire) {
        return Next::End;
    }
    if !core.close_wanted.load(Ordering::Acquire) {
        return Next::Round;
    }
    core.close_here();
    Next::End
}

/// What is left to do once the store is poisoned: tell those who wait.
fn answer(core: &Core) -> Next {
    core.settle();
    next(core)
}

fn work(core: &Core) {
    let (mut woken, mut faults) = (Woken::Timeout, Faults::default());
    while next(core) == Next::Round {
        let round = round(core, &mut faults);
        let (pause, deaf) = (round.pause, if woken == Woken::Heard { round.deaf } else { Duration::ZERO });
        if !deaf.is_zero() {
            woken = core.signal.wait(pause.min(deaf), false);
            if woken != Woken::Timeout || pause <= deaf {
                continue;
            }
        }
        woken = core.signal.wait(pause.saturating_sub(deaf), true);
    }
}

/// What goes wrong on this thread. One kind of work that fails is reported once, and stops no other.
#[derive(Default)]
struct Faults {
    look: Fault,
    expiry: Fault,
    upkeep: Fault,
}

/// Since when one kind of work fails.
#[derive(Default)]
struct Fault(Option<Instant>);

impl Fault {
    /// What came of the work, if it did not fail; the first of several failures in a row is reported.
    fn note<T>(&mut self, core: &Core, work: &'static str, result: Result<T>) -> Option<T> {
        let result = result.inspect_err(|error| {
            if self.0.is_none() && !core.is_closed() {
                tracing::warn!(%error, work, "the store's thread could not do a part of its work; it tries again");
            }
        });
        self.0 = if result.is_ok() { None } else { self.0.or_else(|| Some(Instant::now())) };
        result.ok()
    }

    fn lasts(&self) -> Duration {
        self.0.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// What a round found.
struct Round {
    /// How long there is nothing to do now.
    pause: Duration,
    /// For how long what another process signals is of no use, if that is what the round was for.
    deaf: Duration,
}

/// Does what is to be done now.
fn round(core: &Core, faults: &mut Faults) -> Round {
    const REST: Round = Round { pause: POLL, deaf: DEAF };
    // Before anything that may take its time, callbacks above all.
    let lease = core.leases.keep(core);
    core.settle();
    if core.is_closed() {
        return REST;
    }
    let file = core.engine.file();
    if let Some(Err(error)) = file.map(File::stand) {
        core.hub.fail(&error);
        return REST;
    }
    let poll = if file.is_none_or(File::hears_others) { POLL } else { POLL_UNSIGNALLED };
    let told = core.hub.last();
    let looked = core.hub.newest();
    if let Err(error) = &looked
        && matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Io)
        && faults.look.lasts() >= BLIND
    {
        // Whoever waits would wait in silence.
        core.hub.fail(error);
    }
    let last = faults.look.note(core, "looking for what others wrote", looked);
    if let Some(last) = last.filter(|last| *last < told) {
        let what = format!("it went back from revision {told}, which was told, to {last}");
        core.poison(&Reason::Corrupt { what }.into());
    }
    let deaf = match (core.hub.is_watched(), last.is_some_and(|last| core.hub.last() < last)) {
        (false, _) => DEAF_UNWATCHED,
        (true, false) => DEAF,
        (true, true) => Duration::ZERO,
    };
    core.announce(last);
    let due = faults.expiry.note(core, "expiry", expire(core)).flatten();
    let more = faults.upkeep.note(core, "upkeep", maintain(core)).unwrap_or(false);
    let progress = core.hub.progress();
    let pause = [due, progress, lease].into_iter().flatten().fold(poll, Duration::min);
    Round { pause: if more { Duration::ZERO } else { pause }, deaf }
}

/// One small step of what is to be done now and then; whether there is more.
fn maintain(core: &Core) -> Result<bool> {
    core.engine.chores().map_or(Ok(false), Chores::maintain)
}

/// Removes what is due, a step at a time; how long until something is due again.
fn expire(core: &Core) -> Result<Option<Duration>> {
    let next = core.engine.chores().map_or(Ok(None), Chores::next_deadline)?;
    let Some(next) = next else { return Ok(None) };
    let now = core.clock.now();
    if next > now {
        return Ok(Some(next.since(now)));
    }
    let everything = Work::Reap { groups: NameRange::prefix("") };
    core.write(Write { author: Author::default(), work: everything })?;
    // There may be more: look again at once.
    Ok(Some(Duration::ZERO))
}
