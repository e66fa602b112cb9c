//! The small page at `/`: where a newcomer sees the store live. It asks nobody but this server.

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::{IntoResponse, Response};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

fn file(kind: &'static str, content: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, content).into_response()
}

/// The page.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "page",
    security(()),
    responses((status = 200, content_type = "text/html; charset=utf-8", description = "It asks for a token itself."))
)]
pub(crate) async fn index() -> Response {
    file("text/html; charset=utf-8", include_str!("page/page.html"))
}

/// The script of the page.
#[utoipa::path(
    get,
    path = "/page.js",
    operation_id = "page_script",
    security(()),
    responses((status = 200, content_type = "text/javascript; charset=utf-8", description = "The script."))
)]
pub(crate) async fn script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("page/page.js"))
}

/// The style of the page.
#[utoipa::path(
    get,
    path = "/page.css",
    operation_id = "page_style",
    security(()),
    responses((status = 200, content_type = "text/css; charset=utf-8", description = "The style."))
)]
pub(crate) async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("page/page.css"))
}
