//! `set`, `get`, `delete`, `delete-group`, `touch`, `persist`, `list`, `groups`, `count`, `render`.

use crate::sandbox::{Sandbox, one_error};

#[test]
fn a_value_goes_in_and_comes_out() {
    let at = Sandbox::new();
    assert_eq!(at.ok(&["set", "config", "theme", "dark"]), "1\n");
    assert_eq!(at.ok(&["get", "config", "theme"]), "dark");
    assert_eq!(at.ok(&["set", "config", "theme", "light"]), "2\n");
    assert_eq!(at.ok(&["get", "config", "theme"]), "light");
    assert!(at.path("watchkeep.db").exists());
}

#[test]
fn a_value_comes_from_standard_input_as_it_is() {
    let at = Sandbox::new();
    let bytes = b"\xff\0\x1b[31m line\n".as_slice();
    assert!(at.with_input(&["set", "g", "k", "-"], bytes).status.success());
    assert_eq!(at.bytes(&["get", "g", "k"]), bytes);
    assert_eq!(at.ok(&["set", "g", "k", "-5"]), "2\n");
    assert_eq!(at.ok(&["get", "g", "k"]), "-5");
    at.ok(&["set", "g", "k", "--ttl", "1h", "--", "--ttl"]);
    assert_eq!(at.ok(&["get", "g", "k"]), "--ttl");
}

/// As `set g k $UNSET` does it.
#[test]
fn a_missing_value_is_refused_and_standard_input_left_alone() {
    let at = Sandbox::new();
    at.ok(&["set", "g", "k", "v"]);
    for args in [&["set", "g", "k"][..], &["set", "g", "k", "--ttl", "1h"]] {
        let error = one_error(args, 2, at.with_input(args, "the rest of a loop's input"));
        assert!(error.contains("`-` to read standard input"), "{error}");
    }
    assert_eq!(at.ok(&["get", "g", "k"]), "v");
    at.ok(&["set", "g", "k", ""]);
    assert_eq!(at.ok(&["get", "g", "k"]), "");
}

#[cfg(unix)]
#[test]
fn an_argument_need_not_be_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let at = Sandbox::new();
    let output = at.command(&["set", "g", "k"]).arg(OsStr::from_bytes(b"\xfe\xff")).output().unwrap();
    assert!(output.status.success());
    assert_eq!(at.bytes(&["get", "g", "k"]), b"\xfe\xff");
}

#[test]
fn every_name_is_a_name() {
    let at = Sandbox::new();
    for (group, key) in [("", ""), ("*", "*"), ("a b", "c\nd"), ("päivä", "ключ"), ("a:b", "%_")] {
        at.ok(&["set", group, key, group]);
        assert_eq!(at.ok(&["get", group, key]), group);
    }
    assert_eq!(at.ok(&["count"]), "5\n");
    assert_eq!(at.ok(&["list", "*"]), "*\n");
    assert_eq!(at.ok(&["list", ""]), "\n");
    assert_eq!(at.ok(&["list", "a b", "--values"]), "c\\nd\ta b\n");
    at.ok(&["delete", "*", "*"]);
    assert_eq!(at.ok(&["count"]), "4\n");
}

#[test]
fn conditions_refuse_with_4_and_tell_the_revision() {
    let at = Sandbox::new();
    at.ok(&["set", "lock", "job", "me", "--if-absent"]);
    let refused = at.fails(4, &["set", "lock", "job", "you", "--if-absent"]);
    assert!(refused.contains("is at revision 1"), "{refused}");
    at.fails(4, &["set", "lock", "job", "you", "--if-revision", "7"]);
    at.fails(4, &["delete", "lock", "job", "--if-revision", "7"]);
    assert_eq!(at.ok(&["set", "lock", "job", "you", "--if-revision", "1"]), "2\n");
    let cursor = at.json(&["get", "lock", "job", "--json"])["cursor"].as_str().unwrap().to_owned();
    at.ok(&["delete", "lock", "job", "--if-revision", &cursor]);
    let foreign = at.fails(2, &["set", "lock", "job", "x", "--if-revision", "k3v9x2mq-4fz8ab-7"]);
    assert!(foreign.contains("the cursor belongs to store"), "{foreign}");
}

