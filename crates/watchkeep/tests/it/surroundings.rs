//! Hostile and broken surroundings: an error of its own kind for each, never a wrong value, never silence.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{LIMIT, Result, eventually, take};
use rusqlite::Connection;
use tempfile::TempDir;
use watchkeep::{
    BackupOptions, Durability, ErrorKind, Filter, Item, Options, Revision, Store, WatchOptions, Watcher,
};

fn kind<T>(result: watchkeep::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// A store in a folder of its own.
fn store() -> Result<(TempDir, PathBuf, Store)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let store = Options::new().durability(Durability::Relaxed).open(&path)?;
    store.set("g", "k", "ours")?;
    Ok((folder, path, store))
}

/// The error that ends a watch, after so many events.
fn last_words(watcher: &mut Watcher, events: usize) -> Result<ErrorKind> {
    take(watcher, events)?;
    let error = watcher.recv_timeout(LIMIT).ok_or("it ended in silence")?.err().ok_or("an event too many")?;
    assert!(watcher.recv_timeout(LIMIT).is_none() && watcher.is_ended(), "the error comes once");
    Ok(error.kind())
}

#[test]
fn a_replaced_file_ends_the_store_and_the_other_file_is_left_alone() -> Result {
    let (folder, path, store) = store()?;
    let other = folder.path().join("other.db");
    Store::open(&other)?.set("g", "k", "theirs")?;
    let bytes = fs::read(&other)?;
    let mut idle = store.watch("g", "*");
    let mut behind = store.watch_with(Filter::everything(), WatchOptions::new().buffer(1))?;
    let mut snapshot = store.watch_with(Filter::everything(), WatchOptions::new().snapshot())?;
    for n in 0..3 {
        store.set("g", "k", n.to_string())?;
    }
    fs::rename(&other, &path)?;

    assert_eq!(last_words(&mut idle, 3)?, ErrorKind::Replaced);
    // What is buffered was committed, and is handed out; what would have to be read is not.
    assert_eq!(last_words(&mut behind, 1)?, ErrorKind::Replaced);
    let mut told = Vec::new();
    while let Some(item) = snapshot.items().recv_timeout(LIMIT) {
        told.push(item);
    }
    assert_eq!(told.iter().filter(|item| item.is_err()).count(), 1, "{told:?}");
    assert!(told.iter().flatten().all(
        |item| !matches!(item, Item::Event(event) if event.value().is_some_and(|value| *value == "theirs"))
    ));

    assert_eq!(kind(store.set("g", "k", "lost")), Some(ErrorKind::Replaced));
    assert_eq!(kind(store.get("g", "k")), Some(ErrorKind::Replaced));
    assert_eq!(kind(store.stats()), Some(ErrorKind::Replaced));
    assert_eq!(kind(store.transaction(|tx| tx.set("g", "k", "lost"))), Some(ErrorKind::Replaced));
    assert_eq!(kind(store.backup(folder.path().join("copy.db"))), Some(ErrorKind::Replaced));
    assert_eq!(kind(store.watch_with(Filter::everything(), WatchOptions::new())), Some(ErrorKind::Replaced));
    let written = futures_executor::block_on(store.to_async().set("g", "k", "lost"));
    assert_eq!(kind(written), Some(ErrorKind::Replaced));
    store.close()?;
    assert!(fs::read(&path)? == bytes, "the other file was written to");
    // The log of the store that is gone, which whoever put the file there left beside it, is put aside.
    assert!(fs::metadata(folder.path().join("app.db-wal-replaced"))?.len() > 0);
    let theirs = Store::open(&path)?;
    assert_eq!(theirs.get("g", "k")?.ok_or("it is gone")?, "theirs");
    assert!(theirs.check()?.is_ok());
    Ok(())
}

#[test]
fn nothing_of_a_replaced_store_gets_into_the_other_file_by_a_look_at_it() -> Result {
    let (folder, path, store) = store()?;
    let other = folder.path().join("other.db");
    Store::open(&other)?.set("g", "k", "theirs")?;
    let bytes = fs::read(&other)?;
    fs::rename(&other, &path)?;
    // On a connection of its own, which is opened now.
    assert_eq!(kind(store.snapshot()), Some(ErrorKind::Replaced));
    assert!(fs::read(&path)? == bytes, "the other file was written to");
    assert!(folder.path().join("app.db-wal").exists(), "the log is gone");
    Ok(())
}

