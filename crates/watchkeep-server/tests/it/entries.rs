//! Entries, groups and lists over HTTP.

use std::time::Duration;

use serde_json::json;
use watchkeep::{Revision, SetOptions, Store};

use crate::support::{Result, Served};

const ENTRY: &str = "/v1/entry?group=g&key=k";

fn served() -> Result<(Store, Served)> {
    let store = Store::open_in_memory()?;
    let served = Served::start(&store)?;
    Ok((store, served))
}

#[test]
fn a_value_comes_back_with_what_is_known_of_it() -> Result {
    let (store, served) = served()?;
    let put = served.ask(
        &format!("PUT {ENTRY}&ttl=1h"),
        &[("Content-Type", "image/png"), ("Watchkeep-Origin", "me")],
        b"\x00\xff",
    )?;
    let cursor = store.cursor(Revision::new(1)).to_string();
    assert_eq!((put.status, put.header("watchkeep-cursor")), (204, Some(&*cursor)));
    assert_eq!(put.header("etag"), Some(&*format!("\"{cursor}\"")));
    let got = served.ask(&format!("GET {ENTRY}"), &[], b"")?;
    assert_eq!((got.status, got.body.as_slice()), (200, b"\x00\xff".as_slice()));
    assert_eq!(got.header("content-type"), Some("image/png"));
    assert!(got.header("watchkeep-expires").is_some() && got.header("content-disposition").is_none());
    for (name, value) in [
        ("content-security-policy", "sandbox; default-src 'none'"),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "private, no-cache"),
    ] {
        assert_eq!(got.header(name), Some(value));
    }
    let head = served.ask(&format!("HEAD {ENTRY}"), &[], b"")?;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("2"), 0));
    let known = served.ask(&format!("GET {ENTRY}"), &[("If-None-Match", &format!("W/\"{cursor}\""))], b"")?;
    assert_eq!((known.status, known.body.len()), (304, 0));
    let mut log = store.history(watchkeep::Filter::everything(), Revision::ZERO);
    assert_eq!(log.next().ok_or("no event")??.origin(), Some("me"));
    Ok(())
}

#[test]
fn what_a_browser_could_run_is_an_attachment_and_a_form_has_no_type() -> Result {
    let (store, served) = served()?;
    for (kind, attached) in
        [("text/html", true), ("image/svg+xml", true), ("text/plain; charset=utf-8", false)]
    {
        served.ask(&format!("PUT {ENTRY}"), &[("Content-Type", kind)], b"<script>")?;
        let got = served.ask(&format!("GET {ENTRY}"), &[], b"")?;
        assert_eq!(got.header("content-disposition").is_some(), attached, "{kind}");
    }
    served.ask(&format!("PUT {ENTRY}"), &[("Content-Type", "application/x-www-form-urlencoded")], b"a=b")?;
    assert_eq!(store.entry("g", "k")?.and_then(|entry| entry.content_type), None);
    Ok(())
}

#[test]
fn conditions_are_kept_and_a_refusal_is_a_problem_document() -> Result {
    let (store, served) = served()?;
    let absent = [("If-None-Match", "*")];
    assert_eq!(served.ask(&format!("PUT {ENTRY}"), &absent, b"1")?.status, 204);
    let refused = served.ask(&format!("PUT {ENTRY}"), &absent, b"2")?;
    assert_eq!((refused.status, refused.header("content-type")), (412, Some("application/problem+json")));
    assert_eq!(refused.json()?["kind"], "conflict");
    let tag = format!("\"{}\"", store.cursor(Revision::new(1)));
    let at = [("If-Match", &*tag)];
    assert_eq!(served.ask(&format!("PUT {ENTRY}"), &at, b"2")?.status, 204);
    assert_eq!(served.ask(&format!("PUT {ENTRY}"), &at, b"3")?.status, 412);
    assert_eq!(served.ask(&format!("DELETE {ENTRY}"), &at, b"")?.status, 412);
    // A cursor of another store holds for no entry of this one.
    let foreign = format!("\"{}\"", Store::open_in_memory()?.cursor(Revision::new(2)));
    assert_eq!(served.ask(&format!("PUT {ENTRY}"), &[("If-Match", &foreign)], b"3")?.status, 412);
    let now = format!("\"{}\"", store.cursor(Revision::new(2)));
    let deleted = served.ask(&format!("DELETE {ENTRY}"), &[("If-Match", &now)], b"")?;
    assert_eq!(deleted.header("watchkeep-cursor"), Some(&*store.cursor(Revision::new(3)).to_string()));
    assert_eq!(served.ask(&format!("DELETE {ENTRY}"), &[], b"")?.status, 404);
    Ok(())
}

