//! The calls that pass: each has one message of the client, which is passed on with its metadata.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::codegen::BoxFuture;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::server::StreamingService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::codec::Raw;
use super::hold::Ends;
use super::lies::{Answer, Lies};
use super::watch;
use super::wire::{
    LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, TxnRequest, TxnResponse,
};

/// The largest message that passes.
const MESSAGE: usize = 64 << 20;
/// For how many seconds a lease is said to be kept.
const KEPT: i64 = 60;

const TXN: &str = "/etcdserverpb.KV/Txn";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

/// The member, and what is to be said of it.
#[derive(Clone)]
pub(super) struct Upstream {
    pub(super) channel: Channel,
    pub(super) lies: Arc<Lies>,
}

/// Takes connections until the proxy goes.
pub(super) async fn serve(listener: tokio::net::TcpListener, upstream: Upstream) {
    while let Ok((socket, _)) = listener.accept().await {
        let upstream = upstream.clone();
        let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let call = Call { upstream: upstream.clone(), path: request.uri().path().to_owned() };
            let mut grpc = tonic::server::Grpc::new(Raw)
                .max_decoding_message_size(MESSAGE)
                .max_encoding_message_size(MESSAGE);
            async move { Ok::<_, Infallible>(grpc.streaming(call, request).await) }
        });
        tokio::spawn(async move {
            drop(socket.set_nodelay(true));
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // A client that goes ends it.
            drop(connection.serve_connection(TokioIo::new(socket), service).await);
        });
    }
}

/// What goes back to the client.
pub(super) struct Answers(mpsc::Receiver<Result<Bytes, Status>>);

impl Answers {
    pub(super) fn new() -> (mpsc::Sender<Result<Bytes, Status>>, Answers) {
        let (to, answers) = mpsc::channel(1);
        (to, Answers(answers))
    }

    fn one(answer: Bytes) -> Answers {
        let (to, answers) = Answers::new();
        // There is room for one.
        drop(to.try_send(Ok(answer)));
        answers
    }
}

impl Stream for Answers {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

struct Call {
    upstream: Upstream,
    path: String,
}

impl StreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = BoxFuture<Response<Answers>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (upstream, path) = (self.upstream.clone(), std::mem::take(&mut self.path));
        Box::pin(async move {
            let (metadata, _, mut requests) = request.into_parts();
            let first = requests.message().await?.ok_or_else(|| Status::invalid_argument("no message"))?;
            let answers = match path.as_str() {
                WATCH => {
                    let mut answers = upstream.stream(&path, metadata, first.clone()).await?;
                    let (to, back) = Answers::new();
                    let lies = upstream.lies;
                    tokio::spawn(async move {
                        watch::pass_on(&lies, &first, &mut answers, &to).await;
                        // A watch lasts as long as its requests.
                        drop(requests);
                    });
                    back
                }
                KEEP_ALIVE => Answers::one(upstream.keep_alive(metadata, first).await?),
                TXN => Answers::one(upstream.txn(metadata, first).await?),
                _ => {
                    let answer = upstream.unary(&path, metadata, first).await?;
                    if path == GRANT
                        && let Ok(granted) = LeaseGrantResponse::decode(answer.clone())
                    {
                        upstream.lies.note_lease(granted.id);
                    }
                    Answers::one(answer)
                }
            };
            Ok(Response::new(answers))
        })
    }
}

/// One message, and then nothing, for ever.
struct First(Option<Bytes>);

impl Stream for First {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.take().map_or(Poll::Pending, |first| Poll::Ready(Some(first)))
    }
}

impl Upstream {
    async fn client(&self) -> Result<tonic::client::Grpc<Channel>, Status> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE)
            .max_encoding_message_size(MESSAGE);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }

    pub(super) async fn unary(
        &self,
        path: &str,
        metadata: MetadataMap,
        message: Bytes,
    ) -> Result<Bytes, Status> {
        let mut request = Request::new(message);
        *request.metadata_mut() = metadata;
        self.lies.pass().await;
        let answer = self.client().await?.unary(request, parsed(path)?, Raw).await?.into_inner();
        self.lies.pass().await;
        Ok(answer)
    }

    async fn stream(
        &self,
        path: &str,
        metadata: MetadataMap,
        first: Bytes,
    ) -> Result<Streaming<Bytes>, Status> {
        let mut request = Request::new(First(Some(first)));
        *request.metadata_mut() = metadata;
        self.lies.pass().await;
        Ok(self.client().await?.streaming(request, parsed(path)?, Raw).await?.into_inner())
    }

    async fn keep_alive(&self, metadata: MetadataMap, first: Bytes) -> Result<Bytes, Status> {
        if self.lies.of_lease() {
            let asked = LeaseKeepAliveRequest::decode(first).map_err(unreadable)?;
            let kept = LeaseKeepAliveResponse { header: None, id: asked.id, ttl: KEPT };
            self.lies.note_told();
            return Ok(kept.encode_to_vec().into());
        }
        let mut answers = self.stream(KEEP_ALIVE, metadata, first).await?;
        answers.message().await?.ok_or_else(|| Status::unavailable("the stream ended"))
    }

    async fn txn(&self, metadata: MetadataMap, first: Bytes) -> Result<Bytes, Status> {
        let request = TxnRequest::decode(first.clone()).map_err(unreadable)?;
        let writes = request.success.iter().any(|op| op.operation.is_some());
        match writes.then(|| self.lies.of_write()).flatten() {
            None => self.unary(TXN, metadata, first).await,
            Some(Answer::Lost) => {
                self.unary(TXN, metadata, first).await?;
                self.lies.note_told();
                Err(Status::unavailable("the answer is lost"))
            }
            Some(Answer::Held(Ends { arrived, refuse, deliver, outcome })) => {
                let upstream = self.clone();
                // It outlives its caller's call.
                tokio::spawn(async move {
                    if deliver.await.is_ok() {
                        let answer = upstream.unary(TXN, metadata, first).await;
                        let answer =
                            answer.and_then(|answer| TxnResponse::decode(answer).map_err(unreadable));
                        let told = answer.map(|answer| answer.succeeded).map_err(|status| status.to_string());
                        drop(outcome.send(told));
                    }
                });
                let _ = arrived.send(());
                // Dropped as well: the test has ended.
                drop(refuse.await);
                self.lies.note_told();
                Err(Status::unavailable("it is held back"))
            }
        }
    }
}

fn parsed(path: &str) -> Result<PathAndQuery, Status> {
    path.parse().map_err(|_| Status::invalid_argument("that is no path"))
}

fn unreadable(error: prost::DecodeError) -> Status {
    Status::data_loss(error.to_string())
}
