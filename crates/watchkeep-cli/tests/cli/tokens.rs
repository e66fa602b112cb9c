//! `token`, and `serve` where tokens are.

use std::io::{BufRead, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::json;

use crate::http::{LIMIT, begin};
use crate::sandbox::Sandbox;

fn answer(url: &str, head: &str, headers: &str, body: &str) -> String {
    let mut answer = String::new();
    begin(url, head, headers, body).read_to_string(&mut answer).unwrap();
    answer
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[test]
fn a_token_is_printed_once_listed_without_its_secret_and_revoked() {
    let sandbox = Sandbox::new();
    sandbox.fails(2, &["token", "create"]);
    sandbox.fails(2, &["token", "create", "--ttl", "1h", "--label", "nothing"]);
    sandbox.fails(3, &["token", "list"]);
    sandbox.fails(2, &["--namespace", "no:name", "token", "create", "--read"]);
    sandbox.ok(&["set", "g", "k", "v"]);
    assert_eq!(sandbox.ok(&["token", "list"]), "");
    sandbox.fails(3, &["token", "revoke", "0123456789abcdef"]);
    assert!(!sandbox.path("watchkeep.db-access").exists());

    let token = sandbox.ok(&["token", "create", "--read", "--watch", "--label", "dash\u{1b}board"]);
    let token = token.trim_end();
    assert!(token.starts_with("wk_") && token.len() == 51 && !token.contains('\n'), "{token:?}");
    let made = sandbox.json(&["--json", "--namespace", "n", "token", "create", "--write", "--ttl", "30d"]);
    assert_eq!((&made["namespace"], &made["rights"]), (&json!("n"), &json!(["write"])));
    let listed = sandbox.json_lines(&["--json", "token", "list"]);
    assert_eq!(listed.len(), 2);
    let id = |namespace: serde_json::Value| {
        let token = listed.iter().find(|token| token["namespace"] == namespace).unwrap();
        token["id"].as_str().unwrap().to_owned()
    };
    assert_eq!(json!(id(json!("n"))), made["id"]);
    assert!(listed.iter().any(|token| token["expires"].is_string()));
    for list in [sandbox.ok(&["token", "list"]), sandbox.ok(&["--json", "token", "list"])] {
        assert!(!list.contains(token) && !list.contains(made["token"].as_str().unwrap()), "{list}");
        assert!(!list.contains('\u{1b}') && list.contains("watch"), "{list:?}");
    }
    // Within a namespace, only its own are there.
    assert_eq!(sandbox.json_lines(&["--json", "--namespace", "n", "token", "list"]).len(), 1);
    sandbox.fails(3, &["--namespace", "n", "token", "revoke", &id(json!(null))]);
    let error = sandbox.fails(3, &["token", "revoke", token]);
    assert!(!error.contains(token), "{error}");
    sandbox.ok(&["token", "revoke", &id(json!(null))]);
    sandbox.fails(3, &["token", "revoke", &id(json!(null))]);
    assert_eq!(sandbox.json_lines(&["--json", "token", "list"]).len(), 1);

    for file in std::fs::read_dir(sandbox.path("")).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", file.path());
    }
}

#[test]
fn a_server_that_requires_tokens_lets_nobody_in_without_one_even_where_their_file_was_lost() {
    let sandbox = Sandbox::new();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--require-token"];
    for is_lost in [false, true] {
        if is_lost {
            for suffix in ["", "-wal", "-shm", "-wake"] {
                let _ = std::fs::remove_file(sandbox.path(&format!("watchkeep.db-access{suffix}")));
            }
        }
        let mut server = sandbox.start(&serve);
        let url = server.line();
        assert!(answer(&url, "GET /v1/groups", "", "").starts_with("HTTP/1.1 401"));
        let token = sandbox.ok(&["token", "create", "--read"]);
        assert!(answer(&url, "GET /v1/groups", &bearer(token.trim_end()), "").starts_with("HTTP/1.1 200"));
        server.signal("TERM");
        let (status, _, error) = server.end();
        assert_eq!(status.code(), Some(0));
        assert!(error.contains("there is no token, so nobody gets in"), "{error}");
    }
}

#[test]
fn revoking_at_the_shell_ends_a_stream_of_a_server_that_runs() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.start(&["serve", "--listen", "127.0.0.1:0"]);
    let url = server.line();
    assert!(answer(&url, "GET /v1/groups", "", "").starts_with("HTTP/1.1 200"));
    let made = sandbox.json(&["--json", "token", "create", "--watch"]);
    let bearer = bearer(made["token"].as_str().unwrap());
    let mut stream = begin(&url, "GET /v1/watch?snapshot=auto", &bearer, "");
    let mut until = |start: &str| loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "it ended before {start:?}");
        if line.starts_with(start) {
            break;
        }
    };
    until("event: ready");
    sandbox.ok(&["token", "revoke", made["id"].as_str().unwrap()]);
    until("event: bye");
    until("data: {\"reason\":\"revoked\"}");
    assert!(answer(&url, "GET /v1/watch", &bearer, "").starts_with("HTTP/1.1 401"));
    assert!(answer(&url, "GET /v1/groups", "", "").starts_with("HTTP/1.1 401"));
    server.signal("TERM");
    let (status, _, errors) = server.end();
    assert_eq!(status.code(), Some(0), "{errors}");
}

