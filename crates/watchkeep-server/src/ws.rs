//! `/v1/ws`: many subscriptions and writes over one WebSocket.

mod connection;
mod message;
mod original;
mod reply;
#[cfg(test)]
mod tests;

use axum::Extension;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::access::Entrance;
use crate::admission::Load;
use crate::headers;
use crate::limits::{MAX_FIRST_MESSAGE, MAX_MESSAGE, READ, WRITE};
use crate::openapi::{Origin, OriginInQuery, Subprotocol};
use crate::problem::Problem;
use crate::query::Query;

/// The subprotocol: the messages of docs/wire.md.
const PROTOCOL: &str = "watchkeep.v1";

/// A WebSocket with many subscriptions, and with writes.
#[utoipa::path(
    get,
    path = "/v1/ws",
    operation_id = "open_websocket",
    params(Origin, OriginInQuery, Subprotocol),
    security((), ("token" = [])),
    responses((status = 101, description = "The messages of docs/wire.md follow."))
)]
pub(crate) async fn open(
    entrance: Entrance,
    Extension(load): Extension<Load>,
    mut query: Query,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade.protocols([PROTOCOL]),
        Err(rejection) => return Ok(upgrade_required(&rejection)),
    };
    let key = headers.get(SEC_WEBSOCKET_KEY).map(|key| BASE64_STANDARD.decode(key.as_bytes()));
    if !key.is_some_and(|key| key.is_ok_and(|key| key.len() == 16)) {
        return Err(Problem::bad("Sec-WebSocket-Key is not 16 bytes as base64 (RFC 6455, section 4.1)"));
    }
    // A page in a browser cannot set the header.
    let label = match query.take("origin") {
        Some(label) => Some(headers::fitting(label)?),
        None => headers::label(&headers)?,
    };
    query.end()?;
    // A client that offers nothing is one of the original's. One that wants something else would not know our messages.
    if upgrade.selected_protocol().is_none() && upgrade.requested_protocols().next().is_some() {
        let detail = format!("none of the subprotocols is spoken here; offer {PROTOCOL}, or none");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "unknown_subprotocol", detail));
    }
    let is_stranger = matches!(entrance, Entrance::Unknown(..));
    let stranger = is_stranger.then(|| load.stranger()).transpose()?;
    let largest = if is_stranger { MAX_FIRST_MESSAGE } else { MAX_MESSAGE };
    let held = (load.socket()?, entrance.ending().socket());
    let entrance = entrance.labelled(label).leaving();
    let upgrade = upgrade
        .max_message_size(largest)
        .max_frame_size(largest)
        .read_buffer_size(READ)
        .write_buffer_size(WRITE)
        .on_failed_upgrade(|error| tracing::debug!(%error, "a connection was not upgraded"));
    Ok(upgrade.on_upgrade(move |socket| async move {
        connection::run(entrance, stranger, load, socket).await;
        drop(held);
    }))
}

fn upgrade_required(rejection: &WebSocketUpgradeRejection) -> Response {
    let detail = format!(
        "this is a WebSocket ({}); open it with one, such as new WebSocket(\"ws://127.0.0.1:7460/v1/ws\", \
         \"{PROTOCOL}\"). A proxy in between has to pass the upgrade on; nginx does with: proxy_http_version 1.1; \
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";",
        rejection.body_text()
    );
    let problem = Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", detail);
    let headers = [(UPGRADE, "websocket"), (CONNECTION, "upgrade"), (SEC_WEBSOCKET_VERSION, "13")];
    (headers, problem).into_response()
}