#[test]
fn a_log_that_is_cut_off_below_a_watch_is_an_error_where_it_is_read() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let store = Options::new().page_cache(0).open(&path)?;
    let mut watcher = store.watch("*", "*");
    // Nothing moves into the file meanwhile, and it is more than any cache holds: what goes is missed.
    let _held = store.snapshot()?;
    store.transaction(|tx| (0..200).try_for_each(|n| tx.set("g", &n.to_string(), vec![b'x'; 60_000])))?;
    // By another program: this process must not open the file.
    let script = "truncate -s 0 \"$1-wal\"";
    assert!(Command::new("sh").args(["-c", script, "cut"]).arg(&path).status()?.success());
    let told = std::iter::from_fn(|| watcher.recv_timeout(LIMIT)).find_map(|event| event.err());
    let kind = told.ok_or("it waits in silence")?.kind();
    assert!(matches!(kind, ErrorKind::Io | ErrorKind::Corrupt | ErrorKind::Replaced), "{kind:?}");
    Ok(())
}

#[test]
fn a_removed_file_log_or_index_ends_the_store() -> Result {
    for suffix in ["", "-wal", "-shm"] {
        let (folder, path, store) = store()?;
        let mut watcher = store.watch("g", "*");
        let victim = folder.path().join(format!("app.db{suffix}"));
        fs::remove_file(&victim)?;
        assert_eq!(last_words(&mut watcher, 0)?, ErrorKind::Replaced, "{victim:?}");
        let error = store.set("g", "k", "lost").err().ok_or("it was written")?;
        assert!(
            error.kind() == ErrorKind::Replaced && error.to_string().contains(&format!("app.db{suffix}")),
            "{error}"
        );
        store.close()?;
        drop(path);
    }
    Ok(())
}

#[test]
fn a_store_that_lost_its_files_leaves_alone_what_others_write_there() -> Result {
    for (reads, knows) in [(false, false), (true, false), (true, true)] {
        let (folder, path, store) = store()?;
        // What others find is in the file itself.
        store.close()?;
        let store = Store::open(&path)?;
        store.set("g", "k", "newer")?;
        let held = reads.then(|| store.get("g", "k").and_then(|_| store.snapshot())).transpose()?;
        for suffix in ["-wal", "-shm"] {
            fs::remove_file(folder.path().join(format!("app.db{suffix}")))?;
        }
        // In one process all connections to a file share what is removed, so another process writes.
        let theirs = "UPDATE wk_meta SET value = 4711 WHERE name = 'max_events'";
        assert!(Command::new("sqlite3").arg(&path).arg(theirs).status()?.success());
        if knows {
            eventually("it notices", || Ok(kind(store.set("g", "k", "v")) == Some(ErrorKind::Replaced)))?;
        }
        store.close()?;
        drop(held);
        assert_eq!(Store::open(&path)?.stats()?.retention.max_events, 4711, "{reads} {knows}");
    }
    Ok(())
}

#[test]
fn a_write_ahead_log_without_its_store_is_not_thrown_away() -> Result {
    let (folder, path, store) = store()?;
    let away = folder.path().join("away.db");
    // As after a kill.
    let copied = Command::new("sh")
        .args(["-c", "cp \"$0\" \"$1\" && cp \"$0-wal\" \"$1-wal\""])
        .args([&path, &away])
        .status()?;
    assert!(copied.success());
    store.close()?;
    fs::rename(&away, folder.path().join("moved.db"))?;
    let error = Store::open(&away).err().ok_or("it was opened")?;
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("away.db-wal"), "{error}");
    assert!(!away.exists());
    fs::rename(folder.path().join("moved.db"), &away)?;
    assert_eq!(Store::open(&away)?.get("g", "k")?.ok_or("it is lost")?, "ours");
    Ok(())
}

#[test]
fn a_writer_notices_by_itself_that_its_file_is_gone() -> Result {
    let (_folder, path, store) = store()?;
    fs::rename(&path, path.with_extension("away"))?;
    let written = Arc::new(AtomicUsize::new(0));
    eventually("a write is refused", || match store.set("g", "k", "v") {
        Ok(_) => {
            written.fetch_add(1, Ordering::Relaxed);
            Ok(false)
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Replaced);
            Ok(true)
        }
    })?;
    // Looking every few milliseconds, writing every two.
    assert!(written.load(Ordering::Relaxed) < 100, "{written:?} writes went into a file that is gone");
    Ok(())
}

