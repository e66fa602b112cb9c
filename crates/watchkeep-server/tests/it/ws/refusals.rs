//! What is refused, and how the client is told.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{kind, subscribe};
use crate::support_ws::{Client, Hub, PROTOCOL, within};

#[tokio::test]
async fn a_refusal_bears_the_id_of_its_message() {
    let hub = Hub::start();
    let mut client = hub.client().await;
    for message in [
        json!({ "type": "subscribe", "id": "x", "grup": "g" }),
        json!({ "type": "subscribe", "id": "x", "group": ["g"] }),
        json!({ "type": "subscribe", "id": "x", "group": "g", "value": "v" }),
        json!({ "type": "subscribe", "id": "x", "group": "g", "group_prefix": "g" }),
        json!({ "type": "subscribe", "id": "x", "snapshot": "always" }),
        json!({ "type": "subscribe", "id": "x", "kinds": "set,sett" }),
        json!({ "type": "subscribe", "id": "x", "channel": "store-events" }),
        json!({ "type": "unsubscribe", "id": "x", "group": "g" }),
        json!({ "type": "watch", "id": "x" }),
        json!({ "id": "x" }),
        json!({ "type": "set", "id": "x", "group": "g", "value": "v" }),
        json!({ "type": "set", "id": "x", "group": "g", "key": "k" }),
        json!({ "type": "set", "id": "x", "group": "g", "key": "k", "value": "v", "value_base64": "dg==" }),
        json!({ "type": "set", "id": "x", "group": "g", "key": "k", "value_base64": "!" }),
        json!({ "type": "set", "id": "x", "group": "g", "key": "k", "value": "v", "ttl": "soon" }),
        json!({ "type": "set", "id": "x", "group": "g", "key": "k", "value": "v", "ttl": "1s", "keep_ttl": true }),
        json!({ "type": "set", "id": "x", "group": "g", "key": "k", "value": "v", "if_none_match": "k-1" }),
        json!({ "type": "delete", "id": "x", "group": "g" }),
        json!({ "type": "delete", "id": "x", "group": "g", "key": "k", "ttl": "1s" }),
    ] {
        let answer = client.ask(message.clone()).await;
        assert_eq!(
            (kind(&answer), &answer["id"]),
            (("error", "invalid_argument"), &"x".into()),
            "{message}: {answer}"
        );
        assert!(answer["detail"].as_str().is_some_and(|detail| detail.len() > 20), "{answer}");
    }
    // By position, this would be a set.
    let list = r#"["set","x","g",null,"k",null,null,null,null,null,null,null,"v",null,null,null,null,null,null,null,null,null]"#;
    for message in ["[1]", list, " [ ]", "7", "\"set\"", "null"] {
        client.say_raw(Message::text(message)).await;
        let answer = client.hear().await;
        assert_eq!((kind(&answer), answer.get("id")), (("error", "invalid_argument"), None), "{message}");
        assert_eq!(answer["detail"], "a message is one JSON object", "{message}");
    }
    assert_eq!(hub.store.get("g", "k").unwrap(), None);
    for message in [
        "",
        "no JSON",
        "{\"type\":\"subscribe\"}",
        "{\"type\":\"set\",\"group\":\"g\",\"key\":\"k\",\"value\":\"\"}",
        "{\"type\":\"subscribe\",\"id\":7}",
        "{\"type\":\"subscribe\",\"id\":\"\"}",
        &json!({ "type": "subscribe", "id": "x".repeat(129) }).to_string(),
    ] {
        client.say_raw(Message::text(message)).await;
        let answer = client.hear().await;
        assert_eq!((kind(&answer), answer.get("id")), (("error", "invalid_argument"), None), "{message}");
    }
    // The connection goes on.
    subscribe(&mut client, "x", "g").await;
    let answer = client.ask(json!({ "type": "subscribe", "id": "x", "group": "g" })).await;
    assert_eq!(kind(&answer), ("error", "id_in_use"));
    assert_eq!(kind(&client.ask(json!({ "type": "unsubscribe", "id": "y" })).await), ("error", "not_found"));
    // An error ends no subscription that has begun.
    hub.store.set("g", "k", "v").unwrap();
    client.expect("change", "x").await;
}

