//! How a server is reached, and what it is bound to.

use std::path::PathBuf;

use clap::Args;
use watchkeep_server::Limit;

/// TLS and limits.
#[derive(Debug, Args)]
pub(crate) struct Transport {
    /// Speak TLS with this certificate, and those that vouch for it (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Speak TLS with a certificate made now for this machine; for development, nobody trusts it
    #[arg(long, conflicts_with = "tls_cert")]
    pub(crate) tls_self: bool,
    /// Another limit than the default one; those in force are printed at the start. Repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = limit)]
    pub(crate) limit: Vec<(Limit, u64)>,
}

/// A limit and its value.
fn limit(text: &str) -> Result<(Limit, u64), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE, such as connections=1000")?;
    let limit = name.parse()?;
    match value.parse() {
        Ok(value @ 1..=MAX_LIMIT) => Ok((limit, value)),
        _ => Err(format!("'{value}' is not a whole number from 1 to {MAX_LIMIT}")),
    }
}

/// The largest value that a limit takes.
const MAX_LIMIT: u64 = 1 << 30;
