//! A store on the network: entries over plain HTTP, and every change as a server-sent event.
//!
//! [`router`] is an [`axum::Router`] that an application mounts in its own server; [`Server`] is the whole server,
//! which `watchkeep serve` runs. What goes over the wire, and what it promises, is written down in `docs/wire.md`.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use watchkeep::Store;
//! use watchkeep_server::{Listen, Server};
//!
//! let store = Store::open("app.db")?;
//! let server = Server::bind(&store, &Listen::default()).await?;
//! println!("{}", server.url());
//! server.run().await;
//! # Ok(())
//! # }
//! ```

mod access;
mod admission;
mod batch;
mod change;
mod changes;
mod conditions;
mod cors;
mod ending;
mod entry;
mod exposure;
mod frame;
mod gate;
mod guard;
mod headers;
mod health;
mod limits;
mod lists;
mod metrics;
mod mounted;
mod openapi;
mod paced;
mod page;
mod place;
mod places;
mod problem;
mod proxies;
mod query;
mod range;
mod ring;
mod serve;
mod settings;
mod stall;
mod stream;
mod subscription;
mod tickets;
mod tide;
mod tls;
mod transport;
mod turns;
mod unix;
mod ws;

use std::sync::Arc;

use axum::routing::get;
use axum::{Extension, Router, middleware};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use watchkeep::Store;

use access::Door;
use admission::Admission;
use ending::Ending;
use gate::{Gate, Gates};
use guard::Guard;
use metrics::Metrics;

pub use access::{Access, Created, Grant, Principal, Rights, Token};
pub use cors::PageOrigin;
pub use ending::Closer;
pub use exposure::may_listen;
pub use guard::HostName;
pub use mounted::Hub;
pub use proxies::ProxyNet;
pub use serve::{Bound, Listen, Server};
pub use settings::{Descriptors, Limit, Limits, Reached, raise_descriptors};
pub use tls::{Tls, TlsError};

/// The routes over a store, for an application that mounts them in a server of its own. They ask nobody who they are;
/// those of a [`Hub`] ask the application.
///
/// Requests are answered only under a name of this machine (`localhost`, or an address of loopback), and only to pages of
/// the same origin: a page of a stranger in a browser on this machine must not reach the store.
///
/// When the store's file is replaced, everything is answered with 503 and kind `replaced` from then on: the store is the
/// application's, whose handle reports the same. It opens the file again and mounts a new router, or runs a [`Server`],
/// which can [do that by itself](Server::reopen_with).
///
/// ```
/// use watchkeep::Store;
/// let store = Store::open_in_memory()?;
/// let router: axum::Router = watchkeep_server::router(&store);
/// # drop(router);
/// # Ok::<(), watchkeep::Error>(())
/// ```
pub fn router(store: &Store) -> Router {
    let admission = Admission::new(Limits::default(), Reached::default());
    let gates = Gates::new(Gate::new(store, Ending::never()), Door::Open).1;
    routes(gates, Guard::default(), admission, Document::default()).0
}

/// The same for a server of our own: counted, and with what a machine asks about a server.
fn watched(gates: Gates, guard: Guard, admission: Admission) -> Router {
    let reached = admission.reached();
    let (numbers, document) = OpenApiRouter::new().routes(routes!(metrics::answer)).split_for_parts();
    // Whether it runs may be asked under any name, and by anybody: a machine asks by an address.
    let health = OpenApiRouter::new().routes(routes!(health::healthy)).routes(routes!(health::ready));
    let (health, of_health) = health.split_for_parts();
    let document = document.merge_from(of_health);
    let (router, paths) = routes(gates.clone(), guard.clone(), admission, document);
    let metrics = Arc::new(Metrics::of(&paths, reached));
    numbers
        .method_not_allowed_fallback(problem::no_method)
        .layer(Extension(metrics.clone()))
        .layer(middleware::from_fn_with_state(guard, guard::check))
        .merge(health.method_not_allowed_fallback(problem::no_method))
        .with_state(gates)
        .merge(router)
        .layer(middleware::from_fn_with_state(metrics, metrics::count))
}

/// The routes, and the paths of all that the document describes, which others are described in.
fn routes(gates: Gates, guard: Guard, admission: Admission, others: Document) -> (Router, Vec<String>) {
    let (declared, document) = OpenApiRouter::with_openapi(openapi::Api::openapi())
        .routes(entry::routes())
        .routes(routes!(batch::apply))
        .routes(routes!(lists::groups))
        .routes(routes!(lists::keys))
        .routes(routes!(lists::group, lists::delete_group))
        .routes(routes!(lists::stats))
        .routes(routes!(changes::changes))
        .routes(routes!(stream::watch))
        .routes(routes!(tickets::make))
        .routes(routes!(ws::open))
        .routes(routes!(page::index))
        .routes(routes!(page::script))
        .routes(routes!(page::style))
        .split_for_parts();
    let document = openapi::complete(document.merge_from(others));
    let paths = document.paths.paths.keys().cloned().collect();
    let guard = guard.at(&document);
    let document = openapi::encode(&document);
    let router = declared
        .route(openapi::NAMED_ENTRY, entry::routes().2)
        .route("/v1/openapi.json", get(async move || openapi::answer(document)))
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(middleware::from_fn_with_state(gates.clone(), gate::wait))
        .layer(middleware::from_fn(problem::in_time))
        .layer(middleware::from_fn(query::check_escapes))
        .layer(middleware::from_fn_with_state(admission, admission::admit))
        .layer(middleware::from_fn_with_state(guard, guard::check))
        .with_state(gates);
    (router, paths)
}