#[test]
fn a_time_to_live_is_set_kept_changed_and_taken_away() {
    let at = Sandbox::new();
    let deadline = || at.json(&["get", "s", "t", "--json"])["deadline"].clone();
    at.ok(&["set", "s", "t", "1", "--ttl", "7d"]);
    let week = deadline();
    assert!(week.is_string());
    at.ok(&["set", "s", "t", "2", "--keep-ttl"]);
    assert_eq!(deadline(), week);
    at.ok(&["touch", "s", "t", "1h30m"]);
    assert!(deadline().as_str() < week.as_str());
    at.ok(&["persist", "s", "t"]);
    assert!(deadline().is_null());
    at.ok(&["set", "s", "t", "3", "--ttl", "90s"]);
    at.ok(&["set", "s", "t", "4"]);
    assert!(deadline().is_null());
    at.fails(2, &["set", "s", "t", "5", "--ttl", "90"]);
    at.fails(2, &["set", "s", "t", "5", "--ttl", "1s", "--keep-ttl"]);
}

#[test]
fn what_is_not_there_ends_with_3_and_announces_nothing() {
    let at = Sandbox::new();
    at.ok(&["set", "config", "theme", "dark"]);
    for args in [
        &["get", "config", "font"][..],
        &["get", "config", "font", "--json"],
        &["delete", "config", "font"],
        &["delete-group", "nothing"],
        &["delete-group", "--prefix", "nothing"],
        &["touch", "config", "font", "5m"],
        &["persist", "config", "font"],
    ] {
        at.fails(3, args);
        assert!(at.output(args).stdout.is_empty());
    }
    assert_eq!(at.ok(&["history"]).lines().count(), 1);
}

#[test]
fn groups_are_deleted_by_name_or_prefix() {
    let at = Sandbox::new();
    for (group, key) in [("a", "1"), ("tmp.a", "1"), ("tmp.a", "2"), ("tmp.b", "1"), ("TMP.c", "1")] {
        at.ok(&["set", group, key, ""]);
    }
    assert_eq!(at.ok(&["delete-group", "--prefix", "tmp."]), "3\n");
    assert_eq!(at.ok(&["groups"]), "TMP.c\na\n");
    assert_eq!(at.json(&["delete-group", "a", "--json"])["deleted"], 1);
    at.fails(2, &["delete-group"]);
    at.fails(2, &["delete-group", "a", "--prefix", "b"]);
}

#[test]
fn everything_goes_only_when_that_is_said() {
    let at = Sandbox::new();
    for args in
        [&["set", "", "k", ""][..], &["set", "g", "k", ""], &["--namespace", "n", "set", "g", "k", ""]]
    {
        at.ok(args);
    }
    // As `--prefix "$UNSET"` does it.
    let error = at.fails(2, &["delete-group", "--prefix", ""]);
    assert!(error.contains("every group") && error.contains("--all"), "{error}");
    at.fails(2, &["delete-group", "--prefix="]);
    at.fails(2, &["delete-group", "--all", "g"]);
    at.fails(2, &["delete-group", "--all", "--prefix", "g"]);
    assert_eq!(at.ok(&["count"]), "3\n");
    assert_eq!(at.ok(&["delete-group", ""]), "1\n");
    assert_eq!(at.ok(&["--namespace", "n", "delete-group", "--all"]), "1\n");
    assert_eq!(at.ok(&["delete-group", "--all"]), "1\n");
    assert!(at.fails(3, &["delete-group", "--all"]).contains("there is no group"));
}

#[test]
fn lists_are_in_byte_order_and_bounded() {
    let at = Sandbox::new();
    for key in ["b", "a2", "a10", "a1"] {
        at.ok(&["set", "g", key, &format!("v-{key}")]);
    }
    assert_eq!(at.ok(&["list", "g"]), "a1\na10\na2\nb\n");
    assert_eq!(at.ok(&["list", "g", "--prefix", "a", "--limit", "2"]), "a1\na10\n");
    assert_eq!(at.ok(&["list", "g", "--after", "a10", "--values"]), "a2\tv-a2\nb\tv-b\n");
    let lines = at.json_lines(&["list", "g", "--json", "--limit", "1"]);
    assert_eq!((lines[0]["key"].as_str(), lines[0].get("value")), (Some("a1"), None));
    assert_eq!(at.json_lines(&["list", "g", "--json", "--values"])[3]["value"], "v-b");
    assert_eq!(at.ok(&["list", "nothing"]), "");
    assert_eq!(at.json_lines(&["groups", "--json"]), [serde_json::json!({ "group": "g" })]);
    assert_eq!(at.json(&["count", "g", "--json"])["count"], 4);
    assert_eq!(at.ok(&["count", "h"]), "0\n");
}

