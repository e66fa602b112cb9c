//! `/v1/tickets`: a ticket for a client that cannot send a token.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use watchkeep::json;

use crate::access::{May, Watch};
use crate::headers;
use crate::limits::TICKET_BODY;
use crate::place::Content;
use crate::problem::Problem;
use crate::query::{self, Query, Unrepeated};

/// A ticket for one watch.
#[derive(Serialize, ToSchema)]
struct Ticket {
    /// Give it as `?ticket=` to `/v1/watch`.
    ticket: String,
    /// When it ends (RFC 3339), unless a stream bears it.
    expires: String,
}

/// A ticket for a watch: the only credential that a URL may hold.
#[utoipa::path(
    post,
    path = "/v1/tickets",
    operation_id = "make_ticket",
    security(("token" = ["watch"])),
    request_body(
        content = HashMap<String, String>, content_type = "application/json",
        description = "The parameters of the watch, without `after`.",
    ),
    responses((status = 200, body = Ticket, description = "A ticket."))
)]
pub(crate) async fn make(
    May(gate, _): May<Watch>,
    query: Query,
    headers: HeaderMap,
    Content(body): Content,
) -> Result<Response, Problem> {
    query.end()?;
    headers::needs_json(&headers, "the parameters of the watch as a JSON object")?;
    if body.len() > TICKET_BODY {
        let detail = format!("the body has {} bytes, and {TICKET_BODY} at the most; shorten it", body.len());
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail));
    }
    let Unrepeated(fields) = serde_json::from_slice(&body)
        .map_err(|error| Problem::bad(format!("the body is no JSON object of strings: {error}")))?;
    let mut query = Query::from(fields.clone());
    let wanted = query::wanted(&mut query)?;
    query.end()?;
    if wanted.after.is_some() {
        return Err(Problem::bad("a ticket is for any position; give after= in the URL"));
    }
    let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()).map(str::to_owned);
    let (ticket, expires) = gate.sell(fields, origin).await?;
    let ticket = Ticket { ticket: ticket.text().to_owned(), expires: json::timestamp(expires) };
    let json = serde_json::to_vec(&ticket).map_err(watchkeep::Error::abort)?;
    Ok(([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], json).into_response())
}
