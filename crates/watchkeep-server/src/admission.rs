//! What a server takes on at once: connections, requests, and bytes that are under way.
//!
//! Over a limit, a request is read and answered with what was reached. Only who comes when even those who are refused
//! are many gets no answer.

use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Error;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter, clock::DefaultClock};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::access::Pass;
use crate::limits::{HEAD_READ, HEAD_READ_LEAST, HEADER_BYTES, LIGHT, MAX_HEADERS, SWEEP};
use crate::places::{Place, Places};
use crate::problem::Problem;
use crate::settings::{Limit, Limits, Reached};
use crate::stream;
use crate::transport::Peer;

const TOO_LARGE: StatusCode = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;

/// The limits of a server, and what is taken of them.
#[derive(Clone)]
pub(crate) struct Admission(Arc<Shared>);

struct Shared {
    limits: Limits,
    reached: Reached,
    connections: Places<()>,
    by_address: Places<IpAddr>,
    by_token: Places<String>,
    sockets: Arc<Semaphore>,
    strangers: Places<()>,
    strangers_by_address: Places<IpAddr>,
    bytes: Arc<Semaphore>,
    /// As many again, for what is held for as long as a client likes: it must not be in the way of those who only pass.
    filters: Arc<Semaphore>,
    rates: RateLimiter<IpAddr, HashMapStateStore<IpAddr>, DefaultClock>,
    requests: AtomicU64,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

impl Admission {
    pub(crate) fn new(limits: Limits, reached: Reached) -> Admission {
        let rate = u32::try_from(limits.get(Limit::RequestsPerSecond)).unwrap_or(u32::MAX);
        Admission(Arc::new(Shared {
            connections: Places::default(),
            by_address: Places::default(),
            by_token: Places::default(),
            sockets: Arc::new(Semaphore::new(limits.size(Limit::WebSockets))),
            strangers: Places::default(),
            strangers_by_address: Places::default(),
            bytes: Arc::new(Semaphore::new(limits.size(Limit::BytesInFlight))),
            filters: Arc::new(Semaphore::new(limits.size(Limit::BytesInFlight))),
            rates: RateLimiter::hashmap(Quota::per_second(NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN))),
            requests: AtomicU64::new(0),
            limits,
            reached,
        }))
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(crate) fn reached(&self) -> Reached {
        self.0.reached.clone()
    }

    pub(crate) fn time(&self, limit: Limit) -> Duration {
        self.0.limits.time(limit)
    }

    /// Up to which size a head is read, to be answered.
    pub(crate) fn head_read(&self) -> u32 {
        let read = self.0.limits.get(Limit::HeadBytes).saturating_mul(HEAD_READ).max(HEAD_READ_LEAST);
        u32::try_from(read).unwrap_or(u32::MAX)
    }

