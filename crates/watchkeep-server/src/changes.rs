//! `/v1/changes`: pages of the log, and long polling.

use std::pin::Pin;
use std::time::Duration;

use axum::Extension;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LINK, VARY};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, BytesMut};
use futures_core::Stream;
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::access::{self, May, Read};
use crate::admission::Load;
use crate::change::Values;
use crate::entry::CURSOR;
use crate::gate::{Asked, Gate, Page, Position};
use crate::limits::{CHANGES, WAIT_TIME};
use crate::lists::limit;
use crate::openapi::{Event, Filtered, PagedLog};
use crate::problem::Problem;
use crate::query::{self, Query};
use crate::subscription::{Snapshots, Subscription, Told, Wanted};

/// The rest of the log may grow, be trimmed, or be lost with the power. What lies between two positions does not.
const FOR_EVER: &str = "private, max-age=31536000, immutable";

/// A page of the log: what follows a position, up to another or to the end.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is declared for the document; its events are encoded already")]
struct Changes {
    events: Vec<Event>,
    /// The cursor to go on after.
    next: String,
    /// The oldest cursor that a page may begin after; not where `upto` is given.
    floor: Option<String>,
    /// The end of the log; not where `upto` is given.
    end: Option<String>,
}

/// Pages of the log, and long polling.
#[utoipa::path(
    get,
    path = "/v1/changes",
    operation_id = "list_changes",
    params(PagedLog, Filtered),
    security((), ("token" = ["read"])),
    responses((status = 200, body = Changes, description = "A page of the log.", headers(
        ("Watchkeep-Cursor"), ("Link", description = "The lasting address of a full page."),
    ), links(("next" = (operation_id = "list_changes", parameters(("after" = "$response.body#/next")))))))
)]
pub(crate) async fn changes(
    May(gate, _): May<Read>,
    Extension(load): Extension<Load>,
    mut query: Query,
) -> Result<Response, Problem> {
    let namespace = query.take("ns");
    // Without it the same address may stand for another namespace tomorrow.
    let is_named = namespace.is_some();
    if let Some(namespace) = namespace.filter(|namespace| namespace != gate.namespace()) {
        let detail = format!(
            "ns={namespace:?} is not what is served here, which is {:?}; leave it out",
            gate.namespace()
        );
        return Err(Problem::new(StatusCode::FORBIDDEN, "foreign_namespace", detail));
    }
    let (after, upto) = (query.take("after"), query.take("upto"));
    let (wait, rows) = (query.duration("wait")?, limit(&mut query, CHANGES)?);
    // What is left says which events: the lasting address of a page says the same.
    let which = query.to_string();
    let ((filter, weight), values) = (query::filter(&mut query)?, query::values(&mut query)?);
    let exclude_origin = query.take("exclude_origin");
    query.end()?;
    let asked =
        Asked { filter, exclude_origin, after: after.map(Into::into), upto: upto.map(Into::into), rows };
    let page = match wait {
        Some(_) if asked.upto.is_some() => {
            return Err(Problem::bad("what comes before upto= is there already; leave out wait="));
        }
        Some(wait) if wait > WAIT_TIME => {
            return Err(Problem::bad(format!("wait= is {} seconds at the most", WAIT_TIME.as_secs())));
        }
        Some(wait) => {
            let _held = load.filter(weight)?;
            within(&gate, asked.clone(), wait).await?
        }
        None => gate.changes(&asked).await?,
    };
    let lasts = is_named && asked.after.is_some() && asked.upto.is_some() && !page.is_full;
    Ok(answer(&gate, &asked, &page, values, lasts, &which))
}

/// A page with a match, or the one that is there when the time is over. The second page begins where the wait ended, as
/// what was passed over meanwhile may be much, or trimmed by now.
async fn within(gate: &Gate, mut asked: Asked, wait: Duration) -> Result<Page, Problem> {
    let page = gate.changes(&asked).await?;
    if page.is_full || !page.changes.is_empty() {
        return Ok(page);
    }
    asked.after = Some(page.next);
    let wanted = Wanted {
        filter: asked.filter.clone(),
        weight: 0,
        snapshots: Snapshots::Never,
        after: asked.after.clone(),
        exclude_origin: asked.exclude_origin.clone(),
        values: Values::None,
    };
    let mut subscription = Subscription::begin(gate, wanted).await?;
    asked.after = Some(match timeout(wait, news(&mut subscription)).await {
        Ok(at) => at?,
        Err(_) => subscription.position(),
    });
    drop(subscription);
    loop {
        let page = gate.changes(&asked).await?;
        if !page.is_full || !page.changes.is_empty() {
            return Ok(page);
        }
        asked.after = Some(page.next);
    }
}

/// Returns when there is something to read, and where it begins.
async fn news(subscription: &mut Subscription) -> Result<Position, Problem> {
    loop {
        let at = subscription.position();
        match std::future::poll_fn(|cx| Pin::new(&mut *subscription).poll_next(cx)).await {
            Some(Told::Ready(_) | Told::Heartbeat(_)) => {}
            Some(Told::Trouble(problem)) => return Err(problem),
            Some(Told::Bye(reason @ (access::REVOKED | access::EXPIRED | access::UNAUTHORIZED))) => {
                return Err(access::over(reason));
            }
            Some(Told::Bye(reason)) => {
                let detail = "the server ends, or closes its store; ask again when it is back";
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, reason, detail));
            }
            // A change, or a loss: reading says which.
            _ => return Ok(at),
        }
    }
}

fn answer(gate: &Gate, asked: &Asked, page: &Page, values: Values, lasts: bool, which: &str) -> Response {
    let mut body = BytesMut::from(&br#"{"events":["#[..]);
    for (number, change) in page.changes.iter().enumerate() {
        if number > 0 {
            body.put_u8(b',');
        }
        body.put_slice(&change.json(values));
    }
    body.put_slice(format!(r#"],"next":"{}""#, page.next).as_bytes());
    if asked.upto.is_none() {
        body.put_slice(format!(r#","floor":"{}","end":"{}""#, page.floor, page.end).as_bytes());
    }
    body.put_u8(b'}');

    let caching = if lasts && gate.is_durable() { FOR_EVER } else { "no-store" };
    let headers: [(HeaderName, String); 4] = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (CACHE_CONTROL, caching.to_owned()),
        (VARY, "Authorization".to_owned()),
        (CURSOR, page.next.to_string()),
    ];
    let link = (gate.is_durable() && page.is_full).then(|| {
        let ends = format!("ns={}&after={}&upto={}", gate.namespace(), page.after, page.next);
        [(LINK, format!(r#"<?{ends}{which}>; rel="bookmark""#))]
    });
    (headers, link, body.freeze()).into_response()
}
