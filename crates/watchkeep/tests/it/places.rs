//! Places where a store must not be made, or not be opened, and names that it cannot have.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{LIMIT, Result, eventually};
use rusqlite::Connection;
use tempfile::TempDir;
use watchkeep::{BackupOptions, ErrorKind, Options, Store};

/// A store in a folder of its own, closed again.
fn closed() -> Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let store = Store::open(&path)?;
    store.set("g", "k", "ours")?;
    store.close()?;
    Ok((folder, path))
}

/// A file mounted on another, for as long as this is held. Tests that need it fail where it cannot be mounted.
struct Bound(PathBuf);

impl Bound {
    fn mount(file: &Path, on: &Path) -> Result<Bound> {
        let output = Command::new("mount").arg("--bind").args([file, on]).output()?;
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "this test mounts a file on another, which takes root and mount: {why}"
        );
        Ok(Bound(on.to_owned()))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}

#[test]
fn a_file_that_is_mounted_without_its_folder_is_refused_and_a_mounted_folder_is_not() -> Result {
    let (folder, path) = closed()?;
    let container = tempfile::tempdir()?;
    let inside = container.path().join("app.db");
    fs::write(&inside, "")?;
    let mounted = Bound::mount(&path, &inside)?;
    let link = container.path().join("link.db");
    symlink(&inside, &link)?;
    for name in [&inside, &link] {
        let error = Store::open(name).err().ok_or("it was opened")?;
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains("mount its folder"), "{error}");
    }
    let mut left: Vec<_> =
        fs::read_dir(container.path())?.map(|file| Ok(file?.file_name())).collect::<Result<_>>()?;
    left.sort();
    assert_eq!(left, ["app.db", "link.db"], "nothing was put beside it");
    drop(mounted);
    let _mounted = Bound::mount(folder.path(), container.path())?;
    assert_eq!(Store::open(&inside)?.get("g", "k")?.ok_or("it is missing")?, "ours");
    Ok(())
}

#[test]
fn a_name_or_path_that_is_too_long_is_refused_in_words_and_nothing_is_made() -> Result {
    let folder = tempfile::tempdir()?;
    let folder = folder.path().canonicalize()?;
    let mut deep = folder.clone();
    while deep.as_os_str().len() < 520 {
        deep.push("d".repeat(60));
    }
    fs::create_dir_all(&deep)?;
    // Short by itself, but SQLite opens what it leads to.
    let link = folder.join("link");
    symlink(&deep, &link)?;
    // With what we put behind a name, and what SQLite puts behind a path.
    let name = "n".repeat(255 - "-ballast".len());
    let parent = folder.join("p".repeat(150)).join("q".repeat(150));
    fs::create_dir_all(&parent)?;
    let path = parent.join("r".repeat(512 - "-journal".len() - parent.as_os_str().len() - 1));
    for fits in [folder.join(&name), path.clone()] {
        Options::new().ballast(false).open(fits)?.set("g", "k", "v")?;
    }
    let longer = path.with_extension("");
    let longer = longer.with_file_name(format!("{}r", longer.file_name().ok_or("no name")?.display()));
    for path in [folder.join(format!("{name}n")), longer, deep.join("app.db"), link.join("app.db")] {
        refused_as_too_long(Store::open(&path).map(drop))?;
    }
    let counts = [&deep, &folder, &parent].map(|folder| fs::read_dir(folder).map(Iterator::count));
    assert_eq!(counts.into_iter().collect::<std::io::Result<Vec<_>>>()?, [0, 4, 1], "something was made");

    let store = Store::open_in_memory()?;
    let target = "n".repeat(255 - "-partial-XXXXXXXX-journal".len());
    store.backup(folder.join(&target))?;
    Store::restore(folder.join(&target), folder.join(target.replace('n', "m")), BackupOptions::new())?;
    refused_as_too_long(store.backup(folder.join(format!("{target}n"))).map(drop))?;
    refused_as_too_long(store.backup(deep.join("copy.db")).map(drop))?;
    let restored = Store::restore(folder.join(&target), deep.join("app.db"), BackupOptions::new());
    refused_as_too_long(restored.map(drop))?;
    assert_eq!(fs::read_dir(&deep)?.count(), 0, "something was made");
    Ok(())
}

