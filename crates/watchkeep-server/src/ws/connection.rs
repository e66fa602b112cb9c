//! One WebSocket connection.
//!
//! Nothing queues between a subscription and the socket: a subscription is asked for its next message only when the
//! socket can take one, each in its turn. A message of the client's is looked at only when the answer to the one before
//! has gone out. So a client costs one message each way, and the socket's buffer.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Error;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, close_code};
use axum::http::StatusCode;
use futures_core::Stream;
use futures_util::stream::{AbortHandle, Abortable, SelectAll};
use futures_util::{Sink, SinkExt as _, StreamExt as _};
use tokio::time::{Instant, Sleep, timeout};
use watchkeep::Filter;

use crate::access::{self, Entrance, Right, Secret};
use crate::admission::{Load, Stranger, Weight};
use crate::change::Values;
use crate::gate::Gate;
use crate::limits::{
    AUTH_TIME, CLOSE_TIME, FILTER, HEARTBEAT, LEAVE_TIME, MAX_FIRST_MESSAGE, SILENCE, STALL_RATE, WRITE,
};
use crate::problem::Problem;
use crate::settings::Limit;
use crate::subscription::{Snapshots, Subscription, Told, Wanted};

use super::message::{self, Asked, Id, Refused};
use super::original::{self, Original};
use super::reply;

/// What a connection is spoken to through.
pub(super) trait Socket:
    Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Send + Unpin
{
}

impl<S> Socket for S where
    S: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Send + Unpin
{
}

/// Whose messages these are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Name {
    Id(Id),
    /// The channel of the original.
    Channel,
}

impl Name {
    fn of(asked: &Asked) -> Name {
        match asked {
            Asked::Auth(id, _)
            | Asked::Subscribe(id, _)
            | Asked::Unsubscribe(id)
            | Asked::Set(id, _)
            | Asked::Delete { id, .. } => Name::Id(id.clone()),
            Asked::Original(_) => Name::Channel,
        }
    }
}

/// A subscription under its name: a stream that ends after `Trouble` or `Bye`.
struct Named {
    name: Name,
    subscription: Pin<Box<Subscription>>,
    _weight: Weight,
}

impl Stream for Named {
    type Item = (Name, Told);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<(Name, Told)>> {
        let told = ready!(self.subscription.as_mut().poll_next(cx));
        Poll::Ready(told.map(|told| (self.name.clone(), told)))
    }
}

/// What came of a message.
struct Done {
    /// What is said to it; the original says nothing to some.
    reply: Option<Utf8Bytes>,
    begun: Option<Named>,
    /// Who it turned out to be.
    known: Option<Gate>,
}

type Running = Pin<Box<dyn Future<Output = Done> + Send>>;

