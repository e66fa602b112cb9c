//! Every limit of the server, in one place.

use std::ops::Range;
use std::time::Duration;

/// How many headers a request may have.
pub(crate) const MAX_HEADERS: usize = 64;
/// What of a head that is too large is read all the same, so that it is answered with a document: so many times what it
/// may be, and at least so many bytes; and so many headers.
pub(crate) const HEAD_READ: u64 = 2;
pub(crate) const HEAD_READ_LEAST: u64 = 16 << 10;
pub(crate) const HEADERS_READ: usize = 100;
/// What a header counts beside its name and its value, in bytes, as in HTTP/2 (RFC 9113, section 6.5.2).
pub(crate) const HEADER_BYTES: u64 = 32;
/// How many streams an HTTP/2 connection has at once.
pub(crate) const STREAMS: u32 = 128;
/// How much of a body is under way to the server on a stream of HTTP/2, and on all of a connection.
pub(crate) const WINDOW: u32 = 256 << 10;
pub(crate) const WINDOWS: u32 = 1 << 20;
/// How many descriptors are not for connections: those of the store, of its readers, and some to spare.
pub(crate) const OWN_DESCRIPTORS: u64 = 256;
/// How many connections are open at once where descriptors are without limit.
pub(crate) const UNCOUNTED: u64 = 1 << 20;
/// Up to how many bytes an answer does not count as being under way.
pub(crate) const LIGHT: usize = 64 << 10;
/// After how many requests the addresses that are quiet again are forgotten.
pub(crate) const SWEEP: u64 = 10_000;
/// How much a stream of HTTP/2 buffers on its way out.
pub(crate) const SEND_BUFFER: usize = 64 << 10;
/// How much of a body goes to a stream of HTTP/2 at once; the other end has the time of a stall for each.
pub(crate) const PIECE: usize = 16 << 10;
/// How long the requests under way may take once the server ends.
pub(crate) const END_TIME: Duration = Duration::from_secs(5);
/// How long a server may take to end at the most, while it still answers.
pub(crate) const DRAIN_TIME: Duration = Duration::from_secs(60 * 60);
/// How many connections to a Unix socket may wait to be accepted.
pub(crate) const BACKLOG: u32 = 1_024;
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
/// More WebSockets than there ever are.
pub(crate) const SOCKETS: u32 = 1 << 30;
/// How long the id of a message may be, in bytes.
pub(crate) const MAX_ID: usize = 128;
/// The largest message of a client: room for the largest value as base64, and for its names.
pub(crate) const MAX_MESSAGE: usize = 24 << 20;
/// How many bytes of a WebSocket are read at once.
pub(crate) const READ: usize = 4 << 10;
/// A WebSocket peer that says nothing for so long, pongs included, is dropped: it missed three pings.
pub(crate) const SILENCE: Duration = Duration::from_secs(45);
/// A WebSocket peer may stall one second more than others for each so many bytes of the message that it is at.
pub(crate) const STALL_RATE: usize = 64 << 10;
/// How long a WebSocket peer has to take the last messages, once the server ends.
pub(crate) const LEAVE_TIME: Duration = Duration::from_secs(3);
/// How long the answer to a close frame is waited for, and to the goodbye of HTTP/2.
pub(crate) const CLOSE_TIME: Duration = Duration::from_secs(1);
/// How much of a body that is too large is read and thrown away, so that its sender sees the refusal.
pub(crate) const DRAINED: usize = 1 << 20;
/// How long a read waits for the position that it asks for, at the most.
pub(crate) const MIN_TIME: Duration = Duration::from_secs(10);
/// How many groups or keys a page holds, at the most: what the library reads at a time.
pub(crate) const PAGE: usize = 256;
/// How many rows of the log a page of changes looks at, at the most: what the library does.
pub(crate) const CHANGES: usize = 1_000;
/// How long a page of changes without a match is waited for, at the most: proxies commonly give up after 60 seconds.
pub(crate) const WAIT_TIME: Duration = Duration::from_secs(50);
/// How often a server looks whether its store's file was replaced.
pub(crate) const LOSS_LOOK: Duration = Duration::from_millis(250);
/// How long a request waits while the store is opened again, and how long a stream does.
pub(crate) const REOPEN_TIME: Duration = Duration::from_secs(3);
/// How long the first pause is after a store could not be opened again, and the longest.
pub(crate) const REOPEN_PAUSE: Range<Duration> = Duration::from_millis(50)..Duration::from_secs(1);
/// How long a store may take for a read before the server is not ready.
pub(crate) const READY_TIME: Duration = Duration::from_secs(1);
/// How old the numbers of a store in a cluster may be in the metrics: for each look all entries are read.
pub(crate) const SURVEY_AGE: Duration = Duration::from_secs(300);
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
/// How many events the log of the credentials keeps.
pub(crate) const ACCESS_EVENTS: u64 = 1_000;
/// How long a ticket lives that no stream bears: five minutes, and the time between two slides.
pub(crate) const TICKET_TIME: Duration = Duration::from_secs(6 * 60);
/// How often the deadlines of tickets that streams bear slide: one write for all.
pub(crate) const TICKET_SLIDE: Duration = Duration::from_secs(60);
/// How many tickets there are at once, and how large the body may be that asks for one.
pub(crate) const TICKETS: u64 = 10_000;
/// How many tickets all tokens have together.
pub(crate) const ALL_TICKETS: u64 = 100_000;
/// After how many seconds a client should ask again that gets no ticket: they go one by one, each after some minutes.
pub(crate) const TICKET_RETRY: u16 = 60;
pub(crate) const TICKET_BODY: usize = 16 << 10;
/// The largest message of a WebSocket that came without a token: memory that anybody can take, so many times over.
pub(crate) const MAX_FIRST_MESSAGE: usize = 256 << 10;
/// How long a browser keeps what it was told of the requests of another origin's pages: the longest that Chromium does.
pub(crate) const PREFLIGHT_TIME: Duration = Duration::from_secs(2 * 60 * 60);
/// What a filter weighs while somebody watches with it, in bytes, beside its names; and how often these are in memory: at
/// the client, at its ring, and twice in the library. Measured with 16,384 filters of short names, and of long ones.
pub(crate) const FILTER: usize = 700;
pub(crate) const FILTER_NAMES: usize = 4;
/// How long a WebSocket may take to say who it is.
pub(crate) const AUTH_TIME: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Limit;

    /// What each number is to a client, as the table of docs/wire.md says it.
    fn told() -> [(&'static str, &'static str, String); 37] {
        let size = |bytes: usize| {
            if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
        };
        let time = |time: Duration| format!("{} s", time.as_secs_f64());
        let many = |count: usize| match (count / 1_000, count % 1_000) {
            (0, rest) => rest.to_string(),
            (thousands, rest) => format!("{thousands},{rest:03}"),
        };
        let retry = format!(
            "{} to {}",
            time(Duration::from_millis(RETRY.start)),
            time(Duration::from_millis(RETRY.end))
        );
        [
            ("MAX_HEADERS", "headers of a request", many(MAX_HEADERS)),
            ("HEADER_BYTES", "bytes that a header counts beside its name and its value", many(32)),
            ("STREAMS", "streams of an HTTP/2 connection at once", many(STREAMS as usize)),
            (
                "STALL_RATE",
                "of a WebSocket message, for each second more than `stall_seconds`",
                size(STALL_RATE),
            ),
            ("END_TIME", "time for requests under way when the server ends", time(END_TIME)),
            ("DRAIN_TIME", "time in which a server that drains ends", time(DRAIN_TIME)),
            ("SURVEY_AGE", "age of the numbers of a store in a cluster in `/metrics`", time(SURVEY_AGE)),
            ("READY_TIME", "time for a read until a server is not ready (503)", time(READY_TIME)),
            ("BACKLOG", "connections to a Unix socket that are not accepted yet", many(BACKLOG as usize)),
            ("MIN_TIME", "waiting for `min=` (504)", time(MIN_TIME)),
            ("PAGE", "names in a page of a list", many(PAGE)),
            ("CHANGES", "rows of the log that a page of changes looks at", many(CHANGES)),
            ("WAIT_TIME", "waiting for a page of changes", time(WAIT_TIME)),
            ("HEARTBEAT", "a stream without an event has a heartbeat, a WebSocket a ping", time(HEARTBEAT)),
            ("RETRY", "pause until an `EventSource` comes back", retry),
            ("SNAPSHOTS", "snapshots that are read at once; others wait in turn", many(SNAPSHOTS)),
            ("LAGGARDS", "clients that fell behind and are fed at once; others wait in turn", many(LAGGARDS)),
            ("TURN_TIME", "such a turn, after which the next one is fed, too", time(TURN_TIME)),
            ("MAX_ID", "id of a message, in bytes", many(MAX_ID)),
            ("MAX_MESSAGE", "message of a WebSocket (1009)", size(MAX_MESSAGE)),
            ("SILENCE", "a WebSocket client says nothing, and is dropped", time(SILENCE)),
            ("LEAVE_TIME", "time for the last messages of a WebSocket", time(LEAVE_TIME)),
            ("CLOSE_TIME", "waiting for the answer to a close frame", time(CLOSE_TIME)),
            ("REOPEN_TIME", "waiting while a replaced store is opened again (503)", time(REOPEN_TIME)),
            (
                "RETRY_AFTER",
                "`Retry-After` of a refusal that is temporary",
                time(Duration::from_secs(RETRY_AFTER.into())),
            ),
            ("PREFLIGHT_TIME", "a browser keeps the answer to a preflight", time(PREFLIGHT_TIME)),
            ("AUTH_TIME", "time until a WebSocket says who it is (1008)", time(AUTH_TIME)),
            (
                "TICKET_TIME",
                "a ticket that no stream bore; one that a stream bore, at least 300 s after it",
                time(TICKET_TIME),
            ),
            (
                "TICKET_SLIDE",
                "between two times that the ends of tickets in use are moved",
                time(TICKET_SLIDE),
            ),
            (
                "MAX_FIRST_MESSAGE",
                "message of a WebSocket that came without a token",
                size(MAX_FIRST_MESSAGE),
            ),
            ("ALL_TICKETS", "tickets of all tokens at once", many(usize::try_from(ALL_TICKETS).unwrap_or(0))),
            (
                "TICKETS",
                "tickets of a token at once (`too_many_tickets`)",
                many(usize::try_from(TICKETS).unwrap_or(0)),
            ),
            (
                "TICKET_RETRY",
                "`Retry-After` where there are too many tickets",
                time(Duration::from_secs(TICKET_RETRY.into())),
            ),
            ("TICKET_BODY", "body that asks for a ticket", size(TICKET_BODY)),
            ("FILTER", "bytes that a filter counts beside its names", many(FILTER)),
            ("FILTER_NAMES", "times that its names count", many(FILTER_NAMES)),
            ("MAX_LABEL", "label of a writer, in bytes", many(watchkeep::MAX_LABEL)),
        ]
    }

    /// What no client can tell.
    const INNER: [&str; 27] = [
        "HEAD_READ",
        "HEAD_READ_LEAST",
        "HEADERS_READ",
        "WINDOW",
        "WINDOWS",
        "OWN_DESCRIPTORS",
        "UNCOUNTED",
        "LIGHT",
        "SWEEP",
        "SEND_BUFFER",
        "PIECE",
        "SOCKETS",
        "ACCESS_EVENTS",
        "ACCEPT_PAUSE",
        "WRITE",
        "STREAM_EVENTS",
        "RING_EVENTS",
        "RING_BYTES",
        "RING_LEAST",
        "CHANGES_BYTES",
        "BEAT_PARTS",
        "READ",
        "DRAINED",
        "LATENCIES",
        "LOSS_LOOK",
        "REOPEN_PAUSE",
        "LOOK",
    ];

    #[test]
    fn each_limit_that_a_client_can_reach_is_in_the_contract() {
        let page = include_str!("../../../docs/wire.md");
        let (_, table) = page.rsplit_once("The others are fixed:").unwrap_or_default();
        let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
        let told = told().map(|(name, what, limit)| (name, format!("| {what} | {limit} |")));
        for (name, row) in &told {
            assert!(rows.contains(&row.as_str()), "{name} is missing in docs/wire.md: {row}");
        }
        assert_eq!(rows.len(), told.len(), "a row is of no limit");
        for limit in Limit::ALL {
            assert!(page.contains(&format!("| `{limit}` |")), "{limit} is missing in docs/wire.md");
        }
        let all = include_str!("limits.rs").lines().filter_map(|line| line.strip_prefix("pub(crate) const "));
        for name in all.filter_map(|line| line.split(':').next()) {
            let known = INNER.contains(&name) || told.iter().any(|(told, _)| *told == name);
            assert!(known, "{name}: can a client reach it?");
        }
    }
}
