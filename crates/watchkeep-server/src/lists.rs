//! What there is: groups, keys, and the store as a whole, as JSON.

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::entry::{CURSOR, label};
use crate::gate::{Gate, Keys, Position};
use crate::limits::PAGE;
use crate::place::Content;
use crate::problem::Problem;
use crate::query::Query;

pub(crate) async fn groups(State(gate): State<Gate>, mut query: Query) -> Result<Response, Problem> {
    let prefix = query.take("prefix").unwrap_or_default();
    let (after, limit) = (query.take("after"), limit(&mut query, PAGE)?);
    gate.fresh(query).await?;
    let (page, position) = gate.groups(&prefix, after.as_deref(), limit).await?;
    Ok(answer(
        &json!({ "groups": page.groups, "next": page.next, "cursor": position.to_string() }),
        &position,
    ))
}

pub(crate) async fn keys(State(gate): State<Gate>, mut query: Query) -> Result<Response, Problem> {
    let group = query.need("group")?;
    let prefix = query.take("prefix").unwrap_or_default();
    let (after, limit, values) = (query.take("after"), limit(&mut query, PAGE)?, query.flag("values")?);
    gate.fresh(query).await?;
    let Keys { keys, next, position } = gate.keys(&group, prefix, after, limit, values).await?;
    let page = json!({ "group": group, "keys": keys, "next": next, "cursor": position.to_string() });
    Ok(answer(&page, &position))
}

pub(crate) async fn group(State(gate): State<Gate>, mut query: Query) -> Result<Response, Problem> {
    let group = query.need("group")?;
    gate.fresh(query).await?;
    let (count, position) = gate.count(&group).await?;
    Ok(answer(&json!({ "group": group, "count": count, "cursor": position.to_string() }), &position))
}

pub(crate) async fn delete_group(
    State(gate): State<Gate>,
    mut query: Query,
    headers: HeaderMap,
    content: Content,
) -> Result<Response, Problem> {
    content.refuse()?;
    let group = query.need("group")?;
    query.end()?;
    let gate = gate.labelled(label(&headers)?);
    let (count, position) = gate.delete_group(group.clone()).await?;
    Ok(answer(&json!({ "group": group, "count": count, "cursor": position.to_string() }), &position))
}

pub(crate) async fn stats(State(gate): State<Gate>, query: Query) -> Result<Response, Problem> {
    gate.fresh(query).await?;
    let (stats, position) = gate.stats().await?;
    Ok(answer(&stats, &position))
}

/// How much a page holds: at the most, unless given.
pub(crate) fn limit(query: &mut Query, most: usize) -> Result<usize, Problem> {
    let Some(limit) = query.take("limit") else { return Ok(most) };
    match limit.parse() {
        Ok(limit) if (1..=most).contains(&limit) => Ok(limit),
        _ => Err(Problem::bad(format!(
            "limit={limit:?} is not a number from 1 to {most}; follow next for more"
        ))),
    }
}

fn answer(json: &Value, position: &Position) -> Response {
    let headers: [(HeaderName, String); 4] = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (CACHE_CONTROL, "private, no-cache".to_owned()),
        (VARY, "Authorization".to_owned()),
        (CURSOR, position.to_string()),
    ];
    (StatusCode::OK, headers, json.to_string()).into_response()
}
