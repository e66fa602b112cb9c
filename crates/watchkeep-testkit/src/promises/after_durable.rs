//! An event is delivered only after its commit is durable at the file's level.

use std::collections::HashMap;

use watchkeep::Revision;

use super::{Findings, Promise, Violation};
use crate::record::{Evidence, Fate, Recording};

/// What was received stands in the log, and stood in the file already when it was received: another handle that
/// was asked right then had come as far. (With full durability SQLite shows a commit to others only after its sync;
/// that it also survives a power cut is shown with a simulated disk, not here.)
pub fn after_durable(recording: &Recording, evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::AfterDurable, &recording.name);
    for heard in &recording.heard {
        let Some(seen) = heard.event() else { continue };
        if evidence.log.get(seen.revision).is_none() {
            findings.add([seen.revision], "was delivered, and is not in the log");
        }
        if let Some(reading) = heard.reading.as_ref().filter(|reading| reading.last < seen.revision) {
            findings.add([seen.revision, reading.last], "was delivered when the file had not come so far");
        }
    }
    findings.found
}

/// What was acknowledged is in the log under its revision, and after each restart the log holds what it held before,
/// but for what was trimmed from its beginning.
pub(super) fn of_run(evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::AfterDurable, "the log");
    for life in &evidence.lives {
        let Some(first) = life.rows().first() else { continue };
        let before = Revision::new(first.revision.get().saturating_sub(1));
        let expected = evidence.log.between(before, life.last()).iter();
        let lost = expected.filter(|row| life.get(row.revision).is_none()).map(|row| row.revision);
        findings.add_all(lost.collect(), "was in the log before the restart, and is not after it");
    }
    let mut logged: HashMap<&str, Revision> = HashMap::new();
    for row in evidence.log.rows() {
        if let Some(label) = &row.origin {
            logged.insert(label, row.commit);
        }
    }
    for write in evidence.writes.values() {
        let Fate::Done(Some(said)) = write.fate else { continue };
        let found = logged.get(write.label.as_str()).copied();
        if found.unwrap_or(said) != said || (said > Revision::ZERO && evidence.log.get(said).is_none()) {
            findings.add([said], format!("was given for {}, which the log has at {found:?}", write.label));
        }
    }
    findings.found
}

#[cfg(test)]
mod tests {
    use super::super::made_up::*;
    use super::*;
    use crate::record::{Log, Reading};

    #[test]
    fn an_event_that_the_file_does_not_hold_is_found() {
        let evidence = evidence(2);
        assert!(after_durable(&stream_of([1, 2]), &evidence).is_empty());
        assert_eq!(after_durable(&stream_of([1, 2, 3]), &evidence)[0].revisions, [at(3)]);
    }

    #[test]
    fn an_event_that_came_before_its_commit_is_found() {
        let evidence = evidence(2);
        let mut recording = stream_of([2]);
        recording.heard[0].reading = Some(Reading { last: at(2), ..Reading::default() });
        assert!(after_durable(&recording, &evidence).is_empty());
        recording.heard[0].reading = Some(Reading { last: at(1), ..Reading::default() });
        assert_eq!(after_durable(&recording, &evidence).len(), 1);
    }

    #[test]
    fn a_restart_that_loses_something_is_found() {
        let mut evidence = evidence(3);
        evidence.lives = vec![Log::new(vec![set(2), set(3)])];
        assert!(of_run(&evidence).is_empty());
        evidence.lives = vec![Log::new(vec![set(1), set(3)])];
        assert_eq!(of_run(&evidence)[0].revisions, [at(2)]);
    }

    #[test]
    fn an_acknowledged_write_that_is_elsewhere_is_found() {
        let mut evidence = evidence(2);
        assert!(of_run(&evidence).is_empty());
        if let Some(write) = evidence.writes.get_mut("w1") {
            write.fate = Fate::Done(Some(at(2)));
        }
        assert_eq!(of_run(&evidence).len(), 1);
        if let Some(write) = evidence.writes.get_mut("w1") {
            write.fate = Fate::Done(Some(at(3)));
        }
        assert_eq!(of_run(&evidence).len(), 1);
    }
}
