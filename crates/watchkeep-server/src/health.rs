//! Whether a server runs, and whether it should be sent requests: two questions of those who watch over it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use crate::gate::Gates;
use crate::problem::Problem;

/// Answers while the process runs.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "is_healthy",
    security(()),
    responses((status = 200, content_type = "text/plain", description = "It runs."))
)]
pub(crate) async fn healthy() -> Response {
    ok()
}

/// Answers with 503 as soon as requests had better go elsewhere.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "is_ready",
    security(()),
    responses((status = 200, content_type = "text/plain", description = "Requests may come."))
)]
pub(crate) async fn ready(State(gates): State<Gates>) -> Result<Response, Problem> {
    match gates.readiness().await {
        Ok(()) => Ok(ok()),
        // Whatever it is: 503 is what those who watch over it understand.
        Err(problem) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, problem.kind(), problem.detail())),
    }
}

fn ok() -> Response {
    ([(CONTENT_TYPE, "text/plain"), (CACHE_CONTROL, "no-store")], "ok\n").into_response()
}
