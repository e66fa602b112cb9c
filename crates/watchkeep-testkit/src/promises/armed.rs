//! When `watch` returns, the watcher is registered.

use std::collections::HashSet;

use watchkeep::Revision;

use super::{Findings, Promise, Violation, missing};
use crate::record::{Beginning, End, Evidence, Recording, Source};

/// Of a stream from now on: a write that was called after `watch` had returned is seen, one that had returned
/// before `watch` was called is not, and nothing is missing between the start it names and its first event.
pub fn armed(recording: &Recording, evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Armed, &recording.name);
    if recording.spec.beginning != Beginning::Now {
        return findings.found;
    }
    let seen: HashSet<Revision> = recording.changes().map(|change| change.revision).collect();
    let (mut early, mut late, mut before) = (Vec::new(), Vec::new(), Vec::new());
    for row in evidence.log.rows() {
        let Some(write) = evidence.write_of(row) else { continue };
        let revision = row.revision;
        if write.span.returned < recording.armed.called && seen.contains(&revision) {
            early.push(revision);
        }
        if write.span.called > recording.armed.returned {
            if revision <= recording.start {
                before.push(revision);
            }
            let owed =
                recording.is_whole() && recording.spec.want.wants(row) && was_there(recording, revision);
            if owed && !seen.contains(&revision) && !recording.lost(revision) {
                late.push(revision);
            }
        }
    }
    findings.add_all(early, "was written before the watch began, and is seen");
    findings.add_all(
        before,
        format!("was written after the watch began, which says it starts at {}", recording.start),
    );
    findings.add_all(late, "was written after the watch began, and is not seen");
    // Where a callback starts is not told.
    if recording.is_whole() && recording.source == Source::Watcher {
        let first = recording.changes().next().map(|change| change.revision);
        let gap = missing(recording, evidence, recording.start, first.unwrap_or(recording.position()));
        findings.add_all(gap, format!("missing after {}, where the watch began", recording.start));
    }
    findings.found
}

/// Whether the stream was read so far. What a callback owes until it was unregistered is promised before the write
/// returns, and checked there.
fn was_there(recording: &Recording, revision: Revision) -> bool {
    match recording.end {
        End::Drained(end) => revision <= end.max(recording.position()),
        End::Left(_) => revision <= recording.position(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::*;
    use super::*;
    use crate::record::Span;

    #[test]
    fn a_write_that_the_watch_misses_is_found() {
        let evidence = evidence(4);
        // The writes are called at 10, 20, 30, 40; the watch is made between the first two.
        let watch = |revisions: &[u64], start| {
            let mut recording = stream_of(revisions.iter().copied());
            recording.armed = Span::ticks(16, 18);
            recording.start = at(start);
            recording.end = End::Drained(at(4));
            armed(&recording, &evidence)
        };
        assert!(watch(&[2, 3, 4], 1).is_empty());
        assert!(!watch(&[3, 4], 1).is_empty());
        assert!(!watch(&[1, 2, 3, 4], 0).is_empty());
        assert!(!watch(&[3, 4], 2).is_empty());
        assert!(!watch(&[], 1).is_empty());
    }
}
