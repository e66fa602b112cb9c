//! One call gives the current entries, a mark, then every later change.

use std::collections::BTreeMap;

use watchkeep::{Kind, Revision};

use super::{Findings, Promise, Violation, missing};
use crate::record::{Beginning, Evidence, Note, Recording, Seen};

/// Folding the stream up to `Ready(R)` gives exactly the state at R, as far as the filter reaches, without what is
/// due; and no event is missing between R and the first one after it.
pub fn snapshot_then_tail(recording: &Recording, evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::SnapshotThenTail, &recording.name);
    let mut folded: BTreeMap<(&str, &str), Revision> = BTreeMap::new();
    let mut ready = None;
    for heard in &recording.heard {
        match (&heard.note, ready) {
            (Note::Event(seen), _) if seen.snapshot && recording.spec.beginning != Beginning::Snapshot => {
                findings.add([seen.revision], "is of a snapshot that nobody asked for");
            }
            (Note::Event(seen), None) => fold(&mut folded, seen),
            (Note::Event(seen), Some(after)) => {
                if recording.is_whole() {
                    findings.add_all(
                        missing(recording, evidence, after, seen.revision),
                        "missing after the snapshot",
                    );
                }
                return findings.found;
            }
            // The snapshot begins again.
            (Note::Lagged(_) | Note::Reset, None) => folded.clear(),
            (Note::Ready(revision), None) => {
                ready = Some(*revision);
                compare(recording, evidence, *revision, &folded, &mut findings);
            }
            _ => {}
        }
    }
    if let Some(after) = ready.filter(|_| recording.is_whole()) {
        let gap = missing(recording, evidence, after, recording.position());
        findings.add_all(gap, "missing after the snapshot");
    }
    findings.found
}

fn fold<'a>(folded: &mut BTreeMap<(&'a str, &'a str), Revision>, seen: &'a Seen) {
    match (&seen.key, seen.kind) {
        (Some(key), Kind::Set) => drop(folded.insert((&seen.group, key), seen.revision)),
        (Some(_), Kind::Touch) => {}
        (Some(key), _) => drop(folded.remove(&(seen.group.as_str(), key.as_str()))),
        (None, _) => folded.retain(|(group, _), _| *group != seen.group),
    }
}

fn compare(
    recording: &Recording,
    evidence: &Evidence,
    ready: Revision,
    folded: &BTreeMap<(&str, &str), Revision>,
    findings: &mut Findings,
) {
    let want = &recording.spec.want;
    if !want.folds() {
        return;
    }
    let state = evidence.log.state_at(ready);
    let mut expected: BTreeMap<(&str, &str), Revision> = BTreeMap::new();
    for (group, key, cell) in state.cells().filter(|(group, key, _)| want.covers(group, Some(key))) {
        let Some(local) = want.local(group) else { continue };
        let found = folded.get(&(local, key));
        if found.is_none() && cell.is_due(evidence.latest) {
            continue;
        }
        expected.insert((local, key), cell.revision);
        if found != Some(&cell.revision) {
            let found = found.map_or_else(|| "nothing".to_owned(), |found| format!("revision {found}"));
            findings.add([ready, cell.revision], format!("folds to {found} at {local:?}/{key:?}"));
        }
    }
    for ((group, key), revision) in folded.iter().filter(|(place, _)| !expected.contains_key(*place)) {
        findings.add([ready, *revision], format!("folds to {group:?}/{key:?}, which is not there"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::*;
    use super::*;

    fn begun(notes: Vec<Note>) -> Vec<Violation> {
        let mut recording = stream(notes);
        recording.spec.beginning = Beginning::Snapshot;
        snapshot_then_tail(&recording, &evidence(4))
    }

    #[test]
    fn a_snapshot_that_is_not_the_state_is_found() {
        let entry = |revision| Note::Event(initial(revision));
        let event = |revision| Note::Event(set(revision));
        assert!(begun(vec![entry(1), entry(2), Note::Ready(at(2)), event(3)]).is_empty());
        assert!(begun(vec![entry(1), event(2), Note::Ready(at(2)), event(3)]).is_empty());
        assert!(begun(vec![entry(1), Note::Reset, entry(1), entry(2), Note::Ready(at(2))]).is_empty());
        assert_eq!(begun(vec![entry(1), Note::Reset, entry(2), Note::Ready(at(2))]).len(), 1);
        assert_eq!(begun(vec![entry(1), Note::Ready(at(2))])[0].revisions, [at(2), at(2)]);
        assert_eq!(begun(vec![entry(1), entry(2), Note::Ready(at(1))])[0].revisions, [at(1), at(2)]);
    }

    #[test]
    fn a_gap_between_snapshot_and_tail_is_found() {
        let entry = |revision| Note::Event(initial(revision));
        let tail = begun(vec![entry(1), Note::Ready(at(1)), Note::Event(set(3))]);
        assert_eq!(tail[0].revisions, [at(2)]);
    }

    #[test]
    fn a_snapshot_that_nobody_asked_for_is_found() {
        let recording = stream([Note::Event(initial(1))]);
        assert_eq!(snapshot_then_tail(&recording, &evidence(1)).len(), 1);
    }
}
