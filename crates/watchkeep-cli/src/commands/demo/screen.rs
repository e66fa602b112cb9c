//! What the demo looks like, in 80 columns.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde_json::json;
use watchkeep::{Event, Kind};

use super::proof::{Comparison, Proof};
use super::slow::{SlowReader, State};
use crate::commands::history::of_kind;
use crate::exit::Result;
use crate::output::{Out, grouped, shell_word, style};

/// How wide the middle column is, and the longest bar.
const ENTRY: usize = 34;
const BAR: u64 = 10;
/// What a watcher's buffer holds unless asked otherwise.
const BUFFER: u64 = 16;

/// Prints the demo.
pub(super) struct Screen<'a> {
    file: &'a Path,
    out: &'a mut Out,
    state: State,
    /// Whether the event before this one belongs to the same transaction.
    inside: bool,
}

impl<'a> Screen<'a> {
    pub(super) fn new(file: &'a Path, out: &'a mut Out) -> Screen<'a> {
        Screen { file, out, state: State::InStep, inside: false }
    }

    pub(super) fn opening(&mut self, url: Option<&str>) -> Result<()> {
        let file = self.file.display();
        let title = self.out.paint(style::BOLD, "watchkeep demo");
        let entry = format!("{:<ENTRY$}", "entry");
        let head = format!("{:>8}  {:<12}  {entry}  slow reader", "revision", "event");
        let head = self.out.paint(style::DIM, head);
        self.say(format_args!("\n  {title}   {file}\n"))?;
        self.say("  Five threads write. A live watcher prints what it sees; a slow one stops")?;
        self.say("  reading for a while, and has to find in the change log what it missed.\n")?;
        if let Some(url) = url {
            let url = self.out.paint(style::BOLD, url);
            self.say(format_args!("  Open {url} to see it in the browser. A client of"))?;
            self.say("  that stream is cut off again and again, and goes on where it was.\n")?;
        }
        self.say(format_args!("  {head}"))
    }

    /// One event, and where the slow reader is meanwhile.
    pub(super) fn event(&mut self, event: &Event, slow: &SlowReader) -> Result<()> {
        let behind = slow.behind(event.revision());
        self.turn(slow.state(), behind)?;
        let (left, width) = self.entry(event);
        let padding = " ".repeat(ENTRY.saturating_sub(width));
        let bracket = self.bracket(event);
        let revision = self.out.paint(style::DIM, event.revision().get());
        let kind = self.out.paint(of_kind(event.kind()), event.kind().as_str());
        let line = format!(
            "{revision:>8}{bracket} {kind:<12}  {left}{padding}  {}",
            self.gauge(behind, slow.state())
        );
        self.say(line)
    }

    /// The entry that an event is about, and how many columns that takes.
    fn entry(&self, event: &Event) -> (String, usize) {
        let (group, key) = (event.group(), event.key().unwrap_or_default());
        let value = event.value().map(|value| value.to_string_lossy()).unwrap_or_default();
        let more = match event.kind() {
            Kind::Set if event.deadline().is_some() => format!(" = {value} (for 0.9 s)"),
            Kind::Set => format!(" = {value}"),
            Kind::DeleteGroup => "(all its entries)".to_owned(),
            _ => String::new(),
        };
        let origin = event.origin().map(|origin| format!(" by {origin}")).unwrap_or_default();
        let width = [group, " ", key, &more, &origin].iter().map(|text| text.chars().count()).sum();
        let (key, origin) = (self.out.paint(style::BOLD, key), self.out.paint(style::DIM, origin));
        (format!("{group} {key}{more}{origin}"), width)
    }

    /// Holds the events of a transaction together.
    fn bracket(&mut self, event: &Event) -> &'static str {
        let (before, after) = (self.inside, event.revision() < event.commit());
        self.inside = after;
        match (before, after) {
            (false, false) => " ",
            (false, true) => "┌",
            (true, true) => "│",
            (true, false) => "└",
        }
    }

    fn gauge(&self, behind: u64, state: State) -> String {
        // A transaction arrives at once, and is read one event after the other.
        if behind <= if state == State::InStep { 4 } else { 1 } {
            return self.out.paint(style::GOOD, "in step").to_string();
        }
        let cells = usize::try_from(behind.div_ceil(5).min(BAR)).unwrap_or(1);
        let bar = self.out.paint(style::WARN, "█".repeat(cells)).to_string();
        format!("{bar} {behind} behind")
    }

    /// Says when the slow reader stops and goes on.
    fn turn(&mut self, state: State, behind: u64) -> Result<()> {
        if state == self.state {
            return Ok(());
        }
        self.state = state;
        match state {
            State::Stalled => self.remark("the slow reader stops reading"),
            State::CatchingUp if behind > BUFFER => {
                self.remark("it reads on, from the change log: its buffer of 16 has run over")
            }
            State::CatchingUp => self.remark("it reads on, from its buffer"),
            State::InStep => self.remark("it has caught up, and is fed live again"),
        }
    }

    fn remark(&mut self, text: &str) -> Result<()> {
        let remark = self.out.paint(style::NOTE, text).to_string();
        self.say(format_args!("{:>10}  {remark}", "·"))
    }

    pub(super) fn proof(&mut self, proof: &Proof) -> Result<()> {
        if self.out.is_json() {
            return self.proof_for_programs(proof);
        }
        let Proof { log, acknowledged, lost, behind, increments, visits, .. } = proof;
        let head =
            format!("{:<14}{:>8}{:>10}{:>10}{:>15}", "", "events", "missing", "doubled", "out of order");
        let head = self.out.paint(style::DIM, head).to_string();
        self.say(format_args!("\n  {head}"))?;
        self.say(format_args!("  {:<14}{:>8}", "change log", log.len()))?;
        self.compared("live watcher", proof.live)?;
        self.compared("slow watcher", proof.slow)?;
        if let Some((heard, _)) = proof.over_http {
            self.compared("over HTTP", heard)?;
        }
        let lost = self.judged(*lost, 0).to_string();
        let behind = grouped(*behind);
        self.say(format_args!("\n  Of {acknowledged} writes that returned, {lost} are missing in the log."))?;
        self.say(format_args!("  The slow watcher was up to {behind} events behind; its buffer holds 16."))?;
        if let Some((_, cuts)) = proof.over_http {
            self.say(format_args!("  The client over HTTP was cut off {cuts} times."))?;
        }
        self.say(format_args!("  Two threads incremented a counter {increments} times, by {visits} in all."))
    }

    fn compared(&mut self, who: &str, it: Comparison) -> Result<()> {
        let missing = self.judged(it.missing, 10).to_string();
        let doubled = self.judged(it.doubled, 10).to_string();
        let out_of_order = self.judged(it.out_of_order, 15).to_string();
        self.say(format_args!("  {who:<14}{:>8}{missing}{doubled}{out_of_order}", it.seen))
    }

    /// A number that ought to be zero.
    fn judged(&self, number: usize, width: usize) -> impl Display {
        self.out.paint(if number == 0 { style::GOOD } else { style::BAD }, format!("{number:>width$}"))
    }

    fn proof_for_programs(&mut self, proof: &Proof) -> Result<()> {
        let compared = |it: Comparison| {
            json!({
                "events": it.seen, "missing": it.missing, "doubled": it.doubled, "out_of_order": it.out_of_order
            })
        };
        self.out.object(&json!({
            "file": self.file.to_string_lossy(),
            "log_events": proof.log.len(),
            "acknowledged": proof.acknowledged,
            "lost": proof.lost,
            "live": compared(proof.live),
            "slow": compared(proof.slow),
            "over_http": proof.over_http.map(|(heard, _)| compared(heard)),
            "cuts": proof.over_http.map(|(_, cuts)| cuts),
            "most_behind": proof.behind,
            "increments": proof.increments,
            "counted": proof.visits,
        }))
    }

    /// What one can do with the file that stays.
    pub(super) fn farewell(&mut self) -> Result<()> {
        let (program, file) = (program(), shell_word(&self.file.to_string_lossy()));
        self.say("\n  The file stays. Look into it, and watch one terminal from another:\n")?;
        for command in ["history", "watch", "serve", "set config theme blue"] {
            self.say(format_args!("    {program} --store {file} {command}"))?;
        }
        self.say(format_args!("    sqlite3 {file} 'SELECT * FROM wk_log LIMIT 5'\n"))
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

/// How this program is called from here.
fn program() -> String {
    let Some(called) = std::env::args_os().next().map(PathBuf::from) else {
        return "watchkeep".to_owned();
    };
    let here = std::env::current_dir().unwrap_or_default();
    let path = called.strip_prefix(here).unwrap_or(&called);
    shell_word(&path.to_string_lossy())
}
