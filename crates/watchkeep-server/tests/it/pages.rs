//! Pages of other origins, in a browser: those that are named may use the store, and no other.

use std::io::{BufRead, BufReader};

use serde_json::Value;
use watchkeep::Store;
use watchkeep_server::{Access, Grant, Limit, Limits, Rights, Server};

use crate::access::UPGRADE;
use crate::support::Result;
use crate::support_entries::Hub;

const ORIGIN: (&str, &str) = ("Origin", "https://app.example.com");
/// What a browser says besides, of a page elsewhere.
const CROSS_SITE: (&str, &str) = ("Sec-Fetch-Site", "cross-site");

/// A server that asks for tokens and is open to pages of one origin, and a token.
fn serve(set_up: impl FnOnce(Server) -> Server) -> Result<(Hub, String)> {
    let store = Store::open_in_memory()?;
    let access = Access::open(&store)?;
    let token = format!("Bearer {}", access.create(Grant::new(Rights::ALL))?.secret());
    let pages = [ORIGIN.1.parse()?];
    let hub = Hub::with(&store, |server| set_up(server.ask_for_tokens(access).pages(pages)));
    Ok((hub, token))
}

/// The head of an answer: the status, and the headers in small letters, but for their values.
fn head(hub: &Hub, method: &str, target: &str, headers: &[(&str, &str)]) -> Result<(String, Vec<String>)> {
    let mut from = BufReader::new(hub.begin(method, target, headers, b"").into_stream());
    let (mut lines, mut line) = (Vec::new(), String::new());
    while from.read_line(&mut line)? > 2 {
        lines.push(std::mem::take(&mut line).trim_end().to_owned());
    }
    let status = lines.remove(0).split(' ').nth(1).ok_or("no status")?.to_owned();
    let small = |line: &String| {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        format!("{}: {value}", name.to_ascii_lowercase())
    };
    Ok((status, lines.iter().map(small).collect()))
}

fn listed(headers: &[String], name: &str) -> Vec<String> {
    let values = headers.iter().filter_map(|header| header.strip_prefix(name)?.strip_prefix(": "));
    values.flat_map(|list| list.split(", ")).map(str::to_ascii_lowercase).collect()
}

#[test]
fn every_answer_to_a_page_that_was_named_may_be_seen_by_it_and_no_other() -> Result {
    let (hub, token) = serve(|server| server)?;
    let bearer = ("Authorization", token.as_str());
    assert_eq!(hub.ask("PUT", "/v1/entry?group=g&key=k", &[bearer, ORIGIN], b"v").status, 204);
    let upgrade = &UPGRADE[..];
    for (what, headers, expected) in [
        ("GET /v1/entry?group=g&key=k", &[bearer][..], "200"),
        ("GET /v1/entry?group=g&key=k", &[bearer, ("If-None-Match", "*")], "304"),
        ("GET /v1/entry?group=g&key=none", &[bearer], "404"),
        ("DELETE /v1/entry?group=g&key=none", &[bearer], "404"),
        ("GET /v1/entry?group=g&key=k", &[], "401"),
        ("GET /v1/entry?group=g", &[bearer], "400"),
        ("POST /v1/entry?group=g", &[bearer], "405"),
        ("GET /v1/watch?group=g", &[bearer], "200"),
        ("GET /metrics", &[bearer], "200"),
        ("GET /nothing", &[], "404"),
        ("GET /", &[], "200"),
        ("GET /v1/ws", upgrade, "101"),
    ] {
        let (method, target) = what.split_once(' ').ok_or("no method")?;
        let (status, shown) = head(&hub, method, target, &[headers, &[ORIGIN, CROSS_SITE]].concat())?;
        assert_eq!(status, expected, "{what}");
        assert_eq!(listed(&shown, "access-control-allow-origin"), [ORIGIN.1], "{what}");
        assert!(listed(&shown, "vary").contains(&"origin".to_owned()), "{what}: {shown:?}");
        assert!(listed(&shown, "access-control-expose-headers").contains(&"etag".to_owned()), "{what}");
        assert!(!shown.iter().any(|header| header.contains("credentials")), "{what}: {shown:?}");
        // What is kept for one page is not for another.
        let (_, own) = head(&hub, method, target, headers)?;
        assert!(listed(&own, "vary").contains(&"origin".to_owned()), "{what}: {own:?}");
        assert_eq!(listed(&own, "access-control-allow-origin"), [""; 0], "{what}");
        for stranger in ["https://app.example.com.evil.example", "http://app.example.com", "null"] {
            let asked = [headers, &[("Origin", stranger)]].concat();
            let (status, shown) = head(&hub, method, target, &asked)?;
            assert_eq!(status, "403", "{what} {stranger}");
            assert_eq!(listed(&shown, "access-control-allow-origin"), [""; 0], "{what} {stranger}");
        }
        // A picture or a form of the page that was named says nothing of its origin.
        assert_eq!(head(&hub, method, target, &[headers, &[CROSS_SITE]].concat())?.0, "403", "{what}");
    }
    Ok(())
}

