//! The group that a transaction writes in, for as long as it is the same one: its row is read once, and its counters are
//! written when the job is done, or when somebody looks at them. One that lies in a namespace is counted there as well, write
//! by write, and is not kept.

use std::cell::RefCell;

use rusqlite::Connection;

use crate::rules::GroupRow;
use crate::types::error::Result;
use crate::types::name::namespace_of;

use super::counters;

struct Held {
    name: String,
    /// As it is by now.
    row: GroupRow<i64>,
    /// By how much it is not written yet.
    keys: i64,
    bytes: i64,
}

/// Lent to the rows of a transaction, and to those who read in it.
pub(super) struct Tally<'c> {
    conn: &'c Connection,
    held: RefCell<Option<Held>>,
}

impl<'c> Tally<'c> {
    pub(super) fn new(conn: &'c Connection) -> Tally<'c> {
        Tally { conn, held: RefCell::default() }
    }

    pub(super) fn group(&self, name: &str) -> Result<Option<GroupRow<i64>>> {
        if let Some(held) = self.held.borrow().as_ref().filter(|held| held.name == name) {
            return Ok(Some(held.row));
        }
        let row = counters::group(self.conn, name)?;
        if let Some(row) = row.filter(|_| namespace_of(name).is_none()) {
            self.write()?;
            *self.held.borrow_mut() = Some(Held { name: name.to_owned(), row, keys: 0, bytes: 0 });
        }
        Ok(row)
    }

    pub(super) fn add(&self, group: &GroupRow<i64>, name: &str, keys: i64, bytes: i64) -> Result<()> {
        if group.keys + keys == 0 {
            self.release(name);
        }
        if let Some(held) = self.held.borrow_mut().as_mut().filter(|held| held.name == name) {
            held.row.keys += keys;
            held.row.bytes += bytes;
            held.keys += keys;
            held.bytes += bytes;
            return Ok(());
        }
        counters::add(self.conn, group, name, keys, bytes)
    }

    /// The row of this group goes, and its counters with it.
    pub(super) fn release(&self, name: &str) {
        self.held.borrow_mut().take_if(|held| held.name == name);
    }

    /// Writes what is not written yet.
    pub(super) fn write(&self) -> Result<()> {
        let mut held = self.held.borrow_mut();
        let Some(Held { name, keys, bytes, .. }) = held.as_mut() else { return Ok(()) };
        counters::add_to(self.conn, name, std::mem::take(keys), std::mem::take(bytes))
    }

    /// What was not written was not done.
    pub(super) fn forget(&self) {
        *self.held.borrow_mut() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::job::Transaction;
    use crate::engine::sqlite::epochs::Home;
    use crate::engine::sqlite::open;
    use crate::engine::sqlite::rows::SqliteRows;
    use crate::rules::Rows;
    use crate::types::options::Options;

    #[test]
    fn what_is_undone_is_not_counted_by_the_next_job_of_the_transaction() -> Result<()> {
        let conn = Connection::open_in_memory()?;
        open::make(&conn, true, &Options::new(), &Home::NOWHERE)?;
        let tally = Tally::new(&conn);
        let mut rows = SqliteRows::begin(&conn, &tally)?;
        let counted = |row: Option<GroupRow<i64>>| row.map(|row| (row.keys, row.bytes));
        let made = counters::create(&conn, "g", 1)?;
        rows.count(&made, "g", 2, 20)?;
        rows.mark()?;
        let group = rows.group("g")?.expect("it was made");
        rows.count(&group, "g", 3, 30)?;
        assert_eq!(counted(rows.group("g")?), Some((5, 50)));
        rows.undo()?;
        let group = rows.group("g")?.expect("it was made");
        assert_eq!(counted(Some(group)), Some((2, 20)));
        rows.count(&group, "g", 1, 10)?;
        assert_eq!(
            counted(counters::group(&conn, "g")?),
            Some((2, 20)),
            "it is written when the job is done"
        );
        rows.seal()?;
        assert_eq!(counted(counters::group(&conn, "g")?), Some((3, 30)));
        Ok(())
    }
}
