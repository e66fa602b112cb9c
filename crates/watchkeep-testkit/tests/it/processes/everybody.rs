//! Every process sees every commit once, in one order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use watchkeep::{Durability, Waking};
use watchkeep_testkit::faults::Row;
use watchkeep_testkit::processes::kill::keeps_promises;
use watchkeep_testkit::processes::{Process, Told, pause};
use watchkeep_testkit::size::scaled;

use super::crowd::{Crowd, Result};

/// Four processes write and have a callback each, four watch.
fn start(crowd: &mut Crowd, commits: u64, how: &str) -> Result<(Vec<Process>, Vec<Process>)> {
    let (mut watching, mut writing) = (crowd.processes(4)?, crowd.processes(4)?);
    for process in &mut watching {
        process.watch("all", "0", 0)?;
    }
    // Whoever writes begins when all of them hear.
    for process in &mut writing {
        process.call_back("own")?;
    }
    for (label, process) in writing.iter_mut().enumerate() {
        process.tell(&format!("write w{label} 0 {} {how} 8", commits / 4))?;
    }
    Ok((watching, writing))
}

fn finish(crowd: &Crowd, watching: Vec<Process>, writing: Vec<Process>) -> Result<Vec<Told>> {
    for process in &writing {
        process.wait_for("it has written all", |told| told.has_said("done"))?;
    }
    let last = crowd.store.last_revision()?;
    for process in &watching {
        process.wait_until("all", last)?;
    }
    for process in &writing {
        process.wait_until("own", last)?;
    }
    assert_eq!(crowd.store.last_revision()?, last, "nobody writes any more");
    watching.into_iter().chain(writing).map(|process| process.close(last)).collect()
}

/// All promises hold; so many writes returned, and each stream has all events.
fn all_is_there(crowd: &Crowd, told: &[Told], commits: u64) -> Result {
    keeps_promises(&crowd.store, told)?;
    assert_eq!(told.iter().map(|told| told.writes.len() as u64).sum::<u64>(), commits);
    crowd.sound()
}

fn commits_seen(commits: u64) -> Row {
    Row { rounds: commits, ..Row::default() }
}

#[test]
fn four_writers_and_four_watchers_see_every_commit_in_one_order() -> Result {
    let mut crowd = Crowd::new(Durability::Relaxed)?;
    let commits = scaled(2_000);
    let (watching, writing) = start(&mut crowd, commits, "plain")?;
    let told = finish(&crowd, watching, writing)?;
    all_is_there(&crowd, &told, commits)?;
    for stream in told.iter().flat_map(|told| told.streams.values()) {
        assert_eq!(stream.heard.len() as u64, commits, "{}", stream.name);
    }
    commits_seen(commits).print("everybody");
    Ok(())
}

#[test]
fn they_see_it_with_full_durability_with_transactions_and_expiry_amidst_checkpoints() -> Result {
    let mut crowd = Crowd::new(Durability::Full)?;
    let (watching, writing) = start(&mut crowd, scaled(100), "mixed")?;
    let over = AtomicBool::new(false);
    let told = std::thread::scope(|scope| {
        let storm = scope.spawn(|| -> Result {
            let conn = rusqlite::Connection::open(crowd.path())?;
            // Fewer checkpoints than this are no storm.
            let (kinds, mut done) = (["PASSIVE", "FULL", "RESTART", "TRUNCATE"], 0);
            while done <= 10 || !over.load(Ordering::Relaxed) {
                for kind in kinds {
                    let busy = conn
                        .query_row(&format!("PRAGMA wal_checkpoint({kind})"), [], |row| row.get::<_, i64>(0));
                    done += u64::from(busy.is_ok_and(|busy| busy == 0));
                }
                pause(Duration::from_millis(1));
            }
            Ok(())
        });
        let written = writing.iter().try_for_each(|it| it.wait_for("all", |told| told.has_said("done")));
        // What expires late is among what everybody must see.
        let settled = written.and_then(|()| {
            pause(Duration::from_millis(100));
            Ok(crowd.store.purge_expired().map(drop)?)
        });
        let told = settled.and_then(|()| finish(&crowd, watching, writing));
        over.store(true, Ordering::Relaxed);
        storm.join().map_err(|_| "the storm panicked")??;
        told
    })?;
    all_is_there(&crowd, &told, scaled(100))?;
    commits_seen(scaled(100)).print("everybody-full");
    Ok(())
}

#[test]
fn they_see_it_though_members_are_killed_and_the_wake_file_is_deleted() -> Result {
    let mut crowd = Crowd::new(Durability::Relaxed)?;
    let (mut watching, mut writing) = start(&mut crowd, scaled(4_000), "plain")?;
    let (mut gone, mut random) = (Vec::new(), fastrand::Rng::with_seed(12));
    for kill in 0..scaled(4) {
        pause(Duration::from_millis(random.u64(5..60)));
        if kill.is_multiple_of(3) {
            std::fs::remove_file(crowd.beside("-wake")).ok();
        }
        if kill.is_multiple_of(2) {
            let told = watching.remove(0).kill()?;
            let mut process = crowd.process()?;
            process.watch("all", &told.position("all").to_string(), 0)?;
            watching.push(process);
            gone.push(told);
        } else {
            gone.push(writing.remove(0).kill()?);
            let mut process = crowd.process()?;
            process.call_back("own")?;
            process.tell(&format!("write again{kill} 0 500 plain 8"))?;
            writing.push(process);
        }
    }
    for process in &mut writing {
        process.wait_for("it has written all", |told| told.has_said("done"))?;
    }
    // Whose callback was registered late has something to wait for.
    crowd.store.set("w", "last", "v")?;
    let mut told = finish(&crowd, watching, writing)?;
    told.extend(gone);
    keeps_promises(&crowd.store, &told)?;
    crowd.sound()?;
    Row { rounds: scaled(4), ..Row::default() }.print("everybody-killed");
    Ok(())
}

#[test]
fn they_see_it_without_a_wake_file_by_looking() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().canonicalize()?.join("a.db");
    watchkeep::Options::new().durability(Durability::Relaxed).open(&path)?.close()?;
    let mut crowd = Crowd::new(Durability::Relaxed)?;
    std::fs::create_dir(path.with_file_name("a.db-wake"))?;
    (crowd.store, crowd.folder) = (watchkeep::Store::open(&path)?, folder);
    assert_eq!(crowd.store.stats()?.waking, Waking::Poll);
    let (watching, writing) = start(&mut crowd, 400, "plain")?;
    assert!(watching.iter().chain(&writing).all(|process| process.told(|told| told.waking == "poll")));
    let told = finish(&crowd, watching, writing)?;
    all_is_there(&crowd, &told, 400)
}
