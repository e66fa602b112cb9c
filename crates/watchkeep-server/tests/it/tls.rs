//! TLS, and HTTP/2 in it.

use std::io::{Read, Write};
use std::net::TcpStream;

use axum::http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use watchkeep::Store;

use crate::support::{LIMIT, Result};
use crate::support_entries::Hub;
use crate::support_tls::{Certified, block_on, within};

fn serve(store: &Store) -> Result<(Hub, Certified)> {
    let certified = Certified::new()?;
    let tls = certified.tls.clone();
    Ok((Hub::with(store, |server| server.tls(tls)), certified))
}

#[test]
fn both_versions_carry_requests_and_only_pages_that_came_the_same_way_may_ask() -> Result {
    let store = Store::open_in_memory()?;
    let (hub, certified) = serve(&store)?;
    block_on(async {
        for (version, scheme, status) in
            [(&TLS12, "https", 204), (&TLS13, "https", 204), (&TLS13, "http", 403)]
        {
            let mut stream = certified.connect(hub.address, version, "http/1.1").await?;
            let (host, name) = (hub.address, status.to_string());
            let request = format!(
                "PUT /v1/entry?group=g&key={name} HTTP/1.1\r\nHost: {host}\r\nOrigin: {scheme}://{host}\r\n\
             Connection: close\r\nContent-Length: 1\r\n\r\nv"
            );
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            within(stream.read_to_string(&mut answer)).await??;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            assert_eq!(store.get("g", &name)?.is_some(), status == 204);
        }
        Ok(())
    })
}

#[test]
fn older_versions_and_plain_requests_are_refused() -> Result {
    let (hub, _certified) = serve(&Store::open_in_memory()?)?;
    // With one cipher suite and three extensions, and nothing wrong but its version.
    let hello = |version| {
        let mut hello = vec![0x16, 3, 1, 0, 69, 1, 0, 0, 65, 3, version];
        hello.extend([7; 32]);
        hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
        hello.extend([0, 22, 0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 0x1d, 0, 11, 0, 2, 1, 0]);
        hello
    };
    let mut socket = TcpStream::connect(hub.address)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.write_all(&hello(3))?;
    let mut kind = [0];
    socket.read_exact(&mut kind)?;
    assert_eq!(kind, [0x16]);
    let plain = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    for (sent, alert) in [(hello(2), Some(70)), (hello(1), Some(70)), (plain, None)] {
        let mut socket = TcpStream::connect(hub.address)?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.write_all(&sent)?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        // A fatal alert: protocol_version for the one.
        assert_eq!((answer[0], answer[5], answer.len()), (0x15, 2, 7), "{answer:?}");
        assert!(alert.is_none_or(|alert| answer[6] == alert), "{answer:?}");
    }
    Ok(())
}

#[test]
fn one_connection_of_http2_carries_streams_and_writes() -> Result {
    let store = Store::open_in_memory()?;
    let (hub, certified) = serve(&store)?;
    block_on(async {
        let mut client = certified.http2(hub.address).await?;
        let mut streams = Vec::new();
        // More than a browser opens over HTTP/1.1.
        for _ in 0..20 {
            let mut stream =
                client.ask(Method::GET, "/v1/watch?group=g&snapshot=auto", "").await?.into_body();
            stream.until("event: ready").await?;
            streams.push(stream);
        }
        assert_eq!(client.status(Method::PUT, "/v1/entry?group=g&key=k", "over http2").await?, 204);
        for stream in &mut streams {
            stream.until("over http2").await?;
        }
        let read = client.ask(Method::GET, "/v1/entry?group=g&key=k", "").await?;
        assert_eq!((read.status().as_u16(), read.into_body().rest().await?), (200, 10));
        hub.close();
        for stream in &mut streams {
            stream.until("event: bye").await?;
            stream.rest().await?;
        }
        Ok(())
    })
}

#[test]
fn a_host_of_http2_is_judged_like_any_other() -> Result {
    let (hub, certified) = serve(&Store::open_in_memory()?)?;
    block_on(async {
        let mut client = certified.http2(hub.address).await?;
        assert_eq!(client.status_of(&format!("https://{}/v1/stats", hub.address), None).await?, 200);
        assert_eq!(client.status_of("https://evil.example/v1/stats", None).await?, 403);
        assert_eq!(
            client.status_of(&format!("https://{}/v1/stats", hub.address), Some("localhost")).await?,
            403
        );
        Ok(())
    })
}

#[test]
fn a_client_that_resets_what_it_asks_for_is_ended_and_the_others_go_on() -> Result {
    let store = Store::open_in_memory()?;
    store.set("g", "k", "v")?;
    let (hub, certified) = serve(&store)?;
    block_on(async {
        let mut other = certified.http2(hub.address).await?;
        let mut stream = other.ask(Method::GET, "/v1/watch?group=g&snapshot=auto", "").await?.into_body();
        stream.until("event: ready").await?;
        // By hand, since a client of a library waits for its turn.
        let mut rapid = certified.connect(hub.address, &TLS13, "h2").await?;
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        // GET https://localhost/ without Huffman codes, and its reset.
        let head = [&[0x82, 0x87, 0x84, 0x41, 9][..], b"localhost"].concat();
        for stream in (1_u32..20_001).step_by(2) {
            bytes.extend([0, 0, u8::try_from(head.len())?, 1, 5]);
            bytes.extend(stream.to_be_bytes());
            bytes.extend(&head);
            bytes.extend([0, 0, 4, 3, 0]);
            bytes.extend(stream.to_be_bytes());
            bytes.extend([0, 0, 0, 8]);
        }
        // It is cut off in the midst.
        let _ = within(rapid.write_all(&bytes)).await?;
        let mut answer = Vec::new();
        let ended = within(rapid.read_to_end(&mut answer)).await?;
        // Its goodbye has the code ENHANCE_YOUR_CALM, unless it was lost with what nobody read.
        let goodbye = answer.windows(17).find(|frame| frame[3] == 7 && frame[13..17] == [0, 0, 0, 11]);
        assert!(ended.is_err() || goodbye.is_some(), "{} bytes", answer.len());
        store.set("g", "k", "still there")?;
        stream.until("still there").await
    })
}
