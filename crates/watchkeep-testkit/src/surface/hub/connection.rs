//! One connection to a server, as the messages that come over it, whichever way they are wrapped.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value as Json, json};
use socket2::{Domain, Socket, Type};
use tungstenite::WebSocket;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::http::HeaderValue;

/// How many bytes the kernel keeps of what a client does not read: the rest is the server's.
const UNREAD: usize = 64 << 10;
/// The id of the one subscription of a WebSocket.
const ID: &str = "all of it";

/// How messages are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Server-sent events.
    Events,
    /// A subscription over a WebSocket.
    WebSocket,
}

/// What the server says.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: String,
    /// Of a change, its object.
    pub(super) data: Json,
    /// The bookmark that comes with it.
    pub(super) at: Option<String>,
}

/// What is asked for: the fields of a subscription, and where it goes on.
#[derive(Debug)]
pub(super) struct Query<'q> {
    pub(super) fields: &'q [(&'static str, String)],
    pub(super) bookmark: Option<&'q str>,
    /// Whether the bookmark is given as an `EventSource` does, where there is such a way.
    pub(super) as_header: bool,
}

/// What comes of waiting.
#[derive(Debug)]
pub(super) enum Came {
    Message(Message),
    /// Nothing in this time.
    Nothing,
    End,
}

/// A subscription over a connection of its own.
pub(super) trait Connection: Send + fmt::Debug {
    /// What comes within this time, or without waiting.
    fn next(&mut self, within: Option<Duration>) -> io::Result<Came>;

    fn tap(&mut self) -> &mut Tap;
}

impl Wire {
    /// Connects and asks. After so many bytes of what comes the connection is cut.
    pub(super) fn ask(
        self,
        address: SocketAddr,
        cut: Option<usize>,
        query: &Query<'_>,
        patience: Duration,
    ) -> io::Result<Box<dyn Connection>> {
        let tap = Tap::connect(address, cut, patience)?;
        Ok(match self {
            Wire::Events => Box::new(Events::ask(tap, query)?),
            Wire::WebSocket => Box::new(Subscribed::ask(tap, query)?),
        })
    }
}

/// A socket that can be cut off at any byte.
#[derive(Debug)]
pub(super) struct Tap {
    socket: TcpStream,
    left: Option<usize>,
}

impl Tap {
    fn connect(address: SocketAddr, left: Option<usize>, patience: Duration) -> io::Result<Tap> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_recv_buffer_size(UNREAD)?;
        socket.connect(&address.into())?;
        let tap = Tap { socket: socket.into(), left };
        tap.wait(Some(patience))?;
        Ok(tap)
    }

    /// How long a read waits; none does not wait.
    fn wait(&self, within: Option<Duration>) -> io::Result<()> {
        self.socket.set_nonblocking(within.is_none())?;
        match within {
            Some(time) => self.socket.set_read_timeout(Some(time.max(Duration::from_millis(1)))),
            None => Ok(()),
        }
    }

    /// Whether all has come that comes before the cut.
    pub(super) fn is_spent(&self) -> bool {
        self.left == Some(0)
    }

    /// From here on so many bytes more are read, or all.
    pub(super) fn cut_after(&mut self, left: Option<usize>) {
        self.left = left;
    }
}

impl Read for Tap {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.left.unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let read = self.socket.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.left = self.left.map(|left| left - read);
        Ok(read)
    }
}

impl Write for Tap {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// Whether a read only came to the end of its time.
fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A stream of server-sent events, in chunks.
#[derive(Debug)]
struct Events {
    tap: Tap,
    /// Bytes of the answer that are not chunks yet, and of its body that are not frames yet.
    raw: Vec<u8>,
    body: Vec<u8>,
    head_is_over: bool,
    ended: bool,
}

impl Events {
    fn ask(mut tap: Tap, query: &Query<'_>) -> io::Result<Events> {
        let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let (after, header) = match query.bookmark {
            Some(at) if query.as_header => (None, format!("Last-Event-ID: {at}\r\n")),
            after => (after, String::new()),
        };
        let kept = query.fields.iter().filter(|(name, _)| after.is_none() || *name != "after");
        let fields = kept.map(|(name, value)| (*name, value.as_str())).chain(after.map(|at| ("after", at)));
        let fields: Vec<_> = fields.map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let request =
            format!("GET /v1/watch?{} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n", fields.join("&"));
        tap.write_all(request.as_bytes())?;
        Ok(Events { tap, raw: Vec::new(), body: Vec::new(), head_is_over: false, ended: false })
    }