    /// Refuses a head that is too large.
    fn check_head(&self, request: &Request) -> Result<(), Problem> {
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        let bytes = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.as_str().len() + value.len()) as u64 + HEADER_BYTES
        };
        let size = request.headers().iter().map(bytes).sum::<u64>() + target as u64;
        if size > self.0.limits.get(Limit::HeadBytes) {
            return Err(self.refusal(Limit::HeadBytes));
        }
        if request.headers().len() > MAX_HEADERS {
            let detail = format!("the request has more than {MAX_HEADERS} headers; send fewer");
            return Err(Problem::new(TOO_LARGE, "head_too_large", detail));
        }
        Ok(())
    }

    /// Counts that a limit was reached.
    pub(crate) fn reach(&self, limit: Limit) {
        self.0.reached.count(limit);
    }

    /// A seat for a connection from this address; none when even those who are refused are too many.
    pub(crate) fn seat(&self, address: Option<IpAddr>) -> Option<Seat> {
        let mut refused = None;
        let all = self.take(&self.0.connections, (), Limit::Connections, &mut refused)?;
        let here = match address.map(network) {
            Some(address) => {
                let limit = Limit::ConnectionsPerAddress;
                Some(self.take(&self.0.by_address, address, limit, &mut refused)?)
            }
            None => None,
        };
        Some(Seat { admission: self.clone(), refused, _places: (all, here) })
    }

    /// A place for a connection, also over the limit, where it is refused; none far over it.
    fn take<K: Eq + Hash + Clone>(
        &self,
        places: &Places<K>,
        by: K,
        limit: Limit,
        refused: &mut Option<Limit>,
    ) -> Option<Place<K>> {
        let most = self.0.limits.get(limit);
        let taken = places.take(by, most.saturating_add(most / 8).saturating_add(1));
        if refused.is_none() && taken.as_ref().is_none_or(|(_, before)| *before >= most) {
            self.reach(limit);
            *refused = Some(limit);
        }
        taken.map(|(place, _)| place)
    }

    /// Whether an address may make another request now.
    fn is_frequent(&self, address: IpAddr) -> bool {
        // An address is forgotten once it could make as many requests as one that never came.
        if self.0.requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP) {
            self.0.rates.retain_recent();
        }
        self.0.rates.check_key(&network(address)).is_err()
    }

    /// A problem that names the limit that was reached, and counts it.
    pub(crate) fn refusal(&self, limit: Limit) -> Problem {
        self.reach(limit);
        self.problem(limit)
    }

    fn problem(&self, limit: Limit) -> Problem {
        let (status, kind, what) = Admission::refused(limit);
        self.problem_of(limit, status, kind, what)
    }

    fn problem_of(&self, limit: Limit, status: StatusCode, kind: &str, what: &str) -> Problem {
        let most = self.0.limits.get(limit);
        let detail =
            format!("{what}. The limit is {limit}={most}; watchkeep serve --limit {limit}=N sets another");
        Problem::new(status, kind, detail).with("limit", limit.to_string())
    }

    fn refused(limit: Limit) -> (StatusCode, &'static str, &'static str) {
        match limit {
            Limit::ConnectionsPerAddress => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_connections",
                "this address has too many connections, or too much under way",
            ),
            Limit::ConnectionsPerToken => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_connections",
                "too many requests, streams and WebSockets of this token are under way",
            ),
            Limit::RequestsPerSecond => {
                (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "this address asks too often")
            }
            Limit::Subscriptions => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_subscriptions",
                "this connection has too many subscriptions",
            ),
            Limit::BytesInFlight => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_bytes",
                "too many bytes of bodies and values are under way",
            ),
            Limit::WebSockets => {
                (StatusCode::SERVICE_UNAVAILABLE, "too_many_connections", "too many WebSockets are open")
            }
            Limit::UnauthenticatedWebSockets => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_connections",
                "too many WebSockets have not said yet who they are",
            ),
            Limit::HeadBytes => (
                TOO_LARGE,
                "head_too_large",
                "the target and the headers of the request are too large; send fewer cookies, or a shorter query",
            ),
            Limit::BodyBytes => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                "the body is too large; split the value, or keep it elsewhere",
            ),
            Limit::RequestSeconds => (
                StatusCode::REQUEST_TIMEOUT,
                "too_slow",
                "the request took too long; send its body faster, or ask again",
            ),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "too_many_connections", "too many connections are open"),
        }
    }
}

/// What counts as one address: of IPv6, all that one customer commonly has.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

/// The place of one connection, for as long as it is open.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) admission: Admission,
    /// Its requests are answered with this, because there is no place for it.
    pub(crate) refused: Option<Limit>,
    _places: (Place<()>, Option<Place<IpAddr>>),
}

/// What one request holds until its answer is written.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) admission: Admission,
    /// Whose it is, where there are addresses.
    address: Option<IpAddr>,
    held: Arc<Mutex<Held>>,
}

/// The place of a WebSocket that has not said who it is.
#[derive(Debug)]
pub(crate) struct Stranger {
    _places: (Place<()>, Option<Place<IpAddr>>),
}

/// What the filter of a stream or subscription weighs, while it lasts.
#[derive(Debug)]
pub(crate) struct Weight {
    _held: OwnedSemaphorePermit,
}

#[derive(Debug, Default)]
struct Held {
    bytes: Option<OwnedSemaphorePermit>,
    /// Of a client behind a proxy, whose connections are the proxy's.
    place: Option<Place<IpAddr>>,
    /// Of a token, once it is known.
    token: Option<Place<String>>,
}

impl Held {
    /// Whether it is held until the last of the answer.
    fn lasts(&self) -> bool {
        self.place.is_some() || self.token.is_some()
    }
}

impl Load {
    pub(crate) fn of(admission: Admission, address: Option<IpAddr>) -> Load {
        Load { admission, address, held: Arc::default() }
    }

