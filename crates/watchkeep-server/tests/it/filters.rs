//! Filters are memory that a client holds for as long as it likes, so all together are bounded.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;

use serde_json::{Value, json};
use watchkeep::Store;
use watchkeep_server::Limit;

use crate::bounds::{Bounded, bounded, names, until};
use crate::support::Result;
use crate::support_entries::encoded;
use crate::support_tls::block_on;
use crate::support_ws::{Client, PROTOCOL};

/// Room for one union of this many, and not for two.
const MANY: usize = 16;
const ROOM: u64 = 20_000;

/// A union of filters that no other has.
fn union(of: &str) -> String {
    let filters: Vec<_> = (0..MANY).map(|number| json!({ "group": format!("{of}-{number}") })).collect();
    Value::from(filters).to_string()
}

fn subscribe(id: &str) -> Value {
    json!({ "type": "subscribe", "id": id, "any": union(id) })
}

/// A stream, if it begins with this mark.
fn begins_with(bounded: &Bounded, mark: &str) -> Result<Option<TcpStream>> {
    let target = format!("/v1/watch?any={}", encoded(&union("s")));
    let mut lines = BufReader::new(bounded.hub.begin("GET", &target, &[], b"").into_stream());
    let mut line = String::new();
    while !line.starts_with("event: ") {
        line.clear();
        assert_ne!(lines.read_line(&mut line)?, 0, "it has no mark");
    }
    Ok((line.trim_end() == format!("event: {mark}")).then(|| lines.into_inner()))
}

#[test]
fn the_filters_of_all_who_watch_are_bounded_and_in_nobodys_way() -> Result {
    let store = Store::open_in_memory()?;
    let bounded = bounded(&store, &[(Limit::BytesInFlight, ROOM)], |server| server)?;
    let poll = format!("/v1/changes?wait=1ms&any={}", encoded(&union("p")));
    block_on(async {
        let mut client = Client::open(&bounded.hub.address.to_string(), "/v1/ws", &[PROTOCOL]).await.unwrap();
        assert_eq!(client.ask(subscribe("a")).await["type"], "ready");
        let refused = client.ask(subscribe("b")).await;
        assert_eq!(
            (&refused["kind"], &refused["limit"]),
            (&json!("too_many_bytes"), &json!("bytes_in_flight"))
        );
        assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("filters")), "{refused}");
        // What ended gives its room back before the next message is looked at.
        for (end, next) in [("a", "b"), ("b", "c"), ("c", "d")] {
            client.say(json!({ "type": "unsubscribe", "id": end })).await;
            client.say(subscribe(next)).await;
            client.expect("done", end).await;
            client.expect("ready", next).await;
        }
        assert!(begins_with(&bounded, "trouble")?.is_some());
        let refused = bounded.hub.get(&poll);
        assert_eq!(refused.refusal(), (503, "too_many_bytes".to_owned()));
        names(&refused, Limit::BytesInFlight);
        // Bodies have room of their own.
        let body = vec![b'x'; usize::try_from(ROOM)? - 1];
        assert_eq!(bounded.hub.put("/v1/entry?group=g&key=k", body).status, 204);
        Ok(())
    })?;
    // The WebSocket is closed: a stream takes its room, and gives it back in its turn.
    let stream = until(|| begins_with(&bounded, "ready"))?;
    assert_eq!(bounded.hub.get(&poll).status, 503);
    drop(stream);
    bounded.until(200, |hub| hub.get(&poll))?;
    Ok(())
}
