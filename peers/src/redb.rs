//! redb.

use std::path::Path;

use redb::{Database, ReadableDatabase, TableDefinition};
use watchkeep_bench::{Cell, Contender, Durability, Name, Peer, Result, Session};

use crate::{CACHE, batches, bounds, flat, stores, version_of};

const ENTRIES: TableDefinition<'_, &str, &str> = TableDefinition::new("entries");

#[derive(Debug)]
pub struct Redb;

impl Contender for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn about(&self) -> String {
        format!(
            "redb {}, cache of 256 MiB, one row a set; full is `Durability::Immediate`; relaxed is `None`, which is weaker: \
             lost when the process dies before the next `Immediate`",
            version_of("redb")
        )
    }

    fn takes(&self, cell: &Cell) -> bool {
        stores(cell)
    }

    fn open(&self, folder: &Path, cell: &Cell) -> Result<Box<dyn Peer>> {
        let database = Database::builder().set_cache_size(CACHE).create(folder.join("store.redb"))?;
        let durability = if cell.durability == Durability::Full {
            redb::Durability::Immediate
        } else {
            redb::Durability::None
        };
        let open = Open { database, durability };
        // So that the table is there for whoever reads first.
        open.write(&[], redb::Durability::Immediate)?;
        Ok(Box::new(open))
    }
}

struct Open {
    database: Database,
    durability: redb::Durability,
}

impl Open {
    fn write(&self, entries: &[(&str, &str)], durability: redb::Durability) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        let mut table = transaction.open_table(ENTRIES)?;
        for (key, value) in entries {
            table.insert(key, value)?;
        }
        drop(table);
        Ok(transaction.commit()?)
    }
}

impl Peer for Open {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Thread(self)))
    }

    fn load(&self, names: &[Name], count: usize) -> Result<()> {
        for batch in batches(names, count) {
            let batch = batch?;
            let entries: Vec<_> = batch.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            self.write(&entries, redb::Durability::None)?;
        }
        self.write(&[], redb::Durability::Immediate)
    }

    fn delete_group(&self, group: &str) -> Result<()> {
        let (from, to) = bounds(group);
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(self.durability)?;
        transaction.open_table(ENTRIES)?.retain_in(from.as_str()..to.as_str(), |_, _| false)?;
        Ok(transaction.commit()?)
    }
}

struct Thread<'o>(&'o Open);

impl Session for Thread<'_> {
    fn set(&mut self, name: &Name, value: &str) -> Result<()> {
        self.0.write(&[(&flat(name), value)], self.0.durability)
    }

    fn get(&mut self, name: &Name, value: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let table = self.0.database.begin_read()?.open_table(ENTRIES)?;
        let found = table.get(flat(name).as_str())?;
        let found = found.map(|found| found.value().to_owned());
        Ok(found.map(|found| value(found.as_bytes())).is_some())
    }

    fn scan(&mut self, group: &str, value: &mut dyn FnMut(&[u8])) -> Result<()> {
        let table = self.0.database.begin_read()?.open_table(ENTRIES)?;
        let (from, to) = bounds(group);
        for entry in table.range(from.as_str()..to.as_str())? {
            let found = entry?.1.value().to_owned();
            value(found.as_bytes());
        }
        Ok(())
    }
}
