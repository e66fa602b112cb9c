//! `/v1/entry`, and the same under `/v1/groups/{group}/keys/{key}`.

use std::error::Error;
use std::time::Duration;

use watchkeep::Store;

use crate::support_entries::{Hub, encoded};

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

const THEME: &str = "/v1/entry?group=config&key=theme";
const LARGEST: usize = 16 << 20;

fn refusal(status: u16, kind: &str) -> (u16, String) {
    (status, kind.to_owned())
}

#[test]
fn a_value_comes_back_as_it_was_put_and_each_answer_has_its_cursor() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    assert_eq!(hub.get(THEME).refusal(), refusal(404, "not_found"));

    let put = hub.ask("PUT", THEME, &[("Content-Type", "text/plain; charset=utf-8")], b"dark");
    assert_eq!(put.status, 204);
    let at = store.cursor(store.last_revision()?).to_string();
    assert_eq!(put.cursor(), at);
    assert_eq!(put.header("etag"), Some(format!("\"{at}\"").as_str()));

    let got = hub.get(THEME);
    assert_eq!((got.status, got.text(), got.cursor()), (200, "dark", at.as_str()));
    assert_eq!(got.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(got.header("accept-ranges"), Some("bytes"));
    assert_eq!(got.header("cache-control"), Some("private, no-cache"));
    assert_eq!(got.header("vary"), Some("Authorization"));
    assert_eq!(got.header("content-disposition"), None);

    let head = hub.ask("HEAD", THEME, &[("Range", "bytes=0-1")], b"");
    assert_eq!((head.status, head.header("content-length"), head.cursor()), (200, Some("4"), at.as_str()));

    for (name, said, status) in [("If-Match", "\"b-1\"", 412), ("Range", "bytes=9-", 416)] {
        let refused = hub.ask("GET", THEME, &[(name, said)], b"");
        assert_eq!(
            (refused.status, refused.header("etag"), refused.header("watchkeep-cursor")),
            (status, None, None)
        );
    }

    let deleted = hub.ask("DELETE", THEME, &[], b"");
    assert_eq!(
        (deleted.status, deleted.cursor()),
        (204, store.cursor(store.last_revision()?).to_string().as_str())
    );
    assert_eq!(hub.ask("DELETE", THEME, &[], b"").refusal(), refusal(404, "not_found"));
    assert_eq!(hub.ask("HEAD", THEME, &[], b"").status, 404);
    Ok(())
}

#[test]
fn names_are_any_utf8_in_the_query_and_in_the_path() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    for (index, name) in
        ["a/b", "100%", "%2F", "a b+c", "\n", "\0", "é & ü=?#", "..", "{key}", "日本"].iter().enumerate()
    {
        let value = format!("value {index}");
        let code = encoded(name);
        let by_query = format!("/v1/entry?key={code}&group={code}");
        let by_path = format!("/v1/groups/{code}/keys/{code}");
        assert_eq!(hub.put(&by_path, &value).status, 204, "{name:?}");
        assert_eq!(store.get(name, name)?.as_deref(), Some(value.as_bytes()), "{name:?}");
        assert_eq!(hub.get(&by_query).text(), value, "{name:?}");
        assert_eq!(hub.get(&by_path).text(), value, "{name:?}");
        assert_eq!(hub.ask("PATCH", &format!("{by_path}?ttl=1h"), &[], b"").status, 204, "{name:?}");
        assert_eq!(hub.ask("DELETE", &by_path, &[], b"").status, 204, "{name:?}");
        assert_eq!(store.get(name, name)?, None, "{name:?}");
    }
    Ok(())
}

