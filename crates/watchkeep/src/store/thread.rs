//! The store's own thread: expiry, what other processes wrote, asynchronous writes, upkeep of the file.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::engine::{Author, Op, Write};
use crate::types::error::Result;
use crate::types::limits::POLL;
use crate::types::name::NameRange;
use crate::types::revision::Revision;

use super::core::Core;

/// Runs until the store closes.
pub(super) fn run(core: &Core) {
    while !core.ending.load(Ordering::Acquire) {
        if core.close_wanted.load(Ordering::Acquire) {
            if let Err(error) = core.close_here() {
                tracing::warn!(%error, "the store could not be closed");
            }
            return;
        }
        let pause = round(core).unwrap_or_else(|error| {
            if !core.is_closed() {
                tracing::warn!(%error, "the store's thread could not do its round; it tries again");
            }
            POLL
        });
        core.signal.wait(pause);
    }
}

/// Does what is to be done now; how long there is nothing to do after it.
fn round(core: &Core) -> Result<Duration> {
    core.settle();
    if core.is_closed() {
        return Ok(POLL);
    }
    if let Err(error) = core.engine.stand() {
        core.hub.fail(&error);
        return Ok(POLL);
    }
    let mut last = Revision::ZERO;
    core.engine.glance(&mut |read| {
        last = read.last()?;
        Ok(())
    })?;
    core.announce(Some(last));
    let due = expire(core)?;
    let more = core.engine.maintain()?;
    let progress = core.hub.progress();
    if more {
        return Ok(Duration::ZERO);
    }
    Ok([due, progress].into_iter().flatten().fold(POLL, Duration::min))
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
