//! `consumers`: named consumers, their positions and holders.

use watchkeep::{Clock, ConsumerInfo, Force, SystemClock};

use super::{Access, open};
use crate::args::{ConsumerAction, Global};
use crate::exit::Result;
use crate::output::{self, Out, counted, grouped, style};
use crate::time::human;

const HEADINGS: [&str; 6] = ["NAME", "ACKED", "LAG", "OLDEST", "HOLDER", "EVENTS"];

pub(super) fn consumers(global: &Global, action: Option<ConsumerAction>, out: &mut Out) -> Result<()> {
    let forced = |force| if force { Force::Yes } else { Force::No };
    match action {
        None => list(&open(global, Access::Read)?.consumers()?, out),
        Some(ConsumerAction::Reset { name, to, force }) => {
            Ok(open(global, Access::Change)?.reset_consumer(&name, to.0, forced(force))?)
        }
        Some(ConsumerAction::Remove { name, force }) => {
            Ok(open(global, Access::Change)?.remove_consumer(&name, forced(force))?)
        }
    }
}

fn list(consumers: &[ConsumerInfo], out: &mut Out) -> Result<()> {
    if out.is_json() {
        return consumers.iter().try_for_each(|consumer| out.object(&watchkeep::json::consumer(consumer)));
    }
    let rows: Vec<_> = consumers.iter().map(for_people).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let heading = HEADINGS.get(column).map_or(0, |heading| heading.len());
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(heading)
    };
    let widths: Vec<_> = (0..HEADINGS.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    if !rows.is_empty() {
        let headings = line(&HEADINGS.map(str::to_owned));
        out.line(out.paint(style::DIM, headings))?;
    }
    rows.iter().try_for_each(|row| out.line(line(row)))
}

fn for_people(consumer: &ConsumerInfo) -> [String; 6] {
    let age = |time| human(SystemClock.now().since(time));
    let none = || "-".to_owned();
    let holder = consumer.holder.as_ref().map_or_else(none, |holder| {
        let label = output::visible(&holder.label);
        if holder.is_alive { label } else { format!("{label} (gone)") }
    });
    let lost = match consumer.lost {
        Some(lost) => format!(", lost {} to {}", lost.from, lost.to),
        None => String::new(),
    };
    [
        consumer.name.clone(),
        consumer.acked.map_or_else(|| "snapshot".to_owned(), |acked| acked.to_string()),
        grouped(consumer.lag_events) + &lost,
        consumer.oldest_unacked.map_or_else(none, age),
        holder,
        output::visible(&consumer.filter.to_string()),
    ]
}

/// How many there are, and which is the farthest behind.
pub(super) fn in_brief(consumers: &[ConsumerInfo]) -> String {
    let count = u64::try_from(consumers.len()).unwrap_or(u64::MAX);
    match consumers.iter().max_by_key(|consumer| consumer.lag_events) {
        Some(last) if last.lag_events > 0 => {
            let lag = counted(last.lag_events, "event", "events");
            format!("{}, at most {lag} behind ({})", grouped(count), last.name)
        }
        Some(_) => format!("{}, none of them behind", grouped(count)),
        None => "none".to_owned(),
    }
}
