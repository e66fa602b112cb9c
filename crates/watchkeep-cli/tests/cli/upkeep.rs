//! `backup`, `restore`, `check --repair`, and the limits and rights of the process.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use crate::sandbox::{Sandbox, one_error};

fn written() -> Sandbox {
    let at = Sandbox::new();
    at.ok(&["set", "config", "theme", "dark"]);
    at.ok(&["set", "tenant-1:users", "ada", "admin"]);
    at
}

/// Runs a line of shell in which `watchkeep` is the binary.
fn shell(at: &Sandbox, line: &str) -> Output {
    let binary = at.command(&[]).get_program().to_owned();
    let mut command = std::process::Command::new("sh");
    let folder = Path::new(&binary).parent().unwrap().display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    command.args(["-c", line]).current_dir(at.path(".")).env("PATH", path).env_remove("WATCHKEEP_STORE");
    command.output().unwrap()
}

#[test]
fn a_backup_is_a_store_of_its_own_and_is_restored_under_a_new_identity() {
    let at = written();
    let id =
        |store: &str| at.json(&["--store", store, "stats", "--json"])["store"].as_str().unwrap().to_owned();
    let line = at.ok(&["backup", "saved.db"]);
    assert!(line.starts_with("saved.db: store ") && line.contains("up to revision 2"), "{line}");
    at.ok(&["set", "config", "theme", "light"]);
    assert_eq!(at.ok(&["--store", "saved.db", "get", "config", "theme"]), "dark");

    let restored = at.json(&["--store", "new.db", "restore", "saved.db", "--json"]);
    assert_eq!((restored["revision"].as_u64(), restored["replaced"].is_null()), (Some(2), true));
    assert_eq!(restored["store"], id("new.db"));
    let identities = [id("watchkeep.db"), id("saved.db"), id("new.db")];
    assert!(identities.iter().all(|one| identities.iter().filter(|other| *other == one).count() == 1));
    // A cursor of the original is refused by both.
    let event = at.json(&["history", "--limit", "1", "--json"]);
    let cursor = event["cursor"].as_str().unwrap().to_owned();
    assert!(cursor.starts_with(&identities[0]), "{cursor}");
    for store in ["saved.db", "new.db"] {
        let error = at.fails(2, &["--store", store, "history", "--after", &cursor]);
        assert!(error.contains("the cursor belongs to store"), "{error}");
    }
    assert!(at.ok(&["--store", "new.db", "check"]).starts_with("ok"));
}

#[test]
fn nothing_is_overwritten_unless_forced_and_then_it_is_kept() {
    let at = written();
    at.ok(&["backup", "saved.db"]);
    assert!(at.fails(2, &["backup", "saved.db"]).contains("name another file"));
    assert!(at.fails(2, &["--namespace", "tenant-1", "backup", "part.db"]).contains("not scoped"));
    assert!(at.fails(3, &["--store", "none.db", "backup", "copy.db"]).contains("none.db"));
    assert!(at.fails(2, &["restore", "saved.db"]).contains("--force"));
    at.ok(&["set", "config", "theme", "light"]);
    let watch = at.start(&["watch", "--snapshot", "--json"]).until_ready();
    assert!(at.fails(1, &["restore", "saved.db", "--force"]).contains("close it"));
    watch.signal("TERM");
    watch.end();
    let lines = at.ok(&["restore", "saved.db", "--force"]);
    assert!(lines.contains("watchkeep.db-replaced"), "{lines}");
    assert_eq!(at.ok(&["get", "config", "theme"]), "dark");
    assert_eq!(at.ok(&["--store", "watchkeep.db-replaced", "get", "config", "theme"]), "light");
    // A backup that is damaged is refused before anything happens.
    let file = rusqlite::Connection::open(at.path("saved.db")).unwrap();
    file.execute_batch("UPDATE wk_log SET value = 'red'; PRAGMA journal_mode = DELETE").unwrap();
    drop(file);
    assert!(at.fails(5, &["restore", "saved.db", "--force"]).contains("checksum"));
    assert_eq!(at.ok(&["get", "config", "theme"]), "dark");
    at.fails(3, &["restore", "missing.db", "--force"]);
}

