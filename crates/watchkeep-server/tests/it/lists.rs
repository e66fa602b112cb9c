//! Groups, keys, one group, and statistics, as JSON.

use std::error::Error;

use serde_json::{Value, json};
use watchkeep::{SetOptions, Store};

use crate::support_entries::{Hub, encoded};

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

/// The position of the store.
fn now(store: &Store) -> Result<String> {
    Ok(store.cursor(store.last_revision()?).to_string())
}

/// Follows `next` to the end: what `name` held on all pages, and how many pages there were.
fn all(hub: &Hub, target: &str, name: &str) -> (Vec<Value>, usize) {
    let (mut found, mut pages, mut after) = (Vec::new(), 0, String::new());
    loop {
        let answer = hub.get(&format!("{target}{after}"));
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        let page = answer.json();
        assert_eq!(page["cursor"], answer.cursor());
        found.extend(page[name].as_array().expect("a list").clone());
        pages += 1;
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", encoded(next)),
            None => return (found, pages),
        }
    }
}

#[test]
fn groups_are_listed_in_pages_by_prefix() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let empty = hub.get("/v1/groups");
    assert_eq!(empty.json(), json!({ "groups": [], "next": null, "cursor": now(&store)? }));
    let names: Vec<String> = (0..300).map(|number| format!("a/{number:03}\n%")).collect();
    store.transaction(|tx| names.iter().try_for_each(|name| tx.set(name, "k", "v")))?;
    store.set("b", "k", "v")?;
    let expected: Vec<Value> = names.iter().map(|name| name.as_str().into()).collect();
    assert_eq!(all(&hub, "/v1/groups?prefix=a%2F", "groups"), (expected.clone(), 2));
    assert_eq!(all(&hub, "/v1/groups?prefix=a%2F&limit=150", "groups").0, expected);
    assert_eq!(hub.get("/v1/groups?prefix=b").json()["groups"], json!(["b"]));
    assert_eq!(hub.get("/v1/groups?prefix=c").json()["groups"], json!([]));
    Ok(())
}

#[test]
fn keys_are_listed_with_what_is_known_of_them_and_with_values_if_wanted() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let at = store.set_with("g", "a/1", "text", SetOptions::new().content_type("text/plain"))?;
    store.set("g", "a/2", vec![0xff, 0])?;
    store.set("g", "b", vec![b'x'; 2 << 20])?;
    store.set("other", "a/3", "v")?;

    let page = hub.get("/v1/keys?group=g&prefix=a%2F").json();
    assert_eq!(
        (&page["group"], &page["next"], &page["cursor"]),
        (&json!("g"), &Value::Null, &json!(now(&store)?))
    );
    let first = &page["keys"][0];
    assert_eq!(
        (&first["key"], &first["bytes"], &first["content_type"]),
        (&json!("a/1"), &json!(4), &json!("text/plain"))
    );
    assert_eq!(
        (&first["revision"], &first["cursor"]),
        (&json!(at.get()), &json!(store.cursor(at).to_string()))
    );
    assert_eq!((&first["deadline"], first.get("value")), (&Value::Null, None));
    assert_eq!(page["keys"].as_array().map(Vec::len), Some(2));

    let page = hub.get("/v1/keys?group=g&prefix=a%2F&values").json();
    assert_eq!(
        (&page["keys"][0]["value"], &page["keys"][1]["value_base64"]),
        (&json!("text"), &json!("/wA="))
    );

    // However large the values: they are not read.
    let (keys, pages) = all(&hub, "/v1/keys?group=g", "keys");
    assert_eq!((keys.len(), pages, &keys[2]["bytes"]), (3, 1, &json!(2 << 20)));
    let (keys, _) = all(&hub, "/v1/keys?group=g&limit=1&values=true", "keys");
    assert_eq!(keys.iter().map(|key| &key["key"]).collect::<Vec<_>>(), ["a/1", "a/2", "b"]);
    assert_eq!(hub.get("/v1/keys?group=none").json()["keys"], json!([]));
    Ok(())
}

