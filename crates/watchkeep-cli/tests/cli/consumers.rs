//! Named consumers over several processes: `watch --consumer`, and `consumers`.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sandbox::{Running, Sandbox, one_error};

fn with(events: usize) -> Sandbox {
    let at = Sandbox::new();
    let lines: String =
        (1..=events).map(|n| format!("{{\"group\":\"g\",\"key\":\"{n}\",\"value\":\"v\"}}\n")).collect();
    assert!(at.with_input(&["import", "-"], lines).status.success());
    at
}

fn listed(at: &Sandbox) -> Value {
    at.json(&["consumers", "--json"])
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let (_never, pause) = mpsc::channel::<()>();
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(120), "never came: {what}");
        // Nothing is ever sent: this only lets others run.
        let _ = pause.recv_timeout(Duration::from_millis(10));
    }
}

/// Starts a watch and waits until it holds the consumer.
fn holder(at: &Sandbox, args: &[&str]) -> Running {
    let known = at.json_lines(&["consumers", "--json"]).first().map(|it| it["fence"].clone());
    let command = at.command(&[&["watch", "--consumer", "c"], args].concat());
    // The tests may run where SIGHUP is ignored, which is inherited.
    let mut heeding = std::process::Command::new("env");
    heeding.arg("--default-signal=HUP").arg(command.get_program()).args(command.get_args());
    heeding.current_dir(at.path("")).env_remove("WATCHKEEP_STORE").env_remove("WATCHKEEP_NAMESPACE");
    let running = at.start_command(&mut heeding);
    eventually("the consumer is held", || {
        let row = at.json_lines(&["consumers", "--json"]);
        row.first().is_some_and(|it| it["held"] == true && Some(&it["fence"]) != known.as_ref())
    });
    running
}

#[test]
fn a_consumer_goes_on_where_it_was_left() {
    let at = with(5);
    let take = |count: &str| -> Vec<u64> {
        let events = at.json_lines(&["watch", "--consumer", "c", "--from-start", "--limit", count, "--json"]);
        events.iter().map(|event| event["revision"].as_u64().unwrap()).collect()
    };
    assert_eq!(take("2"), [1, 2]);
    assert_eq!(take("3"), [3, 4, 5]);
    at.ok(&["set", "g", "new", "v"]);
    assert_eq!(take("1"), [6]);
    let row = listed(&at);
    assert_eq!((row["acked"].as_u64(), row["lag_events"].as_u64()), (Some(6), Some(0)));
    assert_eq!((row["held"].as_bool(), row["holder"].is_null()), (Some(false), true));
}

#[test]
fn a_consumer_killed_at_work_loses_nothing_and_goes_on_after_what_it_finished() {
    let at = with(20);
    let kill = "echo $WATCHKEEP_REVISION >> done; [ $WATCHKEEP_REVISION != 7 ] || kill -KILL $PPID";
    let args = ["watch", "--consumer", "c", "--from-start", "--lease", "1h", "--exec", kill];
    let killed = at.output(&args);
    assert_eq!(killed.status.code(), None, "{killed:?}");
    assert_eq!(listed(&at)["acked"], 6);
    // Nothing was given back: the next one waits for the lease to end, which it does as soon as we say so.
    at.fails(4, &["watch", "--consumer", "c", "--timeout", "1s"]);
    let file = rusqlite::Connection::open(at.path("watchkeep.db")).unwrap();
    file.execute("UPDATE wk_consumers SET lease_until = 0", []).unwrap();
    drop(file);
    let rest = "echo $WATCHKEEP_REVISION >> done";
    at.ok(&["watch", "--consumer", "c", "--wait", "--limit", "14", "--exec", rest]);
    let done = std::fs::read_to_string(at.path("done")).unwrap();
    let done: Vec<u64> = done.lines().map(|line| line.parse().unwrap()).collect();
    let expected: Vec<u64> = (1..=7).chain(7..=20).collect();
    assert_eq!(done, expected, "7 was not finished, and comes again");
    assert_eq!(listed(&at)["acked"], 20);
}

