//! `/v1/groups`, `/v1/keys`, `/v1/group` and `/v1/stats`: what is there.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use watchkeep::json::{insert_value, timestamp};
use watchkeep::{Entry, ListOptions};

use crate::entry;
use crate::gate::Gate;
use crate::limits::MAX_PAGE;
use crate::problem::Problem;
use crate::query::Query;

/// How many of a list, at the most.
fn limit(query: &mut Query) -> Result<usize, Problem> {
    let Some(text) = query.take("limit") else { return Ok(MAX_PAGE) };
    match text.parse() {
        Ok(limit) if (1..=MAX_PAGE).contains(&limit) => Ok(limit),
        _ => Err(Problem::bad(format!("limit={text:?} is not a number from 1 to {MAX_PAGE}"))),
    }
}

pub(crate) async fn groups(State(gate): State<Gate>, mut query: Query) -> Result<Json<Value>, Problem> {
    let (prefix, after) = (query.take("prefix").unwrap_or_default(), query.take("after"));
    let limit = limit(&mut query)?;
    query.end()?;
    let (groups, next) = gate.groups(prefix, after, limit).await?;
    Ok(Json(json!({ "groups": groups, "next": next })))
}

pub(crate) async fn keys(State(gate): State<Gate>, mut query: Query) -> Result<Json<Value>, Problem> {
    let group = query.need("group")?;
    let mut options = ListOptions::new().limit(limit(&mut query)?);
    if let Some(prefix) = query.take("prefix") {
        options = options.prefix(prefix);
    }
    if let Some(after) = query.take("after") {
        options = options.after(after);
    }
    let values = query.flag("values")?;
    query.end()?;
    let page = gate.keys(&group, options).await?;
    let at = gate.position(page.revision).to_string();
    let keys: Vec<_> = page.entries.iter().map(|entry| object(&gate, entry, values)).collect();
    Ok(Json(json!({ "keys": keys, "next": page.next, "cursor": at })))
}

/// An entry as an object, in the words of an event.
fn object(gate: &Gate, entry: &Entry, values: bool) -> Value {
    let mut object = Map::new();
    object.insert("key".into(), entry.key.as_str().into());
    object.insert("cursor".into(), gate.position(entry.revision).to_string().into());
    if values {
        insert_value(&mut object, "value", &entry.value);
    } else {
        object.insert("value_bytes".into(), entry.value.len().into());
    }
    object.insert("updated".into(), timestamp(entry.updated).into());
    if let Some(deadline) = entry.deadline {
        object.insert("deadline".into(), timestamp(deadline).into());
    }
    if let Some(content_type) = &entry.content_type {
        object.insert("content_type".into(), content_type.as_str().into());
    }
    object.into()
}

pub(crate) async fn group(State(gate): State<Gate>, mut query: Query) -> Result<Json<Value>, Problem> {
    let group = query.need("group")?;
    query.end()?;
    match gate.count(&group).await? {
        0 => Err(no_group(&group)),
        keys => Ok(Json(json!({ "group": group, "keys": keys }))),
    }
}

pub(crate) async fn delete_group(
    State(gate): State<Gate>,
    mut query: Query,
    headers: axum::http::HeaderMap,
) -> Result<Response, Problem> {
    let group = query.need("group")?;
    query.end()?;
    let (keys, position) = gate.labelled(entry::label(&headers)?).delete_group(group.clone()).await?;
    if keys == 0 {
        return Err(no_group(&group));
    }
    let mut response = Json(json!({ "group": group, "keys": keys })).into_response();
    entry::stamp(response.headers_mut(), &position)?;
    Ok(response)
}

pub(crate) async fn stats(State(gate): State<Gate>, query: Query) -> Result<Json<Value>, Problem> {
    query.end()?;
    let stats = gate.stats().await?;
    Ok(Json(json!({
        "store": stats.store.as_str(),
        "cursor": gate.position(stats.last_revision).to_string(),
        "entries": stats.entries,
        "groups": stats.groups,
        "bytes": stats.bytes,
        "log_events": stats.log_events,
        "log_bytes": stats.log_bytes,
        "next_deadline": stats.next_deadline.map(timestamp),
        "streams": gate.streams(),
    })))
}

fn no_group(group: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", format!("there is no group {group:?}"))
}
