//! Members of the cluster that stop, and that die, while others write and watch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use watchkeep::{ErrorKind, Filter, Revision, Store, WatchOptions};
use watchkeep_testkit::surface::{CLUSTER, Fault};

use crate::scene::open;

const WRITERS: u64 = 4;
const WRITES: u64 = 60;
/// How long a member stops: longer than calls take, and than a session's fence.
const STOPPED: Duration = Duration::from_secs(6);

const LIMIT: Duration = Duration::from_secs(120);

/// Sends a signal to a member.
fn signal(member: usize, what: rustix::process::Signal) -> Result<(), Fault> {
    let pids =
        std::env::var("WATCHKEEP_TEST_ETCD_PIDS").map_err(|_| "no cluster: run this by scripts/cluster")?;
    let pid = pids.split(',').nth(member).ok_or("there is no such member")?.parse()?;
    let pid = rustix::process::Pid::from_raw(pid).ok_or("no process")?;
    Ok(rustix::process::kill_process(pid, what)?)
}

/// A writer's sets of keys of its own: what was acknowledged, and what may or may not be there.
#[derive(Default)]
struct Written {
    acknowledged: BTreeMap<String, Revision>,
    unknown: BTreeSet<String>,
    refused: BTreeSet<String>,
}

fn write(store: &Store, writer: u64, made: &Sender<()>) -> Written {
    let mut written = Written::default();
    for number in 0..WRITES {
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

/// Waits until the writers have made so many more.
fn wait_for(made: &Receiver<()>, count: u64) -> Result<(), Fault> {
    (0..count).try_for_each(|_| made.recv_timeout(LIMIT)).map_err(|_| "the writers do not get on".into())
}

/// The fault itself: how long it lasts.
fn pause(time: Duration) {
    let (_never, pause) = channel::<()>();
    let _ = pause.recv_timeout(time);
}

#[test]
fn members_that_stop_and_die_take_nothing_that_was_acknowledged() -> Result<(), Fault> {
    let place = format!("etcd://{}/members/{}", std::env::var(CLUSTER)?, std::process::id());
    let stores = [open(&place)?, open(&place)?];
    let observer = open(&place)?;
    let from_the_start = || WatchOptions::new().after(Revision::ZERO);
    let mut watcher = observer.watch_with(Filter::everything(), from_the_start())?;
    let (counter, made) = channel();
    let written: Vec<Written> = std::thread::scope(|scope| -> Result<_, Fault> {
        let writers: Vec<_> = (0..WRITERS)
            .zip(stores.iter().cycle())
            .map(|(writer, store)| {
                let counter = counter.clone();
                scope.spawn(move || write(store, writer, &counter))
            })
            .collect();
        let all = WRITERS * WRITES;
        wait_for(&made, all / 4)?;
        // Whoever asks this one hears nothing, and its connections stay open.
        signal(0, rustix::process::Signal::STOP)?;
        pause(STOPPED);
        signal(0, rustix::process::Signal::CONT)?;
        wait_for(&made, all / 4)?;
        // With two of three away nobody commits; with one of them back, they go on.
        signal(1, rustix::process::Signal::STOP)?;
        signal(2, rustix::process::Signal::STOP)?;
        pause(STOPPED);
        signal(1, rustix::process::Signal::CONT)?;
        signal(2, rustix::process::Signal::KILL)?;
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
    let late = open(&place)?;
    let history =
        late.history(Filter::everything(), Revision::ZERO).collect::<watchkeep::Result<Vec<_>>>()?;
    assert_eq!(history.len(), told.len());
    assert!(history.iter().all(|event| event.key().and_then(|key| told.get(key)) == Some(&event.revision())));
    Ok(())
}
