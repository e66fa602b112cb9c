//! Pages of the log, and long polling.

use std::error::Error;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use watchkeep::{Durability, Options, Revision, Store};

use crate::support_entries::{Answer, Hub};

type Result<T = (), E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Far longer than anything takes that goes right.
const LIMIT: Duration = Duration::from_secs(60);
const FOR_EVER: &str = "private, max-age=31536000, immutable";

fn at(store: &Store, revision: u64) -> String {
    store.cursor(Revision::new(revision)).to_string()
}

/// A page that is answered, and is not to be kept.
fn page(answer: &Answer) -> Value {
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let page = answer.json();
    assert_eq!(page["next"], answer.cursor());
    page
}

fn revisions(page: &Value) -> Vec<u64> {
    page["events"].as_array().unwrap().iter().map(|event| event["revision"].as_u64().unwrap()).collect()
}

/// Lets others run.
fn pause() {
    let (_never, nothing) = mpsc::channel::<()>();
    let _ = nothing.recv_timeout(Duration::from_millis(2));
}

/// Waits until so many clients sit and wait.
fn wait_for(hub: &Hub, clients: u64) -> Result {
    let start = Instant::now();
    while hub.get("/v1/stats").json()["streams"] != clients {
        if start.elapsed() > LIMIT {
            return Err(format!("never were there {clients} clients").into());
        }
        pause();
    }
    Ok(())
}

#[test]
fn following_next_gives_the_whole_log_once_while_others_write() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    store.set("g", "text", "dark")?;
    store.set("g", "bytes", vec![0xff, 0])?;
    let mut watcher = store.watch("*", "*");
    thread::scope(|scope| -> Result {
        let writer = scope.spawn(|| {
            (0..400).try_for_each(|n| {
                store
                    .transaction(|tx| {
                        tx.set("g", &n.to_string(), "v")?;
                        tx.delete("g", &n.to_string()).map(drop)
                    })
                    .map(drop)
            })
        });
        let (mut events, mut after) = (Vec::new(), String::new());
        loop {
            let over = writer.is_finished();
            let page = page(&hub.get(&format!("/v1/changes?limit=7{after}")));
            let some = page["events"].as_array().ok_or("a list")?;
            assert!(some.len() <= 7);
            events.extend(some.clone());
            after = format!("&after={}", page["next"].as_str().ok_or("a position")?);
            if over && page["next"] == page["end"] {
                break;
            }
        }
        writer.join().map_err(|_| "the writer panicked")??;
        let expected: Vec<_> = (1..=802).collect();
        assert_eq!(revisions(&json!({ "events": events })), expected);
        assert_eq!((&events[0]["value"], &events[1]["value_base64"]), (&json!("dark"), &json!("/wA=")));
        // They are what a watch gives.
        for event in &events[2..] {
            let told = watcher.recv_timeout(LIMIT).ok_or("no event")??;
            assert_eq!(*event, watchkeep::json::event(&told, store.cursor(told.revision())));
        }
        Ok(())
    })
}

#[test]
fn a_page_ends_after_so_many_rows_and_says_where_to_go_on() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let empty = page(&hub.get("/v1/changes"));
    let zero = at(&store, 0);
    assert_eq!(empty, json!({ "events": [], "next": zero, "floor": zero, "end": zero }));
    store.transaction(|tx| (0..2_500).try_for_each(|n| tx.set("g", &n.to_string(), "v").map(drop)))?;
    store.with_origin("page").set("rare", "k", "a long value")?;
    let (mut after, mut nexts) = (zero, Vec::new());
    for _ in 0..3 {
        // There is more, so there is nothing to wait for.
        let page = page(&hub.get(&format!("/v1/changes?group=rare&wait=50s&after={after}")));
        assert_eq!(page["end"], at(&store, 2_501));
        after = page["next"].as_str().ok_or("a position")?.to_owned();
        nexts.push((revisions(&page), after.clone()));
    }
    assert_eq!(
        nexts,
        [(vec![], at(&store, 1_000)), (vec![], at(&store, 2_000)), (vec![2_501], at(&store, 2_501))]
    );
    let short = page(&hub.get(&format!("/v1/changes?values=4&after={}", at(&store, 2_500))));
    assert_eq!((&short["events"][0]["value_bytes"], short["events"][0].get("value")), (&json!(12), None));
    for which in ["exclude_origin=page", "kinds=delete", "group=rare&key=other", "group_prefix=rarer"] {
        let none = page(&hub.get(&format!("/v1/changes?{which}&after={}", at(&store, 2_500))));
        assert_eq!((revisions(&none), &none["next"]), (vec![], &json!(at(&store, 2_501))), "{which}");
    }
    Ok(())
}

