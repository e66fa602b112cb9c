//! Which entry a request is about, in its query or in its path, and the body that it brings.

use std::pin::Pin;

use axum::Extension;
use axum::RequestExt as _;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use axum::http::request::Parts;
use futures_core::Stream;

use crate::admission::Load;
use crate::headers;
use crate::limits::DRAINED;
use crate::problem::Problem;
use crate::query::Query;
use crate::settings::Limit;

/// The names of an entry, and what else the query says.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) group: String,
    pub(crate) key: String,
    pub(crate) query: Query,
}

impl<S: Send + Sync> FromRequestParts<S> for Place {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Place, Problem> {
        let mut query = Query::from_request_parts(parts, state).await?;
        let path = RawPathParams::from_request_parts(parts, state).await;
        let path = path.map_err(|_| Problem::bad("a name in the path is not UTF-8 once it is decoded"))?;
        let mut name = |name: &str| match path.iter().find(|(known, _)| *known == name) {
            Some((_, value)) => Ok(value.to_owned()),
            None => query.need(name),
        };
        let (group, key) = (name("group")?, name("key")?);
        Ok(Place { group, key, query })
    }
}

/// The body of a request, whole, up to the limit.
#[derive(Debug)]
pub(crate) struct Content(pub(crate) Vec<u8>);

impl Content {
    /// Refuses a body where there is nothing to do with one.
    pub(crate) fn refuse(&self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::bad("this request takes no body; leave it out")) }
    }
}

impl<S: Send + Sync> FromRequest<S> for Content {
    type Rejection = Problem;

    async fn from_request(mut request: Request, state: &S) -> Result<Content, Problem> {
        let load = request.extract_parts_with_state::<Extension<Load>, S>(state).await;
        let Extension(load) = load.map_err(|error| Problem::bad(error.body_text()))?;
        let most = load.limits().size(Limit::BodyBytes);
        let too_large = || load.admission.refusal(Limit::BodyBytes);
        let refused = headers::refuse_coded(request.headers());
        let announced = announced(request.headers());
        // Before `100 Continue` goes out, and before anything is read.
        let waits = request.headers().contains_key(EXPECT);
        let drained = if waits { 0 } else { DRAINED };
        if announced.is_some_and(|length| length > most.saturating_add(drained)) {
            return Err(too_large());
        }
        if waits {
            headers::refuse_coded(request.headers())?;
        }
        let mut stream = request.into_body().into_data_stream();
        let mut body = Vec::with_capacity(announced.unwrap_or(0).min(most));
        let mut length = 0_usize;
        while let Some(chunk) = std::future::poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await {
            let chunk: Bytes = chunk.map_err(|error| Problem::bad(format!("the body broke off: {error}")))?;
            length = length.saturating_add(chunk.len());
            if length > most.saturating_add(DRAINED) {
                return Err(too_large());
            }
            if length > most {
                // A client that is still sending would not see the refusal; a little more is read and thrown away.
                body = Vec::new();
            } else {
                load.take(chunk.len())?;
                body.extend_from_slice(&chunk);
            }
        }
        // Only now: a client that is still sending would not see this refusal either.
        refused?;
        if length > most { Err(too_large()) } else { Ok(Content(body)) }
    }
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
