//! `serve`, as somebody at a shell has it.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::time::Instant;

use crate::http::{LIMIT, begin};
use crate::sandbox::{Running, Sandbox};

/// Reads up to a line that begins so.
fn until(stream: &mut BufReader<TcpStream>, start: &str) -> String {
    let begun = Instant::now();
    loop {
        let mut line = String::new();
        // A stream that goes on has heartbeats.
        assert!(begun.elapsed() < LIMIT, "nothing begins with {start:?}");
        assert!(stream.read_line(&mut line).unwrap() > 0, "it ended before {start:?}");
        if line.starts_with(start) {
            return line.trim_end().to_owned();
        }
    }
}

#[test]
fn a_restore_under_a_server_reaches_its_clients_and_their_writes_reach_the_restored_file() {
    let sandbox = Sandbox::new();
    let set = |store: &str, key: &str, value: &str| sandbox.ok(&["--store", store, "set", "g", key, value]);
    set("app.db", "k", "saved");
    sandbox.ok(&["--store", "app.db", "backup", "saved.db"]);
    let mut server: Running = sandbox.start(&["--store", "app.db", "serve", "--listen", "127.0.0.1:0"]);
    let url = server.line();
    set("app.db", "k", "later");
    let mut stream = begin(&url, "GET /v1/watch?group=g&snapshot=auto", "", "");
    until(&mut stream, "event: ready");

    // A store that is open is not replaced by force. It is restored beside it, and moved there in one go.
    sandbox.fails(1, &["--store", "app.db", "restore", "saved.db", "--force"]);
    sandbox.ok(&["--store", "next.db", "restore", "saved.db"]);
    std::fs::rename(sandbox.path("next.db"), sandbox.path("app.db")).unwrap();
    until(&mut stream, "event: reset");
    assert_eq!(until(&mut stream, "data: "), r#"data: {"reason":"foreign"}"#);
    let saved = until(&mut stream, "data: ");
    assert!(saved.contains(r#""value":"saved""#), "{saved}");
    until(&mut stream, "event: ready");
    let mut answer = String::new();
    begin(&url, "PUT /v1/entry?group=g&key=new", "", "live").read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    until(&mut stream, "data: {\"cursor\"");
    let live = until(&mut stream, "data: ");
    assert!(live.contains(r#""value":"live""#), "{live}");

    server.signal("TERM");
    until(&mut stream, "event: bye");
    let (status, _, errors) = server.end();
    assert_eq!(status.code(), Some(0), "{errors}");
    sandbox.ok(&["--store", "app.db", "check"]);
    assert_eq!(sandbox.ok(&["--store", "app.db", "get", "g", "k"]), "saved");
    assert_eq!(sandbox.ok(&["--store", "app.db", "get", "g", "new"]), "live");
    assert!(!sandbox.path("app.db-wal").exists() && sandbox.path("app.db-wal-replaced").exists());
}

#[test]
fn a_server_that_drains_answers_until_its_time_is_over_or_it_is_told_again() {
    let sandbox = Sandbox::new();
    let args = ["--store", "app.db", "serve", "--listen", "127.0.0.1:0", "--drain", "1h"];
    let mut server = sandbox.start(&args);
    let url = server.line();
    let mut stream = begin(&url, "GET /v1/watch?group=g", "", "");
    until(&mut stream, "event: ready");
    until(&mut begin(&url, "GET /readyz", "", ""), "HTTP/1.1 200");
    server.signal("TERM");
    let begun = Instant::now();
    while !status(&url, "GET /readyz").starts_with("HTTP/1.1 503") {
        assert!(begun.elapsed() < LIMIT, "it is still ready");
    }
    until(&mut begin(&url, "PUT /v1/entry?group=g&key=k", "", "v"), "HTTP/1.1 204");
    until(&mut stream, "data: {\"revision\"");
    server.signal("TERM");
    assert_eq!(server.end().0.code(), None, "the second signal ends it");

    let args = ["--store", "app.db", "serve", "--listen", "127.0.0.1:0", "--drain", "1s"];
    let mut server = sandbox.start(&args);
    let url = server.line();
    let mut stream = begin(&url, "GET /v1/watch?group=g", "", "");
    until(&mut stream, "event: ready");
    server.signal("TERM");
    until(&mut stream, "retry: ");
    until(&mut stream, "event: bye");
    let (ended, _, errors) = server.end();
    assert_eq!(ended.code(), Some(0), "{errors}");
    for line in ["INFO the server answers", "INFO the server ends over=1s", "INFO the server has ended"] {
        assert!(errors.contains(line), "{errors}");
    }
    let too_long = sandbox.output(&["serve", "--drain", "2h"]);
    assert!(String::from_utf8_lossy(&too_long.stderr).contains("the longest is 1h"), "{too_long:?}");
}

fn status(url: &str, head: &str) -> String {
    until(&mut begin(url, head, "", ""), "HTTP/1.1 ")
}

#[test]
fn the_log_has_a_line_for_each_request_and_nothing_that_a_client_said() {
    let sandbox = Sandbox::new();
    let args = ["--store", "app.db", "serve", "--listen", "127.0.0.1:0", "--log", "trace"];
    let mut server = sandbox.start(&args);
    let url = server.line();
    for (head, answer) in [
        ("PUT /v1/entry?group=canary&key=canary", "204"),
        ("PUT /v1/groups/canary/keys/canary", "204"),
        ("GET /v1/entry?group=canary&key=none HTTP/1.1\r\nAuthorization: Bearer canary\r\nX-Rest:", "404"),
        ("GET /canary?canary", "404"),
        ("CANARY /v1/stats", "405"),
        ("GET /v1/watch?group=canary&after=canary", "400"),
    ] {
        assert!(status(&url, head).contains(answer), "{head}");
    }
    let mut stream = begin(&url, "GET /v1/watch?group=canary", "", "");
    until(&mut stream, "event: ready");
    server.signal("TERM");
    until(&mut stream, "event: bye");
    let (_, _, errors) = server.end();
    assert!(!errors.to_lowercase().contains("canary"), "{errors}");
    for line in [
        "DEBUG answered method=\"PUT\" route=\"/v1/entry\" status=204 took=",
        "DEBUG answered method=\"PUT\" route=\"/v1/groups/{group}/keys/{key}\" status=204 took=",
        "DEBUG answered method=\"GET\" route=\"none\" status=404 took=",
        "DEBUG answered method=\"other\" route=\"/v1/stats\" status=405 took=",
    ] {
        assert_eq!(errors.matches(line).count(), 1, "{line} in {errors}");
    }
}

#[test]
fn a_new_file_has_the_durability_that_was_asked_for_and_an_old_one_must_have_it() {
    let sandbox = Sandbox::new();
    let serve = |how: &'static str| ["serve", "--listen", "127.0.0.1:0", "--durability", how];
    let mut server = sandbox.start(&serve("relaxed"));
    server.line();
    server.signal("TERM");
    assert_eq!(server.end().0.code(), Some(0));
    assert_eq!(sandbox.json(&["stats", "--json"])["durability"], "relaxed");
    let error = sandbox.fails(2, &serve("full"));
    assert!(error.contains("relaxed") && error.contains("leave the option out"), "{error}");
}

#[test]
fn a_place_that_holds_no_socket_is_told_from_a_server() {
    let sandbox = Sandbox::new();
    sandbox.file("taken", "mine");
    let serve = |socket: &'static str| ["--store", "app.db", "serve", "--listen", socket];
    let error = sandbox.fails(1, &serve("unix:taken"));
    assert_eq!(
        error,
        "unix:taken cannot be listened on: a file is there; move it away, or name another socket with --listen"
    );
    assert_eq!(std::fs::read_to_string(sandbox.path("taken")).unwrap(), "mine");
}

/// What may be done with a socket is decided before anybody can find it.
#[cfg(target_os = "linux")]
#[test]
fn a_unix_socket_is_its_owners_from_the_beginning() {
    let sandbox = Sandbox::new();
    let served = sandbox.command(&["--store", "app.db", "serve", "--listen", "unix:app.sock"]);
    let mut command = std::process::Command::new("sh");
    command.current_dir(sandbox.path("")).args([
        "-c",
        "umask 0; exec \"$@\"",
        "sh",
        "strace",
        "-f",
        "--seccomp-bpf",
        "-o",
        "trace",
    ]);
    command
        .args(["-e", "trace=chmod,fchmod,fchmodat,bind"])
        .arg(served.get_program())
        .args(served.get_args());
    let mut server = sandbox.start_command(&mut command);
    assert_eq!(server.line(), "unix:app.sock");
    let trace = std::fs::read_to_string(sandbox.path("trace")).unwrap();
    let mut calls = trace.lines().skip_while(|call| !call.contains("fchmod(") || !call.contains("0600"));
    let bind = calls.by_ref().find(|call| call.contains("bind(")).unwrap_or_else(|| panic!("{trace}"));
    assert!(bind.contains("\"app.sock\"") && calls.all(|call| !call.contains("chmod")), "{trace}");
}

#[test]
fn tls_of_its_own_is_named_and_wrong_files_end_it_at_once() {
    let sandbox = Sandbox::new();
    let mut server: Running = sandbox.start(&["serve", "--listen", "127.0.0.1:0", "--tls-self", "--json"]);
    let started = server.json();
    let text = |name: &str| started.get(name).and_then(serde_json::Value::as_str).unwrap();
    assert!(text("url").starts_with("https://127.0.0.1:"), "{started}");
    assert!(text("certificate").starts_with("SHA256:"), "{started}");
    server.signal("TERM");
    assert_eq!(server.end().0.code(), Some(0));

    let empty = sandbox.file("empty.pem", "");
    for (files, named) in [
        (["--tls-cert", "none.pem", "--tls-key", &empty], "none.pem cannot be used"),
        (["--tls-cert", &empty, "--tls-key", &empty], "BEGIN CERTIFICATE"),
    ] {
        let mut args = vec!["serve", "--listen", "127.0.0.1:0"];
        args.extend(files);
        let error = sandbox.fails(1, &args);
        assert!(error.contains(named), "{error}");
    }
    sandbox.fails(2, &["serve", "--tls-cert", &empty]);
    sandbox.fails(1, &["serve", "--tls-self", "--listen", "unix:socket"]);
}

#[test]
fn limits_are_said_at_the_start_and_descriptors_are_raised_for_them() {
    let sandbox = Sandbox::new();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--limit", "connections_per_address=7", "--json"];
    // A shell that allows few, in a process that may have more.
    let mut command = std::process::Command::new("sh");
    let watchkeep = sandbox.command(&[]);
    command.args(["-c", "ulimit -S -n 400; exec \"$0\" \"$@\""]).arg(watchkeep.get_program()).args(serve);
    command.current_dir(sandbox.path(""));
    let mut server: Running = sandbox.start_command(&mut command);
    let started = server.json();
    let number = |path: &str| started.pointer(path).and_then(serde_json::Value::as_u64).unwrap();
    assert_eq!(number("/limits/connections_per_address"), 7);
    // A part of the connections, like the default.
    assert_eq!(number("/limits/connections_per_token"), number("/limits/connections").div_ceil(4) * 3);
    assert_eq!(number("/descriptors/before"), 400);
    assert!(number("/descriptors/now") > 400, "{started}");
    let most = number("/limits/connections");
    assert!(most > 144 && most < number("/descriptors/now"), "{started}");
    server.signal("TERM");
    assert_eq!(server.end().0.code(), Some(0));

    let error = sandbox.fails(2, &["serve", "--limit", "connection=7"]);
    assert!(error.contains("connections_per_address"), "{error}");
    for wrong in ["connections", "connections=0", "connections=many", "connections=1000000000"] {
        sandbox.fails(2, &["serve", "--limit", wrong]);
    }
    let twice = ["serve", "--limit", "websockets=7", "--limit", "websockets=8"];
    assert!(sandbox.fails(2, &twice).contains("--limit websockets is there twice"));
}

#[test]
fn a_limit_under_which_no_body_would_ever_be_taken_ends_it_at_once() {
    let sandbox = Sandbox::new();
    let fails = |limits: &[&str]| {
        let limits = limits.iter().flat_map(|limit| ["--limit", limit]);
        sandbox.fails(2, &["serve"].into_iter().chain(limits).collect::<Vec<_>>())
    };
    let error = fails(&["bytes_in_flight=1000000"]);
    assert!(error.contains("give 16777216 at the least"), "{error}");
    assert!(error.contains("--limit body_bytes=1000000"), "{error}");
    for limits in [&["body_bytes=300000000"][..], &["body_bytes=300000000", "bytes_in_flight=299999999"]] {
        let error = fails(limits);
        assert!(error.contains("give 300000000 at the least, or a smaller body_bytes"), "{error}");
    }
}

#[test]
fn a_host_without_sense_and_a_filter_of_the_log_without_sense_end_it_at_once() {
    let sandbox = Sandbox::new();
    for wrong in ["", "http://x", "x:80", "*", "a b"] {
        let error = sandbox.fails(2, &["serve", "--host", wrong]);
        assert!(error.contains("--host store.example"), "{wrong}: {error}");
    }
    let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
    let ended = command.env("WATCHKEEP_LOG", "debug,,,[").output().unwrap();
    let error = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(2) && error.contains("WATCHKEEP_LOG="), "{error}");
}

#[test]
fn pages_of_another_origin_are_named_one_by_one() {
    let sandbox = Sandbox::new();
    let args = ["serve", "--listen", "127.0.0.1:0", "--cors-origin", "https://a.example", "--cors-origin"];
    let mut server = sandbox.start(&[&args[..], &["http://localhost:5173"]].concat());
    let url = server.line();
    for (origin, expected) in
        [("https://a.example", "200"), ("http://localhost:5173", "200"), ("https://b.example", "403")]
    {
        let mut answer = begin(&url, "GET /v1/groups", &format!("Origin: {origin}\r\n"), "");
        until(&mut answer, &format!("HTTP/1.1 {expected}"));
    }
    server.signal("TERM");
    assert_eq!(server.end().0.code(), Some(0));
    for wrong in ["*", "null", "app.example.com", "https://app.example.com/"] {
        let error = sandbox.fails(2, &["serve", "--cors-origin", wrong]);
        assert!(error.contains("--cors-origin https://app.example.com"), "{wrong}: {error}");
    }
}

#[test]
fn the_log_names_the_client_for_whom_a_trusted_proxy_asks() {
    let sandbox = Sandbox::new();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--log", "debug", "--trusted-proxy"];
    for (net, client) in [("127.0.0.0/8", "192.0.2.1"), ("10.0.0.1", "127.0.0.1")] {
        let mut server = sandbox.start(&[&serve[..], &[net]].concat());
        let url = server.line();
        let forwarded = "X-Forwarded-For: 192.0.2.9, 192.0.2.1\r\n";
        until(&mut begin(&url, "GET /v1/groups", forwarded, ""), "HTTP/1.1 200");
        server.signal("TERM");
        let (_, _, errors) = server.end();
        assert_eq!(errors.matches(&format!("client={client}\n")).count(), 1, "{errors}");
    }
    for wrong in ["proxy.example", "0.0.0.0/0", "10.0.0.0/33"] {
        let error = sandbox.fails(2, &["serve", "--trusted-proxy", wrong]);
        assert!(error.contains("--trusted-proxy 10.1.0.0/16"), "{wrong}: {error}");
    }
}
