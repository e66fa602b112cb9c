//! An entry is invisible from its deadline on, and its expiry is announced soon after.

use std::time::Duration;

use watchkeep::{Kind, Revision, Timestamp};

use super::{Findings, Promise, Violation};
use crate::record::{Evidence, Recording, Seen, Source};

/// An expiry that is handed out lies at or after its deadline.
pub fn expiry_on_time(recording: &Recording, _: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::ExpiryOnTime, &recording.name);
    let early = recording.changes().filter(|change| is_early(change)).map(|change| change.revision);
    findings.add_all(early.collect(), "expires before its deadline");
    findings.found
}

fn is_early(row: &Seen) -> bool {
    row.kind == Kind::Expire && row.deadline.is_none_or(|deadline| row.timestamp < deadline)
}

/// How long after its deadline each expiry was received, where the clock is the machine's.
pub fn delays(recording: &Recording, evidence: &Evidence) -> Vec<(Revision, Duration)> {
    let Some(began) = evidence.began else { return Vec::new() };
    let delay = |heard: &crate::record::Heard| {
        let seen = heard.event().filter(|seen| seen.kind == Kind::Expire)?;
        let at = i64::try_from(heard.span.returned.at.as_millis()).unwrap_or(i64::MAX);
        let received = Timestamp::from_millis(began.as_millis().saturating_add(at));
        Some((seen.revision, received.since(seen.deadline?)))
    };
    recording.heard.iter().filter_map(delay).collect()
}

/// Nothing expires before its deadline, nothing that is due stays unannounced, no consistent reading shows what is
/// due, and of a hundred expiries at most one is received later than the limit.
pub(super) fn of_run(recordings: &[Recording], evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::ExpiryOnTime, "the log");
    let early = evidence.log.rows().iter().filter(|row| is_early(row)).map(|row| row.revision);
    findings.add_all(early.collect(), "expires before its deadline");

    if let Some(settled) = evidence.settled {
        let state = evidence.log.state_at(evidence.log.last());
        let due = state.cells().filter(|(_, _, cell)| cell.is_due(settled)).map(|(_, _, cell)| cell.revision);
        findings.add_all(due.collect(), "is due, and its expiry is not announced");
    }
    for picture in &evidence.pictures {
        let Some(now) = picture.now else { continue };
        let state = evidence.log.state_at(picture.revision);
        let places = picture.entries.iter().filter_map(|(group, key, _)| state.cell(group, key));
        let shown = places.filter(|cell| cell.is_due(now)).map(|cell| cell.revision);
        findings.add_all(shown.collect(), format!("is due, and {} shows it", picture.name));
    }
    if let Some(limit) = evidence.expiry_limit {
        let watchers = recordings.iter().filter(|recording| recording.source == Source::Watcher);
        let mut delays: Vec<_> = watchers.flat_map(|recording| delays(recording, evidence)).collect();
        delays.sort_by_key(|(_, delay)| *delay);
        let rank = (delays.len() * 99).div_ceil(100).saturating_sub(1);
        if let Some((_, late)) = delays.get(rank).filter(|(_, late)| *late > limit) {
            let worst = delays.iter().skip(rank).map(|(revision, _)| *revision).collect();
            findings.add_all(
                worst,
                format!("{late:?} late at the 99th of a hundred, where {limit:?} is promised"),
            );
        }
    }
    findings.found
}

#[cfg(test)]
mod tests {
    use super::super::made_up::*;
    use super::*;
    use crate::record::{Log, Moment, Note, Picture, Span};

    fn expire(revision: u64, deadline: i64, at: i64) -> Seen {
        let (deadline, timestamp) = (Some(Timestamp::from_millis(deadline)), Timestamp::from_millis(at));
        Seen { kind: Kind::Expire, deadline, timestamp, ..set(revision) }
    }

    #[test]
    fn an_early_expiry_is_found() {
        let evidence = evidence(1);
        assert!(expiry_on_time(&stream([Note::Event(expire(1, 50, 50))]), &evidence).is_empty());
        assert_eq!(expiry_on_time(&stream([Note::Event(expire(1, 51, 50))]), &evidence).len(), 1);
        let log = Evidence::of(Log::new(vec![expire(1, 51, 50)]));
        assert_eq!(of_run(&[], &log).len(), 1);
    }

    #[test]
    fn an_expiry_that_never_comes_is_found() {
        let due = Seen { deadline: Some(Timestamp::from_millis(50)), ..set(1) };
        let mut evidence = Evidence::of(Log::new(vec![due]));
        evidence.settled = Some(Timestamp::from_millis(49));
        assert!(of_run(&[], &evidence).is_empty());
        evidence.settled = Some(Timestamp::from_millis(50));
        assert_eq!(of_run(&[], &evidence)[0].revisions, [at(1)]);

        evidence.settled = None;
        let entries = vec![("g".to_owned(), "k1".to_owned(), at(1))];
        let now = Some(Timestamp::from_millis(50));
        evidence.pictures = vec![Picture { name: "a snapshot".to_owned(), revision: at(1), entries, now }];
        assert_eq!(of_run(&[], &evidence).len(), 1);
    }

    #[test]
    fn a_late_expiry_is_found() {
        let mut evidence = evidence(1);
        evidence.began = Some(Timestamp::from_millis(1_000));
        evidence.expiry_limit = Some(Duration::from_millis(50));
        let heard_after = |millis| {
            let mut recording = stream([Note::Event(expire(1, 1_000, 1_000))]);
            let moment = Moment { tick: 5, at: Duration::from_millis(millis) };
            recording.heard[0].span = Span { called: moment, returned: moment };
            recording
        };
        assert!(of_run(&[heard_after(50)], &evidence).is_empty());
        assert_eq!(of_run(&[heard_after(51)], &evidence)[0].revisions, [at(1)]);
    }
}
