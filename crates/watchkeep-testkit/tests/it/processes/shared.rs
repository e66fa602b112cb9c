//! Expiry, counters, quotas and the write-ahead log, which all processes share.

use std::collections::BTreeMap;
use std::time::Duration;

use watchkeep::{Durability, Filter, Kind, Revision};
use watchkeep_testkit::processes::kill::keeps_promises;

use super::crowd::{Crowd, Result};

#[test]
fn each_expiry_is_announced_once_and_seen_by_all() -> Result {
    let mut crowd = Crowd::new(Durability::Relaxed)?;
    let mut processes = crowd.processes(4)?;
    for process in &mut processes {
        process.watch("all", "now", 0)?;
        process.call_back("own")?;
    }
    processes[0].tell("expire 1000 300")?;
    let expired = |heard: &watchkeep_testkit::record::Heard| {
        heard.event().is_some_and(|event| event.kind == Kind::Expire)
    };
    for process in &processes {
        process.wait_for("all expire", |told| {
            told.streams.len() == 2
                && told
                    .streams
                    .values()
                    .all(|it| it.heard.iter().filter(|heard| expired(heard)).count() >= 1_000)
        })?;
    }
    let last = crowd.store.last_revision()?;
    let told = processes.into_iter().map(|it| it.close(last)).collect::<Result<Vec<_>>>()?;
    for stream in told.iter().flat_map(|told| told.streams.values()) {
        assert_eq!(stream.heard.iter().filter(|heard| expired(heard)).count(), 1_000, "{}", stream.name);
    }
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    for event in crowd.store.history(Filter::everything().kinds([Kind::Expire]), Revision::ZERO) {
        *times.entry(event?.key().unwrap_or_default().to_owned()).or_default() += 1;
    }
    assert!(times.len() == 1_000 && times.values().all(|times| *times == 1), "{times:?}");
    keeps_promises(&crowd.store, &told)?;
    crowd.sound()
}

#[test]
fn a_quota_holds_for_all_processes_together() -> Result {
    const MOST: usize = 150;
    let mut crowd = Crowd::new(Durability::Relaxed)?;
    let mut processes = crowd.processes(3)?;
    for (label, process) in processes.iter_mut().enumerate() {
        process.tell(&format!("fill tenant {MOST} f{label} 600"))?;
    }
    let mut refused = 0;
    for process in &processes {
        process.wait_for("it is done", |told| told.has_said("done"))?;
        process.told(|told| {
            assert_eq!(told.failures, []);
            let done = told.said.iter().find(|said| said.starts_with("done")).cloned().unwrap_or_default();
            refused += done.rsplit('\t').next().and_then(|word| word.parse().ok()).unwrap_or(0);
        });
    }
    assert!(refused > 100, "{refused} refusals: the quota was hardly met");
    // At each revision, not only at the end.
    let (mut there, mut most) = (std::collections::BTreeSet::new(), 0);
    for event in crowd.store.history(Filter::group("tenant:keys"), Revision::ZERO) {
        let event = event?;
        let key = event.key().unwrap_or_default().to_owned();
        let _ = if event.kind() == Kind::Set { there.insert(key) } else { there.remove(&key) };
        most = most.max(there.len());
    }
    assert_eq!(most, MOST);
    assert_eq!(crowd.store.count("tenant:keys")?, there.len() as u64);
    crowd.sound()
}

#[test]
fn watchers_of_another_process_that_do_not_read_let_the_write_ahead_log_start_again() -> Result {
    let mut crowd = Crowd::new(Durability::Relaxed)?;
    let (mut watching, mut writing) = (crowd.process()?, crowd.process()?);
    watching.tell("idle")?;
    // So slow that it is behind however long this takes.
    watching.watch("slow", "now", 100)?;
    writing.tell("write w 0 5000 plain 1000")?;
    let (mut most, mut looks) = (0, 0);
    while !writing.told(|told| told.has_said("done") || told.over) {
        most = most.max(std::fs::metadata(crowd.beside("-wal"))?.len());
        looks += 1;
        watchkeep_testkit::processes::pause(Duration::from_millis(5));
    }
    assert_eq!(writing.told(|told| told.writes.len()), 5_000);
    assert!(looks > 20 && most > 0, "{looks} looks");
    // A log that never started again would have 60 MB; how much of it there is depends on whose turn it is.
    assert!(most < 40 << 20, "{most} bytes");
    assert!(watching.told(|told| told.position("slow")) < crowd.store.last_revision()?, "it is slow");
    Ok(())
}
