//! A store behind its wire: what is read of changes comes as server-sent events over a real socket. Everything else
//! goes to the library, so that what is held against the promises is the stream.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value as Json;
use watchkeep::{Clock, Cursor, Kind, LagPolicy, Lagged, Options, Revision, Timestamp, Value};
use watchkeep_cli::time::parse_rfc3339;
use watchkeep_server::{Bound, Closer, Listen, Server};

use super::library::Library;
use super::site::{Capabilities, File, Site};
use super::{Callback, Fault, Next, Past, Placed, Registered, Stream, Surface, Wait};
use crate::ops::{Outcome, Step};
use crate::record::{Beginning, Note, Seen, Target, Want, WatchSpec};

/// How long the server may take to begin a stream.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store in a file of its own, and a server on it.
#[derive(Debug)]
pub struct Hub(File);

impl Hub {
    /// A place for a file that is not there yet.
    ///
    /// # Errors
    ///
    /// When no folder can be made.
    pub fn new() -> Result<Hub, Fault> {
        Ok(Hub(File::new()?))
    }
}

impl Site for Hub {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn open(&self, options: Options, clock: Arc<dyn Clock>) -> Result<Arc<dyn Surface>, Fault> {
        Ok(Arc::new(Served::start(self.0.library(options, clock)?)?))
    }
}

#[derive(Debug)]
struct Served {
    library: Library,
    address: SocketAddr,
    closer: Closer,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Served {
    fn start(library: Library) -> Result<Served, Fault> {
        let (store, (tell, told)) = (library.store().clone(), mpsc::channel());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let server = Server::bind(&store, &Listen::Tcp(([127, 0, 0, 1], 0).into())).await?;
                drop(store);
                drop(tell.send((server.bound().clone(), server.closer())));
                server.run().await;
                Ok(())
            })
        });
        match told.recv()? {
            (Bound::Tcp(address), closer) => Ok(Served { library, address, closer, thread: Some(thread) }),
            (Bound::Unix(path), _) => Err(format!("it listens on {}", path.display()).into()),
        }
    }

    /// What the wire has words for, as a query; the rest is watched through the library.
    fn query(spec: &WatchSpec) -> Option<String> {
        let want = &spec.want;
        let beyond = want.namespace.is_some()
            || want.without_group_deletions
            || spec.previous_values
            || spec.policy != LagPolicy::CatchUp;
        if beyond {
            return None;
        }
        let mut query = match &want.target {
            Target::Everything => vec![],
            Target::Group(group) => vec![("group", group.clone())],
            Target::GroupPrefix(prefix) => vec![("group_prefix", prefix.clone())],
            Target::Key(group, key) => vec![("group", group.clone()), ("key", key.clone())],
            Target::KeyPrefix(group, prefix) => {
                vec![("group", group.clone()), ("key_prefix", prefix.clone())]
            }
            Target::KeyName(key) => vec![("key", key.clone())],
            Target::Pattern(..) => return None,
        };
        if let Some(kinds) = &want.kinds {
            query.push(("kinds", kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(",")));
        }
        if let Some(origin) = &want.excluded_origin {
            query.push(("exclude_origin", origin.clone()));
        }
        if spec.keys_only {
            query.push(("values", "none".to_owned()));
        }
        if spec.beginning == Beginning::Snapshot {
            query.push(("snapshot", "auto".to_owned()));
        }
        let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        Some(
            query
                .iter()
                .map(|(name, value)| format!("{name}={}", encode(value)))
                .collect::<Vec<_>>()
                .join("&"),
        )
    }
}

impl Surface for Served {
    fn perform(&self, step: &Step, label: &str) -> Outcome {
        self.library.perform(step, label)
    }

    fn history(&self, want: &Want, after: Revision) -> Result<Past, Fault> {
        self.library.history(want, after)
    }

    fn last(&self) -> Result<Revision, Fault> {
        self.library.last()
    }

    fn oldest(&self) -> Result<Revision, Fault> {
        self.library.oldest()
    }

    fn compact(&self, before: Revision) -> Result<u64, Fault> {
        self.library.compact(before)
    }

