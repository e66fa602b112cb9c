//! What `serve` may be asked.

use clap::{Args, ValueEnum};
use watchkeep::Durability;
use watchkeep_server::Listen;

use super::{Exposure, Transport};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep serve
  watchkeep --store app.db serve --listen 127.0.0.1:0        any free port; its URL is printed
  watchkeep serve --listen unix:/run/user/1000/app.sock
  watchkeep --store cache.db serve --durability relaxed      faster writes; a power cut may take the last
  watchkeep serve --listen 0.0.0.0:7460 --tls-cert cert.pem --tls-key key.pem      after `token create`

  curl -X PUT --data-binary dark 'http://127.0.0.1:7460/v1/entry?group=config&key=theme'
  curl -N 'http://127.0.0.1:7460/v1/watch?group=config'

Put the printed URL into a browser to see every change. It asks nobody who they are
until there is a token (`watchkeep token`). SIGINT or SIGTERM ends it, and
browsers go on where they were once it is back.")]
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
