//! The OpenAPI document: made from the declarations of the routes, and what they have in common.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Content, Header, OpenApi as Document, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoParams, OpenApi, ToSchema};

/// An entry, its names in the query.
pub(crate) const ENTRY: &str = "/v1/entry";
/// The same entry, its names in the path.
pub(crate) const NAMED_ENTRY: &str = "/v1/groups/{group}/keys/{key}";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "watchkeep",
        description = "A key-value store whose watch does not lie. What the answers promise is in docs/wire.md.",
    ),
    paths(answer),
    components(schemas(Event, Key, Problem))
)]
pub(crate) struct Api;

/// The document with what is true of many routes.
pub(crate) fn complete(mut document: Document) -> Document {
    let paths = &mut document.paths.paths;
    for head in paths.values_mut().filter_map(|item| item.head.as_mut()) {
        // It is declared together with its GET, and each operation has an id of its own.
        rename(head, "_head");
    }
    if let Some(mut named) = paths.get(ENTRY).cloned() {
        operations(&mut named).for_each(name_in_path);
        paths.insert(NAMED_ENTRY.to_owned(), named);
    }
    for (path, place) in [(ENTRY, "query"), (NAMED_ENTRY, "path")] {
        if let Some(item) = paths.get_mut(path) {
            link(item, place);
        }
    }
    paths.values_mut().flat_map(operations).for_each(refuse);
    let components = document.components.get_or_insert_default();
    for (name, scheme) in schemes() {
        components.security_schemes.insert(name.to_owned(), RefOr::T(scheme));
    }
    for (_, name, response) in refusals() {
        components.responses.insert(name.to_owned(), RefOr::T(response.build()));
    }
    document
}

/// The document as it is served.
pub(crate) fn encode(document: &Document) -> Bytes {
    // All its keys are strings, so it can be written.
    document.to_json().unwrap_or_default().into()
}

/// How a request says who asks. Each route names those that it takes, `{}` where it needs none, and the right that
/// a token needs.
fn schemes() -> [(&'static str, SecurityScheme); 2] {
    let token = "A token, from `watchkeep token create`. None is needed until there is one. In an application that \
        mounts the routes, the application says who asks instead.";
    let token =
        Http::builder().scheme(HttpAuthScheme::Bearer).bearer_format("wk_...").description(Some(token));
    let ticket = "A ticket, from `/v1/tickets`. What it is for need not be repeated; `after` may be given.";
    let ticket = ApiKeyValue::with_description("ticket", ticket);
    [
        ("token", SecurityScheme::Http(token.build())),
        ("ticket", SecurityScheme::ApiKey(ApiKey::Query(ticket))),
    ]
}

/// How an operation refuses: status, name and answer of each refusal that stands for itself, and of all others.
fn refusals() -> [(&'static str, &'static str, ResponseBuilder); 3] {
    let problem = |why| {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        ResponseBuilder::new().description(why).content("application/problem+json", content)
    };
    let unauthorized = problem("A token is needed, or it is not good.");
    [
        ("401", "Unauthorized", unauthorized.header("WWW-Authenticate", Header::default())),
        (
            "403",
            "Forbidden",
            problem("The token has no right to it, a foreign host or page asks, or the store is sealed."),
        ),
        ("default", "Refused", problem("Why it is refused.")),
    ]
}

/// Says how an operation refuses: by who asks only where that is asked.
fn refuse(operation: &mut Operation) {
    let is_open = operation.security.as_ref().is_some_and(|taken| *taken == [SecurityRequirement::default()]);
    for (status, name, _) in refusals().into_iter().filter(|(status, ..)| !is_open || *status == "default") {
        operation.responses.responses.insert(status.to_owned(), RefOr::Ref(Ref::from_response_name(name)));
    }
}

/// Links the setting of an entry to what can be done with it then, and to what happens afterwards.
fn link(item: &mut PathItem, place: &str) {
    let others = [("read", &item.get), ("touch", &item.patch), ("delete", &item.delete)];
    let names = ["group", "key"].map(|name| (name, format!("$request.{place}.{name}")));
    let links = others.into_iter().filter_map(|(what, operation)| {
        let id = operation.as_ref()?.operation_id.as_ref()?;
        let link = LinkBuilder::new().operation_id(id.clone());
        let linked = names.iter().fold(link, |link, (name, from)| link.parameter(*name, from.as_str()));
        Some((what.to_owned(), RefOr::T(linked.build())))
    });
    let since = LinkBuilder::new()
        .operation_id("list_changes")
        .parameter("after", "$response.header.Watchkeep-Cursor");
    let links: Vec<_> = links.chain([("since".to_owned(), RefOr::T(since.build()))]).collect();
    let set = item.put.as_mut().and_then(|put| put.responses.responses.get_mut("204"));
    if let Some(RefOr::T(set)) = set {
        set.links.extend(links);
    }
}

/// This document.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    operation_id = "document",
    security(()),
    responses((status = 200, content_type = "application/json", description = "OpenAPI 3.1."))
)]
pub(crate) fn answer(document: Bytes) -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], document).into_response()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let methods =
        [&mut item.get, &mut item.head, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
    methods.into_iter().filter_map(Option::as_mut)
}