#[test]
fn a_time_to_live_is_given_kept_and_taken_away() -> Result {
    let (store, served) = served()?;
    store.set_with("g", "k", "v", SetOptions::new().ttl(Duration::from_secs(60)))?;
    let deadline = || Ok::<_, watchkeep::Error>(store.entry("g", "k")?.and_then(|entry| entry.deadline));
    let first = deadline()?;
    served.ask(&format!("PUT {ENTRY}&keep_ttl"), &[], b"w")?;
    assert_eq!(deadline()?, first);
    let touched = served.ask(&format!("PATCH {ENTRY}&ttl=7d"), &[], b"")?;
    assert!(touched.status == 204 && touched.header("watchkeep-expires").is_some() && deadline()? > first);
    let kept = served.ask(&format!("PATCH {ENTRY}&persist"), &[], b"")?;
    assert!(kept.status == 204 && kept.header("watchkeep-expires").is_none() && deadline()?.is_none());
    for bad in ["", "&ttl=1h&persist", "&ttl=soon", "&persist=maybe"] {
        assert_eq!(served.ask(&format!("PATCH {ENTRY}{bad}"), &[], b"")?.status, 400, "{bad}");
    }
    assert_eq!(served.ask("PATCH /v1/entry?group=g&key=none&ttl=1h", &[], b"")?.status, 404);
    Ok(())
}

#[test]
fn a_range_of_a_value_is_enough() -> Result {
    let (store, served) = served()?;
    let tag = format!("\"{}\"", store.cursor(store.set("g", "k", "0123456789")?));
    let other = format!("\"{}\"", store.cursor(Revision::new(9)));
    for (range, when, status, body) in [
        ("bytes=2-4", None, 206, "234"),
        ("bytes=7-", None, 206, "789"),
        ("bytes=-2", None, 206, "89"),
        ("bytes=5-99", None, 206, "56789"),
        ("bytes=0-0", Some(&tag), 206, "0"),
        ("bytes=0-0", Some(&other), 200, "0123456789"),
        ("bytes=0-1,3-4", None, 200, "0123456789"),
        ("lines=1-2", None, 200, "0123456789"),
    ] {
        let mut headers = vec![("Range", range)];
        headers.extend(when.map(|tag| ("If-Range", tag.as_str())));
        let got = served.ask(&format!("GET {ENTRY}"), &headers, b"")?;
        assert_eq!((got.status, got.text().as_str()), (status, body), "{range}");
    }
    assert_eq!(served.ask(&format!("GET {ENTRY}"), &[("Range", "bytes=10-")], b"")?.status, 416);
    Ok(())
}

