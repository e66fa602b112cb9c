//! The file as a whole: where it comes from, which are refused, `stats`, `compact`, `check`, usage, output.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::json;

use crate::sandbox::{Sandbox, one_error};

/// Who is bound by permissions, as root is not.
const USER: u32 = 65_534;

/// A sandbox of a user who is not root, with the binary in it, as the user may not look where it lies.
fn of_a_user() -> Sandbox {
    let at = Sandbox::new();
    let program = assert_cmd::cargo::cargo_bin!("watchkeep");
    if std::fs::hard_link(program, at.path("program")).is_err() {
        // By another process: what this one had open for writing, a child that another test starts at that moment would
        // have as well, and no program runs that somebody may write.
        let copied = Command::new("cp").arg(program).arg(at.path("program")).status().unwrap();
        assert!(copied.success());
    }
    if at.path(".").metadata().unwrap().uid() == 0 {
        chown(at.path("."), Some(USER), Some(USER)).unwrap();
    }
    at
}

/// A shell in the sandbox, as its user.
fn shell(at: &Sandbox, script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(at.path("."));
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(USER).gid(USER);
    }
    command
}

#[test]
fn a_store_and_what_lies_beside_it_are_its_owner_s_whatever_the_umask() {
    for umask in ["0777", "0"] {
        let at = of_a_user();
        let mut writes =
            shell(&at, &format!("umask {umask}; ./program set g k v && ./program backup saved.db"));
        let output = writes.output().unwrap();
        assert!(output.status.success(), "{umask}: {}", String::from_utf8_lossy(&output.stderr));
        let mut watches = shell(&at, &format!("umask {umask}; exec ./program watch --snapshot --json"));
        let running = at.start_command(&mut watches).until_ready();
        let mut files = 0;
        for file in std::fs::read_dir(at.path(".")).unwrap() {
            let file = file.unwrap();
            if file.file_name() != "program" {
                assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{umask}: {file:?}");
                files += 1;
            }
        }
        assert_eq!(files, 6, "the store, its log, index, wake file and ballast, and the backup");
        running.signal("TERM");
        running.end();
    }
}

#[test]
fn companions_that_may_not_be_written_are_named() {
    for suffix in ["-wal", "-shm"] {
        let at = of_a_user();
        assert!(shell(&at, "./program set g k v").status().unwrap().success());
        let theirs = at.path(&format!("watchkeep.db{suffix}"));
        std::fs::write(&theirs, "").unwrap();
        std::fs::set_permissions(&theirs, std::fs::Permissions::from_mode(0o000)).unwrap();
        let error = one_error(&["set"], 1, shell(&at, "./program set g k v").output().unwrap());
        assert!(error.contains(&format!("watchkeep.db{suffix}\" cannot be written")), "{error}");
    }
}

#[test]
fn what_only_reads_never_makes_the_file() {
    let at = Sandbox::new();
    for args in [
        &["get", "a", "b"][..],
        &["list", "a"],
        &["groups"],
        &["count"],
        &["watch", "--timeout", "1ms"],
        &["history"],
        &["export"],
        &["stats"],
        &["check"],
        &["check", "--repair"],
        &["backup", "copy.db"],
        &["restore", "watchkeep.db"],
        &["delete", "a", "b"],
        &["delete-group", "a"],
        &["touch", "a", "b", "5m"],
        &["persist", "a", "b"],
        &["compact", "--before", "1"],
    ] {
        let error = at.fails(3, args);
        assert!(error.contains("watchkeep.db"), "{error}");
        assert_eq!(std::fs::read_dir(at.path(".")).unwrap().count(), 0, "{args:?} left a file");
    }
}

#[test]
fn what_only_reads_never_makes_the_ballast() {
    let at = Sandbox::new();
    at.ok(&["set", "a", "b", "v"]);
    let ballast = at.path("watchkeep.db-ballast");
    std::fs::remove_file(&ballast).unwrap();
    for args in [
        &["get", "a", "b"][..],
        &["list", "a"],
        &["groups"],
        &["count"],
        &["watch", "--snapshot", "--timeout", "200ms"],
        &["history"],
        &["stats"],
        &["check"],
        &["backup", "copy.db"],
    ] {
        at.ok(args);
        assert!(!ballast.exists(), "{args:?}");
    }
    at.ok(&["delete", "a", "b"]);
    assert_eq!(ballast.metadata().unwrap().len(), 4 << 20);
}

