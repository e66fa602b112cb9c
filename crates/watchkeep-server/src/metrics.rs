//! What a server has done, in numbers: counted where requests pass, and written out as OpenMetrics when somebody asks.
//!
//! No label is a name that a user chose: groups, keys and labels of writers stay out.

mod report;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::access::{Inspect, May};
use crate::limits::LATENCIES;
use crate::problem::Problem;
use crate::settings::Reached;
use crate::transport::Peer;

use report::Report;

/// Where a request is counted that belongs to no route.
const NO_ROUTE: &str = "none";
const STATUSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The kind of a problem, beside the answer that tells of it.
#[derive(Debug, Clone)]
pub(crate) struct Refused(pub(crate) String);

/// What was answered on a route.
#[derive(Debug)]
struct Answers {
    route: String,
    /// How many took up to each of [`LATENCIES`], and longer than all of them; by the class of their status.
    took: [[AtomicU64; LATENCIES.len() + 1]; STATUSES.len()],
    /// How long all of them took.
    micros: AtomicU64,
}

impl Answers {
    fn of(route: &str) -> Answers {
        Answers { route: route.to_owned(), took: Default::default(), micros: AtomicU64::new(0) }
    }

    fn add(&self, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        let step = LATENCIES.partition_point(|step| *step < took);
        if let Some(place) = self.took.get(class).and_then(|took| took.get(step)) {
            place.fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// What has been answered and refused.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// By route; the last is [`NO_ROUTE`].
    answers: Vec<Answers>,
    /// By kind. Refusals are rare enough for a lock.
    refusals: Mutex<BTreeMap<String, u64>>,
    /// Limits that were reached, with an answer or without.
    reached: Reached,
}

impl Metrics {
    /// Of these routes.
    pub(crate) fn of(routes: &[String], reached: Reached) -> Metrics {
        let answers = routes.iter().map(String::as_str).chain([NO_ROUTE]).map(Answers::of).collect();
        Metrics { answers, refusals: Mutex::default(), reached }
    }

    /// Something was refused. The kind is one of ours, never a user's word.
    fn refused(&self, kind: &str) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        match refusals.get_mut(kind) {
            Some(many) => *many += 1,
            None => drop(refusals.insert(kind.to_owned(), 1)),
        }
    }

    fn at(&self, route: Option<&MatchedPath>) -> Option<&Answers> {
        let known = route.and_then(|route| self.answers.iter().find(|it| it.route == route.as_str()));
        known.or(self.answers.last())
    }
}

/// Counts a request, and logs it: by its route, and never with its query, its headers or its body.
pub(crate) async fn count(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let answers = metrics.at(request.extensions().get());
    let method = known(request.method());
    let client = request.extensions().get::<Peer>().and_then(|peer| peer.address);
    let response = next.run(request).await;
    let (status, took) = (response.status(), begun.elapsed());
    if let Some(answers) = answers {
        answers.add(status, took);
        tracing::debug!(
            method,
            route = answers.route,
            status = status.as_u16(),
            ?took,
            client = client.map(tracing::field::display),
            "answered"
        );
    }
    if let Some(Refused(kind)) = response.extensions().get() {
        metrics.refused(kind);
    }
    response
}

/// A method as a word of ours: any other is a client's.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "POST" => "POST",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// The server's numbers. A token of a namespace is refused, since they are of the whole store.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    security((), ("token" = ["inspect"])),
    responses((status = 200, content_type = OPEN_METRICS, description = "OpenMetrics."))
)]
pub(crate) async fn answer(
    May(gate, _): May<Inspect>,
    Extension(metrics): Extension<Arc<Metrics>>,
) -> Result<Response, Problem> {
    let figures = gate.figures().await?;
    let text = Report { figures, metrics }.text().map_err(|_| {
        let detail = "the numbers could not be written out";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    })?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS), (CACHE_CONTROL, "no-store")], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_counted_at_the_first_step_that_it_did_not_exceed() {
        let answers = Answers::of("/");
        let millis = Duration::from_millis;
        for (status, took) in [
            (StatusCode::OK, Duration::ZERO),
            (StatusCode::OK, millis(1)),
            (StatusCode::OK, millis(1) + Duration::from_nanos(1)),
            (StatusCode::SWITCHING_PROTOCOLS, millis(9)),
            (StatusCode::NOT_FOUND, millis(10)),
            (StatusCode::SERVICE_UNAVAILABLE, millis(60_000)),
        ] {
            answers.add(status, took);
        }
        let many: Vec<Vec<_>> =
            answers.took.into_iter().map(|took| took.map(AtomicU64::into_inner).into()).collect();
        let at = |steps: &[usize]| {
            (0..=LATENCIES.len()).map(|step| u64::from(steps.contains(&step))).collect::<Vec<_>>()
        };
        assert_eq!(many, [at(&[4]), at(&[0, 1, 2]), at(&[]), at(&[4]), at(&[10])]);
        assert_eq!(answers.micros.into_inner(), 1_000 + 1_000 + 9_000 + 10_000 + 60_000_000);
    }
}
