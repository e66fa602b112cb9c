//! What a machine asks about a server: whether it runs, whether it is ready, and what it has done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Mutex, mpsc};
use std::time::Instant;

use watchkeep::{BackupOptions, Options, Store};
use watchkeep_server::{Access, Grant, Rights};

use crate::access::Guarded;
use crate::support::{LIMIT, Result, Stream};
use crate::support_entries::{Answer, Hub};

/// The samples of a text that is OpenMetrics, by name and labels as they stand there.
fn samples(answer: &Answer) -> BTreeMap<String, f64> {
    assert_eq!(answer.status, 200);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(
        (answer.header("content-type"), answer.header("cache-control")),
        (Some(kind), Some("no-store"))
    );
    let text = answer.text().strip_suffix("# EOF\n").expect("the mark of the end");
    let (mut families, mut samples) = (BTreeMap::new(), BTreeMap::new());
    let mut family = ("", "");
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            family = declared.split_once(' ').expect("a name and a type");
            assert_eq!(families.insert(family.0, family.1), None, "declared twice: {line}");
        } else if let Some(unit) = line.strip_prefix("# UNIT ") {
            let (name, unit) = unit.split_once(' ').expect("a name and a unit");
            assert!(name == family.0 && name.ends_with(unit), "{line}");
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            let bare = name.split('{').next().expect("a name");
            let endings: &[&str] = match family.1 {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_sum", "_count", "_bucket"],
                other => panic!("a type of {other}"),
            };
            let suffix = bare.strip_prefix(family.0).expect("a sample of the family above it");
            assert!(endings.contains(&suffix) && name.starts_with("watchkeep_"), "{line}");
            assert_eq!(samples.insert(name.to_owned(), value.parse().expect("a number")), None, "{line}");
        }
    }
    samples
}

/// The steps of a route's histogram add up, and end with all.
fn check_histogram(samples: &BTreeMap<String, f64>, route: &str) -> f64 {
    let name = |suffix: &str, more: &str| {
        format!("watchkeep_request_duration_seconds_{suffix}{{{more}route=\"{route}\"}}")
    };
    let (count, sum) = (samples[&name("count", "")], samples[&name("sum", "")]);
    let prefix = "watchkeep_request_duration_seconds_bucket{le=\"";
    let mut steps: Vec<(f64, f64)> = samples
        .iter()
        .filter(|(name, _)| name.contains(&format!("route=\"{route}\"")))
        .filter_map(|(name, many)| {
            let upto = name.strip_prefix(prefix)?.split('"').next()?;
            Some((if upto == "+Inf" { f64::INFINITY } else { upto.parse().ok()? }, *many))
        })
        .collect();
    steps.sort_by(|one, other| one.0.total_cmp(&other.0));
    assert_eq!(steps.len(), 11, "{steps:?}");
    assert!(steps.is_sorted_by(|one, other| one.1 <= other.1), "{steps:?}");
    assert_eq!(steps.last(), Some(&(f64::INFINITY, count)));
    assert!(sum > 0.0 && sum < 60.0 * count, "{sum}");
    count
}

