//! When a write returns, every live local watcher with room holds its event, and every callback has run for it.

use std::collections::HashMap;

use watchkeep::Revision;

use super::{Findings, Promise, Violation};
use crate::record::{End, Evidence, Moment, Note, Recording, Seen, Source, Write};

/// A watcher that had nothing, asked after a write had returned, has handed that write's events out before; one
/// that reads on from the log has nothing only when it has come to the end. A callback ran before the write that
/// it was called for returned. Only writes through the same opened store are held against a stream.
pub fn before_return(recording: &Recording, evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::BeforeReturn, &recording.name);
    if !recording.is_whole() {
        return findings.found;
    }
    match recording.source {
        Source::Watcher => watcher(recording, evidence, &mut findings),
        Source::Callback => callback(recording, evidence, &mut findings),
    }
    findings.found
}

/// The events that were written while the stream was there, with their writes.
fn written<'a>(
    recording: &'a Recording,
    evidence: &'a Evidence,
) -> impl Iterator<Item = (&'a Seen, &'a Write)> {
    let after = recording.owes_after();
    let rows = evidence.log.rows().iter().filter(move |row| after.is_some_and(|after| row.revision > after));
    let rows = rows.filter(|row| recording.spec.want.wants(row));
    let writes = rows.filter_map(|row| Some((row, evidence.write_of(row)?)));
    writes.filter(|(row, write)| {
        write.hub == recording.hub
            && write.span.called > recording.armed.returned
            && !recording.lost(row.revision)
    })
}

fn watcher(recording: &Recording, evidence: &Evidence, findings: &mut Findings) {
    // When it last had nothing before each revision came, and when at all.
    let mut empty = None;
    let mut emptied: HashMap<Revision, Option<Moment>> = HashMap::new();
    for heard in &recording.heard {
        match &heard.note {
            Note::Empty => empty = Some(heard.span.called),
            Note::Event(seen) => drop(emptied.insert(seen.revision, empty)),
            _ => {}
        }
    }
    let late = written(recording, evidence).filter(|(row, write)| {
        let nothing = emptied.get(&row.revision).copied().unwrap_or(empty);
        nothing.is_some_and(|nothing| nothing > write.span.returned)
    });
    findings.add_all(
        late.map(|(row, _)| row.revision).collect(),
        "the write returned, and the watcher had nothing",
    );
}

fn callback(recording: &Recording, evidence: &Evidence, findings: &mut Findings) {
    let runs: HashMap<Revision, Moment> = recording
        .heard
        .iter()
        .filter_map(|heard| Some((heard.event()?.revision, heard.span.returned)))
        .collect();
    let mut late = Vec::new();
    for (row, write) in written(recording, evidence) {
        let Some(by) = evidence.callbacks_by(write) else { continue };
        if matches!(recording.end, End::Left(left) if left < by) {
            continue;
        }
        if runs.get(&row.revision).is_none_or(|ran| *ran > by) {
            late.push(row.revision);
        }
    }
    findings.add_all(late, "the write returned before the callback had run");
}

#[cfg(test)]
mod tests {
    use super::super::made_up::*;
    use super::*;
    use crate::record::{Heard, Span};

    #[test]
    fn a_watcher_that_has_nothing_after_a_write_returned_is_found() {
        let evidence = evidence(2);
        let event = |tick, revision| heard(tick, Note::Event(set(revision)));
        let with = |notes: Vec<Heard>| {
            let mut recording = stream([]);
            recording.heard = notes;
            recording
        };
        // The writes return at 15 and 25.
        let good = with(vec![heard(14, Note::Empty), event(16, 1), heard(17, Note::Empty), event(26, 2)]);
        assert!(before_return(&good, &evidence).is_empty());
        let late = with(vec![heard(16, Note::Empty), event(17, 1), event(26, 2)]);
        assert_eq!(before_return(&late, &evidence)[0].revisions, [at(1)]);
        let never = with(vec![event(16, 1), heard(26, Note::Empty)]);
        assert_eq!(before_return(&never, &evidence)[0].revisions, [at(2)]);
    }

    #[test]
    fn a_callback_that_runs_after_the_return_is_found() {
        let evidence = evidence(1);
        let mut recording = stream([]);
        recording.source = Source::Callback;
        let run = |from, to| Heard { note: Note::Event(set(1)), span: Span::ticks(from, to), reading: None };
        recording.heard = vec![run(11, 14)];
        assert!(before_return(&recording, &evidence).is_empty());
        recording.heard = vec![run(11, 16)];
        assert_eq!(before_return(&recording, &evidence).len(), 1);
        recording.heard.clear();
        assert_eq!(before_return(&recording, &evidence).len(), 1);
        recording.end = End::Left(Moment::tick(12));
        assert!(before_return(&recording, &evidence).is_empty());
    }

    #[test]
    fn what_a_callback_wrote_is_due_when_the_write_returns_that_it_goes_back_to() {
        let mut evidence = evidence(3);
        // The callback for 1 writes 2, whose callback writes 3; the write that made 1 returns at 50.
        let spans = [(1, 10, 50, None), (2, 15, 20, Some(1)), (3, 30, 35, Some(2))];
        for (revision, called, returned, cause) in spans {
            let write = evidence.writes.get_mut(&format!("w{revision}")).unwrap();
            (write.span, write.cause) = (Span::ticks(called, returned), cause.map(at));
        }
        let mut recording = stream([]);
        recording.source = Source::Callback;
        let run = |number, from, to| Heard {
            note: Note::Event(set(number)),
            span: Span::ticks(from, to),
            reading: None,
        };
        recording.heard = vec![run(1, 12, 22), run(2, 25, 37), run(3, 40, 45)];
        assert!(before_return(&recording, &evidence).is_empty());
        recording.heard[2] = run(3, 40, 51);
        assert_eq!(before_return(&recording, &evidence)[0].revisions, [at(3)]);
        // Nobody waits in this store for what another store's event brought about.
        evidence.writes.get_mut("w1").unwrap().hub = 1;
        assert!(before_return(&recording, &evidence).is_empty());
    }
}