#[test]
fn a_new_connection_never_reads_another_file_that_lies_there_now() -> Result {
    let (folder, path, store) = store()?;
    let other = folder.path().join("other.db");
    Store::open(&other)?.set("g", "k", "theirs")?;
    // Many readers at once need more connections than there are: each is opened on what lies there then.
    let snapshot = store.snapshot()?;
    fs::rename(&other, &path)?;
    assert_eq!(kind(store.snapshot()), Some(ErrorKind::Replaced));
    drop(snapshot);
    Ok(())
}

#[test]
fn closing_is_never_mistaken_for_losing_the_files() -> Result {
    for _ in 0..40 {
        let (_folder, _path, store) = store()?;
        let mut watcher = store.watch("g", "*");
        store.close()?;
        assert!(watcher.recv_timeout(LIMIT).is_none());
    }
    Ok(())
}

#[test]
fn what_is_no_regular_file_with_one_name_is_refused_without_being_opened() -> Result {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    assert!(Command::new("mkfifo").arg(at("pipe.db")).status()?.success());
    let _socket = std::os::unix::net::UnixListener::bind(at("socket.db"))?;
    assert!(fs::metadata("/dev/null")?.file_type().is_char_device());
    symlink("/dev/null", at("device.db"))?;
    fs::create_dir(at("folder.db"))?;
    for (name, word) in
        [("pipe.db", "pipe"), ("socket.db", "socket"), ("device.db", "device"), ("folder.db", "folder")]
    {
        let error = crate::support::within_limit({
            let path = at(name);
            move || Ok(Store::open(path).err().ok_or("it was opened")?)
        })?;
        assert!(error.kind() == ErrorKind::ForeignFile && error.to_string().contains(word), "{error}");
    }
    let (_folder, path, store) = store()?;
    let second = path.with_extension("second");
    store.close()?;
    fs::hard_link(&path, &second)?;
    for name in [&path, &second] {
        let error = Store::open(name).err().ok_or("it was opened")?;
        assert!(
            error.kind() == ErrorKind::InvalidArgument && error.to_string().contains("hard links"),
            "{error}"
        );
    }
    fs::remove_file(&second)?;
    Store::open(&path)?;
    Ok(())
}

#[test]
fn a_link_locks_the_real_file() -> Result {
    let (folder, path, store) = store()?;
    let link = folder.path().join("link.db");
    symlink(&path, &link)?;
    let linked = Options::new().busy_timeout(Duration::from_millis(20)).open(&link)?;
    let refused = store.transaction(|tx| {
        tx.set("g", "k", "held")?;
        Ok(std::thread::scope(|scope| scope.spawn(|| kind(linked.set("g", "k", "v"))).join()))
    })?;
    assert_eq!(refused.value.map_err(|_| "it panicked")?, Some(ErrorKind::Busy));
    assert!(!folder.path().join("link.db-wal").exists());
    Ok(())
}

#[test]
fn a_crafted_file_is_refused_before_anything_in_it_runs() -> Result {
    for sql in [
        "CREATE TRIGGER t AFTER INSERT ON wk_log BEGIN DELETE FROM wk_entries; END",
        "CREATE TRIGGER t BEFORE UPDATE ON wk_groups BEGIN SELECT raise(IGNORE); END",
        "ALTER TABLE wk_entries ADD COLUMN twice AS (value || value)",
        "CREATE INDEX i ON wk_entries (abs(revision))",
        "CREATE VIEW wk_more AS SELECT * FROM wk_log",
        "DROP TABLE wk_dead; CREATE VIEW wk_dead AS SELECT 1 AS group_id",
        "DROP INDEX wk_deadlines",
    ] {
        let (_folder, path, store) = store()?;
        store.close()?;
        Connection::open(&path)?.execute_batch(sql)?;
        let error = Store::open(&path).err().ok_or("it was opened")?;
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{sql}: {error}");
        assert!(error.to_string().contains("backup"), "{error}");
    }
    Ok(())
}

/// A small volume, mounted for as long as this is held. Tests that need it fail where it cannot be mounted.
struct Volume {
    folder: TempDir,
}

