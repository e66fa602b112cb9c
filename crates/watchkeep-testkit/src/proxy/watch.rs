//! A watch that passes, and what is made of it.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::mpsc::Sender;
use tonic::{Status, Streaming};

use super::lies::{Lie, Lies, Opening};
use super::wire::{WatchRequest, WatchResponse};

/// From one notice to the next, where they come without end.
const APART: Duration = Duration::from_millis(100);

/// What says that a watch goes on.
enum Next {
    GoesOn,
    Ends,
    /// It stays open, and nothing comes.
    Silent,
    /// It stays open, and nothing but this comes, again and again.
    Says(WatchResponse),
}

struct Watch<'w> {
    lies: &'w Lies,
    to: &'w Sender<Result<Bytes, Status>>,
    /// From which revision on it was asked for.
    start: i64,
    /// Kept back until the next one was passed on.
    swapped: Option<WatchResponse>,
}

/// Passes on what a member says on a watch until it ends, or the client goes.
pub(super) async fn pass_on(
    lies: &Lies,
    request: &Bytes,
    answers: &mut Streaming<Bytes>,
    to: &Sender<Result<Bytes, Status>>,
) {
    let create = WatchRequest::decode(request.clone()).ok().and_then(|request| request.create);
    let start = create.map_or(0, |create| create.start_revision);
    let mut watch = Watch { lies, to, start, swapped: None };
    loop {
        let message = tokio::select! {
            () = to.closed() => return,
            message = answers.message() => message,
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(status) => return drop(to.send(Err(status)).await),
        };
        lies.pass().await;
        match watch.response(message).await {
            Next::GoesOn => {}
            Next::Ends => return,
            Next::Silent => return to.closed().await,
            Next::Says(response) => return say(&response, to).await,
        }
    }
}

/// Says the same until the client goes.
async fn say(response: &WatchResponse, to: &Sender<Result<Bytes, Status>>) {
    let message: Bytes = response.encode_to_vec().into();
    while to.send(Ok(message.clone())).await.is_ok() {
        tokio::time::sleep(APART).await;
    }
}

impl Watch<'_> {
    async fn send(&self, response: &WatchResponse) {
        self.send_raw(response.encode_to_vec().into()).await;
    }

    async fn send_raw(&self, message: Bytes) {
        // A client that has gone is noticed by the next turn.
        drop(self.to.send(Ok(message)).await);
    }

    async fn response(&mut self, message: Bytes) -> Next {
        let Ok(response) = WatchResponse::decode(message.clone()) else {
            self.send_raw(message).await;
            return Next::GoesOn;
        };
        if response.created && !response.canceled {
            return self.opening(message, response).await;
        }
        let lie = if response.events.is_empty() { None } else { self.lies.of_response(&response) };
        let Some(lie) = lie else {
            self.send_raw(message).await;
            if let Some(swapped) = self.swapped.take() {
                self.send(&swapped).await;
                self.lies.note_told();
            }
            return Next::GoesOn;
        };
        let next = self.lie(lie, message, response).await;
        if lie != Lie::Swap {
            self.lies.note_told();
        }
        next
    }

    async fn opening(&self, message: Bytes, created: WatchResponse) -> Next {
        self.send_raw(message).await;
        match self.lies.of_opening(self.start) {
            None => Next::GoesOn,
            Some((Opening::Below, old)) => {
                let old = WatchResponse { header: created.header, watch_id: created.watch_id, ..old };
                self.send(&old).await;
                self.lies.note_told();
                Next::GoesOn
            }
            Some((Opening::Compacted, _)) => {
                self.send(&compacted(created)).await;
                self.lies.note_told();
                Next::Ends
            }
        }
    }

    async fn lie(&mut self, lie: Lie, message: Bytes, response: WatchResponse) -> Next {
        match lie {
            Lie::Drop => Next::GoesOn,
            Lie::Double => {
                self.send_raw(message.clone()).await;
                self.send_raw(message).await;
                Next::GoesOn
            }
            Lie::Swap => {
                // Of two in a row the first one goes now.
                if let Some(first) = self.swapped.replace(response) {
                    self.send(&first).await;
                    self.lies.note_told();
                }
                Next::GoesOn
            }
            Lie::Old => {
                self.send_raw(message).await;
                if let Some(old) = self.lies.oldest() {
                    self.send(&WatchResponse { watch_id: response.watch_id, ..old }).await;
                }
                Next::GoesOn
            }
            Lie::Silence => Next::Silent,
            Lie::Notices => Next::Says(WatchResponse { events: Vec::new(), ..response }),
            Lie::Known => {
                let watch_id = response.watch_id;
                self.lies.oldest().map_or(Next::Silent, |old| Next::Says(WatchResponse { watch_id, ..old }))
            }
            Lie::End => Next::Ends,
            Lie::EndAfter => {
                self.send_raw(message).await;
                Next::Ends
            }
            Lie::Notice => {
                self.send(&WatchResponse { events: Vec::new(), ..response }).await;
                Next::Ends
            }
            Lie::Fragments => {
                for event in &response.events {
                    let events = vec![event.clone()];
                    self.send(&WatchResponse { fragment: true, events, ..response.clone() }).await;
                }
                self.send(&WatchResponse { events: Vec::new(), ..response }).await;
                Next::GoesOn
            }
            Lie::Half => {
                let half = response.events.len().div_ceil(2);
                let events = response.events.iter().take(half).cloned().collect();
                self.send(&WatchResponse { fragment: true, events, ..response }).await;
                Next::Ends
            }
            Lie::Compacted => {
                self.send(&compacted(response)).await;
                Next::Ends
            }
        }
    }
}

/// Says that everything up to the revision of a response is compacted.
fn compacted(response: WatchResponse) -> WatchResponse {
    WatchResponse {
        canceled: true,
        created: false,
        compact_revision: response.header.as_ref().map_or(0, |header| header.revision),
        cancel_reason: "etcdserver: mvcc: required revision has been compacted".to_owned(),
        events: Vec::new(),
        ..response
    }
}
