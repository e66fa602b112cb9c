//! A watch can start after any revision that the log still holds, and a revision is never used again.

use super::{Findings, Promise, Violation, missing};
use crate::record::{Beginning, Evidence, Note, Recording};

/// A stream after R begins after R, with nothing missing before the first event it saw.
pub fn resumable(recording: &Recording, evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Resumable, &recording.name);
    let Beginning::After(after) = recording.spec.beginning else { return findings.found };
    if recording.start != after {
        findings.add([after, recording.start], "says that it starts elsewhere than it was asked to");
    }
    let early = recording.changes().map(|change| change.revision).filter(|revision| *revision <= after);
    findings.add_all(early.collect(), format!("comes, though the stream begins after {after}"));
    if let Some(early) = recording.losses().find(|lagged| lagged.from <= after) {
        findings.add([after, early.from], "calls lost what lies before it");
    }
    if recording.is_whole() {
        let first = recording.heard.iter().find_map(|heard| match &heard.note {
            Note::Event(seen) => Some(seen.revision),
            _ => None,
        });
        let gap = missing(recording, evidence, after, first.unwrap_or(recording.position()));
        findings.add_all(gap, format!("missing after {after}, where the stream begins"));
    }
    findings.found
}

/// After each restart a revision stands for the same change as before.
pub(super) fn no_revision_used_again(evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Resumable, "the log after a restart");
    for life in &evidence.lives {
        let other =
            life.rows().iter().filter(|row| evidence.log.get(row.revision).is_some_and(|old| old != *row));
        findings.add_all(other.map(|row| row.revision).collect(), "stands for another change than before");
    }
    findings.found
}

#[cfg(test)]
mod tests {
    use super::super::made_up::*;
    use super::*;
    use crate::record::{End, Log, Seen};

    fn after(revision: u64, revisions: &[u64]) -> Recording {
        let mut recording = stream_of(revisions.iter().copied());
        recording.spec.beginning = Beginning::After(at(revision));
        recording.start = at(revision);
        recording
    }

    #[test]
    fn a_stream_that_does_not_begin_where_it_should_is_found() {
        let evidence = evidence(5);
        assert!(resumable(&after(2, &[3, 4]), &evidence).is_empty());
        assert_eq!(resumable(&after(2, &[4, 5]), &evidence)[0].revisions, [at(3)]);
        assert_eq!(resumable(&after(2, &[2, 3]), &evidence)[0].revisions, [at(2)]);
        let mut nothing = after(3, &[]);
        nothing.end = End::Drained(at(5));
        assert_eq!(resumable(&nothing, &evidence)[0].revisions, [at(4), at(5)]);
        let mut elsewhere = after(2, &[3]);
        elsewhere.start = at(1);
        assert_eq!(resumable(&elsewhere, &evidence).len(), 1);
    }

    #[test]
    fn a_revision_that_stands_for_two_changes_is_found() {
        let mut evidence = evidence(2);
        evidence.lives = vec![log(2)];
        assert!(no_revision_used_again(&evidence).is_empty());
        evidence.lives = vec![Log::new(vec![Seen { revision: at(2), commit: at(2), ..set(1) }])];
        assert_eq!(no_revision_used_again(&evidence).len(), 1);
    }
}
