//! No watcher sees an event twice.

use std::collections::{HashMap, HashSet};

use watchkeep::Revision;

use super::{Findings, Promise, Violation};
use crate::record::{Evidence, Note, Recording};

/// No revision twice, nothing of a beginning after it, and in it no key again but in a later state, or after the
/// deletion of its group, with which the group's later changes begin anew.
pub fn unique(recording: &Recording, _: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Unique, &recording.name);
    let mut changes: HashSet<Revision> = HashSet::new();
    let mut initial: HashMap<(&str, Option<&str>), Revision> = HashMap::new();
    let mut ready: Option<Revision> = None;
    for heard in &recording.heard {
        match &heard.note {
            Note::Event(seen) if seen.snapshot => {
                if seen.key.is_none() {
                    // What was given of the group is gone; what came after its deletion is told again.
                    initial.retain(|(group, _), _| *group != seen.group);
                }
                let before = initial.insert((&seen.group, seen.key.as_deref()), seen.revision);
                if let Some(before) = before.filter(|before| *before >= seen.revision) {
                    let what = format!("{} stands in the snapshot twice", seen.place());
                    findings.add([before, seen.revision], what);
                }
                if let Some(ready) = ready {
                    findings.add([ready, seen.revision], "an entry of the snapshot comes after its end");
                }
            }
            Note::Event(seen) => {
                if !changes.insert(seen.revision) {
                    findings.add([seen.revision], "comes twice");
                }
                if let Some(ready) = ready.filter(|ready| seen.revision <= *ready) {
                    findings.add([ready, seen.revision], "is in the snapshot, and comes again after it");
                }
            }
            Note::Ready(revision) => {
                if let Some(ready) = ready {
                    findings.add([ready, *revision], "the snapshot ends twice");
                }
                ready = Some(*revision);
            }
            // The snapshot begins again.
            Note::Lagged(_) | Note::Reset if ready.is_none() => initial.clear(),
            _ => {}
        }
    }
    findings.found
}

#[cfg(test)]
mod tests {
    use watchkeep::Kind;

    use super::super::made_up::*;
    use super::*;
    use crate::record::Seen;

    #[test]
    fn an_event_that_comes_twice_is_found() {
        let evidence = evidence(3);
        assert!(unique(&stream_of([1, 2, 3]), &evidence).is_empty());
        assert_eq!(unique(&stream_of([1, 2, 2, 3]), &evidence)[0].revisions, [at(2)]);
    }

    #[test]
    fn a_snapshot_that_repeats_itself_is_found() {
        let evidence = evidence(3);
        let begin = |revision| Note::Event(initial(revision));
        let good = stream([begin(1), begin(2), Note::Ready(at(2)), Note::Event(set(3))]);
        assert!(unique(&good, &evidence).is_empty());
        let again = stream([begin(1), lagged(1, 1), begin(1), Note::Ready(at(2))]);
        assert!(unique(&again, &evidence).is_empty());
        assert_eq!(unique(&stream([begin(1), begin(1), Note::Ready(at(2))]), &evidence).len(), 1);
        let gone = Seen { kind: Kind::DeleteGroup, key: None, ..initial(2) };
        let anew = stream([begin(1), Note::Event(gone), begin(1), Note::Ready(at(2))]);
        assert!(unique(&anew, &evidence).is_empty());
        let again = stream([begin(1), Note::Reset, begin(1), Note::Ready(at(2))]);
        assert!(unique(&again, &evidence).is_empty());
        let tail = stream([begin(1), Note::Ready(at(2)), Note::Event(set(2))]);
        assert_eq!(unique(&tail, &evidence).len(), 1);
    }
}