#[test]
fn a_file_whose_texts_are_not_utf_8_is_foreign_whatever_tables_it_has() -> Result {
    let (folder, ours) = closed()?;
    let source = Connection::open(&ours)?;
    let schema: Vec<String> = source
        .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%'")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let meta: Vec<(String, rusqlite::types::Value)> = source
        .prepare("SELECT name, value FROM wk_meta")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for encoding in ["UTF-16le", "UTF-16be"] {
        let path = folder.path().join(format!("{encoding}.db"));
        let conn = Connection::open(&path)?;
        conn.execute_batch(&format!("PRAGMA encoding = '{encoding}'; CREATE TABLE notes (text)"))?;
        let refused = |options: Options| -> Result {
            let error = options.open(&path).err().ok_or("it was opened")?;
            assert_eq!(error.kind(), ErrorKind::ForeignFile, "{error}");
            assert!(error.to_string().contains("UTF-8"), "{error}");
            Ok(())
        };
        refused(Options::new().adopt(true))?;
        let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        assert_eq!(tables, 1, "nothing was made in it");
        // Exactly our tables and rows: texts compare by other bytes than those that we look for.
        conn.execute_batch(&schema.join(";"))?;
        for (name, value) in &meta {
            conn.execute("INSERT INTO wk_meta (name, value) VALUES (?1, ?2)", (name, value))?;
        }
        conn.close().map_err(|(_, error)| error)?;
        refused(Options::new())?;
        let restored = Store::restore(&path, folder.path().join("new.db"), BackupOptions::new());
        assert_eq!(restored.map_err(|error| error.kind()), Err(ErrorKind::ForeignFile));
    }
    Ok(())
}

#[test]
fn a_file_that_is_overwritten_in_place_is_noticed_after_the_next_write() -> Result {
    let folder = tempfile::tempdir()?;
    let (path, other) = (folder.path().join("app.db"), folder.path().join("other.db"));
    for (path, writes) in [(&path, 1), (&other, 50)] {
        let store = Store::open(path)?;
        (0..writes).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
        store.close()?;
    }
    let store = Store::open(&path)?;
    let mut watcher = store.watch("nothing", "*");
    // By another program: this process must not open the file.
    assert!(Command::new("cp").args([&other, &path]).status()?.success());
    // Until then it is a mixture of both, and whatever is done with it may fail.
    eventually("it is noticed", || {
        store.set("g", "0", "v").ok();
        let read = store.get("g", "0").err();
        Ok(read.is_some_and(|error| {
            error.kind() == ErrorKind::Replaced && error.to_string().contains("overwritten")
        }))
    })?;
    let told = watcher.recv_timeout(LIMIT).ok_or("it ended in silence")?.err().ok_or("an event too many")?;
    assert!(matches!(told.kind(), ErrorKind::Replaced | ErrorKind::Corrupt), "{told}");
    // What was written meanwhile is a mixture, too, and stays out of the other file.
    store.close()?;
    let store = Store::open(&path)?;
    assert_eq!(store.count("g")?, 50);
    assert!(store.check()?.is_ok());
    Ok(())
}

fn refused_as_too_long(result: watchkeep::Result<()>) -> Result {
    let error = result.err().ok_or("it was not refused")?;
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("is too long"), "{error}");
    Ok(())
}

#[test]
fn a_backup_with_another_name_elsewhere_is_not_restored_without_what_lies_there() -> Result {
    let (folder, path) = closed()?;
    let store = Store::open(&path)?;
    store.set("g", "k", "in the write-ahead log")?;
    let elsewhere = tempfile::tempdir()?;
    let target = folder.path().join("restored.db");
    let refused = |source: &Path| {
        let error = Store::restore(source, &target, BackupOptions::new()).err().ok_or("it was restored")?;
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(!target.exists());
        Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    };
    let linked = elsewhere.path().join("linked.db");
    fs::hard_link(&path, &linked)?;
    refused(&linked)?;
    fs::remove_file(&linked)?;
    let inside = elsewhere.path().join("mounted.db");
    fs::write(&inside, "")?;
    let mounted = Bound::mount(&path, &inside)?;
    refused(&inside)?;
    drop(mounted);
    Ok(())
}
