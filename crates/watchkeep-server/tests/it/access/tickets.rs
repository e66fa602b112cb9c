//! Tickets, for a client that has no headers.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use watchkeep::{ManualClock, Options, Store, Timestamp};
use watchkeep_server::{Access, Created, Grant, Rights};

use super::{Guarded, is_unauthorized};
use crate::support::{Result, Stream};
use crate::support_entries::Answer;

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn watcher(guarded: &Guarded) -> Result<Created> {
    Ok(guarded.access.create(Grant::new(Rights { watch: true, ..Rights::NONE }).namespace("n"))?)
}

fn sell(guarded: &Guarded, token: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [&[("Authorization", bearer.as_str())], headers].concat();
    guarded.hub.ask("POST", "/v1/tickets", &headers, body.to_string().as_bytes())
}

fn ticket(guarded: &Guarded, token: &str, body: &Value) -> Result<String> {
    let answer = sell(guarded, token, &[JSON], body);
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{answer:?}");
    Ok(answer.json()["ticket"].as_str().ok_or("no ticket")?.to_owned())
}

#[test]
fn a_ticket_opens_its_watch_and_ends_with_its_token() -> Result {
    let guarded = Guarded::start()?;
    let token = watcher(&guarded)?;
    let ticket = ticket(&guarded, token.secret(), &json!({ "group": "g", "snapshot": "auto" }))?;
    guarded.store.set("n:g", "k", "ours")?;
    guarded.store.set("g", "k", "not ours")?;
    let address = guarded.hub.address;
    let mut streams = Vec::new();
    // Alone, with what it is for, and as often as a client comes back.
    for query in ["", "&group=g&snapshot=auto", "&snapshot=auto&group=g", "&after="] {
        let mut stream = Stream::open(address, &format!("ticket={ticket}{query}"), &[])?;
        let (frames, _) = stream.upto("ready")?;
        let values: Vec<_> = frames.iter().filter(|frame| frame.event.is_empty()).collect();
        assert_eq!((values.len(), &values[0].data["value"]), (1, &"ours".into()));
        streams.push(stream);
    }
    for query in ["&group=h", "&group=g", "&group=g&snapshot=auto&values=none", "&snapshot=never"] {
        let answer = guarded.hub.get(&format!("/v1/watch?ticket={ticket}{query}"));
        assert_eq!(answer.refusal(), (403, "forbidden".to_owned()), "{query}");
    }
    assert!(guarded.access.revoke(&token.token.id)?);
    for mut stream in streams {
        assert_eq!(stream.upto("bye")?.1.data["reason"], "revoked");
    }
    is_unauthorized(&guarded.hub.get(&format!("/v1/watch?ticket={ticket}")), "its token is gone");
    Ok(())
}

#[test]
fn a_ticket_opens_nothing_else() -> Result {
    let guarded = Guarded::start()?;
    let ticket = ticket(&guarded, watcher(&guarded)?.secret(), &json!({}))?;
    for (method, target) in super::operations(&guarded.hub) {
        let is_watch = target.starts_with("/v1/watch");
        if !is_watch {
            let answer = guarded.hub.ask(&method, &format!("{target}&ticket={ticket}"), &[], b"");
            assert!(matches!(answer.status, 400 | 401 | 426), "{method} {target}: {answer:?}");
        }
        is_unauthorized(&guarded.ask(&method, &target, &ticket), &format!("{method} {target} as a token"));
    }
    for bad in ["", "wt_", &ticket[..50], &ticket.replacen("wt_", "wk_", 1)] {
        let answer = guarded.hub.get(&format!("/v1/watch?ticket={bad}"));
        is_unauthorized(&answer, bad);
    }
    Ok(())
}

#[test]
fn a_ticket_that_nobody_bears_ends() -> Result {
    let store = Store::open_in_memory()?;
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
    let access = Access::open_with(&store, Options::new().clock(clock.clone()))?;
    let guarded = Guarded::over(store, access)?;
    let ticket = ticket(&guarded, watcher(&guarded)?.secret(), &json!({}))?;
    let target = format!("/v1/watch?ticket={ticket}");
    let nowhere = format!("{target}&after=nowhere");
    assert_eq!(guarded.hub.get(&nowhere).status, 400);
    clock.advance(Duration::from_secs(6 * 60));
    is_unauthorized(&guarded.hub.get(&target), "it ended");
    Ok(())
}

#[test]
fn a_ticket_is_for_the_origin_that_it_was_made_for() -> Result {
    let guarded = Guarded::start()?;
    let port = guarded.hub.address.port();
    let (ours, theirs) = (format!("http://127.0.0.1:{port}"), format!("http://localhost:{port}"));
    let answer = sell(
        &guarded,
        watcher(&guarded)?.secret(),
        &[JSON, ("Origin", &ours)],
        &json!({ "snapshot": "auto" }),
    );
    let ticket = answer.json()["ticket"].as_str().ok_or("no ticket")?.to_owned();
    // A page of its own origin, which names itself or not.
    for headers in [&[("Origin", ours.as_str())][..], &[]] {
        Stream::open(guarded.hub.address, &format!("ticket={ticket}"), headers)?.upto("ready")?;
    }
    let host = format!("localhost:{port}");
    let mut head = std::net::TcpStream::connect(guarded.hub.address)?;
    use std::io::{Read as _, Write as _};
    write!(
        head,
        "GET /v1/watch?ticket={ticket} HTTP/1.1\r\nHost: {host}\r\nOrigin: {theirs}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    head.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("another origin"), "{answer}");
    let foreign = [("Origin", "http://evil.example")];
    assert_eq!(guarded.hub.ask("GET", &format!("/v1/watch?ticket={ticket}"), &foreign, b"").status, 403);
    Ok(())
}

#[test]
fn only_json_that_makes_a_watch_makes_a_ticket() -> Result {
    let guarded = Guarded::start()?;
    let token = watcher(&guarded)?;
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp"]
    {
        let answer = sell(&guarded, token.secret(), &[("Content-Type", kind)], &json!({}));
        assert_eq!(answer.status, 415, "{kind}");
    }
    for body in [
        json!([]),
        json!({ "group": 1 }),
        json!({ "nonsense": "x" }),
        json!({ "after": "x" }),
        json!({ "key_prefix": "x" }),
    ] {
        assert_eq!(sell(&guarded, token.secret(), &[JSON], &body).status, 400, "{body}");
    }
    Ok(())
}

#[test]
fn what_asks_for_a_ticket_names_each_field_once_and_is_short() -> Result {
    let guarded = Guarded::start()?;
    let token = watcher(&guarded)?;
    let bearer = format!("Bearer {}", token.secret());
    let headers = [JSON, ("Authorization", bearer.as_str())];
    let refused = |body: &str| guarded.hub.ask("POST", "/v1/tickets", &headers, body.as_bytes()).refusal();
    let invalid = (400, "invalid_argument".to_owned());
    assert_eq!(refused(r#"{"group":"a","group":"b"}"#), invalid);
    assert_eq!(refused(r#"{"group":7}"#), invalid);
    assert_eq!(refused("[]"), invalid);
    let long = json!({ "group": "g".repeat(16 << 10) }).to_string();
    assert_eq!(refused(&long), (413, "too_large".to_owned()));
    Ok(())
}
