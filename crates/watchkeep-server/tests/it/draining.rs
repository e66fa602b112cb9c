//! A server that ends over a time, because another one takes over.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use watchkeep::Store;
use watchkeep_server::{Grant, Rights};

use crate::access::Guarded;
use crate::support::{LIMIT, Result, Stream};
use crate::support_entries::Hub;
use crate::support_ws::{Client, PROTOCOL};

/// Far longer than a test takes: nothing ends because the time is over.
const LONG: Duration = Duration::from_secs(3_600);

#[test]
fn while_it_drains_it_is_not_ready_and_still_answers() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    assert_eq!(hub.get("/readyz").status, 200);
    let mut stream = Stream::open(hub.address, "group=g", &[])?;
    stream.upto("ready")?;
    hub.drain(LONG);
    assert_eq!(hub.get("/readyz").refusal(), (503, "draining".to_owned()));
    assert_eq!(hub.get("/healthz").status, 200);
    // Each on a connection of its own, whatever the client asks for: its next request goes elsewhere.
    let kept = hub.ask("PUT", "/v1/entry?group=g&key=k", &[("Connection", "keep-alive")], b"v");
    assert_eq!((kept.status, kept.header("connection")), (204, Some("close")));
    assert_eq!(stream.changes(1)?[0].data["value"], "v");
    let mut late = Stream::open(hub.address, "group=g", &[])?;
    late.upto("ready")?;

    hub.close();
    for stream in [&mut stream, &mut late] {
        assert_eq!(stream.upto("bye")?.1.data, json!({ "reason": "ending" }));
        assert_eq!(stream.next()?, None);
    }
    Ok(())
}

#[test]
fn streams_leave_one_by_one_and_those_that_are_left_miss_nothing() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let ((tell, told), (tell_change, change)) = (mpsc::channel(), mpsc::channel());
    let readers: Vec<_> = (0..60)
        .map(|_| {
            let mut stream = Stream::open(hub.address, "group=g", &[])?;
            stream.upto("ready")?;
            let (tell, tell_change) = (tell.clone(), tell_change.clone());
            Ok(std::thread::spawn(move || -> Result<usize> {
                let mut changes = 0;
                loop {
                    let frame = stream.need()?;
                    match frame.event.as_str() {
                        "bye" => break,
                        "" if !frame.data.is_null() => {
                            changes += 1;
                            // The test is over when nobody listens, here and below.
                            let _ = tell_change.send(());
                        }
                        // A heartbeat: how long it waits is drawn.
                        _ => {}
                    }
                }
                let _ = tell.send(());
                assert_eq!(stream.next()?, None);
                Ok(changes)
            }))
        })
        .collect::<Result<_>>()?;
    // One leaves about each second.
    hub.drain(Duration::from_secs(60));
    told.recv_timeout(LIMIT)?;
    store.set("g", "k", "v")?;
    // An end at once is an end: it does not wait for what was just written.
    for _ in 0..30 {
        change.recv_timeout(LIMIT)?;
    }
    hub.close();
    let mut seen = Vec::new();
    for reader in readers {
        seen.push(reader.join().map_err(|_| "a reader panicked")??);
    }
    let with = seen.iter().filter(|changes| **changes == 1).count();
    assert!((30..60).contains(&with) && seen.iter().all(|changes| *changes <= 1), "{seen:?}");
    Ok(())
}

#[test]
fn a_websocket_leaves_as_a_whole_at_a_moment_of_its_own() -> Result {
    leave_one_by_one(&Hub::over(&Store::open_in_memory()?), None)?;
    // One that said only later who it is, and then once more, too.
    let guarded = Guarded::start()?;
    let token = guarded.token(Grant::new(Rights::ALL))?;
    leave_one_by_one(&guarded.hub, Some(&token))
}

fn leave_one_by_one(hub: &Hub, token: Option<&str>) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut leaving = JoinSet::new();
        for _ in 0..20 {
            let mut client = Client::open(&hub.address.to_string(), "/v1/ws", &[PROTOCOL]).await.unwrap();
            for token in token.into_iter().chain(token) {
                let said = client.ask(json!({ "type": "auth", "id": "who", "token": token })).await;
                assert_eq!(said["type"], "done", "{said}");
            }
            for id in ["a", "b", "c"] {
                client.ask(json!({ "type": "subscribe", "id": id, "group": "g" })).await;
            }
            leaving.spawn(async move {
                let begun = Instant::now();
                let mut left = 3;
                loop {
                    match client.socket.next().await.unwrap().unwrap() {
                        Message::Text(text) => {
                            match serde_json::from_str::<Value>(&text).unwrap()["type"].as_str() {
                                Some("bye") => left -= 1,
                                // How long it waits is drawn.
                                Some("heartbeat") => {}
                                _ => panic!("{text}"),
                            }
                        }
                        Message::Close(end) => {
                            assert_eq!((left, end.map(|end| u16::from(end.code))), (0, Some(1001)));
                            return begun.elapsed();
                        }
                        // The server pings who says nothing.
                        _ => {}
                    }
                }
            });
        }
        // One leaves about every two seconds.
        hub.drain(Duration::from_secs(40));
        let first = leaving.join_next().await.unwrap()?;
        assert!(first < Duration::from_secs(30), "{first:?}");
        hub.close();
        while let Some(left) = leaving.join_next().await {
            left?;
        }
        Ok(())
    })
}