#[test]
fn a_failing_command_ends_the_watch_with_its_code_and_the_event_comes_again() {
    let at = with(3);
    let args =
        ["watch", "--consumer", "c", "--from-start", "--exec", "[ $WATCHKEEP_REVISION = 1 ] || exit 7"];
    let error = one_error(&args, 7, at.output(&args));
    assert!(error.contains("revision 2") && error.contains("exit code 7"), "{error}");
    assert_eq!(at.json(&["watch", "--consumer", "c", "--limit", "1", "--json"])["revision"], 2);
}

#[test]
fn two_processes_that_want_one_name_one_has_it_and_the_other_is_told_or_waits() {
    let at = with(1);
    let first = holder(&at, &["--json"]);
    let error = at.fails(4, &["watch", "--consumer", "c"]);
    assert!(error.contains("held by") && error.contains("process "), "{error}");
    assert_eq!(at.ok(&["watch", "--consumer", "c", "--wait", "--timeout", "300ms"]), "");
    at.fails(4, &["watch", "--consumer", "c", "--wait", "100ms"]);
    let mut second = at.start(&["watch", "--consumer", "c", "--wait", "--json"]);
    first.signal("TERM");
    let (status, _, errors) = first.end();
    assert_eq!((status.code(), errors.as_str()), (Some(0), ""));
    at.ok(&["set", "g", "new", "v"]);
    assert_eq!(second.json()["revision"], 2);
}

#[test]
fn a_watch_that_waits_for_a_consumer_ends_on_a_signal() {
    let at = with(1);
    let _first = holder(&at, &[]);
    let second = at.start(&["watch", "--consumer", "c", "--wait"]);
    // A signal before that would kill it; one that comes before it waits ends it as well, but says less.
    eventually("it has the signal in hand", || second.catches(15));
    second.signal("TERM");
    let (status, rest, errors) = second.end();
    assert_eq!((status.code(), rest.as_str(), errors.as_str()), (Some(0), "", ""));
}

#[test]
fn a_holder_that_was_stopped_and_overtaken_acknowledges_nothing_and_is_told() {
    let at = with(0);
    let mut first = holder(&at, &["--lease", "500ms", "--json"]);
    at.ok(&["set", "g", "a", "v"]);
    assert_eq!(first.json()["revision"], 1);
    eventually("it is acknowledged", || listed(&at)["acked"] == 1);
    // Not amidst a sign of life: then it would stand still with the lock, and everybody would wait for it.
    let file = rusqlite::Connection::open(at.path("watchkeep.db")).unwrap();
    file.busy_timeout(Duration::ZERO).unwrap();
    eventually("it stands still, and holds no lock", || {
        first.signal("STOP");
        eventually("it stands still", || first.is_stopped());
        let free = file.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok();
        if !free {
            first.signal("CONT");
        }
        free
    });
    drop(file);
    let mut second = holder(&at, &["--wait", "--json"]);
    for key in ["b", "c"] {
        at.ok(&["set", "g", key, "v"]);
    }
    assert_eq!(second.json()["revision"], 2);
    first.signal("CONT");
    let (status, _, error) = first.end();
    assert_eq!(status.code(), Some(4), "{error}");
    assert!(error.contains("taken over by"), "{error}");
    assert_eq!(second.json()["revision"], 3);
    eventually("the second goes on", || listed(&at)["acked"] == 3);
}