#[test]
fn no_secret_reaches_the_output_of_a_server_however_much_it_says() {
    let sandbox = Sandbox::new();
    let token = sandbox.ok(&["token", "create", "--read", "--write", "--watch", "--inspect"]);
    let token = token.trim_end();
    let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("RUST_LOG", "trace").env("WATCHKEEP_LOG", "trace").stdout(Stdio::piped());
    let mut server = sandbox.start_command(&mut command);
    let url = server.line();
    let json = "Content-Type: application/json\r\n";
    let sold = answer(&url, "POST /v1/tickets", &(bearer(token) + json), r#"{"group":"canary"}"#);
    let ticket = sold.split('"').find(|word| word.starts_with("wt_")).unwrap().to_owned();
    let mistyped = format!("{token}x");
    let mut seen = String::new();
    for (head, headers) in [
        ("GET /v1/groups".to_owned(), bearer(token)),
        ("GET /v1/groups".to_owned(), bearer(&mistyped)),
        (format!("GET /v1/groups?token={token}"), String::new()),
        (format!("GET /v1/groups?group={token}"), bearer(token)),
        (format!("GET /v1/watch?ticket={ticket}&group=other"), String::new()),
        (format!("GET /v1/watch?ticket={ticket}&after=nowhere"), String::new()),
        (format!("GET /v1/watch?ticket={ticket}x"), String::new()),
        (format!("GET /v1/nowhere?ticket={ticket}&token={token}"), String::new()),
        (format!("BREW /v1/groups?ticket={ticket}"), bearer(token)),
        (format!("GET /v1/groups?{token}\u{1}"), bearer(token)),
    ] {
        seen += &answer(&url, &head, &headers, "");
    }
    let mut stream = begin(&url, &format!("GET /v1/watch?ticket={ticket}&after="), "", "");
    let mut line = String::new();
    while !line.starts_with("event: ready") {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0);
    }
    drop(stream);
    server.signal("TERM");
    let (status, output, errors) = server.end();
    assert_eq!(status.code(), Some(0), "{errors}");
    // Without their prefixes, so that no encoding of those hides them.
    for secret in [&token[3..], &ticket[3..], "canary"] {
        for said in [&seen, &output, &errors] {
            assert!(!said.contains(secret), "{secret} is in {said}");
        }
    }
    assert!(errors.contains("connection"), "it says little: {errors}");
}

#[test]
fn a_server_that_others_reach_needs_tokens_and_tls_or_the_word_of_its_owner() {
    let sandbox = Sandbox::new();
    let everywhere = ["serve", "--listen", "0.0.0.0:0"];
    let error = sandbox.fails(2, &everywhere);
    assert!(error.contains("neither tokens nor TLS") && error.contains("--insecure-listen"), "{error}");
    sandbox.ok(&["token", "create", "--read"]);
    let error = sandbox.fails(2, &everywhere);
    assert!(error.contains("in the clear: give --tls-cert"), "{error}");
    let mut server = sandbox.start(&["serve", "--listen", "0.0.0.0:0", "--tls-self"]);
    assert!(server.line().starts_with("https://0.0.0.0:"));
    server.signal("TERM");
    assert_eq!(server.end().0.code(), Some(0));
}

#[test]
fn a_server_answers_under_the_names_that_it_was_given() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.start(&["serve", "--listen", "127.0.0.1:0", "--host", "store.example"]);
    let url = server.line();
    let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix('/')).unwrap();
    let status = |host: &str| {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        write!(socket, "GET /v1/groups HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(status("store.example"), "200");
    assert_eq!(status(address), "200");
    assert_eq!(status("other.example"), "403");
    server.signal("TERM");
    assert_eq!(server.end().0.code(), Some(0));
}