#[test]
fn each_request_is_counted_once_under_its_route() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let (entry, named) = ("/v1/entry?group=canary&key=canary", "/v1/groups/canary/keys/canary");
    for _ in 0..3 {
        assert_eq!(hub.put(entry, "canary").status, 204);
    }
    assert_eq!((hub.get(entry).status, hub.get(named).status), (200, 200));
    assert_eq!(hub.get("/v1/entry?group=canary&key=none").status, 404);
    assert_eq!(hub.get("/v1/entry?group=canary").status, 400);
    assert_eq!(hub.get("/canary").status, 404);
    assert_eq!(hub.ask("CANARY", "/v1/stats", &[], b"").status, 405);
    assert_eq!(hub.ask("GET", "/v1/stats", &[("Origin", "http://canary")], b"").status, 403);
    let mut stream = Stream::open(hub.address, "group=canary", &[])?;
    stream.upto("ready")?;
    assert_eq!(hub.put(named, "canary").status, 204);
    stream.changes(1)?;

    let answer = hub.get("/metrics");
    assert!(!answer.text().contains("canary") && !answer.text().contains("CANARY"), "{}", answer.text());
    let found = samples(&answer);
    let requests: Vec<_> = found
        .iter()
        .filter_map(|(name, many)| Some((name.strip_prefix("watchkeep_requests_total")?, *many)))
        .collect();
    assert_eq!(
        requests,
        [
            (r#"{route="/v1/entry",status="2xx"}"#, 4.0),
            (r#"{route="/v1/entry",status="4xx"}"#, 2.0),
            (r#"{route="/v1/groups/{group}/keys/{key}",status="2xx"}"#, 2.0),
            (r#"{route="/v1/stats",status="4xx"}"#, 2.0),
            (r#"{route="/v1/watch",status="2xx"}"#, 1.0),
            (r#"{route="none",status="4xx"}"#, 1.0),
        ]
    );
    assert_eq!(check_histogram(&found, "/v1/entry"), 6.0);
    assert_eq!(check_histogram(&found, "none"), 1.0);
    for (name, value) in [
        ("commits_total", 4.0),
        ("events_total", 4.0),
        ("deliveries_total", 1.0),
        ("fell_behind_total", 0.0),
        ("lost_total", 0.0),
        ("expired_total", 0.0),
        ("expiry_lateness_seconds_total", 0.0),
        ("ready", 1.0),
        ("watchers", 1.0),
        ("subscriptions", 1.0),
        ("websockets", 0.0),
        ("rings", 1.0),
        ("entries", 1.0),
        ("groups", 1.0),
        ("last_revision", 4.0),
        ("log_events", 4.0),
        (r#"refusals_total{kind="no_route"}"#, 1.0),
        (r#"refusals_total{kind="no_method"}"#, 1.0),
        (r#"refusals_total{kind="not_found"}"#, 1.0),
        (r#"refusals_total{kind="foreign_origin"}"#, 1.0),
        (r#"refusals_total{kind="invalid_argument"}"#, 1.0),
        (r#"limits_reached_total{limit="body_bytes"}"#, 0.0),
    ] {
        assert_eq!(found.get(&format!("watchkeep_{name}")), Some(&value), "{name} in {}", answer.text());
    }
    assert!(found["watchkeep_rings_bytes"] > 0.0 && found.contains_key("watchkeep_wal_bytes"));
    let too_large = [("Content-Length", "99999999")];
    assert_eq!(hub.ask("PUT", "/v1/entry?group=g&key=k", &too_large, b"").status, 413);
    let again = samples(&hub.get("/metrics"));
    assert_eq!(again[r#"watchkeep_requests_total{route="/metrics",status="2xx"}"#], 1.0);
    assert_eq!(again[r#"watchkeep_limits_reached_total{limit="body_bytes"}"#], 1.0);
    Ok(())
}

#[test]
fn every_route_of_the_document_has_a_place_of_its_own() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let document = hub.get("/v1/openapi.json").json();
    let mut routes: BTreeSet<_> =
        document["paths"].as_object().ok_or("no paths")?.keys().map(String::as_str).collect();
    routes.extend(["/", "/page.js", "/page.css", "/healthz", "/readyz", "/v1/openapi.json"]);
    for route in &routes {
        hub.ask("CANARY", &route.replace(['{', '}'], ""), &[], b"");
    }
    let found = samples(&hub.get("/metrics"));
    for route in routes {
        assert!(found.keys().any(|name| name.contains(&format!("route=\"{route}\""))), "{route}");
    }
    Ok(())
}

#[test]
fn whether_it_runs_and_is_ready_may_be_asked_under_any_name() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(hub.ask("POST", path, &[], b"").refusal(), (405, "no_method".to_owned()));
        let answer = hub.ask("GET", path, &[("Host", "10.0.0.1:80")], b"");
        let said = (answer.status, answer.text(), answer.header("cache-control"));
        assert_eq!(said, (200, "ok\n", Some("no-store")));
    }
    store.close()?;
    assert_eq!(hub.get("/healthz").status, 200);
    assert_eq!(hub.get("/readyz").refusal(), (503, "closed".to_owned()));
    let found = samples(&hub.get("/metrics"));
    assert_eq!((found["watchkeep_ready"], found.get("watchkeep_entries")), (0.0, None));
    Ok(())
}

#[test]
fn it_is_not_ready_when_it_cannot_tell_who_asks() -> Result {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("app.db"))?;
    let access = Access::open(&store)?;
    let hub = Hub::with(&store, |server| server.ask_for_tokens(access));
    assert_eq!(hub.get("/readyz").status, 200);
    for file in fs::read_dir(folder.path())? {
        let path = file?.path();
        if path.to_string_lossy().contains("-access") {
            fs::remove_file(path)?;
        }
    }
    let begun = Instant::now();
    while hub.get("/readyz").status == 200 {
        assert!(begun.elapsed() < LIMIT);
    }
    assert_eq!(hub.get("/readyz").refusal(), (503, "no_access".to_owned()));
    assert_eq!(hub.get("/healthz").status, 200);
    Ok(())
}

#[test]
fn it_is_not_ready_while_a_replaced_file_is_being_opened() -> Result {
    let folder = tempfile::tempdir()?;
    let [path, saved, next] = ["app.db", "saved.db", "next.db"].map(|name| folder.path().join(name));
    let other = Store::open_in_memory()?;
    other.backup(&saved)?;
    Store::restore(&saved, &next, BackupOptions::new())?;
    let (go, gone) = mpsc::channel::<()>();
    let (gone, again) = (Mutex::new(gone), path.clone());
    let hub = Hub::with(&Store::open(&path)?, |server| {
        server.reopen_with(move || {
            // Nobody lets it go on, or somebody did.
            let _ = gone.lock().map(|gone| gone.recv());
            Options::new().create(false).open(&again)
        })
    });
    assert_eq!(hub.get("/readyz").status, 200);
    fs::rename(next, path)?;
    let until = |status: u16| -> Result<Answer> {
        let begun = Instant::now();
        loop {
            let answer = hub.get("/readyz");
            if answer.status == status {
                return Ok(answer);
            }
            assert!(begun.elapsed() < LIMIT, "{answer:?}");
        }
    };
    assert_eq!(until(503)?.refusal(), (503, "replaced".to_owned()));
    assert_eq!(hub.get("/healthz").status, 200);
    go.send(())?;
    until(200)?;
    Ok(())
}

#[test]
fn numbers_need_the_right_to_inspect_the_whole_store_and_health_needs_none() -> Result {
    let guarded = Guarded::start()?;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(guarded.hub.get(path).status, 200);
        assert_eq!(guarded.ask("GET", path, "wk_nonsense").status, 200);
    }
    assert_eq!(guarded.hub.get("/metrics").refusal(), (401, "unauthorized".to_owned()));
    assert_eq!(guarded.hub.ask("POST", "/metrics", &[], b"").refusal(), (405, "no_method".to_owned()));
    assert_eq!(guarded.ask("GET", "/metrics", "wk_nonsense").refusal(), (401, "unauthorized".to_owned()));
    let blind = guarded.token(Grant::new(Rights { inspect: false, ..Rights::ALL }))?;
    let refused = guarded.ask("GET", "/metrics", &blind);
    assert_eq!(refused.refusal(), (403, "forbidden".to_owned()));
    assert_eq!(refused.json()["right"], "inspect");
    let tenant = guarded.token(Grant::new(Rights::ALL).namespace("tenant"))?;
    assert_eq!(guarded.ask("GET", "/metrics", &tenant).refusal(), (403, "forbidden".to_owned()));

    // What tenants have is counted with the rest.
    let bearer = format!("Bearer {tenant}");
    let mut stream = Stream::open(guarded.hub.address, "snapshot=auto", &[("Authorization", &bearer)])?;
    stream.upto("ready")?;
    let inspector = guarded.token(Grant::new(Rights { inspect: true, ..Rights::NONE }))?;
    let found = samples(&guarded.ask("GET", "/metrics", &inspector));
    assert_eq!((found["watchkeep_subscriptions"], found["watchkeep_rings"]), (1.0, 1.0));
    assert_eq!(found[r#"watchkeep_requests_total{route="/metrics",status="4xx"}"#], 5.0);
    Ok(())
}
