//! `history`, and events as JSON.

use serde_json::{Value, json};
use watchkeep::{Clock, SystemClock};

use crate::sandbox::Sandbox;

fn revisions(lines: &[Value]) -> Vec<u64> {
    lines.iter().filter_map(|line| line["revision"].as_u64()).collect()
}

#[test]
fn an_event_is_the_object_that_is_documented() {
    let at = Sandbox::new();
    at.ok(&["set", "config", "theme", "dark"]);
    let line = at.ok(&["history", "--json"]);
    let event: Value = serde_json::from_str(&line).unwrap();
    let cursor = event["cursor"].as_str().unwrap();
    assert!(cursor.len() == 17 && cursor.ends_with("-1"), "{cursor}");
    let time = event["timestamp"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    assert_eq!(
        line,
        format!(
            r#"{{"revision":1,"cursor":"{cursor}","kind":"set","group":"config","key":"theme","value":"dark","timestamp":"{time}","origin":null,"commit":1}}"#
        ) + "\n"
    );
}

#[test]
fn every_kind_has_its_shape() {
    let at = Sandbox::new();
    at.with_input(&["set", "g", "a", "-"], b"\xff\xfe");
    at.ok(&["--origin", "me", "delete", "g", "a"]);
    at.ok(&["set", "g", "b", ""]);
    at.ok(&["touch", "g", "b", "1h"]);
    at.ok(&["delete-group", "g"]);
    at.ok(&["set", "s", "t", "last", "--ttl", "1ms"]);
    let mut watch = at.start(&["watch", "--after", "5", "--limit", "2", "--json"]);
    assert_eq!(watch.json()["kind"], "set");
    let expire = watch.json();
    assert_eq!((expire["kind"].as_str(), expire["value"].as_str()), (Some("expire"), Some("last")));
    let events = at.json_lines(&["history", "--json"]);
    let kinds: Vec<_> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["set", "delete", "set", "delete_group", "set", "expire"]);
    assert_eq!(events[0]["value_base64"], "//4=");
    assert_eq!(events[0].get("value"), None);
    assert_eq!(events[1]["origin"], "me");
    assert_eq!(events[2]["value"], "");
    let touched = at.json_lines(&["history", "--json", "--kind", "touch"]);
    assert_eq!((touched.len(), touched[0]["key"].as_str()), (1, Some("b")));
}

#[test]
fn history_selects() {
    let at = Sandbox::new();
    for (group, key) in [("app.a", "x"), ("app.a", "y"), ("app.b", "x"), ("*", "x"), ("app.a", "x")] {
        at.ok(&["set", group, key, "v"]);
    }
    at.ok(&["delete-group", "app.a"]);
    let selected = |args: &[&str]| revisions(&at.json_lines(&[&["history", "--json"], args].concat()));
    assert_eq!(selected(&[]), [1, 2, 3, 4, 5, 6]);
    assert_eq!(selected(&["app.a"]), [1, 2, 5, 6]);
    assert_eq!(selected(&["app.a", "x"]), [1, 5, 6]);
    assert_eq!(selected(&["*", "y"]), [2, 6]);
    assert_eq!(selected(&["*", "--literal"]), [4]);
    assert_eq!(selected(&["--group-prefix", "app."]), [1, 2, 3, 5, 6]);
    assert_eq!(selected(&["app.a", "--key-prefix", "x"]), [1, 5, 6]);
    assert_eq!(selected(&["--kind", "delete_group"]), [6]);
    assert_eq!(selected(&["--after", "2", "--limit", "2"]), [3, 4]);
    assert_eq!(selected(&["--limit", "0"]), [] as [u64; 0]);
    let cursor = at.json_lines(&["history", "--json"])[3]["cursor"].as_str().unwrap().to_owned();
    assert_eq!(selected(&["--after", &cursor]), [5, 6]);
    at.fails(2, &["history", "--after", "k3v9x2mq-4fz8ab-3"]);
}

#[test]
fn people_read_a_line_for_each_event() {
    let at = Sandbox::new();
    at.ok(&["--origin", "me", "set", "config", "theme", "dark\nblue"]);
    at.ok(&["delete", "config", "theme"]);
    at.with_input(&["set", "", "a b", "-"], b"\xff");
    let text = at.ok(&["history"]);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].ends_with("  set           config theme = dark\\nblue [me]"), "{text}");
    assert!(lines[1].ends_with("  delete        config theme"), "{text}");
    assert!(lines[2].ends_with("  set           \"\" \"a b\" = <1 bytes>"), "{text}");
}

