//! A cluster that a server cannot reach for a while: what it says meanwhile, and how it goes on.

use std::time::{Duration, Instant};

use watchkeep::Options;

use super::link::Link;
use super::support::{Result, Stream};
use super::support_entries::{Answer, Hub};
use super::{members, patient, prefix, until};

/// How long a request may wait for the cluster: a call of it takes five seconds at the most, and a write ends its session.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_server_says_so_while_its_cluster_is_away_and_its_streams_go_on_after_that() -> Result {
    let (members, prefix) = (members()?, prefix());
    let link = Link::to(members.split(',').next().ok_or("no member")?)?;
    let options = Options::new().busy_timeout(Duration::from_secs(5));
    let hub = Hub::over(&options.connect(&format!("etcd://{}/{prefix}", link.address))?);
    let elsewhere = patient().connect(&format!("etcd://{members}/{prefix}"))?;
    elsewhere.set("g", "k", "before")?;
    assert_eq!(hub.get("/readyz").status, 200);
    // What it has written it remembers, and tries a write on.
    for _ in 0..2 {
        assert_eq!(hub.put("/v1/entry?group=g&key=k", "before").status, 204);
    }
    let mut stream = Stream::open(hub.address, "snapshot=auto", &[])?;
    stream.upto("ready")?;

    link.cut();
    let asked = Instant::now();
    let (hub, entry) = (&hub, "/v1/entry?group=g&key=k");
    let is_away = |answer: &Answer| {
        assert_eq!(answer.refusal(), (503, "unavailable".to_owned()), "{}", answer.text());
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    };
    std::thread::scope(|scope| {
        let ask = |what: &'static str, target: &'static str, body: &'static [u8]| {
            scope.spawn(move || hub.ask(what, target, &[], body))
        };
        let refused = [ask("GET", entry, b""), ask("GET", "/v1/groups", b"")];
        let write = ask("PUT", entry, b"v");
        let ready = ask("GET", "/readyz", b"");
        let alive = ask("GET", "/healthz", b"");
        let metrics = ask("GET", "/metrics", b"");
        let late = ask("GET", "/v1/watch", b"");
        for answer in refused {
            is_away(&answer.join().expect("an answer"));
        }
        // It may have gone out on a connection of which nobody knew yet that it is cut.
        let write = write.join().expect("an answer");
        if write.refusal() != (500, "unknown_outcome".to_owned()) {
            is_away(&write);
        }
        let ready = ready.join().expect("an answer");
        assert_eq!(ready.status, 503, "{ready:?}");
        assert_eq!(alive.join().expect("an answer").status, 200);
        assert!(metrics.join().expect("an answer").text().contains("\nwatchkeep_ready 0\n"));
        // In a way that lets an `EventSource` come back.
        let late = late.join().expect("an answer");
        assert!(late.status == 200 && late.text().contains("event: trouble"), "{late:?}");
    });
    assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
    // By now the connection is known to be cut, so nothing goes out.
    let asked = Instant::now();
    is_away(&hub.put(entry, "v"));
    assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
    for number in 0..3 {
        elsewhere.set("g", "k", number.to_string())?;
    }

    link.mend();
    for number in 0..3 {
        assert_eq!(stream.changes(1)?[0].data["value"], number.to_string());
    }
    until("it is ready again", || hub.get("/readyz").status == 200)?;
    assert_eq!(hub.put(entry, "after").status, 204);
    assert_eq!(stream.changes(1)?[0].data["value"], "after");
    Ok(())
}