#[test]
fn a_position_that_nothing_can_go_on_from_is_refused_and_the_floor_named() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    (0..20).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
    store.compact(Revision::new(11))?;
    for lost in [
        format!("after={}", at(&store, 3)),
        format!("after={}&upto={}", at(&store, 3), at(&store, 5)),
        format!("upto={}", at(&store, 5)),
    ] {
        let gone = hub.get(&format!("/v1/changes?{lost}"));
        assert_eq!(gone.refusal(), (410, "trimmed".to_owned()), "{lost}");
        let floor = gone.json()["floor"].as_str().ok_or("a floor")?.to_owned();
        let from_floor = page(&hub.get(&format!("/v1/changes?after={floor}")));
        assert_eq!(revisions(&from_floor), (11..=20).collect::<Vec<_>>());
        assert_eq!(from_floor["floor"], floor);
        assert_eq!(from_floor, page(&hub.get("/v1/changes")));
    }
    let foreign = at(&Store::open_in_memory()?, 12);
    for (kind, position) in [("foreign_cursor", foreign), ("lost_cursor", at(&store, 21))] {
        for given in [format!("after={position}"), format!("after={}&upto={position}", at(&store, 12))] {
            assert_eq!(hub.get(&format!("/v1/changes?{given}")).refusal(), (409, kind.to_owned()), "{given}");
        }
    }
    for bad in [
        "limit=0".to_owned(),
        "limit=1001".to_owned(),
        "limit=all".to_owned(),
        "after=nonsense".to_owned(),
        "upto=nonsense".to_owned(),
        "snapshot=auto".to_owned(),
        "key_prefix=k".to_owned(),
        "wait=51s".to_owned(),
        "wait=5".to_owned(),
        format!("wait=1s&upto={}", at(&store, 12)),
        format!("after={}&upto={}", at(&store, 13), at(&store, 12)),
    ] {
        assert_eq!(
            hub.get(&format!("/v1/changes?{bad}")).refusal(),
            (400, "invalid_argument".to_owned()),
            "{bad}"
        );
    }
    Ok(())
}

#[test]
fn what_lies_between_two_positions_may_be_kept_for_ever() -> Result {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("app.db"))?;
    let hub = Hub::over(&store);
    for n in 0..10 {
        store.set("a/b & c", &n.to_string(), "v")?;
        store.set("other", &n.to_string(), "v")?;
    }
    let full = hub.get("/v1/changes?group=a%2Fb+%26+c&limit=5&wait=1s");
    assert_eq!(revisions(&page(&full)), [1, 3, 5]);
    let link = full.header("link").ok_or("no link")?;
    let target =
        link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"bookmark\"")).ok_or(link)?;
    let lasting = format!("/v1/changes{target}");
    let first = hub.get(&lasting);
    assert_eq!((first.status, first.header("cache-control")), (200, Some(FOR_EVER)), "{lasting}");
    assert_eq!((first.header("link"), first.cursor()), (None, &*at(&store, 5)));
    let whole = first.json();
    assert_eq!((revisions(&whole), &whole["next"]), (vec![1, 3, 5], &json!(at(&store, 5))));
    // The same bytes, whatever becomes of the store.
    store.set("a/b & c", "new", "v")?;
    store.compact(Revision::new(1))?;
    assert_eq!(hub.get(&lasting).body, first.body);

    let (two, nine) = (at(&store, 2), at(&store, 9));
    let between = hub.get(&format!("/v1/changes?ns=&after={two}&upto={nine}"));
    assert_eq!(
        (revisions(&between.json()), between.header("cache-control")),
        ((3..=9).collect(), Some(FOR_EVER))
    );
    let nothing = hub.get(&format!("/v1/changes?after={two}&upto={two}"));
    assert_eq!(nothing.json(), json!({ "events": [], "next": two }));
    // The same address may be that of another namespace tomorrow.
    page(&hub.get(&format!("/v1/changes?after={two}&upto={nine}")));
    // Not the whole of it, without a beginning, without an end: none of that is the same for ever.
    let part = page(&hub.get(&format!("/v1/changes?ns=&after={two}&upto={nine}&limit=3")));
    assert_eq!((revisions(&part), &part["next"]), (vec![3, 4, 5], &json!(at(&store, 5))));
    let begin = page(&hub.get(&format!("/v1/changes?ns=&upto={nine}")));
    assert_eq!((revisions(&begin), &begin["next"]), ((1..=9).collect(), &json!(nine)));
    let open = hub.get(&format!("/v1/changes?ns=&after={nine}"));
    assert_eq!((revisions(&page(&open)), open.header("link")), ((10..=21).collect(), None));
    Ok(())
}