    /// Takes so many bytes more, which are given back with this.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), Problem> {
        let many = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(more) = self.admission.0.bytes.clone().try_acquire_many_owned(many) else {
            return Err(self.admission.refusal(Limit::BytesInFlight));
        };
        match &mut self.held().bytes {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// Takes what a filter weighs, for as long as somebody watches with it.
    ///
    /// # Errors
    ///
    /// 503 when the filters of all together would weigh too much.
    pub(crate) fn filter(&self, weight: usize) -> Result<Weight, Problem> {
        let many = u32::try_from(weight).unwrap_or(u32::MAX);
        let (admission, limit) = (&self.admission, Limit::BytesInFlight);
        admission.0.filters.clone().try_acquire_many_owned(many).map(|held| Weight { _held: held }).map_err(
            |_| {
                admission.reach(limit);
                let what = "the filters of all who watch are too large together; name fewer or shorter ones";
                admission.problem_of(limit, StatusCode::SERVICE_UNAVAILABLE, "too_many_bytes", what)
            },
        )
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request, or a message that is one.
    ///
    /// # Errors
    ///
    /// 429 when the address asks too often.
    pub(crate) fn ask(&self) -> Result<(), Problem> {
        match self.address {
            Some(address) if self.admission.is_frequent(address) => {
                Err(self.admission.refusal(Limit::RequestsPerSecond))
            }
            _ => Ok(()),
        }
    }

    /// A place for a request of a client behind a proxy.
    fn sit(&self, address: IpAddr) -> Result<(), Problem> {
        let limit = Limit::ConnectionsPerAddress;
        let taken = self.admission.0.by_address.take(network(address), self.limits().get(limit));
        let (place, _) = taken.ok_or_else(|| self.admission.refusal(limit))?;
        self.held().place = Some(place);
        Ok(())
    }

    /// Counts for the token of a pass, if it has one, instead of the one before.
    ///
    /// # Errors
    ///
    /// 429 when as much of this token is under way as may be.
    pub(crate) fn bear(&self, pass: &Pass) -> Result<(), Problem> {
        let Some(token) = pass.token() else { return Ok(()) };
        let mut held = self.held();
        if held.token.as_ref().is_some_and(|held| held.by() == token) {
            return Ok(());
        }
        let limit = Limit::ConnectionsPerToken;
        let taken = self.admission.0.by_token.take(token.to_owned(), self.limits().get(limit));
        let (place, _) = taken.ok_or_else(|| self.admission.refusal(limit))?;
        held.token = Some(place);
        Ok(())
    }

    /// What a WebSocket holds while it is open.
    pub(crate) fn socket(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let taken = self.admission.0.sockets.clone().try_acquire_owned();
        taken.map_err(|_| self.admission.refusal(Limit::WebSockets))
    }

    /// What a WebSocket holds until it has said who it is: one address must not hold up all others with it.
    ///
    /// # Errors
    ///
    /// 429 when this address has its quarter, 503 when all are taken.
    pub(crate) fn stranger(&self) -> Result<Stranger, Problem> {
        let limit = Limit::UnauthenticatedWebSockets;
        let (most, shared) = (self.limits().get(limit), &self.admission.0);
        let here = match self.address.map(network) {
            Some(address) => {
                let quarter = most.div_ceil(4);
                let taken = shared.strangers_by_address.take(address, quarter);
                let (place, _) = taken.ok_or_else(|| {
                    self.admission.reach(limit);
                    let what = format!(
                        "{quarter} WebSockets of this address have not said yet who they are, and one address has no more \
                         than a quarter of all"
                    );
                    let status = StatusCode::TOO_MANY_REQUESTS;
                    self.admission.problem_of(limit, status, "too_many_connections", &what)
                })?;
                Some(place)
            }
            None => None,
        };
        let (all, _) = shared.strangers.take((), most).ok_or_else(|| self.admission.refusal(limit))?;
        Ok(Stranger { _places: (all, here) })
    }

    pub(crate) fn limits(&self) -> &Limits {
        self.admission.limits()
    }
}

/// Takes a request on, or refuses it, on every route.
pub(crate) async fn admit(State(admission): State<Admission>, mut request: Request, next: Next) -> Response {
    let is_stream = request.uri().path() == stream::ROUTE;
    let refuse = |problem: Problem| {
        if is_stream { stream::trouble(problem) } else { problem.into_response() }
    };
    let peer = request.extensions().get::<Peer>();
    let load = Load::of(admission, peer.and_then(|peer| peer.address));
    let admission = &load.admission;
    if let Some(Peer { address, is_proxied, refused, .. }) = peer {
        if let Some(limit) = *refused {
            // It was counted when it came.
            return refuse(admission.problem(limit));
        }
        if let Err(problem) = load.ask() {
            return refuse(problem);
        }
        if let Err(problem) = admission.check_head(&request) {
            // It does not get smaller by asking again.
            return problem.into_response();
        }
        if let Some(Err(problem)) = address.filter(|_| *is_proxied).map(|address| load.sit(address)) {
            return refuse(problem);
        }
    }
    request.extensions_mut().insert(load.clone());
    // What was written is written: only what can be asked again may be refused afterwards.
    let is_safe = request.method() == Method::GET;
    let response = next.run(request).await;
    let size = response.body().size_hint().exact().and_then(|size| usize::try_from(size).ok());
    let heavy = size.filter(|size| is_safe && *size > LIGHT);
    if let Some(Err(problem)) = heavy.map(|size| load.take(size)) {
        return refuse(problem);
    }
    let lasts = heavy.is_some() || load.held().lasts();
    if lasts { response.map(|body| Body::new(Loaded { body, _load: load })) } else { response }
}

/// A body that holds its bytes until it is written.
struct Loaded {
    body: Body,
    _load: Load,
}

impl HttpBody for Loaded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
