//! The connection to a cluster: one call at a time on one member, on another when that one does not answer.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::Stream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::types::error::{Error, Reason, Result};
use crate::types::sync::{Mutex, lock};

use super::address::{Access, Address};
use super::connect::Dial;
use super::status::{
    explained, is_distrust, is_no_answer, is_open_to_all, is_unauthenticated, is_unsent, refused, tokenless,
};
use super::wire::{
    AuthenticateRequest, AuthenticateResponse, CompactionRequest, CompactionResponse, RangeRequest,
    RangeResponse, StatusRequest, StatusResponse, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest,
    WatchResponse, WatchWhat,
};

/// How long a member may take to answer a call.
pub(super) const CALL_TIME: Duration = Duration::from_secs(5);
/// How long a member may take to say how it is: whoever asks does not need to know.
pub(super) const STATUS_TIME: Duration = Duration::from_secs(1);
/// How often a connection is asked for a sign of life, and how long that may take: a member that died in silence closes
/// nothing.
const PING: Duration = Duration::from_secs(3);
const PING_TIME: Duration = Duration::from_secs(3);
/// The largest message that is read. etcd limits a range by its keys and not by its bytes.
const MESSAGE: usize = 64 << 20;

const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
const COMPACT: &str = "/etcdserverpb.KV/Compact";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";
pub(super) const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub(super) const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
pub(super) const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

/// What came of a call.
pub(super) type Called<T> = std::result::Result<T, Status>;

/// The members of a cluster, and what runs the calls.
pub(super) struct Client {
    // Shut down first.
    runtime: Option<tokio::runtime::Runtime>,
    members: Arc<Members>,
}

/// The members, and the one that is asked.
pub(super) struct Members {
    channels: Vec<Channel>,
    current: AtomicUsize,
    access: Access,
    token: Mutex<Token>,
    /// Of those who are refused at once, one asks for another token.
    renewing: tokio::sync::Mutex<()>,
    /// Whether one of them has answered.
    is_known: AtomicBool,
}

/// What a user is known by for a while.
#[derive(Default)]
struct Token {
    /// How many were asked for before, and with it.
    number: u64,
    /// None where the cluster asks nobody for a password.
    text: Option<String>,
}

impl Client {
    pub(super) fn new(address: &Address) -> Result<Client> {
        let failed = |cause| {
            let what = "no thread is left for the connection to the cluster".to_owned();
            Error::from(Reason::Io { what, cause })
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("watchkeep-etcd")
            .enable_all()
            .build()
            .map_err(failed)?;
        let channels = {
            let _inside = runtime.enter();
            address.members.iter().map(|member| connect(member, &address.access)).collect::<Result<_>>()?
        };
        let members = Members {
            channels,
            current: AtomicUsize::new(0),
            access: address.access.clone(),
            token: Mutex::default(),
            renewing: tokio::sync::Mutex::default(),
            is_known: AtomicBool::new(false),
        };
        Ok(Client { runtime: Some(runtime), members: Arc::new(members) })
    }

    pub(super) fn members(&self) -> Arc<Members> {
        self.members.clone()
    }

    /// Runs something beside the caller.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(task);
        }
    }

    /// Waits for something. The caller may be inside of another runtime, which must not notice.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        task: impl Future<Output = Called<T>> + Send + 'static,
    ) -> Called<T> {
        let (done, result) = mpsc::sync_channel(1);
        self.spawn(async move { drop(done.send(task.await)) });
        result.recv().unwrap_or_else(|_| Err(Status::cancelled("the store is closed")))
    }

    /// A call that may be repeated, on one member after the other until one answers.
    pub(super) fn ask<Q, A>(&self, path: &'static str, request: Q, patience: Duration) -> Result<A>
    where
        Q: Message + Clone + Send + Sync + 'static,
        A: Message + Default + Send + 'static,
    {
        let members = self.members();
        let answer = self.wait(async move { members.ask(path, request, patience).await });
        answer.map_err(|status| refused(&status))
    }

    /// Reads a range; with `serializable`, as one member has it.
    pub(super) fn range(&self, request: RangeRequest, patience: Duration) -> Result<RangeResponse> {
        self.ask(RANGE, request, patience)
    }

    /// A transaction that only reads.
    pub(super) fn look(&self, request: TxnRequest, patience: Duration) -> Result<TxnResponse> {
        self.ask(TXN, request, patience)
    }

    /// A transaction that writes, once: another member is asked only where it never left.
    pub(super) fn commit(&self, request: TxnRequest) -> Called<TxnResponse> {
        let members = self.members();
        self.wait(async move {
            for _ in members.channels.iter().skip(1) {
                match members.call(TXN, request.clone(), CALL_TIME).await {
                    Err(status) if is_unsent(&status) => {}
                    answer => return answer,
                }
            }
            members.call(TXN, request, CALL_TIME).await
        })
    }

    /// Compacts everybody's history up to a revision of the cluster, which itself can still be read.
    pub(super) fn compact(&self, revision: i64, patience: Duration) -> Result<()> {
        let request = CompactionRequest { revision };
        self.ask(COMPACT, request, patience).map(|_: CompactionResponse| ())
    }

    /// How the member is that is asked at present.
    pub(super) fn status(&self) -> Called<StatusResponse> {
        let members = self.members();
        self.wait(async move { members.call(STATUS, StatusRequest {}, STATUS_TIME).await })
    }

    /// Ends all calls.
    pub(super) fn close(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.close();
    }
}