#[test]
fn names_are_as_short_and_as_long_as_the_store_takes_them() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    assert_eq!(hub.put("/v1/entry?group=&key=", "empty").status, 204);
    assert_eq!(store.get("", "")?.as_deref(), Some(b"empty".as_slice()));
    assert_eq!(hub.get("/v1/entry?group=&key").text(), "empty");
    assert_eq!(hub.get("/v1/keys?group=").json()["keys"][0]["key"], "");
    assert_eq!(hub.get("/v1/groups").json()["groups"], serde_json::json!([""]));
    assert_eq!(hub.get("/v1/group?group=").json()["count"], 1);
    assert_eq!(hub.get("/v1/changes?group=&key=").json()["events"][0]["key"], "");
    assert_eq!(hub.ask("PATCH", "/v1/entry?group=&key=&ttl=1h", &[], b"").status, 204);
    assert_eq!(hub.ask("DELETE", "/v1/entry?group=&key=", &[], b"").status, 204);
    assert_eq!(hub.ask("DELETE", "/v1/group?group=", &[], b"").json()["count"], 0);
    // In a path, a group may be empty, too; a key has no place there then.
    assert_eq!(hub.put("/v1/groups//keys/k", "v").status, 204);
    assert_eq!(store.get("", "k")?.as_deref(), Some(b"v".as_slice()));
    assert_eq!(hub.get("/v1/groups//keys/").refusal(), refusal(404, "no_route"));
    // The store says how long a name may be, and the document nothing else.
    let longest = "k".repeat(1_024);
    assert_eq!(hub.put(&format!("/v1/entry?group=g&key={longest}"), "v").status, 204);
    let document = hub.get("/v1/openapi.json").json().to_string();
    assert!(!document.contains("minLength") && !document.contains("maxLength"), "{document}");
    Ok(())
}

#[test]
fn a_body_that_is_coded_or_a_part_is_refused_and_nothing_is_stored() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    for (name, said, status, kind) in [
        ("Content-Range", "bytes 0-3/10", 400, "invalid_argument"),
        ("Content-Encoding", "gzip", 415, "unknown_encoding"),
        ("Content-Encoding", "identity, br", 415, "unknown_encoding"),
        ("Transfer-Encoding", "gzip, chunked", 501, "unknown_encoding"),
        ("Transfer-Encoding", "x,chunked", 501, "unknown_encoding"),
    ] {
        let body = if name == "Transfer-Encoding" { "4\r\ndark\r\n0\r\n\r\n" } else { "dark" };
        for (method, target) in [("PUT", THEME), ("PUT", "/v1/groups/config/keys/theme")] {
            let answer = hub.ask(method, target, &[(name, said)], body.as_bytes());
            assert_eq!(answer.refusal(), refusal(status, kind), "{name}: {said}");
        }
    }
    assert_eq!(store.get("config", "theme")?, None);
    let chunked = hub.ask("PUT", THEME, &[("Transfer-Encoding", "Chunked")], b"4\r\ndark\r\n0\r\n\r\n");
    assert_eq!((chunked.status, hub.get(THEME).text()), (204, "dark"));
    let identity = [("Content-Encoding", "Identity"), ("Content-Encoding", "")];
    assert_eq!(hub.ask("PUT", THEME, &identity, b"light").status, 204);
    Ok(())
}

