//! Between the first and the last revision that a watcher sees, no matching event is missing.

use std::collections::BTreeMap;

use watchkeep::{LagPolicy, Lagged, Revision};

use super::{Findings, Promise, Violation, missing};
use crate::record::{Beginning, End, Evidence, Heard, Note, Recording, Seen};

/// From the first event seen to the last, and to the end of a stream that was read to its end, nothing is missing
/// that was not called lost; what is called lost is really trimmed, and said in its place. A stream that drops
/// counts what it drops; one that keeps the latest has the newest event of each key.
pub fn complete(recording: &Recording, evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Complete, &recording.name);
    losses(recording, evidence, &mut findings);
    match recording.spec.policy {
        LagPolicy::Drop => counted(recording, evidence, &mut findings),
        LagPolicy::Latest => newest(recording, evidence, &mut findings),
        _ => {
            if let Some(first) = recording.changes().next() {
                let gaps = missing(recording, evidence, first.revision, recording.position());
                findings.add_all(gaps, "missing");
            }
        }
    }
    findings.found
}

/// Every `Lagged` names what is lost: after all that was seen, before all that will be, and trimmed indeed.
fn losses(recording: &Recording, evidence: &Evidence, findings: &mut Findings) {
    let (mut seen, mut ready) = (recording.start, false);
    let (mut lost, mut late): (Option<Lagged>, Vec<Revision>) = (None, Vec::new());
    for heard in &recording.heard {
        match &heard.note {
            Note::Event(event) if !event.snapshot => {
                late.extend(lost.filter(|lost| event.revision <= lost.to).map(|_| event.revision));
                seen = seen.max(event.revision);
            }
            Note::Lagged(lagged) => {
                let ends = [lagged.from, lagged.to];
                if lagged.from > lagged.to || (lagged.from <= seen && seen > Revision::ZERO) {
                    findings.add(ends, format!("calls lost what was seen: it had come to {seen}"));
                }
                if floor(heard, evidence) <= lagged.to {
                    findings.add(ends, "calls lost what the log still holds");
                }
                seen = seen.max(lagged.to);
                lost = Some(*lagged);
            }
            Note::Closed if recording.spec.beginning != Beginning::Snapshot || ready => {
                findings.add([seen], "was cut off after this when the store closed");
            }
            Note::Ready(revision) => (ready, seen) = (true, seen.max(*revision)),
            Note::Reset if recording.spec.beginning != Beginning::Snapshot => {
                findings.add([seen], "begins with a snapshot after this, and was not asked for one");
            }
            // Before the snapshot is complete it may begin again as it likes.
            Note::Reset if ready && floor(heard, evidence).get() <= seen.get() + 1 => {
                findings.add([seen], "begins again after this, though the log still holds what follows");
            }
            Note::Failed(error) => findings.add([seen], format!("failed after this: {error}")),
            _ => {}
        }
    }
    findings.add_all(late, format!("was called lost with {lost:?}, and comes after all"));
}

/// The oldest revision that the log held then.
fn floor(heard: &Heard, evidence: &Evidence) -> Revision {
    heard.reading.as_ref().and_then(|reading| reading.floor).unwrap_or(evidence.floor)
}

/// What a stream of its own making owes: from where it began to where it was read to. Losses are in it.
fn owed<'a>(recording: &'a Recording, evidence: &'a Evidence) -> Option<impl Iterator<Item = &'a Seen>> {
    let End::Drained(end) = recording.end else { return None };
    let after = recording.owes_after()?;
    let wanted = |row: &&Seen| recording.spec.want.wants(row);
    Some(evidence.log.between(after, recording.position().max(end)).iter().filter(wanted))
}

/// What was dropped is counted.
fn counted(recording: &Recording, evidence: &Evidence, findings: &mut Findings) {
    let Some(owed) = owed(recording, evidence) else { return };
    let (owed, ready) = (
        owed.filter(|row| !recording.lost(row.revision)).count(),
        recording.heard.iter().position(|heard| matches!(heard.note, Note::Ready(_))),
    );
    let after = recording.heard.iter().skip(ready.unwrap_or(0));
    let seen = after.filter_map(|heard| heard.event()).filter(|seen| !seen.snapshot).count();
    let dropped = usize::try_from(recording.dropped).unwrap_or(usize::MAX);
    if seen.saturating_add(dropped) != owed {
        findings.add([], format!("saw {seen} and counts {dropped} dropped, of {owed} events"));
    }
}

