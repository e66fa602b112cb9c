//! native_db.

use std::path::Path;
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, TryRecvError};

use native_db::watch::Event;
use native_db::{Builder, Database, Models, ToKey, native_db};
use native_model::{Model, native_model};
use serde::{Deserialize, Serialize};
use watchkeep_bench::{Cell, Contender, Durability, Name, Peer, Result, Session, Watch, Workload};

use crate::{CACHE, batches, flat, stores, version_of, watches};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[native_model(id = 1, version = 1)]
#[native_db]
struct Entry {
    #[primary_key]
    key: String,
    value: String,
}

static MODELS: LazyLock<Models> = LazyLock::new(|| {
    let mut models = Models::new();
    // An empty set of models takes any.
    let _ = models.define::<Entry>();
    models
});

#[derive(Debug)]
pub struct NativeDb;

impl Contender for NativeDb {
    fn name(&self) -> &'static str {
        "native_db"
    }

    fn about(&self) -> String {
        format!(
            "native_db {} on redb 2, cache of 256 MiB, one row a set; every commit syncs, so there is no relaxed: relaxed \
             fan-out and selectivity are in memory; `watch().get().primary()`, unbounded channels",
            version_of("native_db")
        )
    }

    fn takes(&self, cell: &Cell) -> bool {
        match cell.workload {
            Workload::Set | Workload::Latency => cell.durability == Durability::Full,
            // It would have to read each entry to delete it.
            Workload::DeleteGroup => false,
            _ => stores(cell) || watches(cell),
        }
    }

    fn open(&self, folder: &Path, cell: &Cell) -> Result<Box<dyn Peer>> {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE);
        let path = folder.join("store.native");
        let database = if watches(cell) && cell.durability == Durability::Relaxed {
            builder.create_in_memory(&MODELS)?
        } else if path.exists() {
            builder.open(&MODELS, path)?
        } else {
            builder.create(&MODELS, path)?
        };
        Ok(Box::new(Open { database }))
    }
}

struct Open {
    database: Database<'static>,
}

impl Open {
    fn write(&self, entries: impl Iterator<Item = (String, String)>) -> Result<()> {
        let transaction = self.database.rw_transaction()?;
        for (key, value) in entries {
            transaction.upsert(Entry { key, value })?;
        }
        Ok(transaction.commit()?)
    }
}

impl Peer for Open {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Thread(self)))
    }

    fn load(&self, names: &[Name], count: usize) -> Result<()> {
        batches(names, count).try_for_each(|batch| self.write(batch?.into_iter()))
    }

    fn watch(&self, name: &Name) -> Result<Box<dyn Watch>> {
        let (events, _) = self.database.watch().get().primary::<Entry>(flat(name))?;
        Ok(Box::new(Watching { events, seen: 0 }))
    }
}

struct Thread<'o>(&'o Open);

impl Session for Thread<'_> {
    fn set(&mut self, name: &Name, value: &str) -> Result<()> {
        self.0.write(std::iter::once((flat(name), value.to_owned())))
    }

    fn get(&mut self, name: &Name, value: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let found: Option<Entry> = self.0.database.r_transaction()?.get().primary(flat(name))?;
        Ok(found.map(|found| value(found.value.as_bytes())).is_some())
    }

    fn scan(&mut self, group: &str, value: &mut dyn FnMut(&[u8])) -> Result<()> {
        let transaction = self.0.database.r_transaction()?;
        let scan = transaction.scan();
        let primary = scan.primary::<Entry>()?;
        for entry in primary.start_with(format!("{group}/"))? {
            value(entry?.value.as_bytes());
        }
        Ok(())
    }
}

/// native_db has no revisions: the events are numbered as they come.
struct Watching {
    events: Receiver<Event>,
    seen: u64,
}

impl Watching {
    fn count(&mut self, event: Event) -> u64 {
        std::hint::black_box(event);
        self.seen += 1;
        self.seen
    }
}

impl Watch for Watching {
    fn try_next(&mut self) -> Result<Option<u64>> {
        match self.events.try_recv() {
            Ok(event) => Ok(Some(self.count(event))),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err("the watch has ended".into()),
        }
    }

    fn next(&mut self) -> Result<Option<u64>> {
        Ok(self.events.recv().ok().map(|event| self.count(event)))
    }
}
