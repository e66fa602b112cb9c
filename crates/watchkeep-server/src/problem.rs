//! Refusals: problem documents (RFC 9457), whose status and kind follow the library's table of errors.

use axum::Extension;
use axum::extract::Request;
use axum::http::header::{self, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use watchkeep::{Error, ErrorKind};

use crate::admission::Load;
use crate::limits::RETRY_AFTER;
use crate::metrics::Refused;
use crate::settings::Limit;

/// Why a request is refused.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    /// For programs: the kind of the library's error, or one of the server's own.
    kind: String,
    /// For people: what is wrong, and what to do.
    detail: String,
    /// What a program needs besides, by name.
    also: Option<Box<(&'static str, Value)>>,
    /// After how many seconds trying again may help, if it may.
    retry_after: u16,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, kind: &str, detail: impl Into<String>) -> Problem {
        Problem { status, kind: kind.to_owned(), detail: detail.into(), also: None, retry_after: RETRY_AFTER }
    }

    /// The same with something that a program needs besides.
    pub(crate) fn with(self, name: &'static str, value: impl Into<Value>) -> Problem {
        Problem { also: Some(Box::new((name, value.into()))), ..self }
    }

    /// The same for something that takes so many seconds to pass.
    pub(crate) fn retry_after(self, seconds: u16) -> Problem {
        Problem { retry_after: seconds, ..self }
    }

    /// The request makes no sense.
    pub(crate) fn bad(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_argument", detail)
    }

    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// What a program needs besides, by name.
    pub(crate) fn also(&self) -> Option<(&'static str, &Value)> {
        self.also.as_deref().map(|(name, value)| (*name, value))
    }

    /// Whether trying again later may help.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    }
}

/// `InvalidName` as `invalid_name`.
fn snake(kind: ErrorKind) -> String {
    let mut name = String::new();
    for letter in format!("{kind:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let status = StatusCode::from_u16(error.kind().http_status());
        Problem {
            status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            kind: snake(error.kind()),
            detail: error.to_string(),
            also: None,
            retry_after: RETRY_AFTER,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": format!("urn:watchkeep:problem:{}", self.kind),
            "title": self.status.canonical_reason().unwrap_or("Refused"),
            "status": self.status.as_u16(),
            "kind": self.kind,
            "detail": self.detail,
        });
        if let (Some((name, value)), Some(body)) = (self.also(), body.as_object_mut()) {
            body.insert(name.to_owned(), value.clone());
        }
        let mut response =
            (self.status, [(CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.is_temporary() {
            response.headers_mut().insert(header::RETRY_AFTER, self.retry_after.into());
        }
        response.extensions_mut().insert(Refused(self.kind));
        response
    }
}

/// The path is not repeated: somebody may have put a secret there.
pub(crate) async fn no_route() -> Problem {
    let detail =
        "there is nothing at this path; the routes begin with /v1/, and /v1/openapi.json has them all";
    Problem::new(StatusCode::NOT_FOUND, "no_route", detail)
}

pub(crate) async fn no_method(method: Method) -> Problem {
    let detail = format!("{method} does nothing at this path; the Allow header has what does");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no_method", detail)
}

/// Refuses a request whose body, or whose answer, is too long on its way.
pub(crate) async fn in_time(Extension(load): Extension<Load>, request: Request, next: Next) -> Response {
    let time = load.limits().time(Limit::RequestSeconds);
    match tokio::time::timeout(time, next.run(request)).await {
        Ok(response) => response,
        Err(_) => load.admission.refusal(Limit::RequestSeconds).into_response(),
    }
}
