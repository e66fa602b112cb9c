//! `watch`: changes as they happen.

use std::time::{Duration, Instant};

use watchkeep::{Item, Items, WatchOptions};

use super::exec::Exec;
use super::history::{Printer, When, what_is_lost};
use super::{Access, open, signals};
use crate::args::{Global, Watch};
use crate::exit::{Failure, Result};
use crate::output::{self, Out};
use crate::select::Position;

const A_MOMENT: Duration = Duration::from_millis(250);

pub(super) fn watch(global: &Global, args: &Watch, out: &mut Out) -> Result<()> {
    let until = args.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let store = open(global, Access::Read)?;
    let mut watcher = store.watch_with(args.selection.filter()?, options(args))?;
    let stopper = watcher.stopper();
    let asked = signals::on_end(move || stopper.stop())?;
    if args.exec.is_none() {
        // A command is waited for; a reader of the output that does not read is not.
        signals::give_up_on_output(&asked, until);
    }
    let mut exec = args.exec.as_deref().map(|command| Exec::new(command, global, &store));
    let mut printer = Printer::new(&store, When::Times);
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut items = watcher.items();
    let over = || until.is_some_and(|until| Instant::now() >= until);
    while left > 0 && !over() && !asked.to_end_within(Duration::ZERO) {
        let Some(item) = next(&mut items, until) else { break };
        let item = item?;
        if item.event().is_some() {
            left -= 1;
        }
        match (&mut exec, &item) {
            (Some(exec), Item::Event(event)) => match exec.run(event) {
                // What ends us may have ended the command too, and a moment before us.
                Err(_) if asked.to_end_within(A_MOMENT) => break,
                result => result?,
            },
            (Some(_), Item::Lagged(lagged)) => output::warn(what_is_lost(lagged)),
            (Some(_), _) => {}
            (None, _) => {
                printer.item(&item, out)?;
                out.flush()?;
            }
        }
    }
    match watcher.dropped() {
        0 => {}
        1 => output::warn("1 event was dropped because the output was read too slowly"),
        many => {
            output::warn(format_args!("{many} events were dropped because the output was read too slowly"))
        }
    }
    Ok(())
}

fn next(items: &mut Items<'_>, until: Option<Instant>) -> Option<Result<Item>> {
    let item = match until {
        Some(until) => items.recv_timeout(until.saturating_duration_since(Instant::now())),
        None => items.recv(),
    };
    item.map(|item| item.map_err(Failure::from))
}

fn options(args: &Watch) -> WatchOptions {
    let mut options = WatchOptions::new().policy(args.policy.into());
    options = match args.after {
        Some(Position::Cursor(cursor)) => options.after_cursor(cursor),
        Some(Position::Revision(revision)) => options.after(revision),
        None if args.snapshot => options.snapshot(),
        None => options,
    };
    if let Some(every) = args.progress {
        options = options.progress(every);
    }
    if args.previous {
        options = options.previous_values();
    }
    if args.keys_only {
        options = options.keys_only();
    }
    options
}
