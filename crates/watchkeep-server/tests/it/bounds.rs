//! Limits: what is over one is answered with its name, and what never ends is ended.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use axum::http::Method;
use serde_json::{Value, json};
use watchkeep::Store;
use watchkeep_server::{Limit, Limits, Reached, Server};

use crate::support::{LIMIT, Result, Stream};
use crate::support_entries::{Answer, Hub};
use crate::support_tls::{Certified, block_on};
use crate::support_ws::{Client, PROTOCOL};

pub(crate) struct Bounded {
    pub(crate) hub: Hub,
    reached: Reached,
}

/// A server with these limits, and TLS if there is a certificate.
fn serve(store: &Store, limits: &[(Limit, u64)], certified: Option<&Certified>) -> Result<Bounded> {
    bounded(store, limits, |server| match certified {
        Some(certified) => server.tls(certified.tls.clone()),
        None => server,
    })
}

/// A server with these limits that is set up further.
pub(crate) fn bounded(
    store: &Store,
    limits: &[(Limit, u64)],
    set_up: impl FnOnce(Server) -> Server,
) -> Result<Bounded> {
    let mut reached = None;
    let all = limits.iter().fold(Limits::default(), |all, (limit, value)| all.with(*limit, *value));
    let hub = Hub::with(store, |server| {
        reached = Some(server.reached());
        set_up(server.limits(all))
    });
    Ok(Bounded { hub, reached: reached.ok_or("it was not set up")? })
}

impl Bounded {
    pub(crate) fn times(&self, limit: Limit) -> u64 {
        self.reached
            .snapshot()
            .into_iter()
            .find(|(name, _)| *name == limit.name())
            .map_or(0, |(_, times)| times)
    }

    /// Asks until the answer has this status.
    #[track_caller]
    pub(crate) fn until(&self, status: u16, ask: impl Fn(&Hub) -> Answer) -> Result<Answer> {
        until(|| Ok(Some(ask(&self.hub)).filter(|answer| answer.status == status)))
    }

    /// Waits until a limit was reached so often: a connection is closed a moment before it is counted.
    fn reaches(&self, limit: Limit, times: u64) -> Result {
        until(|| Ok((self.times(limit) == times).then_some(())))
    }
}

/// Tries until there is something.
#[track_caller]
pub(crate) fn until<T>(mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(there) = attempt()? {
            return Ok(there);
        }
        if begun.elapsed() > LIMIT / 2 {
            return Err(format!("it does not happen: {}", std::panic::Location::caller()).into());
        }
        std::thread::yield_now();
    }
}

/// The status and the first event of a stream, if it is answered at all.
fn first_event(address: SocketAddr) -> Result<Option<String>> {
    let mut socket = connect(address)?;
    // It may be closed before it has asked.
    let _ = write!(socket, "GET /v1/watch?group=g HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut lines = BufReader::new(socket).lines().map_while(std::io::Result::ok);
    let Some(status) = lines.next() else { return Ok(None) };
    let status = status.split(' ').nth(1).unwrap_or_default().to_owned();
    Ok(lines.find_map(|line| line.strip_prefix("event: ").map(|event| format!("{status} {event}"))))
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(socket)
}

/// What comes before the end, however it ends. Fails when it does not.
fn rest(socket: &mut TcpStream) -> Result<String> {
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => Err(error.into()),
        _ => Ok(String::from_utf8(bytes)?),
    }
}

#[track_caller]
pub(crate) fn names(answer: &Answer, limit: Limit) {
    let problem: Value = serde_json::from_slice(&answer.body).expect("a problem document");
    assert_eq!(problem["limit"], limit.name(), "{problem}");
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(&format!("--limit {limit}=")), "{problem}");
}

