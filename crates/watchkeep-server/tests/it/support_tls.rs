//! Clients that speak TLS, and HTTP/2 in it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::{Body, BodyDataStream};
use axum::http::{Method, Request, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio_rustls::{TlsConnector, rustls};
use watchkeep_server::Tls;

use crate::support::{LIMIT, Result};

/// A server's certificate, and clients that trust it.
pub(crate) struct Certified {
    pub(crate) tls: Tls,
    roots: RootCertStore,
}

impl Certified {
    pub(crate) fn new() -> Result<Certified> {
        let (folder, made) =
            (tempfile::tempdir()?, rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?);
        let file = |label: &str, der: &[u8]| {
            let path = folder.path().join(label);
            let text = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
            std::fs::write(&path, text).map(|()| path)
        };
        let certificate = file("CERTIFICATE", made.cert.der())?;
        let tls = Tls::from_files(certificate, file("PRIVATE KEY", &made.signing_key.serialize_der())?)?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        Ok(Certified { tls, roots })
    }

    /// A connection with this version, and this protocol.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        version: &'static SupportedProtocolVersion,
        protocol: &str,
    ) -> Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])?
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(address).await?;
        Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::from(address.ip()), stream).await?)
    }

    /// A client of HTTP/2.
    pub(crate) async fn http2(&self, address: SocketAddr) -> Result<Http2> {
        let stream = self.connect(address, &rustls::version::TLS13, "h2").await?;
        let mut client = http2::Builder::new(TokioExecutor::new());
        let (sender, connection) =
            client.initial_stream_window_size(64 << 10).handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Http2 { sender, address })
    }
}

#[derive(Clone)]
pub(crate) struct Http2 {
    sender: http2::SendRequest<Body>,
    address: SocketAddr,
}

impl Http2 {
    /// Makes a request; the answer, whose body is still to come.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        target: &str,
        body: impl Into<Body>,
    ) -> Result<Response<Stream>> {
        let uri = format!("https://{}{target}", self.address);
        let request = Request::builder().method(method).uri(uri).body(body.into())?;
        let answer = within(self.sender.send_request(request)).await??;
        Ok(answer.map(|body| Stream { body: Body::new(body).into_data_stream(), text: String::new() }))
    }

    pub(crate) async fn status(
        &mut self,
        method: Method,
        target: &str,
        body: impl Into<Body>,
    ) -> Result<u16> {
        Ok(self.ask(method, target, body).await?.status().as_u16())
    }

    /// The status of a read of this address, also under another host.
    pub(crate) async fn status_of(&mut self, uri: &str, host: Option<&str>) -> Result<u16> {
        let mut request = Request::get(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let answer = within(self.sender.send_request(request.body(Body::empty())?)).await??;
        Ok(answer.status().as_u16())
    }
}

pub(crate) struct Stream {
    body: BodyDataStream,
    text: String,
}

impl Stream {
    /// Reads up to this text.
    pub(crate) async fn until(&mut self, end: &str) -> Result {
        while !self.text.contains(end) {
            let piece =
                within(self.body.next()).await?.ok_or_else(|| format!("it ended before {end:?}"))??;
            self.text += std::str::from_utf8(&piece)?;
        }
        Ok(())
    }

    /// How many bytes come before the end; fails when it breaks off.
    pub(crate) async fn rest(&mut self) -> Result<usize> {
        let mut length = 0;
        while let Some(piece) = within(self.body.next()).await? {
            length += piece?.len();
        }
        Ok(length)
    }
}

pub(crate) async fn within<F: Future>(doing: F) -> Result<F::Output> {
    tokio::time::timeout(LIMIT, doing).await.map_err(|_| "it takes too long".into())
}

/// Runs clients; their connections are closed when it returns.
pub(crate) fn block_on(doing: impl Future<Output = Result>) -> Result {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(doing)
}
