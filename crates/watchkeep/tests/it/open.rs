//! Opening: each reason against it has an error of its own, and what was there is kept.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{LIMIT, Result, eventually, lines, scaled, take};
use rusqlite::Connection;
use tempfile::TempDir;
use watchkeep::{Durability, ErrorKind, Filter, ManualClock, Options, Revision, Store, WatchOptions};

struct Place {
    folder: TempDir,
    file: PathBuf,
}

fn place() -> Result<Place> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("app.db");
    Ok(Place { folder, file })
}

/// The error of an opening, and that it names the path.
fn refusal(options: Options, path: &Path) -> Result<ErrorKind> {
    let error = options.open(path).err().ok_or("it was opened")?;
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains('\n'), "{text}");
    Ok(error.kind())
}

fn kind(path: &Path) -> Result<ErrorKind> {
    refusal(Options::new(), path)
}

/// A store in a file, closed again.
fn written(path: &Path) -> Result {
    let store = Store::open(path)?;
    for number in 0..200 {
        store.set("g", &number.to_string(), vec![b'x'; 500])?;
    }
    Ok(store.close()?)
}

fn sql(path: &Path, statements: &str) -> Result {
    Ok(Connection::open(path)?.execute_batch(statements)?)
}

#[test]
fn reopening_keeps_everything_and_goes_on_with_the_revisions() -> Result {
    let place = place()?;
    let clock = Arc::new(ManualClock::default());
    let open = || Options::new().clock(clock.clone()).open(&place.file);
    let store = open()?;
    let id = store.id();
    store.set_with_ttl("g", "timed", "v", LIMIT)?;
    store.set("g", "text", "ä")?;
    store.set("t:g", "bytes", vec![0xff])?;
    store.delete("g", "text")?;
    store.set("g", "text", "again")?;
    let all = |store: &Store| -> Result<Vec<_>> {
        let mut all = Vec::new();
        for group in store.groups("") {
            all.extend(store.entries(&group?).collect::<std::result::Result<Vec<_>, _>>()?);
        }
        Ok(all)
    };
    let before = all(&store)?;
    let history: Vec<_> =
        store.history(Filter::everything(), Revision::ZERO).collect::<std::result::Result<_, _>>()?;
    drop(store);
    for round in 0..3 {
        let store = open()?;
        assert_eq!((store.id(), all(&store)?), (id, before.clone()));
        let again: Vec<_> =
            store.history(Filter::everything(), Revision::ZERO).collect::<std::result::Result<_, _>>()?;
        assert_eq!(lines(&again[..5]), lines(&history));
        assert_eq!(store.set("other", "k", "v")?.get(), 6 + 2 * round);
        assert!(store.delete("other", "k")? && store.check()?.is_ok());
    }
    Ok(())
}

#[test]
fn a_new_file_and_its_companions_are_for_their_owner_only() -> Result {
    let place = place()?;
    let store = Store::open(&place.file)?;
    store.set("g", "k", "v")?;
    let mut files = 0;
    for file in fs::read_dir(place.folder.path())? {
        let file = file?;
        assert_eq!(file.metadata()?.permissions().mode() & 0o777, 0o600, "{:?}", file.file_name());
        files += 1;
    }
    assert_eq!(files, 5, "the file, its write-ahead log, the index of that, the wake file and the ballast");
    // Rights that somebody gave are kept.
    store.close()?;
    fs::set_permissions(&place.file, fs::Permissions::from_mode(0o640))?;
    Store::open(&place.file)?.set("g", "k", "v")?;
    assert_eq!(fs::metadata(&place.file)?.permissions().mode() & 0o777, 0o640);
    Ok(())
}

#[test]
fn a_missing_file_is_made_unless_that_is_not_wanted() -> Result {
    let place = place()?;
    assert_eq!(refusal(Options::new().create(false), &place.file)?, ErrorKind::NotFound);
    assert_eq!(fs::read_dir(place.folder.path())?.count(), 0, "nothing was made");
    written(&place.file)?;
    assert_eq!(Options::new().create(false).open(&place.file)?.count("g")?, 200);
    Ok(())
}

#[test]
fn a_missing_folder_is_not_found_and_not_made() -> Result {
    let place = place()?;
    let missing = place.folder.path().join("missing");
    for create in [true, false] {
        assert_eq!(refusal(Options::new().create(create), &missing.join("app.db"))?, ErrorKind::NotFound);
    }
    assert!(!missing.exists());
    // A file in the place of the folder is no folder either.
    fs::write(&missing, "")?;
    let kind = kind(&missing.join("app.db"))?;
    assert!(matches!(kind, ErrorKind::NotFound | ErrorKind::Io), "{kind:?}");
    Ok(())
}

