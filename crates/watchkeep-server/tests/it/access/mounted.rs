//! The routes in an application that knows who asks.

use std::net::SocketAddr;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use watchkeep::{Clock as _, Store, SystemClock, Timestamp};
use watchkeep_server::{Hub, Principal, Rights};

use crate::support::{Result, Stream};
use crate::support_entries::{begin, get};

/// An application with a session, or one that forgot its layer.
fn serve(hub: &Hub, session: Option<Principal>) -> Result<SocketAddr> {
    let mut router = hub.router();
    if let Some(session) = session {
        router = router.layer(Extension(session));
    }
    run(router)
}

fn run(router: Router) -> Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0)))?;
    let address = listener.local_addr()?;
    // It ends with the process.
    std::thread::spawn(move || {
        let serving = async {
            while let Ok((socket, _)) = listener.accept().await {
                let service = TowerToHyperService::new(router.clone());
                let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                tokio::spawn(connection.with_upgrades());
            }
        };
        runtime.block_on(serving);
    });
    Ok(address)
}

fn tenant(until: Option<Timestamp>) -> Principal {
    Principal {
        namespace: Some("n".to_owned()),
        rights: Rights { read: true, watch: true, ..Rights::NONE },
        until,
    }
}

#[test]
fn a_browser_may_ask_for_a_named_page_before_the_application_knows_who_it_is() -> Result {
    let origin = ("Origin", "https://app.example.com");
    let hub = Hub::new(&Store::open_in_memory()?).pages([origin.1.parse()?]);
    let (routes, under_a_path) = (run(hub.router())?, run(Router::new().nest("/store", hub.router()))?);
    for (address, target) in [(routes, "/v1/group"), (under_a_path, "/store/v1/group")] {
        let asked = [origin, ("Access-Control-Request-Method", "DELETE")];
        let answer = begin(address, "OPTIONS", target, &asked, b"").answer();
        let told = (answer.status, answer.header("access-control-allow-methods"));
        assert_eq!(told, (204, Some("GET, HEAD, DELETE")), "{target}");
        let refused = begin(address, "GET", target, &[origin], b"").answer();
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, Some(origin.1)));
    }
    Ok(())
}

#[test]
fn an_application_that_does_not_say_who_asks_lets_nobody_in() -> Result {
    let store = Store::open_in_memory()?;
    let address = serve(&Hub::new(&store), None)?;
    for route in ["groups", "entry?group=g&key=k", "watch", "changes", "stats", "ws"] {
        assert_eq!(
            get(address, &format!("/v1/{route}")).refusal(),
            (401, "unauthorized".to_owned()),
            "{route}"
        );
    }
    Ok(())
}

#[test]
fn a_session_sees_its_namespace_and_ends_when_the_application_says_so() -> Result {
    let store = Store::open_in_memory()?;
    store.set("n:g", "k", "ours")?;
    store.set("g", "k", "not ours")?;
    let hub = Hub::new(&store);
    let address = serve(&hub, Some(tenant(None)))?;
    assert_eq!(get(address, "/v1/entry?group=g&key=k").text(), "ours");
    assert_eq!(get(address, "/v1/groups").json()["groups"], json!(["g"]));
    assert_eq!(get(address, "/v1/stats").refusal(), (403, "forbidden".to_owned()));
    let mut stream = Stream::open(address, "snapshot=auto", &[])?;
    stream.upto("ready")?;
    hub.revoke(|principal| principal.namespace.as_deref() == Some("m"));
    store.set("n:g", "k", "still here")?;
    assert_eq!(stream.changes(1)?[0].data["value"], "still here");
    hub.revoke(|principal| principal.namespace.as_deref() == Some("n"));
    assert_eq!(stream.upto("bye")?.1.data["reason"], "revoked");
    // It is the application that lets them back in.
    let mut stream = Stream::open(address, "snapshot=auto", &[])?;
    stream.upto("ready")?;
    hub.closer().close();
    assert_eq!(stream.upto("bye")?.1.data["reason"], "ending");
    Ok(())
}

#[test]
fn a_session_ends_by_itself() -> Result {
    let store = Store::open_in_memory()?;
    let now = SystemClock.now().as_millis();
    let over = serve(&Hub::new(&store), Some(tenant(Some(Timestamp::from_millis(now)))))?;
    assert_eq!(get(over, "/v1/groups").status, 401);
    let in_time = Duration::from_secs(2);
    let until = Timestamp::from_millis(now + i64::try_from(in_time.as_millis())?);
    let address = serve(&Hub::new(&store), Some(tenant(Some(until))))?;
    let mut stream = Stream::open(address, "snapshot=auto", &[])?;
    assert_eq!(stream.upto("bye")?.1.data["reason"], "expired");
    assert!(SystemClock.now() >= until);
    Ok(())
}
