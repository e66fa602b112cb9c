//! Within a process nothing but SQLite opens the database's files: closing any descriptor of them drops the process's
//! locks. And what of the process is left behind in the file system.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::{LIMIT, Result, eventually};
use watchkeep::{
    Durability, Event, Filter, Kind, ListOptions, Options, Retention, Revision, Store, WatchOptions,
};

/// Where the store is of a process that is traced.
const TRACED: &str = "WATCHKEEP_TEST_TRACED";

/// In a process that is traced: uses everything of a store once.
#[test]
fn child() -> Result {
    let Some(path) = std::env::var_os(TRACED) else { return Ok(()) };
    for round in 0..2 {
        let store = Options::new().retention(Retention::events(100)).open(&path)?;
        let mut watcher = store.watch("*", "*");
        store.on_change(|_| {}).detach();
        for number in 0..300 {
            store.set("g", &number.to_string(), vec![b'x'; 20_000])?;
        }
        store.set_with_ttl("t", "k", "v", Duration::from_millis(1))?;
        // Until it expires; what was trimmed on the way is of no interest.
        let expired = |event: watchkeep::Result<Event>| event.is_ok_and(|event| event.kind() == Kind::Expire);
        watcher.find_map(|event| expired(event).then_some(())).ok_or("the watch ended")?;
        let mut late = store.watch_with(Filter::everything(), WatchOptions::new().snapshot())?;
        late.recv().ok_or("the watch ended")??;
        store.transaction(|tx| tx.delete("g", "0"))?;
        let snapshot = store.snapshot()?;
        snapshot.entries("g").try_for_each(|entry| entry.map(drop))?;
        store.page("g", ListOptions::new())?;
        store.history(Filter::everything(), Revision::ZERO).for_each(drop);
        store.compact(store.last_revision()?)?;
        store.stats()?;
        store.check()?;
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| store.entries("g").try_for_each(|entry| entry.map(drop)));
            }
        });
        store.delete_group("g")?;
        let again = Store::open(&path)?;
        again.set("h", &round.to_string(), "v")?;
        drop(again);
        store.close()?;
        // A reader that still drains opens the file once more.
        late.for_each(drop);
    }
    Ok(())
}

/// One call of a trace.
#[derive(Debug, Clone)]
struct Call {
    thread: String,
    text: String,
}

/// The calls of a trace, those that were interrupted put together again.
fn calls(trace: &str) -> Vec<Call> {
    let mut unfinished: BTreeMap<String, String> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let (thread, rest) = (thread.to_owned(), rest.trim_start());
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, begun.trim_end().to_owned());
        } else if let Some((_, end)) = rest.split_once(" resumed>").filter(|_| rest.starts_with("<...")) {
            let text = unfinished.remove(&thread).unwrap_or_default() + end;
            calls.push(Call { thread, text });
        } else {
            calls.push(Call { thread, text: rest.to_owned() });
        }
    }
    calls
}

#[test]
fn nothing_but_sqlite_opens_the_file_its_log_and_its_index() -> Result {
    let folder = tempfile::tempdir()?;
    let folder = folder.path().canonicalize()?;
    let (file, trace) = (folder.join("app.db"), folder.join("trace.txt"));
    let output = Command::new("strace")
        .args([
            "-f",
            // Stops the program at these calls alone.
            "--seccomp-bpf",
            "-s",
            "4096",
            "-e",
            "trace=open,openat,openat2,creat,truncate,rename,renameat,renameat2,link,linkat",
        ])
        .arg("-o")
        .arg(&trace)
        .arg(std::env::current_exe()?)
        .args(["files::child", "--exact"])
        .env(TRACED, &file)
        .output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let calls = calls(&fs::read_to_string(&trace)?);
    let text = |suffix: &str| format!("\"{}{suffix}\"", file.display());
    let mut opened = BTreeMap::new();
    let mut others = Vec::new();
    for call in &calls {
        let Some(suffix) =
            ["", "-wal", "-shm", "-journal"].into_iter().find(|suffix| call.text.contains(&text(suffix)))
        else {
            continue;
        };
        // How SQLite opens a database: for reading and writing, and never through a link in its last step.
        let sqlite = call.text.starts_with("open")
            && ["O_RDWR", "O_NOFOLLOW", "O_CLOEXEC"].iter().all(|flag| call.text.contains(flag))
            && !["O_TRUNC", "O_APPEND", "O_WRONLY"].iter().any(|flag| call.text.contains(flag));
        if sqlite && !call.text.ends_with("ENOENT (No such file or directory)") {
            *opened.entry(suffix).or_insert(0) += 1;
        } else if !sqlite {
            others.push(call.clone());
        }
    }
    assert!(others.is_empty(), "opened by others than SQLite: {others:#?}");
    // Many connections, each with the file and its write-ahead log; the index is shared by all of a process.
    let count = |suffix: &str| opened.get(suffix).copied().unwrap_or(0);
    assert!(count("") >= 8 && count("-wal") >= 2 && (1..count("")).contains(&count("-shm")), "{opened:?}");
    let threads: std::collections::BTreeSet<_> = calls.iter().map(|call| &call.thread).collect();
    assert!(threads.len() > 3, "the trace followed only {threads:?}");
    Ok(())
}

