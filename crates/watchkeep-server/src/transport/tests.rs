//! Connections in memory, and a server that ends.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use watchkeep::Store;

use super::*;
use crate::access::Door;
use crate::ending::Closer;
use crate::gate::{Gate, Gates};
use crate::guard::Guard;
use crate::settings::{Limits, Reached};

struct Served {
    transport: Arc<Transport>,
    closer: Closer,
}

impl Served {
    fn over(store: &Store, tls: Option<Tls>) -> Served {
        let (closer, ending) = Ending::pair();
        let gates = Gates::new(Gate::new(store, ending.clone()), Door::Open).1;
        let admission = Admission::new(Limits::default(), Reached::default());
        let router = crate::watched(gates, Guard::default(), admission.clone());
        let transport = Transport { router, tls, ending, admission, proxies: Proxies::default() };
        Served { transport: Arc::new(transport), closer }
    }

    /// A connection that is served until the task ends.
    fn connect(&self) -> (DuplexStream, JoinHandle<()>) {
        let (client, stream) = duplex(64 << 10);
        let (peer, seat) = self.transport.seat(None).expect("a seat");
        (client, tokio::spawn(self.transport.clone().serve(Box::new(stream), peer, seat)))
    }
}

/// Trusts the one server that there is.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn connector(protocol: &str) -> TlsConnector {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let config = config.expect("versions").dangerous();
    let mut config =
        config.with_custom_certificate_verifier(Arc::new(Trusting(provider))).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// The server has read all that was written: nothing else is left to do then.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_asked_for_nothing_is_not_waited_for_when_the_server_ends()
-> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open_in_memory()?;
    // What came before the end: over TCP, in the midst of a handshake, and after one.
    for (protocol, sent) in [
        (None, &b""[..]),
        (None, b"GET / HT"),
        (Some(""), b""),
        (Some(""), b"\x16\x03\x01\x02\x00\x01"),
        (Some("http/1.1"), b""),
        (Some("http/1.1"), b"GET / HT"),
        (Some("h2"), b""),
        (Some("h2"), b"PRI * HTTP"),
    ] {
        let tls = protocol.map(|_| Tls::self_signed(["localhost"])).transpose()?;
        let served = Served::over(&store, tls);
        let (mut client, serving) = served.connect();
        // The client stays, so that it is the server that ends it.
        let _stays: Box<dyn Io> = match protocol.filter(|protocol| !protocol.is_empty()) {
            Some(protocol) => {
                let mut client = connector(protocol).connect("localhost".try_into()?, client).await?;
                client.write_all(sent).await?;
                client.flush().await?;
                Box::new(client)
            }
            None => {
                client.write_all(sent).await?;
                Box::new(client)
            }
        };
        settle().await;
        assert!(!serving.is_finished(), "{protocol:?} {sent:?}");
        let closed = Instant::now();
        served.closer.close();
        serving.await?;
        // The clock stands still until nobody has anything to do.
        assert_eq!(closed.elapsed(), Duration::ZERO, "{protocol:?} {sent:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_request_that_has_begun_is_waited_for_when_the_server_ends()
-> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open_in_memory()?;
    let served = Served::over(&store, None);
    let (mut client, serving) = served.connect();
    client
        .write_all(b"PUT /v1/entry?group=g&key=k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\na")
        .await?;
    settle().await;
    served.closer.close();
    settle().await;
    assert!(!serving.is_finished());
    client.write_all(b"b").await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    serving.await?;
    assert_eq!(store.get("g", "k")?.as_deref(), Some(&b"ab"[..]));
    Ok(())
}
