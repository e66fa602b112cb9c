//! What rounds of a fault came to.

use std::fmt;

/// Something that a round found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The seed that shows it again.
    pub seed: u64,
    /// What it is.
    pub what: String,
}

/// A row of the report: rounds of one fault, and what they came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Row {
    /// How many cuts, points or flips.
    pub rounds: u64,
    /// How many of them did something to the store: lost data that may be lost, failed a call, were detected.
    pub met: u64,
    /// How many of them broke a promise.
    pub broken: u64,
    /// The first of those.
    pub wrong: Vec<Wrong>,
}

impl Row {
    /// More than this many say nothing new.
    const MOST: usize = 8;

    /// Adds a round that kept all promises.
    pub fn fine(&mut self, met: bool) {
        self.rounds += 1;
        self.met += u64::from(met);
    }

    /// Adds a round that did not.
    pub fn wrong(&mut self, seed: u64, what: String) {
        self.rounds += 1;
        self.broken += 1;
        if self.wrong.len() < Row::MOST {
            self.wrong.push(Wrong { seed, what });
        }
    }

    /// Adds what other rounds came to.
    pub fn add(&mut self, other: Row) {
        self.rounds += other.rounds;
        self.met += other.met;
        self.broken += other.broken;
        let room = Row::MOST.saturating_sub(self.wrong.len());
        self.wrong.extend(other.wrong.into_iter().take(room));
    }

    /// Whether nothing was wrong, and something was tried.
    pub fn is_clean(&self) -> bool {
        self.rounds > 0 && self.broken == 0
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rounds, {} of them met the store, {} wrong", self.rounds, self.met, self.broken)?;
        self.wrong.iter().try_for_each(|wrong| write!(f, "\n  seed {}: {}", wrong.seed, wrong.what))
    }
}
