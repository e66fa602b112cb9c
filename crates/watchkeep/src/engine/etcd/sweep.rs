//! Sweeps what deleted groups left behind, and answers that nobody asks for any more: a page at a time, and without an
//! event.

use std::sync::Arc;

use super::buffer::{Buffer, Of};
use super::cluster::Cluster;
use super::commit::Sent;
use super::everything;
use super::stored::{AnswerRow, EntryRow};
use crate::types::clock::Timestamp;
use crate::types::error::Result;
use crate::types::limits::ANSWER_TIME;
use crate::types::sync::lock;

/// How many entries go at once: each with its deadline, in one transaction.
const STEP: usize = 40;

/// Sweeps a page; whether there is more to do.
pub(super) fn step(cluster: &Arc<Cluster>, now: Timestamp) -> Result<bool> {
    Ok(sweep_groups(cluster)? || sweep_answers(cluster, now)?)
}

/// Looks at a page of the answers, the next each time, and drops the old ones.
fn sweep_answers(cluster: &Arc<Cluster>, now: Timestamp) -> Result<bool> {
    let mut buffer = Buffer::new(cluster.clone(), false);
    let (first, to) = cluster.keys.all_answers();
    let from = lock(&cluster.swept).take().unwrap_or(first);
    let page = buffer.page((&from, &to), Of::Rows, STEP)?;
    lock(&cluster.swept).clone_from(&page.next);
    let is_old = |row: &AnswerRow| now.since(row.at) > ANSWER_TIME;
    for (key, row) in &page.rows {
        if row.row::<AnswerRow>(key).is_ok_and(|row| is_old(&row)) {
            buffer.remove(key.clone());
        }
    }
    if buffer.size().1 > 0 {
        cluster.send(&buffer, Vec::new())?;
    }
    Ok(page.next.is_some())
}

fn sweep_groups(cluster: &Arc<Cluster>) -> Result<bool> {
    let mut buffer = Buffer::new(cluster.clone(), false);
    let keys = cluster.keys.clone();
    let (from, to) = keys.all_buried();
    let buried = buffer.page((&from, &to), Of::Keys, 1)?;
    let Some((mark, group)) =
        buried.rows.first().and_then(|(key, _)| Some((key.clone(), keys.buried_of(key)?)))
    else {
        return Ok(false);
    };
    let mut left = Vec::new();
    let all = buffer.each(keys.entries(group, &everything()), Of::Rows, |_, key, row| {
        let deadline = row.row::<EntryRow>(key).ok().and_then(|row| row.deadline);
        left.push((key.clone(), deadline));
        Ok(left.len() < STEP)
    })?;
    for (key, deadline) in left {
        if let Some((deadline, (_, name))) = deadline.zip(keys.entry_of(&key)) {
            buffer.remove(keys.deadline(deadline, group, name));
        }
        buffer.remove(key);
    }
    if all {
        buffer.remove(mark);
        buffer.remove(keys.removals(group));
    }
    // Whoever swept at the same time did no harm.
    Ok(!matches!(cluster.send(&buffer, Vec::new())?, Sent::TooLarge))
}
