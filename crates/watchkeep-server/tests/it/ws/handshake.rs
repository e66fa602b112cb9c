//! Who gets a WebSocket at all.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::http::Response;

use crate::support_ws::{Hub, PROTOCOL};

fn refused(answer: Result<super::Client, Box<Response<String>>>) -> (u16, Value) {
    let Err(answer) = answer else { panic!("it was taken") };
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    (answer.status().as_u16(), serde_json::from_str(answer.body()).unwrap())
}

#[tokio::test]
async fn strangers_are_refused() {
    let hub = Hub::start();
    for (name, value) in [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("host", "evil.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let (status, problem) = refused(hub.open("/v1/ws", &[PROTOCOL, (name, value)]).await);
        assert_eq!((status, &problem["kind"]), (403, &"foreign_origin".into()), "{name}: {value}");
    }
    let origin = format!("http://{}", hub.address);
    assert!(hub.open("/v1/ws", &[PROTOCOL, ("origin", &origin)]).await.is_ok());
}

#[tokio::test]
async fn only_its_own_subprotocol_is_spoken() {
    let hub = Hub::start();
    let (status, problem) = refused(hub.open("/v1/ws", &[(PROTOCOL.0, "graphql-ws, watchkeep.v9")]).await);
    assert_eq!((status, &problem["kind"]), (400, &"unknown_subprotocol".into()));
    let both = hub.open("/v1/ws", &[(PROTOCOL.0, "watchkeep.v9, watchkeep.v1")]).await.unwrap();
    assert_eq!(both.protocol.as_deref(), Some("watchkeep.v1"));
    assert_eq!(hub.open("/v1/ws", &[]).await.unwrap().protocol, None);
    let (status, problem) = refused(hub.open("/v1/ws?orgin=tab", &[PROTOCOL]).await);
    assert_eq!((status, &problem["kind"]), (400, &"invalid_argument".into()));
}

#[tokio::test]
async fn a_request_without_an_upgrade_is_told_how() {
    let hub = Hub::start();
    for (name, value) in [("connection", "close"), ("upgrade", "h2c"), ("sec-websocket-version", "8")] {
        let answer = hub.open("/v1/ws", &[(name, value)]).await;
        let headers = answer.as_ref().err().map(|answer| answer.headers().clone()).unwrap();
        assert_eq!(
            (&headers["upgrade"], &headers["sec-websocket-version"]),
            (&"websocket".parse().unwrap(), &"13".parse().unwrap())
        );
        let (status, problem) = refused(answer);
        assert_eq!((status, &problem["kind"]), (426, &"upgrade_required".into()), "{name}: {value}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("new WebSocket(") && detail.contains("proxy_set_header Upgrade"), "{detail}");
    }
}

#[tokio::test]
async fn a_key_has_sixteen_bytes() {
    let hub = Hub::start();
    for key in ["", "x", "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAA"] {
        let (status, problem) = refused(hub.open("/v1/ws", &[PROTOCOL, ("sec-websocket-key", key)]).await);
        assert_eq!((status, &problem["kind"]), (400, &"invalid_argument".into()), "{key:?}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("Key")), "{problem}");
    }
}

#[tokio::test]
async fn the_label_of_a_connection_is_that_of_its_writes() {
    let hub = Hub::start();
    let mut client = hub.open("/v1/ws", &[PROTOCOL, ("watchkeep-origin", "job")]).await.unwrap();
    client.say(json!({ "type": "subscribe", "id": "others", "exclude_origin": "job" })).await;
    client.expect("ready", "others").await;
    client.say(json!({ "type": "set", "id": "w", "group": "g", "key": "mine", "value": "" })).await;
    client.expect("done", "w").await;
    hub.store.set("g", "theirs", "").unwrap();
    assert_eq!(client.expect("change", "others").await["event"]["key"], "theirs");
}

#[tokio::test]
async fn a_label_that_is_too_long_is_refused_before_anything_is_written() {
    let hub = Hub::start();
    let (longest, longer) = ("x".repeat(256), "x".repeat(257));
    for (path, header) in [(format!("/v1/ws?origin={longer}"), ""), ("/v1/ws".to_owned(), longer.as_str())] {
        let (status, problem) = refused(hub.open(&path, &[PROTOCOL, ("watchkeep-origin", header)]).await);
        assert_eq!((status, &problem["kind"]), (413, &"too_large".into()), "{path}");
    }
    let mut client = hub.open(&format!("/v1/ws?origin={longest}"), &[PROTOCOL]).await.unwrap();
    client.say(json!({ "type": "set", "id": "w", "group": "g", "key": "k", "value": "" })).await;
    client.expect("done", "w").await;
}
