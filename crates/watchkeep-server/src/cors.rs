//! Pages of other origins that may use a server (CORS): none, unless they are named.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use utoipa::openapi::{OpenApi, PathItem};

use crate::guard::is_host;
use crate::limits::PREFLIGHT_TIME;

/// What a page may send besides what any page may.
const SENT: &str = "Authorization, Content-Type, If-Match, If-None-Match, If-Range, Last-Event-ID, Range, \
                    Watchkeep-Origin";
/// What a page may see of an answer besides what any page may.
const SHOWN: &str = "Accept-Ranges, Content-Disposition, Content-Range, ETag, Link, Retry-After, Watchkeep-Cursor, \
                     Watchkeep-Expires, WWW-Authenticate";
/// What is done at a path that the document does not have.
const READ_ONLY: &str = "GET, HEAD";

/// The origin of pages that may use a server, written as a browser writes it: a scheme, a host, and the port where it is
/// not the scheme's own.
///
/// ```
/// use watchkeep_server::PageOrigin;
/// assert_eq!("https://app.example.com".parse::<PageOrigin>()?.to_string(), "https://app.example.com");
/// assert!("https://app.example.com/page".parse::<PageOrigin>().is_err());
/// assert!("*".parse::<PageOrigin>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageOrigin(HeaderValue);

impl fmt::Display for PageOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

impl FromStr for PageOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<PageOrigin, String> {
        let example = "name each origin, such as --cors-origin https://app.example.com";
        if text.contains('*') {
            return Err(format!("'{text}' would let in pages that nobody named; {example}"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("'{text}' has no scheme; {example}"));
        };
        let authority = rest.split(['/', '?', '#']).next().and_then(|name| name.parse::<Authority>().ok());
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter));
        let known = authority.filter(|name| is_scheme && is_host(name.host()));
        let Some(authority) = known.filter(|name| !name.as_str().contains('@')) else {
            return Err(format!("'{text}' is no origin; {example}"));
        };
        let port =
            authority.as_str().strip_prefix(authority.host()).unwrap_or_default().trim_start_matches(':');
        if !port.is_empty() && !port.parse().is_ok_and(|port: u16| port > 0) {
            return Err(format!(
                "'{text}' has a port that no server has, they go from 1 to 65535; {example}"
            ));
        }
        let written = as_written(scheme, &authority);
        if written != text {
            return Err(format!("a browser writes '{text}' in another way; give --cors-origin {written}"));
        }
        HeaderValue::from_str(text).map(PageOrigin).map_err(|_| format!("'{text}' is no origin; {example}"))
    }
}

/// An origin as a browser writes it.
fn as_written(scheme: &str, authority: &Authority) -> String {
    let (scheme, host) = (scheme.to_ascii_lowercase(), authority.host().to_ascii_lowercase());
    match (scheme.as_str(), authority.port_u16()) {
        ("http", Some(80)) | ("https", Some(443)) | (_, None) => format!("{scheme}://{host}"),
        (_, Some(port)) => format!("{scheme}://{host}:{port}"),
    }
}

/// The pages that may use a server besides its own, and what they may do where.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pages {
    origins: Arc<[PageOrigin]>,
    /// The methods of each path that the document has.
    methods: Arc<[(String, String)]>,
}

impl Pages {
    pub(crate) fn and(&self, more: impl IntoIterator<Item = PageOrigin>) -> Pages {
        Pages { origins: self.origins.iter().cloned().chain(more).collect(), ..self.clone() }
    }

    /// The same for the routes of a document.
    pub(crate) fn at(&self, document: &OpenApi) -> Pages {
        let paths = document.paths.paths.iter();
        Pages { methods: paths.map(|(path, item)| (path.clone(), methods(item))).collect(), ..self.clone() }
    }

    /// Whether pages of an origin may use this server.
    pub(crate) fn have(&self, origin: &str) -> bool {
        self.origins.iter().any(|known| known.0 == origin)
    }

    /// The one of them that makes a request.
    pub(crate) fn asking(&self, headers: &HeaderMap) -> Option<PageOrigin> {
        let mut named = headers.get_all(ORIGIN).into_iter();
        let origin = named.next().filter(|_| named.next().is_none())?;
        self.origins.iter().find(|known| known.0 == origin).cloned()
    }

    /// What a browser is told that asks for a page of theirs whether it may make a request. It bears no token.
    pub(crate) fn preflight(&self, request: &Request) -> Option<Response> {
        let is_one = request.method() == Method::OPTIONS
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
            && self.asking(request.headers()).is_some();
        let path = request.extensions().get::<MatchedPath>().filter(|_| is_one)?.as_str();
        // An application may have mounted the routes under a path of its own.
        let methods = self.methods.iter().find(|(known, _)| path.ends_with(known));
        let methods = methods.map_or(READ_ONLY, |(_, methods)| methods);
        let headers = [
            (ACCESS_CONTROL_ALLOW_METHODS, methods),
            (ACCESS_CONTROL_ALLOW_HEADERS, SENT),
            (ACCESS_CONTROL_MAX_AGE, &PREFLIGHT_TIME.as_secs().to_string()),
        ];
        Some((StatusCode::NO_CONTENT, headers).into_response())
    }

    /// Lets the page that asked see the answer.
    pub(crate) fn show(&self, asking: Option<PageOrigin>, answer: &mut HeaderMap) {
        if !self.origins.is_empty() {
            // A cache must not give the answer to another page.
            answer.append(VARY, HeaderValue::from_static("Origin"));
        }
        if let Some(PageOrigin(origin)) = asking {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(SHOWN));
        }
    }
}

fn methods(item: &PathItem) -> String {
    let all = [
        ("GET, HEAD", item.get.is_some()),
        ("PUT", item.put.is_some()),
        ("POST", item.post.is_some()),
        ("PATCH", item.patch.is_some()),
        ("DELETE", item.delete.is_some()),
    ];
    let names: Vec<_> = all.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_taken_only_as_a_browser_writes_it() {
        for origin in
            ["https://app.example.com", "http://localhost:5173", "http://[::1]:8080", "tauri://localhost"]
        {
            assert_eq!(origin.parse::<PageOrigin>().map(|it| it.to_string()), Ok(origin.to_owned()));
        }
        for (wrong, instead) in [
            ("https://app.example.com/", "https://app.example.com"),
            ("https://app.example.com/page?x#y", "https://app.example.com"),
            ("HTTPS://App.example.com", "https://app.example.com"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("http://app.example.com:080", "http://app.example.com"),
        ] {
            let refused = wrong.parse::<PageOrigin>().err().unwrap_or_default();
            assert!(refused.ends_with(&format!("give --cors-origin {instead}")), "{wrong}: {refused}");
        }
        for wrong in [
            "*",
            "https://*.example.com",
            "null",
            "",
            "app.example.com",
            "://app.example.com",
            "https://",
            "https://:80",
            "file:///page.html",
            "https://me@app.example.com",
            "https://app.example.com, https://other.example",
            "https://app.example.com,https://other.example",
            "https://app.example.com:0",
            "https://app.example.com:99999",
            "https://[::1]:65536",
            "https://ap p.example.com",
            "https://\u{e4}pp.example.com",
        ] {
            let refused = wrong.parse::<PageOrigin>().err().unwrap_or_default();
            assert!(refused.ends_with("--cors-origin https://app.example.com"), "{wrong}: {refused}");
        }
    }
}
