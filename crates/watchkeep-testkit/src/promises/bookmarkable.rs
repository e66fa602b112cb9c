//! Progress marks are true.

use watchkeep::Revision;

use super::{Findings, Promise, Violation, missing};
use crate::record::{Evidence, Note, Recording};

/// Marks do not go back; nothing up to a mark comes after it, nothing before it is missing, and no mark lies ahead
/// of the log. Only who asked for marks gets them.
pub fn bookmarkable(recording: &Recording, evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Bookmarkable, &recording.name);
    let mut mark: Option<Revision> = None;
    let mut last_mark = None;
    for heard in &recording.heard {
        match &heard.note {
            Note::Progress(revision) | Note::Ready(revision) => {
                let (revision, progress) = (*revision, matches!(heard.note, Note::Progress(_)));
                if progress && recording.spec.progress.is_none() {
                    findings.add([revision], "a mark that nobody asked for");
                }
                if let Some(before) = mark.filter(|before| revision < *before) {
                    findings.add([before, revision], "a mark that goes back");
                }
                // A stream that begins ahead of the log has seen all that it will of what lies before.
                if revision > evidence.log.last().max(recording.start) {
                    findings.add([revision, evidence.log.last()], "a mark that lies ahead of the log");
                }
                mark = Some(mark.map_or(revision, |mark| mark.max(revision)));
                last_mark = mark.filter(|_| progress).or(last_mark);
            }
            Note::Event(seen) if !seen.snapshot => {
                if let Some(mark) = mark.filter(|mark| seen.revision <= *mark) {
                    findings.add([mark, seen.revision], "comes after a mark that says it was seen");
                }
            }
            _ => {}
        }
    }
    // Nothing up to a mark comes after it, so what is missing before the last one is missing before its own.
    if let Some(mark) = last_mark.filter(|_| recording.is_whole()) {
        let gap = missing(recording, evidence, recording.owes_after().unwrap_or(mark), mark);
        findings.add_all(gap, format!("missing, though a mark at {mark} says that it was seen"));
    }
    findings.found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::made_up::*;
    use super::*;

    fn marked(notes: Vec<Note>) -> Vec<Violation> {
        let mut recording = stream(notes);
        recording.spec.progress = Some(Duration::from_millis(1));
        bookmarkable(&recording, &evidence(3))
    }

    #[test]
    fn a_false_mark_is_found() {
        let event = |revision| Note::Event(set(revision));
        let mark = |revision| Note::Progress(at(revision));
        assert!(marked(vec![event(1), mark(1), event(2), event(3), mark(3)]).is_empty());
        assert_eq!(marked(vec![event(1), mark(2)])[0].revisions, [at(2)]);
        assert_eq!(marked(vec![event(1), event(2), mark(2), mark(1)]).len(), 1);
        assert!(!marked(vec![event(1), mark(2), event(2)]).is_empty());
        assert!(!marked(vec![event(1), event(2), event(3), mark(4)]).is_empty());
        let unasked = stream([event(1), mark(1)]);
        assert_eq!(bookmarkable(&unasked, &evidence(1)).len(), 1);
    }
}
