//! Opens the connection to a member, which counts as open once the member has spoken.
//!
//! That a connection is accepted says little: a balancer accepts for members that are gone, and under TLS 1.3 a member
//! turns down our certificate after the handshake has ended here. Nobody can tell what became of a commit that is sent
//! on such a connection. So the bytes with which HTTP/2 begins go ahead, and no call follows before the member's settings
//! (RFC 9113, 3.4: both sides begin by themselves, and etcd's members once they have these bytes).

use std::future::Future;
use std::io::{Cursor, Error, ErrorKind, IoSlice, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;

use super::address::Tls;

/// How long a member may take until it has spoken; where its name has several addresses, all of them together.
const CONNECT_TIME: Duration = Duration::from_secs(2);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HTTP2: &[u8] = b"h2";
/// How long the head of a frame is, and what its fourth byte is in the first frame of a member.
const FRAME_HEAD: usize = 9;
const SETTINGS: u8 = 4;

/// Opens connections to one member.
#[derive(Clone)]
pub(super) struct Dial {
    /// `host:port`.
    member: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Dial {
    /// # Errors
    ///
    /// Certificates or a key that cannot be read, or a host that no certificate can name.
    pub(super) fn new(member: &str, host: &str, tls: Option<&Tls>) -> Result<Dial> {
        let tls = tls.map(|tls| -> Result<_> {
            let host =
                ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(Error::other)?;
            Ok((TlsConnector::from(Arc::new(config(tls)?)), host))
        });
        Ok(Dial { member: member.to_owned(), tls: tls.transpose()? })
    }

    async fn open(&self) -> Result<Connection> {
        let mut last = Error::new(ErrorKind::NotFound, "its name has no address");
        let addresses: Vec<_> = lookup_host(&self.member).await?.collect();
        let each = CONNECT_TIME / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        for address in addresses {
            match timeout(each, self.open_at(address)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => last = error,
                Err(_) => last = late(),
            }
        }
        Err(last)
    }

    async fn open_at(&self, address: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => begin(Box::new(stream)).await,
            Some((tls, host)) => begin(Box::new(tls.connect(host.clone(), stream).await?)).await,
        }
    }
}

fn config(tls: &Tls) -> Result<ClientConfig> {
    let certificates = |pem| -> Result<Vec<_>> {
        CertificateDer::pem_slice_iter(pem).collect::<std::result::Result<_, _>>().map_err(Error::other)
    };
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(certificates(&tls.ca)?);
    // Always ring, whichever provider the process has set as its default.
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Error::other)?
        .with_root_certificates(trusted);
    let mut config = match &tls.identity {
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key).map_err(Error::other)?;
            config.with_client_auth_cert(certificates(certificate)?, key).map_err(Error::other)?
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols.push(HTTP2.to_vec());
    Ok(config)
}

impl Service<Uri> for Dial {
    type Response = TokioIo<Connection>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move {
            let opened = timeout(CONNECT_TIME, dial.open()).await;
            opened.map_err(|_| late())?.map(TokioIo::new)
        })
    }
}

fn late() -> Error {
    Error::new(ErrorKind::TimedOut, "the member could not be reached in time")
}

/// A connection on which a member has spoken.
pub(super) struct Connection {
    stream: Box<dyn Duplex>,
    /// The head of its first frame, until it is read.
    head: Cursor<[u8; FRAME_HEAD]>,
    /// How much of what tonic begins with has been sent already.
    ahead: usize,
}

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

async fn begin(mut stream: Box<dyn Duplex>) -> Result<Connection> {
    // Whether it arrives shows in the answer: a member that has hung up may have said why before.
    let _ = stream.write_all(PREFACE).await;
    let _ = stream.flush().await;
    let mut head = [0; FRAME_HEAD];
    stream.read_exact(&mut head).await.map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => Error::new(error.kind(), "connection closed before the member spoke"),
        _ => error,
    })?;
    match head {
        [_, _, _, SETTINGS, ..] => Ok(Connection { stream, head: Cursor::new(head), ahead: PREFACE.len() }),
        _ => Err(Error::new(ErrorKind::InvalidData, "the member does not speak HTTP/2")),
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        if self.head.position() < FRAME_HEAD as u64 {
            return Pin::new(&mut self.head).poll_read(context, into);
        }
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl Connection {
    /// Passes over what has been sent already.
    fn skip(&mut self, bytes: &[u8]) -> Option<usize> {
        let skipped = self.ahead.min(bytes.len());
        self.ahead -= skipped;
        (skipped > 0).then_some(skipped)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        match self.skip(bytes) {
            Some(skipped) => Poll::Ready(Ok(skipped)),
            None => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        match slices.iter().find_map(|bytes| self.skip(bytes)) {
            Some(skipped) => Poll::Ready(Ok(skipped)),
            None => Pin::new(&mut self.stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
