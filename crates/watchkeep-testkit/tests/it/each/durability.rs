//! After durable: as far as it can be seen without cutting the power.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use watchkeep::{Filter, Options, Revision, Store};

use super::Fault;

const WRITER: &str = "WATCHKEEP_TESTKIT_WRITER";

#[test]
fn after_durable() -> Result<(), Fault> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.db");
    // Another handle, as of another process: full durability shows it nothing that is not synced.
    let (store, other) = (Store::open(&path)?, Store::open(&path)?);
    let mut watcher = store.watch("*", "*");
    std::thread::scope(|scope| -> Result<(), Fault> {
        let writer =
            scope.spawn(|| (0..100).try_for_each(|number| store.set("g", "k", number.to_string()).map(drop)));
        for event in (&mut watcher).take(100) {
            let event = event?;
            assert!(other.last_revision()? >= event.revision(), "{event:?} was delivered first");
        }
        Ok(writer.join().map_err(|_| "the writer panicked")??)
    })
}

/// Not a test by itself: the process that is killed.
#[test]
fn delivers_until_it_is_killed() -> Result<(), Fault> {
    let Ok(path) = std::env::var(WRITER) else { return Ok(()) };
    let store = Options::new().open(path)?;
    let _subscription = store.on_change(|event| {
        let mut out = std::io::stdout().lock();
        // The parent kills us: nobody is there to be told of an error.
        let _ = writeln!(out, "delivered {} {}", event.revision(), event.key().unwrap_or_default());
        let _ = out.flush();
    });
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let store = &store;
            scope.spawn(move || {
                (0..).try_for_each(|number| store.set("g", &format!("{thread}.{number}"), "v").map(drop))
            });
        }
    });
    Ok(())
}

#[test]
fn after_durable_when_the_process_is_killed() -> Result<(), Fault> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.db");
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["each::durability::delivers_until_it_is_killed", "--exact", "--nocapture"])
            .env(WRITER, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut delivered: Vec<(u64, String)> = Vec::new();
        let out = BufReader::new(child.stdout.take().ok_or("no output")?);
        for line in out.lines() {
            // The line that it was killed in is cut off.
            let line = line?;
            let Some((revision, key)) = line.strip_prefix("delivered ").and_then(|rest| rest.split_once(' '))
            else {
                continue;
            };
            delivered.push((revision.parse()?, key.to_owned()));
            if delivered.len() == 40 * round {
                child.kill()?;
            }
        }
        child.wait()?;
        assert!(delivered.len() >= 40 * round);

        delivered.pop();
        let store = Store::open(&path)?;
        let after = Revision::new(delivered.first().map_or(0, |(revision, _)| revision - 1));
        let mut log = store.history(Filter::everything(), after);
        for (revision, key) in delivered {
            let event = log.next().ok_or("the log ends early")??;
            assert_eq!((event.revision().get(), event.key()), (revision, Some(&*key)), "in round {round}");
        }
        assert!(store.check()?.is_ok());
    }
    Ok(())
}
