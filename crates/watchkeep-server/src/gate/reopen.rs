//! A store whose file was replaced is opened again, and everybody goes on with what is there now.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use watchkeep::{ErrorKind, Store, Timestamp};

use super::{Gate, Streams, lock};
use crate::access::{self, Door, Fields, Pass, Secret};
use crate::admission::Load;
use crate::ending::Ending;
use crate::limits::{LOSS_LOOK, REOPEN_PAUSE, REOPEN_TIME};
use crate::problem::Problem;
use crate::stream;

type Refusal = Box<dyn Error + Send + Sync>;

/// Opens the store again.
pub(crate) type Reopen = Box<dyn Fn() -> Result<Store, Refusal> + Send + Sync>;

/// The gate that there is, for everybody who comes to it.
#[derive(Debug, Clone)]
pub(crate) struct Gates {
    now: watch::Receiver<Now>,
    door: Door,
}

/// Has no way back to [`Gates`]: they would keep each other, and the store open.
#[derive(Debug)]
struct Now {
    gate: Gate,
    /// Its file was replaced, and the one that is there now is being opened.
    is_lost: bool,
}

/// The one that puts another gate there.
#[derive(Debug)]
pub(crate) struct Keeper(watch::Sender<Now>);

impl Gates {
    pub(crate) fn new(gate: Gate, door: Door) -> (Keeper, Gates) {
        let (sender, receiver) = watch::channel(Now { gate, is_lost: false });
        (Keeper(sender), Gates { now: receiver, door })
    }

    /// The same store behind another door.
    pub(crate) fn behind(self, door: Door) -> Gates {
        Gates { door, ..self }
    }

    pub(crate) fn door(&self) -> &Door {
        &self.door
    }

    pub(crate) fn ending(&self) -> Ending {
        self.now.borrow().gate.ending.clone()
    }

    /// Whether requests should come here, whoever makes them.
    ///
    /// # Errors
    ///
    /// As [`Gate::readiness`].
    pub(crate) async fn readiness(&self) -> Result<(), Problem> {
        self.gate().readiness().await
    }

    /// The gate for whoever makes a request.
    ///
    /// # Errors
    ///
    /// As [`Door::admit`], and 429 when too much of a token is under way.
    pub(crate) async fn admit(&self, parts: &Parts) -> Result<Gate, Problem> {
        let gate = self.gate();
        let pass = self.door.admit(parts, gate.id()).await?;
        count(parts, &pass)?;
        gate.let_in(pass)
    }

    /// The gate for whoever bears a ticket, and what it is for.
    ///
    /// # Errors
    ///
    /// As [`Door::admit_ticket`], and 429 when too much of its token is under way.
    pub(crate) async fn admit_ticket(&self, ticket: &str, parts: &Parts) -> Result<(Gate, Fields), Problem> {
        let gate = self.gate();
        let (pass, fields) = self.door.admit_ticket(ticket, parts, gate.id()).await?;
        count(parts, &pass)?;
        Ok((gate.let_in(pass)?, fields))
    }

    /// The gate for whoever bears a token.
    ///
    /// # Errors
    ///
    /// As [`Door::admit_token`].
    pub(crate) async fn admit_token(&self, token: &Secret) -> Result<Gate, Problem> {
        let gate = self.gate();
        let pass = self.door.admit_token(token, gate.id()).await?;
        gate.let_in(pass)
    }

    fn gate(&self) -> Gate {
        let gate = self.now.borrow().gate.clone();
        Gate { gates: Some(self.clone()), ..gate }
    }

    /// The gate, once it is the one of the file that is there, and this holds for it.
    async fn once(&self, holds: impl Fn(&Gate) -> bool) -> Result<Gate, Problem> {
        let mut now = self.now.clone();
        let whole = now.wait_for(|now| !now.is_lost && holds(&now.gate));
        match timeout(REOPEN_TIME, whole).await {
            Ok(Ok(_)) => Ok(self.gate()),
            // Nobody opens it again.
            Ok(Err(_)) | Err(_) => Err(replaced()),
        }
    }
}

impl Gate {
    /// The gate of the file that is there now, with the same label.
    ///
    /// # Errors
    ///
    /// 503 when it is not opened in time.
    pub(crate) async fn current(&self) -> Result<Gate, Problem> {
        match &self.gates {
            Some(gates) => self.again(gates.once(|_| true).await?),
            None => Ok(self.clone()),
        }
    }

    /// The gate that comes after this one, whose file was replaced.
    ///
    /// # Errors
    ///
    /// 503 when nobody opens that file, or not in time.
    pub(crate) async fn next(&self) -> Result<Gate, Problem> {
        let Some(gates) = &self.gates else { return Err(replaced()) };
        self.again(gates.once(|gate| !gate.is(self)).await?)
    }

    /// Another gate, for the same client.
    fn again(&self, gate: Gate) -> Result<Gate, Problem> {
        // Tokens of the file before open nothing in this one.
        if let Some(why) = self.pass.ended() {
            return Err(access::over(why));
        }
        Ok(gate.let_in(self.pass.clone())?.for_the_client_of(self))
    }

    /// What depends neither on the file nor on a token is as it was.
    fn for_the_client_of(self, other: &Gate) -> Gate {
        Gate { ending: other.ending.clone(), ..self.labelled(other.label.as_deref()) }
    }

