//! Many events, and clients that do not keep up.

use futures_util::SinkExt as _;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support_ws::{Hub, within};

const EVENTS: usize = 600;

/// 10 MB of events in all: more than the sockets of both sides hold.
fn write_much(hub: &Hub) {
    let value = vec![b'x'; 16 << 10];
    hub.store
        .transaction(|tx| {
            (0..EVENTS).try_for_each(|n| tx.set("busy", &n.to_string(), value.clone()).map(drop))
        })
        .unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_and_loses_nothing() {
    let hub = Hub::start();
    let mut slow = hub.client().await;
    slow.say(json!({ "type": "subscribe", "id": "s", "group": "busy" })).await;
    slow.expect("ready", "s").await;
    write_much(&hub);
    // Others are served meanwhile.
    let mut quick = hub.client().await;
    quick.say(json!({ "type": "set", "id": "w", "group": "other", "key": "k", "value": "v" })).await;
    quick.expect("done", "w").await;
    for n in 0..EVENTS {
        assert_eq!(slow.expect("change", "s").await["event"]["key"], n.to_string());
    }
}

#[tokio::test]
async fn a_busy_subscription_does_not_starve_a_quiet_one() {
    let hub = Hub::start();
    let start = hub.store.cursor(hub.store.set("busy", "first", "").unwrap()).to_string();
    write_much(&hub);
    hub.store.set("quiet", "k", "v").unwrap();
    let mut client = hub.client().await;
    for id in ["busy", "quiet"] {
        let message = json!({ "type": "subscribe", "id": id, "group": id, "after": start });
        within(client.socket.feed(Message::text(message.to_string()))).await.unwrap();
    }
    within(client.socket.flush()).await.unwrap();
    let mut before = 0;
    loop {
        let message = client.hear().await;
        match (message["id"].as_str(), message["type"].as_str()) {
            (Some("quiet"), Some("change")) => break,
            (Some("busy"), Some("change")) => before += 1,
            _ => {}
        }
    }
    assert!(before < EVENTS, "the quiet one came last");
}

#[tokio::test]
async fn a_client_behind_is_told_that_the_server_ends() {
    let hub = Hub::start();
    let mut slow = hub.client().await;
    slow.say(json!({ "type": "subscribe", "id": "s", "group": "busy" })).await;
    slow.expect("ready", "s").await;
    write_much(&hub);
    slow.expect("change", "s").await;
    hub.close();
    let mut changes = 1;
    let last = loop {
        let message = slow.hear().await;
        if message["type"] != "change" {
            break message;
        }
        changes += 1;
    };
    assert_eq!(last, json!({ "type": "bye", "id": "s", "reason": "ending" }));
    assert!(changes < EVENTS, "it was behind");
    assert_eq!(u16::from(slow.end().await.unwrap().code), 1001);
    drop(slow);
    hub.ended();
}
