//! Within a process nothing but SQLite opens the database's files: closing any descriptor of them drops the process's
//! locks. And what of the process is left behind in the file system.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{LIMIT, Result, eventually};
use watchkeep::{Durability, Options, Store};

/// The example, built: beside this test, where Cargo puts examples. A run of this test alone does not build it.
fn example(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test.ancestors().nth(2).ok_or("no folder")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "-p", "watchkeep", "--example", name, "--target-dir"]);
    build.arg(profile.parent().ok_or("no folder")?);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    let output = build.output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(profile.join("examples").join(name))
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
            "-s",
            "4096",
            "-e",
            "trace=open,openat,openat2,creat,truncate,rename,renameat,renameat2,link,linkat",
        ])
        .arg("-o")
        .arg(&trace)
        .arg(example("file_access")?)
        .arg(&file)
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
        let (snapshot, entries, history) = (
            store.snapshot()?,
            store.entries("g"),
            store.history(watchkeep::Filter::everything(), watchkeep::Revision::ZERO),
        );
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
