//! Answers out of a few reads of one moment: what engines share that read rows of their own.

use std::sync::Arc;

use crate::types::clock::Timestamp;
use crate::types::consumer::ConsumerInfo;
use crate::types::entry::{Entry, GroupPage, KeyInfo, KeyPage, Page};
use crate::types::error::Result;
use crate::types::event::Change;
use crate::types::filter::Filter;
use crate::types::limits::{PAGE_BYTES, SNAPSHOT_ENTRIES, SNAPSHOT_GROUPS};
use crate::types::name::NameRange;
use crate::types::options::Retention;
use crate::types::quota::Quota;
use crate::types::revision::{Cursor, Revision};
use crate::types::value::Value;

use super::query::{Answer, Bounds, Dated, LogPage, Part, Place, Query, Survey, Totals};

/// Reads, all as of one moment.
pub(super) trait Reads {
    /// The moment: entries whose deadline is not after it are not there.
    fn now(&self) -> Timestamp;
    fn value(&self, group: &str, key: &str) -> Result<Option<Value>>;
    fn entry(&self, group: &str, key: &str) -> Result<Option<Entry>>;
    /// The entries of a group, at most `limit` and at most about a megabyte; and whether there may be more.
    fn entries(&self, group: &str, keys: &NameRange, limit: usize) -> Result<(Vec<Entry>, bool)>;
    fn keys(&self, group: &str, keys: &NameRange, limit: usize) -> Result<Vec<KeyInfo>>;
    fn groups(&self, names: &NameRange, limit: usize) -> Result<Vec<String>>;
    fn count(&self, group: &str) -> Result<u64>;
    fn count_all(&self, groups: &NameRange) -> Result<u64>;
    fn last(&self) -> Result<Revision>;
    fn trimmed(&self) -> Result<Revision>;
    fn log(&self, after: Revision) -> Result<LogPage>;
    fn refuse_lost(&self, cursor: Cursor) -> Result<()>;
    fn change(&self, revision: Revision) -> Result<Option<Arc<Change>>>;
    fn totals(&self, groups: &NameRange) -> Result<Totals>;
    fn quota(&self, namespace: &str) -> Result<Option<Quota>>;
    fn consumers(&self, names: &NameRange) -> Result<Vec<ConsumerInfo>>;
    fn retention(&self) -> Result<Retention>;
}

/// Answers a query, all of it out of the same reads.
pub(super) fn answer(reads: &impl Reads, query: &Query<'_>) -> Result<Answer> {
    Ok(match query {
        Query::Value { group, key } => reads.value(group, key)?.into(),
        Query::Entry { group, key } => Dated { entry: reads.entry(group, key)?, now: reads.now() }.into(),
        Query::Entries { group, keys, limit } => {
            let revision = reads.last()?;
            let (entries, more) = match limit {
                0 => (Vec::new(), false),
                _ => reads.entries(group, keys, *limit)?,
            };
            let next = entries.last().map(|entry| entry.key.clone()).filter(|_| more);
            Page { entries, next, revision }.into()
        }
        Query::Keys { group, keys, limit } => {
            let keys = if *limit == 0 { Vec::new() } else { reads.keys(group, keys, *limit)? };
            let next = keys.last().map(|last| last.key.clone()).filter(|_| keys.len() >= *limit);
            KeyPage { keys, next, revision: reads.last()? }.into()
        }
        Query::Groups { names, limit } => {
            let groups = if *limit == 0 { Vec::new() } else { reads.groups(names, *limit)? };
            let next = groups.last().cloned().filter(|_| groups.len() >= *limit);
            GroupPage { groups, next, revision: reads.last()? }.into()
        }
        Query::Count { group } => reads.count(group)?.into(),
        Query::CountAll { groups } => reads.count_all(groups)?.into(),
        Query::Quota { namespace } => reads.quota(namespace)?.into(),
        Query::Consumers { names } => reads.consumers(names)?.into(),
        Query::Survey { names, namespace } => Box::new(Survey {
            totals: reads.totals(names)?,
            quota: namespace.as_deref().map_or(Ok(None), |namespace| reads.quota(namespace))?,
            consumers: reads.consumers(names)?,
            retention: reads.retention()?,
        })
        .into(),
        Query::Last => reads.last()?.into(),
        Query::Bounds { after } => {
            after.map_or(Ok(()), |after| reads.refuse_lost(after))?;
            Bounds { trimmed: reads.trimmed()?, end: reads.last()? }.into()
        }
        Query::Log { after } => reads.log(*after)?.into(),
        Query::Change { revision } => reads.change(*revision)?.into(),
        Query::Part { filter, given } => part(reads, filter, given.clone())?.into(),
    })
}

/// As many entries as one part may have, or fewer where it has looked at many groups.
fn part(reads: &impl Reads, filter: &Filter, given: Option<Place>) -> Result<Part> {
    let mut part = Part { revision: reads.last()?, entries: Vec::new(), reached: given, all: false };
    let (groups, mut bytes) = (groups(filter), 0);
    for _ in 0..SNAPSHOT_GROUPS {
        let room = SNAPSHOT_ENTRIES.saturating_sub(part.entries.len());
        if room == 0 || bytes >= PAGE_BYTES {
            break;
        }
        let (group, after) = match &part.reached {
            Some((group, Some(key))) => (group.clone(), Some(key.as_str())),
            done => {
                let before = done.as_ref().map(|(group, _)| group.as_str());
                let Some(next) = next_group(reads, NameRange::rest(groups.clone(), before))? else {
                    part.all = true;
                    break;
                };
                (next, None)
            }
        };
        let (mut page, mut more) = (Vec::new(), false);
        for keys in NameRange::rest(keys(filter, &group), after) {
            more = page.len() >= room || bytes >= PAGE_BYTES;
            if !more {
                let (mut found, cut) = reads.entries(&group, &keys, room.saturating_sub(page.len()))?;
                bytes += found.iter().map(|entry| entry.key.len() + entry.value.len()).sum::<usize>();
                page.append(&mut found);
                more = cut;
            }
            if more {
                break;
            }
        }
        let upto = page.last().map(|entry| entry.key.clone()).filter(|_| more);
        part.entries.extend(page.into_iter().map(|entry| (group.clone(), entry)));
        part.reached = Some((group, upto));
    }
    Ok(part)
}

fn next_group(reads: &impl Reads, ranges: impl Iterator<Item = NameRange>) -> Result<Option<String>> {
    for range in ranges {
        if let Some(next) = reads.groups(&range, 1)?.pop() {
            return Ok(Some(next));
        }
    }
    Ok(None)
}

/// Which groups a filter is about.
fn groups(filter: &Filter) -> Vec<NameRange> {
    NameRange::union(filter.parts().iter().map(|part| part.target.ranges().0).collect())
}

/// Which keys of a group a filter is about.
fn keys(filter: &Filter, group: &str) -> Vec<NameRange> {
    let ranges = filter.parts().iter().map(|part| part.target.ranges());
    NameRange::union(ranges.filter_map(|(groups, keys)| groups.contains(group).then_some(keys)).collect())
}