/// Moves the names of an entry from the query to the path.
fn name_in_path(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(parameter) = parameter else { continue };
        if ["group", "key"].contains(&parameter.name.as_str()) {
            parameter.parameter_in = ParameterIn::Path;
        }
    }
    rename(operation, "_by_path");
}

fn rename(operation: &mut Operation, suffix: &str) {
    if let Some(id) = &mut operation.operation_id {
        id.push_str(suffix);
    }
}

/// Declares structs whose fields nobody reads: they stand for parameters and objects that are taken and made elsewhere.
macro_rules! declared {
    ($($(#[$about:meta])* struct $name:ident { $($(#[$of_field:meta])* $field:ident: $kind:ty,)* })*) => {$(
        $(#[$about])*
        #[expect(dead_code, reason = "it is declared for the document")]
        pub(crate) struct $name { $($(#[$of_field])* $field: $kind,)* }
    )*};
}

declared! {
    /// The names of an entry.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Query)]
    struct Names {
        /// The group, any UTF-8: 512 bytes unless the store was opened otherwise.
        group: String,
        /// The key, any UTF-8: 1 KiB unless the store was opened otherwise.
        key: String,
    }

    /// A group.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Query)]
    struct Group {
        /// The group, any UTF-8: 512 bytes unless the store was opened otherwise.
        group: String,
    }

    /// How new a read must be.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Query)]
    struct Fresh {
        /// A cursor: the answer waits, for 10 seconds at most, until the store is at least so new.
        min: Option<String>,
    }

    /// Which page of a list.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Query)]
    struct Paged {
        /// Only names that begin so.
        prefix: Option<String>,
        /// Only names after this one: the `next` of the page before.
        after: Option<String>,
        /// How many names.
        #[param(minimum = 1, maximum = 256)]
        limit: Option<usize>,
    }

    /// Which events. Names are literal, `*` too; `key_prefix` needs `group`.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Query)]
    struct Filtered {
        group: Option<String>,
        /// Not together with `group`.
        group_prefix: Option<String>,
        key: Option<String>,
        /// Not together with `key`.
        key_prefix: Option<String>,
        /// Only these, with commas: `set`, `delete`, `delete_group`, `expire`, `touch`.
        kinds: Option<String>,
        /// `no`: without the deletions of whole groups, where `key` or `key_prefix` is given.
        group_deletions: Option<String>,
        /// A JSON array of 1 to 64 objects, each with some of the parameters above: events that at least one of these
        /// filters lets through. Instead of the parameters above.
        any: Option<String>,
        /// Not what was written under this label.
        exclude_origin: Option<String>,
        /// `all`, `none`, or a number of bytes: longer values are left out, and their length is given.
        values: Option<String>,
    }

    /// Which page of the log.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Query)]
    struct PagedLog {
        /// The namespace, which must be the one that is served.
        ns: Option<String>,
        /// A cursor: the page begins after it. From the oldest that is kept unless given.
        after: Option<String>,
        /// A cursor: the page ends there. To the end of the log unless given.
        upto: Option<String>,
        /// How many rows of the log are looked at, whether or not they match.
        #[param(minimum = 1, maximum = 1000)]
        limit: Option<usize>,
        /// How long to wait for a match, such as `30s`, 50 seconds at most. Not together with `upto`.
        wait: Option<String>,
    }

    /// What must be true of the entry.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Header)]
    struct IfMatch {
        /// `"CURSOR"`, a list of them, or `*`: only if the entry stands at one of them, or is there at all.
        #[param(rename = "If-Match")]
        if_match: Option<String>,
    }

    /// What a reader has already, and which part it wants.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Header)]
    struct Known {
        /// `"CURSOR"`, a list of them, or `*`: only if the entry does not stand at one of them.
        #[param(rename = "If-None-Match")]
        if_none_match: Option<String>,
        /// One range of bytes, of a GET.
        #[param(rename = "Range")]
        range: Option<String>,
        /// `"CURSOR"`: the range only if the entry stands there, otherwise the whole.
        #[param(rename = "If-Range")]
        if_range: Option<String>,
    }

    /// What must not be true of the entry.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Header)]
    struct IfAbsent {
        /// `*`: only if the entry is not there.
        #[param(rename = "If-None-Match")]
        if_none_match: Option<String>,
    }

    /// How long an entry lives.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Query)]
    struct Lifetime {
        /// Its time to live, such as `90s`, `1h30m` or `7d`.
        ttl: Option<String>,
        /// It keeps the time to live that it has. Not together with `ttl`.
        keep_ttl: Option<bool>,
    }

    /// How long an entry lives from now on: one of the two is needed.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Query)]
    struct NewLifetime {
        /// Its new time to live, such as `90s`, `1h30m` or `7d`.
        ttl: Option<String>,
        /// It does not expire any more.
        persist: Option<bool>,
    }

    /// Whether keys come with their values.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Query)]
    struct WithValues {
        /// With their values; such a page ends after about 1 MiB.
        values: Option<bool>,
    }

    /// Where a stream begins.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Query)]
    struct Beginning {
        /// A cursor: the stream begins after it.
        after: Option<String>,
        /// `never`, or `auto`: what is there comes first, unless a good cursor is given, and again after a loss.
        snapshot: Option<String>,
    }

    /// Where a stream was cut off.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Header)]
    struct Bookmark {
        /// A cursor, which wins over `after` unless it is empty.
        #[param(rename = "Last-Event-ID")]
        last_event_id: Option<String>,
    }

    /// Who writes, for a page that cannot set a header.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Query)]
    struct OriginInQuery {
        /// A label for the writes of the connection.
        origin: Option<String>,
    }

    /// Which messages the client knows.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Header)]
    struct Subprotocol {
        /// `watchkeep.v1`, or left out.
        #[param(rename = "Sec-WebSocket-Protocol")]
        subprotocol: Option<String>,
    }

    /// Who writes.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Header)]
    struct Origin {
        /// A label for the write. A watch may leave out what bears it.
        #[param(rename = "Watchkeep-Origin")]
        origin: Option<String>,
    }

    /// Why a request is refused, as a problem document (RFC 9457).
    #[derive(ToSchema)]
    struct Problem {
        r#type: String,
        title: String,
        status: u16,
        /// For programs.
        kind: String,
        /// What is wrong, and what to do.
        detail: String,
    }

    /// A change: what `watchkeep watch --json` prints in a line.
    #[derive(ToSchema)]
    struct Event {
        revision: u64,
        /// Opaque: compared for equality only.
        cursor: String,
        /// `set`, `delete`, `delete_group`, `expire` or `touch`.
        kind: String,
        group: String,
        key: Option<String>,
        value: Option<String>,
        /// Where the value is not UTF-8.
        value_base64: Option<String>,
        /// Where the value is left out.
        value_bytes: Option<u64>,
        /// RFC 3339.
        timestamp: String,
        #[schema(required = true)]
        origin: Option<String>,
        commit: u64,
        deadline: Option<String>,
        content_type: Option<String>,
        previous_revision: Option<u64>,
        /// It tells what is there, not what changed.
        snapshot: Option<bool>,
    }

    /// What is known of a key.
    #[derive(ToSchema)]
    struct Key {
        key: String,
        bytes: u64,
        revision: u64,
        cursor: String,
        created: u64,
        /// RFC 3339.
        updated: String,
        #[schema(required = true)]
        deadline: Option<String>,
        #[schema(required = true)]
        content_type: Option<String>,
        value: Option<String>,
        /// Where the value is not UTF-8.
        value_base64: Option<String>,
    }
}
