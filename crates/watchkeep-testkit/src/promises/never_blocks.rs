//! No watcher, slow or dead, delays a writer or makes memory grow beyond its buffer.

use watchkeep::LagPolicy;

use super::{Findings, Promise, Violation};
use crate::record::{Beginning, Evidence, Heard, Recording, Source};

/// A stream that drops what finds its buffer full has no more than a buffer's worth left when the writers are done.
pub fn never_blocks(recording: &Recording, evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::NeverBlocks, &recording.name);
    let live = recording.spec.policy == LagPolicy::Drop
        && recording.source == Source::Watcher
        && recording.spec.beginning == Beginning::Now;
    if let Some(quiet) = evidence.quiet.get(&recording.hub).filter(|_| live) {
        let left = recording.heard.iter().filter(|heard| heard.span.called > *quiet);
        let left: Vec<_> = left.filter_map(Heard::event).map(|seen| seen.revision).collect();
        // One may be out of the buffer already, and wait in the reader for the value before it.
        let most = recording.spec.buffer + usize::from(recording.spec.previous_values);
        if left.len() > most {
            let what = format!("held {} events in a buffer of {}", left.len(), recording.spec.buffer);
            findings.add(left, what);
        }
    }
    findings.found
}

/// No write took longer than the limit.
pub(super) fn of_writes(evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::NeverBlocks, "the writes");
    let Some(limit) = evidence.write_limit else { return findings.found };
    for write in evidence.writes.values().filter(|write| write.span.duration() > limit) {
        findings.add([], format!("{} took {:?}", write.label, write.span.duration()));
    }
    findings.found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::made_up::*;
    use super::*;
    use crate::record::Moment;

    #[test]
    fn more_than_a_buffer_is_found() {
        let mut evidence = evidence(3);
        evidence.quiet.insert(0, Moment::tick(0));
        let mut recording = stream_of([1, 2, 3]);
        recording.spec.policy = LagPolicy::Drop;
        assert!(never_blocks(&recording, &evidence).is_empty());
        recording.spec.buffer = 2;
        assert_eq!(never_blocks(&recording, &evidence).len(), 1);
    }

    #[test]
    fn a_write_that_took_too_long_is_found() {
        let mut evidence = evidence(1);
        evidence.write_limit = Some(Duration::from_secs(1));
        assert!(of_writes(&evidence).is_empty());
        if let Some(write) = evidence.writes.get_mut("w1") {
            write.span.returned.at = Duration::from_secs(2);
        }
        assert_eq!(of_writes(&evidence).len(), 1);
    }
}
