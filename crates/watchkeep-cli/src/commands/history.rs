//! `history`: past events, and how events look to people, here and in `watch`.

use watchkeep::{Clock, Event, Item, Kind, Lagged, Revision, Store, SystemClock};

use super::{Access, open};
use crate::args::{Global, History};
use crate::exit::Result;
use crate::output::{self, Out, style};
use crate::time::Wall;

pub(super) fn history(global: &Global, args: &History, out: &mut Out) -> Result<()> {
    let store = announced(global)?;
    // From the beginning means from where the log begins.
    let after = args.after.map_or(Ok(Revision::ZERO), |position| position.revision(&store))?;
    let mut printer = Printer::new(&store, When::Dates);
    let mut left = args.limit.unwrap_or(u64::MAX);
    for event in store.history(args.selection.filter()?, after) {
        if left == 0 {
            break;
        }
        let item = match event {
            Ok(event) => {
                left -= 1;
                Item::Event(event)
            }
            Err(error) => match error.lagged() {
                Some(lagged) => Item::Lagged(lagged),
                None => return Err(error.into()),
            },
        };
        printer.item(&item, out)?;
    }
    Ok(())
}

/// The store, after what came due while nobody had it open: whoever closes a store announces that.
fn announced(global: &Global) -> Result<Store> {
    let store = open(global, Access::Read)?;
    // A file that cannot say has a history all the same.
    let next = store.stats().ok().and_then(|stats| stats.next_deadline);
    if next.is_none_or(|deadline| deadline > SystemClock.now()) {
        return Ok(store);
    }
    store.close()?;
    open(global, Access::Read)
}

/// Whether the day is worth a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Dates,
    Times,
}

/// Prints events and marks, a line each.
pub(super) struct Printer<'a> {
    store: &'a Store,
    wall: Wall,
    when: When,
}

impl<'a> Printer<'a> {
    pub(super) fn new(store: &'a Store, when: When) -> Printer<'a> {
        Printer { store, wall: Wall::here(), when }
    }

    pub(super) fn item(&mut self, item: &Item, out: &mut Out) -> Result<()> {
        if out.is_json() {
            return out.object(&watchkeep::json::item(item, self.store));
        }
        match item {
            Item::Event(event) => self.event(event, out),
            Item::Ready(revision) => {
                mark("ready", *revision, "that is what was there; now come the changes", out)
            }
            Item::Progress(revision) => mark("progress", *revision, "nothing more up to here", out),
            Item::Lagged(lagged) => lost(lagged, out),
            _ => Ok(()),
        }
    }

    fn event(&self, event: &Event, out: &mut Out) -> Result<()> {
        let time = match self.when {
            When::Dates => self.wall.date_and_clock(event.timestamp()),
            When::Times => self.wall.clock(event.timestamp()),
        };
        let (revision, kind) = (event.revision(), event.kind());
        let mut line = format!(
            "{revision:>7}  {}  {:<12}  {}",
            out.paint(style::DIM, time),
            out.paint(of_kind(kind), kind.as_str()),
            what(event, out)
        );
        if let Some(deadline) = event.deadline().filter(|_| matches!(event.kind(), Kind::Set | Kind::Touch)) {
            let deadline = self.wall.date_and_clock(deadline);
            line += &out.paint(style::DIM, format!(" (until {deadline})")).to_string();
        }
        if let Some(previous) = event.previous_value() {
            line += &out.paint(style::DIM, format!(" (was {})", out.value(previous))).to_string();
        }
        if let Some(origin) = event.origin() {
            line += &out.paint(style::DIM, format!(" [{}]", output::visible(origin))).to_string();
        }
        out.line(line)
    }
}

/// The entry that an event is about, and its value.
fn what(event: &Event, out: &Out) -> String {
    let mut text = output::name(event.group());
    if let Some(key) = event.key() {
        text = format!("{text} {}", out.paint(style::BOLD, output::name(key)));
    }
    match event.value() {
        Some(value) if event.kind() == Kind::Set => format!("{text} = {}", out.value(value)),
        Some(value) => {
            format!("{text} {}", out.paint(style::DIM, format_args!("(was {})", out.value(value))))
        }
        None => text,
    }
}

/// The colour of a kind of event.
pub(super) fn of_kind(kind: Kind) -> anstyle::Style {
    match kind {
        Kind::Set => style::GOOD,
        Kind::Delete | Kind::DeleteGroup => style::BAD,
        Kind::Expire => style::WARN,
        _ => style::NOTE,
    }
}

fn mark(name: &str, revision: Revision, meaning: &str, out: &mut Out) -> Result<()> {
    out.line(format_args!("{revision:>7}  {}", out.paint(style::NOTE, format_args!("{name}: {meaning}"))))
}

/// Events that nobody can have any more: said in place, and beside an output that is not looked at.
fn lost(lagged: &Lagged, out: &mut Out) -> Result<()> {
    let text = what_is_lost(lagged);
    if !out.is_terminal() {
        output::warn(&text);
    }
    out.line(format_args!("{:>7}  {}", lagged.to, out.paint(style::WARN, text)))
}

pub(super) fn what_is_lost(Lagged { from, to }: &Lagged) -> String {
    format!("lagged: revisions {from} to {to} were trimmed from the log before they were read")
}
