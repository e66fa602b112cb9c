//! Batches over HTTP: all or nothing, under conditions, and safe to repeat.

use serde_json::{Value, json};
use watchkeep::Store;
use watchkeep_server::{Grant, Rights};

use crate::access::Guarded;
use crate::support::Result;
use crate::support_entries::{Answer, Hub};

fn apply(hub: &Hub, batch: &Value) -> Answer {
    let headers = [("Content-Type", "application/json"), ("Watchkeep-Origin", "me")];
    hub.ask("POST", "/v1/batch", &headers, batch.to_string().as_bytes())
}

#[test]
fn a_batch_is_applied_whole_and_answered_again_under_its_id() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let apples = store.cursor(store.set("stock", "apples", "3")?);
    let batch = json!({
        "id": { "client": "shop", "sequence": 1 },
        "require": [{ "at": { "group": "stock", "key": "apples", "cursor": apples.to_string() } }],
        "operations": [
            { "set": { "group": "stock", "key": "apples", "value": "2" } },
            { "set": { "group": "orders", "key": "7", "value_base64": "/w==", "ttl_ms": 60_000 } },
            { "delete": { "group": "orders", "key": "6" } },
        ],
    });
    let first = apply(&hub, &batch);
    assert_eq!(first.status, 200, "{first:?}");
    let last = store.cursor(store.last_revision()?).to_string();
    assert_eq!((first.cursor(), &first.json()["outcomes"][1]["set"]), (last.as_str(), &last.as_str().into()));
    assert_eq!(
        (&first.json()["outcomes"][2]["was"], &first.json()["repeated"]),
        (&false.into(), &false.into())
    );
    assert_eq!(store.get("orders", "7")?.ok_or("no order")?, vec![0xff]);
    let mut again = apply(&hub, &batch).json();
    assert_eq!(again["repeated"].take(), true);
    let mut expected = first.json();
    expected["repeated"].take();
    assert_eq!(again, expected);
    let mut events = store.history(watchkeep::Filter::everything(), apples.revision());
    assert_eq!(events.next().ok_or("no event")??.origin(), Some("me"));
    Ok(())
}

#[test]
fn a_refused_batch_names_each_condition_that_does_not_hold() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let at = store.cursor(store.set("g", "k", "1")?).to_string();
    let refused = apply(
        &hub,
        &json!({
            "require": [
                { "absent": { "group": "g", "key": "k" } },
                { "present": { "group": "g", "key": "k" } },
                { "present": { "group": "none" } },
            ],
            "operations": [{ "delete": { "group": "g", "key": "k" } }],
        }),
    );
    assert_eq!(refused.refusal(), (412, "conflict".to_owned()));
    let unmet = json!([
        { "condition": 0, "cursor": at, "too_old": false },
        { "condition": 2, "cursor": null, "too_old": false },
    ]);
    assert_eq!(refused.json()["unmet"], unmet);
    assert!(store.contains("g", "k")?);
    Ok(())
}

#[test]
fn what_is_no_batch_is_refused_and_changes_nothing() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let json = [("Content-Type", "application/json")];
    for (body, status, kind) in [
        ("", 400, "invalid_argument"),
        (r#"{"operations":[{"put":{}}]}"#, 400, "invalid_argument"),
        (r#"{"operations":[{"delete_prefix":{"group_prefix":""}}]}"#, 400, "invalid_argument"),
        (r#"{"id":{"client":"a:b","sequence":1}}"#, 400, "invalid_name"),
        (
            r#"{"require":[{"at":{"group":"g","key":"k","cursor":"00000000-000000-1"}}]}"#,
            409,
            "foreign_cursor",
        ),
    ] {
        assert_eq!(
            hub.ask("POST", "/v1/batch", &json, body.as_bytes()).refusal(),
            (status, kind.to_owned()),
            "{body}"
        );
    }
    let form = [("Content-Type", "text/plain")];
    let refused = hub.ask("POST", "/v1/batch", &form, br#"{"operations":[]}"#);
    assert_eq!(refused.refusal(), (415, "unsupported_media_type".to_owned()));
    assert_eq!(hub.ask("POST", "/v1/batch?x=1", &json, b"{}").status, 400);
    assert_eq!(hub.ask("POST", "/v1/batch", &json, &[0xff]).status, 400);
    assert_eq!(store.last_revision()?.get(), 0);
    Ok(())
}

#[test]
fn a_batch_of_a_tenant_stays_in_its_namespace() -> Result {
    let guarded = Guarded::start()?;
    let token = guarded.token(Grant::new(Rights { write: true, ..Rights::NONE }).namespace("n"))?;
    let bearer = format!("Bearer {token}");
    let headers = [("Content-Type", "application/json"), ("Authorization", bearer.as_str())];
    let body = json!({
        "id": { "client": "c", "sequence": 1 },
        "operations": [{ "set": { "group": "g", "key": "k", "value": "v" } }],
    });
    let body = body.to_string();
    let ask = || guarded.hub.ask("POST", "/v1/batch", &headers, body.as_bytes());
    assert_eq!(ask().json()["repeated"], false);
    assert_eq!(guarded.store.get("n:g", "k")?.ok_or("nothing")?, "v");
    assert!(guarded.store.get("g", "k")?.is_none());
    // The same id of nobody's namespace is another client's.
    let own = watchkeep::Batch::new().id("c", 1).set("g", "other", "v");
    assert!(!guarded.store.apply(own)?.repeated);
    assert_eq!(ask().json()["repeated"], true);
    Ok(())
}
