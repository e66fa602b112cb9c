//! `watch`: other processes' writes, its ends, `--exec`.

use std::process::Stdio;

use crate::sandbox::{Sandbox, one_error};

fn started() -> Sandbox {
    let at = Sandbox::new();
    at.ok(&["set", "config", "theme", "dark"]);
    at
}

#[test]
fn a_watch_sees_what_another_process_writes() {
    let at = started();
    let mut watch = at.start(&["watch", "config", "--snapshot", "--json"]).until_ready();
    at.ok(&["set", "other", "a", "b"]);
    at.ok(&["--origin", "me", "set", "config", "theme", "light"]);
    at.ok(&["delete", "config", "theme"]);
    let event = watch.json();
    assert_eq!((event["revision"].as_u64(), event["value"].as_str()), (Some(3), Some("light")));
    assert_eq!(event["origin"], "me");
    assert_eq!(watch.json()["kind"], "delete");
}

#[test]
fn a_watch_ends_cleanly_on_signals() {
    for signal in ["TERM", "INT"] {
        let at = started();
        let watch = at.start(&["watch", "--snapshot", "--json"]).until_ready();
        watch.signal(signal);
        let (status, rest, errors) = watch.end();
        assert_eq!((status.code(), rest.as_str(), errors.as_str()), (Some(0), "", ""), "{signal}");
    }
}

#[test]
fn a_watch_ends_when_nobody_reads_it_without_waiting_for_an_event() {
    let at = started();
    let mut watch = at.start(&["watch", "--snapshot", "--json"]).until_ready();
    watch.close_output();
    let (status, _, errors) = watch.end();
    assert_eq!((status.code(), errors.as_str()), (Some(0), ""));
}