#[test]
fn marks_are_objects_too() {
    let at = Sandbox::new();
    at.ok(&["set", "config", "theme", "dark"]);
    let mut watch = at.start(&["watch", "--snapshot", "--progress", "1ms", "--json"]);
    let lines = [(); 3].map(|()| watch.json());
    assert_eq!(lines[0]["value"], "dark");
    let cursor = &lines[0]["cursor"];
    assert_eq!(lines[1], json!({ "kind": "ready", "revision": 1, "cursor": cursor }));
    assert_eq!(lines[2], json!({ "kind": "progress", "revision": 1, "cursor": cursor }));
}

#[test]
fn a_local_time_bears_its_offset() {
    let at = Sandbox::new();
    at.ok(&["set", "g", "k", "v", "--ttl", "1h"]);
    let text = |zone: &str, args: &[&str]| {
        String::from_utf8(at.command(args).env("TZ", zone).output().unwrap().stdout).unwrap()
    };
    for (zone, offset) in [("UTC", "+00:00"), ("XXX-5:45", "+05:45"), ("XXX3", "-03:00")] {
        for (args, times) in [
            (&["history"][..], 2),
            (&["watch", "--after", "0", "--limit", "1"], 2),
            (&["get", "g", "k", "--meta"], 2),
            (&["stats"], 1),
        ] {
            let text = text(zone, args);
            assert_eq!(text.matches(offset).count(), times, "{zone} {args:?}: {text}");
        }
    }
}

/// Nothing but short commands uses the file, and none of them is there when the deadline comes.
#[test]
fn the_first_command_after_a_deadline_announces_it_before_it_ends() {
    let at = Sandbox::new();
    at.ok(&["set", "g", "stays", "v"]);
    let (_never, pause) = std::sync::mpsc::channel::<()>();
    let file = rusqlite::Connection::open(at.path("watchkeep.db")).unwrap();
    let commands: [&[&str]; 5] = [
        &["history", "g"],
        &["get", "g", "stays"],
        &["list", "g"],
        &["set", "h", "other", "v"],
        &["history", "--kind", "expire", "--json"],
    ];
    for (number, command) in (0..40).zip(commands.into_iter().cycle()) {
        let key = format!("k{number}");
        at.ok(&["set", "g", &key, "v", "--ttl", "20ms"]);
        let past = |key: &str| {
            let sql = "SELECT coalesce(max(deadline), 0) FROM wk_log WHERE key = ?1 AND kind = 1";
            let deadline: i64 = file.query_row(sql, [key], |row| row.get(0)).unwrap();
            SystemClock.now().as_millis() >= deadline
        };
        while !past(&key) {
            // Nothing is ever sent: time passes.
            let _ = pause.recv_timeout(std::time::Duration::from_millis(2));
        }
        let output = at.ok(command);
        let told = "SELECT count(*) FROM wk_log WHERE key = ?1 AND kind = 4";
        let told: i64 = file.query_row(told, [&key], |row| row.get(0)).unwrap();
        assert_eq!(told, 1, "{number}: {command:?}");
        if command[0] == "history" {
            let last = output.lines().last().unwrap();
            assert!(last.contains("expire") && last.contains(&key), "{number}: {output}");
        }
    }
}

#[test]
fn a_file_that_another_holds_is_read_all_the_same_with_something_due() {
    let at = Sandbox::new();
    at.ok(&["set", "g", "stays", "v"]);
    let file = rusqlite::Connection::open(at.path("watchkeep.db")).unwrap();
    at.ok(&["set", "g", "k", "v", "--ttl", "1h"]);
    file.execute_batch("UPDATE wk_entries SET deadline = 1 WHERE key = 'k'; BEGIN IMMEDIATE").unwrap();
    let commands: [(&[&str], &str); 4] = [
        (&["get", "g", "stays"], "v"),
        (&["list", "g"], "stays\n"),
        (&["count"], "1\n"),
        (&["history", "--kind", "expire"], ""),
    ];
    for (command, expected) in commands {
        let begun = std::time::Instant::now();
        assert_eq!(at.ok(command), expected);
        // A write would wait for five seconds.
        assert!(begun.elapsed() < std::time::Duration::from_secs(4), "{command:?}: {:?}", begun.elapsed());
    }
    file.execute_batch("ROLLBACK").unwrap();
    let history = at.json_lines(&["history", "--json"]);
    assert_eq!(history.last().unwrap()["kind"], "expire");
}

#[test]
fn history_is_shown_although_something_else_in_the_file_is_damaged() {
    let at = Sandbox::new();
    at.ok(&["set", "g", "k", "v", "--ttl", "1h"]);
    let damage = rusqlite::Connection::open(at.path("watchkeep.db")).unwrap();
    damage.execute("UPDATE wk_entries SET deadline = 'soon'", []).unwrap();
    drop(damage);
    assert_eq!(revisions(&at.json_lines(&["history", "--json"])), [1]);
}