#[test]
fn an_entry_as_json_has_all_that_is_known() {
    let at = Sandbox::new();
    at.ok(&["set", "config", "theme", "x"]);
    at.ok(&["set", "config", "theme", "dark", "--ttl", "1h", "--content-type", "text/plain"]);
    let line = at.ok(&["get", "config", "theme", "--json"]);
    let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(entry["group"], "config");
    assert_eq!(entry["key"], "theme");
    assert_eq!(entry["value"], "dark");
    assert_eq!(entry["bytes"], 4);
    assert_eq!((entry["revision"].as_u64(), entry["created"].as_u64()), (Some(2), Some(1)));
    assert!(entry["cursor"].as_str().unwrap().ends_with("-2"));
    assert_eq!(entry["content_type"], "text/plain");
    assert!(entry["deadline"].as_str() > entry["updated"].as_str());
    assert_eq!(at.json(&["get", "config", "theme", "--meta", "--json"]).get("value"), None);
    let meta = at.ok(&["get", "config", "theme", "--meta"]);
    for word in ["revision  2 (", "created   at revision 1", "(in 59m 59s", "4 bytes", "text/plain"] {
        assert!(meta.contains(word), "{word:?} is not in {meta}");
    }
    at.with_input(&["set", "config", "logo", "-"], b"\xff\xfe");
    assert_eq!(at.json(&["get", "config", "logo", "--json"])["value_base64"], "//4=");
}

#[test]
fn a_namespace_is_seen_alone() {
    let at = Sandbox::new();
    at.ok(&["--namespace", "tenant-1", "set", "config", "theme", "dark"]);
    at.ok(&["set", "config", "theme", "light"]);
    assert_eq!(at.ok(&["get", "tenant-1:config", "theme"]), "dark");
    assert_eq!(at.ok(&["groups"]), "config\ntenant-1:config\n");
    assert_eq!(at.ok(&["groups", "--namespace", "tenant-1"]), "config\n");
    assert_eq!(at.ok(&["count", "--namespace", "tenant-1"]), "1\n");
    assert_eq!(at.json(&["history", "--namespace", "tenant-1", "--json"])["group"], "config");
    at.fails(2, &["--namespace", "no:colon", "set", "a", "b", "c"]);
}

#[test]
fn templates_are_filled() {
    let at = Sandbox::new();
    at.ok(&["set", "customer", "name", "Ada"]);
    let template = at.file("letter.j2", "Dear {{ name }}\n");
    assert_eq!(at.ok(&["render", &template, "customer"]), "Dear Ada\n");
    let output = at.with_input(&["render", "-", "customer"], "{{ name }}, {{ title }}");
    assert!(one_error(&[], 1, output).contains("title"));
    let output = at.with_input(&["render", "-", "customer", "--lenient"], "{{ name }}, {{ title }}");
    assert_eq!(output.stdout, b"Ada, ");
    at.fails(3, &["render", "missing.j2", "customer"]);
}

#[test]
fn nothing_in_a_list_breaks_its_line_or_turns_it_round() {
    let at = Sandbox::new();
    let odd = "a\u{2028}b\u{2029}c\u{202e}d\u{2066}e\u{200f}f\u{85}g";
    let spelt = r"a\u{2028}b\u{2029}c\u{202e}d\u{2066}e\u{200f}f\u{85}g";
    at.ok(&["--origin", odd, "set", odd, odd, odd, "--content-type", odd]);
    assert_eq!(at.ok(&["groups"]), format!("{spelt}\n"));
    assert_eq!(at.ok(&["list", odd, "--values"]), format!("{spelt}\t{spelt}\n"));
    for (args, times) in [
        (&["history"][..], 4),
        (&["watch", "--after", "0", "--limit", "1"], 4),
        (&["get", odd, odd, "--meta"], 3),
    ] {
        let text = at.ok(args);
        assert_eq!(text.matches(spelt).count(), times, "{text}");
        assert!(!text.contains(['\u{2028}', '\u{202e}']), "{text}");
    }
    assert_eq!(at.ok(&["get", odd, odd]), odd);
}