#[test]
fn a_request_that_is_not_understood_is_refused_with_what_to_do() -> Result {
    let store = Store::open_in_memory()?;
    store.set("config", "theme", "dark")?;
    let hub = Hub::over(&store);
    for (method, target) in [
        ("GET", "/v1/entry"),
        ("GET", "/v1/entry?group=config"),
        ("PUT", "/v1/entry?key=theme"),
        ("DELETE", "/v1/entry"),
        ("PATCH", "/v1/entry?ttl=1s"),
        ("GET", "/v1/entry?group=config&key=theme&kye=1"),
        ("GET", "/v1/entry?group=config&key=theme&key=theme"),
        ("GET", "/v1/entry?group=%FF&key=theme"),
        ("GET", "/v1/groups/%FF/keys/theme"),
        ("GET", "/v1/entry?group=%ZZ&key=theme"),
        ("PUT", "/v1/entry?group=config&key=theme%"),
        ("PUT", "/v1/groups/config/keys/%4"),
        ("DELETE", "/v1/groups/%zz/keys/theme"),
        ("GET", "/v1/groups?prefix=%%41"),
        ("GET", "/v1/watch?group=%+1"),
        ("GET", "/v1/stats?%4G"),
        ("GET", "/v1/ws?origin=%ZZ"),
        ("GET", "/v1/groups/config/keys/theme?group=config"),
        ("GET", "/v1/entry?group=config&key=theme&ttl=1s"),
        ("PUT", "/v1/entry?group=config&key=theme&min=x"),
        ("PUT", "/v1/entry?group=config&key=theme&ttl=1h&keep_ttl"),
        ("PUT", "/v1/entry?group=config&key=theme&ttl=soon"),
        ("PATCH", "/v1/entry?group=config&key=theme"),
        ("PATCH", "/v1/entry?group=config&key=theme&ttl=1h&persist"),
        ("PATCH", "/v1/entry?group=config&key=theme&ttl=3000000d"),
    ] {
        let answer = hub.ask(method, target, &[], b"");
        assert_eq!(
            answer.refusal(),
            refusal(400, "invalid_argument"),
            "{method} {target}: {}",
            answer.text()
        );
    }
    for target in [THEME, "/v1/groups/config/keys/theme"] {
        for method in ["POST", "OPTIONS", "FROB"] {
            let answer = hub.ask(method, target, &[], b"");
            assert_eq!(answer.refusal(), refusal(405, "no_method"), "{method}");
            let mut allowed: Vec<_> = answer.header("allow").unwrap_or_default().split(',').collect();
            allowed.sort_unstable();
            assert_eq!(allowed, ["DELETE", "GET", "HEAD", "PATCH", "PUT"], "{method}");
        }
    }
    for (method, target) in [("PATCH", format!("{THEME}&persist")), ("DELETE", THEME.to_owned())] {
        assert_eq!(
            hub.ask(method, &target, &[], b"body").refusal(),
            refusal(400, "invalid_argument"),
            "{method}"
        );
    }
    assert_eq!(store.get("config", "theme")?.as_deref(), Some(b"dark".as_slice()));
    Ok(())
}

#[test]
fn bodies_are_taken_up_to_the_limit_and_refused_past_it() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let mut body = vec![b'x'; LARGEST];
    assert_eq!(hub.put(THEME, &body).status, 204);
    assert_eq!(hub.get(THEME).body, body);
    body.push(b'x');
    assert_eq!(hub.put(THEME, &body).refusal(), refusal(413, "too_large"));
    // What is far too large is refused before any of it is sent.
    let far = [("Content-Length", "99999999999"), ("Expect", "100-continue")];
    assert_eq!(hub.ask("PUT", THEME, &far, b"").refusal(), refusal(413, "too_large"));
    // So is what is a little too large, and what is coded, where the client waits to be told.
    let length = (LARGEST + 1).to_string();
    let little = [("Content-Length", length.as_str()), ("Expect", "100-continue")];
    assert_eq!(hub.ask("PUT", THEME, &little, b"").refusal(), refusal(413, "too_large"));
    let coded = [("Content-Length", "9"), ("Content-Encoding", "gzip"), ("Expect", "100-continue")];
    assert_eq!(hub.ask("PUT", THEME, &coded, b"").refusal(), refusal(415, "unknown_encoding"));
    // A name past its limit is refused alike.
    let long = format!("/v1/entry?group=g&key={}", "k".repeat(5_000));
    assert_eq!(hub.put(&long, "v").refusal(), refusal(413, "too_large"));
    assert_eq!(store.get("config", "theme")?.map(|value| value.len()), Some(LARGEST));
    Ok(())
}

