//! Opens the connection to a member, which counts as open once the member has spoken.
//!
//! That a connection is accepted says little: a balancer accepts for members that are gone, and under TLS 1.3 a member
//! turns down our certificate after the handshake has ended here. Nobody can tell what became of a commit that is sent
//! on such a connection. So the bytes with which HTTP/2 begins go ahead, and no call follows before the first byte of an
//! answer (RFC 9113, 3.4: both sides begin by themselves, and etcd's members once they have these bytes).

use std::future::Future;
use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;

use super::address::Tls;

/// How long a member may take until it has spoken.
const CONNECT_TIME: Duration = Duration::from_secs(2);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HTTP2: &[u8] = b"h2";

/// Opens connections to one member.
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
}

fn config(tls: &Tls) -> Result<ClientConfig> {
    let certificates = |pem| -> Result<Vec<_>> {
        CertificateDer::pem_slice_iter(pem).collect::<std::result::Result<_, _>>().map_err(Error::other)
    };
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(certificates(&tls.ca)?);
    // Whatever another library of this process has chosen.
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
        let (member, tls) = (self.member.clone(), self.tls.clone());
        let connection = async move {
            let stream = TcpStream::connect(member).await?;
            stream.set_nodelay(true)?;
            match tls {
                None => begin(Box::new(stream)).await,
                Some((tls, host)) => begin(Box::new(tls.connect(host, stream).await?)).await,
            }
        };
        Box::pin(async {
            let late = |_| Error::new(ErrorKind::TimedOut, "the member did not speak in time");
            timeout(CONNECT_TIME, connection).await.map_err(late)?.map(TokioIo::new)
        })
    }
}

/// A connection on which a member has spoken.
pub(super) struct Connection {
    stream: BufReader<Box<dyn Duplex>>,
    /// What tonic begins with has been sent already, up to here.
    ahead: usize,
}

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

async fn begin(stream: Box<dyn Duplex>) -> Result<Connection> {
    // It holds the first frame; what is read later goes past it.
    let mut stream = BufReader::with_capacity(PREFACE.len(), stream);
    let sent = async {
        stream.write_all(PREFACE).await?;
        stream.flush().await
    };
    let sent = sent.await;
    // A member that hangs up has said why before.
    if stream.fill_buf().await?.is_empty() {
        sent?;
        return Err(Error::new(ErrorKind::UnexpectedEof, "connection closed before the member spoke"));
    }
    Ok(Connection { stream, ahead: PREFACE.len() })
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        if self.ahead > 0 {
            let skipped = self.ahead.min(bytes.len());
            self.ahead -= skipped;
            return Poll::Ready(Ok(skipped));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
