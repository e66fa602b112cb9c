//! The bytes of the wire: each form of a change and each mark, as `tests/fixtures/stream.txt` has it. A client that was
//! written for them must go on working, so a change of that file is a change of the wire.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use watchkeep::{ManualClock, Options, Revision, SetOptions, Store, Timestamp};

use crate::support::{LIMIT, Result, Served};

/// A stream as it goes over the wire.
struct Text {
    socket: TcpStream,
    text: String,
}

impl Text {
    fn of(served: &Served, query: &str) -> Result<Text> {
        let mut socket = TcpStream::connect(served.address)?;
        socket.set_read_timeout(Some(LIMIT))?;
        // By HTTP/1.0 the body comes as it is.
        write!(socket, "GET /v1/watch?{query} HTTP/1.0\r\nHost: {}\r\n\r\n", served.address)?;
        let mut text = Text { socket, text: String::new() };
        text.read_to("event: ready")?;
        Ok(text)
    }

    /// Reads up to the end of the frame that has this.
    fn read_to(&mut self, what: &str) -> Result {
        let mut some = [0; 4_096];
        while !(self.text.contains(what) && self.text.ends_with("\n\n")) {
            let read = self.socket.read(&mut some)?;
            if read == 0 {
                return Err(format!("it ended: {}", self.text).into());
            }
            self.text.push_str(std::str::from_utf8(&some[..read])?);
        }
        Ok(())
    }

    /// The body without what is drawn.
    fn body(&self, store: &Store) -> Result<String> {
        let (_, body) = self.text.split_once("\r\n\r\n").ok_or("no head")?;
        let drawn = store.cursor(Revision::ZERO);
        let body = body.replace(&format!("{}-{}-", drawn.store(), drawn.epoch()), "STORE-EPOCH-");
        Ok(body.lines().filter(|line| !line.starts_with("retry:")).map(|line| format!("{line}\n")).collect())
    }
}

#[test]
fn the_wire_has_the_bytes_that_clients_know() -> Result {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_795_435_200_123)));
    let folder = tempfile::tempdir()?;
    let store = Options::new().clock(clock.clone()).open(folder.path().join("app.db"))?;
    let served = Served::start(&store)?;
    let (hour, text) = (Duration::from_secs(3_600), SetOptions::new().content_type("text/plain"));
    store.with_origin("me").set_with("g", "text", "a \"b\"\n\u{7}é", text.clone().ttl(hour))?;
    store.set("g", "binary", vec![0xff, 0])?;
    let mut whole = Text::of(&served, "snapshot=auto&kinds=set,delete,delete_group,expire,touch")?;
    let mut short = Text::of(&served, "values=none")?;
    store.set("g", "binary", "text now")?;
    store.touch("g", "binary", hour)?;
    store.transaction(|tx| {
        tx.set("h", "k", "1")?;
        tx.delete("g", "binary")
    })?;
    store.delete_group("h")?;
    store.set_with_ttl("g", "soon", "gone", Duration::from_secs(1))?;
    clock.advance(Duration::from_secs(2));
    let mut found = String::new();
    for (what, stream) in [("snapshot=auto, all kinds", &mut whole), ("values=none", &mut short)] {
        stream.read_to("\"expire\"")?;
        found += &format!("# {what}\n{}", stream.body(&store)?);
    }
    let known = include_str!("../fixtures/stream.txt");
    if std::env::var_os("WATCHKEEP_BLESS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stream.txt"), found)?;
        return Err("it was written; look at what changed, and run this again".into());
    }
    assert_eq!(found, known, "WATCHKEEP_BLESS=1 writes what it is now");
    Ok(())
}
