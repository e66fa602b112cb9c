//! `history`, and events as JSON.

use serde_json::{Value, json};

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
    assert!(cursor.len() == 10 && cursor.ends_with("-1"), "{cursor}");
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
    at.fails(2, &["history", "--after", "k3v9x2mq-3"]);
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