    /// The gate for somebody: of the namespace that it is confined to.
    fn let_in(self, pass: Pass) -> Result<Gate, Problem> {
        let gate = match &pass.namespace {
            Some(namespace) if namespace != self.namespace() => {
                if !self.namespace().is_empty() {
                    let detail = format!("namespace {namespace:?} is not served here; ask another server");
                    return Err(Problem::new(StatusCode::FORBIDDEN, "foreign_namespace", detail));
                }
                let store = self.store.store().scoped(namespace)?.to_async();
                let own = || Arc::new(Streams::over(self.streams.changes.beside()));
                let streams = lock(&self.file).entry(namespace.clone()).or_insert_with(own).clone();
                Gate { store, streams, ..self }
            }
            _ => self,
        };
        Ok(Gate { pass, ..gate })
    }

    /// The gate for the bearer of another token, which opens the same.
    ///
    /// # Errors
    ///
    /// 401 for a token that is not good, 403 for one that does not open the same.
    pub(crate) async fn renew(&self, token: &Secret) -> Result<Gate, Problem> {
        let Some(gates) = &self.gates else { return Ok(self.clone()) };
        let gate = gates.admit_token(token).await?;
        if !gate.pass.replaces(&self.pass) {
            let detail = "the token does not open what the one before did; open another connection with it";
            return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
        }
        Ok(gate.for_the_client_of(self))
    }

    /// Makes a ticket for a watch; and when it ends.
    ///
    /// # Errors
    ///
    /// As [`Door::sell`].
    pub(crate) async fn sell(
        &self,
        fields: Fields,
        origin: Option<String>,
    ) -> Result<(Secret, Timestamp), Problem> {
        let door = self.gates.as_ref().map_or(&Door::Open, Gates::door);
        door.sell(&self.pass, fields, origin).await
    }

    /// Resolves when its client may use it no more, with the reason.
    pub(crate) fn over(&self) -> impl Future<Output = &'static str> + Send + use<> {
        self.pass.clone().over()
    }

    /// The same gate, for what ends with something else.
    pub(crate) fn without_end(&self) -> Gate {
        Gate { pass: self.pass.clone().without_end(), ..self.clone() }
    }

    /// Whether another gate has its place, or will have.
    pub(crate) fn is_past(&self) -> bool {
        self.gates.as_ref().is_some_and(|gates| {
            let now = gates.now.borrow();
            now.is_lost || !now.gate.is(self)
        })
    }

    fn is(&self, other: &Gate) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
    }

    /// Returns when the file was replaced. The library finds that out by itself, also while nobody uses the store.
    async fn lost(&self) {
        loop {
            match self.store.last_revision().await.map_err(|error| error.kind()) {
                Err(ErrorKind::Replaced) => return,
                // By the application, which does not want it any more.
                Err(ErrorKind::Closed) => std::future::pending().await,
                _ => sleep(LOSS_LOOK).await,
            }
        }
    }
}

impl Keeper {
    /// Opens the store again each time that its file was replaced. Nobody else does, so it happens once.
    pub(crate) async fn keep(self, reopen: Reopen, door: Door) {
        let reopen = Arc::new(reopen);
        loop {
            let gate = self.0.borrow().gate.clone();
            gate.lost().await;
            self.0.send_modify(|now| now.is_lost = true);
            let store = open_again(gate.store.store(), &reopen).await;
            tracing::warn!(path = ?store.path(), id = %store.id(), "the store was replaced, and is opened again");
            door.moved_to(store.id());
            self.0.send_replace(Now { gate: Gate::new(&store, gate.ending), is_lost: false });
        }
    }
}

/// Tries until it works: a restore may take its time.
async fn open_again(old: &Store, reopen: &Arc<Reopen>) -> Store {
    let mut pause = REOPEN_PAUSE.start;
    loop {
        let (old, reopen) = (old.clone(), reopen.clone());
        let refusal = match spawn_blocking(move || try_again(&old, &reopen)).await {
            Ok(Ok(store)) => return store,
            Ok(Err(refusal)) => refusal,
            Err(panicked) => panicked.into(),
        };
        if pause == REOPEN_PAUSE.start {
            tracing::warn!(error = %refusal, "the store was replaced, and cannot be opened yet");
        }
        sleep(pause).await;
        pause = Duration::min(2 * pause, REOPEN_PAUSE.end);
    }
}

fn try_again(old: &Store, reopen: &Reopen) -> Result<Store, Refusal> {
    if let Some(path) = old.path()
        && !path.try_exists()?
    {
        // The old store stays open: whoever moves its files away moves its log, too.
        return Err(format!("nothing is at {path:?}").into());
    }
    // This puts a log aside that belongs to the old file, and would damage the new one.
    old.close()?;
    reopen()
}

/// Counts a request for its token. Routes that are answered over the limits have no load.
fn count(parts: &Parts, pass: &Pass) -> Result<(), Problem> {
    parts.extensions.get::<Load>().map_or(Ok(()), |load| load.bear(pass))
}

fn replaced() -> Problem {
    let detail = "the store's file was replaced, and the one that is there now is not open yet; ask again";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "replaced", detail)
}

/// Lets requests wait while the store is being opened again.
pub(crate) async fn wait(State(gates): State<Gates>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !path.starts_with("/v1/") {
        return next.run(request).await;
    }
    match gates.once(|_| true).await {
        Err(problem) if path == stream::ROUTE => stream::trouble(problem),
        Err(problem) => problem.into_response(),
        Ok(_) => next.run(request).await,
    }
}