/// What a folder holds.
fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for file in fs::read_dir(folder)? {
        names.push(file?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[test]
fn a_closed_store_is_one_file_and_its_ballast() -> Result {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("app.db"))?;
    store.set("g", "k", "v")?;
    assert_eq!(
        names(folder.path())?,
        ["app.db", "app.db-ballast", "app.db-shm", "app.db-wake", "app.db-wal"]
    );
    let snapshot = store.snapshot()?;
    store.close()?;
    assert_eq!(names(folder.path())?, ["app.db", "app.db-ballast"], "everything is in the file");
    drop(snapshot);
    // It can be done without.
    let folder = tempfile::tempdir()?;
    let store = Options::new().ballast(false).open(folder.path().join("app.db"))?;
    store.set("g", "k", "v")?;
    store.close()?;
    assert_eq!(names(folder.path())?, ["app.db"]);
    Ok(())
}

#[test]
fn no_descriptor_of_the_file_is_left_when_the_store_is_closed() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().canonicalize()?.join("app.db");
    let open = || -> Result<usize> {
        let mut number = 0;
        for descriptor in fs::read_dir("/proc/self/fd")? {
            let target = fs::read_link(descriptor?.path()).unwrap_or_default();
            number += usize::from(target.to_string_lossy().starts_with(&*path.to_string_lossy()));
        }
        Ok(number)
    };
    for _ in 0..3 {
        let store = Store::open(&path)?;
        let mut watcher = store.watch("*", "*");
        (0..50).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
        let (snapshot, entries, history) =
            (store.snapshot()?, store.entries("g"), store.history(Filter::everything(), Revision::ZERO));
        assert!(open()? >= 3);
        store.close()?;
        assert_eq!(open()?, 0);
        while let Some(event) = watcher.recv_timeout(LIMIT) {
            event?;
        }
        assert_eq!(open()?, 0, "also after the last watcher has drained");
        drop((snapshot, entries, history));
    }
    Ok(())
}

#[test]
fn the_write_ahead_log_does_not_grow_without_bound_while_writers_write() -> Result {
    let folder = tempfile::tempdir()?;
    let store = Options::new().durability(Durability::Relaxed).open(folder.path().join("app.db"))?;
    let mut most = 0;
    for number in 0..300 {
        store.set("g", &(number % 20).to_string(), vec![b'x'; 500_000])?;
        most = most.max(store.stats()?.wal_bytes);
    }
    assert!(most < 200_000_000, "{most} bytes of 300,000,000 written");
    eventually("the log begins anew, and is cut", || {
        store.set("g", "k", "v")?;
        Ok(store.stats()?.wal_bytes <= 96 << 20)
    })
}

#[test]
fn a_write_ahead_log_that_grew_beside_a_reader_is_cut_when_the_reader_is_gone() -> Result {
    let folder = tempfile::tempdir()?;
    let store = Options::new().durability(Durability::Relaxed).open(folder.path().join("app.db"))?;
    let snapshot = store.snapshot()?;
    while store.stats()?.wal_bytes < 110_000_000 {
        store.set("g", "k", vec![b'x'; 500_000])?;
    }
    drop(snapshot);
    eventually("it is cut", || {
        store.set("g", "k", "v")?;
        Ok(store.stats()?.wal_bytes <= 96 << 20)
    })
}
