//! Writers and watchers on two stores, while something is done to their cluster; and what both were told, side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use watchkeep::{ErrorKind, Filter, Revision, Store, WatchOptions};
use watchkeep_testkit::surface::Fault;

use crate::scene::open;

const WRITERS: u64 = 4;
const LIMIT: Duration = Duration::from_secs(120);

/// A writer's sets of keys of its own: what was acknowledged, and what may or may not be there.
#[derive(Default)]
struct Written {
    acknowledged: BTreeMap<String, Revision>,
    unknown: BTreeSet<String>,
    refused: BTreeSet<String>,
}

fn write(store: &Store, (writer, writes): (u64, u64), made: &Sender<()>) -> Written {
    let mut written = Written::default();
    for number in 0..writes {
        let key = format!("{writer}-{number}");
        match store.set("g", &key, "x") {
            Ok(revision) => drop(written.acknowledged.insert(key, revision)),
            Err(error) if error.kind() == ErrorKind::UnknownOutcome => drop(written.unknown.insert(key)),
            Err(_) => drop(written.refused.insert(key)),
        }
        // Nobody counts any more once all faults are done.
        let _ = made.send(());
    }
    written
}

/// What the writers make, as it is made.
pub(crate) struct Progress(Receiver<()>);

impl Progress {
    /// Waits until the writers have made so many more.
    pub(crate) fn wait_for(&self, count: u64) -> Result<(), Fault> {
        let made = (0..count).try_for_each(|_| self.0.recv_timeout(LIMIT));
        made.map_err(|_| "the writers do not get on".into())
    }
}

/// How long a fault lasts.
pub(crate) fn pause(time: Duration) {
    let (_never, pause) = channel::<()>();
    let _ = pause.recv_timeout(time);
}

/// How many sets were acknowledged, are unknown, and were refused.
pub(crate) type Counts = [usize; 3];

/// Has four writers make so many sets each, does something to the cluster meanwhile, and holds what a watcher was told from
/// the start on against what the writers were. The faults end before the writers do.
pub(crate) fn run(
    place: &str,
    writes: u64,
    faults: impl FnOnce(&Progress) -> Result<(), Fault>,
) -> Result<Counts, Fault> {
    let stores = [open(place)?, open(place)?];
    let observer = open(place)?;
    let from_the_start = || WatchOptions::new().after(Revision::ZERO);
    let mut watcher = observer.watch_with(Filter::everything(), from_the_start())?;
    let (counter, made) = channel();
    let written: Vec<Written> = std::thread::scope(|scope| -> Result<_, Fault> {
        let writers: Vec<_> = (0..WRITERS)
            .zip(stores.iter().cycle())
            .map(|(writer, store)| {
                let counter = counter.clone();
                scope.spawn(move || write(store, (writer, writes), &counter))
            })
            .collect();
        faults(&Progress(made))?;
        writers.into_iter().map(|writer| writer.join().map_err(|_| "a writer panicked".into())).collect()
    })?;
    let last = observer.set("g", "last", "x")?;

    let mut told = BTreeMap::new();
    let mut before = Revision::ZERO;
    while before < last {
        let event = watcher.recv_timeout(Duration::from_secs(60)).ok_or("an event is missing")??;
        assert!(event.revision() > before, "{} after {before}", event.revision());
        before = event.revision();
        let key = event.key().ok_or("a set without a key")?.to_owned();
        assert!(told.insert(key, before).is_none(), "twice: {event:?}");
    }
    let count = |of: fn(&Written) -> usize| written.iter().map(of).sum::<usize>();
    let counts =
        [count(|it| it.acknowledged.len()), count(|it| it.unknown.len()), count(|it| it.refused.len())];
    for writer in &written {
        for (key, revision) in &writer.acknowledged {
            assert_eq!(told.get(key), Some(revision), "acknowledged: {key}; {counts:?}");
        }
        for key in &writer.refused {
            assert_eq!(told.get(key), None, "refused, and there: {key}; {counts:?}");
        }
    }
    assert!(counts[0] > 100, "too little got through: {counts:?}");
    // Whoever comes later reads the same.
    let late = open(place)?;
    let history =
        late.history(Filter::everything(), Revision::ZERO).collect::<watchkeep::Result<Vec<_>>>()?;
    assert_eq!(history.len(), told.len());
    assert!(history.iter().all(|event| event.key().and_then(|key| told.get(key)) == Some(&event.revision())));
    Ok(counts)
}
