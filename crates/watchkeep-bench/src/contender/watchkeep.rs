//! Ours.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_executor::block_on;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use watchkeep::{
    Clock, Durability, Event, Filter, Item, ManualClock, Options, Retention, Revision, Store, SystemClock,
    WatchOptions, Watcher,
};

use super::limits::Counted;
use super::{Contender, Peer, Replayed, Session, Watch};
use crate::Result;
use crate::data::{Name, value, value_bytes};
use crate::machine::pause;
use crate::plan::{Cell, Workload};

/// How many entries are loaded in one transaction.
const BATCH: usize = 2_000;
/// How much `watchkeep import` sorts at once, in bytes, and what an entry of it takes besides its value.
const IMPORT_BYTES: usize = 64 << 20;
const IMPORT_OVERHEAD: usize = 160;
/// How long free pages may take to be given back, and how long a file that does not shrink has given back all.
const GIVEN_BACK: Duration = Duration::from_secs(120);
const SETTLED: Duration = Duration::from_secs(15);
/// How long what expires lives, by a clock that is moved.
const TTL: Duration = Duration::from_secs(3600);

/// The library, with its watchers.
#[derive(Debug)]
pub(crate) struct Watchkeep;

/// The library, as `watchkeep import` fills it.
#[derive(Debug)]
pub(crate) struct Importing;

/// The library, with callbacks in place of watchers.
#[derive(Debug)]
pub(crate) struct Callbacks;

impl Contender for Watchkeep {
    fn name(&self) -> &'static str {
        "watchkeep"
    }

    fn about(&self) -> String {
        format!(
            "watchkeep {}, default options, but nothing of the log is trimmed where entries are read; `set` of one entry with its log row, watchers with a buffer of 16",
            env!("CARGO_PKG_VERSION")
        )
    }

    fn rows(&self) -> u32 {
        2
    }

    fn takes(&self, cell: &Cell) -> bool {
        cell.workload != Workload::Floor
    }

    fn open(&self, folder: &Path, cell: &Cell) -> Result<Box<dyn Peer>> {
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let mut options = Options::new().durability(cell.durability);
        if cell.workload == Workload::Expiry {
            options = options.clock(clock.clone());
        }
        if matches!(cell.workload, Workload::Get | Workload::GetZipf | Workload::GetBusy | Workload::GetCold)
        {
            // What a load writes more than is kept by default would be trimmed beside the reads.
            options = options.retention(Retention::FOREVER);
        }
        let store = options.open(folder.join("store.db"))?;
        Ok(Box::new(Open { clock, ..Open::new(store) }))
    }
}

impl Contender for Importing {
    fn name(&self) -> &'static str {
        "watchkeep-import"
    }

    fn about(&self) -> String {
        "as watchkeep; sorts the entries 64 MiB at a time before it writes them, as `watchkeep import` does"
            .to_owned()
    }

    fn rows(&self) -> u32 {
        2
    }

    fn takes(&self, cell: &Cell) -> bool {
        cell.workload == Workload::ImportRandom
    }

    fn open(&self, folder: &Path, cell: &Cell) -> Result<Box<dyn Peer>> {
        let store = open(folder, cell.durability)?;
        Ok(Box::new(Open { sorts: true, ..Open::new(store) }))
    }
}

impl Contender for Callbacks {
    fn name(&self) -> &'static str {
        "watchkeep-callbacks"
    }

    fn about(&self) -> String {
        "as watchkeep, with one `on_change_with` a watcher; each adds 1 to a counter".to_owned()
    }

    fn takes(&self, cell: &Cell) -> bool {
        cell.workload == Workload::FanOut
    }

    fn open(&self, folder: &Path, cell: &Cell) -> Result<Box<dyn Peer>> {
        Ok(Box::new(Open { callbacks: true, ..Open::new(open(folder, cell.durability)?) }))
    }
}

pub(super) fn open(folder: &Path, durability: Durability) -> Result<Store> {
    Ok(Options::new().durability(durability).open(folder.join("store.db"))?)
}

struct Open {
    store: Store,
    /// Its time, where it matters.
    clock: Arc<ManualClock>,
    callbacks: bool,
    /// Whether a load sorts what it writes.
    sorts: bool,
}

impl Open {
    fn new(store: Store) -> Open {
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        Open { store, clock, callbacks: false, sorts: false }
    }

    /// The serial numbers of the next transaction of a load.
    fn batch(&self, names: &[Name], serials: &mut Range<usize>) -> Vec<usize> {
        if !self.sorts {
            return serials.take(BATCH).collect();
        }
        let (number, mut bytes) = (|serial: usize| serial % names.len().max(1), 0);
        let fits = |serial: &usize| {
            bytes += IMPORT_OVERHEAD + value_bytes(number(*serial));
            bytes < IMPORT_BYTES
        };
        let mut batch: Vec<usize> = serials.clone().take_while(fits).collect();
        *serials = serials.start + batch.len()..serials.end;
        batch.sort_by_key(|serial| names.get(number(*serial)).map(|name| (&name.group, &name.key)));
        batch
    }

