//! What ends a long command from outside: SIGHUP, SIGINT, SIGTERM, and a reader of the output that goes away.

use std::mem::replace;
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use super::threads;
use crate::exit::{FAILURE, Failure, Result};

/// How long what was asked to end may take for it.
pub(super) const A_MOMENT: Duration = Duration::from_secs(1);

/// Whether the end was asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked(Arc<(Mutex<bool>, Condvar)>);

impl Asked {
    /// Whether the end was asked for, or is within this time: a signal reaches a command that we run and us at the
    /// same moment, but not in a certain order.
    pub(super) fn to_end_within(&self, time: Duration) -> bool {
        let (asked, changed) = &*self.0;
        let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(asked, time, |asked| !*asked);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Asks; whether it was asked before.
    fn ask(&self) -> bool {
        let before = replace(&mut *self.0.0.lock().unwrap_or_else(PoisonError::into_inner), true);
        self.0.1.notify_all();
        before
    }
}

/// Calls `stop` when the end is asked for. A second signal ends the process at once, but for SIGHUP: a terminal that goes
/// away may send several.
pub(super) fn on_end(stop: impl Fn() + Clone + Send + 'static) -> Result<Asked> {
    let refused = |error: std::io::Error| Failure::new(FAILURE, format!("signals cannot be caught: {error}"));
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(refused)?;
    if !ignores_hangup() {
        signals.handle().add_signal(SIGHUP).map_err(refused)?;
    }
    let asked = Asked::default();
    on_closed_output({
        let (asked, stop) = (asked.clone(), stop.clone());
        move || {
            asked.ask();
            stop();
        }
    })?;
    let mine = asked.clone();
    threads::start(move || {
        for signal in signals.forever() {
            if mine.ask() && signal != SIGHUP {
                let _ = low_level::emulate_default_handler(signal);
            }
            stop();
        }
    })?;
    Ok(asked)
}

/// Whether we are to outlive the terminal, as `nohup` says by ignoring its signal. Where this cannot be known, it is left
/// as it is.
fn ignores_hangup() -> bool {
    let ignored = |status: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    };
    let mask = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| ignored(&status));
    mask.is_none_or(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}

/// Ends the process a moment after the end was asked for, or after a deadline, although it is writing to somebody who
/// does not read.
pub(super) fn give_up_on_output(asked: &Asked, until: Option<Instant>) -> Result<()> {
    let asked = asked.clone();
    threads::start(move || {
        let far = Duration::from_secs(365 * 24 * 3600);
        let left = || until.map_or(far, |until| until.saturating_duration_since(Instant::now()));
        while !asked.to_end_within(left()) && !left().is_zero() {}
        // Whoever can end by itself has ended by then.
        let (_never, pause) = mpsc::channel::<()>();
        let _ = pause.recv_timeout(A_MOMENT);
        std::process::exit(0);
    })?;
    Ok(())
}

/// Notices that nobody reads the output any more, also while there is nothing to write to it.
#[cfg(unix)]
fn on_closed_output(stop: impl FnOnce() + Send + 'static) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};

    threads::start(move || {
        let stdout = std::io::stdout();
        // No events are asked for: what is left are errors and the other end's going away.
        let mut output = [PollFd::new(&stdout, PollFlags::empty())];
        loop {
            match poll(&mut output, None) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) if output.iter().any(|it| it.revents().intersects(PollFlags::ERR | PollFlags::HUP)) => {
                    return stop();
                }
                // Where this cannot be asked, the next write finds out.
                _ => return,
            }
        }
    })?;
    Ok(())
}

#[cfg(not(unix))]
fn on_closed_output(_: impl FnOnce() + Send + 'static) -> Result<()> {
    Ok(())
}
