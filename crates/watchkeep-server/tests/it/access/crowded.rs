//! One token has so much under way at once, and others have their own.

use serde_json::json;
use watchkeep::Store;
use watchkeep_server::{Access, Grant, Limit, Rights};

use crate::bounds::{Bounded, bounded, names, until};
use crate::support::{Result, Stream};
use crate::support_entries::Answer;
use crate::support_ws::{Client, PROTOCOL};

const LIMIT: Limit = Limit::ConnectionsPerToken;

/// A server that asks for tokens, of each of which so much may be under way; and two tokens.
fn serve(most: u64) -> Result<(Bounded, [String; 2])> {
    let store = Store::open_in_memory()?;
    let access = Access::open(&store)?;
    let token = || access.create(Grant::new(Rights::ALL)).map(|created| created.secret().to_owned());
    let tokens = [token()?, token()?];
    Ok((bounded(&store, &[(LIMIT, most)], |server| server.ask_for_tokens(access))?, tokens))
}

fn ask(bounded: &Bounded, method: &str, target: &str, token: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    bounded.hub.ask(method, target, &headers, body.as_bytes())
}

#[test]
fn streams_requests_and_tickets_of_a_token_count_together() -> Result {
    let (bounded, [token, other]) = serve(2)?;
    let get = |target: &str, token: &str| ask(&bounded, "GET", target, token, "");
    let ticket = ask(&bounded, "POST", "/v1/tickets", &token, r#"{"group":"g"}"#).json();
    let by_ticket = format!("ticket={}", ticket["ticket"].as_str().ok_or("no ticket")?);
    let bearer = format!("Bearer {token}");
    let mut streams = [
        Stream::open(bounded.hub.address, "group=g", &[("Authorization", &bearer)])?,
        Stream::open(bounded.hub.address, &by_ticket, &[])?,
    ];
    for stream in &mut streams {
        stream.upto("ready")?;
    }
    for (method, target) in
        [("GET", "/v1/groups"), ("PUT", "/v1/entry?group=g&key=k"), ("GET", "/v1/changes")]
    {
        let answer = ask(&bounded, method, target, &token, "");
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")), "{target}");
        names(&answer, LIMIT);
    }
    for target in ["/v1/watch?group=g", &format!("/v1/watch?{by_ticket}")] {
        let answer = get(target, &token);
        assert_eq!(answer.status, 200, "{target}");
        assert!(
            answer.text().contains("event: trouble") && answer.text().contains(LIMIT.name()),
            "{answer:?}"
        );
    }
    assert_eq!(bounded.times(LIMIT), 5);
    let metrics = get("/metrics", &token);
    let line = format!("watchkeep_limits_reached_total{{limit=\"{LIMIT}\"}} 5");
    assert!(metrics.status == 200 && metrics.text().contains(&line), "{metrics:?}");
    assert_eq!(get("/v1/groups", &other).status, 200);
    let [first, second] = streams;
    for stream in [second, first] {
        drop(stream);
        bounded.until(200, |_| get("/v1/groups", &token))?;
    }
    Ok(())
}

#[test]
fn a_websocket_counts_once_it_has_said_who_it_is() -> Result {
    let (bounded, [token, other]) = serve(1)?;
    let status = |token: &str| ask(&bounded, "GET", "/v1/groups", token, "").status;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let address = bounded.hub.address.to_string();
        let open = async || Client::open(&address, "/v1/ws", &[PROTOCOL]).await.unwrap();
        let mut first = open().await;
        assert_eq!(status(&token), 200);
        let auth = |token: &str| json!({ "type": "auth", "id": "a", "token": token });
        assert_eq!(first.ask(auth(&token)).await["type"], "done");
        assert_eq!(status(&token), 429);
        // It may say it again, and counts once.
        assert_eq!(first.ask(auth(&token)).await["type"], "done");
        let refused = open().await.ask(auth(&token)).await;
        assert_eq!((&refused["type"], &refused["kind"]), (&"error".into(), &"too_many_connections".into()));
        assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains(LIMIT.name())), "{refused}");
        let bearer = format!("Bearer {token}");
        let with_header = Client::open(&address, "/v1/ws", &[PROTOCOL, ("authorization", &bearer)]).await;
        assert_eq!(with_header.err().map(|answer| answer.status().as_u16()), Some(429));
        // With another token it counts for that one.
        assert_eq!(first.ask(auth(&other)).await["type"], "done");
        assert_eq!((status(&token), status(&other)), (200, 429));
        drop(first);
        until(|| Ok((status(&other) == 200).then_some(())))?;
        Ok(())
    })
}

#[test]
fn where_nobody_is_asked_nothing_is_counted() -> Result {
    let store = Store::open_in_memory()?;
    let access = Access::open(&store)?;
    let bounded = bounded(&store, &[(LIMIT, 1)], |server| server.ask_for_tokens(access))?;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = Stream::open(bounded.hub.address, "group=g", &[("Authorization", "Bearer wk_x")])?;
        stream.upto("ready")?;
        streams.push(stream);
    }
    assert_eq!((bounded.hub.get("/v1/groups").status, bounded.times(LIMIT)), (200, 0));
    Ok(())
}
