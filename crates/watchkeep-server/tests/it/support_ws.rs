//! A server on a thread of its own, and a client of its WebSocket.

use std::future::Future;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use watchkeep::Store;
use watchkeep_server::{Bound, Closer, Listen, Server};

pub(crate) const PROTOCOL: (&str, &str) = ("sec-websocket-protocol", "watchkeep.v1");

/// Far longer than anything takes that goes right.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// What has to come in time.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, what).await.expect("nothing came in time")
}

pub(crate) struct Hub {
    pub(crate) store: Store,
    pub(crate) address: String,
    closer: Closer,
    thread: Option<JoinHandle<()>>,
}

impl Hub {
    pub(crate) fn start() -> Hub {
        let store = Store::open_in_memory().unwrap();
        let served = store.clone();
        let (bound, where_) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listen: Listen = "127.0.0.1:0".parse().unwrap();
                let server = Server::bind(&served, &listen).await.unwrap();
                let Bound::Tcp(address) = server.bound() else { panic!("it listens elsewhere") };
                bound.send((address.to_string(), server.closer())).unwrap();
                drop(served);
                server.run().await;
            });
        });
        let (address, closer) = where_.recv_timeout(LIMIT).unwrap();
        Hub { store, address, closer, thread: Some(thread) }
    }

    /// Tells the server that it ends.
    pub(crate) fn close(&self) {
        self.closer.close();
    }

    /// Waits until it has ended.
    pub(crate) fn ended(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }

    /// The answer to a request for an upgrade.
    pub(crate) async fn open(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Client, Box<Response<String>>> {
        Client::open(&self.address, path, headers).await
    }

    pub(crate) async fn client(&self) -> Client {
        self.open("/v1/ws", &[PROTOCOL]).await.expect("the server takes it")
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.closer.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
    /// The subprotocol that the server chose.
    pub(crate) protocol: Option<String>,
}

impl Client {
    pub(crate) async fn open(
        address: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Client, Box<Response<String>>> {
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
        // A small window: what a client does not read is the server's, not the kernel's.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        let stream = socket.connect(address.parse().unwrap()).await.unwrap();
        match within(tokio_tungstenite::client_async(request, stream)).await {
            Ok((socket, answer)) => {
                let protocol = answer.headers().get(PROTOCOL.0).map(|name| name.to_str().unwrap().to_owned());
                Ok(Client { socket, protocol })
            }
            Err(Error::Http(refusal)) => {
                let (parts, body) = refusal.into_parts();
                let body = String::from_utf8(body.unwrap_or_default()).unwrap();
                Err(Box::new(Response::from_parts(parts, body)))
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn say(&mut self, message: Value) {
        self.say_raw(Message::text(message.to_string())).await;
    }

    pub(crate) async fn say_raw(&mut self, message: Message) {
        within(self.socket.send(message)).await.unwrap();
    }

    /// The next message of the server's.
    pub(crate) async fn hear(&mut self) -> Value {
        loop {
            match within(self.socket.next()).await.expect("the server ended").unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("no message, but {other:?}"),
            }
        }
    }

    /// Says something, and hears what comes next.
    pub(crate) async fn ask(&mut self, message: Value) -> Value {
        self.say(message).await;
        self.hear().await
    }

    /// The next message, which is of this type and under this id.
    pub(crate) async fn expect(&mut self, kind: &str, id: &str) -> Value {
        let message = self.hear().await;
        assert_eq!((&message["type"], &message["id"]), (&kind.into(), &id.into()), "{message}");
        message
    }

    /// The end of the connection, which comes next.
    pub(crate) async fn end(&mut self) -> Option<CloseFrame> {
        match within(self.socket.next()).await {
            Some(Ok(Message::Close(frame))) => frame,
            other => panic!("no end, but {other:?}"),
        }
    }
}
