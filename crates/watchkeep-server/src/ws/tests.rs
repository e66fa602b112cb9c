//! The clocks of a connection: each against a peer in memory, on a clock that does not wait.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Error;
use axum::extract::ws::Message;
use futures_core::Stream;
use futures_util::Sink;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;
use watchkeep::Store;

use super::connection;
use crate::access::Entrance;
use crate::admission::{Admission, Load};
use crate::ending::{Closer, Ending};
use crate::gate::Gate;
use crate::limits::{CLOSE_TIME, HEARTBEAT, LEAVE_TIME, SILENCE};
use crate::settings::{Limit, Limits, Reached};

/// The server's side of a connection in memory, which takes so many messages and no more.
struct Wire {
    heard: UnboundedReceiver<Message>,
    said: UnboundedSender<Message>,
    room: Room,
}

/// How many messages a peer takes, and who waits for it to take more.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<Taking>>);

#[derive(Default)]
struct Taking {
    room: usize,
    waker: Option<Waker>,
    /// How many messages of the peer's were looked at.
    heard: usize,
}

impl Room {
    fn grow(&self, by: usize) {
        let mut taking = self.0.lock().unwrap();
        taking.room += by;
        if let Some(waker) = taking.waker.take() {
            waker.wake();
        }
    }

    fn heard(&self) -> usize {
        self.0.lock().unwrap().heard
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut taking = self.0.lock().unwrap();
        if taking.room > 0 {
            return Poll::Ready(Ok(()));
        }
        taking.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Stream for Wire {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let heard = self.heard.poll_recv(cx);
        if heard.is_ready() {
            self.room.0.lock().unwrap().heard += 1;
        }
        heard.map(|message| message.map(Ok))
    }
}

impl Sink<Message> for Wire {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.room.poll(cx)
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        self.room.0.lock().unwrap().room -= 1;
        self.said.send(message).map_err(Error::new)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.room.poll(cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
}

struct Peer {
    say: UnboundedSender<Message>,
    told: UnboundedReceiver<Message>,
    room: Room,
    closer: Closer,
    ended: tokio::task::JoinHandle<Duration>,
}

/// A connection whose peer takes so many messages.
fn connect(takes: usize) -> Peer {
    connect_with(takes, Limits::default())
}

fn connect_with(takes: usize, limits: Limits) -> Peer {
    let room = Room::default();
    room.grow(takes);
    let store = Store::open_in_memory().unwrap();
    let (closer, ending) = Ending::pair();
    let ((say, heard), (said, told)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let wire = Wire { heard, said, room: room.clone() };
    let ended = tokio::spawn(async move {
        let start = Instant::now();
        let admission = Admission::new(limits, Reached::default());
        connection::run(Entrance::Known(Gate::new(&store, ending)), None, Load::of(admission, None), wire)
            .await;
        start.elapsed()
    });
    Peer { say, told, room, closer, ended }
}

/// A connection ends after so long; its clock goes in steps of a millisecond.
async fn ends_after(ended: tokio::task::JoinHandle<Duration>, expected: Duration) {
    let time = tokio::time::timeout(expected * 10, ended).await.expect("it goes on").unwrap();
    assert!(time >= expected && time < expected + Duration::from_secs(1), "{time:?}, not {expected:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_pinged_and_then_dropped() {
    let mut peer = connect(usize::MAX);
    ends_after(peer.ended, SILENCE).await;
    let mut pings = 0;
    while let Ok(message) = peer.told.try_recv() {
        assert!(matches!(message, Message::Ping(_)), "{message:?}");
        pings += 1;
    }
    assert_eq!(pings, SILENCE.as_secs() / HEARTBEAT.as_secs() - 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_its_pings_stays() {
    let mut peer = connect(usize::MAX);
    for _ in 0..100 {
        let Some(Message::Ping(ping)) = peer.told.recv().await else { panic!("no ping came") };
        peer.say.send(Message::Pong(ping)).unwrap();
    }
    drop(peer.say);
    ends_after(peer.ended, HEARTBEAT * 100).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_dropped() {
    let mut peer = connect(1);
    for _ in 0..3 {
        peer.say.send(Message::Text("nonsense".into())).unwrap();
    }
    ends_after(peer.ended, Limits::default().time(Limit::StallSeconds)).await;
    assert!(matches!(peer.told.try_recv(), Ok(Message::Text(_))));
    assert!(peer.told.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_does_not_wait_for_a_peer_that_takes_nothing() {
    let peer = connect(1);
    for _ in 0..3 {
        peer.say.send(Message::Text("nonsense".into())).unwrap();
    }
    tokio::task::yield_now().await;
    peer.closer.close();
    ends_after(peer.ended, LEAVE_TIME).await;
}

#[tokio::test]
async fn a_peer_that_is_behind_is_told_that_the_server_ends() {
    let mut peer = connect(1);
    peer.say.send(Message::Text(r#"{"type":"subscribe","id":"s"}"#.into())).unwrap();
    assert!(peer.hear().await.contains("ready"));
    peer.closer.close();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(peer.told.try_recv().is_err());
    peer.room.grow(10);
    assert!(peer.hear().await.contains("bye"));
    assert!(matches!(peer.told.recv().await, Some(Message::Close(_))));
    drop(peer.say);
    peer.ended.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_does_not_wait_for_the_answer_to_its_close() {
    let mut peer = connect(usize::MAX);
    peer.closer.close();
    let Some(Message::Close(Some(frame))) = peer.told.recv().await else { panic!("no close came") };
    assert_eq!(frame.code, 1001);
    ends_after(peer.ended, CLOSE_TIME).await;
}

impl Peer {
    fn say(&self, message: &str) {
        self.say.send(Message::Text(message.into())).unwrap();
    }

    async fn hear(&mut self) -> String {
        match self.told.recv().await {
            Some(Message::Text(text)) => text.to_string(),
            other => panic!("no text, but {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_subscription_that_was_ended_makes_room_at_once() {
    let mut peer = connect_with(usize::MAX, Limits::default().with(Limit::Subscriptions, 3));
    // All in one go, so that nothing but its own order lies between an end and a beginning.
    for id in ["a", "b", "c"] {
        peer.say(&format!(r#"{{"type":"subscribe","id":"{id}"}}"#));
    }
    for _ in 0..20 {
        peer.say(r#"{"type":"unsubscribe","id":"b"}"#);
        peer.say(r#"{"type":"subscribe","id":"b"}"#);
    }
    peer.say(r#"{"type":"subscribe","id":"more"}"#);
    let mut last = String::new();
    for _ in 0..3 + 20 * 2 {
        last = peer.hear().await;
        assert!(last.contains("ready") || last.contains("done"), "{last}");
    }
    assert!(last.contains("ready"), "{last}");
    assert!(peer.hear().await.contains("too_many_subscriptions"));
}

#[tokio::test]
async fn what_a_peer_ends_does_not_pile_up_while_it_takes_nothing() {
    let mut peer = connect(0);
    // Neither of these is answered.
    for _ in 0..100 {
        peer.say(r#"{"type":"subscribe","channel":"store-events"}"#);
        peer.say(r#"{"type":"unsubscribe","channel":"store-events"}"#);
    }
    peer.say("nonsense");
    let begun = Instant::now();
    while peer.room.heard() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it hears nothing");
        tokio::task::yield_now().await;
    }
    // What it ended is still there, and it hears no more.
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(peer.room.heard(), 2);
    peer.room.grow(10);
    assert!(peer.hear().await.contains("error"));
    assert_eq!(peer.room.heard(), 201);
}
