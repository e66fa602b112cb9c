//! What the demo with several processes looks like, in 80 columns.

use std::fmt::Display;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use watchkeep::{Revision, Waking};

use super::super::proof::Comparison;
use crate::exit::Result;
use crate::output::{Out, grouped, style};

/// What came of it.
pub(super) struct Report {
    /// How many keys were written while the reader was dead.
    pub(super) written: u64,
    /// How many of them the log holds, and what the reader got of them.
    pub(super) logged: usize,
    pub(super) while_dead: Comparison,
    /// The same of the whole run, over both lives of the reader.
    pub(super) log: usize,
    pub(super) all: Comparison,
    /// The first and last revision that it got of what it had missed.
    pub(super) first: Revision,
    pub(super) last: Revision,
    pub(super) writing: Duration,
    /// From the start of the process to the last event that it had missed.
    pub(super) catching_up: Duration,
    /// From the return of a commit in one process to its event in the other, sorted.
    pub(super) live: Vec<Duration>,
    pub(super) waking: Waking,
    pub(super) took: Duration,
}

impl Report {
    pub(super) fn holds(&self) -> bool {
        self.logged as u64 == self.written
            && self.while_dead.holds()
            && self.while_dead.seen == self.logged
            && self.all.holds()
            && self.all.seen == self.log
    }

    fn permille(&self, permille: usize) -> Duration {
        let place = self.live.len() * permille / 1000;
        self.live.get(place.min(self.live.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// Prints it.
pub(super) struct Screen<'a> {
    out: &'a mut Out,
}

impl<'a> Screen<'a> {
    pub(super) fn new(out: &'a mut Out) -> Screen<'a> {
        Screen { out }
    }

    pub(super) fn opening(&mut self, file: &Path) -> Result<()> {
        let title = self.out.paint(style::BOLD, "watchkeep demo --processes");
        self.say(format_args!("\n  {title}   {}\n", file.display()))?;
        self.say("  A process that reads is killed. Another one writes on. Then the reader starts")?;
        self.say("  again, from a cursor in a small file of its own.\n")
    }

    /// Something that happened, and when.
    pub(super) fn scene(&mut self, began: Instant, what: impl Display) -> Result<()> {
        let at = self.out.paint(style::DIM, format!("{:>6.2} s", began.elapsed().as_secs_f64()));
        self.say(format_args!("  {at}  {what}"))
    }

    pub(super) fn report(&mut self, report: &Report) -> Result<()> {
        if self.out.is_json() {
            return self.for_programs(report);
        }
        let head = format!(
            "{:<24}{:>8}{:>10}{:>9}{:>9}{:>14}",
            "", "written", "received", "missing", "doubled", "out of order"
        );
        let head = self.out.paint(style::DIM, head);
        self.say(format_args!("\n  {head}"))?;
        self.compared("while it was dead", report.logged, report.while_dead)?;
        self.compared("in all, in two lives", report.log, report.all)?;
        self.say(format_args!("\n  Missed and received: revisions {} to {}.", report.first, report.last))?;
        let (writing, catching_up) = (report.writing.as_secs_f64(), report.catching_up.as_secs_f64());
        self.say(format_args!(
            "  Written in {writing:.2} s; caught up in {catching_up:.2} s, the start of the process included."
        ))?;
        let micros =
            |permille| grouped(u64::try_from(report.permille(permille).as_micros()).unwrap_or(u64::MAX));
        self.say(format_args!(
            "  Then live: {} events, {} µs (median) and {} µs (99 %) after the commit\n  in the other process (waking: {}).",
            report.live.len(),
            micros(500),
            micros(990),
            report.waking.as_str(),
        ))?;
        self.say(format_args!("  All of it took {:.1} s.\n", report.took.as_secs_f64()))
    }

    fn compared(&mut self, what: &str, written: usize, it: Comparison) -> Result<()> {
        let number = |number: usize| grouped(number as u64);
        let judged = |out: &Out, count: usize, width: usize| {
            let style = if count == 0 { style::GOOD } else { style::BAD };
            out.paint(style, format!("{:>width$}", number(count))).to_string()
        };
        let line = format!(
            "  {what:<24}{:>8}{:>10}{}{}{}",
            number(written),
            number(it.seen),
            judged(self.out, it.missing, 9),
            judged(self.out, it.doubled, 9),
            judged(self.out, it.out_of_order, 14),
        );
        self.say(line)
    }

    fn for_programs(&mut self, report: &Report) -> Result<()> {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let compared = |it: Comparison| {
            json!({
                "received": it.seen, "missing": it.missing, "doubled": it.doubled, "out_of_order": it.out_of_order
            })
        };
        self.out.object(&json!({
            "written_while_dead": report.logged,
            "while_dead": compared(report.while_dead),
            "written": report.log,
            "all": compared(report.all),
            "first_revision": report.first.get(),
            "last_revision": report.last.get(),
            "writing_us": micros(report.writing),
            "catching_up_us": micros(report.catching_up),
            "live_events": report.live.len(),
            "live_p50_us": micros(report.permille(500)),
            "live_p99_us": micros(report.permille(990)),
            "waking": report.waking.as_str(),
        }))
    }

    /// A line for people, at once.
    fn say(&mut self, line: impl Display) -> Result<()> {
        if self.out.is_json() {
            return Ok(());
        }
        self.out.line(line)?;
        self.out.flush()
    }
}
