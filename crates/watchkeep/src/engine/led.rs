//! What engines share that hand nothing but the turn from writer to writer: how one takes it, and how what waits for it is
//! committed.

use std::time::Duration;

use crate::rules::{Author, Write};
use crate::types::error::{Reason, Result};
use crate::types::limits::POLL;

use super::lead::{Own, OwnDone, Pen};
use super::turn::{Admission, Turn};
use super::{Completion, Receipt, Sealed, Settled, Transact, mixed_up, nesting};

/// What is handed on.
#[derive(Debug)]
pub(super) struct Token;

impl Pen for Token {
    fn roll_back(&self) {}
}

/// Such an engine.
pub(super) trait Led {
    fn turn(&self) -> &Turn<Token>;

    /// For how long a writer waits for its turn.
    fn busy_timeout(&self) -> Duration;

    /// Of which process the engine is.
    fn process(&self) -> u32;

    /// Refuses a forked child.
    fn known(&self) -> Result<()> {
        if self.process() != std::process::id() { Err(Reason::Forked.into()) } else { Ok(()) }
    }

    /// Refuses a forked child, and a thread that has the turn already.
    fn may_write(&self) -> Result<()> {
        self.known()?;
        nesting::refuse_turn(self.turn().address())
    }

    /// Commits the leader's own write and what can be taken along, then passes the turn.
    fn lead(&self, token: Token, own: Own<'_>, settled: &mut Settled) -> Result<OwnDone>;

    fn write_in_turn(&self, write: &Write, settled: &mut Settled) -> Result<Receipt> {
        self.may_write()?;
        match self.turn().enter(|| Some(write.clone()), self.busy_timeout())? {
            Admission::Done(result) => result,
            Admission::Lead(token) => match self.lead(token, Own::Write(write), settled)? {
                OwnDone::Write(receipt) => Ok(receipt),
                OwnDone::Closure(_) | OwnDone::Others => Err(mixed_up()),
            },
        }
    }

    fn transact_in_turn(
        &self,
        author: &Author,
        f: &mut dyn FnMut(&dyn Transact) -> Result<()>,
        settled: &mut Settled,
    ) -> Result<Sealed> {
        self.may_write()?;
        match self.turn().enter(|| None, self.busy_timeout())? {
            Admission::Done(result) => Err(result.err().unwrap_or_else(mixed_up)),
            Admission::Lead(token) => match self.lead(token, Own::Closure { author, f }, settled)? {
                OwnDone::Closure(sealed) => Ok(sealed),
                OwnDone::Write(_) | OwnDone::Others => Err(mixed_up()),
            },
        }
    }

    fn submit_in_turn(&self, write: Write, done: Completion) {
        match self.may_write() {
            Ok(()) => self.turn().submit(write, self.busy_timeout(), done),
            Err(error) => done(Err(error)),
        }
    }

    /// Commits some of what was submitted; when there is more to do, if there is.
    fn settle_in_turn(&self, settled: &mut Settled) -> Option<Duration> {
        let has_led = self.lead_background(settled);
        // Whoever leads raises the signal when it passes the turn; should it take long, some are overdue by then.
        self.turn().has_background().then_some(if has_led { Duration::ZERO } else { POLL })
    }

    /// Commits some of what was submitted; whether there was any.
    fn lead_background(&self, settled: &mut Settled) -> bool {
        let Some((token, _)) = self.turn().lead_for_background(settled) else { return false };
        if let Err(error) = self.lead(token, Own::Others, settled) {
            tracing::warn!(%error, "writes in the background could not be committed");
        }
        true
    }

    /// Refuses new writes, and commits those that wait.
    fn end_writes(&self, settled: &mut Settled) {
        self.turn().refuse(settled);
        loop {
            while self.lead_background(settled) {}
            if self.turn().close().is_some() {
                return;
            }
        }
    }
}
