//! `/v1/entry`: one value, raw bytes in and out.

use axum::body::Bytes;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    ETAG, HeaderName, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;
use watchkeep::{Entry, json};

use crate::access::{May, Read, Write};
use crate::conditions;
use crate::gate::{Gates, Position, Put, unmet};
use crate::headers;
use crate::openapi::{ENTRY, Fresh, IfAbsent, IfMatch, Known, Lifetime, Names, NewLifetime, Origin};
use crate::place::{Content, Place};
use crate::problem::Problem;
use crate::query;
use crate::range::{self, Part};

/// The position of what is answered: the bytes of the `ETag`, without its quotes.
pub(crate) const CURSOR: HeaderName = HeaderName::from_static("watchkeep-cursor");
/// When the entry expires.
const EXPIRES: HeaderName = HeaderName::from_static("watchkeep-expires");

pub(crate) fn routes() -> UtoipaMethodRouter<Gates> {
    routes!(get, put, patch, delete)
}

/// Reads an entry.
#[utoipa::path(
    method(get, head),
    path = ENTRY,
    operation_id = "read_entry",
    params(Names, Fresh, IfMatch, Known),
    security((), ("token" = ["read"])),
    responses(
        (status = 200, description = "The bytes of the value.", content_type = "*/*", headers(
            ("ETag"), ("Watchkeep-Cursor"), ("Watchkeep-Expires", description = "When it expires (RFC 3339), if it does."),
        )),
        (status = 206, description = "The bytes of the range.", content_type = "*/*"),
        (status = 304, description = "It stands at a cursor of If-None-Match."),
    )
)]
async fn get(
    May(gate, _): May<Read>,
    method: Method,
    Place { group, key, query }: Place,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    gate.fresh(query).await?;
    let entry = gate.entry(&group, &key).await?;
    if !gate.holds(&conditions::if_match(&headers), entry.as_ref()) {
        return Err(unmet(&group, &key));
    }
    let Some(entry) = entry else { return Err(missing(&group, &key)) };
    let position = gate.position(entry.revision);
    if conditions::is_known(&headers, &position) {
        return answer(StatusCode::NOT_MODIFIED, &position, Some(&entry));
    }
    // Ranges are defined for GET alone.
    let part =
        if method == Method::GET { range::of(&headers, &position, entry.value.len()) } else { Part::Whole };
    let whole = Bytes::from_owner(entry.value.clone());
    let (status, span, bytes) = match part {
        Part::Whole => (StatusCode::OK, None, whole),
        Part::Bytes(first, last) => {
            let span = format!("bytes {first}-{last}/{}", whole.len());
            (StatusCode::PARTIAL_CONTENT, Some(span), whole.slice(first..=last))
        }
        Part::Nowhere => return nowhere(whole.len()),
    };
    let mut response = answer(status, &position, Some(&entry))?;
    let kind = entry.content_type.as_deref().unwrap_or("application/octet-stream");
    let head = response.headers_mut();
    head.insert(
        CONTENT_TYPE,
        HeaderValue::from_str(kind).unwrap_or(HeaderValue::from_static("application/octet-stream")),
    );
    head.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(span) = span {
        head.insert(CONTENT_RANGE, value(&span)?);
    }
    // A stored value is not a page of ours.
    head.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    if !headers::is_passive(kind) {
        head.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    }
    *response.body_mut() = bytes.into();
    Ok(response)
}

