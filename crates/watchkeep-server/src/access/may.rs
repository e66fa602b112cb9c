//! What the routes ask for: a gate, for somebody who has the right to it. There is no other way to one.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::door::unauthorized;
use super::rights::Right;
use super::secret::Secret;
use crate::ending::Ending;
use crate::gate::{Gate, Gates};
use crate::problem::Problem;
use crate::query::Query;

/// A gate for somebody with a right.
#[derive(Debug)]
pub(crate) struct May<R>(pub(crate) Gate, pub(crate) PhantomData<R>);

/// The right that a route needs.
pub(crate) trait Needs {
    const RIGHT: Right;
}

macro_rules! rights {
    ($($name:ident),*) => {$(
        #[derive(Debug)]
        pub(crate) struct $name;

        impl Needs for $name {
            const RIGHT: Right = Right::$name;
        }
    )*};
}

rights!(Read, Write, Watch, Inspect);

impl<R: Needs> FromRequestParts<Gates> for May<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gates: &Gates) -> Result<May<R>, Problem> {
        let gate = gates.admit(parts).await?;
        gate.pass.needs(R::RIGHT)?;
        Ok(May(gate, PhantomData))
    }
}

/// A gate for a watch, and the watch's parameters: by a token, or by a ticket, which says what may be watched.
#[derive(Debug)]
pub(crate) struct Streaming(pub(crate) Gate, pub(crate) Query);

impl FromRequestParts<Gates> for Streaming {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gates: &Gates) -> Result<Streaming, Problem> {
        let mut query = Query::from_request_parts(parts, gates).await?;
        let Some(ticket) = query.take("ticket") else {
            let May(gate, _) = May::<Watch>::from_request_parts(parts, gates).await?;
            return Ok(Streaming(gate, query));
        };
        let (gate, fields) = gates.admit_ticket(&ticket, parts).await?;
        gate.pass.needs(Right::Watch)?;
        Ok(Streaming(gate, query.confined_to(fields)?))
    }
}

/// The way in for a connection that may say later who it is, and each of whose messages needs a right of its own.
#[derive(Debug, Clone)]
pub(crate) enum Entrance {
    Known(Gate),
    /// The routes' state, the label of its writes, and when it leaves.
    Unknown(Gates, Option<String>, Ending),
}

impl FromRequestParts<Gates> for Entrance {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gates: &Gates) -> Result<Entrance, Problem> {
        if gates.door().may_say_later(&parts.headers) {
            return Ok(Entrance::Unknown(gates.clone(), None, gates.ending()));
        }
        Ok(Entrance::Known(gates.admit(parts).await?))
    }
}

impl Entrance {
    pub(crate) fn ending(&self) -> Ending {
        match self {
            Entrance::Known(gate) => gate.ending.clone(),
            Entrance::Unknown(_, _, ending) => ending.clone(),
        }
    }

    /// The same, whose writes bear a label.
    pub(crate) fn labelled(self, label: Option<String>) -> Entrance {
        match self {
            Entrance::Known(gate) => Entrance::Known(gate.labelled(label.as_deref())),
            Entrance::Unknown(gates, _, ending) => Entrance::Unknown(gates, label, ending),
        }
    }

    /// The same, for a client that leaves at a moment of its own when the server ends.
    pub(crate) fn leaving(self) -> Entrance {
        match self {
            Entrance::Known(gate) => Entrance::Known(gate.leaving()),
            Entrance::Unknown(gates, label, ending) => Entrance::Unknown(gates, label, ending.drawn()),
        }
    }

    /// The gate for something that needs a right.
    ///
    /// # Errors
    ///
    /// 401 before it is known who asks, 403 without the right.
    pub(crate) fn gate(&self, right: Right) -> Result<&Gate, Problem> {
        match self {
            Entrance::Known(gate) => gate.pass.needs(right).map(|()| gate),
            Entrance::Unknown(..) => Err(unauthorized("say first who you are, with a message of type auth")),
        }
    }

    /// Resolves when who asks may do so no more, with the reason.
    pub(crate) fn over(&self) -> Pin<Box<dyn Future<Output = &'static str> + Send>> {
        match self {
            Entrance::Known(gate) => Box::pin(gate.over()),
            Entrance::Unknown(..) => Box::pin(std::future::pending()),
        }
    }

    /// The gate for somebody who bears this token. Where another was borne before, it must open the same.
    ///
    /// # Errors
    ///
    /// 401 for a token that is not good, 403 for one that is another's.
    pub(crate) async fn show(self, token: &Secret) -> Result<Gate, Problem> {
        match self {
            Entrance::Known(gate) => gate.renew(token).await,
            Entrance::Unknown(gates, label, ending) => {
                let mut gate = gates.admit_token(token).await?.labelled(label.as_deref());
                gate.ending = ending;
                Ok(gate)
            }
        }
    }
}
