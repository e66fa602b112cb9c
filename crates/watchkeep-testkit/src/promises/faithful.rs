//! What is delivered is what happened.

use watchkeep::{Kind, Revision};

use super::{Findings, Promise, Violation};
use crate::record::{Evidence, Recording, Seen};

/// Each event is its row of the log, asked for by the filter, with what was asked to come with it and without what
/// was not.
pub fn faithful(recording: &Recording, evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Faithful, &recording.name);
    for seen in recording.heard.iter().filter_map(|heard| heard.event()) {
        let Some(row) = evidence.log.get(seen.revision) else { continue };
        if !wanted(recording, seen, row) {
            findings.add([seen.revision], format!("{} {} was not asked for", seen.kind, row.place()));
            continue;
        }
        let expected = view(recording, seen, row);
        if seen != &expected {
            findings.add([seen.revision], format!("is handed out as {seen:?} and should be {expected:?}"));
        }
        if !previous_value(recording, evidence, seen) {
            let what = format!("comes with the value before it as {:?}", seen.previous_value);
            findings.add([seen.revision], what);
        }
    }
    findings.found
}

/// An entry of a beginning need only be covered: it is state, whoever wrote it.
fn wanted(recording: &Recording, seen: &Seen, row: &Seen) -> bool {
    let want = &recording.spec.want;
    if seen.snapshot { want.covers(&row.group, row.key.as_deref()) } else { want.wants(row) }
}

/// The row as this stream should show it. The value before is looked at apart.
fn view(recording: &Recording, seen: &Seen, row: &Seen) -> Seen {
    let group = recording.spec.want.local(&row.group).unwrap_or(&row.group).to_owned();
    let value = if recording.spec.keys_only { None } else { row.value.clone() };
    let view = Seen { group, value, previous_value: seen.previous_value.clone(), ..row.clone() };
    if !seen.snapshot {
        return view;
    }
    // An entry stands for itself, says neither who wrote it nor what was there before, and its deadline may have been
    // touched; a change that came while the snapshot was given is whole.
    if seen.commit != seen.revision {
        return Seen { snapshot: true, ..view };
    }
    let (commit, origin, previous) = (row.revision, seen.origin.clone(), seen.previous);
    Seen { commit, origin, previous, deadline: seen.deadline, snapshot: true, ..view }
}

/// The value of the revision before, when it was asked for; it may be absent only when it was trimmed.
fn previous_value(recording: &Recording, evidence: &Evidence, seen: &Seen) -> bool {
    let Some(value) = &seen.previous_value else {
        let trimmed = |previous: Revision| previous < evidence.floor;
        let due = recording.spec.previous_values && !seen.snapshot && seen.kind != Kind::Touch;
        return !due || seen.previous.is_none_or(trimmed);
    };
    let before = seen.previous.and_then(|previous| evidence.log.get(previous));
    recording.spec.previous_values && before.and_then(|row| row.value.as_ref()) == Some(value)
}

#[cfg(test)]
mod tests {
    use watchkeep::Value;

    use super::super::made_up::*;
    use super::*;
    use crate::record::{Note, Target, Want};

    #[test]
    fn an_event_that_differs_from_its_row_is_found() {
        let evidence = evidence(2);
        assert!(faithful(&stream_of([1, 2]), &evidence).is_empty());
        let other = Seen { value: Some(Value::from("other")), ..set(1) };
        assert_eq!(faithful(&stream([Note::Event(other)]), &evidence).len(), 1);
        let mut keys = stream_of([1]);
        keys.spec.keys_only = true;
        assert_eq!(faithful(&keys, &evidence).len(), 1);
    }

    #[test]
    fn an_event_that_nobody_asked_for_is_found() {
        let mut recording = stream_of([1, 2]);
        recording.spec.want = Want::new(Target::Key("g".to_owned(), "k1".to_owned()));
        assert_eq!(faithful(&recording, &evidence(2))[0].revisions, [at(2)]);
    }

    #[test]
    fn a_wrong_value_before_is_found() {
        let mut evidence = evidence(2);
        let with = |value: Option<&str>| Seen {
            key: Some("k1".to_owned()),
            previous: Some(at(1)),
            previous_value: value.map(Value::from),
            ..set(2)
        };
        evidence.log = crate::record::Log::new(vec![set(1), with(None)]);
        let judge = |value, asked, floor| {
            let mut recording = stream([Note::Event(with(value))]);
            recording.spec.previous_values = asked;
            faithful(&recording, &Evidence { floor: at(floor), ..evidence.clone() }).len()
        };
        assert_eq!((judge(Some("v1"), true, 1), judge(None, false, 1), judge(None, true, 2)), (0, 0, 0));
        assert_eq!(
            (judge(Some("v2"), true, 1), judge(None, true, 1), judge(Some("v1"), false, 1)),
            (1, 1, 1)
        );
    }
}
