//! The store on the network while the demo runs, and a client of its stream that is cut off again and again.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use watchkeep::{Revision, Store};
use watchkeep_server::{Bound, Closer, Listen, Server};

use super::pace::Pace;
use super::{LOOK, joined};
use crate::commands::threads;
use crate::exit::{FAILURE, Failure, Result};

/// After how long the client is cut off.
const CUT: Duration = Duration::from_millis(700);

/// A server over the store, on a thread of its own.
pub(super) struct Hub {
    url: String,
    address: SocketAddr,
    closer: Closer,
    thread: Option<JoinHandle<()>>,
}

impl Hub {
    pub(super) fn start(store: &Store) -> Result<Hub> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(refused)?;
        let server = bind(&runtime, store)?;
        let Bound::Tcp(address) = *server.bound() else { return Err(refused(ErrorKind::Unsupported.into())) };
        let (url, closer) = (server.url(), server.closer());
        let thread = threads::start(move || runtime.block_on(server.run()))?;
        Ok(Hub { url, address, closer, thread: Some(thread) })
    }

    pub(super) fn client(&self, pace: Pace) -> Client {
        Client { address: self.address, pace, end: AtomicU64::new(u64::MAX) }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

/// Listens at the usual address, or at a free one where somebody listens there already.
fn bind(runtime: &Runtime, store: &Store) -> Result<Server> {
    let free = Listen::Tcp(([127, 0, 0, 1], 0).into());
    runtime
        .block_on(async {
            match Server::bind(store, &Listen::default()).await {
                Err(error) if error.kind() == ErrorKind::AddrInUse => Server::bind(store, &free).await,
                bound => bound,
            }
        })
        .map_err(refused)
}

fn refused(error: io::Error) -> Failure {
    Failure::new(FAILURE, format!("the server cannot start: {error}; run the demo without --serve"))
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.closer.close();
        if let Some(thread) = self.thread.take() {
            joined(thread.join());
        }
    }
}

/// A client that knows nothing but the wire: what a plain `EventSource` does, and no more.
pub(super) struct Client {
    address: SocketAddr,
    pace: Pace,
    end: AtomicU64,
}

/// What a client heard.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) revisions: Vec<Revision>,
    /// How often it was cut off.
    pub(super) cuts: usize,
    /// The id of the last message: where it goes on.
    bookmark: String,
}

impl Client {
    /// From now on it ends when it has heard this revision.
    pub(super) fn read_up_to(&self, end: Revision) {
        self.end.store(end.get(), Ordering::Release);
    }

    /// Hears what follows a revision until the end is known and reached; comes back after each cut.
    pub(super) fn read(&self, store: &Store, after: Revision) -> Result<Heard> {
        let bookmark = store.cursor(after).to_string();
        let mut heard = Heard { revisions: Vec::new(), cuts: 0, bookmark };
        loop {
            self.hear(&mut heard, after).map_err(|error| {
                Failure::new(
                    FAILURE,
                    format!("the client of the hub failed: {error}; please report this as a bug"),
                )
            })?;
            if self.is_enough(&heard, after) {
                return Ok(heard);
            }
            heard.cuts += 1;
        }
    }

    fn is_enough(&self, heard: &Heard, after: Revision) -> bool {
        let at = heard.revisions.last().copied().unwrap_or(after);
        at.get() >= self.end.load(Ordering::Acquire) || self.pace.is_overdue()
    }

    /// One connection, up to its cut.
    fn hear(&self, heard: &mut Heard, after: Revision) -> io::Result<()> {
        let mut socket = TcpStream::connect(self.address)?;
        socket.set_read_timeout(Some(LOOK))?;
        // By HTTP/1.0 the answer comes as it is, and ends with the connection.
        let (address, bookmark) = (self.address, &heard.bookmark);
        write!(socket, "GET /v1/watch HTTP/1.0\r\nHost: {address}\r\nLast-Event-ID: {bookmark}\r\n\r\n")?;
        let mut stream = BufReader::new(socket);
        let (cut, mut line) = (Instant::now() + CUT, Vec::new());
        let (mut id, mut revision) = (None, None);
        while Instant::now() < cut && !self.is_enough(heard, after) {
            match stream.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => {}
                // What has come of the line stays in it.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(error) => return Err(error),
            }
            match String::from_utf8_lossy(&line).trim_end() {
                // A message counts once it is whole.
                "" => {
                    heard.bookmark = id.take().unwrap_or_else(|| heard.bookmark.clone());
                    heard.revisions.extend(revision.take());
                }
                text => match text.split_once(": ") {
                    Some(("id", text)) => id = Some(text.to_owned()),
                    Some(("data", text)) => {
                        let event: Value = serde_json::from_str(text)?;
                        revision = event.get("revision").and_then(Value::as_u64).map(Revision::new);
                    }
                    _ => {}
                },
            }
            line.clear();
        }
        Ok(())
    }
}
