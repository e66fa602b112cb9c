//! What rounds of a fault came to.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;

/// Something that a round found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The seed that shows it again.
    pub seed: u64,
    /// What it is.
    pub what: String,
}

/// A row of the report: rounds of one fault, and what they came to.
///
/// As text, without what is wrong, it is one line that can be read back.
///
/// ```
/// use watchkeep_testkit::faults::Row;
///
/// let mut row = Row::default();
/// row.fine(["lost"]);
/// row.fine([]);
/// assert_eq!(row.to_string(), "rounds=2 wrong=0 lost=1");
/// assert_eq!(row.to_string().parse::<Row>()?, row);
/// # Ok::<(), watchkeep_testkit::surface::Fault>(())
/// ```
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Row {
    /// How many cuts, points or flips.
    pub rounds: u64,
    /// How many of them broke a promise.
    pub broken: u64,
    /// How many of the others came to something worth counting.
    pub counts: BTreeMap<String, u64>,
    /// The first that broke a promise.
    pub wrong: Vec<Wrong>,
}

impl Row {
    /// More than this many say nothing new.
    const MOST: usize = 8;

    /// Adds a round that kept all promises.
    pub fn fine<'w>(&mut self, worth_counting: impl IntoIterator<Item = &'w str>) {
        self.rounds += 1;
        worth_counting.into_iter().for_each(|what| self.note(what, 1));
    }

    /// Counts something that is worth it.
    pub fn note(&mut self, what: &str, count: u64) {
        *self.counts.entry(what.to_owned()).or_default() += count;
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
        self.broken += other.broken;
        other.counts.iter().for_each(|(what, count)| self.note(what, *count));
        let room = Row::MOST.saturating_sub(self.wrong.len());
        self.wrong.extend(other.wrong.into_iter().take(room));
    }

    /// Prints it as a line that `scripts/evidence` reads, where a size was asked for.
    pub fn print(&self, name: &str) {
        if std::env::var_os(crate::size::VARIABLE).is_some() {
            // Nothing can be done about a standard output that is closed.
            let _ = writeln!(std::io::stdout(), "evidence: {name} {self}");
        }
    }

    /// How many rounds came to this.
    pub fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// What is wrong, unless nothing is and something was tried.
    pub fn problem(&self) -> Option<String> {
        let wrong: Vec<_> =
            self.wrong.iter().map(|Wrong { seed, what }| format!("seed {seed}: {what}")).collect();
        (self.rounds == 0 || self.broken > 0).then(|| format!("{self}\n{}", wrong.join("\n")))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rounds={} wrong={}", self.rounds, self.broken)?;
        self.counts.iter().try_for_each(|(what, count)| write!(f, " {what}={count}"))
    }
}

impl std::str::FromStr for Row {
    type Err = crate::surface::Fault;

    fn from_str(text: &str) -> Result<Row, Self::Err> {
        let mut row = Row::default();
        for part in text.split_whitespace() {
            let (what, count) = part.split_once('=').ok_or_else(|| format!("{part:?} is no count"))?;
            match (what, count.parse()?) {
                ("rounds", count) => row.rounds = count,
                ("wrong", count) => row.broken = count,
                (what, count) => drop(row.counts.insert(what.to_owned(), count)),
            }
        }
        Ok(row)
    }
}
