//! Named consumers in processes that are killed: what a handler writes with its acknowledgement is there exactly once.

use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::support::{Result, eventually};
use watchkeep::{
    ConsumerOptions, ConsumerStart, Durability, ErrorKind, Filter, Force, Options, SetOptions, Store,
};

/// Names the store to the processes that the test starts: this same file, as the test [`handler`].
const CHILD: &str = "WATCHKEEP_TEST_STORE";
const EVENTS: u64 = 800;
const KILLS: u64 = 4;

/// In a process of its own: handles events until it is killed, or comes to the last.
#[test]
fn handler() -> Result {
    // The harness runs it as a test, too: then there is nothing to handle.
    let Some(path) = std::env::var_os(CHILD) else { return Ok(()) };
    let store = Options::new().create(false).busy_timeout(Duration::from_secs(20)).open(path)?;
    let options = ConsumerOptions::new()
        .filter(Filter::group("in"))
        .start(ConsumerStart::Beginning)
        .lease(Duration::from_millis(200))
        .wait(Duration::MAX);
    let mut consumer = store.consumer_with("count", options.clone())?;
    while let Some(event) = consumer.recv() {
        let handled = event.and_then(|event| {
            store.transaction(|tx| {
                let count: u64 =
                    tx.get("out", "count")?.map_or(0, |it| it.to_string_lossy().parse().unwrap_or(0));
                tx.set("out", "count", (count + 1).to_string())?;
                // A second time would be a conflict, and end us with an error.
                tx.set_with("done", &event.revision().to_string(), "", SetOptions::new().if_absent())?;
                tx.ack(&consumer, event.revision())
            })?;
            Ok(event.key() == Some("last"))
        });
        match handled {
            Ok(true) => break,
            Ok(false) => {}
            // Who was not let run for longer than its lease lost it to another, and takes it again.
            Err(error) if error.kind() == ErrorKind::Fenced => {
                drop(consumer);
                consumer = store.consumer_with("count", options.clone())?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn start(path: &std::path::Path) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["consumer_processes::handler", "--exact", "--nocapture"]).env(CHILD, path);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn()?)
}

/// Ends what a failing test would leave running.
struct Handlers(Vec<Child>);

impl Drop for Handlers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Who holds the consumer, and the number of the taking.
fn holding(store: &Store) -> Result<(String, u64)> {
    let row = store.consumers()?.into_iter().next().ok_or("there is no consumer")?;
    Ok((row.holder.filter(|holder| holder.is_alive).ok_or("nobody holds it")?.label, row.fence))
}

#[test]
fn a_counter_in_the_same_store_counts_each_event_once_however_often_its_handlers_are_killed() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.db");
    let store = Options::new().durability(Durability::Relaxed).open(&path)?;
    let mut handlers = Handlers(vec![start(&path)?, start(&path)?]);
    let counted = |store: &Store| -> Result<u64> {
        Ok(store.get("out", "count")?.map_or(Ok(0), |count| count.to_string_lossy().parse())?)
    };
    let (mut at_work, mut random) = (0, fastrand::Rng::with_seed(7));
    for kill in 1..=KILLS {
        let before = counted(&store)?;
        // All at once, so that they are not all handled before the kill.
        store.transaction(|tx| {
            (0..EVENTS / KILLS).try_for_each(|n| tx.set("in", &format!("{kill}-{n}"), "v"))
        })?;
        eventually("it is at work", || Ok(counted(&store)? > before))?;
        let (_never, pause) = mpsc::channel::<()>();
        let _ = pause.recv_timeout(Duration::from_micros(random.u64(0..20_000)));
        // It may have let its lease run out just now, on a machine that does much else.
        let mut held = None;
        eventually("somebody has it", || Ok(holding(&store).map(|it| held = Some(it)).is_ok()))?;
        let (holder, fence) = held.ok_or("nobody holds it")?;
        let victim = handlers.0.iter_mut().find(|child| holder == format!("process {}", child.id()));
        let victim = victim.ok_or("it is none of ours")?;
        victim.kill()?;
        victim.wait()?;
        *victim = start(&path)?;
        at_work += u64::from(counted(&store)? < kill * (EVENTS / KILLS));
        eventually("another has it", || Ok(holding(&store).is_ok_and(|(_, now)| now > fence)))?;
    }
    let last = store.set("in", "last", "v")?;
    eventually("the last is handled", || {
        Ok(store.consumers()?.first().and_then(|it| it.acked) >= Some(last))
    })?;
    let written = EVENTS / KILLS * KILLS + 1;
    assert_eq!((counted(&store)?, store.count("done")?), (written, written));
    assert!(at_work > 0, "no kill hit the work: it proves nothing");
    drop(handlers);
    store.remove_consumer("count", Force::Yes)?;
    assert!(store.check()?.is_ok());
    Ok(())
}
