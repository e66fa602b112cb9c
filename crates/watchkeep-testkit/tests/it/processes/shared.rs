//! Expiry, counters, quotas and the write-ahead log, which all processes share.

use std::collections::BTreeMap;
use std::process::Command;

use watchkeep::{Durability, Filter, Kind, Quota, Revision};
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
    let quota = Quota { max_keys: u64::try_from(MOST)?, ..Quota::default() };
    crowd.store.scoped("tenant")?.set_quota(quota)?;
    let mut processes = crowd.processes(3)?;
    for (label, process) in processes.iter_mut().enumerate() {
        process.tell(&format!("fill tenant f{label} 600"))?;
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
    // A log that starts again is written over from its beginning, and SQLite counts that in its header.
    let begun = || -> Result<Vec<u8>> {
        // By another program: this process must not open the file.
        let header = Command::new("head").args(["-c", "16"]).arg(crowd.beside("-wal")).output()?.stdout;
        Ok(header.get(12..).ok_or("no header")?.to_vec())
    };
    writing.tell("write first 0 1 plain 1000")?;
    writing.wait_for("the first is written", |told| told.has_said("done"))?;
    let (first, mut round) = (begun()?, 0);
    while begun()? == first {
        round += 1;
        assert!(round <= 20, "20,000 writes of 1 kB, and the log never started again");
        writing.tell(&format!("write w{round} 0 1000 plain 1000"))?;
        writing.wait_for("it has written", |told| told.writes.len() == 1 + 1_000 * round)?;
    }
    assert!(watching.told(|told| told.position("slow")) < crowd.store.last_revision()?, "it is slow");
    Ok(())
}
