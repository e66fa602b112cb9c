//! Whoever has received an event reads that revision or a later one.

use watchkeep::{Kind, Revision};

use super::{Findings, Promise, Violation};
use crate::record::{Evidence, Heard, Reading, Recording, Seen};

/// Right after an event its entry was read: what came back is a state of that entry at or after the event.
pub fn visible(recording: &Recording, evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Visible, &recording.name);
    for heard in &recording.heard {
        let Heard { reading: Some(reading), .. } = heard else { continue };
        let Some(seen) = heard.event() else { continue };
        if reading.last < seen.revision {
            findings.add([seen.revision, reading.last], "its reader finds the store before it");
        }
        let Some(found) = reading.entry else { continue };
        if !explained(recording, evidence, seen, found, reading) {
            let found = found.map_or_else(|| "nothing".to_owned(), |found| format!("revision {found}"));
            findings.add([seen.revision], format!("its reader finds {found} at {}", seen.place()));
        }
    }
    findings.found
}

/// Whether the entry was like this at some moment from the event on to the end of the reading.
fn explained(
    recording: &Recording,
    evidence: &Evidence,
    seen: &Seen,
    found: Option<Revision>,
    reading: &Reading,
) -> bool {
    let Some(key) = &seen.key else { return true };
    let here = |row: &&Seen| {
        let local = recording.spec.want.local(&row.group);
        local == Some(&seen.group) && row.key.as_ref().is_none_or(|name| name == key)
    };
    // The state just after the event: its own revision for what was set, the one before for what was touched.
    let before = Revision::new(seen.revision.get().saturating_sub(1));
    let mut current = match seen.kind {
        Kind::Touch => {
            let rows = evidence.log.between(Revision::ZERO, before).iter().rev();
            rows.filter(here).find(|row| row.kind != Kind::Touch).map(|row| (row.revision, row.deadline))
        }
        _ => None,
    };
    for row in evidence.log.between(before, reading.after).iter().filter(here) {
        current = match (row.kind, current) {
            (Kind::Set, _) => Some((row.revision, row.deadline)),
            (Kind::Touch, current) => current.map(|(revision, _)| (revision, row.deadline)),
            _ => None,
        };
        let hidden = current.is_some_and(|(_, deadline)| deadline.is_some_and(|at| at <= reading.now));
        if found == current.map(|(revision, _)| revision) || (found.is_none() && hidden) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::made_up::*;
    use super::*;
    use crate::record::Log;

    #[test]
    fn a_reader_that_finds_what_was_before_is_found() {
        let mut evidence = evidence(3);
        let again = Seen { key: Some("k1".to_owned()), ..set(3) };
        evidence.log = Log::new(vec![set(1), set(2), again]);
        let read = |entry, last, after| {
            let mut recording = stream_of([1]);
            let (last, after) = (at(last), at(after));
            recording.heard[0].reading =
                Some(Reading { last, after, entry: Some(entry), ..Reading::default() });
            visible(&recording, &evidence).len()
        };
        assert_eq!(read(Some(at(1)), 1, 2), 0);
        assert_eq!(read(Some(at(3)), 1, 3), 0);
        assert_eq!(read(Some(at(3)), 1, 2), 1);
        assert_eq!(read(None, 1, 3), 1);
        assert_eq!(read(Some(at(1)), 0, 3), 1);
    }
}
