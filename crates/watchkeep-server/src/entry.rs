//! `/v1/entry`: one value, raw bytes in and out.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, IF_MATCH,
    IF_NONE_MATCH, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use watchkeep::{Entry, json};

use crate::gate::{Condition, Gate, Position, Put, Ttl};
use crate::problem::Problem;
use crate::query::Query;

/// The position of what is answered: the bytes of the `ETag`, without its quotes.
const CURSOR: HeaderName = HeaderName::from_static("watchkeep-cursor");
/// When the entry expires.
const EXPIRES: HeaderName = HeaderName::from_static("watchkeep-expires");
/// A label of the writer's.
const ORIGIN_LABEL: &str = "watchkeep-origin";

/// Types that a browser may show: none of them runs anything.
const PASSIVE: [&str; 6] =
    ["text/plain", "application/json", "image/png", "image/jpeg", "image/gif", "image/webp"];
/// What `curl -d` says of anything: nothing is known of the value then.
const FORM: &str = "application/x-www-form-urlencoded";

pub(crate) async fn get(
    State(gate): State<Gate>,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (group, key) = (query.need("group")?, query.need("key")?);
    query.end()?;
    let Some(entry) = gate.entry(&group, &key).await? else {
        let detail = format!("group {group:?} has no key {key:?}");
        return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", detail));
    };
    let position = gate.position(entry.revision);
    if tags(&headers, IF_NONE_MATCH).any(|tag| tag == "*" || tag == position.to_string()) {
        return answer(StatusCode::NOT_MODIFIED, &position, Some(&entry));
    }
    let mut response = answer(StatusCode::OK, &position, Some(&entry))?;
    let kind = entry.content_type.as_deref().unwrap_or("application/octet-stream");
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_str(kind).unwrap_or(HeaderValue::from_static("application/octet-stream")),
    );
    // A stored value is not a page of ours.
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    let plain = kind.split(';').next().unwrap_or_default().trim();
    if !PASSIVE.contains(&plain) {
        headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    }
    *response.body_mut() = Bytes::from(entry.value.to_vec()).into();
    Ok(response)
}

pub(crate) async fn put(
    State(gate): State<Gate>,
    mut query: Query,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let (group, key) = (query.need("group")?, query.need("key")?);
    let ttl = match (query.duration("ttl")?, query.flag("keep_ttl")?) {
        (None, false) => Ttl::Clear,
        (None, true) => Ttl::Keep,
        (Some(ttl), false) => Ttl::For(ttl),
        (Some(_), true) => return Err(Problem::bad("ttl and keep_ttl exclude each other; give one of them")),
    };
    query.end()?;
    let content_type = text(&headers, CONTENT_TYPE)?.filter(|kind| *kind != FORM).map(str::to_owned);
    let condition = condition(&headers)?;
    let gate = gate.labelled(label(&headers)?);
    let position = gate.put(Put { group, key, value: body.to_vec(), content_type, ttl, condition }).await?;
    answer(StatusCode::NO_CONTENT, &position, None)
}

pub(crate) async fn delete(
    State(gate): State<Gate>,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (group, key) = (query.need("group")?, query.need("key")?);
    query.end()?;
    let condition = condition(&headers)?;
    let gate = gate.labelled(label(&headers)?);
    let (was_there, position) = gate.delete(group.clone(), key.clone(), condition).await?;
    if !was_there {
        let detail = format!("group {group:?} has no key {key:?}");
        return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", detail));
    }
    answer(StatusCode::NO_CONTENT, &position, None)
}

/// An answer without a body, with the position that it stands for.
fn answer(status: StatusCode, position: &Position, entry: Option<&Entry>) -> Result<Response, Problem> {
    let value = |text: &str| HeaderValue::from_str(text).map_err(|error| Problem::bad(error.to_string()));
    let mut response = status.into_response();
    let headers = response.headers_mut();
    headers.insert(ETAG, value(&format!("\"{position}\""))?);
    headers.insert(CURSOR, value(&position.to_string())?);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(VARY, HeaderValue::from_static("Authorization"));
    if let Some(deadline) = entry.and_then(|entry| entry.deadline) {
        headers.insert(EXPIRES, value(&json::timestamp(deadline))?);
    }
    Ok(response)
}

fn condition(headers: &HeaderMap) -> Result<Condition, Problem> {
    let mut matches = tags(headers, IF_MATCH);
    let mut others = tags(headers, IF_NONE_MATCH);
    match (matches.next(), matches.next(), others.next(), others.next()) {
        (None, _, None, _) => Ok(Condition::Always),
        (None, _, Some("*"), None) => Ok(Condition::Absent),
        (Some(tag), None, None, _) if tag != "*" => Ok(Condition::At(tag.to_owned().into())),
        _ => Err(Problem::bad("a write takes one cursor in If-Match, or * in If-None-Match")),
    }
}

/// The entity tags of a header. One that a proxy made weak by compressing what it passed on is still ours.
fn tags(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lists = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(|tag| {
        let tag = tag.trim();
        tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"')
    })
}

fn label(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    text(headers, HeaderName::from_static(ORIGIN_LABEL))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(&name) else { return Ok(None) };
    value.to_str().map(Some).map_err(|_| Problem::bad(format!("the header {name} is not plain ASCII")))
}
