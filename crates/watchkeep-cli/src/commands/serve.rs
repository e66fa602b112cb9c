//! `serve`: the store on the network.

use std::io;

use serde_json::json;
use watchkeep::Options;
use watchkeep_server::{
    Access as Tokens, Descriptors, Limit, Limits, Listen, Server, Tls, may_listen, raise_descriptors,
};

use super::{Access, open_with, signals};
use crate::args::{Global, Serve};
use crate::exit::{FAILURE, Failure, Result, USAGE};
use crate::output::{Out, warn};

pub(super) fn serve(global: &Global, args: &Serve, out: &mut Out) -> Result<()> {
    let options = match args.durability {
        Some(how) => Options::new().durability(how.into()),
        None => Options::new(),
    };
    let tls = tls(args)?;
    // Before the default limits are made: they depend on it.
    let descriptors = raise_descriptors();
    let limits = limits(&args.transport.limit, descriptors)?;
    let store = open_with(global, Access::Write, options.clone())?;
    let tokens = Tokens::open_with(&store, Options::new().network(global.network))?;
    if args.exposure.require_token {
        tokens.require_tokens()?;
    }
    let is_guarded = tokens.is_guarded();
    let has_tokens = !tokens.list()?.is_empty();
    may_listen(&args.listen, tls.is_some(), is_guarded, args.exposure.insecure_listen)
        .map_err(|what| Failure::new(USAGE, what))?;
    // One thread: while one core is enough, it serves more clients than several would.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(FAILURE, format!("the server cannot start: {error}")))?;
    let refused = |error| refused(&args.listen, &error);
    runtime.block_on(async {
        let server = Server::bind_anywhere(&store, &args.listen).await.map_err(refused)?;
        let server = server.ask_for_tokens(tokens).hosts(args.exposure.host.iter().cloned());
        let server = server.pages(args.exposure.cors_origin.iter().cloned());
        let server = server.trusted_proxies(args.exposure.trusted_proxy.iter().copied());
        let again = global.clone();
        let server = server.reopen_with(move || {
            open_with(&again, Access::Change, options.clone()).map_err(|error| error.to_string())
        });
        let fingerprint = tls.as_ref().map(Tls::fingerprint);
        let server = server.limits(limits.clone());
        let server = match tls {
            Some(tls) => server.tls(tls),
            None => server,
        };
        let (closer, drain) = (server.closer(), args.drain);
        signals::on_end(move || closer.drain(drain))?;
        if !is_guarded {
            warn("nobody is asked who they are; `watchkeep token create` makes the first token");
        } else if !has_tokens {
            warn("there is no token, so nobody gets in; `watchkeep token create` makes one");
        }
        say(&server.url(), fingerprint, &limits, descriptors, out)?;
        out.flush()?;
        server.run().await;
        Ok(())
    })
}

/// The limits that are asked for, each once, and no more connections than there are descriptors for.
fn limits(asked: &[(Limit, u64)], descriptors: Descriptors) -> Result<Limits> {
    let most = Limits::default().get(Limit::Connections);
    let refuse = |what| Err(Failure::new(USAGE, what));
    for (at, (limit, value)) in asked.iter().enumerate() {
        if asked.iter().take(at).any(|(before, _)| before == limit) {
            return refuse(format!("--limit {limit} is there twice; give it once"));
        }
        if *limit == Limit::Connections && *value > most {
            let now = descriptors.now;
            return refuse(format!(
                "--limit {limit}={value} is more than this process has descriptors for ({now}); give {most} at the most, \
                 or raise the hard limit first (ulimit -Hn)"
            ));
        }
    }
    let connections = asked.iter().find(|(limit, _)| *limit == Limit::Connections);
    let defaults = Limits::of_connections(connections.map_or(most, |(_, value)| *value));
    let limits = asked.iter().fold(defaults, |all, (limit, value)| all.with(*limit, *value));
    let [flight, body] = [Limit::BytesInFlight, Limit::BodyBytes].map(|limit| (limit, limits.get(limit)));
    if flight.1 < body.1 {
        let is_asked = |wanted: Limit| asked.iter().any(|(limit, _)| *limit == wanted);
        let instead = if is_asked(body.0) {
            format!("give {} at the least, or a smaller {}", body.1, body.0)
        } else {
            format!(
                "give {} at the least, or a smaller body as well: --limit {}={}",
                body.1, body.0, flight.1
            )
        };
        return refuse(format!(
            "{}={} leaves no room for one body of {}={}; {instead}",
            flight.0, flight.1, body.0, body.1
        ));
    }
    Ok(limits)
}

/// Says where the server is, and what it is bound to.
fn say(
    url: &str,
    fingerprint: Option<String>,
    limits: &Limits,
    descriptors: Descriptors,
    out: &mut Out,
) -> Result<()> {
    let Descriptors { before, now, .. } = descriptors;
    if out.is_json() {
        let all: serde_json::Map<_, _> =
            Limit::ALL.iter().map(|limit| (limit.name().to_owned(), limits.get(*limit).into())).collect();
        return out.object(&json!({
            "url": url,
            "certificate": fingerprint,
            "limits": all,
            "descriptors": { "before": before, "now": now },
        }));
    }
    let raised = if now == before { String::new() } else { format!(", raised from {before}") };
    warn(format!("limits {limits} ({now} descriptors{raised})"));
    if let Some(fingerprint) = fingerprint {
        warn(format!("its certificate is {fingerprint}"));
    }
    out.line(url)
}

/// What the server speaks TLS with, if it does.
fn tls(args: &Serve) -> Result<Option<Tls>> {
    let tls = match (&args.transport.tls_cert, &args.transport.tls_key) {
        (Some(certificate), Some(key)) => Tls::from_files(certificate, key),
        _ if args.transport.tls_self => Tls::self_signed(args.exposure.host.iter().map(ToString::to_string)),
        _ => return Ok(None),
    };
    let tls = tls.map_err(|error| Failure::new(FAILURE, error.to_string()))?;
    if matches!(args.listen, Listen::Unix(_)) {
        let what =
            format!("{} is on this machine and needs no TLS; leave the --tls options out", args.listen);
        return Err(Failure::new(FAILURE, what));
    }
    Ok(Some(tls))
}

fn refused(listen: &Listen, error: &io::Error) -> Failure {
    let what = match (error.kind(), listen) {
        (io::ErrorKind::AddrInUse, Listen::Tcp(_)) => {
            format!("{listen} is in use; name another with --listen, such as 127.0.0.1:0 for a free port")
        }
        (io::ErrorKind::AddrInUse, Listen::Unix(_)) => {
            format!("{listen} is in use; end the server there, or name another socket with --listen")
        }
        (io::ErrorKind::AlreadyExists, Listen::Unix(_)) => {
            format!(
                "{listen} cannot be listened on: {error}; move it away, or name another socket with --listen"
            )
        }
        _ => format!("{listen} cannot be listened on: {error}; name another with --listen"),
    };
    Failure::new(FAILURE, what)
}
