//! A store whose file was replaced is opened again, and everybody goes on with what is there now.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRef, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use watchkeep::{ErrorKind, Store};

use super::Gate;
use crate::limits::{LOSS_LOOK, REOPEN_PAUSE, REOPEN_TIME};
use crate::problem::Problem;
use crate::stream;

type Refusal = Box<dyn Error + Send + Sync>;

/// Opens the store again.
pub(crate) type Reopen = Box<dyn Fn() -> Result<Store, Refusal> + Send + Sync>;

/// The gate that there is, for everybody who comes to it.
#[derive(Debug, Clone)]
pub(crate) struct Gates(watch::Receiver<Now>);

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

impl FromRef<Gates> for Gate {
    fn from_ref(gates: &Gates) -> Gate {
        gates.gate()
    }
}

impl Gates {
    pub(crate) fn new(gate: Gate) -> (Keeper, Gates) {
        let (sender, receiver) = watch::channel(Now { gate, is_lost: false });
        (Keeper(sender), Gates(receiver))
    }

    fn gate(&self) -> Gate {
        let gate = self.0.borrow().gate.clone();
        Gate { gates: Some(self.clone()), ..gate }
    }

    /// The gate, once it is the one of the file that is there, and this holds for it.
    async fn once(&self, holds: impl Fn(&Gate) -> bool) -> Result<Gate, Problem> {
        let mut now = self.0.clone();
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
            Some(gates) => Ok(gates.once(|_| true).await?.for_the_client_of(self)),
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
        Ok(gates.once(|gate| !gate.is(self)).await?.for_the_client_of(self))
    }

    /// What does not depend on the file is as it was.
    fn for_the_client_of(self, other: &Gate) -> Gate {
        Gate { ending: other.ending.clone(), ..self.labelled(other.label.as_deref()) }
    }

    /// Whether another gate has its place, or will have.
    pub(crate) fn is_past(&self) -> bool {
        self.gates.as_ref().is_some_and(|gates| {
            let now = gates.0.borrow();
            now.is_lost || !now.gate.is(self)
        })
    }

    fn is(&self, other: &Gate) -> bool {
        Arc::ptr_eq(&self.streams, &other.streams)
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
    pub(crate) async fn keep(self, reopen: Reopen) {
        let reopen = Arc::new(reopen);
        loop {
            let gate = self.0.borrow().gate.clone();
            gate.lost().await;
            self.0.send_modify(|now| now.is_lost = true);
            let store = open_again(gate.store.store(), &reopen).await;
            tracing::warn!(path = ?store.path(), id = %store.id(), "the store was replaced, and is opened again");
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
    if !Path::try_exists(old.path())? {
        // The old store stays open: whoever moves its files away moves its log, too.
        return Err(format!("nothing is at {:?}", old.path()).into());
    }
    // This puts a log aside that belongs to the old file, and would damage the new one.
    old.close()?;
    reopen()
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