    fn load_with(&self, names: &[Name], count: usize, ttl: Option<Duration>) -> Result<()> {
        let mut text = String::new();
        let mut serials = 0..count;
        while !serials.is_empty() {
            let batch = self.batch(names, &mut serials);
            self.store.transaction(|tx| {
                for serial in &batch {
                    let number = serial % names.len().max(1);
                    let Some(name) = names.get(number) else { continue };
                    value(&mut text, number, *serial as u64).map_err(watchkeep::Error::abort)?;
                    match ttl {
                        Some(ttl) => tx.set_with_ttl(&name.group, &name.key, text.as_str(), ttl)?,
                        None => tx.set(&name.group, &name.key, text.as_str())?,
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

impl Peer for Open {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Handle(self.store.clone())))
    }

    fn load(&self, names: &[Name], count: usize) -> Result<()> {
        self.load_with(names, count, None)
    }

    fn load_expiring(&self, names: &[Name], count: usize) -> Result<()> {
        self.load_with(names, count, Some(TTL))
    }

    fn expire(&self) -> Result<()> {
        self.clock.advance(2 * TTL);
        self.store.purge_expired()?;
        Ok(())
    }

    fn delete_group(&self, group: &str) -> Result<()> {
        self.store.delete_group(group)?;
        Ok(())
    }

    fn trim(&self) -> Result<()> {
        self.store.compact(self.store.last_revision()?)?;
        // The rows go in the background, and then the pages, a step at a time.
        let path = self.store.path().ok_or("it is in memory")?;
        let (mut before, mut since, until) = (u64::MAX, Instant::now(), Instant::now() + GIVEN_BACK);
        while since.elapsed() < SETTLED && Instant::now() < until {
            let size = std::fs::metadata(path)?.len();
            if size != before {
                (before, since) = (size, Instant::now());
            }
            pause(Duration::from_millis(200));
        }
        Ok(())
    }

    fn pipeline(
        &self,
        depth: usize,
        next: &mut dyn FnMut() -> Option<(Name, String)>,
        done: &mut dyn FnMut(Duration),
    ) -> Result<()> {
        let store = self.store.to_async();
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < depth
                && let Some((name, value)) = next()
            {
                let begun = Instant::now();
                let writing = store.set(&name.group, &name.key, value);
                under_way.push(async move { writing.await.map(|_| begun.elapsed()) });
            }
            match block_on(under_way.next()) {
                Some(took) => done(took?),
                None => return Ok(()),
            }
        }
    }

    fn logged(&self) -> Result<Option<u64>> {
        Ok(Some(self.store.stats()?.log_events))
    }

    fn watch(&self, name: &Name) -> Result<Box<dyn Watch>> {
        if !self.callbacks {
            return Ok(Box::new(Watching(self.store.watch(&name.group, &name.key))));
        }
        let calls = Arc::new(AtomicU64::new(0));
        let counter = calls.clone();
        let filter = Filter::key(name.group.clone(), name.key.clone());
        let subscription = self.store.on_change_with(filter, move |item| {
            if let Item::Event(event) = item {
                look(event);
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        subscription.detach();
        Ok(Box::new(Counted { calls, seen: 0 }))
    }

    fn replay(&self, workload: Workload, events: u64, watchers: usize) -> Result<Replayed> {
        let mut replayed = Replayed::default();
        let mut count = |event: &Event| {
            replayed.events += 1;
            replayed.revisions += look(event);
            replayed.bytes += event.value().map_or(0, |value| value.len() as u64);
        };
        if workload == Workload::History {
            for event in self.store.history(Filter::everything(), Revision::ZERO) {
                count(&event?);
            }
            return Ok(replayed);
        }
        let from_the_start =
            || self.store.watch_with(Filter::everything(), WatchOptions::new().after(Revision::ZERO));
        let mut watchers = (0..watchers).map(|_| from_the_start()).collect::<watchkeep::Result<Vec<_>>>()?;
        for _ in 0..events {
            for watcher in &mut watchers {
                count(&watcher.recv().ok_or("a watcher has ended")??);
            }
        }
        Ok(replayed)
    }
}

/// Something to do with the whole event, so that nobody skips it.
fn look(event: &Event) -> u64 {
    std::hint::black_box((event.group(), event.key(), event.value()));
    event.revision().get()
}

struct Handle(Store);

impl Session for Handle {
    fn set(&mut self, name: &Name, value: &str) -> Result<()> {
        self.0.set(&name.group, &name.key, value)?;
        Ok(())
    }

    fn get(&mut self, name: &Name, value: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let found = self.0.get(&name.group, &name.key)?;
        Ok(found.map(|found| value(&found)).is_some())
    }

    fn scan(&mut self, group: &str, value: &mut dyn FnMut(&[u8])) -> Result<()> {
        for entry in self.0.entries(group) {
            value(&entry?.value);
        }
        Ok(())
    }
}

struct Watching(Watcher);

impl Watch for Watching {
    fn try_next(&mut self) -> Result<Option<u64>> {
        Ok(self.0.try_recv().transpose()?.as_ref().map(look))
    }

    fn next(&mut self) -> Result<Option<u64>> {
        Ok(self.0.recv().transpose()?.as_ref().map(look))
    }
}