/// Sets an entry.
#[utoipa::path(
    put,
    path = ENTRY,
    operation_id = "set_entry",
    params(Names, Lifetime, IfMatch, IfAbsent, Origin),
    security((), ("token" = ["write"])),
    request_body(content_type = "*/*", description = "The value, up to 16 MiB. Its type is kept."),
    responses((status = 204, description = "It is set.", headers(("ETag"), ("Watchkeep-Cursor"))))
)]
async fn put(
    May(gate, _): May<Write>,
    Place { group, key, mut query }: Place,
    headers: HeaderMap,
    Content(value): Content,
) -> Result<Response, Problem> {
    let ttl = query::ttl(&mut query)?;
    query.end()?;
    let content_type = headers::type_of_body(&headers)?;
    let condition = conditions::of_write(&headers)?;
    // The file may have been replaced while the body came.
    let gate = gate.current().await?.labelled(headers::label(&headers)?.as_deref());
    let position = gate.put(Put { group, key, value, content_type, ttl, condition }).await?;
    answer(StatusCode::NO_CONTENT, &position, None)
}

/// Gives an entry a new time to live, or takes it away. One of the two is needed.
#[utoipa::path(
    patch,
    path = ENTRY,
    operation_id = "touch_entry",
    params(Names, NewLifetime, IfMatch, Origin),
    security((), ("token" = ["write"])),
    responses((status = 204, description = "It has a new time to live, or none.", headers(
        ("ETag", description = "Where its value stands, as before."),
        ("Watchkeep-Cursor", description = "Where the store stands after it."),
        ("Watchkeep-Expires"),
    )))
)]
async fn patch(
    May(gate, _): May<Write>,
    Place { group, key, mut query }: Place,
    headers: HeaderMap,
    content: Content,
) -> Result<Response, Problem> {
    content.refuse()?;
    let ttl = match (query.duration("ttl")?, query.flag("persist")?) {
        (Some(ttl), false) => Some(ttl),
        (None, true) => None,
        _ => {
            return Err(Problem::bad("give either ttl, a new time to live, or persist, which takes it away"));
        }
    };
    query.end()?;
    let condition = conditions::of_write(&headers)?;
    let gate = gate.current().await?.labelled(headers::label(&headers)?.as_deref());
    let touched = gate.touch(group.clone(), key.clone(), ttl, condition).await?;
    let Some(touched) = touched else { return Err(missing(&group, &key)) };
    // The value stays, and with it its tag; the cursor is that of the new deadline.
    let tag = gate.position(touched.entry.revision);
    let mut response = answer(StatusCode::NO_CONTENT, &tag, Some(&touched.entry))?;
    response.headers_mut().insert(CURSOR, value(&touched.position.to_string())?);
    Ok(response)
}

/// Deletes an entry.
#[utoipa::path(
    delete,
    path = ENTRY,
    operation_id = "delete_entry",
    params(Names, IfMatch, Origin),
    security((), ("token" = ["write"])),
    responses((status = 204, description = "It is deleted.", headers(("ETag"), ("Watchkeep-Cursor"))))
)]
async fn delete(
    May(gate, _): May<Write>,
    Place { group, key, query }: Place,
    headers: HeaderMap,
    content: Content,
) -> Result<Response, Problem> {
    content.refuse()?;
    query.end()?;
    let condition = conditions::of_write(&headers)?;
    let gate = gate.current().await?.labelled(headers::label(&headers)?.as_deref());
    let (was_there, position) = gate.delete(group.clone(), key.clone(), condition).await?;
    if was_there { answer(StatusCode::NO_CONTENT, &position, None) } else { Err(missing(&group, &key)) }
}

fn missing(group: &str, key: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", format!("group {group:?} has no key {key:?}"))
}

/// The range that was asked for lies behind the value.
fn nowhere(len: usize) -> Result<Response, Problem> {
    let detail = format!("the value has {len} bytes, and none of them lie in that range");
    let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", detail);
    let mut response = problem.into_response();
    response.headers_mut().insert(CONTENT_RANGE, value(&format!("bytes */{len}"))?);
    Ok(response)
}

/// An answer without a body, with the position that it stands for.
fn answer(status: StatusCode, position: &Position, entry: Option<&Entry>) -> Result<Response, Problem> {
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

fn value(text: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(text).map_err(|error| Problem::bad(error.to_string()))
}
