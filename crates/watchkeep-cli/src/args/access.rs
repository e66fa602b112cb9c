//! Who may use a store that is on the network.

use std::time::Duration;

use clap::{Args, Subcommand};
use watchkeep_server::{HostName, PageOrigin, ProxyNet};

use crate::time::parse_duration;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep token create --read --watch --label dashboard
  watchkeep --namespace tenant-42 token create --read --write --ttl 30d
  watchkeep token list
  watchkeep token revoke 3f9a1c07b2e4d5a6

  curl -H \"Authorization: Bearer $TOKEN\" 'http://127.0.0.1:7460/v1/groups'

Once a token was made, `watchkeep serve` answers nobody without one. Tokens lie beside the
store, in FILE-access, as hashes only: what `create` prints is not to be had again. They
are bound to the store's identity, so a store that is restored from a backup needs new ones.
Exit codes: 2 without a right, 3 where there is no such token.")]
pub(crate) struct Token {
    #[command(subcommand)]
    pub(crate) action: TokenAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Make a token, and print it, this once; at least one right is needed
    Create(NewToken),
    /// List the tokens: their ids, rights and ends
    List,
    /// End a token, and at once the streams that were begun with it
    Revoke {
        /// The token's id, as `token list` shows it
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NewToken {
    /// It may read entries, lists and pages of the change log
    #[arg(long)]
    pub(crate) read: bool,
    /// It may set, touch and delete
    #[arg(long)]
    pub(crate) write: bool,
    /// It may watch, which shows values, and what is there as well
    #[arg(long)]
    pub(crate) watch: bool,
    /// It may see counts and sizes
    #[arg(long)]
    pub(crate) inspect: bool,
    /// It ends after this time, like 90s, 12h or 30d; never, unless given
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) ttl: Option<Duration>,
    /// Whose it is, for `token list`
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,
}

/// How a server is reached from elsewhere.
#[derive(Debug, Args)]
pub(crate) struct Exposure {
    /// Answer under this name too, besides localhost and the address itself; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Vec<HostName>,
    /// Let nobody in without a token, even before the first is made or where the file of the tokens was lost
    #[arg(long)]
    pub(crate) require_token: bool,
    /// Listen where other machines reach it, although there are no tokens or no TLS
    #[arg(long)]
    pub(crate) insecure_listen: bool,
    /// Let pages of this origin use it from a browser, such as https://app.example.com; may be given more than once
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) cors_origin: Vec<PageOrigin>,
    /// Believe a proxy at this address, or in this net, for whom it asks (X-Forwarded-For); may be given more than once
    #[arg(long, value_name = "NET")]
    pub(crate) trusted_proxy: Vec<ProxyNet>,
}
