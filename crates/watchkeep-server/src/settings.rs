//! The limits that an operator may set, how often each was reached, and the descriptors that they depend on.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::{OWN_DESCRIPTORS, UNCOUNTED};

/// A limit of a server.
///
/// ```
/// use watchkeep_server::Limit;
/// assert_eq!(Limit::StallSeconds.name(), "stall_seconds");
/// assert_eq!("body_bytes".parse(), Ok(Limit::BodyBytes));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// How many connections are open at once: as many as the descriptors of the process allow.
    Connections,
    /// How many connections of one address are open at once: three quarters of all.
    ConnectionsPerAddress,
    /// How many requests, streams and WebSockets of one token are under way at once: three quarters of all connections.
    ConnectionsPerToken,
    /// How many WebSockets are open at once: 10,000.
    WebSockets,
    /// How many WebSockets are open at once that have not said yet who they are: 256, a quarter of them of one address.
    UnauthenticatedWebSockets,
    /// How many subscriptions a WebSocket has at once: 256.
    Subscriptions,
    /// How many requests an address makes in a second: 10,000.
    RequestsPerSecond,
    /// How many bytes of bodies and values are under way at once; and, apart from these, how many the filters of all who
    /// watch take: 256 MiB.
    BytesInFlight,
    /// How large the head of a request may be, with 32 bytes more for each header: 16 KiB.
    HeadBytes,
    /// How large the body of a request may be: 16 MiB.
    BodyBytes,
    /// How long the handshake of TLS may take: 10 s.
    HandshakeSeconds,
    /// How long the head of a request may take, and how long a connection may be idle between two requests: 10 s.
    HeadSeconds,
    /// How long a request may take until its answer begins, with its body and what it waits for: 90 s.
    RequestSeconds,
    /// How long the other end may take nothing of what is written to it: 30 s.
    StallSeconds,
}

impl Limit {
    /// All of them.
    pub const ALL: [Limit; 14] = [
        Limit::Connections,
        Limit::ConnectionsPerAddress,
        Limit::ConnectionsPerToken,
        Limit::WebSockets,
        Limit::UnauthenticatedWebSockets,
        Limit::Subscriptions,
        Limit::RequestsPerSecond,
        Limit::BytesInFlight,
        Limit::HeadBytes,
        Limit::BodyBytes,
        Limit::HandshakeSeconds,
        Limit::HeadSeconds,
        Limit::RequestSeconds,
        Limit::StallSeconds,
    ];

    /// Its name, on the command line and in refusals.
    pub const fn name(self) -> &'static str {
        match self {
            Limit::Connections => "connections",
            Limit::ConnectionsPerAddress => "connections_per_address",
            Limit::ConnectionsPerToken => "connections_per_token",
            Limit::WebSockets => "websockets",
            Limit::UnauthenticatedWebSockets => "unauthenticated_websockets",
            Limit::Subscriptions => "subscriptions",
            Limit::RequestsPerSecond => "requests_per_second",
            Limit::BytesInFlight => "bytes_in_flight",
            Limit::HeadBytes => "head_bytes",
            Limit::BodyBytes => "body_bytes",
            Limit::HandshakeSeconds => "handshake_seconds",
            Limit::HeadSeconds => "head_seconds",
            Limit::RequestSeconds => "request_seconds",
            Limit::StallSeconds => "stall_seconds",
        }
    }

    fn of<T>(self, all: &[T; Limit::ALL.len()]) -> Option<&T> {
        all.get(self as usize)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Limit, String> {
        Limit::ALL.into_iter().find(|limit| limit.name() == text).ok_or_else(|| {
            let names = Limit::ALL.map(Limit::name).join(", ");
            format!("there is no limit '{text}'; there are {names}")
        })
    }
}

/// The limits of a server.
///
/// ```
/// use watchkeep_server::{Limit, Limits};
/// let limits = Limits::default().with(Limit::BodyBytes, 1 << 20);
/// assert_eq!(limits.get(Limit::BodyBytes), 1 << 20);
/// assert_eq!(limits.get(Limit::StallSeconds), 30);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits([u64; Limit::ALL.len()]);

/// What is described at each limit; the connections as the descriptors of this process allow them now.
impl Default for Limits {
    fn default() -> Limits {
        // Beside those that are served, as many are open for a moment as are refused.
        let connections = descriptors().now.saturating_sub(OWN_DESCRIPTORS).saturating_mul(8) / 9;
        Limits::of_connections(connections.clamp(1, UNCOUNTED))
    }
}