#[test]
fn a_folder_is_a_foreign_file() -> Result {
    let place = place()?;
    assert_eq!(kind(place.folder.path())?, ErrorKind::ForeignFile);
    let link = place.folder.path().join("link");
    symlink(place.folder.path(), &link)?;
    assert_eq!(kind(&link)?, ErrorKind::ForeignFile);
    Ok(())
}

#[test]
fn what_is_no_sqlite_file_is_foreign_and_left_as_it_is() -> Result {
    let place = place()?;
    for content in [&b"hello"[..], &[b'x'; 100], &[0; 4096], &[0xff; 70_000], b"SQLite format 2\0 and so on"]
    {
        fs::write(&place.file, content)?;
        for options in [Options::new(), Options::new().adopt(true), Options::new().create(false)] {
            assert_eq!(refusal(options, &place.file)?, ErrorKind::ForeignFile, "{} bytes", content.len());
        }
        assert_eq!(fs::read(&place.file)?, content);
        assert_eq!(fs::read_dir(place.folder.path())?.count(), 1, "and nothing was put beside it");
    }
    Ok(())
}

#[test]
fn an_empty_file_becomes_a_store_only_where_a_new_one_may() -> Result {
    let place = place()?;
    fs::write(&place.file, "")?;
    assert_eq!(refusal(Options::new().create(false), &place.file)?, ErrorKind::ForeignFile);
    assert_eq!(fs::metadata(&place.file)?.len(), 0);
    Store::open(&place.file)?.set("g", "k", "v")?;
    Ok(())
}

#[test]
fn another_program_s_sqlite_file_is_foreign_unless_adopted_and_keeps_what_is_its_own() -> Result {
    let place = place()?;
    sql(
        &place.file,
        "CREATE TABLE notes (text); INSERT INTO notes VALUES ('mine'); PRAGMA user_version = 7; PRAGMA application_id = 99;",
    )?;
    let before = fs::read(&place.file)?;
    assert_eq!(kind(&place.file)?, ErrorKind::ForeignFile);
    assert_eq!(fs::read(&place.file)?, before);
    let store = Options::new().adopt(true).open(&place.file)?;
    store.set("g", "k", "v")?;
    assert!(store.check()?.is_ok());
    store.close()?;
    let conn = Connection::open(&place.file)?;
    let one = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
    assert_eq!(
        (one("SELECT count(*) FROM notes")?, one("PRAGMA user_version")?, one("PRAGMA application_id")?),
        (1, 7, 99)
    );
    drop(conn);
    // Once ours are in it, it is ours too.
    assert_eq!(Store::open(&place.file)?.count("g")?, 1);
    Ok(())
}

#[test]
fn the_original_s_file_is_foreign() -> Result {
    let place = place()?;
    sql(
        &place.file,
        "CREATE TABLE kv (grp TEXT, key TEXT, value TEXT, expires_at INTEGER, PRIMARY KEY (grp, key));",
    )?;
    assert_eq!(kind(&place.file)?, ErrorKind::ForeignFile);
    Ok(())
}

#[test]
fn a_newer_format_is_refused_and_left_as_it_is() -> Result {
    let place = place()?;
    written(&place.file)?;
    sql(&place.file, "UPDATE wk_meta SET value = value + 1 WHERE name = 'format'")?;
    let before = fs::read(&place.file)?;
    for options in [Options::new(), Options::new().adopt(true), Options::new().create(false)] {
        assert_eq!(refusal(options, &place.file)?, ErrorKind::NewerFormat);
    }
    assert_eq!(fs::read(&place.file)?, before);
    Ok(())
}

#[test]
fn durability_belongs_to_the_file() -> Result {
    for (is, other) in [(Durability::Full, Durability::Relaxed), (Durability::Relaxed, Durability::Full)] {
        let place = place()?;
        Options::new().durability(is).open(&place.file)?.set("g", "k", "v")?;
        assert_eq!(refusal(Options::new().durability(other), &place.file)?, ErrorKind::InvalidArgument);
        for options in [Options::new(), Options::new().durability(is)] {
            assert_eq!(options.open(&place.file)?.stats()?.durability, is);
        }
    }
    let place = place()?;
    assert_eq!(Store::open(&place.file)?.stats()?.durability, Durability::Full, "unless asked otherwise");
    Ok(())
}