#[test]
fn check_repairs_counters_and_says_which() {
    let at = written();
    let sql = |sql: &str| {
        let file = rusqlite::Connection::open(at.path("watchkeep.db")).unwrap();
        file.execute_batch(sql).unwrap();
    };
    sql("UPDATE wk_groups SET keys = 7 WHERE name = 'config'");
    assert_eq!(at.output(&["check"]).status.code(), Some(5));
    let text = at.ok(&["check", "--repair"]);
    assert!(text.starts_with("repaired: group \"config\" counted 7 keys"), "{text}");
    assert!(text.contains("ok: 2 entries") && text.contains("(SQLite 3."), "{text}");
    let report = at.json(&["check", "--repair", "--json"]);
    assert_eq!(report["repaired"].as_array().map(Vec::len), Some(0));
    assert!(report["sqlite_version"].as_str().is_some_and(|version| version.starts_with("3.")));
    // The log is never repaired.
    sql("UPDATE wk_log SET value = 'red' WHERE revision = 1");
    let output = at.output(&["check", "--repair"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("checksum"));
    one_error(&["check", "--repair"], 5, output);
    at.fails(3, &["--store", "none.db", "check", "--repair"]);
}

#[test]
fn every_file_is_its_owner_s_whatever_the_umask() {
    let at = Sandbox::new();
    let output = shell(
        &at,
        "umask 000; watchkeep set a b c && watchkeep backup saved.db && watchkeep --store new.db restore saved.db && \
         { watchkeep watch & } && n=0 && \
         until [ -e watchkeep.db-wal ] && [ -e watchkeep.db-shm ] || [ $n = 600 ]; do sleep 0.1; n=$((n + 1)); done && \
         stat -c '%a %n' *; kill $! && wait",
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let files: Vec<_> = text.lines().filter(|line| line.contains(".db") && !line.contains(':')).collect();
    for name in
        ["watchkeep.db", "watchkeep.db-wal", "watchkeep.db-shm", "watchkeep.db-ballast", "saved.db", "new.db"]
    {
        assert!(files.contains(&format!("600 {name}").as_str()), "{name}: {text}");
    }
    assert!(files.iter().all(|line| line.starts_with("600 ")), "{text}");
}

#[test]
fn a_limit_of_the_file_size_is_an_error_and_not_a_death() {
    let at = Sandbox::new();
    at.file("large", vec![b'x'; 3 << 20]);
    // In units of 512 bytes for dash, of a KiB for others: larger than the ballast is, or not, it must not kill.
    for limit in [300, 2_000] {
        let store = format!("limited-{limit}.db");
        let output = shell(&at, &format!("ulimit -f {limit}; watchkeep --store {store} set a b - < large"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        // Where the commit itself fails, that it did is logged first: nobody can know whether it is in the file.
        let (log, last): (Vec<_>, Vec<_>) = stderr.lines().partition(|line| !line.starts_with("watchkeep: "));
        assert!(
            last.len() == 1 && log.iter().all(|line| line.starts_with("ERROR a commit failed")),
            "{stderr}"
        );
        // What was there before is sound.
        at.ok(&["--store", &store, "set", "c", "d", "e"]);
        assert!(at.ok(&["--store", &store, "check"]).starts_with("ok"));
    }
}

#[test]
fn a_limit_of_open_files_is_named_as_what_it_is() {
    let at = written();
    let mut seen = 0;
    for limit in 4..12 {
        let output = shell(&at, &format!("ulimit -n {limit}; watchkeep get config theme"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code().is_some(), "at {limit}: it died: {stderr}");
        if !output.status.success() {
            assert!(!stderr.contains("permissions or those"), "at {limit}: {stderr}");
            seen += usize::from(stderr.contains("ulimit -n"));
        }
    }
    assert!(seen > 0, "no limit was low enough to be named");
    assert_eq!(at.ok(&["get", "config", "theme"]), "dark");
}

#[test]
fn a_backup_that_is_ended_leaves_nothing_and_one_that_is_killed_hinders_no_other() {
    let at = Sandbox::new();
    let store = watchkeep::Store::open(at.path("watchkeep.db")).unwrap();
    for batch in 0..8 {
        let many = |tx: &watchkeep::Transaction<'_>| {
            (0..500).try_for_each(|n| tx.set("g", &format!("{batch}-{n}"), vec![b'x'; 8_000]))
        };
        store.transaction(many).unwrap();
    }
    store.close().unwrap();
    for signal in ["TERM", "KILL"] {
        let running = at.start(&["backup", "saved.db"]);
        let names = || {
            let names = std::fs::read_dir(at.path(".")).unwrap().map(|file| file.unwrap().file_name());
            names.filter(|name| name.to_string_lossy().starts_with("saved")).collect::<Vec<_>>()
        };
        while names().is_empty() {
            std::thread::yield_now();
        }
        running.signal(signal);
        let (status, _, _) = running.end();
        match (signal, status.success()) {
            // It was faster.
            (_, true) => std::fs::remove_file(at.path("saved.db")).unwrap(),
            ("TERM", false) => assert!(names().is_empty(), "{:?}", names()),
            _ => assert!(!at.path("saved.db").exists()),
        }
    }
    at.ok(&["backup", "saved.db"]);
    assert!(at.ok(&["--store", "saved.db", "check"]).starts_with("ok"));
    assert_eq!(std::fs::metadata(at.path("saved.db")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_quota_is_set_shown_and_taken_away_and_binds_every_command() {
    let at = written();
    let quota = |more: &[&'static str]| [&["--namespace", "tenant-1", "quota"], more].concat();
    let none = serde_json::json!({ "max_keys": 0, "max_groups": 0, "max_bytes": 0 });
    assert_eq!(at.json(&quota(&["--json"])), none);
    assert_eq!(at.ok(&quota(&["--max-keys", "2", "--max-bytes", "1000"])), "");
    assert_eq!(at.ok(&quota(&[])), "keys    2\ngroups  no limit\nbytes   1,000\n");
    let stats = at.ok(&["--namespace", "tenant-1", "stats"]);
    assert!(stats.contains("2 keys, 1000 B"), "{stats}");
    at.ok(&["set", "tenant-1:users", "bob", "user"]);
    let error = at.fails(4, &["set", "tenant-1:users", "eve", "user"]);
    assert!(error.contains("tenant-1") && error.contains("2 keys"), "{error}");
    // What is not given is no limit.
    at.ok(&quota(&["--max-groups", "1"]));
    at.ok(&["set", "tenant-1:users", "eve", "user"]);
    at.fails(4, &["set", "tenant-1:others", "eve", "user"]);
    at.ok(&quota(&["--none"]));
    at.ok(&["set", "tenant-1:others", "eve", "user"]);
    assert_eq!(at.json(&quota(&["--json"])), none);
    assert!(at.fails(2, &["quota"]).contains("--namespace"));
    at.fails(2, &quota(&["--max-keys", "0"]));
    at.fails(2, &quota(&["--none", "--max-keys", "1"]));
    at.fails(3, &["--store", "none.db", "--namespace", "t", "quota"]);
    assert!(at.ok(&["check"]).starts_with("ok"));
}

#[test]
fn what_a_copy_went_on_with_is_no_cursor_of_the_original_for_any_command() {
    let at = written();
    std::fs::copy(at.path("watchkeep.db"), at.path("copy.db")).unwrap();
    for store in ["watchkeep.db", "copy.db"] {
        at.ok(&["--store", store, "set", "config", "theme", store]);
    }
    let event = at.json(&["--store", "copy.db", "history", "--after", "2", "--limit", "1", "--json"]);
    let cursor = event["cursor"].as_str().unwrap();
    for command in [
        vec!["history", "--after", cursor],
        vec!["watch", "--after", cursor, "--timeout", "1ms"],
        vec!["compact", "--before", cursor],
        vec!["set", "config", "theme", "CLOBBERED", "--if-revision", cursor],
        vec!["delete", "config", "theme", "--if-revision", cursor],
        vec!["watch", "--consumer", "c", "--after", cursor, "--timeout", "1ms"],
    ] {
        let error = at.fails(2, &command);
        assert!(error.contains("is not in this file"), "{command:?}: {error}");
    }
    assert_eq!(at.ok(&["get", "config", "theme"]), "watchkeep.db");
}

#[test]
fn the_retention_is_shown_and_set_part_by_part_and_stays() {
    let at = written();
    let shown = at.json(&["retention", "--json"]);
    assert_eq!(
        (&shown["max_events"], &shown["max_age_ms"], &shown["max_bytes"]),
        (&1_000_000.into(), &604_800_000.into(), &serde_json::Value::Null)
    );
    assert!(at.ok(&["retention"]).contains("7d"));
    let set = at.json(&["retention", "--max-events", "1", "--min-events", "1", "--json"]);
    assert_eq!((&set["max_events"], &set["max_age_ms"]), (&1.into(), &604_800_000.into()));
    let set = at.json(&["retention", "--max-age", "none", "--json"]);
    assert_eq!((&set["max_events"], &set["max_age_ms"]), (&1.into(), &serde_json::Value::Null));
    assert_eq!(at.json(&["retention", "--json"]), set, "it is kept in the file");
    for (limit, value) in [("--max-events", "many"), ("--max-age", "7"), ("--max-age", "1y")] {
        let error = at.fails(2, &["retention", limit, value]);
        assert!(error.contains(&format!("'{value}'")), "{error}");
    }
    let error = at.fails(2, &["--namespace", "tenant-1", "retention", "--max-events", "7"]);
    assert!(error.contains("leave --namespace out"), "{error}");
    assert_eq!(at.json(&["retention", "--json"]), set);
    assert!(at.fails(3, &["--store", "none.db", "retention", "--max-events", "1"]).contains("none.db"));
    if cfg!(feature = "etcd") {
        let error = at.fails(2, &["retention", "--compaction", "own"]);
        assert!(error.contains("leave --compaction out"), "{error}");
    }
}
