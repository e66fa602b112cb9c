//! Every limit of the server, in one place.

use std::ops::Range;
use std::time::Duration;

/// The largest body of a request, in bytes: the largest value that a store takes unless it was opened otherwise.
pub(crate) const MAX_BODY: usize = 16 << 20;
/// How large the head of a request may be, in bytes.
pub(crate) const MAX_HEAD: usize = 16 << 10;
/// How many headers a request may have.
pub(crate) const MAX_HEADERS: usize = 64;
/// How long the head of a request may take, and how long a connection may be idle between two requests.
pub(crate) const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a request may take until its answer begins: its body, and what it waits for.
pub(crate) const REQUEST_TIME: Duration = Duration::from_secs(90);
/// How long the other end may take nothing of what is written to it.
pub(crate) const STALL_TIME: Duration = Duration::from_secs(30);
/// How long the requests under way may take once the server ends.
pub(crate) const END_TIME: Duration = Duration::from_secs(5);
/// How long a server may take to end at the most, while it still answers.
pub(crate) const DRAIN_TIME: Duration = Duration::from_secs(60 * 60);
/// How long nobody is accepted once that failed: nothing tells when there are descriptors again.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A stream without events sends its position this often.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(15);
/// After how long a client of a stream comes back, in milliseconds: spread, so that not all come at once.
pub(crate) const RETRY: Range<u64> = 500..1_500;
/// How many bytes of frames go out in one write, about.
pub(crate) const WRITE: usize = 64 << 10;
/// How many events a watcher of the library buffers for a ring, or for a client that reads beside it, before it reads
/// on from the log.
pub(crate) const STREAM_EVENTS: usize = 64;
/// What a ring holds for its clients, in events and in bytes, about.
pub(crate) const RING_EVENTS: usize = 4_096;
pub(crate) const RING_BYTES: usize = 8 << 20;
/// In how many parts the clients of a ring get their heartbeats: one after the other, not all at once.
pub(crate) const BEAT_PARTS: u64 = 15;
/// How many bytes of changes all rings and clients hold together before the rings hold less.
pub(crate) const CHANGES_BYTES: usize = 128 << 20;
/// How many changes a ring holds all the same.
pub(crate) const RING_LEAST: usize = 64;
/// How many clients read a snapshot at once; the others wait in turn.
pub(crate) const SNAPSHOTS: usize = 8;
/// How many clients that fell out of their ring hold a page of the log at once; the others wait in turn.
pub(crate) const LAGGARDS: usize = 4;
/// After how long a client that reads beside its ring lets the next one in turn read, too.
pub(crate) const TURN_TIME: Duration = Duration::from_secs(2);
/// How many WebSocket connections are open at once.
pub(crate) const SOCKETS: u32 = 10_000;
/// How many subscriptions a WebSocket connection has at once.
pub(crate) const SUBSCRIPTIONS: usize = 256;
/// How long the id of a message may be, in bytes.
pub(crate) const MAX_ID: usize = 128;
/// The largest message of a client: room for the largest value as base64, and for its names.
pub(crate) const MAX_MESSAGE: usize = 24 << 20;
/// How many bytes of a WebSocket are read at once.
pub(crate) const READ: usize = 4 << 10;
/// A WebSocket peer that says nothing for so long, pongs included, is dropped: it missed three pings.
pub(crate) const SILENCE: Duration = Duration::from_secs(45);
/// A WebSocket peer may take one second more than [`STALL_TIME`] for each so many bytes of the message that it is at.
pub(crate) const STALL_RATE: usize = 64 << 10;
/// How long a WebSocket peer has to take the last messages, once the server ends.
pub(crate) const LEAVE_TIME: Duration = Duration::from_secs(3);
/// How long the answer to a close frame is waited for.
pub(crate) const CLOSE_TIME: Duration = Duration::from_secs(1);
/// How much of a body that is too large is read and thrown away, so that its sender sees the refusal.
pub(crate) const DRAINED: usize = 1 << 20;
/// How long a read waits for the position that it asks for, at the most.
pub(crate) const MIN_TIME: Duration = Duration::from_secs(10);
/// How many groups or keys a page holds, at the most: what the library reads at a time.
pub(crate) const PAGE: usize = 256;
/// How many rows of the log a page of changes looks at, at the most: what the library does.
pub(crate) const CHANGES: usize = 1_000;
/// How long a page of changes without a match is waited for, at the most.
pub(crate) const WAIT_TIME: Duration = Duration::from_secs(60);
/// How often a server looks whether its store's file was replaced.
pub(crate) const LOSS_LOOK: Duration = Duration::from_millis(250);
/// How long a request waits while the store is opened again, and how long a stream does.
pub(crate) const REOPEN_TIME: Duration = Duration::from_secs(3);
/// How long the first pause is after a store could not be opened again, and the longest.
pub(crate) const REOPEN_PAUSE: Range<Duration> = Duration::from_millis(50)..Duration::from_secs(1);
/// How long a store may take for a read before the server is not ready.
pub(crate) const READY_TIME: Duration = Duration::from_secs(1);
/// The steps by which it is counted how long answers take.
pub(crate) const LATENCIES: [Duration; 10] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(10),
];
/// After how many seconds a client should ask again, when it is refused for now.
pub(crate) const RETRY_AFTER: u16 = 1;
/// How often the store is looked at while somebody waits for a position.
pub(crate) const LOOK: Duration = Duration::from_millis(20);
