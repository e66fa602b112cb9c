//! A process that stands still for longer than its session lives, in the midst of its writes and its watch. Run by
//! `scripts/cluster cargo test --all-features --test cluster paused`: it takes more than a minute.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use watchkeep::{Event, Filter, Kind, Revision, Store};
use watchkeep_testkit::faults::Row;
use watchkeep_testkit::size::scaled;
use watchkeep_testkit::surface::{Fault, patient};

use crate::crowd::pause;
use crate::machines::place;
use crate::scene::{LIMIT, from_the_start, told};

/// Longer than a session lives without being renewed.
const PAUSED: Duration = Duration::from_secs(65);
/// How many sets the process makes, and after how many it is paused.
const WRITES: u64 = 300;
const BEFORE: usize = 60;
/// What it is told by its parent: where the store is, and where to say how it went.
const PLACE: &str = "WATCHKEEP_TEST_PAUSED_PLACE";
const SAID: &str = "WATCHKEEP_TEST_PAUSED_SAID";

/// How it went: what its writes came to, and what its watch told.
#[derive(Default, Serialize, Deserialize)]
struct Said {
    acknowledged: BTreeMap<String, u64>,
    refused: Vec<String>,
    unknown: Vec<String>,
    told: Vec<(u64, String)>,
}

fn write_and_watch(place: &str) -> Result<Said, Fault> {
    let store = patient().connect(place)?;
    let mut watcher = from_the_start(&store)?;
    let mut said = Said::default();
    for number in 0..WRITES {
        let key = format!("paused-{number}");
        match store.set("g", &key, "x") {
            Ok(revision) => drop(said.acknowledged.insert(key, revision.get())),
            Err(error) if error.kind() == watchkeep::ErrorKind::UnknownOutcome => said.unknown.push(key),
            Err(_) => said.refused.push(key),
        }
    }
    let last = store.set("g", "paused-last", "x")?;
    said.told = told(&mut watcher, last)?.into_iter().map(|(revision, key)| (revision.get(), key)).collect();
    Ok(said)
}

/// The process itself: by itself it does nothing.
#[test]
fn paused_child() {
    let Ok(place) = std::env::var(PLACE) else { return };
    let said = write_and_watch(&place).expect("it goes on");
    let path = std::env::var(SAID).expect("where to say it");
    std::fs::write(path, serde_json::to_vec(&said).expect("text")).expect("it is said");
}

fn start(place: &str, said: &Path) -> Result<Child, Fault> {
    let arguments = ["--exact", "paused::paused_child", "--nocapture"];
    let mut command = Command::new(std::env::current_exe()?);
    Ok(command.args(arguments).env(PLACE, place).env(SAID, said).spawn()?)
}

fn signal(child: &Child, what: rustix::process::Signal) -> Result<(), Fault> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id())?).ok_or("no process")?;
    Ok(rustix::process::kill_process(pid, what)?)
}

fn history(store: &Store) -> Result<Vec<(u64, String)>, Fault> {
    let told = |event: watchkeep::Result<Event>| -> Result<_, Fault> {
        let event = event?;
        assert_eq!(event.kind(), Kind::Set);
        Ok((event.revision().get(), event.key().unwrap_or_default().to_owned()))
    };
    store.history(Filter::everything(), Revision::ZERO).map(told).collect()
}

#[test]
fn a_process_that_is_paused_for_a_minute_loses_nothing_and_takes_nothing_back() -> Result<(), Fault> {
    let mut row = Row::default();
    for _ in 0..scaled(1) {
        let (place, folder) = (place()?, tempfile::tempdir()?);
        let path = folder.path().join("said");
        let observer = patient().connect(&place)?;
        let mut watcher = from_the_start(&observer)?;
        let mut child = start(&place, &path)?;
        for _ in 0..BEFORE {
            watcher.recv_timeout(LIMIT).ok_or("it does not write")??;
        }
        signal(&child, rustix::process::Signal::STOP)?;
        // Others write over what it is about to write, and more.
        let until = Instant::now() + PAUSED;
        let mut number = 0;
        while Instant::now() < until {
            observer.set("g", &format!("observer-{number}"), "x")?;
            number += 1;
            pause(Duration::from_millis(100));
        }
        signal(&child, rustix::process::Signal::CONT)?;
        assert!(child.wait()?.success());
        let said: Said = serde_json::from_slice(&std::fs::read(path)?)?;
        let all = history(&observer)?;
        let keys: BTreeMap<_, _> = all.iter().map(|(revision, key)| (key.as_str(), *revision)).collect();
        assert_eq!(keys.len(), all.len(), "a set was made twice");
        for (key, revision) in &said.acknowledged {
            assert_eq!(keys.get(key.as_str()), Some(revision), "{key}");
        }
        for key in &said.refused {
            assert_eq!(keys.get(key.as_str()), None, "refused, and there: {key}");
        }
        assert_eq!(said.told, all, "what its watch told is all of it");
        row.fine([]);
        let counts = [
            ("acknowledged", said.acknowledged.len()),
            ("unknown", said.unknown.len()),
            ("refused", said.refused.len()),
        ];
        counts.into_iter().for_each(|(what, count)| row.note(what, count as u64));
    }
    row.print("paused");
    Ok(())
}
