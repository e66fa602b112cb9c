//! The group that a transaction writes in, for as long as it is the same one: its row is read once, and its counters are
//! written when the job is done, or when somebody looks at them. One that lies in a namespace is counted there as well, write
//! by write, and is not kept.

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

/// See the module.
#[derive(Default)]
pub(super) struct Tally(Option<Held>);

impl Tally {
    pub(super) fn group(&mut self, conn: &Connection, name: &str) -> Result<Option<GroupRow<i64>>> {
        if let Some(held) = self.of(name) {
            return Ok(Some(held.row));
        }
        let row = counters::group(conn, name)?;
        if let Some(row) = row.filter(|_| namespace_of(name).is_none()) {
            self.write(conn)?;
            self.0 = Some(Held { name: name.to_owned(), row, keys: 0, bytes: 0 });
        }
        Ok(row)
    }

    pub(super) fn add(
        &mut self,
        conn: &Connection,
        group: &GroupRow<i64>,
        name: &str,
        keys: i64,
        bytes: i64,
    ) -> Result<()> {
        if group.keys + keys == 0 {
            self.release(name);
        }
        let Some(held) = self.of(name) else { return counters::add(conn, group, name, keys, bytes) };
        held.row.keys += keys;
        held.row.bytes += bytes;
        held.keys += keys;
        held.bytes += bytes;
        Ok(())
    }

    fn of(&mut self, name: &str) -> Option<&mut Held> {
        self.0.as_mut().filter(|held| held.name == name)
    }

    /// Writes what is not written yet.
    pub(super) fn write(&mut self, conn: &Connection) -> Result<()> {
        if let Some(held) = &mut self.0 {
            counters::add_to(conn, &held.name, held.keys, held.bytes)?;
            (held.keys, held.bytes) = (0, 0);
        }
        Ok(())
    }

    /// The row of this group goes, and its counters with it.
    pub(super) fn release(&mut self, name: &str) {
        self.0.take_if(|held| held.name == name);
    }

    /// What was not written was not done.
    pub(super) fn forget(&mut self) {
        self.0 = None;
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
        let mut rows = SqliteRows::begin(&conn)?;
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