#[test]
fn over_the_limit_of_connections_each_is_answered_and_far_over_it_none() -> Result {
    for (limit, status) in [(Limit::Connections, 503), (Limit::ConnectionsPerAddress, 429)] {
        let store = Store::open_in_memory()?;
        let bounded = serve(&store, &[(limit, 3)], None)?;
        let address = bounded.hub.address;
        let mut streams = Vec::new();
        for _ in 0..3 {
            let mut stream = Stream::open(address, "group=g", &[])?;
            stream.upto("ready")?;
            streams.push(stream);
        }
        let answer = bounded.until(status, |hub| hub.get("/v1/stats"))?;
        names(&answer, limit);
        assert_eq!(answer.header("retry-after"), Some("1"));
        // A plain EventSource would end for good at any other status.
        // The connection that was refused before may still hold its place.
        until(|| Ok(first_event(address)?.filter(|event| event == "200 trouble")))?;
        // Those who say nothing take the places of those who are refused.
        let mut half_open = Vec::new();
        loop {
            let socket = connect(address)?;
            socket.set_nonblocking(true)?;
            half_open.push(socket);
            let mut unanswered = connect(address)?;
            // It may be closed before it has asked.
            let _ =
                write!(unanswered, "GET /v1/stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            if rest(&mut unanswered)?.is_empty() {
                break;
            }
        }
        assert!(bounded.times(limit) >= 4, "{:?}", bounded.reached.snapshot());
        drop((half_open, streams));
        // The closed ones are gone once the server has seen it.
        until(|| Ok(first_event(address)?.filter(|event| event == "200 ready")))?;
    }
    Ok(())
}

#[test]
fn who_asks_too_often_is_told_so() -> Result {
    let bounded = serve(&Store::open_in_memory()?, &[(Limit::RequestsPerSecond, 1)], None)?;
    names(&bounded.until(429, |hub| hub.get("/v1/stats"))?, Limit::RequestsPerSecond);
    until(|| Ok(first_event(bounded.hub.address)?.filter(|event| event == "200 trouble")))?;
    // A second later it may ask again.
    bounded.until(200, |hub| hub.get("/v1/stats"))?;
    Ok(())
}

#[test]
fn a_message_is_a_request_like_another() -> Result {
    let bounded = serve(&Store::open_in_memory()?, &[(Limit::RequestsPerSecond, 1)], None)?;
    block_on(asks_too_often(&bounded.hub.address.to_string()))
}

async fn asks_too_often(address: &str) -> Result {
    let begun = Instant::now();
    let mut client = loop {
        assert!(begun.elapsed() < LIMIT, "it was never let in");
        match Client::open(address, "/v1/ws", &[PROTOCOL]).await {
            Ok(client) => break client,
            Err(refused) => assert_eq!(refused.status(), 429),
        }
    };
    loop {
        assert!(begun.elapsed() < LIMIT, "it was never too often");
        let answer = client.ask(json!({ "type": "unsubscribe", "id": "a" })).await;
        if answer["kind"] == "too_many_requests" {
            assert_eq!((&answer["id"], &answer["limit"]), (&"a".into(), &"requests_per_second".into()));
            return Ok(());
        }
    }
}

