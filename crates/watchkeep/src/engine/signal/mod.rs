//! How the store's thread is told that there is something to do: by a thread of this process, or by another process.

#[cfg(any(not(target_os = "linux"), watchkeep_portable))]
mod condvar;
#[cfg(all(target_os = "linux", not(watchkeep_portable)))]
mod eventfd;

#[cfg(any(not(target_os = "linux"), watchkeep_portable))]
pub(crate) use condvar::Signal;
#[cfg(all(target_os = "linux", not(watchkeep_portable)))]
pub(crate) use eventfd::Signal;

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The time was over.
    Timeout,
    /// By this process.
    Raised,
    /// By what is listened to, and maybe by this process too.
    Heard,
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn raised_before_or_during_a_wait_ends_it_once() -> std::io::Result<()> {
        let signal = Signal::new()?;
        assert_eq!(signal.wait(Duration::ZERO, true), Woken::Timeout);
        signal.raise();
        signal.raise();
        assert_eq!(signal.wait(LONG, true), Woken::Raised);
        assert_eq!(signal.wait(Duration::from_millis(1), true), Woken::Timeout);
        std::thread::scope(|scope| {
            let start = Instant::now();
            let waiting = scope.spawn(|| signal.wait(LONG, false));
            signal.raise();
            assert!(matches!(waiting.join(), Ok(Woken::Raised)));
            assert!(start.elapsed() < LONG);
        });
        Ok(())
    }

    #[test]
    fn no_raise_is_lost_between_waits() -> std::io::Result<()> {
        let (signal, rounds) = (Signal::new()?, std::sync::atomic::AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..100_000 {
                    rounds.fetch_add(1, std::sync::atomic::Ordering::Release);
                    signal.raise();
                }
            });
            // Whatever is added is followed by a raise, which ends a wait that begins before it or after it.
            while rounds.load(std::sync::atomic::Ordering::Acquire) < 100_000 {
                assert_eq!(signal.wait(LONG, true), Woken::Raised);
            }
        });
        Ok(())
    }
}
