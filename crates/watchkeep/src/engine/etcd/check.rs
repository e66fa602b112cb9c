//! Looks whether all rows of a store in a cluster can be read, and fit together.

use std::collections::HashMap;

use crate::types::error::Result;
use crate::types::revision::Revision;

use super::buffer::{Buffer, Of};
use super::everything;
use super::keys::Generation;
use super::stored::{EntryRow, GroupRow, NamedRow, Text};

/// What is wrong, a sentence each, and how many entries, groups and events there are.
pub(super) fn check(buffer: &mut Buffer) -> Result<(Vec<String>, [u64; 3])> {
    let (keys, mut problems) = (buffer.cluster.keys.clone(), Vec::new());
    let mut groups: HashMap<Generation, String> = HashMap::new();
    buffer.each(keys.groups(&everything()), Of::Rows, |_, key, row| {
        let name = keys.group_of(key).unwrap_or_default().to_owned();
        match row.row::<GroupRow>(key) {
            Ok(GroupRow { generation: Some(id), .. }) => drop(groups.insert(id, name)),
            Ok(_) => {}
            Err(error) => problems.push(error.to_string()),
        }
        Ok(true)
    })?;
    let mut buried = Vec::new();
    buffer.each(keys.all_buried(), Of::Keys, |_, key, _| {
        buried.extend(keys.buried_of(key));
        Ok(true)
    })?;
    let (mut entries, mut deadlines, mut held) = (0, HashMap::new(), HashMap::new());
    buffer.each(keys.all_entries(), Of::Rows, |_, at, row| {
        let Some((id, key)) = keys.entry_of(at) else {
            problems.push(format!("{:?} is no place of an entry", String::from_utf8_lossy(at)));
            return Ok(true);
        };
        if buried.contains(&id) {
            return Ok(true);
        }
        match row.row::<EntryRow>(at) {
            Ok(row) if groups.contains_key(&id) => {
                entries += 1;
                *held.entry(id).or_insert(0_u64) += 1;
                if let Some(deadline) = row.deadline {
                    deadlines.insert(keys.deadline(deadline, id, key), false);
                }
            }
            Ok(_) => problems.push(format!("the entry {key:?} is in no group")),
            Err(error) => problems.push(error.to_string()),
        }
        Ok(true)
    })?;
    buffer.each(keys.all_deadlines(), Of::Rows, |_, at, row| {
        let of = keys.deadline_of(at).map(|(_, id, _)| id);
        let is_swept = of.is_some_and(|id| buried.contains(&id));
        match (deadlines.get_mut(at), row.row::<Text>(at)) {
            (Some(seen), Ok(Text(name))) if of.and_then(|id| groups.get(&id)) == Some(&name) => *seen = true,
            _ if is_swept => {}
            _ => problems.push(format!("the deadline {:?} is of no entry", String::from_utf8_lossy(at))),
        }
        Ok(true)
    })?;
    for key in deadlines.iter().filter(|(_, seen)| !**seen).map(|(key, _)| key) {
        problems.push(format!(
            "an entry has no place at {:?}, and does not expire",
            String::from_utf8_lossy(key)
        ));
    }
    buffer.each(keys.consumers(&everything()), Of::Rows, |_, key, row| {
        problems.extend(row.row::<NamedRow>(key).err().map(|error| error.to_string()));
        Ok(true)
    })?;
    let mut events = 0;
    let (cluster, end) = (buffer.cluster.clone(), buffer.end()?);
    let mut at: Revision = cluster.tail.trimmed();
    while at < end {
        let page = cluster.log(at)?;
        let Some(last) = page.changes.last().map(|last| last.revision) else { break };
        events += page.changes.len() as u64;
        at = last;
    }
    Ok((problems, [entries, held.len() as u64, events]))
}
