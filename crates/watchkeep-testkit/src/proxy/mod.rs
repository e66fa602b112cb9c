//! A proxy that lies: it stands between a store and a member of its etcd cluster, passes every call on, and on command
//! does to what passes what etcd's own bugs did, and what networks do.
//!
//! A lie is told at the response or the transaction that it was asked for, never by chance: a proxy with the same lies and
//! the same calls does the same again.

mod calls;
mod codec;
mod hold;
mod lies;
mod watch;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tonic::metadata::MetadataMap;
use tonic::transport::Endpoint;

use crate::surface::Fault;

use calls::Upstream;
pub use hold::Held;
use lies::{Answer, Lies};
pub use lies::{Lie, Opening};

const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";

/// A proxy before one member, on a port of its own.
pub struct Proxy {
    address: SocketAddr,
    upstream: Upstream,
    limit: Duration,
    runtime: Option<tokio::runtime::Runtime>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Listens on loopback for a member, given as `host:port`. No wait of it lasts longer than `limit`.
    ///
    /// # Errors
    ///
    /// When there is no port or no thread left, or the member has no address.
    pub fn new(member: &str, limit: Duration) -> Result<Proxy, Fault> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let endpoint = Endpoint::from_shared(format!("http://{member}"))?;
        let inside = runtime.enter();
        let upstream =
            Upstream { channel: endpoint.tcp_nodelay(true).connect_lazy(), lies: Arc::new(Lies::default()) };
        let listener = tokio::net::TcpListener::from_std(listener)?;
        drop(inside);
        runtime.spawn(calls::serve(listener, upstream.clone()));
        Ok(Proxy { address, upstream, limit, runtime: Some(runtime) })
    }

    /// Where it listens, as `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Lies about the next response with events that any watch gets.
    pub fn next_watch(&self, lie: Lie) {
        self.watch_after(0, lie);
    }

    /// Lies about a response with events, after it has passed on so many. Counted from the lie before it.
    pub fn watch_after(&self, count: usize, lie: Lie) {
        self.upstream.lies.respond(count, lie);
    }

    /// Lies to the next watch that is made.
    pub fn next_opening(&self, opening: Opening) {
        self.upstream.lies.open(opening);
    }

    /// Loses the answer to a transaction that writes, after so many were answered: it is done, and its caller is told that
    /// nobody answers.
    pub fn lose_answer_after(&self, count: usize) {
        self.upstream.lies.write(count, Answer::Lost);
    }

    /// Holds back a transaction that writes, after so many were passed on.
    #[must_use]
    pub fn hold_after(&self, count: usize) -> Held {
        let (held, ends) = hold::held(self.limit);
        self.upstream.lies.write(count, Answer::Held(ends));
        held
    }

    /// Has each message take so much longer from now on, in both directions: one after the other, on a watch.
    pub fn slow_down(&self, by: Duration) {
        self.upstream.lies.slow_down(by);
    }

    /// Answers from now on that each lease is kept, and asks nobody.
    pub fn lie_about_leases(&self) {
        self.upstream.lies.lie_about_leases();
    }

    /// Takes away all leases that were granted through this proxy since this was last asked; how many those are.
    ///
    /// # Errors
    ///
    /// When the member refuses.
    pub fn revoke_leases(&self) -> Result<usize, Fault> {
        let leases = self.upstream.lies.take_leases();
        let runtime = self.runtime.as_ref().ok_or("the proxy is closed")?;
        for id in &leases {
            let request = wire::LeaseRevokeRequest { id: *id }.encode_to_vec();
            runtime.block_on(self.upstream.unary(REVOKE, MetadataMap::new(), request.into()))?;
        }
        Ok(leases.len())
    }

    /// How many lies were told.
    #[must_use]
    pub fn told(&self) -> usize {
        self.upstream.lies.told()
    }

    /// Waits until so many lies were told.
    ///
    /// # Errors
    ///
    /// When it takes too long.
    pub fn wait_told(&self, count: usize) -> Result<(), Fault> {
        match self.upstream.lies.wait_told(count, self.limit) {
            told if told < count => Err(format!("of {count} lies only {told} were told").into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
