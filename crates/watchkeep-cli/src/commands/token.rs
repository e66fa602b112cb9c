//! `token`: who may use the store over the network.

use serde_json::{Value as Json, json};
use watchkeep::json::timestamp;
use watchkeep::{ErrorKind, Options, Store};
use watchkeep_server::{Access as Tokens, Grant, Rights, Token};

use super::{Access, open};
use crate::args::{Global, NewToken, TokenAction};
use crate::exit::{Failure, NOT_FOUND, Result, USAGE};
use crate::output::{self, Out, style};

pub(super) fn token(global: &Global, action: TokenAction, out: &mut Out) -> Result<()> {
    match action {
        TokenAction::Create(args) => create(global, args, out),
        TokenAction::List => list(global, out),
        TokenAction::Revoke { id } => revoke(global, &id),
    }
}

/// The tokens that there are; none where nobody ever made one.
fn tokens(global: &Global, store: &Store) -> Result<Option<Tokens>> {
    match Tokens::open_with(store, Options::new().create(false).network(global.network)) {
        Ok(tokens) => Ok(Some(tokens)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn create(global: &Global, args: NewToken, out: &mut Out) -> Result<()> {
    let NewToken { read, write, watch, inspect, ttl, label } = args;
    let rights = Rights { read, write, watch, inspect };
    if rights.is_none() {
        let what = "a token needs one right at least: --read, --write, --watch or --inspect";
        return Err(Failure::new(USAGE, what));
    }
    let mut grant = Grant::new(rights);
    if let Some(namespace) = &global.namespace {
        grant = grant.namespace(namespace);
    }
    if let Some(ttl) = ttl {
        grant = grant.ttl(ttl);
    }
    if let Some(label) = label {
        grant = grant.label(label);
    }
    let store = open(global, Access::Write)?;
    let created = Tokens::open_with(&store, Options::new().network(global.network))?.create(grant)?;
    if !out.is_json() {
        return out.line(created.secret());
    }
    let mut object = object(&created.token);
    if let Some(object) = object.as_object_mut() {
        object.insert("token".to_owned(), created.secret().into());
    }
    out.object(&object)
}

fn list(global: &Global, out: &mut Out) -> Result<()> {
    let store = open(global, Access::Read)?;
    let Some(tokens) = tokens(global, &store)? else { return Ok(()) };
    let ours = |token: &Token| global.namespace.is_none() || token.namespace == global.namespace;
    for token in tokens.list()?.into_iter().filter(ours) {
        if out.is_json() {
            out.object(&object(&token))?;
        } else {
            let id = out.paint(style::BOLD, &token.id).to_string();
            out.line(format!("{id}  {}", in_words(&token)))?;
        }
    }
    Ok(())
}

fn revoke(global: &Global, id: &str) -> Result<()> {
    let store = open(global, Access::Change)?;
    let ours =
        |token: &Token| token.id == id && (global.namespace.is_none() || token.namespace == global.namespace);
    if let Some(tokens) = tokens(global, &store)?
        && tokens.list()?.iter().any(ours)
        && tokens.revoke(id)?
    {
        return Ok(());
    }
    let what = "there is no such token; `watchkeep token list` shows the ids";
    Err(Failure::new(NOT_FOUND, what))
}

fn object(token: &Token) -> Json {
    json!({
        "id": token.id,
        "namespace": token.namespace,
        "rights": token.rights.names(),
        "created": timestamp(token.created),
        "expires": token.expires.map(timestamp),
        "label": token.label,
    })
}

fn in_words(token: &Token) -> String {
    let place = match &token.namespace {
        Some(namespace) => format!("namespace {namespace}"),
        None => "the whole store".to_owned(),
    };
    let end = token.expires.map_or_else(|| "never ends".to_owned(), |at| format!("ends {}", timestamp(at)));
    let label =
        token.label.as_deref().map(|label| format!(", {}", output::visible(label))).unwrap_or_default();
    format!("{}, on {place}, {end}{label}", token.rights)
}