#[test]
fn names_are_any_text_and_bodies_have_a_limit() -> Result {
    let (store, served) = served()?;
    served.ask("PUT /v1/entry?group=a%2Fb%25+c&key=%0A%F0%9F%A6%80", &[], b"v")?;
    assert_eq!(store.get("a/b% c", "\n🦀")?.ok_or("not there")?, "v");
    assert_eq!(served.ask(&format!("PUT {ENTRY}"), &[], &vec![b'x'; 16 << 20])?.status, 204);
    let refused = served.ask(&format!("PUT {ENTRY}"), &[], &vec![b'x'; (16 << 20) + 1])?;
    assert_eq!((refused.status, refused.header("content-type")), (413, Some("application/problem+json")));
    for (what, status) in [
        ("GET /v1/entry?group=g", 400),
        ("GET /v1/entry?group=g&key=k&kye=k", 400),
        ("GET /v1/entry?group=g&key=%ff", 400),
        ("GET /v1/entry?group=g&key=none", 404),
        ("POST /v1/entry?group=g&key=k", 405),
        ("GET /v2", 404),
    ] {
        let refused = served.ask(what, &[], b"")?;
        assert_eq!(refused.status, status, "{what}");
        assert_eq!(refused.json()?["status"], status, "{what}");
    }
    Ok(())
}

#[test]
fn groups_and_keys_are_listed_in_pages() -> Result {
    let (store, served) = served()?;
    for group in ["a", "b1", "b2", "b3"] {
        store.set(group, "k1", "value")?;
        store.set(group, "k2", vec![0xff])?;
    }
    let ask = |what: &str| served.ask(&format!("GET {what}"), &[], b"")?.json();
    assert_eq!(ask("/v1/groups?prefix=b&limit=2")?, json!({ "groups": ["b1", "b2"], "next": "b2" }));
    assert_eq!(ask("/v1/groups?prefix=b&after=b2")?, json!({ "groups": ["b3"], "next": null }));
    let first = ask("/v1/keys?group=a&limit=1")?;
    assert_eq!((&first["keys"][0]["key"], &first["next"]), (&"k1".into(), &"k1".into()));
    assert_eq!((&first["keys"][0]["value_bytes"], first["keys"][0].get("value")), (&5.into(), None));
    let rest = ask("/v1/keys?group=a&after=k1&values")?;
    assert_eq!((&rest["keys"][0]["value_base64"], &rest["next"]), (&"/w==".into(), &json!(null)));
    assert_eq!(ask("/v1/group?group=a")?, json!({ "group": "a", "keys": 2 }));
    let gone = served.ask("DELETE /v1/group?group=a", &[], b"")?;
    assert_eq!((gone.status, gone.json()?["keys"].as_u64()), (200, Some(2)));
    assert_eq!(gone.header("watchkeep-cursor"), Some(&*store.cursor(Revision::new(9)).to_string()));
    assert_eq!(served.ask("DELETE /v1/group?group=a", &[], b"")?.status, 404);
    for bad in ["limit=0", "limit=257", "limit=x", "prefx=b"] {
        assert_eq!(served.ask(&format!("GET /v1/groups?{bad}"), &[], b"")?.status, 400, "{bad}");
    }
    let stats = ask("/v1/stats")?;
    assert_eq!((&stats["entries"], &stats["groups"], &stats["streams"]), (&6.into(), &3.into(), &0.into()));
    assert!(stats.get("path").is_none());
    Ok(())
}

#[test]
fn strangers_are_refused_on_every_route() -> Result {
    let (store, served) = served()?;
    for path in
        ["/", "/page.js", "/v1/entry?group=g&key=k", "/v1/watch", "/v1/groups", "/v1/stats", "/nothing"]
    {
        for headers in [
            [("Host", "evil.example"), ("Accept", "*/*")],
            [("Origin", "http://evil.example"), ("Accept", "*/*")],
            [("Origin", "null"), ("Accept", "*/*")],
            [("Sec-Fetch-Site", "cross-site"), ("Accept", "*/*")],
        ] {
            assert_eq!(served.ask(&format!("GET {path}"), &headers, b"")?.status, 403, "{path} {headers:?}");
        }
    }
    let forged = served.ask(&format!("PUT {ENTRY}"), &[("Origin", "http://evil.example")], b"v")?;
    assert_eq!((forged.status, store.get("g", "k")?), (403, None));
    Ok(())
}
