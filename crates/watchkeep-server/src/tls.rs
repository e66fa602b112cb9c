//! TLS: the certificate that a server shows, and the versions and protocols that it speaks.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, ServerConfig};

/// HTTP/2 is for those who offer it.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Under which names this machine is asked.
const OURS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Why there is no TLS with these files or names.
///
/// ```
/// use watchkeep_server::Tls;
/// let error = Tls::from_files("no-such.pem", "no-such.key").expect_err("neither is there");
/// assert!(error.to_string().contains("no-such.pem"));
/// ```
#[derive(Debug)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// What a server needs to speak TLS, in versions 1.2 and 1.3.
///
/// ```
/// use watchkeep_server::Tls;
/// let tls = Tls::self_signed(["devbox.example"])?;
/// assert_eq!(tls.fingerprint().len(), "SHA256:".len() + 32 * 3 - 1);
/// # Ok::<(), watchkeep_server::TlsError>(())
/// ```
#[derive(Clone)]
pub struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    certificate: CertificateDer<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

impl Tls {
    /// With a certificate, followed by those that vouch for it, and its private key, in PEM files.
    ///
    /// ```no_run
    /// use watchkeep_server::Tls;
    /// let tls = Tls::from_files("fullchain.pem", "privkey.pem")?;
    /// # drop(tls);
    /// # Ok::<(), watchkeep_server::TlsError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When a file cannot be read, has nothing of its kind in it, or the key is not that of the certificate.
    pub fn from_files(
        certificates: impl Into<PathBuf>,
        private_key: impl Into<PathBuf>,
    ) -> Result<Tls, TlsError> {
        let (cert_file, key_file) = (certificates.into(), private_key.into());
        let bad = |file: &Path, what: &str, error: &dyn fmt::Display| {
            TlsError(format!("{} cannot be used: {error}; it has to be {what}", file.display()))
        };
        let what = "a certificate in PEM form (-----BEGIN CERTIFICATE-----), readable for this user";
        let chain =
            CertificateDer::pem_file_iter(&cert_file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(|error| bad(&cert_file, what, &error))?;
        if chain.is_empty() {
            return Err(bad(&cert_file, what, &"there is none in it"));
        }
        let what = "the private key in PEM form (-----BEGIN PRIVATE KEY-----), not encrypted, readable for this user";
        let key = PrivateKeyDer::from_pem_file(&key_file).map_err(|error| bad(&key_file, what, &error))?;
        let what = format!("the private key of the certificate in {}", cert_file.display());
        Tls::new(chain, key).map_err(|error| bad(&key_file, &what, &error))
    }

    /// With a certificate that is made now, for this machine's names and those given. It is for development: no client
    /// trusts it unless told to, by its [fingerprint](Tls::fingerprint) for example.
    ///
    /// # Errors
    ///
    /// When a name can stand in no certificate.
    pub fn self_signed<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Result<Tls, TlsError> {
        let names: Vec<String> =
            OURS.map(str::to_owned).into_iter().chain(names.into_iter().map(Into::into)).collect();
        let made = rcgen::generate_simple_self_signed(names)
            .map_err(|error| TlsError(format!("no certificate can be made for these names: {error}")))?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        Tls::new(vec![made.cert.der().clone()], key.into())
            .map_err(|error| TlsError(format!("the certificate that was made cannot be used: {error}")))
    }

    fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Tls, rustls::Error> {
        let certificate = chain.first().cloned().ok_or(rustls::Error::NoCertificatesPresented)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Tls { acceptor: Arc::new(config).into(), certificate })
    }

    /// The SHA-256 of the certificate, as browsers and `openssl x509 -fingerprint` show it.
    pub fn fingerprint(&self) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.certificate);
        let bytes: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        format!("SHA256:{}", bytes.join(":"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_files_say_what_to_do() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let path = |name: &str| dir.path().join(name);
        let make = |name: &str| -> Result<(), Box<dyn std::error::Error>> {
            let made = rcgen::generate_simple_self_signed([name.to_owned()])?;
            let body = |label: &str, der: &[u8]| {
                use base64::Engine;
                let text = base64::engine::general_purpose::STANDARD.encode(der);
                format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
            };
            std::fs::write(path(&format!("{name}.pem")), body("CERTIFICATE", made.cert.der()))?;
            std::fs::write(
                path(&format!("{name}.key")),
                body("PRIVATE KEY", &made.signing_key.serialize_der()),
            )?;
            Ok(())
        };
        make("one")?;
        make("two")?;
        std::fs::write(path("empty"), "")?;
        Tls::from_files(path("one.pem"), path("one.key"))?;
        for (cert, key, named) in [
            ("none", "one.key", "none cannot be used"),
            ("empty", "one.key", "BEGIN CERTIFICATE"),
            ("one.key", "one.key", "BEGIN CERTIFICATE"),
            ("one.pem", "none", "none cannot be used"),
            ("one.pem", "one.pem", "BEGIN PRIVATE KEY"),
            ("one.pem", "two.key", "the private key of the certificate in"),
        ] {
            let error = Tls::from_files(path(cert), path(key)).err().ok_or("it was taken")?.to_string();
            assert!(error.contains(named), "{cert} {key}: {error}");
        }
        Ok(())
    }
}