#[tokio::test]
async fn a_connection_has_so_many_subscriptions() {
    let hub = Hub::start();
    let mut client = hub.client().await;
    for number in 0..256 {
        subscribe(&mut client, &format!("s{number}"), "g").await;
    }
    let answer = client.ask(json!({ "type": "subscribe", "id": "more", "group": "g" })).await;
    assert_eq!((kind(&answer), &answer["id"]), (("error", "too_many_subscriptions"), &"more".into()));
    client.say(json!({ "type": "unsubscribe", "id": "s7" })).await;
    client.expect("done", "s7").await;
    subscribe(&mut client, "more", "g").await;
}

#[tokio::test]
async fn the_largest_value_fits_and_more_does_not() {
    let hub = Hub::start();
    let mut client = hub.client().await;
    let set =
        |value: String| json!({ "type": "set", "id": "w", "group": "g", "key": "k", "value_base64": value });
    // 16 MiB are 5,592,405 groups of three bytes, and one byte.
    let largest = "AAAA".repeat(5_592_405);
    assert_eq!(client.ask(set(format!("{largest}AA=="))).await["type"], "done");
    assert_eq!(hub.store.get("g", "k").unwrap().unwrap().len(), 16 << 20);
    assert_eq!(kind(&client.ask(set(format!("{largest}AAA="))).await), ("error", "too_large"));
    // A longer message is refused by its head.
    let mut stream = client.socket.into_inner();
    let mut head = vec![0x81, 0xff];
    head.extend_from_slice(&((24_u64 << 20) + 1).to_be_bytes());
    head.extend_from_slice(&[0; 4]);
    stream.write_all(&head).await.unwrap();
    let socket = within(WebSocketStream::from_raw_socket(stream, Role::Client, None)).await;
    let mut client = Client { socket, protocol: None };
    assert_eq!(u16::from(client.end().await.unwrap().code), 1009);
}

#[tokio::test]
async fn what_is_no_text_ends_the_connection() {
    let hub = Hub::start();
    let mut client = hub.open("/v1/ws", &[PROTOCOL]).await.unwrap();
    client.say_raw(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(u16::from(client.end().await.unwrap().code), 1003);
    let mut stream = hub.client().await.socket.into_inner();
    // A frame that is not masked is not a client's.
    stream.write_all(&[0x81, 0x02, b'{', b'}']).await.unwrap();
    let socket = within(WebSocketStream::from_raw_socket(stream, Role::Client, None)).await;
    let mut client = Client { socket, protocol: None };
    assert_eq!(u16::from(client.end().await.unwrap().code), 1002);
}

#[tokio::test]
async fn a_content_type_is_one_that_a_header_can_say() {
    let hub = Hub::start();
    let mut client = hub.client().await;
    let set = |kind: &str| json!({ "type": "set", "id": "w", "group": "g", "key": "k", "value": "", "content_type": kind });
    for bad in ["text/html\r\nX-Evil: y", "text/\u{1f980}", "a\0b", "text/é", "\u{7f}"] {
        let answer = client.ask(set(bad)).await;
        assert_eq!((kind(&answer), &answer["id"]), (("error", "invalid_argument"), &"w".into()), "{bad:?}");
    }
    assert_eq!(hub.store.get("g", "k").unwrap(), None);
    assert_eq!(client.ask(set("text/plain; charset=utf-8")).await["type"], "done");
    let kept = hub.store.entry("g", "k").unwrap().unwrap().content_type;
    assert_eq!(kept.as_deref(), Some("text/plain; charset=utf-8"));
}
