//! Who may ask at all: a page of a stranger, in a browser on this machine, must not reach a store on loopback.

use axum::extract::Request;
use axum::http::header::{HOST, HeaderName, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;
use crate::transport::Peer;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Refuses requests under foreign names and from foreign pages, on every route.
pub(crate) async fn check(request: Request, next: Next) -> Response {
    let is_secure = request.extensions().get::<Peer>().is_some_and(|peer| peer.is_secure);
    let scheme = if is_secure { "https://" } else { "http://" };
    // HTTP/2 names the host in the address of the request.
    let authority = request.uri().authority().map(Authority::as_str);
    let mut response = match refusal(request.headers(), authority, scheme) {
        Some(detail) => Problem::new(StatusCode::FORBIDDEN, "foreign_origin", detail).into_response(),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    response
}

fn refusal(headers: &HeaderMap, authority: Option<&str>, scheme: &str) -> Option<String> {
    // One that comes twice is none: who reads on might take the other.
    let text = |name: HeaderName| {
        let mut values = headers.get_all(name).into_iter();
        let first = values.next()?;
        Some(if values.next().is_none() { first.to_str().unwrap_or("?") } else { "?" })
    };
    // A name that a stranger's server gave this machine (DNS rebinding) is none of ours.
    let host = text(HOST).or(authority).unwrap_or_default();
    if authority.is_some_and(|authority| authority != host) {
        return Some(format!("the request names two hosts, {authority:?} and {host:?}; it has to name one"));
    }
    if !is_ours(host) {
        return Some(format!("the host {host:?} is not a name of this machine; ask localhost or 127.0.0.1"));
    }
    let origin = text(ORIGIN);
    if let Some(origin) = origin.filter(|origin| origin.strip_prefix(scheme) != Some(host)) {
        return Some(format!(
            "pages of {origin:?} may not use this store; only those of the same origin may"
        ));
    }
    // A browser that says nothing of the origin still says that the page is a stranger's.
    match text(SEC_FETCH_SITE) {
        None | Some("same-origin" | "none") => None,
        Some(site) => Some(format!("the request comes from a {site} page; only the same origin may ask")),
    }
}

fn is_ours(host: &str) -> bool {
    let Ok(host) = host.parse::<Authority>() else { return false };
    !host.as_str().contains('@') && matches!(host.host(), "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        refusal(&map, None, "http://").is_some()
    }

    #[test]
    fn only_names_of_this_machine_and_pages_of_its_own_are_answered() {
        for host in ["localhost", "localhost:7460", "127.0.0.1:7460", "[::1]:1"] {
            assert!(!refused(&[("host", host)]), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example:7460",
            "127.0.0.1.evil.example",
            "user@localhost",
            "0.0.0.0",
        ] {
            assert!(refused(&[("host", host)]), "{host}");
        }
        let host = ("host", "localhost:7460");
        assert!(!refused(&[host, ("origin", "http://localhost:7460"), ("sec-fetch-site", "same-origin")]));
        for origin in ["null", "http://evil.example", "http://localhost:7461", "https://localhost:7460"] {
            assert!(refused(&[host, ("origin", origin)]), "{origin}");
        }
        let origin = ("origin", "http://localhost:7460");
        assert!(refused(&[host, ("host", "evil.example")]));
        assert!(refused(&[host, origin, ("origin", "http://evil.example")]));
        assert!(refused(&[host, ("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")]));
        for site in ["cross-site", "same-site"] {
            assert!(refused(&[host, ("sec-fetch-site", site)]), "{site}");
        }
    }
}