impl Limits {
    /// The defaults of a server with so many connections at once, of which some others are a part.
    ///
    /// ```
    /// use watchkeep_server::{Limit, Limits};
    /// assert_eq!(Limits::of_connections(1_000).get(Limit::ConnectionsPerAddress), 750);
    /// ```
    pub fn of_connections(connections: u64) -> Limits {
        Limits(Limit::ALL.map(|limit| match limit {
            Limit::Connections => connections,
            Limit::ConnectionsPerAddress | Limit::ConnectionsPerToken => connections.div_ceil(4) * 3,
            Limit::WebSockets | Limit::RequestsPerSecond => 10_000,
            Limit::Subscriptions | Limit::UnauthenticatedWebSockets => 256,
            Limit::BytesInFlight => 256 << 20,
            Limit::HeadBytes => 16 << 10,
            Limit::BodyBytes => 16 << 20,
            Limit::HandshakeSeconds | Limit::HeadSeconds => 10,
            Limit::RequestSeconds => 90,
            Limit::StallSeconds => 30,
        }))
    }

    /// With another value of one of them, at least 1 and at most 2^30.
    #[must_use]
    pub fn with(mut self, limit: Limit, value: u64) -> Limits {
        if let Some(slot) = self.0.get_mut(limit as usize) {
            *slot = value.clamp(1, 1 << 30);
        }
        self
    }

    /// The value of one of them.
    pub fn get(&self, limit: Limit) -> u64 {
        limit.of(&self.0).copied().unwrap_or_default()
    }

    pub(crate) fn size(&self, limit: Limit) -> usize {
        usize::try_from(self.get(limit)).unwrap_or(usize::MAX)
    }

    pub(crate) fn time(&self, limit: Limit) -> Duration {
        Duration::from_secs(self.get(limit))
    }
}

/// As they are given on the command line: `connections=17543 ...`.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = Limit::ALL.map(|limit| format!("{limit}={}", self.get(limit)));
        f.write_str(&all.join(" "))
    }
}

/// How often each limit of a server was reached.
///
/// ```
/// use watchkeep::Store;
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use watchkeep_server::{Listen, Server};
/// let server = Server::bind(&Store::open_in_memory()?, &Listen::default()).await?;
/// let reached = server.reached();
/// for (limit, times) in reached.snapshot() {
///     println!("{limit} {times}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Reached(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    limits: [AtomicU64; Limit::ALL.len()],
    malformed: AtomicU64,
}

impl Reached {
    /// The name of each limit, and how often it was reached since the server began.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let times = |limit: Limit| limit.of(&self.0.limits).map_or(0, |times| times.load(Ordering::Relaxed));
        Limit::ALL.into_iter().map(|limit| (limit.name(), times(limit))).collect()
    }

    pub(crate) fn count(&self, limit: Limit) {
        if let Some(times) = limit.of(&self.0.limits) {
            times.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Something came that is not HTTP.
    pub(crate) fn count_malformed(&self) {
        self.0.malformed.fetch_add(1, Ordering::Relaxed);
    }

    /// How often something came that is not HTTP.
    pub(crate) fn malformed(&self) -> u64 {
        self.0.malformed.load(Ordering::Relaxed)
    }
}

/// How many files and sockets this process may have open.
///
/// ```
/// let raised = watchkeep_server::raise_descriptors();
/// assert!(raised.now >= raised.before);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Descriptors {
    /// As it was.
    pub before: u64,
    /// As it is now.
    pub now: u64,
}

/// Lets this process have as many files and sockets open as it may without asking anybody (`RLIMIT_NOFILE`).
///
/// It is one setting of the whole process, so an application that has a server in it decides for itself.
pub fn raise_descriptors() -> Descriptors {
    let before = descriptors().before;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where it is refused, what there is shows it.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    Descriptors { before, now: descriptors().now }
}

fn descriptors() -> Descriptors {
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    Descriptors { before: now, now }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_has_its_own_place_and_name() {
        let mut limits = Limits::default();
        let mut told = Vec::new();
        for (limit, value) in Limit::ALL.into_iter().zip(1001..) {
            limits = limits.with(limit, value);
            told.push(format!("{limit}={value}"));
            assert_eq!(limit.name().parse(), Ok(limit));
        }
        assert_eq!(limits.to_string(), told.join(" "));
        assert!("connection".parse::<Limit>().is_err_and(|error| error.contains("bytes_in_flight")));
    }
}