#[test]
fn bytes_of_values_are_counted_until_they_are_written() -> Result {
    let store = Store::open_in_memory()?;
    let most: u32 = 15 << 20;
    let bounded = serve(&store, &[(Limit::BytesInFlight, most.into())], None)?;
    let address = bounded.hub.address;
    store.set("g", "large", vec![b'x'; usize::try_from(most)?])?;
    store.set("g", "small", "small")?;
    // An answer holds what it has, until it is written.
    let mut reader = connect(address)?;
    write!(reader, "GET /v1/entry?group=g&key=large HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
    let mut status = String::new();
    let mut reader = BufReader::new(reader);
    reader.read_line(&mut status)?;
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    names(&bounded.hub.get("/v1/entry?group=g&key=large"), Limit::BytesInFlight);
    assert_eq!(bounded.hub.get("/v1/entry?group=g&key=small").status, 200);
    drop(reader);
    bounded.until(200, |hub| hub.get("/v1/entry?group=g&key=large"))?;
    Ok(())
}

#[test]
fn slow_heads_bodies_and_handshakes_end_in_time() -> Result {
    let store = Store::open_in_memory()?;
    let times = [Limit::HeadSeconds, Limit::HandshakeSeconds, Limit::RequestSeconds].map(|limit| (limit, 1));
    let bounded = serve(&store, &times, None)?;
    let mut head = connect(bounded.hub.address)?;
    write!(head, "GET /v1/stats HTTP/1.1\r\nHost: loc")?;
    rest(&mut head)?;
    bounded.reaches(Limit::HeadSeconds, 1)?;
    let mut body = connect(bounded.hub.address)?;
    write!(body, "PUT /v1/entry?group=g&key=k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nslow")?;
    let answer = rest(&mut body)?;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_seconds"), "{answer}");
    bounded.reaches(Limit::RequestSeconds, 1)?;
    assert_eq!(store.get("g", "k")?, None);

    let certified = Certified::new()?;
    let bounded = serve(&store, &times, Some(&certified))?;
    let mut silent = connect(bounded.hub.address)?;
    silent.write_all(&[0x16, 3, 1])?;
    rest(&mut silent)?;
    bounded.reaches(Limit::HandshakeSeconds, 1)?;
    // After it, a client of HTTP/2 that says nothing.
    block_on(async {
        use tokio::io::AsyncReadExt;
        let version = &tokio_rustls::rustls::version::TLS13;
        let mut idle = certified.connect(bounded.hub.address, version, "h2").await?;
        let _ = crate::support_tls::within(idle.read_to_end(&mut Vec::new())).await?;
        Ok(())
    })?;
    bounded.reaches(Limit::HeadSeconds, 1)?;
    Ok(())
}

#[test]
fn bombs_of_headers_and_bodies_are_refused_before_they_are_read() -> Result {
    let bounded = serve(&Store::open_in_memory()?, &[(Limit::BodyBytes, 1_000)], None)?;
    let large = "x".repeat(20 << 10);
    let many: String = (0..100).map(|n| format!("X-{n}: x\r\n")).collect();
    let put = "PUT /v1/entry?group=g&key=k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {large}{large}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {large}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"), 431),
        (format!("GET /{large} HTTP/1.1\r\nHost: localhost\r\n\r\n"), 431),
        (format!("{put}Content-Length: 10000000000\r\n\r\n"), 413),
        (format!("{put}Content-Length: 1001\r\n\r\n{}", large.get(..1001).unwrap_or_default()), 413),
        (format!("{put}Transfer-Encoding: chunked\r\n\r\n5000\r\n{large}\r\n0\r\n\r\n"), 413),
    ] {
        let mut socket = connect(bounded.hub.address)?;
        // It may have been answered before it is all said.
        let _ = socket.write_all(request.as_bytes());
        let mut line = String::new();
        BufReader::new(&socket).read_line(&mut line)?;
        let begin = request.get(..60);
        assert!(line.starts_with(&format!("HTTP/1.1 {status}")), "{begin:?}: {line}");
    }
    bounded.reaches(Limit::BodyBytes, 3)?;
    bounded.reaches(Limit::HeadBytes, 4)?;
    Ok(())
}

