//! One connection: TLS where it is wanted, then HTTP/1.1, or the HTTP/2 that the client chose in its handshake.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use futures_util::TryFutureExt as _;
use futures_util::future::MapOk;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::{TowerToHyperService, TowerToHyperServiceFuture};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::admission::{Admission, Seat};
use crate::ending::Ending;
use crate::limits::{
    CLOSE_TIME, DRAIN_TIME, END_TIME, HEADERS_READ, HEARTBEAT, SEND_BUFFER, STREAMS, WINDOW, WINDOWS,
};
use crate::paced::{Paced, Streams};
use crate::proxies::Proxies;
use crate::settings::Limit;
use crate::stall::Stalls;
use crate::tls::Tls;

/// What is read and written, whichever way it came.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Who asks, in the extensions of each request that a server of ours took.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// It speaks TLS.
    pub(crate) is_secure: bool,
    /// Its address, or that of the client for whom a trusted proxy asks; none on a Unix socket.
    pub(crate) address: Option<IpAddr>,
    /// A trusted proxy asks.
    pub(crate) is_proxied: bool,
    /// Why it is answered with a refusal, if it is.
    pub(crate) refused: Option<Limit>,
}

/// What all connections of a server share.
pub(crate) struct Transport {
    pub(crate) router: Router,
    pub(crate) tls: Option<Tls>,
    pub(crate) ending: Ending,
    pub(crate) admission: Admission,
    pub(crate) proxies: Proxies,
}

impl Transport {
    /// Who comes from this address, and a seat; none when even those who are refused are too many.
    pub(crate) fn seat(&self, address: Option<IpAddr>) -> Option<(Peer, Seat)> {
        let address = address.map(|address| address.to_canonical());
        let is_proxied = address.is_some_and(|address| self.proxies.have(address));
        // The connections of a proxy are those of all its clients. Each of their requests takes a place instead.
        let seat = self.admission.seat(address.filter(|_| !is_proxied))?;
        Some((Peer { is_secure: self.tls.is_some(), address, is_proxied, refused: seat.refused }, seat))
    }

    pub(crate) async fn serve(self: Arc<Self>, stream: Box<dyn Io>, peer: Peer, seat: Seat) {
        let stream = Stalls::new(stream, seat);
        let ended = match &self.tls {
            // Each in a box of its own: a connection takes the memory of what it is, not of the largest that it might be.
            None => Box::pin(self.http1(stream, peer)).await,
            Some(tls) => {
                let time = self.admission.time(Limit::HandshakeSeconds);
                let shaken = tokio::select! {
                    biased;
                    shaken = timeout(time, Box::pin(tls.acceptor.accept(stream))) => shaken,
                    // It has asked for nothing.
                    () = self.ending.clone().wait() => return,
                };
                match shaken {
                    Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                        Box::pin(self.http2(stream, peer)).await
                    }
                    Ok(Ok(stream)) => Box::pin(self.http1(stream, peer)).await,
                    Ok(Err(error)) => Err(error.into()),
                    Err(late) => {
                        self.admission.reach(Limit::HandshakeSeconds);
                        Err(late.into())
                    }
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a connection ended");
        }
    }

    /// What answers the requests of a connection, and whether it ever was asked.
    fn service(&self, peer: Peer) -> (Service, Arc<AtomicBool>) {
        let asked = Arc::new(AtomicBool::new(false));
        let router = TowerToHyperService::new(self.router.clone());
        (Service { router, peer, proxies: self.proxies.clone(), asked: asked.clone() }, asked)
    }

    /// Serves a connection to its end. One that never asked for anything ends with the server: no request would be waited
    /// for, but the rest of a head that may never come. Of others, HTTP itself closes those that are idle.
    async fn unless_unasked(&self, asked: &AtomicBool, serving: impl Future<Output = Ended>) -> Ended {
        let unasked = async {
            self.ending.clone().wait().await;
            if asked.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            // What it has sent is looked at before.
            biased;
            ended = serving => ended,
            () = unasked => Ok(()),
        }
    }

    /// Resolves when a connection takes no more requests, to how long those that it has may take: streams end while a
    /// server drains. One that comes while the server ends is answered once.
    async fn ended(&self, is_late: bool) -> Duration {
        if is_late {
            self.ending.clone().wait().await;
        } else {
            self.ending.clone().begun().await;
        }
        DRAIN_TIME + END_TIME
    }

    async fn http1(&self, stream: impl Io + 'static, peer: Peer) -> Ended {
        let is_late = self.ending.has_begun();
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.admission.time(Limit::HeadSeconds))
            .keep_alive(peer.refused.is_none() && !is_late)
            .max_buf_size(self.admission.head_read() as usize)
            .max_headers(HEADERS_READ)
            .writev(false);
        let (service, asked) = self.service(peer);
        let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let shut_down = http1::UpgradeableConnection::graceful_shutdown;
        let serving = until(connection, shut_down, self.ended(is_late));
        let ended = self.unless_unasked(&asked, serving).await;
        let error = ended.as_ref().err().and_then(|error| error.downcast_ref::<hyper::Error>());
        match error {
            Some(late) if late.is_timeout() => self.admission.reach(Limit::HeadSeconds),
            Some(large) if large.is_parse_too_large() => self.admission.reach(Limit::HeadBytes),
            Some(other) if other.is_parse() => self.admission.reached().count_malformed(),
            _ => {}
        }
        ended
    }

    async fn http2(&self, stream: impl Io + 'static, peer: Peer) -> Ended {
        let streams = Streams::new(self.admission.clone());
        let (is_refused, is_late) = (peer.refused.is_some(), self.ending.has_begun());
        let mut http = http2::Builder::new(streams.clone());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(self.admission.head_read())
            .max_send_buf_size(SEND_BUFFER)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOWS)
            .keep_alive_interval(HEARTBEAT)
            .keep_alive_timeout(self.admission.time(Limit::StallSeconds));
        let (service, asked) = self.service(peer);
        let connection = http.serve_connection(TokioIo::new(stream), service);
        // Its first request counts as well: so long may the preface and the head of it take.
        let stop = async {
            tokio::select! {
                time = self.ended(is_late) => return time,
                () = streams.over(), if is_refused => {}
                () = streams.idle(self.admission.time(Limit::HeadSeconds)) => self.admission.reach(Limit::HeadSeconds),
            }
            CLOSE_TIME
        };
        self.unless_unasked(&asked, until(connection, http2::Connection::graceful_shutdown, stop)).await
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Serves a connection until it ends, or was stopped and had the time that it is given then.
async fn until<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    shut_down: impl FnOnce(Pin<&mut C>),
    stop: impl Future<Output = Duration>,
) -> Ended {
    let mut connection = pin!(connection);
    let time = tokio::select! {
        done = connection.as_mut() => return Ok(done?),
        time = stop => time,
    };
    shut_down(connection.as_mut());
    Ok(timeout(time, connection).await??)
}

/// The routes, which learn who asks.
struct Service {
    router: TowerToHyperService<Router>,
    peer: Peer,
    proxies: Proxies,
    asked: Arc<AtomicBool>,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Paced>;
    type Error = Infallible;
    type Future =
        MapOk<TowerToHyperServiceFuture<Router, Request<Incoming>>, fn(Response<Body>) -> Response<Paced>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.asked.store(true, Ordering::Relaxed);
        let mut peer = self.peer.clone();
        if peer.is_proxied {
            peer.address = self.proxies.client(request.headers()).or(peer.address);
        }
        request.extensions_mut().insert(peer);
        self.router.call(request).map_ok(|response| response.map(Paced::from))
    }
}

#[cfg(test)]
mod tests;
