//! LMDB, through heed.

use std::ops::Bound;
use std::path::Path;

use heed::types::Str;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RwTxn};
use watchkeep_bench::{Cell, Contender, Durability, Name, Peer, Result, Session};

use crate::{batches, bounds, flat, stores, version_of};

/// How large the file may become: address space, not memory.
const MAP: usize = 4 << 30;

#[derive(Debug)]
pub struct Lmdb;

impl Contender for Lmdb {
    fn name(&self) -> &'static str {
        "heed"
    }

    fn about(&self) -> String {
        format!(
            "heed {} (LMDB 0.9), map of 4 GiB, one row a set; full syncs at each commit, relaxed is `MDB_NOSYNC` (a power cut \
             may spoil the file: weaker)",
            version_of("heed")
        )
    }

    fn takes(&self, cell: &Cell) -> bool {
        stores(cell)
    }

    fn open(&self, folder: &Path, cell: &Cell) -> Result<Box<dyn Peer>> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP).max_dbs(1);
        // SAFETY: the folder is the cell's own: nobody else changes the file while it is mapped, and it is opened once
        // at a time; without syncs, a file that a power cut spoilt is not opened again.
        let env = unsafe {
            if cell.durability != Durability::Full {
                options.flags(EnvFlags::NO_SYNC);
            }
            options.open(folder)?
        };
        let mut transaction = env.write_txn()?;
        let entries = env.create_database(&mut transaction, Some("entries"))?;
        transaction.commit()?;
        Ok(Box::new(Open { env, entries }))
    }
}

struct Open {
    env: Env,
    entries: Database<Str, Str>,
}

impl Open {
    fn write(&self, write: impl FnOnce(&mut RwTxn<'_>) -> Result<()>) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        write(&mut transaction)?;
        Ok(transaction.commit()?)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // What is opened again finds all that was written.
        let _ = self.env.force_sync();
    }
}

impl Peer for Open {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Thread(self)))
    }

    fn load(&self, names: &[Name], count: usize) -> Result<()> {
        for batch in batches(names, count) {
            let batch = batch?;
            self.write(|transaction| {
                for (key, value) in &batch {
                    self.entries.put(transaction, key, value)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn delete_group(&self, group: &str) -> Result<()> {
        let (from, to) = bounds(group);
        self.write(|transaction| {
            self.entries
                .delete_range(transaction, &(Bound::Included(from.as_str()), Bound::Excluded(to.as_str())))?;
            Ok(())
        })
    }
}

struct Thread<'o>(&'o Open);

impl Session for Thread<'_> {
    fn set(&mut self, name: &Name, value: &str) -> Result<()> {
        self.0.write(|transaction| Ok(self.0.entries.put(transaction, &flat(name), value)?))
    }

    fn get(&mut self, name: &Name, value: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let transaction = self.0.env.read_txn()?;
        let found = self.0.entries.get(&transaction, &flat(name))?;
        let found = found.map(str::to_owned);
        Ok(found.map(|found| value(found.as_bytes())).is_some())
    }

    fn scan(&mut self, group: &str, value: &mut dyn FnMut(&[u8])) -> Result<()> {
        let transaction = self.0.env.read_txn()?;
        for entry in self.0.entries.prefix_iter(&transaction, &format!("{group}/"))? {
            let found = entry?.1.to_owned();
            value(found.as_bytes());
        }
        Ok(())
    }
}