#[test]
fn consumers_are_listed_reset_and_removed() {
    let at = with(3);
    assert_eq!(at.ok(&["consumers"]), "");
    at.ok(&["watch", "g", "--kind", "set", "--consumer", "c", "--from-start", "--limit", "1"]);
    let text = at.ok(&["consumers"]);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("NAME  ACKED  LAG  OLDEST"), "{text}");
    let words: Vec<_> = lines[1].split_whitespace().collect();
    assert_eq!(words[..3], ["c", "1", "2"]);
    assert!(lines[1].ends_with("-       group \"g\", only set"), "{text}");
    assert!(at.ok(&["stats"]).contains("consumers    1, at most 2 events behind (c)"));
    assert_eq!(at.json(&["stats", "--json"])["consumers"][0]["acked"], 1);

    for (place, acked) in [("now", Some(3)), ("start", Some(0)), ("2", Some(2)), ("snapshot", None)] {
        at.ok(&["consumers", "reset", "c", "--to", place]);
        assert_eq!(listed(&at)["acked"].as_u64(), acked, "{place}");
    }
    let mut watch = at.start(&["watch", "--consumer", "c", "--json"]);
    let events = [(); 4].map(|()| watch.json());
    assert_eq!(events.last().unwrap()["kind"], "ready");
    watch.signal("TERM");
    let (status, rest, errors) = watch.end();
    assert_eq!((status.code(), rest.as_str(), errors.as_str()), (Some(0), "", ""));
    assert_eq!(listed(&at)["acked"].as_u64(), Some(3));

    let first = holder(&at, &[]);
    at.fails(4, &["consumers", "reset", "c", "--to", "start"]);
    at.fails(4, &["consumers", "remove", "c"]);
    at.ok(&["consumers", "remove", "c", "--force"]);
    let (status, _, error) = first.end();
    assert_eq!(status.code(), Some(4), "{error}");
    assert!(error.contains("reset or removed"), "{error}");
    at.fails(3, &["consumers", "remove", "c"]);
    at.fails(2, &["consumers", "reset", "c", "--to", "soon"]);
    at.fails(2, &["watch", "--consumer", "a b"]);
    at.fails(2, &["watch", "--from-start"]);
}

#[test]
fn compacting_respects_consumers_unless_forced() {
    let at = with(0);
    (0..5).for_each(|_| drop(at.ok(&["set", "g", "k", "v"])));
    at.ok(&["watch", "--consumer", "c", "--after", "1", "--limit", "1"]);
    let error = at.fails(4, &["compact", "--before", "4"]);
    assert!(error.contains("still needs the events after 2"), "{error}");
    assert_eq!(at.ok(&["compact", "--before", "3"]), "2\n");
    assert_eq!(at.ok(&["compact", "--before", "4", "--force"]), "1\n");
    assert!(at.ok(&["consumers"]).contains("3, lost 3 to 3"));
}

#[test]
fn a_consumer_of_a_namespace_is_listed_with_it() {
    let at = with(0);
    at.ok(&["--namespace", "one", "set", "g", "k", "v"]);
    at.ok(&["set", "g", "k", "v"]);
    let mut watch = at.start(&["--namespace", "one", "watch", "--consumer", "c", "--from-start", "--json"]);
    assert_eq!(watch.json()["group"], "g");
    watch.signal("TERM");
    let (_, rest, _) = watch.end();
    assert_eq!(rest, "", "one event");
    assert_eq!(listed(&at)["name"], "one:c");
    assert_eq!(at.json(&["--namespace", "one", "consumers", "--json"])["name"], "c");
    assert_eq!(at.ok(&["--namespace", "two", "consumers"]), "");
}

#[test]
fn a_mistyped_position_of_a_consumer_is_refused() {
    let at = with(2);
    at.ok(&["watch", "--consumer", "c", "--from-start", "--limit", "1"]);
    for args in [
        &["consumers", "reset", "c", "--to", "999999"][..],
        &["watch", "--consumer", "new", "--after", "5000"],
    ] {
        let error = at.fails(2, args);
        assert!(error.contains("after the last one, 2; name"), "{error}");
    }
    assert_eq!(listed(&at)["acked"], 1);
}

#[test]
fn a_terminal_that_goes_away_gives_the_consumer_back() {
    let at = with(1);
    let first = holder(&at, &["--lease", "1h"]);
    first.signal("HUP");
    let (status, _, errors) = first.end();
    assert_eq!((status.code(), errors.as_str()), (Some(0), ""));
    assert_eq!(listed(&at)["held"], false);
}

#[test]
fn a_watch_that_is_to_outlive_its_terminal_does() {
    let at = with(1);
    let mut nohup = std::process::Command::new("sh");
    nohup.args(["-c", r#"trap "" HUP; exec "$0" "$@""#]);
    let command = at.command(&["watch", "--snapshot", "--json"]);
    nohup.arg(command.get_program()).args(command.get_args()).current_dir(at.path(""));
    let mut watch = at.start_command(nohup.env_remove("WATCHKEEP_STORE")).until_ready();
    assert!(watch.catches(15) && !watch.catches(1));
    watch.signal("HUP");
    at.ok(&["set", "g", "new", "v"]);
    assert_eq!(watch.json()["key"], "new");
    watch.signal("TERM");
    assert_eq!(watch.end().0.code(), Some(0));
}