/// Changes some bytes of a file.
fn damage(path: &Path, from: usize, len: usize) -> Result {
    let mut bytes = fs::read(path)?;
    bytes.iter_mut().skip(from).take(len).for_each(|byte| *byte ^= 0x5a);
    Ok(fs::write(path, bytes)?)
}

#[test]
fn a_damaged_body_is_corrupt_when_it_is_opened_or_when_it_is_read() -> Result {
    let place = place()?;
    written(&place.file)?;
    let whole = fs::read(&place.file)?;
    let mut found = 0;
    for page in 0..whole.len() / 4096 {
        fs::write(&place.file, &whole)?;
        // The first page has the header in front of its body.
        damage(&place.file, page * 4096 + if page == 0 { 100 } else { 0 }, 300)?;
        let opened = Store::open(&place.file);
        let report = match &opened {
            Ok(store) => store.check(),
            Err(error) => Err(error.clone()),
        };
        match report {
            Ok(report) => found += u32::from(!report.is_ok()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "page {page}: {error}");
                found += 1;
            }
        }
    }
    assert!(found as usize >= whole.len() / 4096 * 8 / 10, "{found} of {} damaged pages", whole.len() / 4096);
    Ok(())
}

#[test]
fn a_damaged_header_is_foreign_or_corrupt_and_never_taken_for_a_new_file() -> Result {
    let place = place()?;
    written(&place.file)?;
    let whole = fs::read(&place.file)?;
    let mut wrong = Vec::new();
    for (from, len) in [(0, 16), (0, 1), (16, 2), (18, 2), (21, 3), (44, 4), (56, 4), (0, 100)] {
        fs::write(&place.file, &whole)?;
        damage(&place.file, from, len)?;
        match Store::open(&place.file).map_err(|error| error.kind()) {
            Err(ErrorKind::ForeignFile | ErrorKind::Corrupt) => {}
            other => wrong.push((from, len, other.map(drop))),
        }
    }
    assert!(wrong.is_empty(), "at, bytes, and what came of it: {wrong:?}");
    Ok(())
}

#[test]
fn a_truncated_file_is_corrupt() -> Result {
    let place = place()?;
    written(&place.file)?;
    let whole = fs::read(&place.file)?;
    for len in [4096, whole.len() / 2, whole.len() - 4096] {
        fs::write(&place.file, &whole[..len])?;
        let kind = match Store::open(&place.file) {
            Err(error) => error.kind(),
            Ok(store) => match store.check() {
                Err(error) => error.kind(),
                Ok(report) => {
                    assert!(!report.is_ok(), "{len} of {} bytes", whole.len());
                    ErrorKind::Corrupt
                }
            },
        };
        assert_eq!(kind, ErrorKind::Corrupt, "{len} of {} bytes", whole.len());
    }
    Ok(())
}

#[test]
fn a_store_whose_tables_or_identity_are_damaged_is_corrupt() -> Result {
    let damages = [
        "DELETE FROM wk_meta WHERE name = 'store'",
        "UPDATE wk_meta SET value = 'not an id' WHERE name = 'store'",
        "UPDATE wk_meta SET value = 5 WHERE name = 'store'",
        "DELETE FROM wk_meta WHERE name = 'salt'",
        "UPDATE wk_meta SET value = -1 WHERE name = 'salt'",
        "UPDATE wk_meta SET value = 4294967296 WHERE name = 'salt'",
        "UPDATE wk_meta SET value = x'ff' WHERE name = 'durability'",
        "UPDATE wk_meta SET value = 'sometimes' WHERE name = 'durability'",
        "DROP TABLE wk_log",
        "DROP TABLE wk_entries",
        "DROP TABLE wk_values",
        "DROP TABLE wk_groups",
        "DROP TABLE wk_namespaces",
        "DROP TABLE wk_dead",
    ];
    let mut wrong = Vec::new();
    for damage in damages {
        let place = place()?;
        written(&place.file)?;
        sql(&place.file, damage)?;
        // When it is opened, or at the latest when it is used.
        let used = Store::open(&place.file).and_then(|store| {
            store.set("t:g", "k", "v")?;
            store.delete_group("t:g")?;
            store.check().map(drop)
        });
        match used.map_err(|error| error.kind()) {
            Err(ErrorKind::Corrupt) => {}
            other => wrong.push((damage, other.map(drop))),
        }
    }
    assert!(wrong.is_empty(), "damage, and what came of it: {wrong:#?}");
    Ok(())
}

