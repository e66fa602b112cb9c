//! What the headers of a request say of its body and of its writer, and what a WebSocket says of these in fields.

use axum::http::header::{CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use watchkeep::MAX_LABEL;

use crate::problem::Problem;

/// A label of the writer's.
const ORIGIN_LABEL: HeaderName = HeaderName::from_static("watchkeep-origin");
/// Types that a browser may show: none of them runs anything.
const PASSIVE: [&str; 6] =
    ["text/plain", "application/json", "image/png", "image/jpeg", "image/gif", "image/webp"];
/// What `curl -d` says of anything: nothing is known of the value then.
const FORM: &str = "application/x-www-form-urlencoded";

/// What the writer calls itself.
pub(crate) fn label(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(label) = headers.get(ORIGIN_LABEL) else { return Ok(None) };
    let label = label.to_str().map_err(|_| Problem::bad("the header watchkeep-origin is not plain ASCII"))?;
    fitting(label.to_owned()).map(Some)
}

/// A label that a write may bear.
pub(crate) fn fitting(label: String) -> Result<String, Problem> {
    if label.len() <= MAX_LABEL {
        return Ok(label);
    }
    let detail = format!("the label has {} bytes, and {MAX_LABEL} is the most; shorten it", label.len());
    Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail))
}

/// Refuses a body that is not declared as JSON: a form of a stranger's page cannot send this type.
pub(crate) fn needs_json(headers: &HeaderMap, what: &str) -> Result<(), Problem> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if essence(kind).eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail = format!("send {what}, with Content-Type: application/json");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail))
}

/// The type of a body, if it says anything.
pub(crate) fn type_of_body(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return Ok(None) };
    let kind = content_type(kind.as_bytes())?;
    Ok(Some(kind).filter(|kind| !essence(kind).eq_ignore_ascii_case(FORM)))
}

/// A type that goes with a value: a reader gets it back in a header.
pub(crate) fn content_type(kind: &[u8]) -> Result<String, Problem> {
    let value = HeaderValue::from_bytes(kind).ok();
    let plain = value.as_ref().and_then(|value| value.to_str().ok());
    plain.map(str::to_owned).ok_or_else(|| Problem::bad("a content type is one line of plain ASCII"))
}

/// Whether a browser may show what is of this type.
pub(crate) fn is_passive(kind: &str) -> bool {
    PASSIVE.iter().any(|passive| essence(kind).eq_ignore_ascii_case(passive))
}

/// A type without its parameters. It is compared without case.
fn essence(kind: &str) -> &str {
    kind.split(';').next().unwrap_or_default().trim()
}

/// Refuses a body that is not the whole of what it stands for, as it is.
pub(crate) fn refuse_coded(headers: &HeaderMap) -> Result<(), Problem> {
    // A part put in the place of the whole would be taken for it (RFC 9110, section 14.5).
    if headers.contains_key(CONTENT_RANGE) {
        return Err(Problem::bad("a part of a value cannot be put; send the whole, without Content-Range"));
    }
    if let Some(coding) = other_coding(headers, CONTENT_ENCODING, "identity") {
        let detail =
            format!("the body is coded ({coding}), which is not kept with a value; send it as it is");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unknown_encoding", detail));
    }
    if let Some(coding) = other_coding(headers, TRANSFER_ENCODING, "chunked") {
        let detail =
            format!("the transfer coding {coding} is not understood; send the body chunked, or plain");
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "unknown_encoding", detail));
    }
    Ok(())
}

/// A coding besides the one that is understood.
fn other_coding(headers: &HeaderMap, name: HeaderName, known: &str) -> Option<String> {
    let lists = headers.get_all(name).into_iter().map(|list| String::from_utf8_lossy(list.as_bytes()));
    let codings = lists.collect::<Vec<_>>().join(",");
    let mut codings = codings.split(',').map(str::trim).filter(|coding| !coding.is_empty());
    codings.find(|coding| !coding.eq_ignore_ascii_case(known)).map(str::to_owned)
}
