//! Who may ask at all: a page of a stranger, in a browser on this machine, must not reach a store on loopback.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, HeaderName, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Under which names a server answers, besides those of this machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names(Arc<[String]>);

impl Names {
    pub(crate) fn and<N: Into<String>>(&self, more: impl IntoIterator<Item = N>) -> Names {
        Names(self.0.iter().cloned().chain(more.into_iter().map(Into::into)).collect())
    }

    /// Whether a host, with its port or without, is one of them.
    fn have(&self, host: &str) -> bool {
        let Ok(host) = host.parse::<Authority>() else { return false };
        self.0.iter().any(|name| name.eq_ignore_ascii_case(host.host()))
    }
}

/// Refuses requests under foreign names and from foreign pages, on every route.
pub(crate) async fn check(State(names): State<Names>, request: Request, next: Next) -> Response {
    let mut response = match refusal(request.uri(), request.headers(), &names) {
        Some(detail) => Problem::new(StatusCode::FORBIDDEN, "foreign_origin", detail).into_response(),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    response
}

fn refusal(target: &Uri, headers: &HeaderMap, names: &Names) -> Option<String> {
    // One that comes twice is none: who reads on might take the other.
    let text = |name: HeaderName| {
        let mut values = headers.get_all(name).into_iter();
        let first = values.next()?;
        Some(if values.next().is_none() { first.to_str().unwrap_or("?") } else { "?" })
    };
    // A name that a stranger's server gave this machine (DNS rebinding) is none of ours.
    // Where the target has a host itself, that one counts (RFC 9112, section 3.2.2).
    let host = target.authority().map(Authority::as_str).or_else(|| text(HOST)).unwrap_or_default();
    if !is_ours(host, names) {
        return Some(format!(
            "the host {host:?} is not a name of this server; ask localhost or 127.0.0.1, or serve with --host"
        ));
    }
    // Under a name that it was given, TLS may end before it.
    let schemes: &[&str] = if names.have(host) { &["http://", "https://"] } else { &["http://"] };
    let is_same = |origin: &&str| {
        let mut names = schemes.iter().filter_map(|scheme| origin.strip_prefix(scheme));
        names.any(|name| name.eq_ignore_ascii_case(host))
    };
    let origin = text(ORIGIN);
    if let Some(origin) = origin.filter(|origin| !is_same(origin)) {
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

fn is_ours(host: &str, names: &Names) -> bool {
    let Ok(parsed) = host.parse::<Authority>() else { return false };
    let name = parsed.host();
    let address =
        name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name).parse::<IpAddr>();
    let is_loopback = address.is_ok_and(|address| address.is_loopback());
    !host.contains('@') && (is_loopback || name.eq_ignore_ascii_case("localhost") || names.have(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        refusal(&Uri::from_static("/"), &map, &Names::default().and(["Store.example"])).is_some()
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
        for (host, origin) in
            [("store.example", "https://store.example"), ("STORE.example:80", "http://STORE.example:80")]
        {
            assert!(!refused(&[("host", host), ("origin", origin)]), "{host}");
        }
        assert!(refused(&[("host", "store.example.evil")]) && refused(&[("host", "a@store.example")]));
        assert!(refused(&[("host", "store.example"), ("origin", "https://evil.example")]));
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
