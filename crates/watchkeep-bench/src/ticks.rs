//! Who uses the machine: the kernel's clock ticks, of all and of this process.

use std::time::Duration;

use crate::Result;

/// The kernel counts in hundredths of a second.
const A_SECOND: f64 = 100.0;

/// Clock ticks since the machine's start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticks {
    /// Of all processors, not idle: processes, kernel, interrupts, and what the host took.
    busy: u64,
    /// Of this process.
    own: u64,
}

impl Ticks {
    pub(crate) fn now() -> Result<Ticks> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        let own = std::fs::read_to_string("/proc/self/stat")?;
        Ticks::parse(&stat, &own).ok_or_else(|| "the ticks in /proc/stat cannot be read".into())
    }

    fn parse(stat: &str, own: &str) -> Option<Ticks> {
        let all: Vec<u64> = stat
            .lines()
            .next()?
            .strip_prefix("cpu ")?
            .split_whitespace()
            .map_while(|ticks| ticks.parse().ok())
            .collect();
        // user, nice, system, idle, iowait, irq, softirq, steal
        let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = *all.as_slice() else {
            return None;
        };
        // The name stands in parentheses and may hold anything; the times are the 12th and 13th field after it.
        let (_, fields) = own.rsplit_once(')')?;
        let mut times = fields.split_whitespace().skip(11).map_while(|ticks| ticks.parse::<u64>().ok());
        let own = times.next()? + times.next()?;
        Some(Ticks { busy: user + nice + system + irq + softirq + steal, own })
    }

    /// What others took since then, in percent of one core. Ticks are coarse: it may be a little below zero.
    pub(crate) fn others_since(&self, earlier: &Ticks, time: Duration) -> f64 {
        let (busy, own) = (self.busy.saturating_sub(earlier.busy), self.own.saturating_sub(earlier.own));
        100.0 * (busy as f64 - own as f64) / A_SECOND / time.as_secs_f64().max(0.001)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_all_but_own() {
        let parse = |busy: u64, own: u64| {
            let stat = format!("cpu  {busy} 0 10 1000 50 0 0 5 0 0\ncpu0 1 2 3\n");
            let own = format!("7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 {own} 3 0 0 20");
            Ticks::parse(&stat, &own)
        };
        let (Some(before), Some(after)) = (parse(100, 20), parse(250, 140)) else { panic!("not parsed") };
        let others = after.others_since(&before, Duration::from_secs(1));
        assert!((others - 30.0).abs() < 1e-9, "{others}");
        assert!(Ticks::parse("cpu 1 2", "").is_none());
    }
}
