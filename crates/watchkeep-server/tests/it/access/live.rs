//! What is under way ends with its token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use watchkeep::{ManualClock, Options, Store, Timestamp};
use watchkeep_server::{Access, Grant, Rights};

use super::{Guarded, is_unauthorized};
use crate::support::{Result, Stream};
use crate::support_ws::{Client, PROTOCOL, within};

const WATCH: Rights = Rights { watch: true, ..Rights::NONE };

fn stream(guarded: &Guarded, token: &str) -> Result<Stream> {
    let bearer = format!("Bearer {token}");
    let mut stream = Stream::open(guarded.hub.address, "snapshot=auto", &[("Authorization", &bearer)])?;
    assert_eq!(stream.status, 200);
    stream.upto("ready")?;
    Ok(stream)
}

#[test]
fn a_stream_ends_at_once_when_its_token_is_revoked_and_others_go_on() -> Result {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("app.db"))?;
    let guarded = Guarded::over(store.clone(), Access::open(&store)?)?;
    let (revoked, kept) = (guarded.access.create(Grant::new(WATCH))?, guarded.token(Grant::new(WATCH))?);
    let (mut first, mut second) = (stream(&guarded, revoked.secret())?, stream(&guarded, &kept)?);
    // As another process does it.
    let elsewhere = Access::open(&guarded.store)?;
    assert!(elsewhere.revoke(&revoked.token.id)?);
    assert_eq!(first.upto("bye")?.1.data, json!({ "reason": "revoked" }));
    assert!(first.next()?.is_none());
    is_unauthorized(&guarded.ask("GET", "/v1/watch?", revoked.secret()), "it comes back");
    guarded.store.set("g", "k", "v")?;
    assert_eq!(second.changes(1)?[0].data["value"], "v");
    Ok(())
}

#[test]
fn a_stream_ends_with_its_token() -> Result {
    let store = Store::open_in_memory()?;
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
    let access = Access::open_with(&store, Options::new().clock(clock.clone()))?;
    let guarded = Guarded::over(store, access)?;
    let token = guarded.token(Grant::new(WATCH).ttl(Duration::from_secs(60)))?;
    let mut stream = stream(&guarded, &token)?;
    clock.advance(Duration::from_secs(61));
    assert_eq!(stream.upto("bye")?.1.data, json!({ "reason": "expired" }));
    is_unauthorized(&guarded.ask("GET", "/v1/watch?", &token), "it comes back");
    Ok(())
}

#[test]
fn the_first_token_ends_the_streams_of_those_who_have_none() -> Result {
    let store = Store::open_in_memory()?;
    let access = Access::open(&store)?;
    let asked = access.clone();
    let hub = crate::support_entries::Hub::with(&store, |server| server.ask_for_tokens(asked));
    let mut stream = Stream::open(hub.address, "snapshot=auto", &[])?;
    stream.upto("ready")?;
    access.create(Grant::new(Rights::ALL))?;
    assert_eq!(stream.upto("bye")?.1.data, json!({ "reason": "unauthorized" }));
    Ok(())
}

#[test]
fn a_long_poll_ends_with_its_token() -> Result {
    let guarded = Guarded::start()?;
    let token = guarded.access.create(Grant::new(Rights { read: true, ..Rights::NONE }))?;
    let bearer = format!("Bearer {}", token.secret());
    let asked = guarded.hub.begin("GET", "/v1/changes?wait=50s", &[("Authorization", &bearer)], b"");
    // It may be revoked before it is let in, which is the same to it.
    assert!(guarded.access.revoke(&token.token.id)?);
    is_unauthorized(&asked.answer(), "revoked meanwhile");
    Ok(())
}

async fn connect(guarded: &Guarded) -> Client {
    Client::open(&guarded.hub.address.to_string(), "/v1/ws", &[PROTOCOL]).await.expect("it is upgraded")
}