#[test]
fn a_reader_that_has_the_value_is_told_so_and_learns_the_new_expiry() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let put = hub.put(&format!("{THEME}&ttl=1h"), "dark");
    let tag = format!("\"{}\"", put.cursor());
    let first = hub.get(THEME).header("watchkeep-expires").expect("an expiry").to_owned();
    let touched = hub.ask("PATCH", &format!("{THEME}&ttl=2h"), &[("If-Match", &tag)], b"");
    assert_eq!(touched.status, 204);
    // A new deadline is an event of its own, and leaves the value and its tag alone.
    assert_eq!(touched.header("etag"), Some(tag.as_str()));
    assert_eq!(touched.cursor(), store.cursor(store.last_revision()?).to_string());
    assert_ne!(touched.cursor(), put.cursor());
    let second = touched.header("watchkeep-expires").expect("an expiry").to_owned();
    assert!(second > first, "{second} is not after {first}");

    for tags in [tag.as_str(), "*", "\"b-1\", W/\"TAG\""] {
        let known = hub.ask("GET", THEME, &[("If-None-Match", &tags.replace("\"TAG\"", &tag))], b"");
        assert_eq!((known.status, known.header("etag")), (304, Some(tag.as_str())), "{tags}");
        assert_eq!(known.header("watchkeep-expires"), Some(second.as_str()));
    }
    assert_eq!(hub.ask("GET", THEME, &[("If-None-Match", "\"b-1\"")], b"").text(), "dark");

    let kept = hub.put(&format!("{THEME}&keep_ttl"), "light");
    assert_eq!(hub.get(THEME).header("watchkeep-expires"), Some(second.as_str()));
    let persisted = hub.ask("PATCH", &format!("{THEME}&persist"), &[], b"");
    assert_eq!((persisted.status, persisted.header("watchkeep-expires")), (204, None));
    assert_eq!(persisted.header("etag"), kept.header("etag"));
    assert_eq!(hub.get(THEME).header("watchkeep-expires"), None);
    assert_eq!(
        hub.ask("PATCH", "/v1/entry?group=config&key=none&persist", &[], b"").refusal(),
        refusal(404, "not_found")
    );
    Ok(())
}

#[test]
fn a_part_of_a_value_is_served_and_what_lies_behind_it_is_refused() -> Result {
    let store = Store::open_in_memory()?;
    store.set("config", "theme", "0123456789")?;
    store.set("config", "none", "")?;
    let hub = Hub::over(&store);
    let part = |range: &str| hub.ask("GET", THEME, &[("Range", range)], b"");
    for (range, span, bytes) in [
        ("bytes=2-4", "bytes 2-4/10", "234"),
        ("bytes=7-", "bytes 7-9/10", "789"),
        ("bytes=-1", "bytes 9-9/10", "9"),
    ] {
        let answer = part(range);
        assert_eq!((answer.status, answer.header("content-range"), answer.text()), (206, Some(span), bytes));
        assert_eq!(answer.header("content-security-policy"), Some("sandbox; default-src 'none'"));
        assert_eq!(answer.header("content-disposition"), Some("attachment"));
    }
    for range in ["bytes=10-", "bytes=-0"] {
        let answer = part(range);
        assert_eq!(answer.refusal(), refusal(416, "range_not_satisfiable"), "{range}");
        assert_eq!(answer.header("content-range"), Some("bytes */10"));
    }
    for range in ["bytes=0-1,3-4", "lines=1-2", "bytes=4-2", "x"] {
        assert_eq!((part(range).status, part(range).text()), (200, "0123456789"), "{range}");
    }
    let tag = hub.get(THEME).header("etag").expect("a tag").to_owned();
    for (known, status) in [(tag.clone(), 206), (format!("W/{tag}"), 200), ("\"b-1\"".to_owned(), 200)] {
        let answer = hub.ask("GET", THEME, &[("Range", "bytes=0-1"), ("If-Range", &known)], b"");
        assert_eq!(answer.status, status, "{known}");
    }
    let empty = hub.ask("GET", "/v1/entry?group=config&key=none", &[("Range", "bytes=0-")], b"");
    assert_eq!((empty.status, empty.header("content-range")), (416, Some("bytes */0")));
    Ok(())
}