#[test]
fn a_store_that_may_lose_its_end_has_no_lasting_pages() -> Result {
    let folder = tempfile::tempdir()?;
    let store = Options::new().durability(Durability::Relaxed).open(folder.path().join("app.db"))?;
    let hub = Hub::over(&store);
    (0..5).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
    let full = hub.get("/v1/changes?limit=2");
    assert_eq!((revisions(&page(&full)), full.header("link")), (vec![1, 2], None));
    let between = page(&hub.get(&format!("/v1/changes?after={}&upto={}", at(&store, 1), at(&store, 3))));
    assert_eq!(revisions(&between), [2, 3]);
    Ok(())
}

#[test]
fn the_namespace_of_the_handle_is_the_only_one() -> Result {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("app.db"))?;
    let scoped = store.scoped("a")?;
    store.set("b:g", "k", "v")?;
    scoped.set("g", "k", "v")?;
    store.set("b:g", "k", "v")?;
    let (whole, own) = (Hub::over(&store), Hub::over(&scoped));
    let full = own.get("/v1/changes?limit=2&ns=a");
    let told = page(&full);
    assert_eq!((revisions(&told), &told["events"][0]["group"]), (vec![2], &json!("g")));
    assert_eq!(told, page(&own.get("/v1/changes?limit=2")));
    assert!(full.header("link").is_some_and(|link| link.starts_with("<?ns=a&after=")), "{full:?}");
    assert_eq!(revisions(&page(&whole.get("/v1/changes?ns="))), [1, 2, 3]);
    for (hub, other) in [(&whole, "a"), (&own, "b"), (&own, "")] {
        let refused = hub.get(&format!("/v1/changes?ns={other}"));
        assert_eq!(refused.refusal(), (403, "foreign_namespace".to_owned()), "{other}");
    }
    Ok(())
}

#[test]
fn a_page_without_a_match_waits_for_one() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    store.set("g", "k", "old")?;
    let target = format!("/v1/changes?group=g&exclude_origin=me&wait=50s&after={}", at(&store, 1));
    let waiting = hub.begin("GET", &target, &[], b"");
    // The server has one thread, and answers others meanwhile.
    wait_for(&hub, 1)?;
    store.set("other", "k", "v")?;
    store.with_origin("me").set("g", "k", "mine")?;
    hub.put("/v1/entry?group=g&key=k", "new");
    let told = page(&waiting.answer());
    assert_eq!((revisions(&told), &told["events"][0]["value"]), (vec![4], &json!("new")));
    assert_eq!((&told["next"], &told["end"]), (&json!(at(&store, 4)), &json!(at(&store, 4))));
    // What is there already is not waited for.
    assert_eq!(page(&hub.get(&target)), told);
    wait_for(&hub, 0)
}

#[test]
fn a_wait_goes_on_over_any_number_of_rows_that_do_not_match() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    store.set("g", "k", "v")?;
    let target = format!("/v1/changes?group=g&wait=50s&limit=1&after={}", at(&store, 1));
    let waiting = hub.begin("GET", &target, &[], b"");
    wait_for(&hub, 1)?;
    store.transaction(|tx| {
        (0..1_500).try_for_each(|n| tx.set("other", &n.to_string(), "v").map(drop))?;
        tx.set("g", "k", "new")
    })?;
    assert_eq!(revisions(&page(&waiting.answer())), [1_502]);
    Ok(())
}

#[test]
fn a_wait_without_a_match_ends_in_time_and_goes_on_behind_what_did_not_match() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    store.set("g", "k", "v")?;
    let start = Instant::now();
    let target = format!("/v1/changes?group=g&wait=1s&after={}", at(&store, 1));
    let waiting = hub.begin("GET", &target, &[], b"");
    let mut last = store.set("other", "k", "v")?;
    while start.elapsed() < Duration::from_millis(200) {
        last = store.set("other", "k", "v")?;
        pause();
    }
    let in_time = start.elapsed() < Duration::from_millis(900);
    let told = page(&waiting.answer());
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert!(revisions(&told).is_empty(), "{told}");
    assert!(!in_time || told["next"] == at(&store, last.get()), "{told}");
    wait_for(&hub, 0)
}

#[test]
fn a_wait_ends_with_the_server_and_with_its_client() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let dropped = hub.begin("GET", "/v1/changes?wait=50s", &[], b"");
    let waiting = hub.begin("GET", "/v1/changes?group=g&wait=50s", &[], b"");
    wait_for(&hub, 2)?;
    drop(dropped);
    wait_for(&hub, 1)?;
    let start = Instant::now();
    hub.close();
    assert_eq!(waiting.answer().refusal(), (503, "ending".to_owned()));
    assert!(start.elapsed() < Duration::from_secs(30), "it waited for the time to end");
    Ok(())
}

#[test]
fn a_wait_ends_when_the_store_closes() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let waiting = hub.begin("GET", "/v1/changes?wait=50s", &[], b"");
    wait_for(&hub, 1)?;
    store.close()?;
    assert_eq!(waiting.answer().refusal(), (503, "closed".to_owned()));
    Ok(())
}