impl Volume {
    fn mount(args: &[&str]) -> Result<Volume> {
        let folder = tempfile::tempdir()?;
        let output = Command::new("mount").args(args).arg(folder.path()).output()?;
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "this test mounts a small volume, which takes root and mount: {why}"
        );
        Ok(Volume { folder })
    }

    fn memory(size: &str) -> Result<Volume> {
        Volume::mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
    }

    /// An ext4 file system in a file, which is kept beside it.
    fn ext4(size: &str, image: &Path) -> Result<Volume> {
        assert!(Command::new("truncate").args(["-s", size]).arg(image).status()?.success());
        let made = Command::new("mkfs.ext4").args(["-qF", "-b", "4096"]).arg(image).status()?;
        assert!(made.success(), "this test makes an ext4 file system, which takes mkfs.ext4");
        Volume::mount(&["-o", "loop", &image.to_string_lossy()])
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn remount_read_only(&self) -> Result {
        let done = Command::new("mount").args(["-o", "remount,ro"]).arg(self.folder.path()).status()?;
        assert!(done.success());
        Ok(())
    }

    /// Takes all room but this.
    fn fill(&self, but: u64) -> Result {
        let free = free(self.folder.path())?;
        let filler = fs::File::create(self.at("filler"))?;
        let mut left = free.saturating_sub(but);
        use std::io::Write;
        while left > 0 {
            let chunk = vec![1; usize::try_from(left.min(64 << 10))?];
            match (&filler).write(&chunk) {
                Ok(written) => left -= written as u64,
                Err(_) => break,
            }
        }
        Ok(())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

fn free(folder: &Path) -> Result<u64> {
    let output = Command::new("df").args(["--output=avail", "-B1"]).arg(folder).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().nth(1).ok_or("no line")?.trim().parse()?)
}

/// Fills a volume through the store, and frees it through the store.
fn runs_full_and_is_freed_again(volume: &Volume) -> Result {
    let path = volume.at("app.db");
    let store = Options::new().durability(Durability::Relaxed).open(&path)?;
    let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().after(Revision::ZERO))?;
    let (mut acknowledged, mut refused_since) = (Vec::new(), None);
    // What is in the write-ahead log is moved when it is full, so there may be a little room again: on until there is
    // none for good.
    while refused_since.is_none_or(|since: Instant| since.elapsed() < Duration::from_secs(5)) {
        let number = acknowledged.len();
        match store.set(&format!("g{}", number % 4), &number.to_string(), vec![b'x'; 20_000]) {
            Ok(revision) => {
                acknowledged.push(revision.get());
                refused_since = None;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                refused_since.get_or_insert_with(Instant::now);
                std::thread::yield_now();
            }
        }
        assert!(acknowledged.len() < 10_000);
    }
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    assert_eq!(kind(store.transaction(|tx| tx.set("g0", "more", "x"))), Some(ErrorKind::Full));
    // But everything can be read.
    for (number, _) in acknowledged.iter().enumerate() {
        assert!(store.contains(&format!("g{}", number % 4), &number.to_string())?);
    }
    assert_eq!(crate::support::revisions(&take(&mut watcher, acknowledged.len())?), acknowledged);
    assert!(watcher.try_recv().is_none(), "an event of a write that failed");

    // Deleting works, and after it there is room again.
    assert!(store.delete("g0", "0")?);
    assert!(store.delete_group("g1")? > 0);
    store.delete_group("g2")?;
    store.delete_group("g3")?;
    store.compact(Revision::new(u64::MAX))?;
    eventually("there is room again", || Ok(store.set("g0", "again", vec![b'x'; 20_000]).is_ok()))?;
    eventually("the ballast is there again", || Ok(volume.at("app.db-ballast").exists()))?;
    assert_eq!(store.check()?.problems, Vec::<String>::new());
    let events = take(&mut watcher, 5)?;
    assert!(crate::support::revisions(&events).is_sorted());
    store.close()?;
    let store = Store::open(&path)?;
    assert_eq!(store.check()?.problems, Vec::<String>::new());
    assert!(store.contains("g0", "again")? && store.contains("g0", "4")?);
    Ok(())
}

#[test]
fn a_full_disk_in_memory_is_told_and_can_be_freed_through_the_store() -> Result {
    runs_full_and_is_freed_again(&Volume::memory("24m")?)
}

#[test]
fn a_full_disk_of_ext4_is_told_and_can_be_freed_through_the_store() -> Result {
    let folder = tempfile::tempdir()?;
    runs_full_and_is_freed_again(&Volume::ext4("48M", &folder.path().join("image"))?)
}

