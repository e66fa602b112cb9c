//! A page of a stranger, in a browser on this machine, must not reach the store.

use watchkeep::Store;

use crate::support::{Result, Served};

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