impl Members {
    fn current(&self) -> (usize, Option<Channel>) {
        let current = self.current.load(Ordering::Relaxed);
        (current, self.channels.get(current % self.channels.len().max(1)).cloned())
    }

    /// The member that was asked does not answer.
    fn leave(&self, member: usize) {
        let next = member.wrapping_add(1);
        // Whoever noticed first has gone on already.
        let _ = self.current.compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn client(&self) -> Called<(usize, Grpc<Channel>)> {
        let (member, channel) = self.current();
        let channel = channel.ok_or_else(|| Status::unavailable("there is no member"))?;
        Ok((member, Grpc::new(channel).max_decoding_message_size(MESSAGE).max_encoding_message_size(MESSAGE)))
    }

    fn request<Q>(&self, request: Q) -> Called<Request<Q>> {
        let mut request = Request::new(request);
        if let Some(token) = &lock(&self.token).text {
            let token = MetadataValue::try_from(token.as_str());
            let mut token = token.map_err(|_| Status::unauthenticated("the cluster's token is no text"))?;
            // It is not shown in logs.
            token.set_sensitive(true);
            request.metadata_mut().insert("token", token);
        }
        Ok(request)
    }

    /// One call, on one member.
    pub(super) async fn call<Q, A>(&self, path: &'static str, request: Q, limit: Duration) -> Called<A>
    where
        Q: Message + Clone + Send + Sync + 'static,
        A: Message + Default + Send + 'static,
    {
        let (member, grpc) = self.client()?;
        let answer = self.call_as_user(grpc, path, request, limit).await;
        let is_away = answer.as_ref().is_err_and(is_no_answer);
        if is_away {
            self.leave(member);
        } else {
            self.is_known.store(true, Ordering::Relaxed);
        }
        let is_known = self.is_known.load(Ordering::Relaxed);
        answer.map_err(|status| explained(status, &self.access, is_known))
    }

    async fn call_as_user<Q, A>(
        &self,
        grpc: Grpc<Channel>,
        path: &'static str,
        request: Q,
        limit: Duration,
    ) -> Called<A>
    where
        Q: Message + Clone + Send + Sync + 'static,
        A: Message + Default + Send + 'static,
    {
        if self.access.user.is_none() {
            return send(grpc, path, self.request(request)?, limit).await;
        }
        if lock(&self.token).number == 0 {
            // Without a token, the name in our certificate would count.
            self.authenticate(grpc.clone(), 0, limit).await?;
        }
        let (number, is_nobody) = {
            let token = lock(&self.token);
            (token.number, token.text.is_none())
        };
        match send(grpc.clone(), path, self.request(request.clone())?, limit).await {
            // What was refused was not done: it may be sent again.
            Err(status)
                if is_unauthenticated(&status) || is_nobody && status.code() == Code::PermissionDenied =>
            {
                self.authenticate(grpc.clone(), number, limit).await?;
                send(grpc, path, self.request(request)?, limit).await
            }
            answer => answer,
        }
    }

    /// Asks for another token than the one of this number, unless somebody else has.
    async fn authenticate(&self, grpc: Grpc<Channel>, number: u64, limit: Duration) -> Called<()> {
        match tokio::time::timeout(limit, self.renew(grpc, number, limit)).await {
            Ok(renewed) => renewed.map_err(tokenless),
            Err(_) => Err(tokenless(Status::deadline_exceeded("the member gave no token in time"))),
        }
    }

    async fn renew(&self, grpc: Grpc<Channel>, number: u64, limit: Duration) -> Called<()> {
        let Some((name, password)) = self.access.user.clone() else { return Ok(()) };
        let _one = self.renewing.lock().await;
        if lock(&self.token).number != number {
            return Ok(());
        }
        tracing::debug!(user = name, "asks the cluster for a token");
        // Without the token that was refused: a server refuses that here, too.
        let request = Request::new(AuthenticateRequest { name, password });
        let answer: Called<AuthenticateResponse> = send(grpc, AUTHENTICATE, request, limit).await;
        let text = match answer {
            Ok(answer) => Some(answer.token),
            Err(status) if is_open_to_all(&status) => None,
            Err(status) => return Err(status),
        };
        *lock(&self.token) = Token { number: number + 1, text };
        Ok(())
    }

    /// A call that may be repeated: asks one member after the other, for so long.
    pub(super) async fn ask<Q, A>(&self, path: &'static str, request: Q, patience: Duration) -> Called<A>
    where
        Q: Message + Clone + Send + Sync + 'static,
        A: Message + Default + Send + 'static,
    {
        let until = tokio::time::Instant::now() + patience;
        let (mut distrusted, mut told) = (BTreeSet::new(), None);
        loop {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            let (member, _) = self.current();
            let status = match self.call(path, request.clone(), left.min(CALL_TIME)).await {
                Err(status) if is_no_answer(&status) => status,
                answer => return answer,
            };
            if is_distrust(&status) {
                distrusted.insert(member % self.channels.len().max(1));
                if distrusted.len() == self.channels.len() {
                    return Err(status);
                }
            }
            // The last is given no time, and has nothing to tell.
            if status.code() != Code::DeadlineExceeded || told.is_none() {
                told = Some(status.clone());
            }
            if left.is_zero() {
                return Err(told.unwrap_or(status));
            }
            tokio::time::sleep(AGAIN.min(left)).await;
        }
    }

    /// How each of the members is, as far as they say so in time.
    pub(super) async fn statuses(self: Arc<Self>) -> Vec<Called<StatusResponse>> {
        let asked: Vec<_> = self
            .channels
            .iter()
            .map(|channel| {
                let (members, grpc) = (self.clone(), Grpc::new(channel.clone()));
                tokio::spawn(async move {
                    send(grpc, STATUS, members.request(StatusRequest {})?, STATUS_TIME).await
                })
            })
            .collect();
        let mut said = Vec::with_capacity(asked.len());
        for status in asked {
            said.extend(status.await.ok());
        }
        said
    }

    /// One message on a stream, and the first that comes back.
    pub(super) async fn once<Q, A>(&self, path: &'static str, request: Q) -> Called<A>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + 'static,
    {
        let (_, mut grpc) = self.client()?;
        let request = self.request(First(Some(request)))?;
        let call = async {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let codec = ProstCodec::<Q, A>::default();
            let mut answers =
                grpc.streaming(request, PathAndQuery::from_static(path), codec).await?.into_inner();
            answers.message().await?.ok_or_else(|| Status::unavailable("the stream ended"))
        };
        match tokio::time::timeout(CALL_TIME, call).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded("the member did not answer in time")),
        }
    }

    pub(super) async fn range(&self, request: RangeRequest, patience: Duration) -> Called<RangeResponse> {
        self.ask(RANGE, request, patience).await
    }

    /// Watches one key from a revision of the cluster on.
    pub(super) async fn watch(&self, key: bytes::Bytes, from: i64) -> Called<Streaming<WatchResponse>> {
        let (member, mut grpc) = self.client()?;
        // What was just read shows whether the token still holds; the watch takes the same.
        let create = WatchCreateRequest { key, start_revision: from, fragment: true };
        let first = WatchRequest { what: Some(WatchWhat::Create(create)) };
        let mut request = self.request(First(Some(first)))?;
        // A member that is cut off from the others ends its watches.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let call = async {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
            grpc.streaming(request, PathAndQuery::from_static(WATCH), codec).await
        };
        let answer = match tokio::time::timeout(CALL_TIME, call).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("the member did not answer in time")),
        };
        if answer.is_err() {
            self.leave(member);
        }
        answer
    }

    /// The member that is asked is of no use.
    pub(super) fn leave_current(&self) {
        self.leave(self.current.load(Ordering::Relaxed));
    }
}

