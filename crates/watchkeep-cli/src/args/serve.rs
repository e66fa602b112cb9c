//! What `serve` may be asked.

use std::time::Duration;

use clap::{Args, ValueEnum};
use watchkeep::Durability;
use watchkeep_server::Listen;

use super::{Exposure, Transport};
use crate::time::parse_duration;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep serve
  watchkeep --store app.db serve --listen 127.0.0.1:0        any free port; its URL is printed
  watchkeep serve --listen unix:/run/user/1000/app.sock
  watchkeep --store cache.db serve --durability relaxed      faster writes; a power cut may take the last
  watchkeep serve --listen 0.0.0.0:7460 --tls-cert cert.pem --tls-key key.pem      after `token create`
  watchkeep serve --cors-origin https://app.example.com      pages of this origin may use it, too
  watchkeep serve --drain 20s      on SIGTERM, streams end one by one: another server takes over

  curl -X PUT --data-binary dark 'http://127.0.0.1:7460/v1/entry?group=config&key=theme'
  curl -N 'http://127.0.0.1:7460/v1/watch?group=config'

Put the printed URL into a browser to see every change. It asks nobody who they are
until there is a token (`watchkeep token`); with --require-token it does from the start.
SIGINT or SIGTERM ends it, and browsers go on where they were once it is back; a second
one ends it without a farewell.
/healthz, /readyz and /metrics are for those who watch over it. WATCHKEEP_LOG may hold a
filter for the log, such as watchkeep_server=debug.")]
pub(crate) struct Serve {
    /// Where to listen: an address with its port, of loopback unless there are tokens and TLS; or unix:PATH
    #[arg(long, value_name = "ADDRESS", default_value_t)]
    pub(crate) listen: Listen,
    #[command(flatten)]
    pub(crate) exposure: Exposure,
    /// What commits of a new file survive: a power cut (full, unless given), or a killed process only (relaxed)
    #[arg(long, value_name = "HOW")]
    pub(crate) durability: Option<HowDurable>,
    #[command(flatten)]
    pub(crate) transport: Transport,
    /// How long the end takes: 0s for all at once, more where another server takes over meanwhile
    #[arg(long, value_name = "TIME", value_parser = parse_drain, default_value = "0s")]
    pub(crate) drain: Duration,
    /// What is logged to standard error; debug has a line for each request [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log: Option<LogLevel>,
}

fn parse_drain(text: &str) -> Result<Duration, String> {
    if text == "0" || text == "0s" {
        return Ok(Duration::ZERO);
    }
    let drain = parse_duration(text)?;
    if drain > Duration::from_secs(60 * 60) {
        Err(format!("'{text}' is too long; the longest is 1h"))
    } else {
        Ok(drain)
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The durability of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HowDurable {
    /// Each commit is synced to the disk.
    Full,
    /// Commits are synced now and then.
    Relaxed,
}

impl From<HowDurable> for Durability {
    fn from(how: HowDurable) -> Durability {
        match how {
            HowDurable::Full => Durability::Full,
            HowDurable::Relaxed => Durability::Relaxed,
        }
    }
}