#[test]
fn a_stored_value_is_not_a_page_whichever_way_it_is_asked_for() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    for target in [THEME, "/v1/groups/config/keys/theme"] {
        for (kind, attached) in [
            ("text/html", true),
            ("image/svg+xml", true),
            ("TEXT/PLAIN", false),
            ("Image/PNG ; x=y", false),
            ("text/plain, text/html", true),
            ("text/plain", false),
            ("image/png", false),
        ] {
            hub.ask("PUT", target, &[("Content-Type", kind)], b"<script>alert(1)</script>");
            for method in ["GET", "HEAD"] {
                let answer = hub.ask(method, target, &[], b"");
                assert_eq!(answer.header("content-type"), Some(kind));
                assert_eq!(answer.header("content-security-policy"), Some("sandbox; default-src 'none'"));
                assert_eq!(answer.header("content-disposition").is_some(), attached, "{kind}");
            }
        }
        for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "POST"] {
            let answer = hub.ask(method, target, &[], b"");
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{method}");
            assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"), "{method}");
            let foreign = hub.ask(method, target, &[("Origin", "http://evil.example")], b"");
            assert_eq!(foreign.status, 403, "{method}");
            assert_eq!(foreign.header("x-content-type-options"), Some("nosniff"), "{method}");
        }
    }
    // What `curl -d` says of anything is not kept.
    for form in ["", ";charset=UTF-8", " ; charset=UTF-8"] {
        for name in ["application/x-www-form-urlencoded", "Application/X-WWW-Form-URLencoded"] {
            hub.ask("PUT", THEME, &[("Content-Type", "text/plain")], b"dark");
            hub.ask("PUT", THEME, &[("Content-Type", &format!("{name}{form}"))], b"dark");
            assert_eq!(
                hub.get(THEME).header("content-type"),
                Some("application/octet-stream"),
                "{name}{form}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_read_waits_until_the_store_is_as_new_as_it_asks() -> Result {
    let store = Store::open_in_memory()?;
    let now = store.set("config", "theme", "dark")?;
    let hub = Hub::over(&store);
    let at = |cursor: &str| format!("{THEME}&min={cursor}");
    assert_eq!(hub.get(&at(&store.cursor(now).to_string())).text(), "dark");

    let ahead = store.cursor(watchkeep::Revision::new(now.get() + 2)).to_string();
    let waiting: Vec<_> = (0..8).map(|_| hub.begin("GET", &at(&ahead), &[], b"")).collect();
    // Others are served meanwhile; one write is not enough.
    store.set("config", "theme", "grey")?;
    assert_eq!(hub.get(THEME).text(), "grey");
    store.set("config", "theme", "light")?;
    for asked in waiting {
        assert_eq!(asked.answer().text(), "light");
    }

    let other = Store::open_in_memory()?;
    let foreign = other.cursor(other.set("g", "k", "v")?).to_string();
    assert_eq!(hub.get(&at(&foreign)).refusal(), refusal(409, "foreign_cursor"));
    assert_eq!(hub.get(&at("nonsense")).status, 400);

    // The end of the server ends the wait.
    let never = store.cursor(watchkeep::Revision::new(1_000)).to_string();
    let asked = hub.begin("GET", &at(&never), &[], b"");
    // Its answer comes after the other's, which was asked for later.
    assert_eq!(hub.get(THEME).status, 200);
    hub.close();
    assert_eq!(asked.answer().refusal(), refusal(503, "ending"));
    Ok(())
}

#[test]
fn a_write_bears_the_label_of_its_writer() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let mut watcher = store.watch("config", "*");
    for (method, target) in [("PUT", THEME.to_owned()), ("DELETE", THEME.to_owned())] {
        assert_eq!(hub.ask(method, &target, &[("Watchkeep-Origin", "page-7")], b"").status, 204);
        let event = watcher.recv_timeout(Duration::from_secs(30)).expect("an event")?;
        assert_eq!(event.origin(), Some("page-7"), "{method}");
    }
    Ok(())
}
