//! sled 0.34.

use std::io::ErrorKind;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use sled::{Batch, Db, Subscriber};
use watchkeep_bench::{Cell, Contender, Durability, Name, Peer, Result, Session, Watch};

use crate::{CACHE, batches, flat, stores, version_of, watches};

#[derive(Debug)]
pub struct Sled;

impl Contender for Sled {
    fn name(&self) -> &'static str {
        "sled"
    }

    fn about(&self) -> String {
        format!(
            "sled {}, cache of 256 MiB, one row a set; full is `insert` and `flush` (by `sync_file_range`, which leaves the \
             data in the disk's own cache: weaker), relaxed is `insert` (up to 500 ms lost with the process: weaker); \
             `watch_prefix`, which tells before the flush",
            version_of("sled")
        )
    }

    fn takes(&self, cell: &Cell) -> bool {
        stores(cell) || watches(cell)
    }

    fn open(&self, folder: &Path, cell: &Cell) -> Result<Box<dyn Peer>> {
        let config = sled::Config::new().path(folder.join("sled")).cache_capacity(CACHE as u64);
        // A store that was dropped holds its lock until its threads have ended.
        let until = Instant::now() + Duration::from_secs(10);
        let db = loop {
            match config.open() {
                Err(sled::Error::Io(error))
                    if error.kind() != ErrorKind::NotFound && Instant::now() < until =>
                {
                    std::thread::yield_now()
                }
                opened => break opened?,
            }
        };
        Ok(Box::new(Open { db, full: cell.durability == Durability::Full }))
    }
}

struct Open {
    db: Db,
    full: bool,
}

impl Peer for Open {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Thread(self)))
    }

    fn load(&self, names: &[Name], count: usize) -> Result<()> {
        for batch in batches(names, count) {
            let mut writes = Batch::default();
            for (key, value) in batch? {
                writes.insert(key.as_bytes(), value.as_bytes());
            }
            self.db.apply_batch(writes)?;
        }
        self.db.flush()?;
        Ok(())
    }

    fn delete_group(&self, group: &str) -> Result<()> {
        let mut writes = Batch::default();
        for key in self.db.scan_prefix(format!("{group}/")).keys() {
            writes.remove(key?);
        }
        Ok(self.db.apply_batch(writes)?)
    }

    fn watch(&self, name: &Name) -> Result<Box<dyn Watch>> {
        Ok(Box::new(Watching { events: self.db.watch_prefix(flat(name)), seen: 0 }))
    }
}

struct Thread<'o>(&'o Open);

impl Session for Thread<'_> {
    fn set(&mut self, name: &Name, value: &str) -> Result<()> {
        self.0.db.insert(flat(name), value)?;
        if self.0.full {
            self.0.db.flush()?;
        }
        Ok(())
    }

    fn get(&mut self, name: &Name, value: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let found = self.0.db.get(flat(name))?;
        Ok(found.map(|found| value(&found)).is_some())
    }

    fn scan(&mut self, group: &str, value: &mut dyn FnMut(&[u8])) -> Result<()> {
        for entry in self.0.db.scan_prefix(format!("{group}/")) {
            value(&entry?.1);
        }
        Ok(())
    }
}

/// sled has no revisions: the events are numbered as they come.
struct Watching {
    events: Subscriber,
    seen: u64,
}

impl Watch for Watching {
    fn try_next(&mut self) -> Result<Option<u64>> {
        // Not `next_timeout`: it looks at the clock.
        match Pin::new(&mut self.events).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(event)) => {
                std::hint::black_box(event);
                self.seen += 1;
                Ok(Some(self.seen))
            }
            Poll::Ready(None) => Err("the watch has ended".into()),
            Poll::Pending => Ok(None),
        }
    }

    fn next(&mut self) -> Result<Option<u64>> {
        Ok(self.events.next().map(|event| {
            std::hint::black_box(event);
            self.seen += 1;
            self.seen
        }))
    }
}