#[tokio::test]
async fn a_websocket_says_first_who_it_is_and_renews_it() -> Result {
    let guarded = Guarded::start()?;
    let rights = Rights { write: true, ..WATCH };
    let first = guarded.access.create(Grant::new(rights).namespace("n"))?;
    let mut client = connect(&guarded).await;
    let bad = client.ask(json!({ "type": "auth", "id": "a", "token": "wk_nonsense" })).await;
    assert_eq!((&bad["type"], &bad["kind"]), (&"error".into(), &"unauthorized".into()), "{bad}");
    client.say(json!({ "type": "auth", "id": "a", "token": first.secret() })).await;
    client.expect("done", "a").await;
    client.say(json!({ "type": "subscribe", "id": "s" })).await;
    client.expect("ready", "s").await;
    guarded.store.set("g", "k", "not of this namespace")?;
    client.say(json!({ "type": "set", "id": "w", "group": "g", "key": "k", "value": "v" })).await;
    let heard = [client.hear().await, client.hear().await];
    let change = heard.iter().find(|message| message["type"] == "change").ok_or("no change")?;
    assert_eq!((&change["event"]["group"], &change["event"]["value"]), (&"g".into(), &"v".into()));
    assert_eq!(guarded.store.get("n:g", "k")?.ok_or("nothing")?, "v");

    // Tokens that open less, or elsewhere, do not go on with what it has.
    for grant in [Grant::new(WATCH).namespace("n"), Grant::new(rights).namespace("m"), Grant::new(rights)] {
        let other = guarded.token(grant)?;
        let refused = client.ask(json!({ "type": "auth", "id": "b", "token": other })).await;
        assert_eq!(refused["kind"], "forbidden", "{refused}");
    }
    let second = guarded.access.create(Grant::new(rights).namespace("n"))?;
    client.say(json!({ "type": "auth", "id": "b", "token": second.secret() })).await;
    client.expect("done", "b").await;
    assert!(guarded.access.revoke(&first.token.id)?);
    guarded.store.set("n:g", "k", "still here")?;
    assert_eq!(client.expect("change", "s").await["event"]["value"], "still here");
    assert!(guarded.access.revoke(&second.token.id)?);
    let end = client.end().await.ok_or("no reason")?;
    assert_eq!((u16::from(end.code), end.reason.as_str()), (1008, "revoked"));
    Ok(())
}

#[tokio::test]
async fn a_websocket_ends_with_a_token_that_it_showed_later_although_nothing_else_happens() -> Result {
    let guarded = Guarded::start()?;
    let mut client = connect(&guarded).await;
    let mut last = None;
    for _ in 0..2 {
        let token = guarded.access.create(Grant::new(WATCH))?;
        client.say(json!({ "type": "auth", "id": "a", "token": token.secret() })).await;
        client.expect("done", "a").await;
        last = Some(token.token.id);
    }
    let begun = Instant::now();
    assert!(guarded.access.revoke(&last.ok_or("no token")?)?);
    assert_eq!(u16::from(client.end().await.ok_or("no reason")?.code), 1008);
    // Not only when a ping is due.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    Ok(())
}

#[tokio::test]
async fn who_has_not_said_who_it_is_takes_little_memory() -> Result {
    let guarded = Guarded::start()?;
    let mut client = connect(&guarded).await;
    client.say_raw(Message::text("x".repeat((256 << 10) + 1))).await;
    let end = client.end().await.ok_or("no reason")?;
    assert!(u16::from(end.code) == 1009 && end.reason.contains("256 KiB"), "{end:?}");
    let mut strangers = Vec::new();
    // One address takes a quarter of what there is.
    for _ in 0..64 {
        strangers.push(connect(&guarded).await);
    }
    let address = guarded.hub.address.to_string();
    let refused = Client::open(&address, "/v1/ws", &[PROTOCOL]).await.err().ok_or("one too many")?;
    assert_eq!(refused.status(), 429);
    assert!(refused.body().contains("unauthenticated_websockets=256"), "{refused:?}");
    // Those who say it with a header are not held up.
    let bearer = format!("Bearer {}", guarded.token(Grant::new(WATCH))?);
    let known = Client::open(&address, "/v1/ws", &[PROTOCOL, ("authorization", &bearer)]).await;
    assert!(known.is_ok());
    Ok(())
}

#[tokio::test]
async fn a_websocket_with_a_header_ends_with_its_token() -> Result {
    let guarded = Guarded::start()?;
    let token = guarded.access.create(Grant::new(WATCH))?;
    let bearer = format!("Bearer {}", token.secret());
    let headers = [PROTOCOL, ("authorization", bearer.as_str())];
    let mut client =
        Client::open(&guarded.hub.address.to_string(), "/v1/ws", &headers).await.expect("it opens");
    client.say(json!({ "type": "subscribe", "id": "s" })).await;
    client.expect("ready", "s").await;
    let set = json!({ "type": "set", "id": "w", "group": "g", "key": "k", "value": "v" });
    assert_eq!(client.ask(set).await["kind"], "forbidden");
    assert!(guarded.access.revoke(&token.token.id)?);
    assert_eq!(u16::from(client.end().await.ok_or("no reason")?.code), 1008);
    Ok(())
}

#[tokio::test]
async fn a_websocket_that_does_not_say_who_it_is_is_closed() -> Result {
    let guarded = Guarded::start()?;
    for message in [
        r#"{"type":"subscribe","id":"s"}"#,
        r#"{"type":"set","id":"w","group":"g","key":"k","value":"v"}"#,
        r#"{"type":"subscribe","channel":"store-events"}"#,
        r#"{"type":"ping"}"#,
        "nonsense",
    ] {
        let mut client = connect(&guarded).await;
        client.say_raw(Message::text(message)).await;
        let end = client.end().await.ok_or("no reason")?;
        assert_eq!(u16::from(end.code), 1008, "{message}");
    }
    assert_eq!(guarded.store.count_all("")?, 0);
    let mut silent = connect(&guarded).await;
    let end = within(silent.end()).await.ok_or("no reason")?;
    assert_eq!(u16::from(end.code), 1008);
    Ok(())
}