#[test]
fn a_group_is_counted_and_deleted_as_a_whole() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    store.transaction(|tx| (0..5).try_for_each(|number| tx.set("a/b", &number.to_string(), "v")))?;
    let counted = hub.get("/v1/group?group=a%2Fb");
    assert_eq!(counted.json(), json!({ "group": "a/b", "count": 5, "cursor": now(&store)? }));
    let mut watcher = store.watch("*", "*");
    let deleted = hub.ask("DELETE", "/v1/group?group=a%2Fb", &[("Watchkeep-Origin", "page")], b"");
    assert_eq!(deleted.json(), json!({ "group": "a/b", "count": 5, "cursor": now(&store)? }));
    assert_eq!(deleted.cursor(), now(&store)?);
    let event = watcher.recv().ok_or("no event")??;
    assert_eq!((event.kind().as_str(), event.origin()), ("delete_group", Some("page")));
    for method in ["GET", "DELETE"] {
        assert_eq!(hub.ask(method, "/v1/group?group=a%2Fb", &[], b"").json()["count"], 0);
    }
    Ok(())
}

#[test]
fn statistics_are_those_of_the_command_line_without_where_the_store_is() -> Result {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("app.db"))?;
    store.set("g", "k", "value")?;
    let hub = Hub::over(&store);
    let answer = hub.get("/v1/stats");
    let stats = answer.json();
    assert_eq!(
        (&stats["entries"], &stats["groups"], &stats["store"]),
        (&json!(1), &json!(1), &json!(store.id().as_str()))
    );
    let mut expected = watchkeep::json::stats(&store.stats()?);
    for place in ["path", "address"] {
        expected.as_object_mut().ok_or("an object")?.remove(place).ok_or("where it is")?;
    }
    let names = |object: &Value| object.as_object().map(|object| object.keys().cloned().collect::<Vec<_>>());
    let (mut ours, mut theirs) = (names(&stats).ok_or("an object")?, names(&expected).ok_or("an object")?);
    theirs.push("streams".to_owned());
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
    assert!(!answer.text().contains("app.db"), "{}", answer.text());
    Ok(())
}

#[test]
fn lists_refuse_what_they_do_not_know_and_wait_for_a_position() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let at = store.set("g", "k", "v")?;
    for target in [
        "/v1/keys",
        "/v1/group",
        "/v1/groups?limit=0",
        "/v1/groups?limit=257",
        "/v1/groups?limit=-1",
        "/v1/groups?limit=many",
        "/v1/groups?group=g",
        "/v1/groups?prefix=%FF",
        "/v1/groups?prefix=a&prefix=b",
        "/v1/keys?group=g&values=some",
        "/v1/group?group=g&prefix=p",
        "/v1/stats?path",
        "/v1/stats?min=nonsense",
    ] {
        assert_eq!(hub.get(target).refusal(), (400, "invalid_argument".to_owned()), "{target}");
    }
    let foreign = Store::open_in_memory()?;
    let foreign = foreign.cursor(foreign.set("g", "k", "v")?);
    for target in ["/v1/groups?", "/v1/keys?group=g&", "/v1/group?group=g&", "/v1/stats?"] {
        assert_eq!(hub.get(&format!("{target}min={}", store.cursor(at))).status, 200);
        assert_eq!(hub.get(&format!("{target}min={foreign}")).refusal(), (409, "foreign_cursor".to_owned()));
        let path = target.split('?').next().ok_or("a path")?;
        for method in ["POST", "PUT", "PATCH"] {
            assert_eq!(
                hub.ask(method, path, &[], b"").refusal(),
                (405, "no_method".to_owned()),
                "{method} {path}"
            );
        }
        let head = hub.ask("HEAD", target.trim_end_matches(['?', '&']), &[], b"");
        assert_eq!((head.status, head.header("x-content-type-options")), (200, Some("nosniff")));
    }
    Ok(())
}