#[test]
fn a_table_wk_meta_that_names_no_format_is_foreign_or_corrupt() -> Result {
    let mut wrong = Vec::new();
    for damage in [
        "DELETE FROM wk_meta WHERE name = 'format'",
        "UPDATE wk_meta SET value = 'one' WHERE name = 'format'",
        "UPDATE wk_meta SET value = NULL WHERE name = 'format'",
        "UPDATE wk_meta SET value = 0 WHERE name = 'format'",
    ] {
        let place = place()?;
        written(&place.file)?;
        sql(&place.file, damage)?;
        match Store::open(&place.file).map_err(|error| error.kind()) {
            Err(ErrorKind::ForeignFile | ErrorKind::Corrupt) => {}
            other => wrong.push((damage, other.map(drop))),
        }
    }
    let place = place()?;
    let another = "CREATE TABLE wk_meta (something)";
    sql(&place.file, another)?;
    match Store::open(&place.file).map_err(|error| error.kind()) {
        Err(ErrorKind::ForeignFile | ErrorKind::Corrupt) => {}
        other => wrong.push((another, other.map(drop))),
    }
    assert!(wrong.is_empty(), "damage, and what came of it: {wrong:#?}");
    Ok(())
}

/// A file that nobody may write, not even root: the attribute `i`. Where the file system has no such attribute, rights
/// do it, which do not bind root.
struct Immutable(PathBuf, bool);

impl Immutable {
    fn new(path: &Path) -> Result<Option<Immutable>> {
        let guarded =
            Command::new("chattr").arg("+i").arg(path).output().is_ok_and(|output| output.status.success());
        if guarded {
            return Ok(Some(Immutable(path.to_owned(), true)));
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o400))?;
        let held = fs::OpenOptions::new().append(true).open(path).is_err();
        Ok(held.then(|| Immutable(path.to_owned(), false)))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        if self.1 {
            Command::new("chattr").arg("-i").arg(&self.0).output().ok();
        } else {
            fs::set_permissions(&self.0, fs::Permissions::from_mode(0o600)).ok();
        }
    }
}

#[test]
fn a_file_that_cannot_be_written_is_read_only() -> Result {
    let place = place()?;
    written(&place.file)?;
    let Some(_guard) = Immutable::new(&place.file)? else { return Ok(()) };
    for options in [Options::new(), Options::new().create(false)] {
        assert_eq!(refusal(options, &place.file)?, ErrorKind::ReadOnly);
    }
    Ok(())
}

#[test]
fn a_folder_that_cannot_be_written_makes_a_store_read_only() -> Result {
    let place = place()?;
    written(&place.file)?;
    let folder = place.folder.path().to_owned();
    // Nothing can be put beside the file: no write-ahead log.
    let Some(_guard) = Immutable::new(&folder)? else { return Ok(()) };
    assert_eq!(kind(&place.file)?, ErrorKind::ReadOnly, "an existing file");
    assert_eq!(kind(&folder.join("new.db"))?, ErrorKind::ReadOnly, "a new one");
    Ok(())
}

#[test]
fn a_symbolic_link_leads_to_the_file_and_a_dangling_one_makes_it() -> Result {
    let place = place()?;
    let (link, dangling) = (place.folder.path().join("link.db"), place.folder.path().join("dangling.db"));
    written(&place.file)?;
    symlink(&place.file, &link)?;
    let store = Store::open(&link)?;
    assert_eq!((store.count("g")?, store.path()), (200, Some(place.file.canonicalize()?.as_path())));
    store.set("g", "through the link", "v")?;
    assert!(Store::open(&place.file)?.contains("g", "through the link")?);
    symlink(place.folder.path().join("target.db"), &dangling)?;
    Store::open(&dangling)?.set("g", "k", "v")?;
    assert_eq!(Store::open(place.folder.path().join("target.db"))?.count("g")?, 1);
    Ok(())
}

