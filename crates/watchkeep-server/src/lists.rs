//! What there is: groups, keys, and the store as a whole, as JSON.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::access::{Inspect, May, Read, Write};
use crate::entry::CURSOR;
use crate::gate::{Keys, Position};
use crate::headers;
use crate::limits::PAGE;
use crate::openapi::{Fresh, Group, Key, Origin, Paged, WithValues};
use crate::place::Content;
use crate::problem::Problem;
use crate::query::Query;

/// A page of the names of groups.
#[derive(Serialize, ToSchema)]
struct Groups {
    groups: Vec<String>,
    /// Ask again with `after` this name; null on the last page.
    #[schema(required = true)]
    next: Option<String>,
    #[schema(value_type = String)]
    cursor: Position,
}

/// A page of the keys of a group.
#[derive(Serialize, ToSchema)]
struct KeysOf {
    group: String,
    #[schema(value_type = Vec<Key>)]
    keys: Vec<Value>,
    /// Ask again with `after` this name; null on the last page.
    #[schema(required = true)]
    next: Option<String>,
    #[schema(value_type = String)]
    cursor: Position,
}

/// The keys of a group, counted.
#[derive(Serialize, ToSchema)]
struct Count {
    group: String,
    count: u64,
    #[schema(value_type = String)]
    cursor: Position,
}

/// The names of groups, a page of them.
#[utoipa::path(
    get,
    path = "/v1/groups",
    operation_id = "list_groups",
    params(Paged, Fresh),
    security((), ("token" = ["read"])),
    responses((status = 200, body = Groups, description = "A page of groups.", headers(("Watchkeep-Cursor")), links(
        ("keys" = (operation_id = "list_keys", parameters(("group" = "$response.body#/groups/0")))),
        ("next" = (operation_id = "list_groups", parameters(("after" = "$response.body#/next")))),
    )))
)]
pub(crate) async fn groups(May(gate, _): May<Read>, mut query: Query) -> Result<Response, Problem> {
    let prefix = query.take("prefix").unwrap_or_default();
    let (after, limit) = (query.take("after"), limit(&mut query, PAGE)?);
    gate.fresh(query).await?;
    let (page, cursor) = gate.groups(&prefix, after.as_deref(), limit).await?;
    answer(&cursor.clone(), &Groups { groups: page.groups, next: page.next, cursor })
}

/// The keys of a group, a page of them.
#[utoipa::path(
    get,
    path = "/v1/keys",
    operation_id = "list_keys",
    params(Group, Paged, WithValues, Fresh),
    security((), ("token" = ["read"])),
    responses((status = 200, body = KeysOf, description = "A page of keys.", headers(("Watchkeep-Cursor")), links(
        ("entry" = (
            operation_id = "read_entry",
            parameters(("group" = "$response.body#/group"), ("key" = "$response.body#/keys/0/key")),
        )),
        ("next" = (
            operation_id = "list_keys",
            parameters(("group" = "$response.body#/group"), ("after" = "$response.body#/next")),
        )),
    )))
)]
pub(crate) async fn keys(May(gate, _): May<Read>, mut query: Query) -> Result<Response, Problem> {
    let group = query.need("group")?;
    let prefix = query.take("prefix").unwrap_or_default();
    let (after, limit, values) = (query.take("after"), limit(&mut query, PAGE)?, query.flag("values")?);
    gate.fresh(query).await?;
    let Keys { keys, next, position } = gate.keys(&group, prefix, after, limit, values).await?;
    answer(&position.clone(), &KeysOf { group, keys, next, cursor: position })
}

/// How many keys a group holds.
#[utoipa::path(
    get,
    path = "/v1/group",
    operation_id = "count_group",
    params(Group, Fresh),
    security((), ("token" = ["read"])),
    responses((status = 200, body = Count, description = "Its keys, counted.", headers(("Watchkeep-Cursor"))))
)]
pub(crate) async fn group(May(gate, _): May<Read>, mut query: Query) -> Result<Response, Problem> {
    let group = query.need("group")?;
    gate.fresh(query).await?;
    let (count, cursor) = gate.count(&group).await?;
    answer(&cursor.clone(), &Count { group, count, cursor })
}

/// Deletes a group with all its keys.
#[utoipa::path(
    delete,
    path = "/v1/group",
    operation_id = "delete_group",
    params(Group, Origin),
    security((), ("token" = ["write"])),
    responses((status = 200, body = Count, description = "The keys that it held, counted.", headers(("Watchkeep-Cursor"))))
)]
pub(crate) async fn delete_group(
    May(gate, _): May<Write>,
    mut query: Query,
    headers: HeaderMap,
    content: Content,
) -> Result<Response, Problem> {
    content.refuse()?;
    let group = query.need("group")?;
    query.end()?;
    let gate = gate.labelled(headers::label(&headers)?.as_deref());
    let (count, cursor) = gate.delete_group(group.clone()).await?;
    answer(&cursor.clone(), &Count { group, count, cursor })
}

/// Counts and sizes of the store: the fields of `watchkeep stats --json`.
#[utoipa::path(
    get,
    path = "/v1/stats",
    operation_id = "stats",
    params(Fresh),
    security((), ("token" = ["inspect"])),
    responses((status = 200, body = HashMap<String, Value>, description = "One object.", headers(("Watchkeep-Cursor"))))
)]
pub(crate) async fn stats(May(gate, _): May<Inspect>, query: Query) -> Result<Response, Problem> {
    gate.fresh(query).await?;
    let (stats, position) = gate.stats().await?;
    answer(&position, &stats)
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

fn answer(position: &Position, page: &impl Serialize) -> Result<Response, Problem> {
    let headers: [(HeaderName, String); 4] = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (CACHE_CONTROL, "private, no-cache".to_owned()),
        (VARY, "Authorization".to_owned()),
        (CURSOR, position.to_string()),
    ];
    let json = serde_json::to_vec(page).map_err(watchkeep::Error::abort)?;
    Ok((StatusCode::OK, headers, json).into_response())
}
