//! The store's own thread: expiry, what other processes wrote, asynchronous writes, signs of life of those who hold
//! consumers, upkeep of the file.

use std::time::{Duration, Instant};

use crate::engine::signal::Woken;
use crate::engine::{Author, Op, Write};
use crate::types::error::{ErrorKind, Reason, Result};
use crate::types::limits::{BLIND, DEAF, DEAF_UNWATCHED, POLL, POLL_UNSIGNALLED};
use crate::types::name::NameRange;
use crate::types::revision::Revision;
use crate::types::sync::atomic::Ordering;

use super::core::Core;

/// Runs until the store closes.
pub(super) fn run(core: &Core) {
    let (mut woken, mut blind) = (Woken::Timeout, None);
    while !core.ending.load(Ordering::Acquire) {
        if core.close_wanted.load(Ordering::Acquire) {
            if let Err(error) = core.close_here() {
                tracing::warn!(%error, "the store could not be closed");
            }
            return;
        }
        let round = round(core).inspect(|_| blind = None).unwrap_or_else(|error| {
            if !core.is_closed() {
                tracing::warn!(%error, "the store's thread could not do its round; it tries again");
            }
            if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Io) {
                // Whoever waits would wait in silence.
                if blind.get_or_insert_with(Instant::now).elapsed() >= BLIND {
                    core.hub.fail(&error);
                }
            }
            Round { pause: POLL, deaf: DEAF }
        });
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

/// What a round found.
struct Round {
    /// How long there is nothing to do now.
    pause: Duration,
    /// For how long what another process signals is of no use, if that is what the round was for.
    deaf: Duration,
}

/// Does what is to be done now.
fn round(core: &Core) -> Result<Round> {
    // Before anything that may take its time, callbacks above all.
    let lease = core.leases.keep(core);
    core.settle();
    if core.is_closed() {
        return Ok(Round { pause: POLL, deaf: DEAF });
    }
    if let Err(error) = core.engine.stand() {
        core.hub.fail(&error);
        return Ok(Round { pause: POLL, deaf: DEAF });
    }
    let poll = if core.engine.hears_others() { POLL } else { POLL_UNSIGNALLED };
    let (mut last, told) = (Revision::ZERO, core.hub.last());
    core.engine.glance(&mut |read| {
        last = read.last()?;
        Ok(())
    })?;
    if last < told {
        let what = format!("it went back from revision {told}, which was told, to {last}");
        core.hub.fail(&Reason::Corrupt { what }.into());
    }
    let deaf = match (core.hub.is_watched(), core.hub.last() < last) {
        (false, _) => DEAF_UNWATCHED,
        (true, false) => DEAF,
        (true, true) => Duration::ZERO,
    };
    core.announce(Some(last));
    let due = expire(core)?;
    let more = core.engine.maintain()?;
    let progress = core.hub.progress();
    let pause = [due, progress, lease].into_iter().flatten().fold(poll, Duration::min);
    Ok(Round { pause: if more { Duration::ZERO } else { pause }, deaf })
}

/// Removes what is due, a step at a time; how long until something is due again.
fn expire(core: &Core) -> Result<Option<Duration>> {
    let Some(next) = core.engine.next_deadline()? else { return Ok(None) };
    let now = core.clock.now();
    if next > now {
        return Ok(Some(next.since(now)));
    }
    let everything = Op::Reap { groups: NameRange::prefix("") };
    core.write(Write { author: Author::default(), op: everything })?;
    // There may be more: look again at once.
    Ok(Some(Duration::ZERO))
}
