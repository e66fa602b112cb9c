//! A transaction that is held back on its way to the cluster.

use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::surface::Fault;

/// A transaction that its caller has sent, and that has not reached the cluster.
#[derive(Debug)]
pub struct Held {
    arrived: mpsc::Receiver<()>,
    refuse: Option<oneshot::Sender<()>>,
    deliver: Option<oneshot::Sender<()>>,
    outcome: mpsc::Receiver<Result<bool, String>>,
    limit: Duration,
}

/// The proxy's side.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) arrived: mpsc::Sender<()>,
    pub(super) refuse: oneshot::Receiver<()>,
    pub(super) deliver: oneshot::Receiver<()>,
    /// Whether its compares held, once it is delivered.
    pub(super) outcome: mpsc::Sender<Result<bool, String>>,
}

/// Both sides of a transaction that is to be held back; waits last no longer than `limit`.
pub(super) fn held(limit: Duration) -> (Held, Ends) {
    let ((here, arrived), (refuse, refused)) = (mpsc::channel(), oneshot::channel());
    let ((deliver, delivered), (told, outcome)) = (oneshot::channel(), mpsc::channel());
    let held = Held { arrived, refuse: Some(refuse), deliver: Some(deliver), outcome, limit };
    (held, Ends { arrived: here, refuse: refused, deliver: delivered, outcome: told })
}

impl Held {
    /// Waits until the proxy has it.
    ///
    /// # Errors
    ///
    /// When it does not come.
    pub fn wait(&self) -> Result<(), Fault> {
        self.arrived.recv_timeout(self.limit).map_err(|_| "the transaction to be held does not come".into())
    }

    /// Tells its caller that nobody answers.
    pub fn refuse(&mut self) {
        if let Some(refuse) = self.refuse.take() {
            // The caller may have gone.
            let _ = refuse.send(());
        }
    }

    /// Sends it to the cluster after all; whether its compares held.
    ///
    /// # Errors
    ///
    /// When the cluster does not answer.
    pub fn deliver(mut self) -> Result<bool, Fault> {
        if let Some(deliver) = self.deliver.take() {
            let _ = deliver.send(());
        }
        let outcome = self.outcome.recv_timeout(self.limit);
        outcome.map_err(|_| "the transaction that was held is not answered")?.map_err(Into::into)
    }
}
