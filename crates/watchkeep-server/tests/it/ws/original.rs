//! A client that was written for the original's hub: its types and its names are those of the Go code.

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support_ws::{Client, Hub};

/// `ws.Message` of go-ws.
#[derive(Debug, Default, Serialize, Deserialize)]
struct HubMessage<T> {
    r#type: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    channel: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<T>,
    timestamp: String,
}

/// `store.Event` of go-store, without tags, as `encoding/json` writes it.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Event {
    r#type: i64,
    group: String,
    key: String,
    value: String,
    timestamp: String,
}

/// The zero time, which Go writes where nothing was set.
const ZERO: &str = "0001-01-01T00:00:00Z";

async fn say(client: &mut Client, kind: &str, channel: &str, data: Option<&str>) {
    let message =
        HubMessage { r#type: kind.to_owned(), channel: channel.to_owned(), data, timestamp: ZERO.to_owned() };
    client.say_raw(Message::text(serde_json::to_string(&message).unwrap())).await;
}

async fn event(client: &mut Client) -> (i64, String, String, String) {
    let message: HubMessage<Event> = serde_json::from_value(client.hear().await).unwrap();
    assert_eq!((message.r#type.as_str(), message.channel.as_str()), ("event", "store-events"));
    let event = message.data.unwrap();
    assert_eq!(event.timestamp, message.timestamp);
    assert!(event.timestamp.ends_with('Z') && event.timestamp.len() == "2026-11-23T12:00:00.123Z".len());
    (event.r#type, event.group, event.key, event.value)
}

/// Once this is answered, so is everything before it.
async fn ping(client: &mut Client) {
    say(client, "ping", "", None).await;
    assert_eq!(client.hear().await["type"], "pong");
}

fn of(kind: i64, key: &str, value: &str) -> (i64, String, String, String) {
    (kind, "config".to_owned(), key.to_owned(), value.to_owned())
}

#[tokio::test]
async fn a_client_of_the_original_is_told_everything_from_now_on() {
    let hub = Hub::start();
    hub.store.set("config", "before", "not told").unwrap();
    let mut client = hub.open("/v1/ws", &[]).await.unwrap();
    assert_eq!(client.protocol, None);
    say(&mut client, "subscribe", "", Some("store-events")).await;
    // Twice is once, as in the original.
    say(&mut client, "subscribe", "store-events", None).await;
    ping(&mut client).await;

    hub.store.set("config", "theme", "dark").unwrap();
    hub.store.set("config", "bytes", b"a\xffb".as_slice()).unwrap();
    hub.store.delete("config", "theme").unwrap();
    hub.store.delete_group("config").unwrap();
    assert_eq!(event(&mut client).await, of(0, "theme", "dark"));
    assert_eq!(event(&mut client).await, of(0, "bytes", "a\u{fffd}b"));
    assert_eq!(event(&mut client).await, of(1, "theme", ""));
    assert_eq!(event(&mut client).await, of(2, "", ""));

    say(&mut client, "unsubscribe", "store-events", None).await;
    ping(&mut client).await;
    hub.store.set("config", "theme", "not told").unwrap();
    ping(&mut client).await;
}

#[tokio::test]
async fn both_forms_go_over_one_connection() {
    let hub = Hub::start();
    let mut client = hub.client().await;
    say(&mut client, "subscribe", "store-events", None).await;
    client.say(json!({ "type": "subscribe", "id": "store-events", "group": "config" })).await;
    client.expect("ready", "store-events").await;
    hub.store.set("config", "theme", "dark").unwrap();
    let mut types = [client.hear().await["type"].clone(), client.hear().await["type"].clone()];
    types.sort_by_key(ToString::to_string);
    assert_eq!(types, ["change", "event"]);
}

#[tokio::test]
async fn refusals_are_errors_of_the_original() {
    let hub = Hub::start();
    let mut client = hub.client().await;
    say(&mut client, "subscribe", "process:1", None).await;
    let refused: HubMessage<String> = serde_json::from_value(client.hear().await).unwrap();
    assert_eq!(refused.r#type, "error");
    assert!(refused.data.is_some_and(|detail| detail.contains("store-events")));
    say(&mut client, "subscribe", "store-events", None).await;
    ping(&mut client).await;
    hub.close();
    let last: HubMessage<String> = serde_json::from_value(client.hear().await).unwrap();
    assert_eq!(last.r#type, "error");
    assert_eq!(u16::from(client.end().await.unwrap().code), 1001);
}
