//! Clients behind a proxy that is trusted to say who they are.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use watchkeep::Store;
use watchkeep_server::Limit;

use crate::access::UPGRADE;
use crate::bounds::{Bounded, bounded, names, until};
use crate::support::{LIMIT, Result, Stream};
use crate::support_entries::Answer;

/// A server that trusts proxies of this net.
fn behind(net: &str, limit: Limit, most: u64) -> Result<Bounded> {
    let net = net.parse()?;
    bounded(&Store::open_in_memory()?, &[(limit, most)], |server| server.trusted_proxies([net]))
}

/// Asks as a proxy does, for this client.
fn ask_for(bounded: &Bounded, client: &str) -> Answer {
    bounded.hub.ask("GET", "/v1/groups", &[("X-Forwarded-For", client)], b"")
}

#[test]
fn requests_are_counted_by_the_client_for_whom_a_trusted_proxy_asks() -> Result {
    let bounded = behind("127.0.0.0/8", Limit::RequestsPerSecond, 1)?;
    let answer = bounded.until(429, |_| ask_for(&bounded, "192.0.2.1"))?;
    names(&answer, Limit::RequestsPerSecond);
    // Each of these is new here.
    for client in ["192.0.2.2", "192.0.2.1, 192.0.2.3", "2001:db8::1", "192.0.2.4, 127.0.0.9"] {
        assert_eq!(ask_for(&bounded, client).status, 200, "{client}");
    }
    // What says nothing is the proxy's own.
    assert_eq!(bounded.hub.get("/v1/groups").status, 200);
    bounded.until(429, |_| ask_for(&bounded, "nonsense"))?;
    // So is what only a proxy of ours is said to have asked for.
    bounded.until(429, |_| ask_for(&bounded, "127.0.0.9"))?;
    Ok(())
}

#[test]
fn a_connection_of_a_proxy_carries_requests_of_many_clients() -> Result {
    let bounded = behind("127.0.0.1", Limit::RequestsPerSecond, 1)?;
    let mut socket = TcpStream::connect(bounded.hub.address)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_nodelay(true)?;
    let mut ask = |client: usize| -> Result<String> {
        let head = format!("Host: localhost\r\nX-Forwarded-For: 192.0.2.{client}\r\n");
        write!(socket, "GET /v1/groups HTTP/1.1\r\n{head}\r\n")?;
        let mut from = BufReader::new(&socket);
        let (mut status, mut line, mut length) = (String::new(), String::new(), 0);
        from.read_line(&mut status)?;
        while from.read_line(&mut line)? > 2 {
            let value = line.strip_prefix("content-length: ").map(|value| value.trim().parse());
            length = value.transpose()?.unwrap_or(length);
            line.clear();
        }
        from.read_exact(&mut vec![0; length])?;
        Ok(status.split(' ').nth(1).ok_or("no status")?.to_owned())
    };
    for client in 1..20 {
        assert_eq!(ask(client)?, "200", "{client}");
    }
    until(|| Ok((ask(200)? == "429").then_some(())))?;
    assert_eq!(ask(201)?, "200");
    Ok(())
}

#[test]
fn what_anybody_else_says_of_an_address_is_passed_over() -> Result {
    let bounded = behind("10.0.0.0/8", Limit::RequestsPerSecond, 1)?;
    let clients = std::cell::Cell::new(0_u16);
    bounded.until(429, |_| {
        // Another each time: none of them would ever ask too often.
        clients.set(clients.get() + 1);
        ask_for(&bounded, &format!("2001:db8:0:{:x}::1", clients.get()))
    })?;
    Ok(())
}

#[test]
fn what_a_client_has_under_way_through_a_proxy_counts_as_its_connections() -> Result {
    let limit = Limit::ConnectionsPerAddress;
    let bounded = behind("127.0.0.1", limit, 3)?;
    let client = ("X-Forwarded-For", "192.0.2.1");
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = Stream::open(bounded.hub.address, "group=g", &[client])?;
        stream.upto("ready")?;
        streams.push(stream);
    }
    let upgrade = [&UPGRADE[..], &[client, ("Connection", "Upgrade")]].concat();
    let upgrade: Vec<_> = upgrade.into_iter().filter(|header| *header != UPGRADE[1]).collect();
    let mut socket = bounded.hub.begin("GET", "/v1/ws", &upgrade, b"").into_stream();
    let mut status = String::new();
    BufReader::new(&socket).read_line(&mut status)?;
    assert!(status.starts_with("HTTP/1.1 101"), "{status}");
    let answer = ask_for(&bounded, client.1);
    assert_eq!(answer.status, 429);
    names(&answer, limit);
    assert_eq!(bounded.times(limit), 1);
    let refused = bounded.hub.ask("GET", "/v1/watch?group=g", &[client], b"");
    assert!(refused.status == 200 && refused.text().contains("event: trouble"), "{refused:?}");
    // The proxy has more connections than that, for others.
    for other in 2..8 {
        let other = [("X-Forwarded-For", &*format!("192.0.2.{other}"))];
        let mut stream = Stream::open(bounded.hub.address, "group=g", &other)?;
        stream.upto("ready")?;
        streams.push(stream);
    }
    // Each that ends makes room, a WebSocket too.
    socket.write_all(&[0x88, 0x80, 0, 0, 0, 0])?;
    drop(socket);
    bounded.until(200, |_| ask_for(&bounded, client.1))?;
    let mut stream = Stream::open(bounded.hub.address, "group=g", &[client])?;
    stream.upto("ready")?;
    assert_eq!(ask_for(&bounded, client.1).status, 429);
    drop(streams);
    bounded.until(200, |_| ask_for(&bounded, client.1))?;
    Ok(())
}