#[test]
fn two_handles_on_one_file_see_each_other_s_writes_at_once_and_events_unasked() -> Result {
    let place = place()?;
    let (one, two) = (Store::open(&place.file)?, Store::open(&place.file)?);
    let (mut first, mut second) = (one.watch("*", "*"), two.watch("*", "*"));
    let start = Instant::now();
    for number in 0..10 {
        let (writer, reader) = if number % 2 == 0 { (&one, &two) } else { (&two, &one) };
        writer.set("g", &number.to_string(), "v")?;
        assert!(reader.contains("g", &number.to_string())?);
    }
    let seen = [take(&mut first, 10)?, take(&mut second, 10)?].map(|events| lines(&events));
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    assert_eq!(seen[0], seen[1]);
    // Conditions hold between them.
    let current = one.entry("g", "3")?.ok_or("gone")?.revision;
    two.set("g", "3", "newer")?;
    let refused = one.set_with("g", "3", "w", watchkeep::SetOptions::new().if_revision(current));
    assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::Conflict));
    one.close()?;
    two.set("g", "after the other closed", "v")?;
    assert!(two.check()?.is_ok());
    Ok(())
}

#[test]
fn many_threads_through_two_handles_on_one_file_lose_and_reorder_nothing() -> Result {
    let place = place()?;
    let open = || Options::new().durability(Durability::Relaxed).busy_timeout(LIMIT).open(&place.file);
    let stores = [open()?, open()?];
    let mut watchers = Vec::new();
    for store in &stores {
        for buffer in [1, 16, 10_000] {
            watchers.push(store.watch_with(Filter::everything(), WatchOptions::new().buffer(buffer))?);
        }
    }
    std::thread::scope(|scope| -> Result {
        let writers: Vec<_> = (0..6)
            .map(|writer| {
                let store = &stores[writer % 2];
                scope.spawn(move || -> Result {
                    for number in 0..100 {
                        store.transaction(|tx| {
                            tx.set("g", &format!("{writer}-{number}"), "v")?;
                            tx.set("h", &format!("{writer}"), "v")
                        })?;
                    }
                    Ok(())
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| "panicked")?)
    })?;
    for mut watcher in watchers {
        let seen = crate::support::revisions(&take(&mut watcher, 1_200)?);
        assert_eq!(seen, (1..=1_200).collect::<Vec<_>>());
        assert!(watcher.try_recv().is_none());
    }
    Ok(())
}

#[test]
fn threads_that_open_one_new_file_together_all_get_the_same_store() -> Result {
    for _ in 0..scaled(5)? {
        let place = place()?;
        let start = Arc::new(std::sync::Barrier::new(4));
        let openers: Vec<_> = (0..4)
            .map(|number: usize| {
                let (file, start) = (place.file.clone(), start.clone());
                std::thread::spawn(move || -> watchkeep::Result<_> {
                    start.wait();
                    let store = Store::open(file)?;
                    store.set("g", &number.to_string(), "v")?;
                    Ok(store)
                })
            })
            .collect();
        let mut stores = Vec::new();
        for opener in openers {
            stores.push(opener.join().map_err(|_| "panicked")??);
        }
        assert!(stores.iter().all(|store| store.id() == stores[0].id()));
        eventually("all four", || Ok(stores[0].count("g")? == 4))?;
    }
    Ok(())
}

#[test]
fn a_file_that_another_program_holds_is_busy_and_not_damaged() -> Result {
    let place = place()?;
    written(&place.file)?;
    let conn = Connection::open(&place.file)?;
    conn.execute_batch("BEGIN IMMEDIATE")?;
    // Reading needs nobody's leave.
    let store = Options::new().busy_timeout(Duration::from_millis(50)).open(&place.file)?;
    assert_eq!(store.count("g")?, 200);
    assert_eq!(store.set("g", "k", "v").map_err(|error| error.kind()), Err(ErrorKind::Busy));
    conn.execute_batch("COMMIT")?;
    store.set("g", "k", "v")?;
    Ok(())
}

#[test]
fn stores_in_memory_are_private_and_do_not_know_each_other() -> Result {
    let (one, two) = (Store::open_in_memory()?, Store::open_in_memory()?);
    one.set("g", "k", "v")?;
    assert!(!two.contains("g", "k")? && one.id() != two.id());
    assert!(one.path().is_none() && one.stats()?.path.is_none());
    Ok(())
}

#[test]
fn a_name_that_sqlite_would_take_for_a_uri_is_a_name() -> Result {
    let folder = tempfile::tempdir()?;
    for name in ["file:y.db", ":memory:", "file:x?mode=memory"] {
        // In a process of its own, whose current folder may be changed, this would be a relative path.
        let path = folder.path().join(name);
        Store::open(&path)?.set("g", "k", "v")?;
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600, "{name}");
        assert!(Store::open(&path)?.contains("g", "k")?);
    }
    Ok(())
}
