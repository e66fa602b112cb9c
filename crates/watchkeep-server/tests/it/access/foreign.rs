//! A token of one namespace, and what it can find out about others.

use serde_json::Value;
use watchkeep::{Quota, SetOptions};
use watchkeep_server::{Grant, Rights};

use super::{Guarded, operations};
use crate::support::{Result, Stream};

/// What must not be seen.
const CANARY: &str = "canary";

/// What stands for positions and times, which one sequence of revisions lets everybody see.
fn without_revisions(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    let flush = |word: &mut String, out: &mut String| {
        out.push_str(if word.parse::<watchkeep::Cursor>().is_ok() { "CURSOR" } else { word });
        word.clear();
    };
    for letter in text.chars() {
        if letter.is_ascii_alphanumeric() || letter == '-' {
            word.push(letter);
        } else {
            flush(&mut word, &mut out);
            out.push(letter);
        }
    }
    flush(&mut word, &mut out);
    out
}

/// The same of JSON, whose numbers and times have names.
fn blind(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                match name.as_str() {
                    "revision" | "created" | "commit" | "previous_revision" | "timestamp" | "updated" => {
                        *value = Value::Null;
                    }
                    _ => blind(value),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(blind),
        _ => {}
    }
}

fn shown(body: &[u8]) -> String {
    match serde_json::from_slice(body) {
        Ok(mut value) => {
            blind(&mut value);
            without_revisions(&value.to_string())
        }
        Err(_) => without_revisions(&String::from_utf8_lossy(body)),
    }
}

/// What a token of namespace `n` sees on all routes, each time from the same state of its namespace.
fn seen(guarded: &Guarded, token: &str) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    let bearer = format!("Bearer {token}");
    for (method, target) in operations(&guarded.hub) {
        let begins = guarded.store.cursor(guarded.store.last_revision()?);
        guarded.store.delete("n:g", "k")?;
        guarded.store.set_with("n:g", "k", "ours", SetOptions::new().content_type("text/plain"))?;
        let queries = match target.split('?').next().unwrap_or_default() {
            "/v1/changes" => vec![format!("&after={begins}"), "&ns=other".to_owned(), "&ns=".to_owned()],
            "/v1/watch" => {
                let mut stream =
                    Stream::open(guarded.hub.address, "snapshot=auto", &[("Authorization", &bearer)])?;
                let (frames, _) = stream.upto("ready")?;
                seen.extend(frames.into_iter().map(|mut frame| {
                    blind(&mut frame.data);
                    without_revisions(&format!("{} {}", frame.event, frame.data))
                }));
                continue;
            }
            "/v1/ws" => {
                // Upgraded, it is tried elsewhere.
                let answer = guarded.hub.ask(&method, &target, &[("Authorization", &bearer)], b"");
                seen.push(format!("{method} {target} {} {}", answer.status, shown(&answer.body)));
                continue;
            }
            _ if target.contains("group=") => vec![String::new()],
            _ => vec![String::new(), "&prefix=c".to_owned(), "&after=a".to_owned()],
        };
        for query in queries {
            let answer = guarded.ask(&method, &format!("{target}{query}"), token);
            seen.push(format!("{method} {target} {} {}", answer.status, shown(&answer.body)));
        }
        // Names of other namespaces, as the whole store knows them, are just names here.
        for group in ["other:canary", "canary"] {
            if target.contains("group=g") {
                let foreign = target.replace("group=g", &format!("group={}", group.replace(':', "%3A")));
                let foreign = foreign.replace("key=k", "key=canary");
                let answer = guarded.ask(if method == "PUT" { "GET" } else { &method }, &foreign, token);
                seen.push(format!("{method} {} {}", answer.status, shown(&answer.body)));
            }
        }
    }
    Ok(seen)
}

#[test]
fn a_token_of_one_namespace_sees_nothing_of_others_on_any_route() -> Result {
    let guarded = Guarded::start()?;
    let token = guarded.token(Grant::new(Rights::ALL).namespace("n"))?;
    let all = guarded.token(Grant::new(Rights::ALL))?;
    let before = seen(&guarded, &token)?;
    for group in ["other:canary", "canary", "other:g", "g", "no", "n-2:g"] {
        for key in ["canary", "k"] {
            guarded.store.set(group, key, CANARY)?;
        }
    }
    let bearer = format!("Bearer {all}");
    let _watching: Vec<_> = (0..3)
        .map(|_| {
            let mut stream =
                Stream::open(guarded.hub.address, "snapshot=auto", &[("Authorization", &bearer)])?;
            stream.upto("ready").map(|_| stream)
        })
        .collect::<Result<_>>()?;
    let after = seen(&guarded, &token)?;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    assert_eq!(before.len(), after.len());
    assert_eq!(guarded.store.get("other:canary", "canary")?.ok_or("it is gone")?, CANARY);
    assert_eq!(guarded.store.get("g", "k")?.ok_or("it is gone")?, CANARY);
    // What the whole store's token sees is more, so this test could fail.
    assert_ne!(seen(&guarded, &all)?, after);
    Ok(())
}

#[test]
fn the_statistics_of_a_namespace_are_its_own() -> Result {
    let guarded = Guarded::start()?;
    guarded.store.set("n:g", "k", "12345")?;
    guarded.store.set("other:g", "k", "1234567890")?;
    let token = guarded.token(Grant::new(Rights::ALL).namespace("n"))?;
    let stats = guarded.ask("GET", "/v1/stats", &token).json();
    let expected =
        serde_json::json!({ "namespace": "n", "entries": 1, "groups": 1, "bytes": 6, "streams": 0 });
    assert_eq!(stats, expected);
    Ok(())
}

/// A quota is the store's to set: it binds the tokens of the namespace and those of the whole store alike.
#[test]
fn a_stored_quota_binds_whoever_writes_over_the_network() -> Result {
    let guarded = Guarded::start()?;
    let quota = Quota { max_keys: 1, ..Quota::default() };
    guarded.store.scoped("n")?.set_quota(quota)?;
    let put = |target: &str, token: &str| {
        let bearer = format!("Bearer {token}");
        guarded.hub.ask("PUT", target, &[("Authorization", &bearer)], b"v")
    };
    let own = guarded.token(Grant::new(Rights::ALL).namespace("n"))?;
    let whole = guarded.token(Grant::new(Rights::ALL))?;
    let full = (507, "quota_exceeded".to_owned());
    assert_eq!(put("/v1/entry?group=g&key=1", &own).status, 204);
    assert_eq!(put("/v1/entry?group=g&key=2", &own).refusal(), full);
    assert_eq!(put("/v1/entry?group=n:g&key=2", &whole).refusal(), full);
    assert_eq!(put("/v1/entry?group=g&key=2", &whole).status, 204);
    Ok(())
}
