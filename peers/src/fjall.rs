//! fjall.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use watchkeep_bench::{Cell, Contender, Durability, Name, Peer, Result, Session};

use crate::{CACHE, batches, flat, stores, version_of};

#[derive(Debug)]
pub struct Fjall;

impl Contender for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn about(&self) -> String {
        format!(
            "fjall {}, cache of 256 MiB, one row a set; full is `insert` and `persist(SyncData)`, relaxed is `insert`",
            version_of("fjall")
        )
    }

    fn takes(&self, cell: &Cell) -> bool {
        stores(cell)
    }

    fn open(&self, folder: &Path, cell: &Cell) -> Result<Box<dyn Peer>> {
        let database = Database::builder(folder.join("fjall")).cache_size(CACHE as u64).open()?;
        let entries = database.keyspace("entries", KeyspaceCreateOptions::default)?;
        Ok(Box::new(Open { database, entries, full: cell.durability == Durability::Full }))
    }
}

struct Open {
    database: Database,
    entries: Keyspace,
    full: bool,
}

impl Peer for Open {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Thread(self)))
    }

    fn load(&self, names: &[Name], count: usize) -> Result<()> {
        for batch in batches(names, count) {
            let mut writes = self.database.batch();
            for (key, value) in batch? {
                writes.insert(&self.entries, key, value);
            }
            writes.commit()?;
        }
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    fn delete_group(&self, group: &str) -> Result<()> {
        let mut writes = self.database.batch();
        for entry in self.entries.prefix(format!("{group}/")) {
            writes.remove(&self.entries, entry.key()?);
        }
        Ok(writes.commit()?)
    }
}

struct Thread<'o>(&'o Open);

impl Session for Thread<'_> {
    fn set(&mut self, name: &Name, value: &str) -> Result<()> {
        self.0.entries.insert(flat(name), value)?;
        if self.0.full {
            self.0.database.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }

    fn get(&mut self, name: &Name, value: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let found = self.0.entries.get(flat(name))?;
        Ok(found.map(|found| value(&found)).is_some())
    }

    fn scan(&mut self, group: &str, value: &mut dyn FnMut(&[u8])) -> Result<()> {
        for entry in self.0.entries.prefix(format!("{group}/")) {
            value(&entry.value()?);
        }
        Ok(())
    }
}
