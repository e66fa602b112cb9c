//! All watchers and callbacks see events in commit order.

use std::collections::BTreeMap;

use watchkeep::Revision;

use super::{Findings, Promise, Violation};
use crate::record::{Evidence, Heard, Moment, Recording, Source};

/// Revisions grow along a stream, and a callback's runs do not overlap.
pub fn ordered(recording: &Recording, _: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Ordered, &recording.name);
    let mut last = Revision::ZERO;
    for change in recording.changes() {
        if change.revision < last {
            findings.add([last, change.revision], "goes back");
        }
        last = last.max(change.revision);
    }
    if recording.source == Source::Callback {
        overlaps(recording.heard.iter(), &mut findings);
    }
    findings.found
}

/// Runs of callbacks, in the order in which they began: each ends before the next begins.
fn overlaps<'a>(runs: impl Iterator<Item = &'a Heard>, findings: &mut Findings) {
    let mut before: Option<&Heard> = None;
    for run in runs {
        let unfinished = before.filter(|before| before.span.returned > run.span.called);
        if let (Some(before), Some(now)) = (unfinished.and_then(Heard::event), run.event()) {
            findings.add([before.revision, now.revision], "a callback is called while another one runs");
        }
        before = Some(run);
    }
}

/// A write that was called after another had returned has the higher revision.
pub(super) fn in_real_time(evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Ordered, "the writes");
    let mut latest: Option<(Moment, Revision)> = None;
    for row in evidence.log.rows() {
        let Some(write) = evidence.write_of(row) else { continue };
        if let Some((_, lower)) = latest.filter(|(called, _)| write.span.returned < *called) {
            findings.add([lower, row.revision], "the write that was made later has the lower revision");
        }
        if latest.is_none_or(|(called, _)| called < write.span.called) {
            latest = Some((write.span.called, row.revision));
        }
    }
    findings.found
}

/// The callbacks of one opened store run one at a time, and all for one event before any for the next.
pub(super) fn callbacks_in_step(recordings: &[Recording]) -> Vec<Violation> {
    let mut runs: BTreeMap<usize, Vec<&Heard>> = BTreeMap::new();
    for recording in recordings.iter().filter(|recording| recording.source == Source::Callback) {
        runs.entry(recording.hub).or_default().extend(&recording.heard);
    }
    let mut findings = Findings::new(Promise::Ordered, "the callbacks");
    for runs in runs.values_mut() {
        runs.sort_by_key(|run| run.span.called);
        overlaps(runs.iter().copied(), &mut findings);
        let mut last = Revision::ZERO;
        for change in runs.iter().filter_map(|run| run.event()).filter(|seen| !seen.snapshot) {
            if change.revision < last {
                findings.add([last, change.revision], "a callback comes to an event after another went on");
            }
            last = last.max(change.revision);
        }
    }
    findings.found
}

#[cfg(test)]
mod tests {
    use super::super::made_up::*;
    use super::*;
    use crate::record::{Note, Span};

    #[test]
    fn a_stream_that_goes_back_is_found() {
        let evidence = evidence(3);
        assert!(ordered(&stream_of([1, 2, 3]), &evidence).is_empty());
        let found = ordered(&stream_of([1, 3, 2]), &evidence);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].revisions, [at(3), at(2)]);
    }

    #[test]
    fn a_write_with_a_lower_revision_than_an_earlier_one_is_found() {
        let mut evidence = evidence(3);
        assert!(in_real_time(&evidence).is_empty());
        if let Some(write) = evidence.writes.get_mut("w1") {
            write.span = Span::ticks(100, 105);
        }
        assert!(!in_real_time(&evidence).is_empty());
    }

    #[test]
    fn callbacks_that_overlap_or_pass_one_another_are_found() {
        let callback = |runs: &[(u64, u64, u64)]| {
            let mut recording = stream([]);
            recording.source = Source::Callback;
            let run = |&(revision, from, to): &(u64, u64, u64)| {
                let note = Note::Event(set(revision));
                Heard { note, span: Span::ticks(from, to), reading: None }
            };
            recording.heard = runs.iter().map(run).collect();
            recording
        };
        let one = callback(&[(1, 10, 11), (2, 20, 21)]);
        assert!(ordered(&one, &evidence(2)).is_empty());
        assert!(callbacks_in_step(&[one.clone(), callback(&[(1, 12, 13), (2, 22, 23)])]).is_empty());
        assert_eq!(ordered(&callback(&[(1, 10, 25), (2, 20, 21)]), &evidence(2)).len(), 1);
        assert_eq!(callbacks_in_step(&[one.clone(), callback(&[(1, 22, 23)])]).len(), 1);
        assert_eq!(callbacks_in_step(&[one, callback(&[(2, 20, 23)])]).len(), 1);
    }
}
