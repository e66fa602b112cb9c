//! `watch`: changes as they happen.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use watchkeep::{
    Acker, Consumer, ConsumerOptions, ConsumerStart, ErrorKind, Item, Items, Revision, Store, WatchOptions,
    Watcher,
};

use super::exec::Exec;
use super::history::{Printer, When, what_is_lost};
use super::signals::Asked;
use super::{Access, open, signals};
use crate::args::{Global, Watch};
use crate::exit::{Failure, Result};
use crate::output::{self, Out};
use crate::select::Position;

const A_MOMENT: Duration = Duration::from_millis(250);
/// How many printed lines are acknowledged at once, at the most, while more are there to be printed.
const LINES: u32 = 100;

pub(super) fn watch(global: &Global, args: &Watch, out: &mut Out) -> Result<()> {
    let until = args.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let access = if args.consumer.is_some() { Access::Change } else { Access::Read };
    let store = open(global, access)?;
    // What is to be stopped may come only after a wait.
    let stopper = Arc::new(OnceLock::new());
    let stop = stopper.clone();
    let asked = signals::on_end(move || stop.get().into_iter().for_each(watchkeep::Stopper::stop))?;
    if args.exec.is_none() {
        // A command is waited for; a reader of the output that does not read is not.
        signals::give_up_on_output(&asked, until)?;
    }
    let (mut plain, mut consumer);
    let (watcher, acker): (&mut Watcher, Option<Acker>) = match &args.consumer {
        None => {
            plain = store.watch_with(args.selection.filter()?, options(args))?;
            (&mut plain, None)
        }
        Some(name) => {
            let Some(taken) = take(&store, name, args, &asked, until)? else { return Ok(()) };
            consumer = taken;
            let acker = consumer.acker().clone();
            (&mut consumer, Some(acker))
        }
    };
    // Set only once.
    let _ = stopper.set(watcher.stopper());
    let mut exec = args.exec.as_deref().map(|command| Exec::new(command, global, &store, acker.is_some()));
    let mut printer = Printer::new(&store, When::Times);
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut acks = Acks { acker, pending: None, number: 0 };
    let mut items = watcher.items();
    let over = || until.is_some_and(|until| Instant::now() >= until);
    while left > 0 && !over() && !asked.to_end_within(Duration::ZERO) {
        let item = match items.try_recv() {
            Some(item) => item.map_err(Failure::from),
            None => {
                // Before it takes a while.
                acks.settle()?;
                let Some(item) = next(&mut items, until) else { break };
                item
            }
        }?;
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
        // Now it is dealt with.
        acks.add(&item, if exec.is_some() { 1 } else { LINES })?;
    }
    acks.settle()?;
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

/// What is dealt with and not acknowledged yet.
struct Acks {
    /// None without a consumer.
    acker: Option<Acker>,
    pending: Option<Revision>,
    number: u32,
}

impl Acks {
    /// Notes that an item is dealt with; acknowledges when there are so many.
    fn add(&mut self, item: &Item, most: u32) -> Result<()> {
        self.pending = position(item).or(self.pending);
        self.number += 1;
        if self.number >= most { self.settle() } else { Ok(()) }
    }

    fn settle(&mut self) -> Result<()> {
        self.number = 0;
        match (&self.acker, self.pending.take()) {
            (Some(acker), Some(upto)) => Ok(acker.ack(upto)?),
            _ => Ok(()),
        }
    }
}

/// Up to where everything is dealt with once this item is; none where that is known anyway.
fn position(item: &Item) -> Option<Revision> {
    match item {
        Item::Event(event) => Some(event.revision()),
        Item::Ready(revision) => Some(*revision),
        Item::Lagged(lagged) => Some(lagged.to),
        _ => None,
    }
}

/// Takes the consumer, waiting for another holder as long as that is wanted; none when we are to end first.
fn take(
    store: &Store,
    name: &str,
    args: &Watch,
    asked: &Asked,
    until: Option<Instant>,
) -> Result<Option<Consumer>> {
    let patience = match args.wait {
        None => Some(Instant::now()),
        Some(wait) => wait.and_then(|wait| Instant::now().checked_add(wait)),
    };
    let left =
        |end: Option<Instant>| end.map_or(A_MOMENT, |end| end.saturating_duration_since(Instant::now()));
    loop {
        let pause = left(patience).min(left(until)).min(A_MOMENT);
        match store.consumer_with(name, consumer_options(args)?.wait(pause)) {
            Err(error) if error.kind() == ErrorKind::Held && !left(patience).is_zero() => {
                if asked.to_end_within(Duration::ZERO) || left(until).is_zero() {
                    return Ok(None);
                }
            }
            taken => return Ok(Some(taken?)),
        }
    }
}

fn consumer_options(args: &Watch) -> Result<ConsumerOptions> {
    let mut options = ConsumerOptions::new();
    if !args.selection.is_empty() {
        options = options.filter(args.selection.filter()?);
    }
    options = options.start(match args.after {
        Some(position) => position.into(),
        None if args.snapshot => ConsumerStart::Snapshot,
        None if args.from_start => ConsumerStart::Beginning,
        None => ConsumerStart::Now,
    });
    if let Some(lease) = args.lease {
        options = options.lease(lease);
    }
    if let Some(every) = args.progress {
        options = options.progress(every);
    }
    if args.previous {
        options = options.previous_values();
    }
    if args.keys_only {
        options = options.keys_only();
    }
    Ok(options)
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