/// The newest event of each key is there, or the deletion of its group that came after it. Where that one is called
/// lost, nothing older of the key is owed: it may have been left out for it.
fn newest(recording: &Recording, evidence: &Evidence, findings: &mut Findings) {
    let Some(owed) = owed(recording, evidence) else { return };
    let mut newest: BTreeMap<(&str, Option<&str>), Revision> = BTreeMap::new();
    for row in owed {
        if row.key.is_none() {
            newest.retain(|(group, _), _| *group != row.group);
        }
        newest.insert((&row.group, row.key.as_deref()), row.revision);
    }
    let seen: std::collections::HashSet<Revision> =
        recording.changes().map(|change| change.revision).collect();
    let owed = newest.into_values().filter(|revision| !recording.lost(*revision));
    let missing = owed.filter(|revision| !seen.contains(revision)).collect();
    findings.add_all(missing, "missing, though it is the newest of its key");
}

#[cfg(test)]
mod tests {
    use super::super::made_up::*;
    use super::*;

    #[test]
    fn a_gap_is_found_unless_it_is_called_lost() {
        let mut evidence = evidence(5);
        assert!(complete(&stream_of([1, 2, 3, 4]), &evidence).is_empty());
        assert_eq!(complete(&stream_of([1, 2, 4]), &evidence)[0].revisions, [at(3)]);

        let event = |revision| Note::Event(set(revision));
        let lagging = stream([event(1), lagged(2, 3), event(4)]);
        assert!(!complete(&lagging, &evidence).is_empty(), "the log still holds it");
        evidence.floor = at(4);
        assert!(complete(&lagging, &evidence).is_empty());
        let early = stream([event(1), event(4), lagged(2, 3)]);
        assert_eq!(complete(&early, &evidence).len(), 1);
        let late = stream([event(1), lagged(2, 3), event(3), event(4)]);
        assert_eq!(complete(&late, &evidence).len(), 1);
    }

    #[test]
    fn a_snapshot_that_begins_again_for_nothing_is_found() {
        let mut evidence = evidence(3);
        let mut anew = stream([Note::Ready(at(1)), Note::Event(set(2)), Note::Reset]);
        anew.spec.beginning = Beginning::Snapshot;
        assert_eq!(complete(&anew, &evidence).len(), 1);
        evidence.floor = at(4);
        assert!(complete(&anew, &evidence).is_empty());
        anew.spec.beginning = Beginning::Now;
        assert_eq!(complete(&anew, &evidence).len(), 1);
    }

    #[test]
    fn a_gap_before_the_end_of_a_drained_stream_is_found() {
        let mut recording = stream_of([1, 2, 3]);
        recording.end = End::Drained(at(5));
        assert_eq!(complete(&recording, &evidence(5))[0].revisions, [at(4), at(5)]);
    }

    #[test]
    fn a_stream_that_drops_counts() {
        let mut recording = stream_of([1, 4]);
        recording.spec.policy = LagPolicy::Drop;
        recording.end = End::Drained(at(5));
        recording.dropped = 3;
        assert!(complete(&recording, &evidence(5)).is_empty());
        recording.dropped = 2;
        assert_eq!(complete(&recording, &evidence(5)).len(), 1);
    }

    #[test]
    fn a_stream_of_the_latest_has_the_newest_of_each_key() {
        let mut evidence = evidence(3);
        let mut rows = evidence.log.rows().to_vec();
        rows.extend([4, 5].map(|revision| Seen { key: Some("k1".to_owned()), ..set(revision) }));
        evidence.log = crate::record::Log::new(rows);
        let mut recording = stream_of([2, 3, 5]);
        recording.spec.policy = LagPolicy::Latest;
        recording.end = End::Drained(at(5));
        assert!(complete(&recording, &evidence).is_empty());
        recording.heard.pop();
        assert_eq!(complete(&recording, &evidence)[0].revisions, [at(5)]);
    }

    #[test]
    fn a_failure_in_the_stream_is_found() {
        let failing = stream([Note::Event(set(1)), Note::Failed("no".to_owned())]);
        assert_eq!(complete(&failing, &evidence(1)).len(), 1);
    }
}