#[test]
fn a_head_that_is_too_large_is_answered_with_what_to_do() -> Result {
    let bounded = serve(&Store::open_in_memory()?, &[(Limit::HeadBytes, 1_000)], None)?;
    let many: String = (0..64).map(|n| format!("X-{n}: \r\n")).collect();
    let large = "x".repeat(1_000);
    // The second is as large as the limit: "/v1/groups", "Host: localhost", "Connection: close", "X: ...".
    for (target, headers, wanted) in [
        ("/v1/groups", format!("X: {large}"), Some("head_bytes=1000")),
        ("/v1/groups", format!("X: {}", large.get(..865).unwrap_or_default()), None),
        ("/v1/groups", format!("X: {}", large.get(..866).unwrap_or_default()), Some("--limit head_bytes=N")),
        (format!("/v1/groups?{large}").as_str(), "X:".to_owned(), Some("head_bytes=1000")),
    ] {
        let answer = ask(&bounded, target, &headers)?;
        let status = if wanted.is_some() { "431" } else { "200" };
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(
            wanted.is_none_or(|wanted| answer.contains(wanted) && answer.contains("head_too_large")),
            "{answer}"
        );
    }
    bounded.reaches(Limit::HeadBytes, 3)?;

    let bounded = serve(&Store::open_in_memory()?, &[], None)?;
    let answer = ask(&bounded, "/v1/groups", &many)?;
    assert!(answer.starts_with("HTTP/1.1 431") && answer.contains("more than 64 headers"), "{answer}");
    for nonsense in ["GET\r\n\r\n", "\x16\x03\x01\x00\x01\r\n\r\n"] {
        let mut socket = connect(bounded.hub.address)?;
        socket.write_all(nonsense.as_bytes())?;
        let answer = rest(&mut socket)?;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    let numbers = ask(&bounded, "/metrics", "X:")?;
    assert!(numbers.contains("refusals_total{kind=\"malformed\"} 2"), "{numbers}");
    Ok(())
}

/// What is answered to a request with these headers.
fn ask(bounded: &Bounded, target: &str, headers: &str) -> Result<String> {
    let mut socket = connect(bounded.hub.address)?;
    let headers = headers.trim_end();
    write!(socket, "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n\r\n")?;
    rest(&mut socket)
}

#[test]
fn a_stream_of_http2_that_is_not_taken_is_reset_and_the_others_go_on() -> Result {
    let (store, certified) = (Store::open_in_memory()?, Certified::new()?);
    store.set("g", "large", vec![b'x'; 1 << 20])?;
    let bounded = serve(&store, &[(Limit::StallSeconds, 1)], Some(&certified))?;
    block_on(async {
        let mut client = certified.http2(bounded.hub.address).await?;
        let mut stream = client.ask(Method::GET, "/v1/watch?group=h&snapshot=auto", "").await?.into_body();
        stream.until("event: ready").await?;
        let mut stalled = client.ask(Method::GET, "/v1/entry?group=g&key=large", "").await?.into_body();
        let begun = Instant::now();
        for turn in 0.. {
            // Each round is written and seen on the stream beside it.
            store.set("h", "k", format!("turn {turn}."))?;
            stream.until(&format!("turn {turn}.")).await?;
            if bounded.times(Limit::StallSeconds) == 1 {
                break;
            }
            assert!(begun.elapsed() < LIMIT, "it is not reset");
        }
        assert!(stalled.rest().await.is_err());
        store.set("h", "k", "afterwards")?;
        stream.until("afterwards").await?;
        // Slow is not stalled.
        let mut slow = client.ask(Method::GET, "/v1/entry?group=g&key=large", "").await?.into_body();
        assert_eq!(slow.rest().await?, 1 << 20);
        Ok(())
    })
}

#[test]
fn two_thousand_clients_each_get_each_change() -> Result {
    let many = 2_000;
    // Both ends of each are in this process.
    if watchkeep_server::raise_descriptors().now < 2 * many + 500 {
        return Ok(());
    }
    let store = Store::open_in_memory()?;
    let bounded = serve(&store, &[], None)?;
    let mut streams = Vec::new();
    for _ in 0..many {
        streams.push(Stream::open(bounded.hub.address, "group=g", &[])?);
    }
    for stream in &mut streams {
        stream.upto("ready")?;
    }
    store.set("g", "k", "for all")?;
    for stream in &mut streams {
        assert_eq!(stream.changes(1)?[0].data["value"], "for all");
    }
    assert!(bounded.reached.snapshot().iter().all(|(_, times)| *times == 0));
    Ok(())
}
