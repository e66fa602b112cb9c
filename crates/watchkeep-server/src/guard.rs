//! Who may ask at all: a page of a stranger, in a browser on this machine, must not reach a store on loopback.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, HeaderName, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::OpenApi;

use crate::cors::{PageOrigin, Pages};
use crate::problem::Problem;
use crate::transport::Peer;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Under which names a server answers, besides those of this machine, and to which pages, besides its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guard {
    names: Names,
    pages: Pages,
}

impl Guard {
    pub(crate) fn hosts(self, names: impl IntoIterator<Item = HostName>) -> Guard {
        Guard { names: self.names.and(names), ..self }
    }

    pub(crate) fn pages(self, origins: impl IntoIterator<Item = PageOrigin>) -> Guard {
        Guard { pages: self.pages.and(origins), ..self }
    }

    /// The same for the routes of a document.
    pub(crate) fn at(self, document: &OpenApi) -> Guard {
        Guard { pages: self.pages.at(document), ..self }
    }
}

/// A name under which a server is reached, without scheme and port.
///
/// ```
/// use watchkeep_server::HostName;
/// assert_eq!("store.example".parse::<HostName>()?.to_string(), "store.example");
/// assert!("https://store.example:443".parse::<HostName>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(pub(crate) String);

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<HostName, String> {
        let is_name = |name: &Authority| name.host() == text && is_host(text);
        match text.parse::<Authority>() {
            Ok(name) if is_name(&name) => Ok(HostName(text.to_owned())),
            _ => Err(format!(
                "'{text}' is no host name; give it without scheme and port, such as --host store.example"
            )),
        }
    }
}

/// Whether something of the syntax of a host is one: URLs allow more than names and addresses have.
pub(crate) fn is_host(name: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "-._:[]".contains(letter);
    !name.is_empty() && name.chars().all(is_letter)
}

#[derive(Debug, Clone, Default)]
struct Names(Arc<[HostName]>);

impl Names {
    fn and(&self, more: impl IntoIterator<Item = HostName>) -> Names {
        Names(self.0.iter().cloned().chain(more).collect())
    }

    /// Whether a host, with its port or without, is one of them.
    fn have(&self, host: &str) -> bool {
        let Ok(host) = host.parse::<Authority>() else { return false };
        self.0.iter().any(|HostName(name)| name.eq_ignore_ascii_case(host.host()))
    }
}

/// Refuses requests under foreign names and from foreign pages, on every route.
pub(crate) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let is_secure = request.extensions().get::<Peer>().is_some_and(|peer| peer.is_secure);
    let refused =
        two_hosts(&request).or_else(|| refusal(request.uri(), request.headers(), &guard, is_secure));
    let asking = guard.pages.asking(request.headers());
    let mut response = match (refused, guard.pages.preflight(&request)) {
        (Some(detail), _) => Problem::new(StatusCode::FORBIDDEN, "foreign_origin", detail).into_response(),
        (None, Some(preflight)) => preflight,
        (None, None) => next.run(request).await,
    };
    let headers = response.headers_mut();
    guard.pages.show(asking, headers);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// HTTP/2 names the host in the target; a `Host` beside it has to be the same (RFC 9113, section 8.3.1).
fn two_hosts(request: &Request) -> Option<String> {
    let target = request.uri().authority().filter(|_| request.version() == Version::HTTP_2)?;
    let host = request.headers().get(HOST).filter(|host| host.as_bytes() != target.as_str().as_bytes())?;
    Some(format!("the request names two hosts, {:?} and {host:?}; it has to name one", target.as_str()))
}

fn refusal(target: &Uri, headers: &HeaderMap, guard: &Guard, is_secure: bool) -> Option<String> {
    // One that comes twice is none: who reads on might take the other.
    let text = |name: HeaderName| {
        let mut values = headers.get_all(name).into_iter();
        let first = values.next()?;
        Some(if values.next().is_none() { first.to_str().unwrap_or("?") } else { "?" })
    };
    // A name that a stranger's server gave this machine (DNS rebinding) is none of ours.
    // Where the target has a host itself, that one counts (RFC 9112, section 3.2.2): HTTP/2 has it there alone.
    let host = target.authority().map(Authority::as_str).or_else(|| text(HOST)).unwrap_or_default();
    if !is_ours(host, &guard.names) {
        return Some(format!(
            "the host {host:?} is not a name of this server; ask localhost or 127.0.0.1, or serve with --host"
        ));
    }
    // Under a name that it was given, TLS may end before it.
    let schemes: &[&str] = match (is_secure, guard.names.have(host)) {
        (true, _) => &["https://"],
        (false, true) => &["http://", "https://"],
        (false, false) => &["http://"],
    };
    let is_same = |origin: &&str| {
        let mut names = schemes.iter().filter_map(|scheme| origin.strip_prefix(scheme));
        names.any(|name| name.eq_ignore_ascii_case(host))
    };
    let origin = text(ORIGIN);
    if origin.is_some_and(|origin| guard.pages.have(origin)) {
        return None;
    }
    if let Some(origin) = origin.filter(|origin| !is_same(origin)) {
        return Some(format!(
            "pages of {origin:?} may not use this store; only those of the same origin may, or serve with --cors-origin"
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

    fn guard() -> Guard {
        let page = "https://app.example".parse::<PageOrigin>();
        Guard::default().hosts([HostName("Store.example".to_owned())]).pages(page)
    }

    fn refused(headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        refusal(&Uri::from_static("/"), &map, &guard(), false).is_some()
    }

    #[test]
    fn a_host_is_a_name_without_scheme_and_port() {
        for name in ["store.example", "localhost", "192.0.2.1", "[2001:db8::1]", "a_b"] {
            assert_eq!(name.parse::<HostName>().map(|it| it.to_string()), Ok(name.to_owned()));
        }
        for wrong in [
            "",
            "*",
            "*.example",
            "a b",
            "http://x",
            "x:80",
            "x/",
            "me@x",
            "[::1]:80",
            "a,b",
            "a;b",
            "a=b",
            "a(b",
        ] {
            let refused = wrong.parse::<HostName>().err().unwrap_or_default();
            assert!(refused.ends_with("such as --host store.example"), "{wrong}: {refused}");
        }
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
        let page = ("origin", "https://app.example");
        assert!(!refused(&[host, page]) && !refused(&[host, page, ("sec-fetch-site", "cross-site")]));
        assert!(refused(&[("host", "evil.example"), page]) && refused(&[host, page, page]));
        for origin in
            ["http://app.example", "https://app.example:1", "https://app.example.evil", "HTTPS://app.example"]
        {
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
