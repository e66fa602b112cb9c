//! `/v1/ws`.

mod handshake;
mod original;
mod pressure;
mod refusals;

use serde_json::{Value, json};

use watchkeep::{Filter, Revision};

use super::support_ws::{Client, Hub};

async fn subscribe(client: &mut Client, id: &str, group: &str) {
    client.say(json!({ "type": "subscribe", "id": id, "group": group })).await;
    client.expect("ready", id).await;
}

fn kind(message: &Value) -> (&str, &str) {
    (message["type"].as_str().unwrap_or_default(), message["kind"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn many_subscriptions_and_writes_go_over_one_connection() {
    let hub = Hub::start();
    let mut client = hub.client().await;
    assert_eq!(client.protocol.as_deref(), Some("watchkeep.v1"));
    subscribe(&mut client, "a", "one").await;
    subscribe(&mut client, "b", "two").await;

    hub.store.set("two", "key", "x").unwrap();
    let change = client.expect("change", "b").await;
    assert_eq!((&change["event"]["key"], &change["event"]["value"]), (&"key".into(), &"x".into()));
    assert_eq!(change["cursor"], change["event"]["cursor"]);

    // The answer of a write, and its change: in either order.
    client.say(json!({ "type": "set", "id": "w", "group": "one", "key": "k", "value_base64": "/w==" })).await;
    let mut both = [client.hear().await, client.hear().await];
    both.sort_by_key(|message| message["type"].to_string());
    assert_eq!((&both[0]["type"], &both[0]["id"]), (&"change".into(), &"a".into()));
    assert_eq!((&both[1]["type"], &both[1]["id"]), (&"done".into(), &"w".into()));
    assert_eq!(both[0]["cursor"], both[1]["cursor"]);
    assert_eq!(both[0]["event"]["value_base64"], "/w==");
    assert_eq!(hub.store.get("one", "k").unwrap().unwrap().to_vec(), b"\xff");

    assert_eq!(
        client.ask(json!({ "type": "unsubscribe", "id": "a" })).await,
        json!({ "type": "done", "id": "a" })
    );
    hub.store.set("one", "key", "not told").unwrap();
    hub.store.set("two", "key", "told").unwrap();
    client.expect("change", "b").await;
    // The id is free again.
    subscribe(&mut client, "a", "one").await;
}

#[tokio::test]
async fn writes_have_the_conditions_of_entries() {
    let hub = Hub::start();
    let mut client = hub.open("/v1/ws?origin=tab-1", &[]).await.unwrap();
    let set = |more: Value| {
        let mut message = json!({ "type": "set", "id": "w", "group": "g", "key": "k", "value": "v" });
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message
    };
    let first = client.ask(set(json!({ "if_none_match": "*", "content_type": "text/plain" }))).await;
    assert_eq!(first["type"], "done");
    let conflict = client.ask(set(json!({ "if_none_match": "*" }))).await;
    assert_eq!((kind(&conflict), &conflict["id"]), (("error", "conflict"), &"w".into()));
    let second = client.ask(set(json!({ "if_match": first["cursor"], "ttl": "1h" }))).await;
    assert_eq!(second["type"], "done");
    assert_eq!(kind(&client.ask(set(json!({ "if_match": first["cursor"] }))).await), ("error", "conflict"));
    let deadline = hub.store.entry("g", "k").unwrap().unwrap().deadline;
    assert!(deadline.is_some());
    let third = client.ask(set(json!({ "keep_ttl": true }))).await;
    let entry = hub.store.entry("g", "k").unwrap().unwrap();
    assert_eq!(entry.deadline, deadline);
    let history = hub.store.history(Filter::everything(), Revision::ZERO);
    let written: Vec<_> = history.map(|event| event.unwrap().origin().map(str::to_owned)).collect();
    assert_eq!(written, vec![Some("tab-1".to_owned()); 3]);

    let delete =
        |at: &Value| json!({ "type": "delete", "id": "d", "group": "g", "key": "k", "if_match": at });
    assert_eq!(kind(&client.ask(delete(&first["cursor"])).await), ("error", "conflict"));
    assert_eq!(client.ask(delete(&third["cursor"])).await["type"], "done");
    assert_eq!(hub.store.get("g", "k").unwrap(), None);
    let gone = client.ask(json!({ "type": "delete", "id": "d", "group": "g", "key": "k" })).await;
    assert_eq!(kind(&gone), ("error", "not_found"));
}

#[tokio::test]
async fn each_subscription_begins_where_it_wants_to() {
    let hub = Hub::start();
    let mut client = hub.client().await;
    hub.store.set("g", "a", "1").unwrap();
    hub.store.set("g", "b", "2").unwrap();
    let subscribe = |id: &str, more: Value| {
        let mut message = json!({ "type": "subscribe", "id": id, "group": "g" });
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message
    };

    client.say(subscribe("all", json!({ "snapshot": "auto" }))).await;
    assert_eq!(client.expect("reset", "all").await["reason"], "start");
    for key in ["a", "b"] {
        let change = client.expect("change", "all").await;
        assert_eq!((&change["event"]["key"], change.get("cursor")), (&key.into(), None));
    }
    let ready = client.expect("ready", "all").await;
    client.ask(json!({ "type": "unsubscribe", "id": "all" })).await;

    hub.store.set("g", "c", "3").unwrap();
    client
        .say(subscribe("rest", json!({ "after": ready["cursor"], "snapshot": "auto", "kinds": "set" })))
        .await;
    client.expect("ready", "rest").await;
    assert_eq!(client.expect("change", "rest").await["event"]["key"], "c");

    let other = watchkeep::Store::open_in_memory().unwrap();
    let foreign = other.cursor(other.set("g", "k", "v").unwrap()).to_string();
    let refused = client.ask(subscribe("foreign", json!({ "after": foreign }))).await;
    assert_eq!((kind(&refused), &refused["id"]), (("error", "foreign_cursor"), &"foreign".into()));
    client.say(subscribe("healed", json!({ "after": foreign, "snapshot": "auto" }))).await;
    assert_eq!(client.expect("reset", "healed").await["reason"], "foreign");
}

#[tokio::test]
async fn a_server_that_ends_says_goodbye_to_each_subscription() {
    let hub = Hub::start();
    let mut client = hub.client().await;
    subscribe(&mut client, "a", "one").await;
    subscribe(&mut client, "b", "two").await;
    hub.close();
    let mut ends = [client.hear().await, client.hear().await];
    ends.sort_by_key(|message| message["id"].to_string());
    let bye = |id: &str| json!({ "type": "bye", "id": id, "reason": "ending" });
    assert_eq!(ends, [bye("a"), bye("b")]);
    assert_eq!(u16::from(client.end().await.unwrap().code), 1001);
    // It waits for the connection, and no longer: this client answers its close frame.
    drop(client);
    hub.ended();
}

#[tokio::test]
async fn a_store_that_is_closed_ends_the_subscriptions_and_not_the_connection() {
    let hub = Hub::start();
    let mut client = hub.client().await;
    subscribe(&mut client, "a", "one").await;
    hub.store.close().unwrap();
    assert_eq!(client.expect("bye", "a").await["reason"], "closed");
    let refused =
        client.ask(json!({ "type": "set", "id": "w", "group": "g", "key": "k", "value": "" })).await;
    assert_eq!(kind(&refused), ("error", "closed"));
}
