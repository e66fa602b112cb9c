//! What a process that is frozen or killed does to the others.

use std::time::{Duration, Instant};

use watchkeep::Durability;

use super::crowd::{BUSY, Crowd, Result};

#[test]
fn one_that_is_frozen_with_the_lock_makes_others_busy_and_one_that_is_killed_delays_nobody() -> Result {
    let mut crowd = Crowd::new(Durability::Full)?;
    let (mut holding, mut patient) = (crowd.process()?, crowd.process()?);
    // Long enough for a write of its own on a machine that does much else.
    let haste = Duration::from_secs(2);
    let mut hasty = crowd.process_with(haste)?;
    holding.tell("hold")?;
    holding.wait_for("it holds the lock", |told| told.has_said("holding"))?;
    holding.freeze()?;
    hasty.tell("write hasty 0 1 plain 8")?;
    hasty.wait_for("it gives up", |told| !told.failures.is_empty())?;
    let failure = hasty.told(|told| told.failures[0].clone());
    assert_eq!(failure.kind, "Busy");
    assert!((haste..BUSY).contains(&failure.took), "{failure:?}");
    // Others read meanwhile, and who waits longer goes on as soon as it is gone.
    assert_eq!(crowd.store.get("w", "held")?, None);
    patient.tell("write patient 0 1 plain 8")?;
    holding.kill()?;
    let killed = Instant::now();
    patient.wait_for("it writes", |told| told.writes.len() == 1)?;
    assert!(killed.elapsed() < BUSY, "{:?}", killed.elapsed());
    assert_eq!(crowd.store.get("w", "held")?, None, "nothing of it is there");
    hasty.tell("write again 0 1 plain 8")?;
    hasty.wait_for("it writes", |told| told.writes.len() == 1)?;
    crowd.sound()
}

#[test]
fn one_that_is_frozen_with_the_lock_and_goes_on_commits() -> Result {
    let mut crowd = Crowd::new(Durability::Full)?;
    let (mut holding, mut patient) = (crowd.process()?, crowd.process()?);
    holding.tell("hold")?;
    holding.wait_for("it holds the lock", |told| told.has_said("holding"))?;
    holding.freeze()?;
    patient.tell("write patient 0 1 plain 8")?;
    holding.thaw()?;
    holding.tell("release")?;
    holding.wait_for("it commits", |told| told.has_said("released"))?;
    patient.wait_for("it writes", |told| told.writes.len() == 1)?;
    assert_eq!(crowd.store.get("w", "held")?.as_deref(), Some(&b"v"[..]));
    crowd.sound()
}

/// The most memory that a process ever had, in bytes.
fn most_memory(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

#[test]
fn one_that_wakes_far_behind_is_not_flooded() -> Result {
    let mut crowd = Crowd::new(Durability::Relaxed)?;
    let (mut sleeper, mut writer) = (crowd.process()?, crowd.process()?);
    sleeper.tell("idle")?;
    sleeper.watch("all", "now", 0)?;
    writer.tell("write first 0 50 bulk 2000")?;
    writer.wait_for("the first are written", |told| told.has_said("done"))?;
    sleeper.wait_until("all", crowd.store.last_revision()?)?;
    let before = most_memory(sleeper.id())?;
    sleeper.freeze()?;
    // 40 MB in 20,000 events.
    writer.tell("write more 0 200 bulk 2000")?;
    writer.wait_for("it has written", |told| told.writes.len() == 250)?;
    let last = crowd.store.last_revision()?;
    sleeper.thaw()?;
    sleeper.wait_until("all", last)?;
    let more = most_memory(sleeper.id())? - before;
    assert!(more < 16 << 20, "{more} bytes more, for a buffer of 16 events and a cache of pages");
    let told = sleeper.close(last)?;
    let revisions: Vec<_> = told.streams["all"].heard.iter().filter_map(|it| it.event()).collect();
    assert!(revisions.is_sorted_by(|one, next| next.revision.get() == one.revision.get() + 1));
    assert_eq!(revisions.len(), 25_000);
    Ok(())
}
