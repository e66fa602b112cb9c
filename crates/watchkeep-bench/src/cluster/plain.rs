//! etcd as it is: puts, reads and a watch through the same gRPC client that watchkeep uses, with the same settings. The
//! messages are those of `rpc.proto` of etcd 3.4, as far as they are needed.

use std::time::Duration;

use bytes::Bytes;
use prost::{Message, Oneof};
use tokio::runtime::{Builder, Runtime};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use crate::Result;

const CONNECT_TIME: Duration = Duration::from_secs(2);

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct PutResponse {}

#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct RangeResponse {
    #[prost(int64, tag = "4")]
    count: i64,
}

#[derive(Clone, PartialEq, Message)]
struct CreateRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    range_end: Bytes,
}

#[derive(Clone, PartialEq, Oneof)]
enum What {
    #[prost(message, tag = "1")]
    Create(CreateRequest),
}

#[derive(Clone, PartialEq, Message)]
struct WatchRequest {
    #[prost(oneof = "What", tags = "1")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, Message)]
struct WatchEvent {}

#[derive(Clone, PartialEq, Message)]
struct WatchResponse {
    #[prost(bool, tag = "3")]
    created: bool,
    #[prost(message, repeated, tag = "11")]
    events: Vec<WatchEvent>,
}

/// A connection to one member.
pub(super) struct Plain {
    runtime: Runtime,
    channel: Channel,
}

/// A watch of everything under a prefix.
pub(super) struct Watching<'p> {
    plain: &'p Plain,
    stream: Streaming<WatchResponse>,
    // A watch ends with its requests.
    _requests: tokio::sync::mpsc::Sender<WatchRequest>,
}

impl Plain {
    pub(super) fn connect(member: &str) -> Result<Plain> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let _inside = runtime.enter();
        let endpoint = Endpoint::from_shared(format!("http://{member}"))?;
        let channel = endpoint.connect_timeout(CONNECT_TIME).tcp_nodelay(true).connect_lazy();
        drop(_inside);
        Ok(Plain { runtime, channel })
    }

    fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        let (done, answer) = std::sync::mpsc::sync_channel(1);
        // As ours does: the runtime's own thread runs the call, and the caller waits.
        self.runtime.spawn(async move {
            let call = async {
                grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
                let codec = ProstCodec::<Q, A>::default();
                grpc.unary(Request::new(request), PathAndQuery::from_static(path), codec).await
            };
            drop(done.send(call.await));
        });
        Ok(answer.recv()??.into_inner())
    }

    pub(super) fn put(&self, key: &str, value: &str) -> Result<()> {
        let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
        self.call::<_, PutResponse>("/etcdserverpb.KV/Put", PutRequest { key, value }).map(drop)
    }

    pub(super) fn get(&self, key: &str) -> Result<bool> {
        let request = RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()) };
        Ok(self.call::<_, RangeResponse>("/etcdserverpb.KV/Range", request)?.count > 0)
    }

    /// Watches everything under a prefix, once the member says that it does.
    pub(super) fn watch(&self, prefix: &str) -> Result<Watching<'_>> {
        let key = Bytes::copy_from_slice(prefix.as_bytes());
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().ok_or("a prefix is wanted")? += 1;
        let create = WatchRequest { what: Some(What::Create(CreateRequest { key, range_end: end.into() })) };
        let stream: Result<_> = self.runtime.block_on(async {
            let mut grpc = Grpc::new(self.channel.clone());
            grpc.ready().await?;
            let (sender, mut receiver) = tokio::sync::mpsc::channel::<WatchRequest>(1);
            sender.send(create).await?;
            let requests = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
            let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
            let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
            let stream = grpc.streaming(Request::new(requests), path, codec).await?.into_inner();
            Ok((stream, sender))
        });
        let (stream, requests) = stream?;
        let mut watching = Watching { plain: self, stream, _requests: requests };
        watching.next()?;
        Ok(watching)
    }
}

impl Watching<'_> {
    /// Waits for the next response; how many events it has.
    pub(super) fn next(&mut self) -> Result<usize> {
        let message = self.plain.runtime.block_on(self.stream.message())?;
        Ok(message.ok_or("the watch ended")?.events.len())
    }
}
