//! What a switch does when somebody comes in between, in memory.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use watchkeep::{
    Clock, ConsumerOptions, ConsumerStart, Error, Kind, ManualClock, Options, Quota, Result, Retention,
    Revision, SetOptions, Store, SystemClock, Timestamp,
};

use super::changes::Ending;
use super::enter::Mark;
use super::{Migration, Summary};
use crate::exit::Failure;

const PLACE: &str = "/there.db";
/// Far longer than anything takes that goes right.
const LIMIT: Duration = Duration::from_secs(60);
const TTL: Duration = Duration::from_secs(3_600);

pub(super) fn ours(failure: Failure) -> Error {
    Error::abort(failure.to_string())
}

pub(super) fn mark(source: &Store, target: &Store) -> Result<Mark> {
    Mark::enter((source, target), PLACE, false, &AtomicBool::new(false)).map_err(ours)
}

fn migration(source: &Store, target: &Store) -> Result<Migration> {
    Ok(Migration {
        source: source.clone(),
        target: target.clone(),
        mark: mark(source, target)?,
        ending: Ending::new(),
        place: PLACE.to_owned(),
        stop: Arc::default(),
        summary: Summary::default(),
    })
}

/// A migration that has made its first pass; up to where.
fn passed(source: &Store, target: &Store) -> Result<(Migration, Revision)> {
    let mut migration = migration(source, target)?;
    let snapshot = source.snapshot()?;
    let at = migration.pass(&snapshot, snapshot.count_all("")?).map_err(ours)?;
    Ok((migration, at))
}

fn stores() -> Result<(Store, Store)> {
    Ok((Store::open_in_memory()?, Store::open_in_memory()?))
}

fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !is_so()? {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
    Ok(())
}

#[test]
fn a_switch_whose_seal_was_lifted_in_between_is_refused_and_the_write_stays() -> Result<()> {
    for seals_again in [false, true] {
        let (source, target) = stores()?;
        source.set("g", "k", "v")?;
        let (mut migration, at) = passed(&source, &target)?;
        source.set("g", "k", "w")?;
        let sealed = migration.seal().map_err(ours)?;
        source.unseal()?;
        // It is even copied, for the history is read after it; what comes after that would not be.
        source.set("g", "k", "acknowledged")?;
        if seals_again {
            // As another run does that goes on with the same migration.
            source.seal(super::switch::moving(PLACE))?;
        }
        let failure = migration.finish(at, sealed).err().map(|failure| migration.lift(failure).to_string());
        assert!(failure.is_some_and(|failure| failure.contains("--resume")));
        assert_eq!(source.sealed()?, None);
        assert_eq!(source.get("g", "k")?, Some("acknowledged".into()));
    }
    Ok(())
}

#[test]
fn a_seal_of_somebody_else_is_neither_replaced_nor_lifted() -> Result<()> {
    let (source, target) = stores()?;
    let (mut migration, at) = passed(&source, &target)?;
    source.seal("maintenance")?;
    let failure = migration.switch(at).unwrap_err().to_string();
    assert!(failure.contains("maintenance"), "{failure}");
    assert_eq!(source.sealed()?.as_deref(), Some("maintenance"));

    source.unseal()?;
    let sealed = migration.seal().map_err(ours)?;
    source.seal("maintenance")?;
    let failure = migration.finish(at, sealed).unwrap_err();
    let failure = migration.lift(failure).to_string();
    assert!(failure.contains("maintenance"), "{failure}");
    assert_eq!(source.sealed()?.as_deref(), Some("maintenance"));
    Ok(())
}

/// What a consumer that has acknowledged everything is told in the target of what comes due during the switch.
fn told_of_what_comes_due(set: impl Fn(&Store) -> Result<Revision>, is_copied: bool) -> Result<Vec<Kind>> {
    // A copy takes what is due by the clock of the machine for gone, whatever the stores' own clock says.
    let ago = if is_copied { Duration::ZERO } else { TTL * 2 };
    let start = SystemClock.now().as_millis() - i64::try_from(ago.as_millis()).unwrap_or(0);
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(start)));
    let open = || Options::new().clock(clock.clone()).open_in_memory();
    let (source, target) = (open()?, open()?);
    source.set("g", "k", "before")?;
    if is_copied {
        set(&source)?;
    }
    let (mut migration, at) = passed(&source, &target)?;
    if !is_copied {
        set(&source)?;
    }
    let all = ConsumerOptions::new().start(ConsumerStart::Now);
    source.consumer_with("billing", all)?.close()?;
    let sealed = migration.seal().map_err(ours)?;
    let before = target.last_revision()?;
    clock.advance(TTL + Duration::from_secs(1));
    if is_copied {
        until("the target announces it", || Ok(target.last_revision()? > before))?;
    }
    migration.finish(at, sealed).map_err(ours)?;
    clock.advance(TTL * 2);
    let mut billing = target.consumer("billing")?;
    let mut told = Vec::new();
    while told.last() != Some(&Kind::Expire) {
        let Some(event) = billing.recv_timeout(LIMIT) else { break };
        told.push(event?.kind());
    }
    assert_eq!(target.get("g", "k")?, None);
    Ok(told)
}

