//! What can be said about a store and its streams in numbers, and whether it answers.

use std::iter::once;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::http::StatusCode;
use tokio::time::timeout;
use watchkeep::{Counters, Stats};

use super::{Gate, lock};
use crate::limits::{READY_TIME, SURVEY_AGE};
use crate::problem::Problem;

/// The numbers of one moment.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) counters: Counters,
    /// None while the store does not answer.
    pub(crate) stats: Option<Stats>,
    pub(crate) is_ready: bool,
    pub(crate) subscriptions: u64,
    pub(crate) sockets: u64,
    pub(crate) rings: u64,
    pub(crate) ring_bytes: u64,
}

/// What a store in a cluster said of itself last: it reads all entries for that.
#[derive(Debug, Default)]
pub(super) struct Surveyed {
    last: Mutex<Option<(Instant, Stats)>>,
    is_under_way: AtomicBool,
}

impl Gate {
    /// The numbers of this moment; nobody waits long for them.
    ///
    /// # Errors
    ///
    /// 403 for a client of one namespace: they are of the whole store.
    pub(crate) async fn figures(&self) -> Result<Figures, Problem> {
        if self.pass.namespace.is_some() {
            let detail =
                "this is of the whole store, and the token of one namespace; make one without --namespace";
            return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
        }
        let number = |many: usize| u64::try_from(many).unwrap_or(u64::MAX);
        let streams: Vec<_> = once(&self.streams).chain(lock(&self.file).values()).cloned().collect();
        Ok(Figures {
            counters: self.store.store().counters(),
            stats: self.survey().await,
            is_ready: self.readiness().await.is_ok(),
            subscriptions: number(streams.iter().map(|streams| streams.clients()).sum()),
            sockets: number(self.ending.sockets()),
            rings: number(streams.iter().map(|streams| streams.rings().len()).sum()),
            ring_bytes: number(self.streams.changes.bytes()),
        })
    }

    /// The store's numbers, if it says them in time; those of a cluster may be some minutes old.
    async fn survey(&self) -> Option<Stats> {
        if self.store.store().address().is_none() {
            return timeout(READY_TIME, self.store.stats()).await.ok()?.ok();
        }
        let surveyed = self.streams.surveyed.clone();
        let is_old = lock(&surveyed.last).as_ref().is_none_or(|(at, _)| at.elapsed() >= SURVEY_AGE);
        if is_old && !surveyed.is_under_way.swap(true, Ordering::AcqRel) {
            let (store, noted) = (self.store.clone(), surveyed.clone());
            // It goes on when nobody waits for it any more.
            let reading = tokio::spawn(async move {
                if let Ok(stats) = store.stats().await {
                    *lock(&noted.last) = Some((Instant::now(), stats));
                }
                noted.is_under_way.store(false, Ordering::Release);
            });
            let _ = timeout(READY_TIME, reading).await;
        }
        lock(&surveyed.last).as_ref().map(|(_, stats)| stats.clone())
    }

    /// Whether requests should come here.
    ///
    /// # Errors
    ///
    /// When the server ends, its store's file was replaced, or a read of it or of the credentials fails or takes too long.
    pub(crate) async fn readiness(&self) -> Result<(), Problem> {
        let refusal = |kind, detail| Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, kind, detail));
        if self.ending.has_begun() {
            return refusal("draining", "the server ends");
        }
        if self.is_past() {
            return refusal("replaced", "the store's file was replaced, and is being opened again");
        }
        let reads = async {
            self.last().await?;
            match &self.gates {
                Some(gates) => gates.door().readiness().await,
                None => Ok(()),
            }
        };
        match timeout(READY_TIME, reads).await {
            Ok(both) => both,
            Err(_) => refusal("too_slow", "the store did not answer a read in time"),
        }
    }
}
