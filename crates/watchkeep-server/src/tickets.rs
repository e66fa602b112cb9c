//! `/v1/tickets`: a ticket for a client that cannot send a token.

use std::fmt;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use watchkeep::json;

use crate::access::{Fields, May, Watch};
use crate::headers;
use crate::limits::TICKET_BODY;
use crate::place::Content;
use crate::problem::Problem;
use crate::query::{self, Query};

/// A ticket for one watch.
#[derive(Serialize, ToSchema)]
struct Ticket {
    /// Give it as `?ticket=` to `/v1/watch`.
    ticket: String,
    /// When it ends (RFC 3339), unless a stream bears it.
    expires: String,
}

/// The fields of an object, each there once.
struct Unrepeated(Fields);

impl<'de> Deserialize<'de> for Unrepeated {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unrepeated, D::Error> {
        deserializer.deserialize_map(Collect)
    }
}

struct Collect;

impl<'de> Visitor<'de> for Collect {
    type Value = Unrepeated;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unrepeated, A::Error> {
        let mut fields = Fields::new();
        while let Some((name, value)) = map.next_entry::<String, String>()? {
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format_args!("{name:?} is there twice; give it once")));
            }
            fields.insert(name, value);
        }
        Ok(Unrepeated(fields))
    }
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