#[test]
fn a_consumer_is_told_in_the_target_what_came_due_during_the_switch() -> Result<()> {
    let set = |store: &Store| store.set_with("g", "k", "v", SetOptions::new().ttl(TTL));
    let touch = |store: &Store| {
        assert!(store.touch("g", "k", TTL)?);
        store.last_revision()
    };
    assert_eq!(told_of_what_comes_due(set, true)?, [Kind::Expire]);
    assert_eq!(told_of_what_comes_due(set, false)?, [Kind::Set, Kind::Expire]);
    assert_eq!(told_of_what_comes_due(touch, false)?, [Kind::Set, Kind::Expire]);
    Ok(())
}

#[test]
fn deadlines_that_change_are_followed() -> Result<()> {
    let (source, target) = stores()?;
    source.set_with_ttl("g", "later", "v", TTL)?;
    source.set_with_ttl("g", "never", "v", TTL)?;
    let (mut migration, at) = passed(&source, &target)?;
    source.touch("g", "later", TTL * 2)?;
    source.persist("g", "never")?;
    migration.catch_up(at).map_err(ours)?;
    let deadline =
        |store: &Store, key: &str| store.entry("g", key).map(|entry| entry.and_then(|it| it.deadline));
    assert_eq!(deadline(&target, "later")?, deadline(&source, "later")?);
    assert_eq!(deadline(&target, "never")?, None);
    Ok(())
}

#[test]
fn catching_up_ends_although_the_source_is_written_to_all_the_time() -> Result<()> {
    let (source, target) = stores()?;
    let (mut migration, at) = passed(&source, &target)?;
    // More than a page of the log.
    source.transaction(|tx| (0..1_500).try_for_each(|number| tx.set("g", &number.to_string(), "v")))?;
    // Each transaction that the target gets brings more than it held.
    let writer = source.clone();
    let more = target.on_change(move |event| {
        if event.revision() == event.commit() {
            let mut keys = (0..2_000).map(|number| number.to_string());
            let filled = writer.transaction(|tx| keys.try_for_each(|key| tx.set("more", &key, "v")));
            assert!(filled.is_ok());
        }
    });
    let reached = migration.catch_up(at).map_err(ours)?;
    more.unregister();
    assert!(reached < source.last_revision()?, "it came to an end that was not there when it began");
    migration.switch(reached).map_err(ours)?;
    assert_eq!(target.count("more")?, source.count("more")?);
    Ok(())
}

#[test]
fn what_an_empty_source_lost_before_it_was_followed_is_noticed() -> Result<()> {
    let source = Options::new().retention(Retention::events(1)).open_in_memory()?;
    let target = Store::open_in_memory()?;
    let (mut migration, at) = passed(&source, &target)?;
    assert_eq!(at, Revision::ZERO);
    source.set("g", "lost", "v")?;
    source.set("g", "kept", "v")?;
    source.compact(source.last_revision()?)?;
    migration.catch_up(at).map_err(ours)?;
    assert_eq!(target.count("g")?, 2);
    Ok(())
}

#[test]
fn a_quota_that_the_source_does_not_have_goes() -> Result<()> {
    let (source, target) = stores()?;
    let quota = Quota { max_keys: 1, ..Quota::default() };
    // Left by an earlier switch that failed.
    target.scoped("tenant")?.set_quota(quota)?;
    source.set("tenant:config", "a", "v")?;
    source.set("tenant:config", "b", "v")?;
    source.scoped("other")?.set_quota(quota)?;
    let (mut migration, at) = passed(&source, &target)?;
    target.scoped("late")?.set_quota(quota)?;
    migration.switch(at).map_err(ours)?;
    assert_eq!(target.quotas()?, [("other".to_owned(), quota)]);
    assert_eq!((migration.summary.quotas, target.count("tenant:config")?), (1, 2));
    Ok(())
}