    fn picture(&self) -> Result<(Revision, Vec<Placed>), Fault> {
        self.library.picture()
    }

    fn watch(&self, spec: &WatchSpec) -> Result<Box<dyn Stream>, Fault> {
        let Some(mut query) = Served::query(spec) else { return self.library.watch(spec) };
        let now = self.library.last()?;
        if let Beginning::After(revision) = spec.beginning {
            if revision > now {
                // The wire refuses what the library waits for.
                return self.library.watch(spec);
            }
            query.push_str(&format!("&after={}", self.library.store().cursor(revision)));
        }
        let mut events = Events::ask(self.address, &query)?;
        events.start = match spec.beginning {
            Beginning::Snapshot => now,
            _ => events.first_ready()?,
        };
        Ok(Box::new(events))
    }

    fn on_change(&self, want: &Want, callback: Callback) -> Option<Box<dyn Registered>> {
        self.library.on_change(want, callback)
    }

    fn check(&self) -> Result<Vec<String>, Fault> {
        self.library.check()
    }

    fn close(&self) -> Result<(), Fault> {
        self.library.close()
    }

    fn now(&self) -> Timestamp {
        self.library.now()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.closer.close();
        if let Some(thread) = self.thread.take() {
            // What it failed with shows in the streams.
            drop(thread.join());
        }
    }
}

/// A stream of server-sent events, and what came of it so far.
#[derive(Debug)]
struct Events {
    socket: TcpStream,
    /// Bytes of the answer that are not chunks yet, and of its body that are not frames yet.
    raw: Vec<u8>,
    body: Vec<u8>,
    head_is_over: bool,
    start: Revision,
    ended: bool,
}

/// What a frame says.
enum Frame {
    Note(Note),
    /// Nothing that the library would tell.
    Nothing,
    /// The server ends the stream: after everything, or before.
    End(Option<Note>),
}

impl Events {
    fn ask(address: SocketAddr, query: &str) -> Result<Events, Fault> {
        let mut socket = TcpStream::connect(address)?;
        write!(socket, "GET /v1/watch?{query} HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
        let start = Revision::ZERO;
        Ok(Events { socket, raw: Vec::new(), body: Vec::new(), head_is_over: false, start, ended: false })
    }

    /// Where a stream that is not a snapshot begins.
    fn first_ready(&mut self) -> Result<Revision, Fault> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(frame) = self.frame() {
                let text = String::from_utf8_lossy(&frame).into_owned();
                if let Some(data) = text.strip_prefix("event: ready\n").and_then(data) {
                    return cursor(&data).ok_or_else(|| format!("no cursor in {text}").into());
                }
                if !text.starts_with("retry:") {
                    return Err(format!("instead of ready came {text}").into());
                }
            } else if !self.fill(until.checked_duration_since(Instant::now()))? {
                return Err(format!("no stream: {}", String::from_utf8_lossy(&self.raw)).into());
            }
        }
    }

    /// Reads what comes within this time, or without waiting; whether anything did.
    fn fill(&mut self, within: Option<Duration>) -> std::io::Result<bool> {
        let mut buffer = [0; 16 << 10];
        self.socket.set_nonblocking(within.is_none())?;
        if within.is_some() {
            self.socket.set_read_timeout(within.map(|time| time.max(Duration::from_millis(1))))?;
        }
        match self.socket.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(read) => self.raw.extend_from_slice(buffer.get(..read).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        self.unwrap_chunks();
        Ok(true)
    }

    fn unwrap_chunks(&mut self) {
        if !self.head_is_over {
            let Some(end) = find(&self.raw, b"\r\n\r\n") else { return };
            self.raw.drain(..end + 4);
            self.head_is_over = true;
        }
        while let Some(line) = find(&self.raw, b"\r\n") {
            let text = String::from_utf8_lossy(self.raw.get(..line).unwrap_or_default()).into_owned();
            let Ok(len) = usize::from_str_radix(text.trim(), 16) else { return };
            let (from, to) = (line + 2, line + 2 + len);
            let Some(chunk) = self.raw.get(from..to).filter(|_| self.raw.len() >= to + 2) else { return };
            self.body.extend_from_slice(chunk);
            self.raw.drain(..to + 2);
            self.ended |= len == 0;
        }
    }

    fn frame(&mut self) -> Option<Vec<u8>> {
        let end = find(&self.body, b"\n\n")?;
        Some(self.body.drain(..end + 2).collect())
    }
}