#[test]
fn what_is_over_a_limit_is_shown_too() -> Result {
    let (hub, _) = serve(|server| server.limits(Limits::default().with(Limit::RequestsPerSecond, 1)))?;
    let begun = std::time::Instant::now();
    loop {
        let (status, shown) = head(&hub, "GET", "/v1/groups", &[ORIGIN])?;
        assert_eq!(listed(&shown, "access-control-allow-origin"), [ORIGIN.1]);
        if status == "429" {
            assert!(listed(&shown, "access-control-expose-headers").contains(&"retry-after".to_owned()));
            // Without this answer a browser would show the page none of the refusal.
            let preflight = [ORIGIN, ("Access-Control-Request-Method", "PUT")];
            assert_eq!(head(&hub, "OPTIONS", "/v1/groups", &preflight)?.0, "204");
            return Ok(());
        }
        assert!(begun.elapsed() < crate::support::LIMIT, "it is never too often: {status}");
    }
}

#[test]
fn a_browser_learns_without_a_token_what_may_be_asked_where() -> Result {
    let (hub, _) = serve(|server| server)?;
    let preflight = [ORIGIN, CROSS_SITE, ("Access-Control-Request-Method", "PUT")];
    for (target, methods) in [
        ("/v1/entry?group=g&key=k", &["get", "head", "put", "patch", "delete"][..]),
        ("/v1/groups/g/keys/k", &["get", "head", "put", "patch", "delete"]),
        ("/v1/group?group=g", &["get", "head", "delete"]),
        ("/v1/groups", &["get", "head"]),
        ("/v1/watch?ticket=wt_none", &["get", "head"]),
        ("/v1/tickets", &["post"]),
        ("/metrics", &["get", "head"]),
        ("/", &["get", "head"]),
    ] {
        let (status, told) = head(&hub, "OPTIONS", target, &preflight)?;
        assert_eq!(status, "204", "{target}");
        assert_eq!(listed(&told, "access-control-allow-methods"), methods, "{target}");
        assert_eq!(listed(&told, "access-control-allow-origin"), [ORIGIN.1], "{target}");
        assert_eq!(listed(&told, "access-control-max-age"), ["7200"], "{target}");
        assert!(!told.iter().any(|header| header.contains("credentials")), "{target}: {told:?}");
        // No preflight: no page asks, or one that may not.
        assert_eq!(head(&hub, "OPTIONS", target, &[ORIGIN])?.0, "405", "{target}");
        let stranger = [("Origin", "https://evil.example"), preflight[2]];
        assert_eq!(head(&hub, "OPTIONS", target, &stranger)?.0, "403", "{target}");
    }
    assert_eq!(head(&hub, "OPTIONS", "/nothing", &preflight)?.0, "404");
    Ok(())
}

#[test]
fn pages_may_send_and_see_each_header_that_the_document_has() -> Result {
    let (hub, _) = serve(|server| server)?;
    let document = hub.get("/v1/openapi.json").json();
    let operations = document["paths"].as_object().ok_or("no paths")?.values();
    let operations: Vec<&Value> =
        operations.filter_map(Value::as_object).flat_map(|item| item.values()).collect();
    let sent =
        operations.iter().flat_map(|operation| operation["parameters"].as_array().into_iter().flatten());
    let sent = sent.filter(|parameter| parameter["in"] == "header");
    let sent = sent.filter_map(|parameter| parameter["name"].as_str()).filter(|name| {
        // A browser sets it by itself.
        !name.starts_with("Sec-WebSocket")
    });
    let answers = operations.iter().filter_map(|operation| operation["responses"].as_object());
    let seen =
        answers.flat_map(|answers| answers.values()).filter_map(|answer| answer["headers"].as_object());
    let seen = seen.flat_map(|headers| headers.keys());
    let preflight = [ORIGIN, ("Access-Control-Request-Method", "PUT")];
    let (_, told) = head(&hub, "OPTIONS", "/v1/entry", &preflight)?;
    let (may_send, may_see) =
        (listed(&told, "access-control-allow-headers"), listed(&told, "access-control-expose-headers"));
    for name in sent.chain(["Authorization", "Content-Type", "Range"]) {
        assert!(may_send.contains(&name.to_ascii_lowercase()), "{name} is not in {may_send:?}");
    }
    let mut many = 0;
    for name in seen.map(String::as_str).chain(["Retry-After", "Content-Range"]) {
        assert!(may_see.contains(&name.to_ascii_lowercase()), "{name} is not in {may_see:?}");
        many += 1;
    }
    assert!(many > 4, "the document has no headers");
    Ok(())
}

#[test]
fn a_server_that_names_no_page_says_nothing_of_origins() -> Result {
    let hub = Hub::over(&Store::open_in_memory()?);
    let (status, shown) = head(&hub, "GET", "/v1/groups", &[])?;
    assert_eq!((status.as_str(), listed(&shown, "vary")), ("200", vec!["authorization".to_owned()]));
    assert!(!shown.iter().any(|header| header.starts_with("access-control")), "{shown:?}");
    let preflight = [ORIGIN, ("Access-Control-Request-Method", "PUT")];
    assert_eq!(head(&hub, "OPTIONS", "/v1/groups", &preflight)?.0, "403");
    Ok(())
}
