//! What reads find in the map.

use watchkeep::Timestamp;

use crate::ops::{Listed, Outcome, Place, Read, Step};
use crate::record::{Cell, State};

/// A page holds at most so many entries.
const PAGE: usize = 256;

/// What a read through a step's handle gives, when the clock shows this.
pub fn read(state: &State, step: &Step, now: Timestamp, read: &Read) -> Outcome {
    let find = |Place { group, key }: &Place| {
        state.cell(&step.full(group), key).filter(|cell| !cell.is_due(now)).cloned()
    };
    match read {
        Read::Get(place) => Outcome::Value(find(place).map(|cell| cell.value)),
        Read::Entry(place) => Outcome::Entry(find(place)),
        Read::Contains(place) => Outcome::Was(find(place).is_some()),
        Read::RemainingTtl(place) => {
            let deadline = find(place).and_then(|cell| cell.deadline);
            Outcome::Left(deadline.map(|deadline| deadline.since(now).as_millis()))
        }
        Read::Count(group) => {
            let group = step.full(group);
            Outcome::Number(count(state.group(&group).map(|(_, cell)| cell), now))
        }
        Read::CountAll(prefix) => {
            let prefix = step.full(prefix);
            let cells = state.cells().filter(|(group, _, _)| group.starts_with(&prefix));
            Outcome::Number(count(cells.map(|(_, _, cell)| cell), now))
        }
        Read::Groups(prefix) => {
            let full = step.full(prefix);
            let live = |group: &&str| state.group(group).any(|(_, cell)| !cell.is_due(now));
            let names = state.groups().filter(|group| group.starts_with(&full)).filter(live);
            let hidden = step.full("").len();
            Outcome::Names(names.map(|name| name.get(hidden..).unwrap_or_default().to_owned()).collect())
        }
        Read::Entries(group, prefix, after, limit) => {
            let group = step.full(group);
            let entries = list(state, &group, prefix, after.as_deref(), now);
            Outcome::Entries(entries.take(limit.unwrap_or(usize::MAX)).collect(), None)
        }
        Read::Page(group, prefix, after, limit) => {
            let (group, limit) = (step.full(group), limit.unwrap_or(PAGE).min(PAGE));
            let mut entries: Vec<Listed> =
                list(state, &group, prefix, after.as_deref(), now).take(limit + 1).collect();
            let more = entries.len() > limit;
            entries.truncate(limit);
            let next = entries.last().map(|entry| entry.key.clone()).filter(|_| more);
            Outcome::Entries(entries, next)
        }
    }
}

fn count<'c>(cells: impl Iterator<Item = &'c Cell>, now: Timestamp) -> u64 {
    u64::try_from(cells.filter(|cell| !cell.is_due(now)).count()).unwrap_or(u64::MAX)
}

fn list<'s>(
    state: &'s State,
    group: &'s str,
    prefix: &'s str,
    after: Option<&'s str>,
    now: Timestamp,
) -> impl Iterator<Item = Listed> {
    let cells = state.group(group).filter(move |(key, cell)| {
        key.starts_with(prefix) && after.is_none_or(|after| *key > after) && !cell.is_due(now)
    });
    cells.map(|(key, cell)| Listed { key: key.to_owned(), cell: cell.clone() })
}
