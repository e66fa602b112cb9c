//! A server, and requests written out byte by byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use watchkeep::Store;
use watchkeep_server::{Bound, Closer, Listen, Server};

/// A server on a thread of its own; ends when it is dropped.
pub(crate) struct Hub {
    pub(crate) address: SocketAddr,
    closer: Closer,
    thread: Option<JoinHandle<()>>,
}

impl Hub {
    pub(crate) fn over(store: &Store) -> Hub {
        Hub::with(store, |server| server)
    }

    /// A server that is set up further.
    pub(crate) fn with(store: &Store, set_up: impl FnOnce(Server) -> Server) -> Hub {
        Hub::at("127.0.0.1:0", store, set_up)
    }

    /// A server that listens there.
    pub(crate) fn at(address: &str, store: &Store, set_up: impl FnOnce(Server) -> Server) -> Hub {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listen: Listen = address.parse().expect("an address");
        let server = runtime.block_on(Server::bind(store, &listen)).expect("a server");
        let server = set_up(server);
        let Bound::Tcp(address) = *server.bound() else { panic!("not a port") };
        let closer = server.closer();
        let thread = std::thread::spawn(move || runtime.block_on(server.run()));
        Hub { address, closer, thread: Some(thread) }
    }

    pub(crate) fn close(&self) {
        self.closer.close();
    }

    pub(crate) fn drain(&self, over: Duration) {
        self.closer.drain(over);
    }

    /// Sends a request, and reads the whole answer.
    pub(crate) fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.begin(method, target, headers, body).answer()
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &[], b"")
    }

    pub(crate) fn put(&self, target: &str, body: impl AsRef<[u8]>) -> Answer {
        self.ask("PUT", target, &[], body.as_ref())
    }

    /// Sends a request.
    pub(crate) fn begin(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Asked {
        begin(self.address, method, target, headers, body)
    }
}

/// Asks a server of somebody else's.
pub(crate) fn get(address: SocketAddr, target: &str) -> Answer {
    begin(address, "GET", target, &[], b"").answer()
}

/// Sends a request to whoever is at an address.
pub(crate) fn begin(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Asked {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        head += &format!("Host: {address}\r\n");
    }
    if !headers.iter().any(|(name, _)| *name == "Connection") {
        head += "Connection: close\r\n";
    }
    if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "Transfer-Encoding") {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    stream.write_all(format!("{head}\r\n").as_bytes()).expect("the head is taken");
    stream.write_all(body).expect("the body is taken");
    Asked { stream, bodiless: method == "HEAD" }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.closer.close();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(std::thread::panicking() || ended.is_ok(), "the server panicked");
        }
    }
}

/// A request that is under way.
pub(crate) struct Asked {
    stream: TcpStream,
    bodiless: bool,
}

impl Asked {
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// All that comes, whatever it is.
    pub(crate) fn answer_of_proxy(mut self) -> String {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).expect("an answer");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn answer(mut self) -> Answer {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).expect("an answer");
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("the end of the head");
        let head = String::from_utf8(bytes[..end].to_vec()).expect("a head in ASCII");
        let body = bytes[end + 4..].to_vec();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let answer = Answer { status: status.parse().expect("a number"), headers, body };
        match answer.header("content-length") {
            Some(_) if self.bodiless || answer.status == 304 => assert!(answer.body.is_empty()),
            Some(length) => assert_eq!(length, answer.body.len().to_string(), "{head}"),
            None => assert!(matches!(answer.status, 204 | 304) && answer.body.is_empty(), "{head}"),
        }
        answer
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn cursor(&self) -> &str {
        self.header("watchkeep-cursor").expect("a cursor")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The kind of a problem document; checks that it is one.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let document = self.json();
        assert_eq!(document["status"], self.status);
        for field in ["type", "title", "detail"] {
            assert!(document[field].as_str().is_some_and(|text| !text.is_empty()), "{document}");
        }
        document["kind"].as_str().expect("a kind").to_owned()
    }

    /// The status and the kind of the problem.
    pub(crate) fn refusal(&self) -> (u16, String) {
        (self.status, self.problem())
    }
}

pub(crate) fn encoded(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
