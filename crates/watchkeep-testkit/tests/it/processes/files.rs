//! POSIX locks belong to a process, and closing any descriptor of a file drops them all: whoever opened the database
//! beside SQLite would take others' commits along.

use std::process::Command;

use watchkeep::Durability;
use watchkeep_testkit::processes::Process;

use super::crowd::{BUSY, Crowd, Result, program};

/// A process does something, another one comes, writes and goes as if it had been alone, and the first writes again:
/// what it was told of is there.
fn survives(what: &str, said: &str) -> Result<bool> {
    let mut crowd = Crowd::new(Durability::Full)?;
    let path = crowd.path();
    crowd.store.close()?;
    let mut first = Process::start(program(), &path, 1, BUSY)?;
    first.tell("write before 0 1 plain 8")?;
    first.wait_for("it writes", |told| told.writes.len() == 1)?;
    for round in 0..3 {
        first.tell(what)?;
        first.wait_for(what, |told| told.said.iter().filter(|it| *it == said).count() == round + 1)?;
        let mut other = Process::start(program(), &path, 2 + round, BUSY)?;
        other.tell("write other 0 1 plain 8")?;
        other.wait_for("it writes", |told| told.writes.len() == 1)?;
        other.close(watchkeep::Revision::ZERO)?;
        // SQLite itself, which knows nothing of us, takes the log away when it believes to be the last to close.
        let shell = Command::new("sqlite3").arg(&path).arg("SELECT count(*) FROM wk_log").output()?;
        assert!(shell.status.success(), "{}", String::from_utf8_lossy(&shell.stderr));
        first.tell(&format!("write first{round} 0 1 plain 8"))?;
        first.wait_for("it writes, or fails", |told| {
            told.writes.len() == round + 2 || !told.failures.is_empty()
        })?;
    }
    let told = first.kill()?;
    crowd.store = watchkeep::Store::open(&path)?;
    let store = &crowd.store;
    let there = (0..3).all(|round| store.contains("w", &format!("first{round}-0")).unwrap_or(false));
    Ok(there && told.failures.is_empty() && store.check()?.is_ok())
}

#[test]
fn no_commit_of_another_process_is_lost_to_a_dropped_lock() -> Result {
    assert!(survives("upkeep", "kept")?);
    Ok(())
}

#[test]
fn a_lock_that_is_dropped_would_be_noticed() -> Result {
    assert!(!survives("trap", "trapped")?, "the test above proves nothing");
    Ok(())
}

#[test]
fn nothing_but_sqlite_opens_the_files_in_any_process() -> Result {
    let mut crowd = Crowd::new(Durability::Full)?;
    let traces = tempfile::tempdir()?;
    // One file for each thread: no call is cut in two.
    let mut strace = Command::new("strace");
    strace.args([
        "-ff",
        // Stops the program at these calls alone.
        "--seccomp-bpf",
        "-s",
        "4096",
        "-e",
        "trace=open,openat,openat2,creat,truncate,rename,renameat,renameat2,link,linkat",
    ]);
    strace.arg("-o").arg(traces.path().join("trace")).arg(program());
    let mut traced = Process::with(strace, &crowd.path(), 1, BUSY)?;
    let mut other = crowd.process()?;
    for process in [&mut traced, &mut other] {
        process.watch("all", "now", 0)?;
        process.call_back("own")?;
        process.tell("write mine 0 50 mixed 8")?;
        process.wait_for("it writes", |told| told.has_said("done"))?;
    }
    std::fs::remove_file(crowd.beside("-wake"))?;
    for process in [&mut other, &mut traced] {
        process.tell("upkeep")?;
        process.wait_for("it is kept", |told| told.has_said("kept"))?;
    }
    let last = crowd.store.last_revision()?;
    traced.wait_until("all", last)?;
    traced.close(last)?;
    let (mut by_sqlite, mut others, mut wake) = (0, Vec::new(), 0);
    for trace in std::fs::read_dir(traces.path())? {
        let text = std::fs::read_to_string(trace?.path())?;
        for call in text.lines() {
            let names = |suffix: &str| call.contains(&format!("\"{}{suffix}\"", crowd.path().display()));
            wake += u32::from(names("-wake"));
            if !["", "-wal", "-shm", "-journal"].into_iter().any(names) {
                continue;
            }
            // How SQLite opens a database: for reading and writing, and never through a link in its last step.
            let sqlite = call.starts_with("open")
                && ["O_RDWR", "O_NOFOLLOW", "O_CLOEXEC"].iter().all(|flag| call.contains(flag))
                && !["O_TRUNC", "O_APPEND", "O_WRONLY"].iter().any(|flag| call.contains(flag));
            if sqlite { by_sqlite += 1 } else { others.push(call.to_owned()) }
        }
    }
    assert!(others.is_empty(), "opened by others than SQLite: {others:#?}");
    assert!(by_sqlite > 8 && wake > 0, "{by_sqlite} and {wake}");
    Ok(())
}
