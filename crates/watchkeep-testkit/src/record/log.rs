//! The log as it was read back, and the state that comes of replaying it.

use std::collections::BTreeMap;

use watchkeep::{Kind, Revision, Timestamp, Value};

use super::seen::Seen;

/// An entry of a replayed state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// The value.
    pub value: Value,
    /// The revision of the value.
    pub revision: Revision,
    /// The revision at which the key came to be.
    pub created: Revision,
    /// When the value was written.
    pub updated: Timestamp,
    /// When it expires.
    pub deadline: Option<Timestamp>,
    /// The content type.
    pub content_type: Option<String>,
}

impl Cell {
    /// Whether its deadline has come.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// Entries by group and key. Those that are due are in it until their expiry is logged.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct State {
    groups: BTreeMap<String, BTreeMap<String, Cell>>,
}

impl State {
    /// The entry at a place, due or not.
    pub fn cell(&self, group: &str, key: &str) -> Option<&Cell> {
        self.groups.get(group)?.get(key)
    }

    /// The entries of a group, due or not.
    pub fn group(&self, group: &str) -> impl Iterator<Item = (&str, &Cell)> {
        self.groups.get(group).into_iter().flatten().map(|(key, cell)| (key.as_str(), cell))
    }

    /// All entries, due or not, with group and key.
    pub fn cells(&self) -> impl Iterator<Item = (&str, &str, &Cell)> {
        self.groups.iter().flat_map(|(group, cells)| {
            cells.iter().map(move |(key, cell)| (group.as_str(), key.as_str(), cell))
        })
    }

    /// The names of all groups that hold an entry, due or not.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }

    /// Puts an entry at a place.
    pub fn put(&mut self, group: &str, key: &str, cell: Cell) {
        self.groups.entry(group.to_owned()).or_default().insert(key.to_owned(), cell);
    }

    /// Takes the entry at a place away.
    pub fn take(&mut self, group: &str, key: &str) -> Option<Cell> {
        let cells = self.groups.get_mut(group)?;
        let cell = cells.remove(key);
        if cells.is_empty() {
            self.groups.remove(group);
        }
        cell
    }

    /// Takes a whole group away.
    pub fn take_group(&mut self, group: &str) {
        self.groups.remove(group);
    }

    /// Gives an entry a new deadline.
    pub fn set_deadline(&mut self, group: &str, key: &str, deadline: Option<Timestamp>) {
        if let Some(cell) = self.groups.get_mut(group).and_then(|cells| cells.get_mut(key)) {
            cell.deadline = deadline;
        }
    }

    /// Makes one change of the log.
    pub fn apply(&mut self, row: &Seen) {
        let Some(key) = &row.key else { return self.take_group(&row.group) };
        match row.kind {
            Kind::Set => {
                let created = self.cell(&row.group, key).map_or(row.revision, |cell| cell.created);
                let cell = Cell {
                    value: row.value.clone().unwrap_or_default(),
                    revision: row.revision,
                    created,
                    updated: row.timestamp,
                    deadline: row.deadline,
                    content_type: row.content_type.clone(),
                };
                self.put(&row.group, key, cell);
            }
            Kind::Touch => self.set_deadline(&row.group, key, row.deadline),
            _ => drop(self.take(&row.group, key)),
        }
    }
}

/// The whole log of a run, in the order of its revisions.
#[derive(Debug, Default, Clone)]
pub struct Log {
    rows: Vec<Seen>,
}

impl Log {
    /// These rows, put in order.
    pub fn new(mut rows: Vec<Seen>) -> Log {
        rows.sort_by_key(|row| row.revision);
        Log { rows }
    }

    /// All rows.
    pub fn rows(&self) -> &[Seen] {
        &self.rows
    }

    /// The row of a revision.
    pub fn get(&self, revision: Revision) -> Option<&Seen> {
        let place = self.rows.binary_search_by_key(&revision, |row| row.revision).ok()?;
        self.rows.get(place)
    }

    /// The rows after a revision, up to another and with it.
    pub fn between(&self, after: Revision, to: Revision) -> &[Seen] {
        let from = self.rows.partition_point(|row| row.revision <= after);
        let to = self.rows.partition_point(|row| row.revision <= to);
        self.rows.get(from..to.max(from)).unwrap_or_default()
    }

    /// The last revision.
    pub fn last(&self) -> Revision {
        self.rows.last().map_or(Revision::ZERO, |row| row.revision)
    }

    /// The state as of a revision.
    pub fn state_at(&self, revision: Revision) -> State {
        let mut state = State::default();
        self.between(Revision::ZERO, revision).iter().for_each(|row| state.apply(row));
        state
    }

    /// Whether a transaction ends with this revision. Before the first one all of them have ended.
    pub fn is_boundary(&self, revision: Revision) -> bool {
        self.get(revision).is_none_or(|row| row.commit == revision)
    }
}