#[test]
fn the_store_is_named_by_option_or_environment() {
    let at = Sandbox::new();
    at.ok(&["set", "a", "b", "default"]);
    at.ok(&["--store", "one.db", "set", "a", "b", "one"]);
    let named = |args: &[&str]| at.command(args).env("WATCHKEEP_STORE", "one.db").output().unwrap().stdout;
    assert_eq!(named(&["get", "a", "b"]), b"one");
    assert_eq!(named(&["get", "a", "b", "--store", "watchkeep.db"]), b"default");
    assert!(at.fails(3, &["--store", "no/such/folder.db", "set", "a", "b", "c"]).contains("create it first"));
}

#[test]
fn a_file_that_is_no_store_ends_with_5_and_stays_as_it_is() {
    let at = Sandbox::new();
    at.file("text.db", "this is a text, and long enough for SQLite to look at it");
    std::fs::create_dir(at.path("folder.db")).unwrap();
    rusqlite::Connection::open(at.path("other.db")).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    for store in ["text.db", "folder.db", "other.db"] {
        for args in [&["--store", store, "get", "a", "b"][..], &["--store", store, "set", "a", "b", "c"]] {
            assert!(at.fails(5, args).contains(store));
        }
    }
    assert!(std::fs::read(at.path("text.db")).unwrap().starts_with(b"this is a text"));
    let store = rusqlite::Connection::open(at.path("newer.db")).unwrap();
    store
        .execute_batch(
            "CREATE TABLE wk_meta (name TEXT PRIMARY KEY, value); INSERT INTO wk_meta VALUES ('format', 99)",
        )
        .unwrap();
    assert!(at.fails(5, &["--store", "newer.db", "get", "a", "b"]).contains("upgrade"));
}

#[test]
fn stats_tell_what_the_store_holds() {
    let at = Sandbox::new();
    at.ok(&["set", "config", "theme", "dark"]);
    at.ok(&["set", "session", "token", "abc", "--ttl", "1h"]);
    let stats = at.json(&["stats", "--json"]);
    assert_eq!((stats["entries"].as_u64(), stats["groups"].as_u64()), (Some(2), Some(2)));
    assert_eq!((stats["first_revision"].as_u64(), stats["last_revision"].as_u64()), (Some(1), Some(2)));
    assert_eq!(stats["log_events"], 2);
    assert_eq!(stats["durability"], "full");
    assert_eq!(stats["next_deadline"], at.json(&["get", "session", "token", "--json"])["deadline"]);
    assert!(stats["store"].as_str().is_some_and(|id| id.len() == 8));
    let text = at.ok(&["stats"]);
    assert!(text.contains("2 in 2 groups") && text.contains("revisions 1 to 2"), "{text}");
}

