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
/// How long the requests under way may take once the server ends.
pub(crate) const END_TIME: Duration = Duration::from_secs(5);
/// A stream without events sends its position this often.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(15);
/// After how long a client of a stream comes back, in milliseconds: spread, so that not all come at once.
pub(crate) const RETRY: Range<u64> = 500..1_500;
/// How many bytes of frames go out in one write, about.
pub(crate) const WRITE: usize = 64 << 10;
/// How many events a stream's watcher buffers before it reads on from the log.
pub(crate) const STREAM_EVENTS: usize = 64;
/// How much of a body that is too large is read and thrown away, so that its sender sees the refusal.
pub(crate) const DRAINED: usize = 1 << 20;
/// How long a read waits for the position that it asks for, at the most.
pub(crate) const MIN_TIME: Duration = Duration::from_secs(10);
/// How many groups or keys a page holds, at the most: what the library reads at a time.
pub(crate) const PAGE: usize = 256;
/// How often the store is looked at while somebody waits for a position.
pub(crate) const LOOK: Duration = Duration::from_millis(20);