async fn send<Q, A>(
    mut grpc: Grpc<Channel>,
    path: &'static str,
    request: Request<Q>,
    limit: Duration,
) -> Called<A>
where
    Q: Message + Send + Sync + 'static,
    A: Message + Default + Send + 'static,
{
    let call = async {
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let codec = ProstCodec::<Q, A>::default();
        grpc.unary(request, PathAndQuery::from_static(path), codec).await
    };
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("the member did not answer in time")),
    }
}

/// How long after a member that did not answer the next one is asked.
const AGAIN: Duration = Duration::from_millis(50);

/// One message, and then nothing, for ever: a watch ends with its requests.
struct First<Q>(Option<Q>);

impl<Q> Unpin for First<Q> {}

impl<Q> Stream for First<Q> {
    type Item = Q;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Q>> {
        match self.0.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Poll::Pending,
        }
    }
}

/// Nothing is connected before the first call.
fn connect(member: &str, access: &Access) -> Result<Channel> {
    let bad = |cause: tonic::transport::Error| {
        let what = format!("{member:?} is no address of a member ({cause}); one looks like 10.0.0.1:2379");
        Error::from(Reason::Invalid { what })
    };
    let endpoint = |scheme| Endpoint::from_shared(format!("{scheme}://{member}")).map_err(bad);
    // What dials speaks TLS, where that is wanted, and not tonic. A member looks at our certificate for calls that say so.
    let origin = endpoint(if access.tls.is_some() { "https" } else { "http" })?;
    let host = origin.uri().host().unwrap_or_default();
    let wrong = |cause| {
        let what = format!("the certificates for the cluster are of no use ({cause}); see to their files");
        Error::from(Reason::Invalid { what })
    };
    let dial = Dial::new(member, host, access.tls.as_ref()).map_err(wrong)?;
    let endpoint = endpoint("http")?
        .origin(origin.uri().clone())
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING_TIME)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_with_connector_lazy(dial))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Hears what HTTP/2 begins with.
    fn hear(connection: &mut TcpStream) -> std::io::Result<()> {
        connection.read_exact(&mut [0; 24])
    }

    /// Hears a call, after its own empty frame of settings, and does not answer.
    fn hear_call(connection: &mut TcpStream) -> std::io::Result<()> {
        hear(connection)?;
        connection.write_all(b"\0\0\0\x04\0\0\0\0\0")?;
        loop {
            let mut frame = [0; 9];
            connection.read_exact(&mut frame)?;
            let [high, middle, low, kind, ..] = frame;
            let length = u32::from_be_bytes([0, high, middle, low]);
            connection.read_exact(&mut vec![0; length as usize])?;
            if kind == 1 {
                return Ok(());
            }
        }
    }

    /// Whether a member that does so much and hangs up leaves a commit unsent.
    fn is_unsent_to(member: fn(&mut TcpStream) -> std::io::Result<()>) -> Result<bool> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("its number").port();
        let address = Address::parse(&format!("etcd://127.0.0.1:{port}/app"), |_| None)?;
        let client = Client::new(&address)?;
        let member = std::thread::spawn(move || member(&mut listener.accept()?.0));
        let status = client.commit(TxnRequest::default()).expect_err("nobody answers");
        member.join().expect("a member").expect("a client that begins");
        assert!(is_no_answer(&status), "{status:?}");
        // The listener is gone.
        let nobody = client.commit(TxnRequest::default()).expect_err("nobody is there");
        assert!(is_no_answer(&nobody) && is_unsent(&nobody), "{nobody:?}");
        Ok(is_unsent(&status))
    }

    #[test]
    fn what_never_left_is_told_from_what_was_not_answered() -> Result<()> {
        assert!(is_unsent_to(|_| Ok(()))?, "as a balancer does that has no member");
        assert!(is_unsent_to(hear)?);
        assert!(is_unsent_to(|connection| connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"))?);
        assert!(!is_unsent_to(hear_call)?);
        Ok(())
    }
}