#[test]
fn compact_forgets_events_and_keeps_entries() {
    let at = Sandbox::new();
    for value in ["1", "2", "3", "4"] {
        at.ok(&["set", "a", "b", value]);
    }
    assert_eq!(at.ok(&["compact", "--before", "3"]), "2\n");
    assert_eq!(at.ok(&["get", "a", "b"]), "4");
    let revisions =
        |lines: Vec<serde_json::Value>| lines.iter().map(|it| it["revision"].as_u64()).collect::<Vec<_>>();
    assert_eq!(revisions(at.json_lines(&["history", "--json"])), [Some(3), Some(4)]);
    let output = at.output(&["history", "--after", "1", "--json"]);
    let lines: Vec<_> = std::str::from_utf8(&output.stdout).unwrap().lines().collect();
    assert_eq!(lines.len(), 3);
    let lost: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!(
        (lost["kind"].as_str(), lost["from"].as_u64(), lost["to"].as_u64()),
        (Some("lagged"), Some(2), Some(2))
    );
    let output = at.output(&["history", "--after", "1"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("revisions 2 to 2"));
    at.fails(2, &["compact", "--before", "k3v9x2mq-4fz8ab-3"]);
    at.fails(2, &["compact"]);
}

#[test]
fn check_lists_problems_and_ends_with_5() {
    let at = Sandbox::new();
    at.ok(&["set", "config", "theme", "dark"]);
    assert!(at.ok(&["check"]).starts_with("ok: 1 entry in 1 group and 1 event of"));
    assert_eq!(at.json(&["check", "--json"])["ok"], true);
    let file = rusqlite::Connection::open(at.path("watchkeep.db")).unwrap();
    file.execute_batch("UPDATE wk_groups SET keys = 7; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(file);
    let output = at.output(&["check"]);
    assert!(!output.stdout.is_empty());
    assert!(one_error(&["check"], 5, output).contains("restore a backup"));
    let output = at.output(&["check", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (report["ok"].as_bool(), report["problems"].as_array().map(Vec::is_empty)),
        (Some(false), Some(false))
    );
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn a_wrong_command_line_is_one_line_and_2() {
    let at = Sandbox::new();
    for args in [
        &["sett"][..],
        &["get", "a"],
        &["get", "a", "b", "--nonsense"],
        &["watch", "--after", "x"],
        &["watch", "--policy", "none"],
        &["watch", "--after", "1", "--snapshot"],
        &["watch", "--key-prefix", "a"],
        &["watch", "*", "--key-prefix", "a"],
        &["set", "a", "b", "c", "--if-revision", "-1"],
        &["import"],
        &["completions", "none"],
    ] {
        if args != ["watch", "*", "--key-prefix", "a"] {
            let error = at.fails(2, args);
            assert!(error.contains("--help"), "{error}");
        }
    }
    at.ok(&["set", "a", "b", "c"]);
    at.fails(2, &["watch", "*", "--key-prefix", "a"]);
    let too_long = "x".repeat(513);
    assert!(at.fails(2, &["set", &too_long, "b", "c"]).contains("512"));
    assert_eq!(at.output(&[]).status.code(), Some(2));
}

#[test]
fn help_has_examples_and_the_exit_codes() {
    let at = Sandbox::new();
    let help = at.ok(&["--help"]);
    for word in ["WATCHKEEP_STORE", "Exit codes:", "  5  ", "watchkeep demo"] {
        assert!(help.contains(word), "{word:?} is not in {help}");
    }
    for command in [
        "set", "get", "delete", "list", "render", "watch", "history", "export", "import", "compact", "check",
        "backup", "restore",
    ] {
        assert!(at.ok(&[command, "--help"]).contains("Example"), "{command} has no example");
    }
    assert!(at.ok(&["--version"]).starts_with("watchkeep 0."));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(at.ok(&["completions", shell]).contains("delete-group"));
    }
}

#[test]
fn colour_is_for_terminals_and_never_in_values() {
    let at = Sandbox::new();
    at.with_input(&["set", "a", "b", "-"], "\u{1b}[31mred\u{1b}[0m");
    assert!(!at.ok(&["history"]).contains('\u{1b}'));
    assert!(at.ok(&["history"]).contains("\\u{1b}[31mred"));
    let coloured = at.command(&["history"]).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(coloured.stdout.contains(&0x1b));
    let value = at.command(&["get", "a", "b"]).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert_eq!(value.stdout, b"\x1b[31mred\x1b[0m");
    let plain = at.command(&["history"]).env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1").output().unwrap();
    assert!(!plain.stdout.contains(&0x1b));
}

#[test]
fn the_demo_proves_itself_and_leaves_a_file() {
    let at = Sandbox::new();
    let proof = at.json(&["demo", "--serve", "--seconds", "3", "--json"]);
    assert!(proof["log_events"].as_u64() > Some(20) && proof["cuts"].as_u64() > Some(1), "{proof}");
    for watcher in ["live", "slow", "over_http"] {
        assert_eq!(proof[watcher]["events"], proof["log_events"]);
        for fault in ["missing", "doubled", "out_of_order"] {
            assert_eq!(proof[watcher][fault], 0, "{proof}");
        }
    }
    assert!(at.ok(&["--store", "watchkeep-demo.db", "check"]).starts_with("ok"));
    at.ok(&["set", "a", "b", "c"]);
    assert!(at.fails(1, &["--store", "watchkeep.db", "demo", "--seconds", "3"]).contains("other data"));
    // Again, on the file that it left; and a variable does not send it into somebody's data.
    let elsewhere =
        at.command(&["demo", "--seconds", "3"]).env("WATCHKEEP_STORE", "watchkeep.db").output().unwrap();
    let screen = String::from_utf8(elsewhere.stdout).unwrap();
    assert!(elsewhere.status.success() && screen.contains("live watcher"), "{screen}");
    // The commands in the end bear the path of this build.
    let mut lines = screen.lines().filter(|line| !line.starts_with("    ") || line.contains("events"));
    assert!(lines.all(|line| line.chars().count() <= 80), "{screen}");
    assert_eq!(at.ok(&["count"]), "1\n");
}

#[test]
fn a_reader_that_is_killed_gets_all_that_was_written_meanwhile() {
    let at = Sandbox::new();
    let proof = at.json(&["demo", "--processes", "--json"]);
    let exact = |received: u64| json!({"received": received, "missing": 0, "doubled": 0, "out_of_order": 0});
    assert_eq!((&proof["written_while_dead"], &proof["while_dead"]), (&json!(10_000), &exact(10_000)));
    assert_eq!((&proof["written"], &proof["all"]), (&json!(10_300), &exact(10_300)));
    assert_eq!((&proof["live_events"], &proof["waking"]), (&json!(100), &json!("signal")));
    // Nothing is left, unless a file is named; somebody's data is left alone.
    assert!(!at.path("watchkeep-demo.db").exists() && !at.path("watchkeep.db").exists());
    at.json(&["--store", "mine.db", "demo", "--processes", "--json"]);
    assert!(at.path("mine.db").exists() && !at.path("mine.db-cursor").exists());
    at.ok(&["--store", "other.db", "set", "config", "theme", "dark"]);
    assert!(at.fails(1, &["--store", "other.db", "demo", "--processes"]).contains("other data"));
}

#[test]
fn two_demos_share_a_file_and_each_proves_itself() {
    let at = Sandbox::new();
    let demos = [(); 2].map(|()| at.start(&["demo", "--seconds", "3", "--json"]));
    for demo in demos {
        let (status, proof, errors) = demo.end();
        assert!(status.success() && errors.is_empty(), "{proof} {errors}");
    }
}

#[test]
fn a_demo_that_is_told_to_end_ends_at_once_and_leaves_nothing() {
    let at = Sandbox::new();
    let mut command = at.command(&["demo", "--processes"]);
    let mut demo = at.start_command(command.env("TMPDIR", at.path("")));
    while !demo.line().contains("is killed") {}
    demo.signal("TERM");
    let (status, rest, errors) = demo.end();
    assert_eq!(
        (status.code(), errors.as_str()),
        (Some(1), "watchkeep: stopped before anything was proved; run it again\n")
    );
    assert!(!rest.contains("doubled"), "{rest}");
    assert_eq!(std::fs::read_dir(at.path("")).unwrap().count(), 0);
}

#[test]
fn names_of_databases_that_are_no_files_are_refused() {
    let at = Sandbox::new();
    for name in [":memory:", "file:watchkeep.db?mode=ro"] {
        assert!(at.fails(2, &["--store", name, "set", "a", "b", "c"]).contains("a store is a file"));
    }
    assert_eq!(std::fs::read_dir(at.path("")).unwrap().count(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn help_that_cannot_be_written_is_a_failure() {
    let at = Sandbox::new();
    for args in [&["--help"][..], &["--version"], &["help", "set"], &["completions", "bash"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = at.command(args).stdout(full).output().unwrap();
        let error = one_error(args, 1, output);
        assert!(error.contains("could not be written"), "{error}");
        // Nobody who reads is no failure.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = at.command(args).stdout(writer).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}
