//! Transactions stay whole.

use std::collections::{BTreeMap, HashMap};

use watchkeep::{Kind, Revision};

use super::{Findings, Promise, Violation};
use crate::record::{Evidence, Fate, Note, Picture, Recording, Seen};

/// Each event names the last revision of its transaction, a beginning is as of the end of one, and nothing is seen of
/// what was rolled back.
pub fn atomic(recording: &Recording, evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Atomic, &recording.name);
    for heard in &recording.heard {
        match &heard.note {
            Note::Event(seen) if !seen.snapshot => {
                let commit = evidence.log.get(seen.revision).map(|row| row.commit);
                if commit.is_some_and(|commit| commit != seen.commit) {
                    findings.add(
                        [seen.revision, seen.commit],
                        "names another end of its transaction than the log",
                    );
                }
                if seen.revision > seen.commit {
                    findings.add([seen.revision, seen.commit], "names an end that lies before it");
                }
                if rolled_back(evidence, seen) {
                    findings.add([seen.revision], "is of a write that was refused or rolled back");
                }
            }
            Note::Ready(revision) if !evidence.log.is_boundary(*revision) => {
                findings.add([*revision], "the snapshot ends in the middle of a transaction");
            }
            _ => {}
        }
    }
    findings.found
}

/// Whether it was made by a write of which nothing may be left. What was due and made room for it stays gone.
fn rolled_back(evidence: &Evidence, row: &Seen) -> bool {
    row.kind != Kind::Expire && evidence.write_of(row).is_some_and(|write| write.fate == Fate::Undone)
}

/// The transactions of the log follow one another without mixing, each write is in one of them, nothing was rolled
/// back, and consistent readings equal what the log leads to.
pub(super) fn of_log_and_pictures(evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Atomic, "the log");
    let mut before: Option<&Seen> = None;
    for row in evidence.log.rows() {
        if let Some(before) = before.filter(|before| before.commit > before.revision)
            && before.commit != row.commit
        {
            findings.add([before.revision, row.revision], "a transaction is interrupted");
        }
        if rolled_back(evidence, row) {
            findings.add([row.revision], "is of a write that was refused or rolled back");
        }
        before = Some(row);
    }
    if let Some(last) = before.filter(|last| last.commit != last.revision) {
        findings.add([last.revision, last.commit], "the log ends in the middle of a transaction");
    }
    let mut commits: HashMap<&str, Revision> = HashMap::new();
    for row in evidence.log.rows().iter().filter(|row| evidence.write_of(row).is_some()) {
        let Some(label) = &row.origin else { continue };
        let commit = *commits.entry(label).or_insert(row.commit);
        if commit != row.commit {
            findings.add([commit, row.commit], format!("{label} is one write, in two transactions"));
        }
    }
    let mut pictures: Vec<&Picture> = evidence.pictures.iter().collect();
    pictures.sort_by_key(|picture| picture.revision);
    for picture in pictures {
        compare(picture, evidence, &mut findings);
    }
    findings.found
}

fn compare(picture: &Picture, evidence: &Evidence, findings: &mut Findings) {
    if !evidence.log.is_boundary(picture.revision) {
        findings.add([picture.revision], format!("{} reads half of a transaction", picture.name));
        return;
    }
    let state = evidence.log.state_at(picture.revision);
    let mut read: BTreeMap<(&str, &str), Revision> = BTreeMap::new();
    for (group, key, revision) in &picture.entries {
        read.insert((group, key), *revision);
    }
    for (group, key, cell) in state.cells() {
        let hidden = || cell.is_due(picture.now.unwrap_or(evidence.latest));
        match read.remove(&(group, key)) {
            Some(revision) if revision == cell.revision => {}
            None if hidden() => {}
            other => {
                let other = other.map_or_else(|| "nothing".to_owned(), |other| format!("revision {other}"));
                let what = format!("{} reads {other} at {group:?}/{key:?}", picture.name);
                findings.add([picture.revision, cell.revision], what);
            }
        }
    }
    for ((group, key), revision) in read {
        let what = format!("{} reads {group:?}/{key:?}, which is not there", picture.name);
        findings.add([picture.revision, revision], what);
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::*;
    use super::*;
    use crate::record::Log;

    /// Revision 1 alone, 2 and 3 together.
    fn together() -> Evidence {
        let mut rows = log(3).rows().to_vec();
        rows[1].commit = at(3);
        Evidence { log: Log::new(rows), ..evidence(3) }
    }

    fn pair(revision: u64) -> Note {
        Note::Event(Seen { commit: at(3), ..set(revision) })
    }

    #[test]
    fn an_event_that_names_another_transaction_is_found() {
        let evidence = together();
        assert!(atomic(&stream([Note::Event(set(1)), pair(2), pair(3)]), &evidence).is_empty());
        assert_eq!(atomic(&stream([Note::Event(set(2)), pair(3)]), &evidence).len(), 1);
    }

    #[test]
    fn a_snapshot_of_half_a_transaction_is_found() {
        let evidence = together();
        assert_eq!(atomic(&stream([Note::Ready(at(2))]), &evidence).len(), 1);
        assert!(atomic(&stream([Note::Ready(at(3))]), &evidence).is_empty());
    }

    #[test]
    fn what_was_rolled_back_is_found() {
        let mut evidence = together();
        assert!(of_log_and_pictures(&evidence).is_empty());
        if let Some(write) = evidence.writes.get_mut("w1") {
            write.fate = Fate::Undone;
        }
        assert_eq!(atomic(&stream([Note::Event(set(1))]), &evidence).len(), 1);
        assert_eq!(of_log_and_pictures(&evidence).len(), 1);
    }

    #[test]
    fn a_log_whose_transactions_mix_is_found() {
        let mut rows = log(3).rows().to_vec();
        rows[0].commit = at(3);
        let evidence = Evidence::of(Log::new(rows));
        assert!(!of_log_and_pictures(&evidence).is_empty());
        let mut rows = log(2).rows().to_vec();
        rows[1].commit = at(3);
        assert!(!of_log_and_pictures(&Evidence::of(Log::new(rows))).is_empty());
    }

    #[test]
    fn a_write_that_is_torn_apart_is_found() {
        let mut rows = log(3).rows().to_vec();
        rows[2].origin = rows[1].origin.clone();
        let mut evidence = Evidence { log: Log::new(rows.clone()), ..evidence(3) };
        assert_eq!(of_log_and_pictures(&evidence)[0].revisions, [at(2), at(3)]);
        rows[1].commit = at(3);
        evidence.log = Log::new(rows);
        assert!(of_log_and_pictures(&evidence).is_empty());
    }

    #[test]
    fn a_reading_that_differs_from_the_log_is_found() {
        let mut evidence = together();
        let entry = |revision: u64| ("g".to_owned(), format!("k{revision}"), at(revision));
        let picture = |revision, entries: &[u64]| Picture {
            name: "a snapshot".to_owned(),
            revision: at(revision),
            entries: entries.iter().copied().map(entry).collect(),
            now: None,
        };
        evidence.pictures = vec![picture(1, &[1]), picture(3, &[1, 2, 3])];
        assert!(of_log_and_pictures(&evidence).is_empty());
        for bad in [picture(2, &[1, 2]), picture(3, &[1, 2]), picture(1, &[1, 2])] {
            evidence.pictures = vec![bad];
            assert_eq!(of_log_and_pictures(&evidence).len(), 1);
        }
    }
}