    fn unwrap_chunks(&mut self) -> io::Result<()> {
        if !self.head_is_over {
            let Some(end) = find(&self.raw, b"\r\n\r\n") else { return Ok(()) };
            if !self.raw.starts_with(b"HTTP/1.1 200") {
                return Err(io::Error::other(String::from_utf8_lossy(&self.raw).into_owned()));
            }
            self.raw.drain(..end + 4);
            self.head_is_over = true;
        }
        while let Some(line) = find(&self.raw, b"\r\n") {
            let text = String::from_utf8_lossy(self.raw.get(..line).unwrap_or_default()).into_owned();
            let Ok(len) = usize::from_str_radix(text.trim(), 16) else {
                return Err(io::Error::other(format!("no length of a chunk: {text}")));
            };
            let (from, to) = (line + 2, line + 2 + len);
            let Some(chunk) = self.raw.get(from..to).filter(|_| self.raw.len() >= to + 2) else {
                return Ok(());
            };
            self.body.extend_from_slice(chunk);
            self.raw.drain(..to + 2);
            self.ended |= len == 0;
        }
        Ok(())
    }

    /// The next message of what has come.
    fn message(&mut self) -> io::Result<Option<Message>> {
        while let Some(end) = find(&self.body, b"\n\n") {
            let frame: Vec<u8> = self.body.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&frame);
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
            let (kind, data, at) = (field("event: "), field("data: "), field("id: "));
            let kind = match (kind, data, at) {
                (Some(kind), ..) => kind,
                (None, Some(_), _) => "change",
                (None, None, Some(_)) => "heartbeat",
                // A comment, or when to come back.
                (None, None, None) => continue,
            };
            let data = serde_json::from_str(data.unwrap_or("{}"))?;
            return Ok(Some(Message { kind: kind.to_owned(), data, at: at.map(str::to_owned) }));
        }
        Ok(None)
    }
}

impl Connection for Events {
    fn next(&mut self, within: Option<Duration>) -> io::Result<Came> {
        self.tap.wait(within)?;
        let mut buffer = [0; 16 << 10];
        loop {
            if let Some(message) = self.message()? {
                return Ok(Came::Message(message));
            }
            if self.ended {
                return Ok(Came::End);
            }
            match self.tap.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(read) => self.raw.extend_from_slice(buffer.get(..read).unwrap_or_default()),
                Err(error) if is_nothing(&error) => return Ok(Came::Nothing),
                Err(error) => return Err(error),
            }
            self.unwrap_chunks()?;
        }
    }

    fn tap(&mut self) -> &mut Tap {
        &mut self.tap
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A subscription over a WebSocket that has no other.
#[derive(Debug)]
struct Subscribed(WebSocket<Tap>);

impl Subscribed {
    fn ask(tap: Tap, query: &Query<'_>) -> io::Result<Subscribed> {
        let mut request = "ws://localhost/v1/ws".into_client_request().map_err(io::Error::other)?;
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("watchkeep.v1"));
        let (mut socket, _) = tungstenite::client(request, tap)
            .map_err(|error| io::Error::other(format!("no WebSocket: {error}")))?;
        let mut message = json!({ "type": "subscribe", "id": ID });
        let fields = query.fields.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in fields.chain(query.bookmark.map(|at| ("after", at))) {
            if let Some(message) = message.as_object_mut() {
                message.insert(name.to_owned(), value.into());
            }
        }
        socket.send(tungstenite::Message::text(message.to_string())).map_err(io::Error::other)?;
        Ok(Subscribed(socket))
    }
}

impl Connection for Subscribed {
    fn next(&mut self, within: Option<Duration>) -> io::Result<Came> {
        self.0.get_ref().wait(within)?;
        loop {
            let text = match self.0.read() {
                Ok(tungstenite::Message::Text(text)) => text,
                Ok(_) => continue,
                Err(tungstenite::Error::Io(error)) if is_nothing(&error) => return Ok(Came::Nothing),
                Err(tungstenite::Error::ConnectionClosed) => return Ok(Came::End),
                Err(error) => return Err(io::Error::other(error)),
            };
            let mut data: Json = serde_json::from_str(&text)?;
            let field = |name: &str| data.get(name).and_then(Json::as_str).map(str::to_owned);
            let (kind, id, at) = (field("type").unwrap_or_default(), field("id"), field("cursor"));
            if kind == "error" || id.as_deref() != Some(ID) {
                return Err(io::Error::other(text.to_string()));
            }
            if kind == "change" {
                data = data.get_mut("event").map(Json::take).unwrap_or_default();
            }
            return Ok(Came::Message(Message { kind, data, at }));
        }
    }

    fn tap(&mut self) -> &mut Tap {
        self.0.get_mut()
    }
}