#[test]
fn a_closed_pipe_ends_every_command_quietly() {
    let at = Sandbox::new();
    let lines: String = (0..20_000)
        .map(|n| format!("{{\"group\":\"g\",\"key\":\"{n}\",\"value\":\"{n:0100}\"}}\n"))
        .collect();
    assert!(at.with_input(&["import", "-"], lines).status.success());
    for args in [&["list", "g", "--values"][..], &["export"], &["history"], &["watch", "--after", "0"]] {
        let mut command = at.start(args);
        assert!(!command.line().is_empty());
        command.close_output();
        let (status, _, errors) = command.end();
        assert_eq!((status.code(), errors.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn a_watch_ends_after_a_number_or_a_time() {
    let at = started();
    for value in ["1", "2", "3"] {
        at.ok(&["set", "config", "font", value]);
    }
    assert_eq!(at.json_lines(&["watch", "--after", "0", "--limit", "3", "--json"]).len(), 3);
    assert_eq!(at.ok(&["watch", "--limit", "0"]), "");
    assert_eq!(at.ok(&["watch", "--timeout", "50ms"]), "");
    // A time that is not over yet keeps nothing back, and nothing comes besides.
    let mut watch = at.start(&["watch", "--after", "1", "--timeout", "1h", "--json"]);
    for revision in 2..=4 {
        assert_eq!(watch.json()["revision"], revision);
    }
    watch.signal("TERM");
    let (status, rest, errors) = watch.end();
    assert_eq!((status.code(), rest.as_str(), errors.as_str()), (Some(0), "", ""));
}

#[test]
fn a_watch_goes_on_after_a_cursor_of_its_own_store_only() {
    let at = started();
    let cursor = at.json(&["set", "config", "font", "12", "--json"])["cursor"].as_str().unwrap().to_owned();
    at.ok(&["set", "config", "font", "14"]);
    let next = at.json(&["watch", "--after", &cursor, "--limit", "1", "--json"]);
    assert_eq!(next["revision"], 3);
    at.ok(&["--store", "other.db", "set", "a", "b", "c"]);
    at.fails(2, &["--store", "other.db", "watch", "--after", &cursor]);
}

#[test]
fn what_is_lost_is_said_in_place() {
    let at = started();
    for value in ["1", "2", "3"] {
        at.ok(&["set", "config", "font", value]);
    }
    at.ok(&["compact", "--before", "4"]);
    let args = ["watch", "--after", "1", "--limit", "1"];
    let output = at.output(&args);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().next().unwrap().contains("lagged: revisions 2 to 3"), "{text}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("revisions 2 to 3"));
    let output = at.output(&[&args[..], &["--exec", "echo $WATCHKEEP_REVISION"]].concat());
    assert_eq!(output.stdout, b"4\n");
    assert!(String::from_utf8(output.stderr).unwrap().contains("revisions 2 to 3"));
    let lost = at.start(&[&args[..], &["--json"]].concat()).json();
    assert_eq!(
        (lost["kind"].as_str(), lost["from"].as_u64(), lost["to"].as_u64()),
        (Some("lagged"), Some(2), Some(3))
    );
}

#[test]
fn previous_values_keys_only_and_origins() {
    let at = started();
    at.ok(&["--origin", "me", "set", "config", "theme", "light"]);
    at.ok(&["--origin", "you", "set", "config", "theme", "blue"]);
    let text = at.ok(&["watch", "--after", "2", "--limit", "1", "--previous"]);
    assert!(text.contains("= blue (was light) [you]"), "{text}");
    let keys = at.ok(&["watch", "--after", "2", "--limit", "1", "--keys-only"]);
    assert!(keys.contains("config theme [you]"), "{keys}");
    let event = at.json(&["watch", "--after", "1", "--limit", "1", "--exclude-origin", "me", "--json"]);
    assert_eq!(event["origin"], "you");
    for policy in ["catch-up", "drop", "latest"] {
        at.ok(&["watch", "--policy", policy, "--timeout", "1ms"]);
    }
}

#[test]
fn a_command_is_run_for_each_event() {
    let at = started();
    at.ok(&["--origin", "me", "set", "config", "font", "12 pt"]);
    at.with_input(&["set", "config", "logo", "-"], b"\xff");
    at.ok(&["delete-group", "config"]);
    let command = r#"echo "$WATCHKEEP_REVISION ${WATCHKEEP_CURSOR#*-*-} $WATCHKEEP_KIND $WATCHKEEP_GROUP ${WATCHKEEP_KEY-unset} ${WATCHKEEP_VALUE-unset} ${WATCHKEEP_ORIGIN-unset}""#;
    let mut watch = at.command(&["watch", "--after", "0", "--limit", "4", "--exec", command]);
    // A variable from around us is not the event's.
    let output = watch.env("WATCHKEEP_VALUE", "stale").env("WATCHKEEP_ORIGIN", "stale").output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "1 1 set config theme dark unset\n\
         2 2 set config font 12 pt me\n\
         3 3 set config logo unset unset\n\
         4 4 delete_group config unset unset unset\n"
    );
    assert!(output.status.success() && output.stderr.is_empty());
}

#[test]
fn a_command_finds_the_event_on_its_input_and_need_not_read_it() {
    let at = started();
    at.with_input(&["set", "config", "big", "-"], "x".repeat(1 << 20));
    let events = at.json_lines(&["watch", "--after", "0", "--limit", "2", "--exec", "cat"]);
    assert_eq!(events[0]["value"], "dark");
    assert_eq!(events[1]["value"].as_str().map(str::len), Some(1 << 20));
    assert_eq!(at.ok(&["watch", "--after", "0", "--limit", "2", "--exec", "echo x"]), "x\nx\n");
    let binary = assert_cmd::cargo::cargo_bin!("watchkeep");
    let get = format!("'{}' get config theme", binary.display());
    assert_eq!(at.ok(&["watch", "config", "theme", "--after", "0", "--limit", "1", "--exec", &get]), "dark");
}

#[test]
fn a_failing_command_ends_the_watch() {
    let at = started();
    at.ok(&["set", "config", "font", "12"]);
    let args = ["watch", "--after", "0", "--exec", "echo ran; exit 7"];
    let output = at.output(&args);
    assert_eq!(output.stdout, b"ran\n");
    let error = one_error(&args, 1, output);
    assert!(error.contains("revision 1") && error.contains("exit code 7"), "{error}");
}

#[test]
fn a_signal_while_a_command_runs_ends_the_watch_with_0() {
    let at = started();
    let mut command =
        at.command(&["watch", "--after", "0", "--exec", "echo runs; kill -TERM $PPID; read never; exit 1"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"runs\n".as_slice()));
}

#[test]
fn a_command_is_told_the_namespace_as_it_is_told_the_file() {
    let at = started();
    at.ok(&["--namespace", "t1", "set", "config", "theme", "of t1"]);
    let binary = assert_cmd::cargo::cargo_bin!("watchkeep");
    let get = format!("'{}' get \"$WATCHKEEP_GROUP\" \"$WATCHKEEP_KEY\"", binary.display());
    let watch = ["watch", "config", "theme", "--after", "0", "--limit", "1", "--exec", &get];
    assert_eq!(at.ok(&[&["--namespace", "t1"], &watch[..]].concat()), "of t1");
    // The variable does what the option does, and the option goes first.
    let with = |namespace: &str, args: &[&str]| {
        let output = at.command(args).env("WATCHKEEP_NAMESPACE", namespace).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(with("t1", &["get", "config", "theme"]), "of t1");
    assert_eq!(with("t1", &watch), "of t1");
    assert_eq!(with("t2", &["--namespace", "t1", "get", "config", "theme"]), "of t1");
    // Where there is none, none is told.
    let whole = ["watch", "--after", "0", "--limit", "1", "--exec", "echo ${WATCHKEEP_NAMESPACE-unset}"];
    assert_eq!(at.ok(&whole), "unset\n");
}
