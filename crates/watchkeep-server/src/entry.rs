//! `/v1/entry`: one value, raw bytes in and out.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE, VARY,
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
    asked: HeaderMap,
) -> Result<Response, Problem> {
    let (group, key) = (query.need("group")?, query.need("key")?);
    query.end()?;
    let Some(entry) = gate.entry(&group, &key).await? else {
        return Err(no_key(&group, &key));
    };
    let position = gate.position(entry.revision);
    if tags(&asked, IF_NONE_MATCH).any(|tag| tag == "*" || tag == position.to_string()) {
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
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let len = entry.value.len();
    let (from, to) = match range(&asked, len, &position)? {
        None => (0, len),
        Some((from, to)) => {
            headers.insert(CONTENT_RANGE, header(&format!("bytes {from}-{}/{len}", to - 1))?);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            (from, to)
        }
    };
    *response.body_mut() = Bytes::copy_from_slice(entry.value.get(from..to).unwrap_or_default()).into();
    Ok(response)
}

/// The one range that is asked for (RFC 9110, section 14.2), from and up to; none when all is to come: several ranges,
/// another unit, or a range of another version.
fn range(headers: &HeaderMap, len: usize, at: &Position) -> Result<Option<(usize, usize)>, Problem> {
    let asked = text(headers, RANGE)?.and_then(|range| range.strip_prefix("bytes="));
    let (Some(asked), true) = (asked, tags(headers, IF_RANGE).all(|tag| tag == at.to_string())) else {
        return Ok(None);
    };
    let Some((from, to)) = asked.split_once('-') else { return Ok(None) };
    let (from, to) = match (from.parse::<usize>(), to.parse::<usize>()) {
        (Ok(from), Ok(to)) if from <= to => (from, to.saturating_add(1).min(len)),
        (Ok(from), Err(_)) if to.is_empty() => (from, len),
        (Err(_), Ok(last)) if from.is_empty() && last > 0 => (len.saturating_sub(last), len),
        _ => return Ok(None),
    };
    if from >= len {
        let detail = format!("the value has {len} bytes; ask for a range within them");
        return Err(Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "bad_range", detail));
    }
    Ok(Some((from, to)))
}

pub(crate) async fn put(
    State(gate): State<Gate>,
    mut query: Query,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(Problem::from)?;
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
        return Err(no_key(&group, &key));
    }
    answer(StatusCode::NO_CONTENT, &position, None)
}

pub(crate) async fn patch(
    State(gate): State<Gate>,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (group, key) = (query.need("group")?, query.need("key")?);
    let ttl = match (query.duration("ttl")?, query.flag("persist")?) {
        (Some(ttl), false) => Some(ttl),
        (None, true) => None,
        _ => return Err(Problem::bad("give ttl, or persist, and not both")),
    };
    query.end()?;
    let gate = gate.labelled(label(&headers)?);
    let Some(entry) = gate.touch(group.clone(), key.clone(), ttl).await? else {
        return Err(no_key(&group, &key));
    };
    answer(StatusCode::NO_CONTENT, &gate.position(entry.revision), Some(&entry))
}

fn no_key(group: &str, key: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", format!("group {group:?} has no key {key:?}"))
}

/// An answer without a body, with the position that it stands for.
fn answer(status: StatusCode, position: &Position, entry: Option<&Entry>) -> Result<Response, Problem> {
    let mut response = status.into_response();
    let headers = response.headers_mut();
    stamp(headers, position)?;
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(VARY, HeaderValue::from_static("Authorization"));
    if let Some(deadline) = entry.and_then(|entry| entry.deadline) {
        headers.insert(EXPIRES, header(&json::timestamp(deadline))?);
    }
    Ok(response)
}

/// Says what position an answer stands for.
pub(crate) fn stamp(headers: &mut HeaderMap, position: &Position) -> Result<(), Problem> {
    headers.insert(ETAG, header(&format!("\"{position}\""))?);
    headers.insert(CURSOR, header(&position.to_string())?);
    Ok(())
}

fn header(text: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(text).map_err(|error| Problem::bad(error.to_string()))
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

pub(crate) fn label(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    text(headers, HeaderName::from_static(ORIGIN_LABEL))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(&name) else { return Ok(None) };
    value.to_str().map(Some).map_err(|_| Problem::bad(format!("the header {name} is not plain ASCII")))
}