/// To each other, stores that are opened apart are what processes are.
#[test]
fn a_disk_that_short_lived_processes_fill_is_freed_by_another() -> Result {
    let volume = Volume::memory("24m")?;
    let path = volume.at("app.db");
    let open = || Options::new().durability(Durability::Relaxed).open(&path);
    let stays = open()?;
    let (mut written, mut refused) = (0_usize, 0);
    while refused < 20 {
        assert!(written < 2_000);
        match open().and_then(|store| {
            store.set(&format!("g{}", written % 4), &written.to_string(), vec![b'x'; 20_000])?;
            store.close()
        }) {
            Ok(()) => (written, refused) = (written + 1, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                refused += 1;
            }
        }
    }
    assert!(written > 20, "{written}");
    let frees = open()?;
    assert!(frees.delete("g0", "0")?);
    for group in ["g1", "g2", "g3"] {
        assert!(frees.delete_group(group)? > 0);
    }
    frees.compact(Revision::new(u64::MAX))?;
    frees.close()?;
    for store in [open()?, stays] {
        eventually("there is room again", || Ok(store.set("g0", "again", vec![b'x'; 20_000]).is_ok()))?;
        assert_eq!(store.check()?.problems, Vec::<String>::new());
        assert_eq!(store.count("g0")?, u64::try_from(written.div_ceil(4))?);
    }
    eventually("the ballast is there again", || Ok(volume.at("app.db-ballast").exists()))
}

#[test]
fn a_volume_that_is_too_full_is_not_opened_on_unless_the_ballast_makes_room() -> Result {
    let volume = Volume::memory("16m")?;
    let path = volume.at("app.db");
    let store = Store::open(&path)?;
    store.set("g", "k", "v")?;
    store.close()?;
    volume.fill(4_096)?;
    assert_eq!(kind(Store::open(volume.at("new.db"))), Some(ErrorKind::Full));
    assert!(!volume.at("new.db").exists());
    assert_eq!(kind(Options::new().ballast(false).open(&path)), Some(ErrorKind::Full));
    // With its ballast given back it can be opened, read and freed, but not filled.
    let store = Store::open(&path)?;
    assert!(!volume.at("app.db-ballast").exists());
    assert!(store.contains("g", "k")?);
    eventually("it is known to be full", || Ok(kind(store.set("g", "more", "v")) == Some(ErrorKind::Full)))?;
    assert!(store.delete("g", "k")?);
    fs::remove_file(volume.at("filler"))?;
    eventually("there is room again", || Ok(store.set("g", "more", "v").is_ok()))?;
    assert!(volume.at("app.db-ballast").exists());
    Ok(())
}

#[test]
fn a_backup_that_finds_no_room_is_refused_and_the_store_goes_on() -> Result {
    let (_folder, _path, store) = store()?;
    store.transaction(|tx| (0..500).try_for_each(|n| tx.set("g", &n.to_string(), vec![b'x'; 4_000])))?;
    let volume = Volume::memory("1m")?;
    let target = volume.at("copy.db");
    assert_eq!(kind(store.backup(&target)), Some(ErrorKind::Full));
    // Room that goes while the copy is made.
    let larger = Volume::memory("8m")?;
    let target = larger.at("copy.db");
    let filler = larger.at("filler");
    let options = BackupOptions::new().on_progress(move |_| {
        fs::write(&filler, vec![1; 16 << 20]).ok();
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!(kind(store.backup_with(&target, options)), Some(ErrorKind::Full));
    let mut left = fs::read_dir(target.parent().ok_or("no folder")?)?;
    assert!(left.all(|file| file.is_ok_and(|file| file.file_name() == "filler")), "nothing is left of it");
    store.set("g", "k", "the store goes on")?;
    assert_eq!(store.check()?.problems, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_read_only_medium_is_refused_with_the_way_out_which_works() -> Result {
    let volume = Volume::memory("32m")?;
    let store = Store::open(volume.at("app.db"))?;
    store.set("g", "k", "v")?;
    store.backup(volume.at("saved.db"))?;
    store.close()?;
    volume.remount_read_only()?;
    let folder = tempfile::tempdir()?;
    for name in ["app.db", "saved.db"] {
        let error = Store::open(volume.at(name)).err().ok_or("it was opened")?;
        assert!(
            error.kind() == ErrorKind::ReadOnly && error.to_string().contains("watchkeep restore"),
            "{error}"
        );
        let copy = folder.path().join(name);
        Store::restore(volume.at(name), &copy, BackupOptions::new())?;
        assert_eq!(Store::open(&copy)?.get("g", "k")?.ok_or("it is missing")?, "v");
    }
    assert_eq!(kind(Store::open(volume.at("new.db"))), Some(ErrorKind::ReadOnly));
    let (_folder, _path, store) = super::surroundings::store()?;
    assert_eq!(kind(store.backup(volume.at("copy.db"))), Some(ErrorKind::ReadOnly));
    Ok(())
}
