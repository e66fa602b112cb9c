//! A page of a stranger, in a browser on this machine, must not reach the store.

use watchkeep::Store;

use crate::support::{Result, Served};
use crate::support_entries::Hub;

#[test]
fn strangers_are_refused_on_every_route() -> Result {
    let store = Store::open_in_memory()?;
    let served = Served::start(&store)?;
    for path in [
        "/",
        "/page.js",
        "/v1/entry?group=g&key=k",
        "/v1/watch",
        "/v1/groups",
        "/v1/keys?group=g",
        "/v1/groups/g/keys/k",
        "/v1/ws",
        "/v1/stats",
        "/metrics",
        "/nothing",
    ] {
        for headers in [
            [("Host", "evil.example"), ("Accept", "*/*")],
            [("Origin", "http://evil.example"), ("Accept", "*/*")],
            [("Origin", "null"), ("Accept", "*/*")],
            [("Sec-Fetch-Site", "cross-site"), ("Accept", "*/*")],
        ] {
            assert_eq!(served.ask(&format!("GET {path}"), &headers, b"")?, 403, "{path} {headers:?}");
        }
    }
    let forged = served.ask("PUT /v1/entry?group=g&key=k", &[("Origin", "http://evil.example")], b"v")?;
    assert_eq!((forged, store.get("g", "k")?), (403, None));
    Ok(())
}

#[test]
fn every_address_of_loopback_is_a_name_of_this_machine() -> Result {
    let store = Store::open_in_memory()?;
    assert_eq!(Hub::at("127.0.0.2:0", &store, |server| server).get("/v1/groups").status, 200);
    let served = Served::start(&store)?;
    for host in ["LOCALHOST", "LocalHost:7460", "127.0.0.2:7460", "127.255.255.254", "[::1]:7460", "[0:0::1]"]
    {
        assert_eq!(served.ask("GET /v1/groups", &[("Host", host)], b"")?, 200, "{host}");
    }
    let page = [("Host", "LocalHost:7460"), ("Origin", "http://localhost:7460")];
    assert_eq!(served.ask("GET /v1/groups", &page, b"")?, 200);
    for host in ["127.0.0.2.evil.example", "128.0.0.1", "[::2]", "[::ffff:8.8.8.8]", "127.1", "localhost."] {
        assert_eq!(served.ask("GET /v1/groups", &[("Host", host)], b"")?, 403, "{host}");
    }
    Ok(())
}

#[test]
fn the_host_in_the_target_wins() -> Result {
    let served = Served::start(&Store::open_in_memory()?)?;
    for (host, target, status) in [
        ("localhost", "http://evil.example/v1/groups", 403),
        ("localhost", "http://evil.example:7460/", 403),
        ("evil.example", "http://localhost:7460/v1/groups", 200),
        ("localhost", "http://127.0.0.1/v1/groups", 200),
    ] {
        assert_eq!(served.ask(&format!("GET {target}"), &[("Host", host)], b"")?, status, "{host} {target}");
    }
    let forged = [("Host", "evil.example"), ("Origin", "http://evil.example")];
    assert_eq!(served.ask("PUT http://localhost/v1/entry?group=g&key=k", &forged, b"v")?, 403);
    Ok(())
}
