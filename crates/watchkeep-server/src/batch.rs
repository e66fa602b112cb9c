//! `/v1/batch`: several entries at once, all or nothing.

use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use utoipa::ToSchema;

use crate::access::{May, Write};
use crate::entry::CURSOR;
use crate::headers;
use crate::openapi::Origin;
use crate::place::Content;
use crate::problem::Problem;
use crate::query::Query;

/// What a batch did.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is declared for the document; the library writes it")]
struct Applied {
    /// The revision of its last event; of the store, when it changed nothing.
    revision: u64,
    /// The same as a cursor.
    cursor: String,
    /// What each operation did, in their order: `{"set":CURSOR}`, `{"was":true}` or `{"keys":3}`.
    outcomes: Vec<serde_json::Value>,
    /// Whether it had been applied before, under the same id, and nothing was done now.
    repeated: bool,
}

/// Several entries at once, all or nothing, under conditions.
#[utoipa::path(
    post,
    path = "/v1/batch",
    operation_id = "apply_batch",
    params(Origin),
    security((), ("token" = ["write"])),
    request_body(
        content = Object, content_type = "application/json",
        description = "`id`, `require` and `operations`, as docs/wire.md has them.",
    ),
    responses((status = 200, body = Applied, description = "It is applied.", headers(("Watchkeep-Cursor"))))
)]
pub(crate) async fn apply(
    May(gate, _): May<Write>,
    query: Query,
    headers: HeaderMap,
    Content(body): Content,
) -> Result<Response, Problem> {
    query.end()?;
    headers::needs_json(&headers, "the batch as a JSON object")?;
    let text = std::str::from_utf8(&body).map_err(|_| Problem::bad("the body is not UTF-8"))?;
    let batch = watchkeep::json::batch(text)?;
    // The file may have been replaced while the body came.
    let gate = gate.current().await?.labelled(headers::label(&headers)?.as_deref());
    let (applied, position) = gate.apply(batch).await?;
    let head =
        [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store"), (CURSOR, &position.to_string())];
    Ok((head, applied.to_string()).into_response())
}
