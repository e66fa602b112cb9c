//! What many rounds have shown.

use std::collections::BTreeMap;
use std::fmt;

use super::round::Round;
use crate::promises::{Promise, Violation};

/// What was held against one promise.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Streams that it is about.
    pub streams: usize,
    /// Events in them.
    pub events: usize,
    /// What broke it.
    pub violations: usize,
}

/// What many rounds have shown.
#[derive(Debug, Default, Clone)]
pub struct Report {
    /// Rounds that were run.
    pub rounds: usize,
    /// Streams that were recorded.
    pub streams: usize,
    /// Events that these were told of.
    pub events: usize,
    /// Writes that were made.
    pub writes: usize,
    /// Changes in the logs.
    pub logged: usize,
    /// Times that a stream was told of a loss.
    pub losses: usize,
    /// Readings of whole stores.
    pub pictures: usize,
    /// By promise.
    pub lines: BTreeMap<Promise, Line>,
    /// What broke a promise, with the seed.
    pub violations: Vec<(u64, Violation)>,
    /// What went wrong otherwise, with the seed.
    pub faults: Vec<(u64, String)>,
}

impl Report {
    /// Takes a round in; whether it was without fault.
    pub fn add(&mut self, round: &Round) -> bool {
        self.rounds += 1;
        self.streams += round.recordings.len();
        self.writes += round.evidence.writes.len();
        self.logged += round.evidence.log.rows().len();
        self.pictures += round.evidence.pictures.len();
        for recording in &round.recordings {
            let events = recording.heard.iter().filter(|heard| heard.event().is_some()).count();
            self.events += events;
            self.losses += recording.losses().count();
            for promise in Promise::ALL.into_iter().filter(|promise| promise.concerns(recording)) {
                let line = self.lines.entry(promise).or_default();
                line.streams += 1;
                line.events += events;
            }
        }
        let violations = round.violations();
        let clean = violations.is_empty() && round.faults.is_empty();
        for violation in violations {
            self.lines.entry(violation.promise).or_default().violations += 1;
            self.violations.push((round.seed, violation));
        }
        self.faults.extend(round.faults.iter().map(|fault| (round.seed, fault.clone())));
        clean
    }

    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.faults.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<20} {:>9} {:>12} {:>11}", "promise", "streams", "events", "violations")?;
        for (promise, line) in &self.lines {
            writeln!(f, "{promise:<20} {:>9} {:>12} {:>11}", line.streams, line.events, line.violations)?;
        }
        let Report { rounds, streams, events, writes, logged, losses, pictures, .. } = self;
        writeln!(
            f,
            "{rounds} rounds: {writes} writes, {logged} changes in the logs, {streams} streams, {events} events, \
             {losses} losses told, {pictures} readings of everything; {} violations, {} faults",
            self.violations.len(),
            self.faults.len()
        )?;
        for (seed, violation) in &self.violations {
            writeln!(f, "seed {seed}: {violation}")?;
        }
        for (seed, fault) in &self.faults {
            writeln!(f, "seed {seed}: {fault}")?;
        }
        Ok(())
    }
}