/// How a connection ends.
#[derive(Debug)]
enum End {
    /// The peer is gone, or does not take what it is sent.
    Gone,
    /// The peer said goodbye; the answer is on its way.
    Closing,
    /// The server says goodbye.
    Close(u16, &'static str),
}

struct Connection<S> {
    entrance: Entrance,
    /// Held until it has said who it is.
    stranger: Option<Stranger>,
    /// What it holds while it is open.
    load: Load,
    /// Resolves when its client may use it no more.
    over: Pin<Box<dyn Future<Output = &'static str> + Send>>,
    /// When it must have said who it is.
    auth_at: Option<Instant>,
    socket: S,
    subscriptions: SelectAll<Abortable<Named>>,
    names: HashMap<Name, AbortHandle>,
    /// What a message of the client's asked for.
    running: Option<Running>,
    /// What is said to it, as soon as the socket can take it.
    reply: Option<Utf8Bytes>,
    ending: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// When the connection is given up, once the server ends.
    leave_at: Option<Instant>,
    ping_at: Instant,
    silent_at: Instant,
    /// How long the last message was: with the socket's buffer, what may be left to take.
    last_sent: usize,
    /// How much was sent since others were last let in.
    burst: usize,
    /// Since when the peer has not taken all.
    stalled_since: Option<Instant>,
    /// The socket takes no more.
    is_full: bool,
    timer: Pin<Box<Sleep>>,
}

/// Serves a connection until either side ends it.
pub(super) async fn run<S: Socket>(entrance: Entrance, stranger: Option<Stranger>, load: Load, socket: S) {
    let now = Instant::now();
    let mut connection = Connection {
        ending: Box::pin(entrance.ending().wait()),
        over: entrance.over(),
        auth_at: matches!(entrance, Entrance::Unknown(..)).then(|| now + AUTH_TIME),
        entrance,
        stranger,
        load,
        socket,
        subscriptions: SelectAll::new(),
        names: HashMap::new(),
        running: None,
        reply: None,
        leave_at: None,
        ping_at: now + HEARTBEAT,
        silent_at: now + SILENCE,
        last_sent: 0,
        burst: 0,
        stalled_since: None,
        is_full: false,
        timer: Box::pin(tokio::time::sleep(HEARTBEAT)),
    };
    let end = std::future::poll_fn(|cx| connection.poll(cx)).await;
    let Connection { mut socket, subscriptions, .. } = connection;
    drop(subscriptions);
    tracing::debug!(?end, "a WebSocket connection ends");
    let farewell = match end {
        End::Gone => return,
        End::Closing => None,
        End::Close(code, reason) => Some(Message::Close(Some(CloseFrame { code, reason: reason.into() }))),
    };
    let goodbye = async {
        if let Some(farewell) = farewell {
            socket.send(farewell).await?;
        }
        // Read to the end: a socket that is closed with something unread takes back what it sent.
        while let Some(message) = socket.next().await {
            message?;
        }
        Ok::<(), Error>(())
    };
    // A peer that does not answer is left.
    let _ = timeout(CLOSE_TIME, goodbye).await;
}

impl<S: Socket> Connection<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(end) = self.poll_over(cx) {
            return Poll::Ready(end);
        }
        if self.leave_at.is_none() && self.ending.as_mut().poll(cx).is_ready() {
            self.leave_at = Some(Instant::now() + LEAVE_TIME);
        }
        self.burst = 0;
        loop {
            match self.step(cx) {
                Ok(true) if self.burst >= WRITE => {
                    cx.waker().wake_by_ref();
                    break;
                }
                Ok(true) => {}
                Ok(false) => break,
                Err(end) => return Poll::Ready(end),
            }
        }
        // It may have shown another token, whose end has to wake us as well.
        if let Some(end) = self.poll_over(cx) {
            return Poll::Ready(end);
        }
        if self.leave_at.is_some()
            && self.subscriptions.is_empty()
            && self.running.is_none()
            && self.reply.is_none()
        {
            return Poll::Ready(End::Close(close_code::AWAY, "the server ends; come back"));
        }
        match self.socket.poll_flush_unpin(cx) {
            Poll::Ready(Ok(())) => self.taken(),
            Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
            Poll::Pending => self.stalls(),
        }
        self.poll_timer(cx)
    }

    /// Its token ended.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Option<End> {
        match self.over.as_mut().poll(cx) {
            Poll::Ready(why) => Some(End::Close(close_code::POLICY, why)),
            Poll::Pending => None,
        }
    }

    /// One message in each direction at most; whether there may be more.
    fn step(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        if let Some(running) = &mut self.running
            && let Poll::Ready(done) = running.as_mut().poll(cx)
        {
            self.running = None;
            self.finish(done);
            moved = true;
        }
        let takes = match self.socket.poll_ready_unpin(cx) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(_)) => return Err(End::Gone),
            Poll::Pending => false,
        };
        // It takes more again only when it has written all that it held.
        if takes && self.is_full {
            self.taken();
        }
        self.is_full = !takes;
        if takes && let Some(reply) = self.reply.take() {
            self.send(Message::Text(reply))?;
            return Ok(true);
        }
        // Before the client is heard: this is what lets go of the subscriptions that ended.
        if takes && let Poll::Ready(Some((name, told))) = self.subscriptions.poll_next_unpin(cx) {
            self.tell(&name, &told)?;
            moved = true;
        }
        if self.hears()
            && let Poll::Ready(message) = self.socket.poll_next_unpin(cx)
        {
            self.hear(message)?;
            moved = true;
        }
        Ok(moved)
    }

    /// Whether the next message of the client's is looked at: what the one before asked for is done then, and what it
    /// ended is gone, with all that it held.
    fn hears(&self) -> bool {
        self.running.is_none()
            && self.reply.is_none()
            && self.leave_at.is_none()
            && self.subscriptions.len() <= self.names.len()
    }

    fn send(&mut self, message: Message) -> Result<(), End> {
        self.last_sent = match &message {
            Message::Text(text) => text.len(),
            _ => 0,
        };
        self.burst += self.last_sent;
        self.socket.start_send_unpin(message).map_err(|_| End::Gone)
    }

    fn tell(&mut self, name: &Name, told: &Told) -> Result<(), End> {
        if matches!(told, Told::Trouble(_) | Told::Bye(_)) {
            self.names.remove(name);
        }
        let message = match name {
            Name::Id(id) => reply::of(id, told),
            Name::Channel => original::of(told),
        };
        message.map_or(Ok(()), |message| self.send(Message::Text(message)))
    }

    /// A message of the client's, or its end.
    fn hear(&mut self, message: Option<Result<Message, Error>>) -> Result<(), End> {
        self.silent_at = Instant::now() + SILENCE;
        match message {
            None => Err(End::Gone),
            Some(Err(error)) => Err(broken(error)),
            Some(Ok(Message::Close(_))) => Err(End::Closing),
            Some(Ok(Message::Binary(_))) => Err(End::Close(
                close_code::UNSUPPORTED,
                "messages are JSON texts; send a value as value_base64",
            )),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
            Some(Ok(Message::Text(text))) => {
                match message::read(&text) {
                    Ok(Asked::Auth(id, token)) => self.authenticate(id, token),
                    // Who does not say so first gets no answer, which could tell something.
                    _ if self.auth_at.is_some() => {
                        return Err(End::Close(close_code::POLICY, "the first message says who you are"));
                    }
                    Ok(asked) => {
                        if let Err(refused) = self.carry_out(asked) {
                            self.reply = Some(refused);
                        }
                    }
                    Err(Refused { id, problem }) => self.reply = Some(reply::error(id.as_deref(), &problem)),
                }
                Ok(())
            }
        }
    }

    /// The gate for a request, or what is said instead.
    fn gate(&self, name: &Name, right: Right) -> Result<Gate, Utf8Bytes> {
        // What it begins ends with the connection, which may live on with another token.
        self.entrance.gate(right).map(Gate::without_end).map_err(|problem| refusal(name, &problem))
    }

    /// Carries out a message, or says at once why not.
    fn carry_out(&mut self, asked: Asked) -> Result<(), Utf8Bytes> {
        self.load.ask().map_err(|problem| refusal(&Name::of(&asked), &problem))?;
        match asked {
            Asked::Auth(id, token) => self.authenticate(id, token),
            Asked::Subscribe(id, wanted) => self.subscribe(Name::Id(id), wanted)?,
            Asked::Unsubscribe(id) => self.reply = Some(self.unsubscribe(id)),
            Asked::Set(id, put) => {
                let gate = self.gate(&Name::Id(id.clone()), Right::Write)?;
                self.write(id, async move { gate.current().await?.put(put).await });
            }
            Asked::Delete { id, group, key, condition } => {
                let gate = self.gate(&Name::Id(id.clone()), Right::Write)?;
                self.write(id, async move {
                    let missing = format!("group {group:?} has no key {key:?}");
                    match gate.current().await?.delete(group, key, condition).await? {
                        (true, at) => Ok(at),
                        (false, _) => Err(Problem::new(StatusCode::NOT_FOUND, "not_found", missing)),
                    }
                });
            }
            Asked::Original(Original::Subscribe) if self.names.contains_key(&Name::Channel) => {}
            Asked::Original(Original::Subscribe) => {
                let wanted = Wanted {
                    filter: Filter::everything(),
                    weight: FILTER,
                    snapshots: Snapshots::Never,
                    after: None,
                    exclude_origin: None,
                    values: Values::All,
                };
                self.subscribe(Name::Channel, wanted)?;
            }
            Asked::Original(Original::Unsubscribe) => {
                if let Some(subscription) = self.names.remove(&Name::Channel) {
                    subscription.abort();
                }
            }
            Asked::Original(Original::Ping) => self.reply = Some(original::pong()),
            Asked::Original(Original::Unknown(channel)) => {
                let detail = format!("there is no channel {channel:?}; there is {}", original::CHANNEL);
                return Err(original::refusal(&Problem::bad(detail)));
            }
        }
        Ok(())
    }

    /// Finds out who asks, or whether it may go on with another token.
    fn authenticate(&mut self, id: Id, token: Option<Secret>) {
        let (entrance, load) = (self.entrance.clone(), self.load.clone());
        self.running = Some(Box::pin(async move {
            let known = match token {
                Some(token) => entrance.show(&token).await,
                None => Err(access::mistyped()),
            };
            let known = known.and_then(|gate| load.bear(&gate.pass).map(|()| gate));
            let (reply, known) = match known {
                Ok(gate) => (reply::done(&id, None), Some(gate)),
                Err(problem) => (reply::error(Some(&id), &problem), None),
            };
            Done { reply: Some(reply), begun: None, known }
        }));
    }

    fn write(
        &mut self,
        id: Id,
        writing: impl Future<Output = Result<crate::gate::Position, Problem>> + Send + 'static,
    ) {
        self.running = Some(Box::pin(async move {
            let reply = match writing.await {
                Ok(at) => reply::done(&id, Some(&at)),
                Err(problem) => reply::error(Some(&id), &problem),
            };
            Done { reply: Some(reply), begun: None, known: None }
        }));
    }

    fn subscribe(&mut self, name: Name, wanted: Wanted) -> Result<(), Utf8Bytes> {
        if let Some(problem) = self.refuse(&name) {
            return Err(refusal(&name, &problem));
        }
        let gate = self.gate(&name, Right::Watch)?;
        let weight = self.load.filter(wanted.weight).map_err(|problem| refusal(&name, &problem))?;
        self.running = Some(Box::pin(async move {
            let begun = match gate.current().await {
                Ok(gate) => Subscription::begin(&gate, wanted).await,
                Err(problem) => Err(problem),
            };
            let (reply, begun) = match begun {
                // Its `ready` or `reset` is the answer.
                Ok(begun) => (None, Some(Named { name, subscription: Box::pin(begun), _weight: weight })),
                Err(problem) => (Some(refusal(&name, &problem)), None),
            };
            Done { reply, begun, known: None }
        }));
        Ok(())
    }

    fn refuse(&self, name: &Name) -> Option<Problem> {
        if self.names.contains_key(name) {
            let detail = "a subscription has this id; take another, or unsubscribe that one first";
            return Some(Problem::new(StatusCode::CONFLICT, "id_in_use", detail));
        }
        let most = self.load.admission.limits().size(Limit::Subscriptions);
        (self.names.len() >= most).then(|| self.load.admission.refusal(Limit::Subscriptions))
    }

    fn unsubscribe(&mut self, id: Id) -> Utf8Bytes {
        match self.names.entry(Name::Id(id.clone())) {
            Entry::Occupied(subscription) => {
                subscription.remove().abort();
                reply::done(&id, None)
            }
            Entry::Vacant(_) => {
                let detail = "no subscription has this id; it may have ended by itself";
                reply::error(Some(&id), &Problem::new(StatusCode::NOT_FOUND, "not_found", detail))
            }
        }
    }

    fn finish(&mut self, done: Done) {
        // Nothing was read meanwhile, so it may have spoken.
        self.silent_at = Instant::now() + SILENCE;
        self.reply = done.reply;
        if let Some(gate) = done.known {
            (self.over, self.auth_at, self.stranger) = (Box::pin(gate.over()), None, None);
            self.entrance = Entrance::Known(gate);
        }
        if let Some(begun) = done.begun {
            let (abort, registration) = AbortHandle::new_pair();
            self.names.insert(begun.name.clone(), abort);
            self.subscriptions.push(Abortable::new(begun, registration));
        }
    }

    /// Everything that was written is taken.
    fn taken(&mut self) {
        if self.stalled_since.take().is_some() {
            // Nothing was read while an answer waited, so it may have spoken.
            self.silent_at = Instant::now() + SILENCE;
        }
    }

    fn stalls(&mut self) {
        self.stalled_since.get_or_insert_with(Instant::now);
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let now = Instant::now();
            if self.auth_at.is_some_and(|at| at <= now) {
                return Poll::Ready(End::Close(close_code::POLICY, "no good token came in time"));
            }
            let stall = self.load.admission.time(Limit::StallSeconds);
            let allowed = stall + Duration::from_secs((self.last_sent / STALL_RATE) as u64);
            let stalled_at = self.stalled_since.map(|since| since + allowed);
            // Who is not read from cannot be heard.
            let silent_at = self.hears().then_some(self.silent_at);
            if [stalled_at, silent_at, self.leave_at].into_iter().flatten().any(|at| at <= now) {
                return Poll::Ready(End::Gone);
            }
            // A peer that takes nothing needs no ping to be found out.
            let ping_at = self.stalled_since.is_none().then_some(self.ping_at);
            if ping_at.is_some_and(|at| at <= now) {
                self.ping_at = now + HEARTBEAT;
                if self.send(Message::Ping(bytes::Bytes::new())).is_err() {
                    return Poll::Ready(End::Gone);
                }
                if self.socket.poll_flush_unpin(cx).is_pending() {
                    self.stalls();
                }
                continue;
            }
            let Some(next) =
                [stalled_at, silent_at, self.leave_at, ping_at, self.auth_at].into_iter().flatten().min()
            else {
                return Poll::Pending;
            };
            if self.timer.deadline() != next {
                self.timer.as_mut().reset(next);
            }
            ready!(self.timer.as_mut().poll(cx));
        }
    }
}

fn refusal(name: &Name, problem: &Problem) -> Utf8Bytes {
    match name {
        Name::Id(id) => reply::error(Some(id), problem),
        Name::Channel => original::refusal(problem),
    }
}

/// What a peer is told whose bytes make no message.
fn broken(error: Error) -> End {
    use tungstenite::Error as Cause;
    use tungstenite::error::CapacityError::MessageTooLong;
    match error.into_inner().downcast_ref::<Cause>() {
        Some(Cause::Capacity(MessageTooLong { max_size: MAX_FIRST_MESSAGE, .. })) => End::Close(
            close_code::SIZE,
            "a message has at most 256 KiB here; connect with the token in a header, or PUT the value",
        ),
        Some(Cause::Capacity(_)) => End::Close(close_code::SIZE, "a message has at most 24 MiB"),
        Some(Cause::Utf8(_)) => End::Close(close_code::INVALID, "a text is UTF-8"),
        Some(Cause::Protocol(_)) => End::Close(close_code::PROTOCOL, "this is not RFC 6455"),
        _ => End::Gone,
    }
}
