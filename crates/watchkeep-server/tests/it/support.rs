//! A server on a thread of its own, and a client of its streams that knows only the wire.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use watchkeep::Store;
use watchkeep_server::{Bound, Closer, Listen, Server};

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Far longer than anything takes that goes right.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) closer: Closer,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Served {
    pub(crate) fn start(store: &Store) -> Result<Served> {
        let (store, (tell, told)) = (store.clone(), mpsc::channel());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let server = Server::bind(&store, &Listen::Tcp(([127, 0, 0, 1], 0).into())).await?;
                // Who asked for it is there.
                let _ = tell.send((server.bound().clone(), server.closer()));
                server.run().await;
                Ok(())
            })
        });
        match told.recv()? {
            (Bound::Tcp(address), closer) => Ok(Served { address, closer, thread: Some(thread) }),
            (Bound::Unix(path), _) => Err(format!("it listens on {}", path.display()).into()),
        }
    }

    /// Makes a request; the status of the answer.
    pub(crate) fn ask(&self, what: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<u16> {
        let mut socket = TcpStream::connect(self.address)?;
        socket.set_read_timeout(Some(LIMIT))?;
        write!(socket, "{what} HTTP/1.1\r\nConnection: close\r\n")?;
        if !headers.iter().any(|(name, _)| *name == "Host") {
            write!(socket, "Host: {}\r\n", self.address)?;
        }
        headers.iter().try_for_each(|(name, value)| write!(socket, "{name}: {value}\r\n"))?;
        write!(socket, "Content-Length: {}\r\n\r\n", body.len())?;
        socket.write_all(body)?;
        let mut status = String::new();
        BufReader::new(socket).read_line(&mut status)?;
        Ok(status.split(' ').nth(1).ok_or("no status")?.parse()?)
    }

    /// Asks for a stream.
    pub(crate) fn stream(&self, query: &str, headers: &[(&str, &str)]) -> Result<Stream> {
        Stream::open(self.address, query, headers)
    }
}

impl Stream {
    pub(crate) fn open(address: SocketAddr, query: &str, headers: &[(&str, &str)]) -> Result<Stream> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(LIMIT))?;
        write!(socket, "GET /v1/watch?{query} HTTP/1.1\r\nHost: {address}\r\n")?;
        headers.iter().try_for_each(|(name, value)| write!(socket, "{name}: {value}\r\n"))?;
        write!(socket, "\r\n")?;
        let mut from = BufReader::new(socket);
        let mut status = String::new();
        from.read_line(&mut status)?;
        let mut line = String::new();
        while from.read_line(&mut line)? > 2 {
            line.clear();
        }
        let status = status.split(' ').nth(1).ok_or("no status")?.parse()?;
        Ok(Stream { status, lines: BufReader::new(Chunks { from, left: 0 }) })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.closer.close();
        if let Some(thread) = self.thread.take() {
            // What it failed with, the test has seen already.
            let _ = thread.join();
        }
    }
}

/// The body of an answer that comes in chunks.
struct Chunks {
    from: BufReader<TcpStream>,
    left: usize,
}

impl Read for Chunks {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            let mut line = String::new();
            self.from.read_line(&mut line)?;
            if line.trim().is_empty() {
                // The end of the chunk before.
                line.clear();
                self.from.read_line(&mut line)?;
            }
            self.left = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            if self.left == 0 {
                return Ok(0);
            }
        }
        let most = into.len().min(self.left);
        let read = self.from.read(into.get_mut(..most).unwrap_or_default())?;
        self.left -= read;
        Ok(read)
    }
}

/// A stream of server-sent events.
pub(crate) struct Stream {
    pub(crate) status: u16,
    lines: BufReader<Chunks>,
}

/// A frame with an event or an id.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Frame {
    /// Empty: a change.
    pub(crate) event: String,
    /// None: no id, which is not the same as an empty one.
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
}

impl Stream {
    /// The next frame; none at the end of the stream.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>> {
        let mut frame = Frame::default();
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let line = line.trim_end_matches('\n');
            match line.split_once(':') {
                Some(("event", name)) => frame.event = name.trim_start().to_owned(),
                Some(("id", id)) => frame.id = Some(id.trim_start().to_owned()),
                Some(("data", data)) => frame.data = serde_json::from_str(data)?,
                None if line.is_empty() && frame != Frame::default() => return Ok(Some(frame)),
                _ => {}
            }
        }
    }

    /// The next frame, which must come.
    pub(crate) fn need(&mut self) -> Result<Frame> {
        Ok(self.next()?.ok_or("the stream ended")?)
    }

    /// The next frames up to one of this name, without it; and that one.
    pub(crate) fn upto(&mut self, name: &str) -> Result<(Vec<Frame>, Frame)> {
        let mut frames = Vec::new();
        loop {
            match self.next()? {
                Some(frame) if frame.event == name => return Ok((frames, frame)),
                Some(frame) => frames.push(frame),
                None => return Err(format!("the stream ended before {name}, after {frames:?}").into()),
            }
        }
    }

    /// The next changes, so many.
    pub(crate) fn changes(&mut self, many: usize) -> Result<Vec<Frame>> {
        let mut changes = Vec::new();
        while changes.len() < many {
            let frame = self.need()?;
            match frame.event.as_str() {
                "" if frame.data.is_null() => {}
                "" => changes.push(frame),
                mark => return Err(format!("{mark} instead of a change: {}", frame.data).into()),
            }
        }
        Ok(changes)
    }
}