impl Stream for Events {
    fn next(&mut self, wait: Wait) -> Next {
        let began = Instant::now();
        loop {
            while let Some(frame) = self.frame() {
                match read(&String::from_utf8_lossy(&frame)) {
                    Ok(Frame::Note(note)) => return Next::Note(note),
                    Ok(Frame::Nothing) => {}
                    Ok(Frame::End(last)) => {
                        self.ended = true;
                        self.body.clear();
                        return last.map_or(Next::Ended, Next::Note);
                    }
                    Err(problem) => return Next::Note(Note::Failed(problem)),
                }
            }
            if self.ended {
                return Next::Ended;
            }
            let within = match wait {
                Wait::No => None,
                Wait::Forever => Some(PATIENCE),
                Wait::Most(time) => match time.checked_sub(began.elapsed()) {
                    Some(left) => Some(left),
                    None => return Next::Pending,
                },
            };
            match self.fill(within) {
                Ok(true) => {}
                // It may be on its way.
                Ok(false) if wait == Wait::No => return Next::Pending,
                Ok(false) => {}
                Err(error) => {
                    self.ended = true;
                    return Next::Note(Note::Failed(error.to_string()));
                }
            }
        }
    }

    fn start(&self) -> Revision {
        self.start
    }

    fn dropped(&self) -> u64 {
        0
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The data of a frame.
fn data(frame: &str) -> Option<Json> {
    let line = frame.lines().find_map(|line| line.strip_prefix("data: "))?;
    serde_json::from_str(line).ok()
}

fn cursor(data: &Json) -> Option<Revision> {
    Some(data.get("cursor")?.as_str()?.parse::<Cursor>().ok()?.revision())
}

fn read(frame: &str) -> Result<Frame, String> {
    let bad = || format!("a frame that cannot be read: {frame}");
    let name = frame.lines().find_map(|line| line.strip_prefix("event: "));
    let Some(data) = data(frame) else { return Ok(Frame::Nothing) };
    let number = |name: &str| data.get(name).and_then(Json::as_u64).map(Revision::new).ok_or_else(bad);
    match name {
        None => seen(&data).map(Note::Event).map(Frame::Note).ok_or_else(bad),
        Some("ready") => cursor(&data).map(Note::Ready).map(Frame::Note).ok_or_else(bad),
        Some("lagged") => Ok(Frame::Note(Note::Lagged(Lagged { from: number("from")?, to: number("to")? }))),
        Some("reset") if data.get("reason").and_then(Json::as_str) == Some("start") => Ok(Frame::Nothing),
        // The library would not begin again by itself: as if the reader had gone.
        Some("reset" | "trouble") => Ok(Frame::End(Some(Note::Closed))),
        Some("bye") => Ok(Frame::End(None)),
        Some(_) => Err(bad()),
    }
}

/// An event, read back from its object.
fn seen(data: &Json) -> Option<Seen> {
    let text = |name: &str| data.get(name).and_then(Json::as_str);
    let number = |name: &str| data.get(name).and_then(Json::as_u64).map(Revision::new);
    let time = |name: &str| text(name).and_then(|time| parse_rfc3339(time).ok());
    let value = match text("value_base64") {
        Some(encoded) => Some(Value::from(BASE64_STANDARD.decode(encoded).ok()?)),
        None => text("value").map(Value::from),
    };
    let kind = text("kind")?;
    Some(Seen {
        revision: number("revision")?,
        commit: number("commit")?,
        kind: Kind::ALL.into_iter().find(|known| known.as_str() == kind)?,
        group: text("group")?.to_owned(),
        key: text("key").map(str::to_owned),
        value,
        content_type: text("content_type").map(str::to_owned),
        deadline: time("deadline"),
        previous: number("previous_revision"),
        previous_value: None,
        origin: text("origin").map(str::to_owned),
        timestamp: time("timestamp")?,
        snapshot: data.get("snapshot").is_some(),
    })
}
