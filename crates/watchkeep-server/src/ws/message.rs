//! What a client says: one JSON object a message. Its fields are those of the queries, under the same rules.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use crate::access::{Secret, Sort};
use crate::gate::{Condition, Put};
use crate::headers;
use crate::limits::MAX_ID;
use crate::problem::Problem;
use crate::query::{self, Query};
use crate::subscription::Wanted;

use super::original::{self, Original};

/// The client's name for a subscription or a request.
pub(super) type Id = std::sync::Arc<str>;

/// What a client asks for.
#[derive(Debug)]
pub(super) enum Asked {
    /// Says who asks; none for what is no token.
    Auth(Id, Option<Secret>),
    Subscribe(Id, Wanted),
    Unsubscribe(Id),
    Set(Id, Put),
    Delete {
        id: Id,
        group: String,
        key: String,
        condition: Condition,
    },
    /// Something in the original's form.
    Original(Original),
}

/// Why a message is refused, and whose it is, where that is known.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) id: Option<Id>,
    pub(super) problem: Problem,
}

/// Every field that a message may have. All are plain texts, so that a message costs its own size and no more.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(rename = "type")]
    kind: String,
    id: Option<String>,
    group: Option<String>,
    group_prefix: Option<String>,
    key: Option<String>,
    key_prefix: Option<String>,
    any: Option<String>,
    kinds: Option<String>,
    group_deletions: Option<String>,
    exclude_origin: Option<String>,
    values: Option<String>,
    after: Option<String>,
    snapshot: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    content_type: Option<String>,
    ttl: Option<String>,
    keep_ttl: Option<bool>,
    if_match: Option<String>,
    if_none_match: Option<String>,
    token: Option<String>,
    /// Of the original's form, as the two that follow.
    channel: Option<String>,
    data: Option<String>,
    timestamp: Option<String>,
}

/// What is still looked for in a message that makes no sense.
#[derive(Deserialize)]
struct OnlyId {
    id: Option<String>,
}

/// Reads a message.
///
/// # Errors
///
/// When it is none of those that docs/wire.md knows.
pub(super) fn read(text: &str) -> Result<Asked, Refused> {
    let bare = |detail: String| Refused { id: None, problem: Problem::bad(detail) };
    // Fields have names: in a list they would be read in their order here.
    if !text.trim_start().starts_with('{') {
        return Err(bare("a message is one JSON object".to_owned()));
    }
    let raw: Raw = serde_json::from_str(text).map_err(|error| {
        let known = serde_json::from_str(text).ok().and_then(|only: OnlyId| only.id);
        let id = known.filter(|id| id.len() <= MAX_ID).map(Id::from);
        Refused { id, problem: Problem::bad(format!("the message is not one of this protocol: {error}")) }
    })?;
    let Some(id) = &raw.id else {
        let channel = raw.channel.as_deref().or(raw.data.as_deref());
        return match original::read(&raw.kind, channel) {
            Some(original) => Ok(Asked::Original(original)),
            None => Err(bare("the message has no id; give each one that tells it apart".to_owned())),
        };
    };
    if id.is_empty() || id.len() > MAX_ID {
        return Err(bare(format!("an id has 1 to {MAX_ID} bytes, this one {}", id.len())));
    }
    let id = Id::from(id.as_str());
    asked(id.clone(), raw).map_err(|problem| Refused { id: Some(id), problem })
}

fn asked(id: Id, raw: Raw) -> Result<Asked, Problem> {
    let mut query = Query::of([
        ("group", raw.group),
        ("group_prefix", raw.group_prefix),
        ("key", raw.key),
        ("key_prefix", raw.key_prefix),
        ("any", raw.any),
        ("kinds", raw.kinds),
        ("group_deletions", raw.group_deletions),
        ("exclude_origin", raw.exclude_origin),
        ("values", raw.values),
        ("after", raw.after),
        ("snapshot", raw.snapshot),
        ("value", raw.value),
        ("value_base64", raw.value_base64),
        ("content_type", raw.content_type),
        ("ttl", raw.ttl),
        ("keep_ttl", raw.keep_ttl.map(|keep| keep.to_string())),
        ("if_match", raw.if_match),
        ("if_none_match", raw.if_none_match),
        ("token", raw.token),
        ("channel", raw.channel),
        ("data", raw.data),
        ("timestamp", raw.timestamp),
    ]);
    let asked = match raw.kind.as_str() {
        "auth" => Asked::Auth(id, Secret::read(Sort::Token, &query.need("token")?)),
        "subscribe" => Asked::Subscribe(id, query::wanted(&mut query)?),
        "unsubscribe" => Asked::Unsubscribe(id),
        "set" => Asked::Set(id, put(&mut query)?),
        "delete" => {
            let (group, key) = (query.need("group")?, query.need("key")?);
            let condition =
                query.take("if_match").map_or(Condition::Always, |at| Condition::OneOf(vec![at.into()]));
            Asked::Delete { id, group, key, condition }
        }
        other => {
            let known = "auth, subscribe, unsubscribe, set and delete";
            return Err(Problem::bad(format!("there is no message of type {other:?}; there are {known}")));
        }
    };
    query.end()?;
    Ok(asked)
}

fn put(query: &mut Query) -> Result<Put, Problem> {
    let (group, key) = (query.need("group")?, query.need("key")?);
    let value = match (query.take("value"), query.take("value_base64")) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(text)) => BASE64_STANDARD
            .decode(text)
            .map_err(|error| Problem::bad(format!("value_base64 is not base64 with padding: {error}")))?,
        _ => return Err(Problem::bad("a set takes either value or value_base64")),
    };
    let content_type = query.take("content_type");
    let content_type = content_type.map(|kind| headers::content_type(kind.as_bytes())).transpose()?;
    let ttl = query::ttl(query)?;
    let condition = match (query.take("if_match"), query.take("if_none_match").as_deref()) {
        (None, None) => Condition::Always,
        (None, Some("*")) => Condition::Absent,
        (Some(at), None) => Condition::OneOf(vec![at.into()]),
        _ => return Err(Problem::bad("a set takes one cursor in if_match, or * in if_none_match")),
    };
    Ok(Put { group, key, value, content_type, ttl, condition })
}
