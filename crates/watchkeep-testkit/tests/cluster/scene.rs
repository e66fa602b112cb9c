//! Stores that are lied to: several, each behind a proxy of its own, with writers and watchers at work.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use watchkeep::{Filter, Revision, Store, WatchOptions, Watcher};
use watchkeep_testkit::proxy::{Lie, Proxy};
use watchkeep_testkit::surface::{CLUSTER, Fault, patient};

/// How many writers each of the first two stores has, and how many sets each of them makes.
const WRITERS: u64 = 2;
const WRITES: u64 = 30;
/// How many stores: two that write, and one that only watches.
const STORES: usize = 3;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Three stores on one place, each behind a proxy before a member of its own.
pub(crate) struct Scene {
    pub(crate) place: String,
    // Closed first: they say goodbye through their proxies.
    pub(crate) stores: Vec<Store>,
    pub(crate) proxies: Vec<Proxy>,
}

/// A writer's sets of keys of its own: what was acknowledged, and what was not.
#[derive(Default)]
struct Written {
    acknowledged: BTreeMap<String, Revision>,
    failed: BTreeMap<String, String>,
}

/// The members of the cluster.
pub(crate) fn members() -> Result<String, Fault> {
    std::env::var(CLUSTER).map_err(|_| "no cluster: run this by scripts/cluster".into())
}

pub(crate) fn open(place: &str) -> watchkeep::Result<Store> {
    patient().connect(place)
}

/// A proxy before one of the members, and the same place through it.
pub(crate) fn through(place: &str, member: usize) -> Result<(Proxy, String), Fault> {
    let members = members()?;
    let member = members.split(',').cycle().nth(member).ok_or("there is no member")?;
    let proxy = Proxy::new(member, LIMIT)?;
    let through = place.replace(&members, &proxy.address());
    Ok((proxy, through))
}

pub(crate) fn from_the_start(store: &Store) -> watchkeep::Result<Watcher> {
    store.watch_with(Filter::everything(), WatchOptions::new().after(Revision::ZERO))
}

/// What a watcher is told up to a revision: it must come in order, and nothing of it twice.
pub(crate) fn told(watcher: &mut Watcher, upto: Revision) -> Result<Vec<(Revision, String)>, Fault> {
    let mut told: Vec<(Revision, String)> = Vec::new();
    loop {
        let event = watcher
            .recv_timeout(LIMIT)
            .ok_or_else(|| format!("an event is missing after {:?}", told.last()))??;
        let (revision, before) = (event.revision(), told.last().map_or(Revision::ZERO, |(last, _)| *last));
        if revision <= before {
            return Err(format!("{revision} after {before}: {event:?}").into());
        }
        told.push((revision, event.key().unwrap_or_default().to_owned()));
        if revision >= upto {
            return Ok(told);
        }
    }
}

impl Scene {
    pub(crate) fn new() -> Result<Scene, Fault> {
        static PLACES: AtomicU64 = AtomicU64::new(0);
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let place = format!("etcd://{}/lies/{}-{number}", members()?, std::process::id());
        let (mut proxies, mut stores) = (Vec::new(), Vec::new());
        for member in 0..STORES {
            let (proxy, through) = through(&place, member)?;
            stores.push(open(&through)?);
            proxies.push(proxy);
        }
        Ok(Scene { place, proxies, stores })
    }

    /// One lie to each store, some responses after another.
    pub(crate) fn lie(&self, lie: Lie, times: usize) {
        for proxy in &self.proxies {
            (0..times).for_each(|time| proxy.watch_after(2 + 2 * time, lie));
        }
    }

    /// Has writers write and watchers watch, and holds what the watchers are told against what the writers were. The lies
    /// are asked for before, and each proxy must have told so many when this returns.
    pub(crate) fn run(&self, lies: usize) -> Result<Vec<(Revision, String)>, Fault> {
        let mut watchers = Vec::new();
        for store in self.stores.iter().chain(&self.stores) {
            watchers.push(from_the_start(store)?);
        }
        let written: Vec<Written> = std::thread::scope(|scope| -> Result<_, Fault> {
            let writers: Vec<_> = self
                .stores
                .iter()
                .take(STORES - 1)
                .enumerate()
                .flat_map(|(number, store)| (0..WRITERS).map(move |writer| (number, writer, store)))
                .map(|(number, writer, store)| {
                    scope.spawn(move || write(store, &format!("{number}-{writer}")))
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().map_err(|_| "a writer panicked".into())).collect()
        })?;
        let direct = open(&self.place)?;
        let last = direct.set("g", "last", "x")?;
        let mut all = Vec::new();
        for watcher in &mut watchers {
            all.push(told(watcher, last)?);
        }
        for proxy in &self.proxies {
            proxy.wait_told(lies)?;
        }
        let first = all.first().ok_or("nobody watched")?.clone();
        check(&first, &written)?;
        // All are told the same, and whoever comes later reads it.
        let late = told(&mut from_the_start(&direct)?, last)?;
        match all.iter().chain([&late]).position(|other| *other != first) {
            Some(number) => Err(format!("watcher {number} was told something else").into()),
            None => Ok(first),
        }
    }
}

fn write(store: &Store, writer: &str) -> Written {
    let mut written = Written::default();
    for number in 0..WRITES {
        let key = format!("{writer}-{number}");
        match store.set("g", &key, "x") {
            Ok(revision) => drop(written.acknowledged.insert(key, revision)),
            Err(error) => drop(written.failed.insert(key, error.to_string())),
        }
    }
    written
}

fn check(told: &[(Revision, String)], written: &[Written]) -> Result<(), Fault> {
    let keys: BTreeMap<_, _> = told.iter().map(|(revision, key)| (key, revision)).collect();
    if keys.len() < told.len() {
        return Err(format!("a set was told twice: {told:?}").into());
    }
    for writer in written {
        let lost = writer.acknowledged.iter().find(|(key, revision)| keys.get(key) != Some(revision));
        if let Some((key, revision)) = lost {
            return Err(format!("acknowledged as {revision}, and told as {:?}: {key}", keys.get(key)).into());
        }
        // Every lie is one that can be found out.
        if !writer.failed.is_empty() {
            return Err(format!("writes failed: {:?}", writer.failed).into());
        }
    }
    Ok(())
}
